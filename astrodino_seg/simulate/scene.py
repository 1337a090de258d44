# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Noiseless multi-band scenes: what is in the sky, through the PSF.

Fluxes are in units of the pixel noise of the deepest band at nominal depth;
`~astrodino_seg.simulate.observe` draws the noise and makes the truth.
"""

from dataclasses import dataclass, field

import numpy as np
from scipy.fft import irfft2, next_fast_len, rfft2

from astrodino_seg.errors import require
from astrodino_seg.simulate.galaxies import resolved_galaxy, sed

__all__ = ['BAND_SETS', 'CLASSES', 'Scene', 'insert_owner', 'make_scene',
           'moffat']

CLASSES = ('sky', 'star', 'galaxy', 'artifact')

#: Sets of bands that scenes are drawn in, with wavelengths in micron.
BAND_SETS = {
    'griz': {'g': .48, 'r': .62, 'i': .75, 'z': .87},
    'grz': {'g': .48, 'r': .64, 'z': .91},
    'ugriz': {'u': .36, 'g': .48, 'r': .62, 'i': .75, 'z': .88},
    'griZ': {'g': .48, 'r': .62, 'i': .75, 'Z': .88},
    'jwst': {'F115W': 1.15, 'F277W': 2.76, 'F444W': 4.40},
    'ugriZYJHKs': {'u': .36, 'g': .48, 'r': .62, 'i': .75, 'Z': .88,
                   'Y': 1.02, 'J': 1.25, 'H': 1.65, 'Ks': 2.15},
    'r': {'r': .62},
}

N_OWNERS = 3
KIND_RATES = {'spiral': .34, 'lenticular': .1, 'elliptical': .12,
              'irregular': .14, 'edge_on': .12, 'lsb': .09, 'disturbed': .09}


@dataclass
class Scene:
    """
    A noiseless scene.

    Attributes
    ----------
    cube : `~numpy.ndarray`
        (band, y, x) float32, in units of the nominal noise.
    owner : `~numpy.ndarray`
        (3, y, x) int16: the three objects (ids from 1; 0 is none) with the
        largest own S/N in each pixel, largest first.
    own_sn : `~numpy.ndarray`
        (3, y, x) float32: their own noiseless S/N, the root of the sum of
        squares over bands.
    objects : dict of `~numpy.ndarray`
        One entry an object: ``x``, ``y`` (pixels), ``cls`` (index into
        `CLASSES`), ``kind`` (str), ``re`` (pixels), ``primary`` (bool) and
        ``flux``, (object, band) float32, the sum of its light within the
        frame, in the unit of ``cube``.
    bands : dict
        Band name to wavelength in micron.
    psf_fwhm : `~numpy.ndarray`
        Pixels, one a band.
    """

    cube: np.ndarray
    owner: np.ndarray
    own_sn: np.ndarray
    bands: dict
    psf_fwhm: np.ndarray
    objects: dict = field(default_factory=dict)


def moffat(r2, fwhm, beta):
    """Moffat (1969) profile of unit flux; ``r2`` is radius squared."""
    a2 = (fwhm / 2)**2 / (2**(1 / beta) - 1)
    return (beta - 1) / (np.pi * a2) * (1 + r2 / a2)**-beta


def insert_owner(owner, own_sn, number, sn):
    """
    Put an object among the strongest of each pixel, in place.

    Parameters
    ----------
    owner, own_sn : `~numpy.ndarray`
        (k, y, x) ids and own S/N, strongest first.
    number : int
        The id of the object.
    sn : `~numpy.ndarray`
        (y, x) its own S/N.
    """
    number = np.full(sn.shape, number, owner.dtype)
    for ids, values in zip(owner, own_sn):
        first = sn > values
        sn_out = np.where(first, values, sn)
        number_out = np.where(first, ids, number)
        values[...] = np.where(first, sn, values)
        ids[...] = np.where(first, number, ids)
        sn, number = sn_out, number_out


class _Canvas:
    """Adds objects and keeps the three strongest owners of each pixel."""

    def __init__(self, size, bands, psf_fwhm, beta, optics):
        n = len(bands)
        self.size, self.bands, self.beta = size, bands, beta
        self.psf_fwhm, self.optics = psf_fwhm, optics
        self.wave = np.array(list(bands.values()))
        self.cube = np.zeros((n, size, size), np.float32)
        self.owner = np.zeros((N_OWNERS, size, size), np.int16)
        self.own_sn = np.zeros((N_OWNERS, size, size), np.float32)
        self.rows = []

    def add(self, stamp, x0, y0, **row):
        """Add a (band, y, x) stamp whose pixel [0, 0] lies at (x0, y0)."""
        h, w = stamp.shape[1:]
        ys = slice(max(y0, 0), min(y0 + h, self.size))
        xs = slice(max(x0, 0), min(x0 + w, self.size))
        if ys.start >= ys.stop or xs.start >= xs.stop:
            return
        part = stamp[:, ys.start - y0:ys.stop - y0, xs.start - x0:xs.stop - x0]
        row['flux'] = part.sum(axis=(1, 2), dtype=float)
        self.rows.append(row)
        self.cube[:, ys, xs] += part
        insert_owner(self.owner[:, ys, xs], self.own_sn[:, ys, xs],
                     len(self.rows), np.sqrt((part**2).sum(axis=0)))


def _convolve(cube, kernels):
    """Convolve each band with its kernel, zero padded, centred."""
    k = kernels[0].shape[0] // 2
    n = next_fast_len(cube.shape[1] + 2 * k)
    out = np.empty_like(cube)
    for b, (image, kernel) in enumerate(zip(cube, kernels)):
        full = irfft2(rfft2(image, (n, n)) * rfft2(kernel, (n, n)), (n, n))
        out[b] = full[k:k + cube.shape[1], k:k + cube.shape[2]]
    return out


def _kernel(fwhm, beta):
    half = int(np.ceil(6 * fwhm))
    y, x = np.mgrid[-half:half + 1, -half:half + 1]
    kernel = sum(moffat((x + dx)**2 + (y + dy)**2, fwhm, beta)
                 for dx in (-.3, 0, .3) for dy in (-.3, 0, .3))
    return (kernel / kernel.sum()).astype(np.float32)


def _add_primary(rng, canvas, kernels, kind, re, x, y):
    cube, q = resolved_galaxy(rng, kind, re, canvas.wave)
    bright = 10**(rng.uniform(-.35, .4) if kind == 'lsb'
                  else rng.uniform(0.05, 1.75))
    total = bright * np.pi * re**2 * max(q, .25) * 2
    total /= np.sqrt(len(canvas.bands))
    pad = kernels[0].shape[0] // 2
    cube = np.pad(cube, ((0, 0), (pad, pad), (pad, pad)))
    stamp = _convolve(cube * total, kernels)
    half = stamp.shape[1] // 2
    canvas.add(stamp, int(x) - half, int(y) - half, x=int(x), y=int(y),
               cls=2, kind=kind, re=re, primary=True)


def _add_field(rng, canvas, n):
    """Small galaxies: Sersic profiles by GalSim, one or two components."""
    galsim = require('galsim', 'simulate')
    gsp = galsim.GSParams(folding_threshold=2e-2, maxk_threshold=5e-3,
                          kvalue_accuracy=1e-3, stepk_minimum_hlr=4)
    groups = {f: [b for b, g in enumerate(canvas.psf_fwhm) if g == f]
              for f in sorted(set(canvas.psf_fwhm))}
    psfs = {f: galsim.Moffat(beta=canvas.beta, fwhm=f, gsparams=gsp)
            for f in groups}
    fwhm = canvas.psf_fwhm.mean()
    for _ in range(n):
        sn = min(2.5 * (1 - rng.random())**-0.95, 800)
        re = np.clip(.32 * fwhm * (sn / 10)**.22 * rng.lognormal(0, .45),
                     .4, 16)
        flux = sn * np.sqrt(4 * np.pi * ((fwhm / 2.35)**2
                                                    + (re / 1.18)**2))
        flux /= np.sqrt(len(canvas.bands))
        shear = galsim.Shear(q=rng.uniform(.25, 1),
                             beta=rng.uniform(0, 180) * galsim.degrees)
        slope = rng.normal(.9, .8)
        parts = [(rng.choice([.7, 1., 1., 1.5, 2.5]), re, 1.0, slope)]
        if sn > 30 and rng.random() < .6:
            bulge = rng.uniform(.05, .5)
            parts = [(1.0, re, 1 - bulge, slope),
                     (2.5, rng.uniform(.2, .5) * re, bulge, slope + .7)]
        half = int(np.clip((3 + np.log10(sn)) * re + 2 * fwhm, 8, 80))
        x, y = rng.uniform(-2, canvas.size + 2, 2)
        stamp = np.zeros((len(canvas.bands), 2 * half + 1, 2 * half + 1),
                         np.float32)
        ix, iy = int(np.round(x)), int(np.round(y))
        for index, radius, share, tilt in parts:
            profile = galsim.Sersic(index, half_light_radius=radius,
                                    gsparams=gsp).shear(shear)
            colour = sed(canvas.wave, tilt)
            for f, members in groups.items():
                image = galsim.Convolve(profile, psfs[f], gsparams=gsp)
                image = image.shift(x - ix, y - iy).drawImage(
                    nx=2 * half + 1, ny=2 * half + 1, scale=1,
                    method='no_pixel', dtype=np.float32).array
                for b in members:
                    stamp[b] += flux * share * colour[b] * image
        canvas.add(stamp, ix - half, iy - half, x=x, y=y, cls=2,
                   kind='field', re=re, primary=False)


def _star_shape(rng, r2, dx, dy, fwhm, beta, optics):
    """A star's light: Moffat core, aureole, diffraction spikes, halo."""
    image = moffat(r2, fwhm, beta)
    image += optics['aureole'] * moffat(r2, 9 * fwhm, 1.7)
    n, angle, share, length, width = optics['spikes']
    for k in range(n):
        a = angle + k * np.pi / n
        along = np.abs(dx * np.cos(a) + dy * np.sin(a))
        across = -dx * np.sin(a) + dy * np.cos(a)
        image += share / n / (3.5 * length * width) * np.exp(
            -along / length - across**2 / (2 * width**2))
    radius, share = optics['halo']
    if share:
        disc = 1 / (1 + np.exp(np.clip((np.sqrt(r2) - radius) / 2, -30, 30)))
        image += share * disc / (np.pi * radius**2)
    return image


