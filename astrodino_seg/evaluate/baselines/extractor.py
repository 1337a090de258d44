# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Source Extractor, as the library SEP and as the program.
"""

import tempfile
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import numpy as np
from photutils.segmentation import make_2dgaussian_kernel

from astrodino_seg.errors import require
from astrodino_seg.evaluate.baselines.base import Baseline, segmentation_image
from astrodino_seg.evaluate.baselines.program import find_program, run_program
from astrodino_seg.image import read_label_map, write_plane

__all__ = ['SEPFinder', 'SExtractorFinder']


def detection_kernel(fwhm):
    """
    The filter of Source Extractor for a FWHM.

    Parameters
    ----------
    fwhm : float
        FWHM of the Gaussian in pixels; that of 2 is the default filter of
        Source Extractor and of SEP.

    Returns
    -------
    kernel : `~numpy.ndarray` or `None`
        Values at the pixels' centres, of sum 1; `None` for a FWHM of 0.
    """
    if not fwhm:
        return None
    size = max(3, 2 * ceil(fwhm) - 1)
    return np.array(make_2dgaussian_kernel(fwhm, size=size, mode='center'))


@dataclass(kw_only=True)
class SEPFinder(Baseline):
    """
    SEP, the library made of Source Extractor [1]_ [2]_, on the bands' S/N.

    The defaults are those of SEP. Needs ``sep`` (extra ``compare``).

    Parameters
    ----------
    n_sigma : float, optional
        Detection threshold in units of the noise before filtering.
    n_pixels : int, optional
        Pixels that an object has at least (``minarea``); the few that
        deblending leaves with less are dropped.
    n_levels : int, optional
        Levels of deblending (``deblend_nthresh``).
    contrast : float, optional
        The share of an object's flux that a part must have to become an
        object (``deblend_cont``); 1 for no deblending.
    clean : bool, optional
        Whether to drop objects that the wings of a neighbour explain.
    fwhm : float, optional
        FWHM in pixels of the Gaussian filter; 0 for none.
    box_size : int, optional
        Side of the background boxes in pixels.

    References
    ----------
    .. [1] Barbary 2016, JOSS, 1(6), 58.
    .. [2] Bertin & Arnouts 1996, A&AS, 117, 393.
    """

    n_sigma: float = 1.5
    n_pixels: int = 5
    n_levels: int = 32
    contrast: float = 0.005
    clean: bool = True
    fwhm: float = 2.0
    box_size: int = 64

    def require(self):
        """Raise an `ImportError` if ``sep`` cannot be imported."""
        require('sep', 'compare')

    def _find(self, sn, mask):
        sep = require('sep', 'compare')
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
class SExtractorFinder(Baseline):
    """
    The program Source Extractor [1]_ on the bands' S/N.

    The defaults are those of its own configuration. It subtracts no
    background here and weights nothing, as the S/N needs neither. The program
    must be on the ``PATH``, as ``source-extractor``, ``sextractor`` or
    ``sex``.

    Parameters
    ----------
    n_sigma : float, optional
        Detection threshold in units of the noise before filtering
        (``DETECT_THRESH``).
    n_pixels : int, optional
        Pixels that an object has at least (``DETECT_MINAREA``); the few
        that deblending leaves with less are dropped.
    n_levels : int, optional
        Levels of deblending (``DEBLEND_NTHRESH``).
    contrast : float, optional
        The share of an object's flux that a part must have to become an
        object (``DEBLEND_MINCONT``); 1 for no deblending.
    clean : bool, optional
        Whether to drop objects that the wings of a neighbour explain.
    fwhm : float, optional
        FWHM in pixels of the Gaussian filter; 0 for none.
    box_size : int, optional
        Side of the background boxes in pixels.
    timeout : float, optional
        Seconds after which the program is given up.

    References
    ----------
    .. [1] Bertin & Arnouts 1996, A&AS, 117, 393.
    """

    n_sigma: float = 1.5
    n_pixels: int = 5
    n_levels: int = 32
    contrast: float = 0.005
    clean: bool = True
    fwhm: float = 2.0
    box_size: int = 64
    timeout: float = 600.0

    def require(self):
        """Raise a `MissingToolError` if the program is not on the path."""
        self._program()

    def _program(self):
        return find_program('source-extractor', 'sextractor', 'sex')

    def _find(self, sn, mask):
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            write_plane(folder / 'sn.fits', sn.astype(np.float32))
            (folder / 'columns.param').write_text('NUMBER\n')
            (folder / 'filter.conv').write_text(self._filter())
            (folder / 'detect.sex').write_text(''.join(
                f'{key} {value}\n' for key, value in
                self._settings(sn.shape).items()))
            run_program([self._program(), 'sn.fits', '-c', 'detect.sex'],
                        folder, self.timeout)
            labels = read_label_map(folder / 'labels.fits')
        return segmentation_image(labels, mask, self.n_pixels)

    def _filter(self):
        """The text of the filter's file."""
        kernel = detection_kernel(self.fwhm)
        rows = [[1.0]] if kernel is None else kernel.tolist()
        lines = [' '.join(f'{value:.8f}' for value in row) for row in rows]
        return '\n'.join(['CONV NORM', *lines, ''])

    def _settings(self, shape):
        """What the configuration file says."""
        return {
            'CATALOG_TYPE': 'NONE', 'PARAMETERS_NAME': 'columns.param',
            'THRESH_TYPE': 'ABSOLUTE', 'DETECT_THRESH': self.n_sigma,
            'ANALYSIS_THRESH': self.n_sigma,
            'DETECT_MINAREA': self.n_pixels,
            'FILTER': 'Y' if self.fwhm else 'N',
            'FILTER_NAME': 'filter.conv',
            'DEBLEND_NTHRESH': self.n_levels,
            'DEBLEND_MINCONT': self.contrast,
            'CLEAN': 'Y' if self.clean else 'N', 'CLEAN_PARAM': 1.0,
            'MASK_TYPE': 'NONE', 'WEIGHT_TYPE': 'NONE',
            'BACK_TYPE': 'MANUAL', 'BACK_VALUE': 0.0,
            'CHECKIMAGE_TYPE': 'SEGMENTATION',
            'CHECKIMAGE_NAME': 'labels.fits',
            # a bright large object has more pixels than the default
            'MEMORY_PIXSTACK': max(300000, shape[0] * shape[1]),
            'MEMORY_OBJSTACK': 30000,
            'MEMORY_BUFSIZE': max(1024, shape[0]),
            'VERBOSE_TYPE': 'QUIET'}
