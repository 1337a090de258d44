# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
From images to results: one, or many, of which small ones of one shape pass
the network together.
"""

import warnings
from functools import partial
from os import PathLike
from pathlib import Path

import numpy as np

from astrodino_seg.errors import AstroDinoUserWarning
from astrodino_seg.image import as_image
from astrodino_seg.inputs.background import background_cube, threshold_cube
from astrodino_seg.inputs.channels import tell_no_noise
from astrodino_seg.predict.instances import find_all, has_pixels, inputs_of
from astrodino_seg.result import result_of

#: Images of at most `SMALL` pixels are seen so many at once: twice as many
#: take no less time for each.
AT_ONCE, SMALL = 16, 256**2


def read(finder, data, threshold=None, *, background=None, **planes):
    """An image, with threshold and background of its pixels."""
    image = as_image(data, **planes)
    # an Image that was handed in is itself the input
    order = range(image.n_bands) if image is data else image.order
    limit = threshold_cube(threshold, image, order)
    if limit is not None and finder.n_sigma is not None:
        msg = f'n_sigma={finder.n_sigma} is not used, as there is a threshold'
        warnings.warn(msg, AstroDinoUserWarning)
    return image, limit, background_cube(background, image, order)


def results_of(finder, some):
    """Yield the results, or `None`, of what was `read`, of one shape."""
    model = finder._fetch_model()
    images, limits, backgrounds = zip(*some)
    parts, planes = zip(*inputs_of(
        model, images, backgrounds, device=finder.device,
        tile_size=finder.tile_size))
    found = find_all(
        model, planes, [_rules(finder, *one) for one in zip(
            images, limits, parts)], n_pixels=finder.n_pixels,
        bin_factor=finder.bin_factor or model.binning(parts[0].channels),
        connectivity=finder.connectivity, merge=finder.merge,
        min_seed=finder.min_seed, tile_size=finder.tile_size,
        device=finder.device, progress=finder.progress_bar)
    for image, one, instances in zip(images, parts, found):
        yield result_of(image, one, instances, model)


def _rules(finder, image, limit, normalised):
    """What pixels are not used, and which labels are kept."""
    tell_no_noise(image, normalised.noise)
    detected = True
    if limit is not None:
        pedestal = np.array(image.pedestal)[:, None, None]
        detected = ((image.cube > limit - pedestal)
                    & ~image.mask).any(axis=0)
    elif finder.n_sigma is not None:
        detected = normalised.channels[0] > np.arcsinh(
            finder.n_sigma / finder.model_.preprocess.softening)

    def keep(labels, n):
        return has_pixels(np.where(detected, labels, 0), n, finder.n_pixels,
                          finder.connectivity)

    return {'mask': ~np.isfinite(normalised.noise).any(axis=0), 'keep': keep}


def segment_all(finder, images, *, mask=None, error=None, **options):
    """As `DinoSegmenter.segment_many`, without its checks."""
    if isinstance(images, (str, PathLike)):
        images = fits_files(images)
    return segment_each(finder, (
        (data, {'mask': _own(mask, k), 'error': _own(error, k), **options})
        for k, data in enumerate(images)))


def segment_each(finder, items):
    """
    Yield a result, `None` or an error for each of pairs of an image, or an
    error in its place, and the options of `read`.
    """
    for some in _batches(partial(_try_to_read, finder), items):
        yield from _segment(finder, some)


def fits_files(folder):
    """The FITS files of a folder, in the order of their names."""
    ends = tuple(f'.{kind}{packed}' for kind in ('fits', 'fit')
                 for packed in ('', '.fz', '.gz', '.bz2'))
    return sorted(str(path) for path in Path(folder).iterdir()
                  if path.name.endswith(ends))


def _own(planes, k):
    """Those of image ``k``, where there are some for each."""
    each = isinstance(planes, (list, tuple)) or np.ndim(planes) == 4
    return planes[k] if each else planes


def _try_to_read(finder, item):
    """What is segmented, or the error that it cannot be read by."""
    data, options = item
    try:
        if data is None:
            msg = 'data is None: there is no image'
            raise ValueError(msg)
        if isinstance(data, Exception):
            return data
        return read(finder, data, **options)
    except Exception as err:        # noqa: BLE001  it is handed on
        return err


def _batches(readable, items):
    """Small images of one shape that follow one another; others alone."""
    some, shape = [], None
    for one in map(readable, items):
        if not isinstance(one, Exception):
            new = one[0].shape
            if some and (new != shape or np.prod(new) > SMALL):
                yield some
                some = []
            shape = new
        some.append(one)
        if len(some) == AT_ONCE:
            yield some
            some = []
    if some:
        yield some


def _segment(finder, some):
    """The results of a batch, `None` or an error each."""
    good = [one for one in some if not isinstance(one, Exception)]
    try:
        found = list(results_of(finder, good)) if good else []
    except Exception as err:        # noqa: BLE001  of one of them
        found = [err] if len(good) == 1 else [
            _segment(finder, [one])[0] for one in good]
    found = iter(found)
    return [one if isinstance(one, Exception) else next(found)
            for one in some]