def _optics(rng, fwhm):
    spikes = (0, 0., 0., 1., 1.)
    if rng.random() < .6:
        spikes = (rng.choice([2, 2, 3]), rng.uniform(0, np.pi),
                  rng.uniform(.002, .03), rng.uniform(6, 30) * fwhm / 3,
                  rng.uniform(.3, .6) * fwhm / 1.5)
    halo = (rng.uniform(15, 70), rng.uniform(.002, .02) * (rng.random() < .4))
    return {'aureole': rng.uniform(0, .04), 'spikes': spikes, 'halo': halo}


def _add_star(rng, canvas, sn, x, y):
    optics = canvas.optics
    fwhm = canvas.psf_fwhm
    colour = sed(canvas.wave, rng.normal(.6, 1.0))
    flux = sn * np.sqrt(4 * np.pi) * fwhm.mean() / 2.35 * colour
    flux /= np.sqrt(len(canvas.bands))
    # as far out as the wings stay above a tenth of the noise
    half = 4 * fwhm.mean()
    if sn > 60:
        a = fwhm.max() * 9
        peak = flux.max() * (optics['aureole'] + .003) / a**2
        half = max(half, a * min((peak / .05)**(1 / 3.4), 4), 30)
        if sn > 3000:
            half = max(half, 2.5 * optics['spikes'][3], optics['halo'][0] + 8)
    half = int(min(half, 256))
    ix, iy = int(np.round(x)), int(np.round(y))
    yy, xx = np.mgrid[-half:half + 1, -half:half + 1].astype(np.float32)
    dx, dy = xx - (x - ix), yy - (y - iy)
    r2 = dx**2 + dy**2
    stamp = np.empty((len(fwhm), 2 * half + 1, 2 * half + 1), np.float32)
    for f in set(fwhm):
        shape = _star_shape(rng, r2, dx, dy, f, canvas.beta, optics)
        for b in np.flatnonzero(fwhm == f):
            stamp[b] = flux[b] * shape
    stamp *= np.clip((1 - np.sqrt(r2) / half) / .15, 0, 1)
    canvas.add(stamp, ix - half, iy - half, x=x, y=y, cls=1, kind='star',
               re=fwhm.mean() / 2, primary=False)


