# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What all baselines have in common, and the image that all detect on.
"""

import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import ceil
from numbers import Integral, Real

import numpy as np
from astropy.convolution import convolve
from photutils.background import Background2D
from photutils.segmentation import SegmentationImage, make_2dgaussian_kernel
from photutils.utils.exceptions import NoDetectionsWarning

from astrodino_seg.errors import check_settings

_POSITIVE = (Real, lambda v: v > 0, 'a positive number')
_NOT_NEGATIVE = (Real, lambda v: v >= 0, 'a number, 0 or more')
_COUNT = (Integral, lambda v: v >= 1, 'a positive integer')
_SHARE = (Real, lambda v: 0 <= v <= 1, 'a number in [0, 1]')
_QUANTILE = (Real, lambda v: 0 < v < 1, 'a number in (0, 1)')
_SWITCH = (bool, lambda v: True, 'True or False')
_MODES = 'exponential', 'sinh', 'linear'
_DETECTORS = 'find_peaks', 'DAOStarFinder'
# for each parameter what `check_settings` takes; the same name means the same
# in all baselines
_RULES = {
    'n_sigma': _POSITIVE,
    'n_pixels': _COUNT,
    'connectivity': (Integral, lambda v: v in (4, 8), '4 or 8'),
    'deblend': _SWITCH,
    'n_levels': _COUNT,
    'contrast': _SHARE,
    'mode': (str, lambda v: v in _MODES, f'one of {_MODES}'),
    'box_size': _COUNT,
    'fwhm': _NOT_NEGATIVE,
    'clean': _SWITCH,
    'detector': (str, lambda v: v in _DETECTORS, f'one of {_DETECTORS}'),
    'min_separation': _POSITIVE,
    'saddle': _SHARE,
    'prominence': _NOT_NEGATIVE,
    'tile_size': _COUNT,
    'qthresh': _QUANTILE,
    'dthresh': (Real, lambda v: abs(v) < np.inf, 'a finite number'),
    'snquant': _QUANTILE,
    'detgrowquant': (Real, lambda v: 0 < v <= 1, 'a number in (0, 1]'),
    'clump_snquant': _QUANTILE,
    'gthresh': (Real, lambda v: abs(v) < np.inf, 'a finite number'),
    'objbordersn': _NOT_NEGATIVE,
    'move_factor': _NOT_NEGATIVE,
    'min_distance': _NOT_NEGATIVE,
    'gain': ((Real, type(None)), lambda v: v is None or v > 0,
             'a positive number or None'),
    'timeout': _POSITIVE,
}


class Baseline(ABC):
    """
    A traditional tool: an `~astrodino_seg.Image` in, labels out.

    A subclass is a dataclass whose fields are its settings, which are looked
    at when it is called; its `_find` takes a detection image.
    """

    def __call__(self, image):
        """
        The `~photutils.segmentation.SegmentationImage` of an image, or `None`
        with a ``NoDetectionsWarning``.
        """
        self._validate()
        return self.find(*detection_image(image, self.box_size))

    def find(self, sn, mask):
        """
        The same of a `detection_image`: (y, x) S/N, 0 in masked pixels, and
        the (y, x) bool mask.
        """
        self._validate()
        self.require()
        found = self._find(sn, mask) if sn.any() else None
        if found is None:
            warnings.warn('No sources were found.', NoDetectionsWarning,
                          stacklevel=3)
        return found

    def require(self):  # noqa: B027  most need nothing
        """What is run, or an `ImportError` that says what is missing."""

    @abstractmethod
    def _find(self, sn, mask):
        """What `find` returns; there is a pixel that is not 0."""

    def _validate(self):
        check_settings(vars(self), _RULES)


@dataclass(kw_only=True)
class Extractor(Baseline):
    """
    Source Extractor (Bertin & Arnouts 1996, A&AS, 117, 393), by its defaults.
    """

    n_sigma: float = 1.5
    n_pixels: int = 5
    n_levels: int = 32
    contrast: float = 0.005
    #: Whether to drop objects that the wings of a neighbour explain.
    clean: bool = True
    fwhm: float = 2.0
    box_size: int = 64


def segmentation_image(labels, mask, n_pixels):
    """
    Labels of a tool as photutils has them: from 1 without gaps, int32.

    Labels of 0 or less, and masked pixels, are sky, and objects of fewer than
    ``n_pixels`` are dropped; `None` if there is none.
    """
    values, numbers, area = np.unique(
        np.where(mask, 0, np.maximum(labels, 0)), return_inverse=True,
        return_counts=True)
    keep = (values > 0) & (area >= n_pixels)
    if not keep.any():
        return None
    new = np.where(keep, np.cumsum(keep), 0).astype(np.int32)
    return SegmentationImage(new[numbers].reshape(labels.shape))


def detection_image(image, box_size=64):
    """
    The bands' S/N added up, by photutils' `Background2D`.

    Returns the (y, x) sum over the root of the number of valid bands, which
    has unit noise where bands are independent, and the (y, x) bool mask of
    pixels without a valid band, where it is 0.
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
    """S/N after a Gaussian of a FWHM in pixels, in units of before it."""
    if not fwhm:
        return sn
    size = max(5, 2 * ceil(fwhm) - 1)
    return convolve(sn, make_2dgaussian_kernel(fwhm, size=size))


def detection_kernel(fwhm):
    """
    The filter of Source Extractor, of sum 1, for a FWHM in pixels; that of 2
    is its default and that of SEP. `None` for 0.
    """
    if not fwhm:
        return None
    size = max(3, 2 * ceil(fwhm) - 1)
    return np.array(make_2dgaussian_kernel(fwhm, size=size, mode='center'))
