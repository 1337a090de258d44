# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Threshold and background, as photutils means them, for several bands.
"""

from collections.abc import Mapping

import numpy as np
from astropy import units as u
from skimage.measure import label as label_regions

__all__ = ['background_cube', 'has_pixels', 'threshold_cube']


def has_pixels(labels, n, n_pixels, connectivity):
    """
    Which labels have enough connected pixels.

    Parameters
    ----------
    labels : `~numpy.ndarray`
        (y, x) int, 0 where a pixel does not count.
    n : int
        The largest label.
    n_pixels : int
        How many pixels are enough.
    connectivity : {4, 8}
        How pixels are connected.

    Returns
    -------
    found : `~numpy.ndarray`
        (n,) bool, for the labels from 1.
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
    """
    The threshold of each pixel.

    Parameters
    ----------
    threshold : float, array_like, `~astropy.units.Quantity`, dict or `None`
        See `~astrodino_seg.DinoSegmenter`.
    image : `~astrodino_seg.Image`
        What it is for.
    order : sequence of int
        Position in the input of each of the image's bands.

    Returns
    -------
    limit : `~numpy.ndarray` or `None`
        Broadcasts with the image's cube; `None` without a threshold.

    Raises
    ------
    ValueError
        If shape, unit or bands do not fit the image.
    """
    if threshold is None:
        return None
    return _cube(threshold, image, order, 'threshold')


def background_cube(background, image, order):
    """
    The background of each pixel, where it is not to be measured.

    Parameters
    ----------
    background : {'none', 'flat'}, float, array_like, \
            `~astropy.units.Quantity`, \
            `~photutils.background.Background2D`, dict or `None`
        See `~astrodino_seg.DinoSegmenter`.
    image, order
        As of `threshold_cube`.

    Returns
    -------
    background : `~numpy.ndarray`, str or `None`
        As ``given`` of
        `~astrodino_seg.inputs.background.measure_background`.

    Raises
    ------
    ValueError
        If shape, unit or bands do not fit the image, or a value is not
        finite.
    """
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