def _add_primaries(rng, canvas, size):
    kernels = [_kernel(f, canvas.beta) for f in canvas.psf_fwhm]
    half = max(k.shape[0] for k in kernels) // 2
    kernels = [np.pad(k, half - k.shape[0] // 2) for k in kernels]
    names, rates = list(KIND_RATES), np.array(list(KIND_RATES.values()))
    n = rng.choice(5, p=[.06, .26, .3, .22, .16])
    largest = min(130, size / 4)
    spots = []
    if rng.random() < .06:                     # the core of a group
        n, rates = rng.integers(4, 9), rates * [.3, 4, 8, .1, .3, .1, .3]
        centre, spread = rng.uniform(.3, .7, 2) * size, size / 9
        spots = [centre + rng.normal(0, spread, 2) for _ in range(n)]
        largest = min(30, largest)
    last = None
    for k in range(n):
        kind = rng.choice(names, p=rates / rates.sum())
        re = np.exp(rng.uniform(np.log(6), np.log(largest)))
        if k < len(spots):
            x, y = spots[k]
        elif last and rng.random() < .5:       # on top of the previous one
            angle, d = rng.uniform(0, 2 * np.pi), rng.uniform(.3, 3)
            d = max(d * max(re, last[2]), 6)
            x, y = last[0] + d * np.cos(angle), last[1] + d * np.sin(angle)
        else:
            x, y = rng.uniform(.05, .95, 2) * size
        last = (x, y, re)
        _add_primary(rng, canvas, kernels, kind, re, x, y)
        for _ in range(rng.poisson(.6)):       # foreground stars on it
            angle, d = rng.uniform(0, 2 * np.pi), rng.uniform(.2, 2) * re
            _add_star(rng, canvas, 10**rng.uniform(1.2, 3.7),
                      x + d * np.cos(angle), y + d * np.sin(angle))
        if re > 12 and rng.random() < .35:     # a small companion
            kind = rng.choice(names, p=rates / rates.sum())
            angle, d = rng.uniform(0, 2 * np.pi), rng.uniform(.3, 2.2) * re
            _add_primary(rng, canvas, kernels, kind,
                         max(re * rng.uniform(.08, .35), 2.5),
                         x + d * np.cos(angle), y + d * np.sin(angle))


def make_scene(seed, *, size=512, band_set=None, density=None):
    """
    Draw one noiseless scene.

    Parameters
    ----------
    seed : int
        The same seed gives the same scene, in any process.
    size : int, optional
        Side in pixels.
    band_set : str, optional
        A key of `BAND_SETS`; drawn if `None`.
    density : float, optional
        Small sources per 1000 pixels; drawn if `None`.

    Returns
    -------
    scene : `Scene`
        The scene.

    Raises
    ------
    ValueError
        If ``size``, ``band_set`` or ``density`` is impossible.
    """
    if size < 64:
        msg = f'size must be at least 64 pixels, got {size!r}'
        raise ValueError(msg)
    if band_set is not None and band_set not in BAND_SETS:
        msg = f'band_set must be one of {sorted(BAND_SETS)}, got {band_set!r}'
        raise ValueError(msg)
    if density is not None and not 0 <= density < 20:
        msg = f'density must be in [0, 20) per 1000 pixels, got {density!r}'
        raise ValueError(msg)
    if density is not None and density * size**2 / 1000 > 30_000:
        msg = (f'density {density!r} is too high for size {size!r}: at most '
               '30000 small sources')
        raise ValueError(msg)
    rng = np.random.default_rng([seed, 2026])
    if band_set is None:
        band_set = rng.choice(list(BAND_SETS),
                              p=[.28, .19, .09, .2, .1, .08, .06])
    bands = BAND_SETS[str(band_set)]
    fwhm = np.exp(rng.uniform(np.log(1.7), np.log(6.5)))
    second = np.clip(fwhm * rng.uniform(.75, 1.35), 1.5, 8)
    split = rng.integers(0, len(bands) + 1)
    psf_fwhm = np.where(np.arange(len(bands)) < split, fwhm, second)
    canvas = _Canvas(size, bands, psf_fwhm, rng.uniform(2.4, 4.5),
                     _optics(rng, fwhm))
    _add_primaries(rng, canvas, size)
    if density is None:
        density = min(10**rng.uniform(-.7, .25), 25 / fwhm**2)
    star_share = rng.uniform(.03, .4)
    n_star = rng.poisson(density * star_share * size**2 / 1000)
    _add_field(rng, canvas, rng.poisson(density * (1 - star_share)
                                        * size**2 / 1000))
    for _ in range(n_star):
        x, y = rng.uniform(-3, size + 3, 2)
        _add_star(rng, canvas, min(3 * (1 - rng.random())**-1.25, 3e4), x, y)
    for _ in range(rng.poisson(.6)):           # bright ones
        x, y = rng.uniform(0, size, 2)
        _add_star(rng, canvas, 10**rng.uniform(3.3, 5.3), x, y)
    objects = {key: np.array([row[key] for row in canvas.rows])
               for key in ('x', 'y', 'cls', 'kind', 're', 'primary')}
    objects['flux'] = np.array([row['flux'] for row in canvas.rows],
                               np.float32).reshape(-1, len(bands))
    return Scene(canvas.cube, canvas.owner, canvas.own_sn, bands, psf_fwhm,
                 objects)
