# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
All finders to compare with, by name, and those of them that are programs:
Source Extractor, the library SEP made of it, NoiseChisel, MTObjects.
"""

import io
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from astrodino_seg.errors import MissingToolError, ProgramError, require
from astrodino_seg.evaluate.finders import (
    Baseline,
    PeakFinder,
    PhotutilsFinder,
    RegionFinder,
    detection_kernel,
    segmentation_image,
)
from astrodino_seg.image import read_label_map, write_plane

#: The environment variable that names the checkout.
VARIABLE = 'ASTRODINO_MTOBJECTS'
DATA = Path(__file__).parents[1] / 'data'

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
    Run a program in a folder, for some seconds at most; the `ProgramError` of
    one that fails has the given line of its standard error.
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
class SExtractorFinder(Extractor):
    """
    The program Source Extractor on the bands' S/N, which needs no background
    and no weights. It must be on the ``PATH``, as ``source-extractor``,
    ``sextractor`` or ``sex``.
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
            settings = (DATA / 'detect.sex').read_text().format(
                finder=self, clean='Y' if self.clean else 'N',
                filter='Y' if self.fwhm else 'N',
                # a bright large object has more pixels than the default
                pixstack=max(300000, sn.size), bufsize=max(1024, len(sn)))
            (folder / 'detect.sex').write_text(settings)
            run_program([self.require(), 'sn.fits', '-c', 'detect.sex'],
                        folder, self.timeout)
            labels = read_label_map(folder / 'labels.fits')
        return segmentation_image(labels, mask, self.n_pixels)

    def _filter(self):
        """The text of the filter's file."""
        kernel = detection_kernel(self.fwhm)
        text = io.StringIO()
        np.savetxt(text, [[1.0]] if kernel is None else kernel, '%.8f',
                   header='CONV NORM', comments='')
        return text.getvalue()


@dataclass(kw_only=True)
class NoiseChiselFinder(Baseline):
    """
    NoiseChisel (Akhlaghi & Ichikawa 2015, ApJS, 220, 1), then Segment
    (Akhlaghi 2019, arXiv:1909.11230), on the bands' S/N; the parameters have
    their names and defaults. Both, ``astnoisechisel`` and ``astsegment``, must
    be on the ``PATH``.
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
    nodes of a max-tree whose light is significant for their area.

    The environment variable ``ASTRODINO_MTOBJECTS`` names a checkout of
    https://github.com/CarolineHaigh/mtobjects in which its C library was
    compiled. It is run with the present Python.
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


#: Settings of best panoptic quality on the validation split, by
#: ``benchmarks/finders/tune_baselines.py``: of all settings of its grid, on 12
#: scenes.
TUNED = tomllib.loads((DATA / 'finders.toml').read_text('utf-8'))

_DEFAULT = {
    'detect': partial(PhotutilsFinder, deblend=False),
    'photutils': PhotutilsFinder,
    'sep': SEPFinder,
    'peaks': PeakFinder,
    'regions': RegionFinder,
    'sextractor': SExtractorFinder,
    'noisechisel': NoiseChiselFinder,
    'mtobjects': MTObjectsFinder,
}

#: By name, what makes a finder when called: the tools with their own
#: defaults, and with ``-tuned`` after the name with the settings of `TUNED`.
FINDERS = _DEFAULT | {f'{name}-tuned': partial(_DEFAULT[name], **settings)
                      for name, settings in TUNED.items()}


def available_finders():
    """
    The baselines that can be run here, and why others cannot.

    Returns
    -------
    finders : dict
        By name, a finder: what `FINDERS` makes.
    missing : dict
        By name, a sentence that says what is missing.
    """
    finders, missing = {}, {}
    for name, make in FINDERS.items():
        finder = make()
        try:
            finder.require()
        except ImportError as err:
            missing[name] = str(err)
        else:
            finders[name] = finder
    return finders, missing
