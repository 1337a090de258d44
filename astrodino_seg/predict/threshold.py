# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The detection threshold, as photutils means it, for several bands.
"""

import numpy as np
from astropy import units as u
from skimage.measure import label as label_regions

__all__ = ['has_pixels', 'threshold_cube']


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
    if isinstance(threshold, dict):
        if set(threshold) != set(image.bands):
            msg = (f'threshold is for the bands {list(threshold)}, data has '
                   f'{list(image.bands)}')
            raise ValueError(msg)
        values = [_in_unit(threshold[band], image) for band in image.bands]
    else:
        values = _in_unit(threshold, image)
        values = [values] if values.ndim in (0, 2) else list(values)
        if len(values) == image.n_bands > 1:
            values = [values[i] for i in order]
    if (len(values) not in (1, image.n_bands)
            or any(v.shape not in ((), image.shape) for v in values)):
        msg = (f'threshold must be one value, an image of shape {image.shape} '
               f'or one of these for each of {image.n_bands} bands, got the '
               f'shapes {[v.shape for v in values]}')
        raise ValueError(msg)
    values = np.stack([np.broadcast_to(v, image.shape) for v in values])
    if np.isnan(values).any():
        msg = 'threshold must not be NaN'
        raise ValueError(msg)
    return values


def _in_unit(threshold, image):
    """The threshold's value in the image's unit."""
    unit = getattr(threshold, 'unit', None)
    if (unit is None) != (image.unit is None):
        msg = (f'threshold has unit {unit} but data has unit {image.unit}; '
               'give both a unit or neither')
        raise ValueError(msg)
    try:
        if unit is not None:
            threshold = u.Quantity(threshold).to_value(image.unit)
        return np.asarray(threshold, float)
    except (TypeError, ValueError) as err:
        msg = (f'threshold must be numbers in the unit of data '
               f'({image.unit}), got {threshold!r}')
        raise ValueError(msg) from err
