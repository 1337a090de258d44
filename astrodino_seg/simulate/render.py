# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Stamps of galaxies through the PSF of a sky; their enlargement, until they fill
the frame; discs too faint to be seen pixel by pixel. `Renderer` and
`~astrodino_seg.simulate.scene_library.Stamps`, which takes them from a file,
have the same two methods, ``large`` and ``small``. Real morphology is that of
HST COSMOS galaxies, in the layout of GalSim's ``COSMOSCatalog`` pieces:
``galaxies_f814w.fits``, with one stamp in each extension, and ``catalog.ecsv``
with ``NOISE_MEAN`` and ``NOISE_VARIANCE`` of each.
"""

import math
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from astropy.table import Table
from scipy.fft import irfft2, next_fast_len, rfft2
from scipy.ndimage import gaussian_filter, label, zoom

from astrodino_seg.errors import require
from astrodino_seg.image.fits import open_fits, read_pixels
from astrodino_seg.simulate.galaxies import (
    KINDS,
    noise_field,
    resolved_galaxy,
    sed,
)
from astrodino_seg.simulate.scene import log_uniform
from astrodino_seg.simulate.stars import moffat

#: Smoothing that takes the noise out of a stamp, in its pixels, where it is
#: bright and where it is faint.
SMOOTHING = 1.0, 4.0
#: A stamp is enlarged up to so many times; more would show its pixels.
MAX_ZOOM = 4.0
#: Central S/N of a pixel of faint discs, in all bands together.
FAINT = 0.2, 1.2
#: Stamps with a brightest pixel below this S/N are left out.
MIN_PEAK = 12.0


class CosmosGalaxies:
    """Galaxies of the COSMOS field with colours drawn pixel by pixel."""

    def __init__(self, folder):
        self.stamps = _load(str(Path(folder)))

    def draw(self, rng, re, wavelengths):
        """
        Draw one galaxy (band, y, x) float32 without PSF or noise of the scene;
        its young light, which stands out above its own smooth self, is bluer.
        """
        stamp, radius, q = self.stamps[rng.integers(len(self.stamps))]
        factor = min(re / radius, MAX_ZOOM)
        image = np.clip(zoom(stamp, factor, order=3, mode='grid-constant',
                             grid_mode=True), 0, None)
        image = _centred(np.rot90(image, rng.integers(4)))
        smooth = gaussian_filter(image, 0.6 * radius * factor)
        young = np.clip(image / np.maximum(smooth, 1e-9 * image.max()) - .7,
                        0, 1.5) / 1.5
        old, blue = rng.uniform(1.0, 2.2), rng.uniform(-.4, .8)
        cube = (sed(wavelengths, old)[:, None, None] * (1 - young) * image
                + sed(wavelengths, blue)[:, None, None] * young * image)
        cube = cube / cube.sum(axis=(1, 2)).mean()
        return cube.astype(np.float32), radius * factor, q


def _centred(image):
    """Padded to an odd square with the brightest pixel in the middle."""
    y, x = np.unravel_index(gaussian_filter(image, 2).argmax(), image.shape)
    half = max(y, x, image.shape[0] - 1 - y, image.shape[1] - 1 - x)
    out = np.zeros((2 * half + 1, 2 * half + 1), image.dtype)
    out[half - y:half - y + image.shape[0],
        half - x:half - x + image.shape[1]] = image
    return out


@lru_cache(maxsize=2)
def _load(folder):
    """All stamps: clean image, half-light radius, axis ratio."""
    images, catalogue = (Path(folder) / name for name in (
        'galaxies_f814w.fits', 'catalog.ecsv'))
    for file in (images, catalogue):
        if not file.is_file():
            msg = f'cosmos: no file {str(file)!r}'
            raise FileNotFoundError(msg)
    table = Table.read(catalogue)
    missing = {'NOISE_MEAN', 'NOISE_VARIANCE'} - set(table.colnames)
    if missing:
        msg = f'cosmos: {str(catalogue)!r} has no columns {sorted(missing)}'
        raise ValueError(msg)
    found = []
    with open_fits(images) as hdus:
        if len(hdus) != len(table) + 1:
            msg = (f'cosmos: {str(images)!r} has {len(hdus) - 1} extensions, '
                   f'{str(catalogue)!r} has {len(table)} rows')
            raise ValueError(msg)
        for hdu, row in zip(hdus[1:], table):
            image = read_pixels(hdu, images) - float(row['NOISE_MEAN'])
            clean = _clean(image, np.sqrt(row['NOISE_VARIANCE']))
            if clean is not None:
                found.append(clean)
    if not found:
        msg = f'cosmos: no galaxy in {str(images)!r} is bright enough'
        raise FileNotFoundError(msg)
    return found


def _clean(image, noise):
    """The galaxy in the middle, smoothed, without neighbours and noise."""
    fine, coarse = (gaussian_filter(image, sigma) for sigma in SMOOTHING)
    parts, _ = label(coarse > 0.5 * noise)
    middle = parts[image.shape[0] // 2, image.shape[1] // 2]
    if middle == 0 or fine.max() < MIN_PEAK * noise:
        return None
    bright = 1 / (1 + np.exp(-(coarse / noise - 3) / .7))
    soft = gaussian_filter((parts == middle).astype(float), 2)
    smooth = (bright * fine + (1 - bright) * coarse).clip(0) * soft
    y, x = np.mgrid[:image.shape[0], :image.shape[1]]
    weight = smooth / smooth.sum()
    y = y - (weight * y).sum()
    x = x - (weight * x).sum()
    moments = np.array([[(weight * x * x).sum(), (weight * x * y).sum()],
                        [(weight * x * y).sum(), (weight * y * y).sum()]])
    short, long = np.sqrt(np.linalg.eigvalsh(moments))
    # an elliptical edge, and none at the edge of the stamp
    inverse = np.linalg.inv(moments)
    away = np.sqrt(inverse[0, 0] * x**2 + 2 * inverse[0, 1] * x * y
                   + inverse[1, 1] * y**2)
    ny, nx = image.shape
    yy, xx = np.ogrid[:ny, :nx]
    rim = np.minimum(np.minimum(yy, ny - 1 - yy), np.minimum(xx, nx - 1 - xx))
    smooth = (smooth * np.clip((4 - away) / 1.5, 0, 1)
              * np.clip(rim / (0.15 * min(ny, nx)), 0, 1))
    r = np.hypot(x, y).ravel()
    order = np.argsort(r)
    light = np.cumsum(smooth.ravel()[order])
    radius = r[order][np.searchsorted(light, 0.5 * light[-1])]
    return smooth, max(radius, 1.0), short / long


class Large(NamedTuple):
    """A resolved galaxy."""

    #: (band, y, x) with the nucleus in the middle.
    cube: np.ndarray
    #: The factor with which the mean of the bands' total fluxes is one.
    scale: float
    #: Half-light radius in pixels.
    re: float
    #: Axis ratio.
    q: float


class Small(NamedTuple):
    """A small galaxy of one or two components (the disc and the bulge)."""

    #: (component, PSF width, y, x).
    parts: np.ndarray
    #: The factor with which each part has unit flux.
    scale: float
    #: Where its centre lies off the middle of the stamp, pixels.
    x: float
    y: float
    #: Half-light radius of the first component in pixels.
    re: float


class Renderer:
    """Draws stamps."""

    def __init__(self, sky, rates, *, cosmos=None):
        self.sky = sky
        self.rates = rates
        self.cosmos = None if cosmos is None else CosmosGalaxies(cosmos)
        self.kinds = {*KINDS, *(() if cosmos is None else ('cosmos',))}
        kernels = [psf_kernel(f, sky.beta) for f in sky.psf_fwhm]
        half = max(k.shape[0] for k in kernels) // 2
        self.kernels = [np.pad(k, half - k.shape[0] // 2) for k in kernels]
        self._profiles = None

    def large(self, rng, kind, re):
        """Draw a large galaxy."""
        if kind == 'cosmos':
            cube, re, q = self.cosmos.draw(rng, re, self.sky.wavelengths)
        else:
            cube, q = resolved_galaxy(rng, kind, re, self.sky.wavelengths,
                                      self.rates)
        pad = self.kernels[0].shape[0] // 2
        cube = np.pad(cube, ((0, 0), (pad, pad), (pad, pad)))
        return Large(convolve(cube, self.kernels), 1.0, re, q)

    def small(self, rng, re, half, *, bulge=False):
        """Draw a small galaxy with GalSim."""
        galsim, gsp, psfs = self._galsim()
        shear = galsim.Shear(q=rng.uniform(.25, 1),
                             beta=rng.uniform(0, 180) * galsim.degrees)
        shapes = [(rng.choice([.7, 1., 1., 1.5, 2.5]), re)]
        if bulge:
            shapes = [(1.0, re), (2.5, rng.uniform(.2, .5) * re)]
        x, y = rng.uniform(-.5, .5, 2)
        n = 2 * half + 1
        parts = np.empty((len(shapes), len(psfs), n, n), np.float32)
        for k, (index, radius) in enumerate(shapes):
            profile = galsim.Sersic(index, half_light_radius=radius,
                                    gsparams=gsp).shear(shear).shift(x, y)
            for g, psf in enumerate(psfs):
                parts[k, g] = galsim.Convolve(
                    profile, psf, gsparams=gsp).drawImage(
                        nx=n, ny=n, scale=1, method='no_pixel',
                        dtype=np.float32).array
        return Small(parts, 1.0, x, y, re)

    def _galsim(self):
        """GalSim, its precision, and one PSF for each width."""
        if self._profiles is None:
            galsim = require('galsim', 'simulate')
            gsp = galsim.GSParams(folding_threshold=2e-2, maxk_threshold=5e-3,
                                  kvalue_accuracy=1e-3, stepk_minimum_hlr=4)
            psfs = [galsim.Moffat(beta=self.sky.beta, fwhm=f, gsparams=gsp)
                    for f in self.sky.groups[0]]
            self._profiles = galsim, gsp, psfs
        return self._profiles


def psf_kernel(fwhm, beta):
    """A Moffat PSF of unit sum, averaged over each pixel."""
    half = int(np.ceil(6 * fwhm))
    y, x = np.mgrid[-half:half + 1, -half:half + 1]
    kernel = sum(moffat((x + dx)**2 + (y + dy)**2, fwhm, beta)
                 for dx in (-.3, 0, .3) for dy in (-.3, 0, .3))
    return (kernel / kernel.sum()).astype(np.float32)


def convolve(cube, kernels):
    """Convolve each band with its kernel, zero padded, centred."""
    k = kernels[0].shape[0] // 2
    n = next_fast_len(cube.shape[1] + 2 * k)
    out = np.empty_like(cube)
    for b, (image, kernel) in enumerate(zip(cube, kernels)):
        full = irfft2(rfft2(image, (n, n)) * rfft2(kernel, (n, n)), (n, n))
        out[b] = full[k:k + cube.shape[1], k:k + cube.shape[2]]
    return out


def enlarge(galaxy, re, x, y, shape):
    """What a frame shows of an enlarged galaxy."""
    factor = max(re / galaxy.re, 1)
    middle = galaxy.cube.shape[1] // 2
    rows, columns = (_spline(np.arange(n) - c, factor, middle,
                             galaxy.cube.shape[1])
                     for n, c in zip(shape, (y, x)))
    part = galaxy.cube[:, rows[1], columns[1]].astype(np.float32)
    return galaxy._replace(cube=rows[0] @ part @ columns[0].T,
                           scale=galaxy.scale / factor**2,
                           re=factor * galaxy.re)


def _spline(offsets, factor, middle, n):
    """Weights of a cubic B-spline, and the pixels of the stamp they are of."""
    where = middle + offsets / factor
    part = slice(int(np.clip(math.floor(where[0]) - 1, 0, n)),
                 int(np.clip(math.ceil(where[-1]) + 2, 0, n)))
    away = np.abs(where[:, None] - np.arange(part.start, part.stop))
    weights = (np.clip(2 - away, 0, None)**3
               - 4 * np.clip(1 - away, 0, None)**3) / 6
    return weights.astype(np.float32), part


def roughen(rng, galaxy, sky):
    """Give an enlarged galaxy structure as fine as the PSF again."""
    ny, nx = galaxy.cube.shape[1:]
    fields = [noise_field(rng, max(ny, nx), factor * sky.mean_fwhm)
              for factor in (1.5, 4)]
    lumps = rng.uniform(.05, .3) * sum(fields)[:ny, :nx]
    return galaxy._replace(cube=np.exp(lumps) * galaxy.cube)


def faint_disc(rng, sky, shape):
    """
    A smooth exponential disc (band, y, x) of low surface brightness, whose
    scale is 8 to 200 pixels, at most half the frame's side.
    """
    x, y = rng.uniform(0, 1, 2) * shape[::-1]
    largest = min(200, min(shape) / 2)
    scale = log_uniform(rng, min(8, largest), largest)
    q, angle = rng.uniform(.25, 1), rng.uniform(0, np.pi)
    dx = np.arange(shape[1], dtype=np.float32) - np.float32(x)
    dy = np.arange(shape[0], dtype=np.float32)[:, None] - np.float32(y)
    c, s = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    u, v = dx * c + dy * s, (dy * c - dx * s) / np.float32(q)
    # the PSF rounds the cusp off, and does no more to so wide a disc
    core = np.float32((sky.mean_fwhm / 2.35)**2)
    disc = np.exp((math.sqrt(core) - np.sqrt(u**2 + v**2 + core))
                  / np.float32(scale))
    tint = sed(sky.wavelengths, rng.normal(.8, .6))
    peak = np.exp(rng.uniform(*np.log(FAINT)))
    tint *= peak / np.sqrt(((tint * sky.depth)**2).sum())
    return (tint.astype(np.float32)[:, None, None] * disc,
            {'x': x, 'y': y, 're': 1.678 * scale})
