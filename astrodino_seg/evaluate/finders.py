# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Traditional tools as callables, `~astrodino_seg.Image` to
`~photutils.segmentation.SegmentationImage`, for comparison: what they have in
common, and those of photutils and scikit-image.

All of them look at the same detection image, the bands' S/N added up, and
differ only in what they do with it.
"""

import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import ceil
from numbers import Integral, Real

import numpy as np
from astropy.convolution import convolve
from photutils.background import Background2D
from photutils.detection import DAOStarFinder, find_peaks
from photutils.segmentation import (
    SegmentationImage,
    SourceFinder,
    make_2dgaussian_kernel,
)
from photutils.utils.exceptions import NoDetectionsWarning
from skimage.graph import RAG, merge_hierarchical
from skimage.segmentation import watershed

from astrodino_seg.errors import check_settings
from astrodino_seg.flags import neighbours

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
    A traditional tool: an `~astrodino_seg.Image` in, labels out. A subclass is
    a dataclass of its settings; its `_find` takes a detection image.
    """

    def __call__(self, image):
        """
        The `~photutils.segmentation.SegmentationImage` of an image, or `None`
        with a ``NoDetectionsWarning``.
        """
        self._validate()
        return self.find(*detection_image(image, self.box_size))

    def find(self, sn, mask):
        """The same of a `detection_image`, (y, x) S/N and mask."""
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


def segmentation_image(labels, mask, n_pixels):
    """
    Labels of a tool, of which 0 and less are sky, as photutils has them, less
    those of fewer than ``n_pixels``; `None` if there is none.
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
    The bands' (y, x) S/N, added up to unit noise, by `Background2D`, and the
    (y, x) bool mask of pixels without a valid band, where it is 0.
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


@dataclass(kw_only=True)
class PhotutilsFinder(Baseline):
    """
    `Background2D`, then `SourceFinder` on the bands' summed S/N, smoothed.
    """

    n_sigma: float = 1.5
    n_pixels: int = 10
    connectivity: int = 8
    #: Without, this is `~photutils.segmentation.detect_sources` alone.
    deblend: bool = True
    n_levels: int = 32
    contrast: float = 0.001
    #: See `~photutils.segmentation.SourceFinder`.
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


@dataclass(kw_only=True)
class PeakFinder(Baseline):
    """Peaks by photutils, each with its watershed down to a threshold."""

    n_sigma: float = 1.5
    n_pixels: int = 10
    connectivity: int = 8
    #: The function or class of `photutils.detection` that finds the peaks;
    #: `~photutils.detection.DAOStarFinder` takes them of any sharpness and
    #: roundness, as galaxies have.
    detector: str = 'find_peaks'
    #: Least distance between peaks in pixels.
    min_separation: float = 5.0
    fwhm: float = 3.0
    box_size: int = 64

    def _validate(self):
        super()._validate()
        if self.detector == 'DAOStarFinder' and not self.fwhm:
            msg = (f'fwhm must be positive for DAOStarFinder, got '
                   f'{self.fwhm!r}')
            raise ValueError(msg)

    def _find(self, sn, mask):
        smoothed = smooth(sn, self.fwhm)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', NoDetectionsWarning)
            x, y = (self._peaks(smoothed, mask)
                    if self.detector == 'find_peaks'
                    else self._stars(sn, mask))
        seeds = np.zeros(sn.shape, np.int32)
        seeds[y, x] = np.arange(1, len(x) + 1)
        labels = watershed(-smoothed, seeds,
                           mask=(smoothed > self.n_sigma) & ~mask,
                           connectivity=self.connectivity // 4)
        return segmentation_image(labels, mask, self.n_pixels)

    def _peaks(self, smoothed, mask):
        table = find_peaks(smoothed, self.n_sigma, mask=mask,
                           min_separation=self.min_separation)
        return ([], []) if table is None else (table['x_peak'].data,
                                               table['y_peak'].data)

    def _stars(self, sn, mask):
        table = DAOStarFinder(self.n_sigma, self.fwhm,
                              sharpness_range=(-np.inf, np.inf),
                              roundness_range=(-np.inf, np.inf),
                              min_separation=self.min_separation)(
                                  sn, mask=mask)
        if table is None:
            return [], []
        return [np.clip(np.rint(table[f'{axis}_centroid'].data).astype(int),
                        0, n - 1) for axis, n in zip('xy', sn.shape[::-1])]


@dataclass(kw_only=True)
class RegionFinder(Baseline):
    """
    A watershed from every maximum, then merging of regions that touch, if the
    highest pass between them is hardly lower than the lower of their peaks,
    most alike first: what merging alone can do.
    """

    n_sigma: float = 1.5
    n_pixels: int = 10
    connectivity: int = 8
    #: Regions are merged if the pass between them is higher than this share of
    #: the lower peak; 0 merges all that touch.
    saddle: float = 0.7
    #: Regions are also merged if the lower peak rises above the pass by less
    #: than this, in units of the noise before smoothing.
    prominence: float = 1.0
    fwhm: float = 3.0
    box_size: int = 64

    def _find(self, sn, mask):
        height = smooth(sn, self.fwhm)
        above = (height > self.n_sigma) & ~mask
        height = np.where(above, height, 0)
        parts = watershed(-height, mask=above,
                          connectivity=self.connectivity // 4)
        labels = self._merge(parts, height)
        return segmentation_image(labels, mask, self.n_pixels)

    def _merge(self, parts, height):
        peak = np.zeros(parts.max() + 1)
        np.maximum.at(peak, parts, height)
        graph = RAG()
        for label, value in enumerate(peak):    # 0 is the sky, touching none
            graph.add_node(label, labels=[label], peak=value)
        for a, b, value in touching(parts, height, self.connectivity):
            graph.add_edge(a, b, self._edge(value, peak[a], peak[b]))
        return merge_hierarchical(parts, graph, 1.0, rag_copy=False,
                                  in_place_merge=True,
                                  merge_func=_merge_peaks,
                                  weight_func=self._merge_edges)

    def _edge(self, saddle, *peaks):
        """A pass, and its weight: regions are merged if it is below 1."""
        rise = min(peaks) - saddle
        allowed = max((1 - self.saddle) * min(peaks), self.prominence)
        return {'saddle': saddle,
                'weight': rise / max(allowed, np.finfo(float).tiny)}

    def _merge_edges(self, graph, a, b, other):
        """The edge to ``other`` of what becomes of two regions."""
        saddle = max(graph[one][other]['saddle'] for one in (a, b)
                     if graph.has_edge(one, other))
        return self._edge(saddle, graph.nodes[b]['peak'],
                          graph.nodes[other]['peak'])


def _merge_peaks(graph, a, b):
    nodes = graph.nodes
    nodes[b]['peak'] = max(nodes[a]['peak'], nodes[b]['peak'])


def touching(parts, height, connectivity):
    """
    Which regions touch, and the highest pass between them: tuples of two
    labels, the smaller first, and the largest of the lower of two heights.
    """
    ends, passes = neighbours(parts, height, connectivity=connectivity)
    edges, index = np.unique(np.sort(ends, axis=0), axis=1,
                             return_inverse=True)
    highest = np.full(edges.shape[1], -np.inf)
    np.maximum.at(highest, index, passes.min(axis=0))
    return list(zip(*edges.tolist(), highest.tolist()))
