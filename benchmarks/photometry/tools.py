# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tools that measure total fluxes, each called with an `Image`.

The traditional ones get the same sum of the bands in units of their noise to
find objects in, and measure each band in the same Kron apertures (Kron 1980,
ApJS, 43, 305), those of one object without the pixels of others; sky and
threshold are each tool's own, by the settings of `TUNED`.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from astropy.stats import mad_std
from photutils.background import Background2D
from photutils.segmentation import SourceCatalog, SourceFinder

from astrodino_seg import DinoSegmenter
from astrodino_seg.errors import MissingToolError, require
from astrodino_seg.evaluate.baselines import find_program, run_program
from astrodino_seg.evaluate.finders import detection_kernel, smooth
from astrodino_seg.image import read_label_map, write_plane

#: The filter's FWHM and the least pixels of an object, of all tools.
FWHM, N_PIXELS = 2.0, 5
#: Least radius of the apertures in those of the object, as of SExtractor.
LEAST_RADIUS = 3.5
#: Of Source Extractor's catalogue.
COLUMNS = 'FLUX_AUTO', 'FLUXERR_AUTO', 'FLUX_ISO', 'FLUX_RADIUS'
#: Seconds of a program.
TIMEOUT = 120


class Photometry(NamedTuple):
    """
    What is found: labels (y, x), and of label k at k - 1 the total flux and
    its error (band, n), the radius (n,) that has half of it, and the flux
    (band, n) of the label alone.
    """

    labels: np.ndarray
    flux: np.ndarray
    error: np.ndarray
    half: np.ndarray
    isophotal: np.ndarray


def planes_of(image):
    """Bands without holes, and their sum in units of the noise of pixels."""
    planes = []
    for plane, mask in zip(image.cube, image.mask):
        sky = np.median(plane[~mask]) if not mask.all() else 0
        planes.append(np.where(mask, sky, plane).astype(float))
    noise = [mad_std(np.diff(one, axis=1)) / 2**0.5 for one in planes]
    return planes, sum(one / (sigma or np.inf)
                       for one, sigma in zip(planes, noise))


def plain(values):
    """Numbers, of whatever has a unit or none."""
    return np.asarray(getattr(values, 'value', values), float)


class Segmenter:
    """The one of this package, with some weights."""

    def __init__(self, model=None):
        self.finder = DinoSegmenter(model=model)

    def __call__(self, image):
        """The `Photometry`, or `None` if there is nothing."""
        result = self.finder.segment(image)
        if result is None:
            return None
        flux, error, isophotal = (
            np.array([plain(result.table[f'{name}_{band}'])
                      for band in image.bands])
            for name in ('total_flux', 'total_flux_err', 'flux'))
        return Photometry(result.segmentation_image.data, flux, error,
                          plain(result.table['half_light_radius']), isophotal)


@dataclass(kw_only=True)
class Kron:
    """
    A tool with thresholds in units of the noise, boxes of the sky, Kron's
    factor, and the contrast of deblending.
    """

    n_sigma: float = 1.5
    box_size: int = 64
    factor: float = 2.5
    contrast: float = 0.005

    def __post_init__(self):
        self.tool = self.require()

    def require(self):
        """What the tool needs, or an error of what is missing."""

    def __call__(self, image):
        """The `Photometry`, or `None` if there is nothing."""
        planes, detect = planes_of(image)
        return self.measure(planes, detect, min(self.box_size, *image.shape))


class Photutils(Kron):
    """`SourceFinder`, and `SourceCatalog`."""

    def measure(self, planes, detect, box):
        """Measure planes (y, x) in apertures of the ``detect`` one."""
        sky = Background2D(detect, box, exclude_percentile=90)
        detect = detect - sky.background
        smoothed = smooth(detect, FWHM)
        found = SourceFinder(N_PIXELS, contrast=self.contrast,
                             deblend=self.contrast < 1, progress_bar=False)(
            smoothed, self.n_sigma * sky.background_rms)
        if found is None:
            return None
        first = SourceCatalog(
            detect, found, convolved_data=smoothed,
            kron_params=(self.factor, LEAST_RADIUS / self.factor, 0))
        catalogs = []
        for plane in planes:
            sky = Background2D(plane, box, exclude_percentile=90)
            catalogs.append(SourceCatalog(
                plane - sky.background, found, error=sky.background_rms,
                detection_catalog=first))
        flux, error, isophotal = (
            np.array([plain(getattr(one, name)) for one in catalogs])
            for name in ('kron_flux', 'kron_flux_err', 'segment_flux'))
        return Photometry(found.data, flux, error,
                          plain(first.flux_radius(0.5)), isophotal)


