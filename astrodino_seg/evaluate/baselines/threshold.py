# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
A threshold and deblending, by photutils.
"""

import warnings
from dataclasses import dataclass

from photutils.segmentation import SourceFinder
from photutils.utils.exceptions import NoDetectionsWarning

from astrodino_seg.evaluate.baselines.base import Baseline
from astrodino_seg.evaluate.baselines.detection import smooth

__all__ = ['PhotutilsFinder']


@dataclass(kw_only=True)
class PhotutilsFinder(Baseline):
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
        See `~photutils.segmentation.SourceFinder`. Without ``deblend`` this
        is `~photutils.segmentation.detect_sources` alone.
    box_size : int, optional
        Side of the background boxes in pixels.
    fwhm : float, optional
        FWHM in pixels of the Gaussian that the S/N is smoothed with; 0 for
        none.
    """

    n_sigma: float = 1.5
    n_pixels: int = 10
    connectivity: int = 8
    deblend: bool = True
    n_levels: int = 32
    contrast: float = 0.001
    mode: str = 'exponential'
    box_size: int = 64
    fwhm: float = 3.0

    def _find(self, sn, mask):
        finder = SourceFinder(self.n_pixels, connectivity=self.connectivity,
                              deblend=self.deblend, n_levels=self.n_levels,
                              contrast=self.contrast, mode=self.mode,
                              progress_bar=False)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', NoDetectionsWarning)
            return finder(smooth(sn, self.fwhm), self.n_sigma, mask=mask)
