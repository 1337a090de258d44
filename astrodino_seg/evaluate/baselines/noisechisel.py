# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
NoiseChisel and Segment, two programs of GNU Astronomy Utilities.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from astrodino_seg.evaluate.baselines.base import Baseline, segmentation_image
from astrodino_seg.evaluate.baselines.program import find_program, run_program
from astrodino_seg.image import read_label_map, write_plane

__all__ = ['NoiseChiselFinder']


@dataclass(kw_only=True)
class NoiseChiselFinder(Baseline):
    """
    NoiseChisel [1]_, then Segment [2]_, on the bands' S/N.

    NoiseChisel finds the pixels that hold signal, far below the noise;
    Segment divides them into objects, which are the labels. The parameters
    have the programs' names and defaults. Both must be on the ``PATH``, as
    ``astnoisechisel`` and ``astsegment``.

    Parameters
    ----------
    tile_size : int, optional
        Side in pixels of the tiles in which the noise is measured. An image
        of few tiles is an error.
    qthresh : float, optional
        Quantile of the first threshold.
    dthresh : float, optional
        Threshold of pseudo-detections in units of the noise.
    snquant : float, optional
        Quantile of the S/N of pseudo-detections in the sky above which one
        is true.
    detgrowquant : float, optional
        Quantile down to which true detections grow; 1 for no growth.
    clump_snquant : float, optional
        Quantile of the S/N of clumps in the sky above which one is true
        (``snquant`` of Segment).
    gthresh : float, optional
        Threshold in units of the noise down to which clumps grow.
    objbordersn : float, optional
        S/N of the border between clumps above which they are one object.
    n_pixels : int, optional
        Objects of fewer pixels are dropped.
    box_size : int, optional
        Side of the background boxes in pixels.
    timeout : float, optional
        Seconds after which a program is given up.

    References
    ----------
    .. [1] Akhlaghi & Ichikawa 2015, ApJS, 220, 1.
    .. [2] Akhlaghi 2019, arXiv:1909.11230.
    """

    tile_size: int = 30
    qthresh: float = 0.3
    dthresh: float = 0.0
    snquant: float = 0.99
    detgrowquant: float = 0.9
    clump_snquant: float = 0.95
    gthresh: float = 0.5
    objbordersn: float = 1.0
    n_pixels: int = 1
    box_size: int = 64
    timeout: float = 600.0

    def require(self):
        """Raise a `MissingToolError` if a program is not on the path."""
        self._programs()

    def _programs(self):
        return find_program('astnoisechisel'), find_program('astsegment')

    def _find(self, sn, mask):
        noisechisel, segment = self._programs()
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            write_plane(folder / 'sn.fits',
                        np.where(mask, np.nan, sn).astype(np.float32))
            run_program([noisechisel, 'sn.fits', '--hdu=0',
                         '--output=found.fits', '--quiet', '--numthreads=1',
                         f'--tilesize={self.tile_size},{self.tile_size}',
                         f'--qthresh={self.qthresh}',
                         f'--dthresh={self.dthresh}',
                         f'--snquant={self.snquant}',
                         f'--detgrowquant={self.detgrowquant}'],
                        folder, self.timeout, line=0)
            run_program([segment, 'found.fits', '--output=labels.fits',
                         '--quiet', '--numthreads=1',
                         f'--snquant={self.clump_snquant}',
                         f'--gthresh={self.gthresh}',
                         f'--objbordersn={self.objbordersn}'],
                        folder, self.timeout, line=0)
            labels = read_label_map(folder / 'labels.fits', 'OBJECTS')
        return segmentation_image(labels, mask, self.n_pixels)
