# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What all baselines have in common.
"""

import warnings
from numbers import Integral, Real

import numpy as np
from photutils.segmentation import SegmentationImage
from photutils.utils.exceptions import NoDetectionsWarning

from astrodino_seg.evaluate.baselines.detection import detection_image

__all__ = ['Baseline', 'segmentation_image']

_POSITIVE = (Real, lambda v: v > 0, 'a positive number')
_NOT_NEGATIVE = (Real, lambda v: v >= 0, 'a number, 0 or more')
_COUNT = (Integral, lambda v: v >= 1, 'a positive integer')
_SHARE = (Real, lambda v: 0 <= v <= 1, 'a number in [0, 1]')
_QUANTILE = (Real, lambda v: 0 < v < 1, 'a number in (0, 1)')
_SWITCH = (bool, lambda v: True, 'True or False')
_MODES = 'exponential', 'sinh', 'linear'
_DETECTORS = 'find_peaks', 'DAOStarFinder'
# for each parameter its type, what else it must be, and that in words; the
# same name means the same in all baselines
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


class Baseline:
    """
    A traditional tool; `_find` says what it does with a detection image.

    A subclass is a dataclass whose fields are its settings, ``box_size``
    among them. They are looked at when it is called.
    """

    def __call__(self, image):
        """
        Segment an `~astrodino_seg.Image`.

        Parameters
        ----------
        image : `~astrodino_seg.Image`
            The image.

        Returns
        -------
        segmentation_image : `~photutils.segmentation.SegmentationImage` or \
                `None`
            The labels, or `None` with a ``NoDetectionsWarning``.

        Raises
        ------
        ValueError
            If a setting cannot be used; the message names it.
        ImportError
            If the tool is not there; of programs, a
            `~astrodino_seg.errors.MissingToolError`.
        RuntimeError
            If a program fails.
        """
        self._validate()
        return self.find(*detection_image(image, self.box_size))

    def find(self, sn, mask):
        """
        Segment a detection image, as of `detection_image`.

        Parameters
        ----------
        sn : `~numpy.ndarray`
            (y, x) S/N, 0 in masked pixels.
        mask : `~numpy.ndarray`
            (y, x) bool, `True` where there is no image.

        Returns
        -------
        segmentation_image : `~photutils.segmentation.SegmentationImage` or \
                `None`
            As of a call.
        """
        self._validate()
        self.require()
        found = self._find(sn, mask) if sn.any() else None
        if found is None:
            warnings.warn('No sources were found.', NoDetectionsWarning,
                          stacklevel=3)
        return found

    def require(self):
        """
        Raise an `ImportError` that says what is missing, if the tool is.
        """

    def _find(self, sn, mask):
        raise NotImplementedError

    def _validate(self):
        for name, value in vars(self).items():
            kind, is_right, words = _RULES[name]
            if (not isinstance(value, kind)
                    or isinstance(value, bool) and kind is not bool
                    or not is_right(value)):
                msg = f'{name} must be {words}, got {value!r}'
                raise ValueError(msg)


def segmentation_image(labels, mask, n_pixels):
    """
    Labels of a tool in the form that photutils has them.

    Parameters
    ----------
    labels : `~numpy.ndarray`
        (y, x) int, 0 or less where there is no object.
    mask : `~numpy.ndarray`
        (y, x) bool, `True` where no label may be.
    n_pixels : int
        Objects of fewer pixels are dropped.

    Returns
    -------
    segmentation_image : `~photutils.segmentation.SegmentationImage` or `None`
        Labels from 1 without gaps, int32; `None` if there are none.
    """
    values, numbers, area = np.unique(
        np.where(mask, 0, np.maximum(labels, 0)), return_inverse=True,
        return_counts=True)
    keep = (values > 0) & (area >= n_pixels)
    if not keep.any():
        return None
    new = np.where(keep, np.cumsum(keep), 0).astype(np.int32)
    return SegmentationImage(new[numbers].reshape(labels.shape))
