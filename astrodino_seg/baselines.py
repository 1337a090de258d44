# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Traditional tools as callables, `~astrodino_seg.Image` to
`~photutils.segmentation.SegmentationImage`, for comparison.
"""

import warnings

import numpy as np
from astropy.convolution import convolve
from photutils.background import Background2D
from photutils.segmentation import SourceFinder, make_2dgaussian_kernel
from photutils.utils.exceptions import NoDetectionsWarning

__all__ = ['PhotutilsFinder', 'detection_image']


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


class PhotutilsFinder:
    """
    `Background2D`, then `SourceFinder` on the bands' summed S/N, smoothed.

    Parameters
    ----------
    n_sigma : float, optional
        Detection threshold in units of the noise before smoothing, as in
        photutils' own tutorial.
    n_pixels : int, optional
        See `~photutils.segmentation.SourceFinder`; so for the rest, which
        have photutils' defaults.
    connectivity, deblend, n_levels, contrast, mode
        See `~photutils.segmentation.SourceFinder`.
    box_size : int, optional
        Side of the background boxes in pixels.
    fwhm : float, optional
        FWHM in pixels of the Gaussian that the S/N is smoothed with.
    """

    def __init__(self, *, n_sigma=1.5, n_pixels=10, connectivity=8,
                 deblend=True, n_levels=32, contrast=0.001,
                 mode='exponential', box_size=64,
                 fwhm=3.0):
        self.n_sigma = n_sigma
        self.n_pixels = n_pixels
        self.connectivity = connectivity
        self.deblend = deblend
        self.n_levels = n_levels
        self.contrast = contrast
        self.mode = mode
        self.box_size = box_size
        self.fwhm = fwhm

    def __call__(self, image):
        """
        Segment an `~astrodino_seg.Image`.

        Returns
        -------
        segmentation_image : `~photutils.segmentation.SegmentationImage` or \
                `None`
            The labels, or `None` with a ``NoDetectionsWarning``.
        """
        sn, mask = detection_image(image, self.box_size)
        kernel = make_2dgaussian_kernel(self.fwhm, size=5)
        sn = convolve(sn, kernel)       # masked pixels are 0
        finder = SourceFinder(self.n_pixels, connectivity=self.connectivity,
                              deblend=self.deblend, n_levels=self.n_levels,
                              contrast=self.contrast, mode=self.mode,
                              progress_bar=False)
        found = None if mask.all() else finder(sn, self.n_sigma, mask=mask)
        if found is None:
            warnings.warn('No sources were found.', NoDetectionsWarning,
                          stacklevel=2)
        return found
