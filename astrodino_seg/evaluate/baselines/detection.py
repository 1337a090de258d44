# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The image that all baselines detect on.
"""

from math import ceil

import numpy as np
from astropy.convolution import convolve
from photutils.background import Background2D
from photutils.segmentation import make_2dgaussian_kernel

__all__ = ['detection_image', 'smooth']


def detection_image(image, box_size=64):
    """
    The bands' S/N added up, by photutils' `Background2D`.

    Parameters
    ----------
    image : `~astrodino_seg.Image`
        The image.
    box_size : int, optional
        Side of the background boxes in pixels.

    Returns
    -------
    sn : `~numpy.ndarray`
        (y, x) sum of the bands' S/N over the square root of the number of
        valid bands: unit noise where bands are independent.
    mask : `~numpy.ndarray`
        (y, x) bool, `True` where no band is valid.
    """
    total = np.zeros(image.shape)
    n_valid = np.zeros(image.shape)
    box = min(box_size, *image.shape)
    for b in range(image.n_bands):
        mask = image.mask[b]
        if mask.all():
            continue
        background = Background2D(image.cube[b], box, filter_size=3,
                                  mask=mask, exclude_percentile=90)
        sigma = (background.background_rms if image.noise is None
                 else image.noise[b])
        good = ~mask & (sigma > 0)
        sn = (image.cube[b] - background.background) / np.where(
            good, sigma, 1)
        total += np.where(good, sn, 0)
        n_valid += good
    return total / np.sqrt(np.maximum(n_valid, 1)), n_valid == 0


def smooth(sn, fwhm):
    """
    Smooth an image with a Gaussian.

    Parameters
    ----------
    sn : `~numpy.ndarray`
        (y, x) S/N.
    fwhm : float
        FWHM of the Gaussian in pixels; 0 for none.

    Returns
    -------
    smoothed : `~numpy.ndarray`
        (y, x) smoothed S/N, in units of the noise before smoothing.
    """
    if not fwhm:
        return sn
    size = max(5, 2 * ceil(fwhm) - 1)
    return convolve(sn, make_2dgaussian_kernel(fwhm, size=size))
