# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The input of a model, with a sky that was measured beside the objects; and
threshold and background, as photutils means them, for several bands.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from astropy import units as u
from scipy.ndimage import distance_transform_edt, label
from skimage.measure import label as label_regions

from astrodino_seg.image import Image
from astrodino_seg.inputs.channels import normalise
from astrodino_seg.inputs.rules import NoiseUnits
from astrodino_seg.predict.pyramid import LEAST_SIDE, look

#: Pixels, in x and in y, that are binned: in a quarter of the noise a galaxy
#: is seen further out, and in a sixteenth of the time.
BIN_FACTOR = 4
#: Least probability of the sky.
SKY = 0.7
#: What is no sky is grown by this share of its radius, for its outskirts.
GROW = 0.25
#: Share of the image that is left as sky in any case: the likeliest.
LEAST_SKY = 0.1
#: The first time the background is that beside the brightest only.
N_PASSES = 2


def has_pixels(labels, n, n_pixels, connectivity):
    """
    Which labels have enough connected pixels.

    ``labels`` (y, x) int -> ``found`` (n,) bool.
    """
    pieces, n_pieces = label_regions(labels, background=0, return_num=True,
                                     connectivity=connectivity // 4)
    owner = np.zeros(n_pieces + 1, int)
    owner[pieces.ravel()] = labels.ravel()
    area = np.bincount(pieces.ravel(), minlength=n_pieces + 1)
    found = np.zeros(n + 1, bool)
    found[owner[area >= n_pixels]] = True
    return found[1:]


def threshold_cube(threshold, image, order):
    """The threshold of each pixel."""
    if threshold is None:
        return None
    return _cube(threshold, image, order, 'threshold')


def background_cube(background, image, order):
    """The background of each pixel, where it is not to be measured."""
    if background is None:
        return None
    if isinstance(background, str):
        if background not in ('none', 'flat'):
            msg = ("background must be 'none', 'flat', a number or an image, "
                   f'got {background!r}')
            raise ValueError(msg)
        return background
    values = _cube(_values_of(background), image, order, 'background')
    if not np.isfinite(values).all():
        msg = 'background must be finite'
        raise ValueError(msg)
    # of the image as it came
    return values - np.array(image.pedestal)[:, None, None]


def _values_of(background):
    """The image in an object of photutils, if there is one."""
    if isinstance(background, Mapping):
        return {band: _values_of(one) for band, one in background.items()}
    return getattr(background, 'background', background)


def _cube(given, image, order, name):
    """One value, or one a band, of each pixel."""
    if isinstance(given, Mapping):
        if set(given) != set(image.bands):
            msg = (f'{name} is for the bands {list(given)}, data has '
                   f'{list(image.bands)}')
            raise ValueError(msg)
        values = [_in_unit(given[band], image, name) for band in image.bands]
    else:
        values = _in_unit(given, image, name)
        values = [values] if values.ndim in (0, 2) else list(values)
        if len(values) == image.n_bands > 1:
            values = [values[i] for i in order]
    if (len(values) not in (1, image.n_bands)
            or any(v.shape not in ((), image.shape) for v in values)):
        msg = (f'{name} must be one value, an image of shape {image.shape} '
               f'or one of these for each of {image.n_bands} bands, got the '
               f'shapes {[v.shape for v in values]}')
        raise ValueError(msg)
    values = np.stack([np.broadcast_to(v, image.shape) for v in values])
    if np.isnan(values).any():
        msg = f'{name} must not be NaN'
        raise ValueError(msg)
    return values


def _in_unit(given, image, name):
    """The values in the image's unit."""
    unit = getattr(given, 'unit', None)
    if (unit is None) != (image.unit is None):
        msg = (f'{name} has unit {unit} but data has unit {image.unit}; '
               'give both a unit or neither')
        raise ValueError(msg)
    try:
        if unit is not None:
            given = u.Quantity(given).to_value(image.unit)
        return np.asarray(given, float)
    except (TypeError, ValueError) as err:
        msg = (f'{name} must be numbers in the unit of data '
               f'({image.unit}), got {given!r}')
        raise ValueError(msg) from err


def input_of(model, image, *, background=None, **options):
    """
    Make what a model takes from an image.

    Gives ``planes`` (C, y, x) float32.
    """
    in_noise = isinstance(model.planes, NoiseUnits)
    objects = None
    if in_noise and hasattr(model, 'decision') and (
            background is None or isinstance(background, str)):
        objects = find_objects(model, image, **options)
    normalised = normalise(image, model.preprocess, objects=objects,
                           background=background)
    if in_noise:
        return normalised, normalised.channels
    if background is not None:          # other rules measure their own
        image = replace(image, cube=np.where(
            image.mask, 0, image.cube - normalised.background))
    return normalised, model.planes(image)


def find_objects(model, image, **options):
    """
    Tell the sky from what stands before it, faint outskirts included.

    Gives ``objects`` (y, x) bool.
    """
    factor = min(BIN_FACTOR,
                 2**int(np.log2(max(min(image.shape) / LEAST_SIDE, 1))))
    if factor < 2:
        return None
    binned = _bin(image, factor)
    spec = model.preprocess
    spec = replace(spec, box_size=max(spec.box_size // factor, 16))
    objects = None
    for _ in range(N_PASSES):
        channels = normalise(binned, spec, objects=objects).channels
        sky = None
        for level in look(model, channels, n_levels=2, **options):
            one = level.probabilities[0]
            if sky is not None:
                one = np.minimum(sky, _enlarge(one, 2, sky.shape))
            sky = one
        objects = _grow(sky < SKY)
        if objects.mean() > 1 - LEAST_SKY:
            objects = sky < np.quantile(sky, 1 - LEAST_SKY)
    return _enlarge(objects, factor, image.shape)


def _bin(image, n):
    """Means of the valid pixels of blocks; those at the edge may be less."""
    edges = ((0, 0), *((0, -side % n) for side in image.shape))

    def blocks(values):
        full = np.pad(values, edges)
        return full.reshape(len(full), full.shape[1] // n, n, -1, n).sum(
            axis=(2, 4), dtype=np.float32)

    n_valid = blocks(~image.mask)
    share = np.maximum(n_valid, 1)
    noise = image.noise
    if noise is not None:
        with np.errstate(over='ignore'):        # infinite, as good as that
            noise = np.sqrt(blocks(np.where(image.mask, 0, noise**2))) / share
        noise[n_valid == 0] = 1
    # of less than half a block the noise is another
    return Image(cube=blocks(image.cube) / share, mask=n_valid < n * n / 2,
                 noise=noise, bands=image.bands)


def _enlarge(values, factor, shape):
    """Pixels repeated, cut or continued to a shape."""
    y, x = (np.minimum(np.arange(n) // factor, m - 1)
            for n, m in zip(shape, values.shape))
    return values[np.ix_(y, x)]


def _grow(objects):
    """Connected pixels and those near by, further about larger ones."""
    labels, n = label(objects, np.ones((3, 3)))
    if n == 0:
        return objects
    radius = np.sqrt(np.bincount(labels.ravel())[1:] / np.pi)
    apart, nearest = distance_transform_edt(~objects, return_indices=True)
    return apart <= np.maximum(GROW * radius, 1)[labels[tuple(nearest)] - 1]
