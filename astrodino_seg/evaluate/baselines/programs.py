# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Traditional tools that are programs: Source Extractor, NoiseChisel, MTObjects.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from astrodino_seg.errors import MissingToolError, ProgramError
from astrodino_seg.evaluate.baselines.base import (
    Baseline,
    Extractor,
    detection_kernel,
    segmentation_image,
)
from astrodino_seg.image import read_label_map, write_plane

#: The environment variable that names the checkout.
VARIABLE = 'ASTRODINO_MTOBJECTS'

# Run in the checkout, with MTObjects' own command line. Its label maps as
# FITS need an Astropy before 5.1, so they are saved as arrays.
_RUN = """
import numpy as np
np.float = float  # gone since NumPy 1.24
import mtolib.main as mto
data, settings = mto.setup()
smoothed = mto.preprocess_image(data, settings)
tree = mto.build_max_tree(smoothed, settings)
np.save(settings.out, mto.filter_tree(tree, smoothed, settings)[0])
"""


def find_program(*names):
    """The path of the first of these names that is on the ``PATH``."""
    for name in names:
        path = shutil.which(name)
        if path:
            return path
    others = f' (nor {", ".join(names[1:])})' if names[1:] else ''
    msg = f'{names[0]}{others} is not on the PATH'
    raise MissingToolError(msg)


def run_program(command, folder, timeout, line=-1):
    """
    Run a program in a folder, for some seconds at most.

    If it fails or takes too long, a `ProgramError` has the given line of its
    standard error.
    """
    name = Path(command[0]).name
    try:
        done = subprocess.run(  # noqa: S603  a list, and no shell
            command, cwd=folder, timeout=timeout, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, errors='replace', check=False)
    except subprocess.TimeoutExpired as err:
        msg = f'{name} was not done after {timeout} s'
        raise ProgramError(msg) from err
    except OSError as err:
        msg = f'{name} cannot be run: {err}'
        raise ProgramError(msg) from err
    if done.returncode:
        lines = (done.stderr.strip() or 'no message').splitlines()
        msg = f'{name} failed with status {done.returncode}: {lines[line]}'
        raise ProgramError(msg)


@dataclass(kw_only=True)
class SExtractorFinder(Extractor):
    """
    The program Source Extractor on the bands' S/N.

    It subtracts no background here and weights nothing, as the S/N needs
    neither. The program must be on the ``PATH``, as ``source-extractor``,
    ``sextractor`` or ``sex``. ``timeout`` is as of `Baseline`.
    """

    timeout: float = 600.0

    def require(self):
        """The path of the program, or a `MissingToolError`."""
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
            run_program([self.require(), 'sn.fits', '-c', 'detect.sex'],
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


@dataclass(kw_only=True)
class NoiseChiselFinder(Baseline):
    """
    NoiseChisel (Akhlaghi & Ichikawa 2015, ApJS, 220, 1), then Segment
    (Akhlaghi 2019, arXiv:1909.11230), on the bands' S/N.

    NoiseChisel finds the pixels that hold signal, far below the noise;
    Segment divides them into objects, which are the labels. The parameters
    have the programs' names and defaults. Both must be on the ``PATH``, as
    ``astnoisechisel`` and ``astsegment``.
    """

    #: Side in pixels of the tiles in which the noise is measured. An image of
    #: few tiles is an error.
    tile_size: int = 30
    #: Quantile of the first threshold.
    qthresh: float = 0.3
    #: Threshold of pseudo-detections in units of the noise.
    dthresh: float = 0.0
    #: Quantile of the S/N of pseudo-detections in the sky above which one is
    #: true.
    snquant: float = 0.99
    #: Quantile down to which true detections grow; 1 for no growth.
    detgrowquant: float = 0.9
    #: Quantile of the S/N of clumps in the sky above which one is true
    #: (``snquant`` of Segment).
    clump_snquant: float = 0.95
    #: Threshold in units of the noise down to which clumps grow.
    gthresh: float = 0.5
    #: S/N of the border between clumps above which they are one object.
    objbordersn: float = 1.0
    n_pixels: int = 1
    box_size: int = 64
    timeout: float = 600.0

    def require(self):
        """The paths of the programs, or a `MissingToolError`."""
        return find_program('astnoisechisel'), find_program('astsegment')

    def _find(self, sn, mask):
        noisechisel, segment = self.require()
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


@dataclass(kw_only=True)
class MTObjectsFinder(Baseline):
    """
    MTObjects (Teeninga et al. 2016, Mathematical Morphology - Theory and
    Applications, 1; Haigh et al. 2021, A&A, 645, A107) on the bands' S/N:
    significant nodes of a max-tree.

    There is no threshold: a node of the tree is an object if its light is
    significant for its area. The environment variable
    ``ASTRODINO_MTOBJECTS`` names a checkout of
    https://github.com/CarolineHaigh/mtobjects in which its C library was
    compiled, as its README says. It is run with the present Python.
    """

    #: By how many sigma the lower end of an object is moved up; less keeps
    #: more of the faint outskirts.
    move_factor: float = 0.5
    #: Difference in brightness between objects, in sigma.
    min_distance: float = 0.0
    #: Electrons per unit of S/N; `None` for MTObjects' estimate, from the
    #: lowest pixel.
    gain: float | None = None
    n_pixels: int = 1
    box_size: int = 64
    timeout: float = 600.0

    def require(self):
        """The checkout, compiled, or a `MissingToolError`."""
        name = os.environ.get(VARIABLE)
        if not name:
            msg = f'{VARIABLE} does not name a checkout of MTObjects'
            raise MissingToolError(msg)
        folder = Path(name)
        if not (folder / 'mtolib' / 'main.py').is_file():
            msg = f'{VARIABLE}={name!r} is not a checkout of MTObjects'
            raise MissingToolError(msg)
        if not (folder / 'mtolib' / 'lib' / 'mt_objects.so').is_file():
            msg = (f'the C library of the MTObjects in {name!r} is not '
                   'compiled; its README says how')
            raise MissingToolError(msg)
        return folder

    def _find(self, sn, mask):
        checkout = self.require()
        with tempfile.TemporaryDirectory() as folder:
            data, out = Path(folder, 'sn.fits'), Path(folder, 'labels.npy')
            write_plane(data, sn.astype(np.float32))
            command = [sys.executable, '-c', _RUN, str(data), '-out',
                       str(out), '-bg_mean', '0', '-bg_variance', '1',
                       '-move_factor', str(self.move_factor),
                       '-min_distance', str(self.min_distance)]
            if self.gain is not None:
                command += ['-gain', str(self.gain)]
            run_program(command, checkout, self.timeout)
            labels = np.load(out)
        return segmentation_image(labels + 1, mask, self.n_pixels)
