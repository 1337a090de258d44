# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Traditional tools that are libraries: photutils, SEP, and watersheds of
scikit-image.
"""

import warnings
from dataclasses import dataclass

import numpy as np
from photutils.detection import DAOStarFinder, find_peaks
from photutils.segmentation import SourceFinder
from photutils.utils.exceptions import NoDetectionsWarning
from skimage.graph import RAG, merge_hierarchical
from skimage.segmentation import watershed

from astrodino_seg.errors import require
from astrodino_seg.evaluate.baselines.base import (
    Baseline,
    Extractor,
    detection_kernel,
    segmentation_image,
    smooth,
)


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
class SEPFinder(Extractor):
    """
    SEP, the library made of Source Extractor (Barbary 2016, JOSS, 1(6), 58),
    on the bands' S/N. Needs ``sep`` (extra ``compare``).
    """

    def require(self):
        """``sep``, or an `ImportError`."""
        return require('sep', 'compare')

    def _find(self, sn, mask):
        sep = self.require()
        # a bright large object has more pixels and parts than the defaults
        sep.set_extract_pixstack(max(int(1.1 * sn.size),
                                     sep.get_extract_pixstack()))
        sep.set_sub_object_limit(max(8192, sep.get_sub_object_limit()))
        _, labels = sep.extract(
            np.ascontiguousarray(sn, dtype=np.float64), self.n_sigma,
            mask=np.ascontiguousarray(mask), minarea=self.n_pixels,
            filter_kernel=detection_kernel(self.fwhm),
            deblend_nthresh=self.n_levels, deblend_cont=self.contrast,
            clean=self.clean, segmentation_map=True)
        return segmentation_image(labels, mask, self.n_pixels)


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
    A watershed from every maximum, then merging of regions that touch.

    Two regions are merged if the highest pass between them is hardly lower
    than the lower of their peaks, most alike first. Nothing is known of
    colour, of shape or of galaxies: it is what merging alone can do.
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
    labels, the smaller first, and the largest over all pairs of pixels that
    touch of the lower of their (y, x) heights.
    """
    ny, nx = parts.shape
    ends, passes = [], []
    for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1))[:connectivity // 2]:
        here = (slice(0, ny - dy), slice(max(0, -dx), nx - max(0, dx)))
        there = (slice(dy, ny), slice(max(0, dx), nx + min(0, dx)))
        pair = np.stack([parts[here], parts[there]])
        border = (pair[0] != pair[1]) & (pair > 0).all(axis=0)
        ends.append(np.sort(pair[:, border], axis=0))
        passes.append(np.minimum(height[here], height[there])[border])
    edges, index = np.unique(np.concatenate(ends, axis=1), axis=1,
                             return_inverse=True)
    highest = np.full(edges.shape[1], -np.inf)
    np.maximum.at(highest, index, np.concatenate(passes))
    return list(zip(*edges.tolist(), highest.tolist()))
