# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The input of a model, with a sky that was measured beside the objects.
"""

from dataclasses import replace

import numpy as np
from scipy.ndimage import distance_transform_edt, label

from astrodino_seg.image import Image
from astrodino_seg.inputs.channels import normalise
from astrodino_seg.inputs.rules import NoiseUnits
from astrodino_seg.predict.pyramid import LEAST_SIDE, look

__all__ = ['find_objects', 'input_of']

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


def input_of(model, image, *, background=None, **options):
    """
    Make what a model takes from an image.

    Parameters
    ----------
    model : `~astrodino_seg.Model` or \
            `~astrodino_seg.models.semantic.SemanticModel`
        The model, ready to run.
    image : `~astrodino_seg.Image`
        The image.
    background : optional
        As ``given`` of
        `~astrodino_seg.inputs.background.measure_background`.
    **options
        As of `find_objects`.

    Returns
    -------
    normalised : `~astrodino_seg.inputs.channels.Normalised`
        The image in units of its noise, its background and its noise. A
        model of instances in these units finds the objects first, and the
        background is then measured beside them.
    planes : `~numpy.ndarray`
        (C, y, x) float32 of the model's ``planes``.
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

    Parameters
    ----------
    model : `~astrodino_seg.Model`
        The model, ready to run, without planes of its own.
    image : `~astrodino_seg.Image`
        The image.
    **options
        Of `~astrodino_seg.predict.pyramid.look`.

    Returns
    -------
    objects : `~numpy.ndarray` or `None`
        (y, x) bool; `None` if the image is too small to be binned.
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