class SEP(Kron):
    """The library made of Source Extractor."""

    def require(self):
        """``sep``, or an `ImportError`."""
        return require('sep', 'compare')

    def measure(self, planes, detect, box):
        """Measure planes (y, x) in apertures of the ``detect`` one."""
        sep = self.tool
        sep.set_extract_pixstack(max(300_000, 2 * detect.size))
        sep.set_sub_object_limit(8192)
        detect, noise = self.less_sky(detect, box)
        objects, labels = sep.extract(
            detect, self.n_sigma, err=noise, minarea=N_PIXELS,
            filter_kernel=detection_kernel(FWHM), deblend_cont=self.contrast,
            segmentation_map=True)
        n = len(objects)
        if n == 0:
            return None
        own = {'segmap': labels, 'seg_id': np.arange(1, n + 1)}
        at = [objects[name] for name in ('x', 'y', 'a', 'b', 'theta')]
        kron, _ = sep.kron_radius(detect, *at, 6.0, **own)
        radius = np.fmax(self.factor * kron, LEAST_RADIUS)
        flux, error, isophotal = [], [], []
        for plane in planes:
            plane, noise = self.less_sky(plane, box)
            value, sigma, _ = sep.sum_ellipse(plane, *at, radius, err=noise,
                                              **own)
            flux.append(value)
            error.append(sigma)
            isophotal.append(np.bincount(labels.ravel(), plane.ravel(),
                                         n + 1)[1:])
        total, *_ = sep.sum_ellipse(detect, *at, radius, **own)
        half, _ = sep.flux_radius(detect, *at[:2], 6 * objects['a'], 0.5,
                                  normflux=total)
        return Photometry(labels, np.array(flux), np.array(error), half,
                          np.array(isophotal))

    def less_sky(self, plane, box):
        """The plane without its background, and its noise."""
        plane = np.ascontiguousarray(plane, float)
        sky = self.tool.Background(plane, bw=box, bh=box)
        return plane - sky.back(), sky.globalrms


class SExtractor(Kron):
    """The program Source Extractor, in its mode of two images."""

    def require(self):
        """The path of the program, or a `MissingToolError`."""
        return find_program('source-extractor', 'sextractor', 'sex')

    def measure(self, planes, detect, box):
        """Measure planes (y, x) in apertures of the ``detect`` one."""
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            self.prepare(folder, detect, box)
            tables = [self.run(folder, plane) for plane in planes]
            half = self.run(folder, detect)[:, 3]
            labels = read_label_map(folder / 'labels.fits')
        if len(half) == 0:
            return None
        flux, error, isophotal = np.array(tables)[:, :, :3].transpose(2, 0, 1)
        return Photometry(labels, flux, error, half, isophotal)

    def prepare(self, folder, detect, box):
        """Write what the program reads."""
        write_plane(folder / 'detect.fits', detect.astype(np.float32))
        np.savetxt(folder / 'filter.conv', detection_kernel(FWHM), '%.8f',
                   header='CONV NORM', comments='')
        (folder / 'out.param').write_text('\n'.join(COLUMNS))
        settings = {
            'CATALOG_NAME': 'out.cat', 'CATALOG_TYPE': 'ASCII',
            'PARAMETERS_NAME': 'out.param', 'FILTER_NAME': 'filter.conv',
            'DETECT_THRESH': self.n_sigma, 'ANALYSIS_THRESH': self.n_sigma,
            'DETECT_MINAREA': N_PIXELS, 'DEBLEND_NTHRESH': 32,
            'DEBLEND_MINCONT': self.contrast, 'BACK_SIZE': box,
            'PHOT_AUTOPARAMS': f'{self.factor},{LEAST_RADIUS}',
            'CHECKIMAGE_TYPE': 'SEGMENTATION',
            'CHECKIMAGE_NAME': 'labels.fits', 'VERBOSE_TYPE': 'QUIET',
            'MEMORY_PIXSTACK': max(300_000, detect.size),
            'MEMORY_OBJSTACK': 30_000,
            'MEMORY_BUFSIZE': max(1024, len(detect))}
        (folder / 'out.sex').write_text(''.join(
            f'{key} {value}\n' for key, value in settings.items()))

    def run(self, folder, plane):
        """The table (n, column) of one plane."""
        (folder / 'plane.fits').unlink(missing_ok=True)
        write_plane(folder / 'plane.fits', plane.astype(np.float32))
        run_program([self.tool, 'detect.fits,plane.fits', '-c', 'out.sex'],
                    folder, TIMEOUT)
        numbers = (folder / 'out.cat').read_text().split()
        return np.array(numbers, float).reshape(-1, len(COLUMNS))


#: Settings of least error in galaxies alone and in scenes, of other draws and
#: of another split, by ``benchmarks.photometry.tune``.
ALONE = {'n_sigma': 1.0, 'box_size': 512, 'factor': 3.5, 'contrast': 1.0}
SCENES = {'n_sigma': 1.5, 'box_size': 64, 'factor': 2.5, 'contrast': 0.02}
TUNED = {
    'SEP': (SEP, {'alone': ALONE, 'scenes': SCENES}),
    'Source Extractor': (SExtractor, {'alone': ALONE | {'n_sigma': 1.5},
                                      'scenes': SCENES}),
    'photutils': (Photutils, {'alone': ALONE, 'scenes': SCENES})}


def tools(kind, model=None):
    """By name, the tools that can be run here, tuned for a kind of images."""
    found = {'astrodino': Segmenter(model)}
    for name, (make, settings) in TUNED.items():
        try:
            found[name] = make(**settings[kind])
        except (ImportError, MissingToolError) as err:
            print(f'without {name}: {err}')
    return found
