# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Through what a scene is seen: bands, their PSFs and their relative depths; and
the light of the sky, which is no object.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from numbers import Real

import numpy as np
from scipy.fft import irfft2, next_fast_len, rfft2

from astrodino_seg.simulate.scene import TABLES, happens, log_uniform

#: Sets of bands that scenes are drawn in, with wavelengths in micron, and how
#: often each is drawn.
BAND_SETS, SHARES = ({name: one[key] for name, one in TABLES[
    'band_sets'].items()} for key in ('bands', 'share'))
#: Sets whose PSFs widen with the wavelength, as telescopes in space have.
DIFFRACTION = ('hst', 'jwst', 'jwst6')
#: No PSF is drawn narrower or wider than these, pixels.
MIN_FWHM, MAX_FWHM = 1.5, 8.0
#: Nor, of any width, than these.
ANY_FWHM = 0.8, 12.0
#: Power of cirrus goes with the frequency to this (Gautier et al. 1992, AJ
#: 103, 1313).
CIRRUS_SLOPE = -3.0


@dataclass(frozen=True)
class Sky:
    """Through what a scene is seen."""

    #: Band name to wavelength in micron.
    bands: dict
    #: Pixels, one a band.
    psf_fwhm: np.ndarray
    #: Exponent of the Moffat PSF.
    beta: float
    #: S/N of the same flux in each band, with a root mean square of one.
    depth: np.ndarray
    #: ``aureole``, ``spikes`` and ``halo`` of stars.
    optics: dict

    @cached_property
    def wavelengths(self):
        """Of the bands, in micron."""
        return np.array(list(self.bands.values()))

    @cached_property
    def mean_fwhm(self):
        """The mean of ``psf_fwhm``, pixels."""
        return self.psf_fwhm.mean()

    @cached_property
    def groups(self):
        """The different PSF widths, and the index of each band's."""
        return np.unique(self.psf_fwhm, return_inverse=True)


def draw_sky(rng, rates, *, band_set=None, psf_fwhm=None):
    """Draw bands, PSFs and depths."""
    if band_set is None:
        band_set = str(rng.choice(list(SHARES), p=list(SHARES.values())))
    space = isinstance(band_set, str) and band_set in DIFFRACTION
    bands = check_bands(band_set)
    wave = np.array(list(bands.values()), float)
    if psf_fwhm is None:
        draw = _diffraction if space else _seeing
        psf_fwhm = draw(rng, wave).clip(MIN_FWHM, MAX_FWHM)
        if happens(rng, rates.get('any_psf', 0)):
            wanted = np.exp(rng.uniform(*np.log(ANY_FWHM)))
            psf_fwhm = (wanted / psf_fwhm.mean() * psf_fwhm).clip(*ANY_FWHM)
    else:
        psf_fwhm = _check_fwhm(psf_fwhm, len(bands))
    # the blue end and the infrared are shallower from the ground
    trend = np.interp(wave, [.36, .45, .7, .9, 1.1], [.45, 1, 1, .65, .5])
    depth = (1 if space else trend) * rng.lognormal(0, .3, len(bands))
    depth = depth / np.sqrt((depth**2).mean())
    optics = _optics(rng, float(psf_fwhm.mean()), rates, space)
    return Sky(bands, psf_fwhm, rng.uniform(2.4, 4.5), depth, optics)


def check_bands(band_set):
    """The bands of a band set."""
    if not isinstance(band_set, Mapping):
        if not isinstance(band_set, str) or band_set not in BAND_SETS:
            msg = (f'band_set must be one of {sorted(BAND_SETS)}, got '
                   f'{band_set!r}')
            raise ValueError(msg)
        return dict(BAND_SETS[band_set])
    if not band_set:
        msg = f'band_set must have at least one band, got {band_set!r}'
        raise ValueError(msg)
    if not all(isinstance(wave, Real) and 0 < wave < np.inf
               for wave in band_set.values()):
        msg = f'band_set must have positive wavelengths, got {band_set!r}'
        raise ValueError(msg)
    return dict(band_set)


def _check_fwhm(psf_fwhm, n_bands):
    given = np.asarray(psf_fwhm, float)
    if given.shape not in ((), (n_bands,)):
        msg = (f'psf_fwhm must be one number or one for each of the '
               f'{n_bands} bands, got {psf_fwhm!r}')
        raise ValueError(msg)
    if not ((given >= 1) & np.isfinite(given)).all():
        msg = f'psf_fwhm must be at least one pixel, got {psf_fwhm!r}'
        raise ValueError(msg)
    return np.broadcast_to(given, n_bands).copy()


def _seeing(rng, wave):
    """Each band was taken in one of up to three nights."""
    fwhm = log_uniform(rng, 1.6, 6.5)
    nights = fwhm * np.append(1, rng.uniform(.75, 1.35, rng.integers(0, 3)))
    return rng.choice(nights, len(wave))


def _diffraction(rng, wave):
    """Proportional to the wavelength, and the width of a pixel."""
    reddest = log_uniform(rng, 2.2, 5.5)
    return np.hypot(1.0, reddest * wave / wave.max())


def _optics(rng, fwhm, rates, space):
    spikes = (0, 0., 0., 1., 1.)
    if rng.random() < (2 if space else 1) * rates['spikes']:
        spikes = (3 if space else int(rng.choice([2, 2, 3])),
                  rng.uniform(0, np.pi), rng.uniform(.002, .03),
                  rng.uniform(6, 30) * fwhm / 3,
                  rng.uniform(.3, .6) * fwhm / 1.5)
    halo = (rng.uniform(15, 70),
            rng.uniform(.002, .02) * (rng.random() < rates['halo']))
    return {'aureole': rng.uniform(0, .04), 'spikes': spikes, 'halo': halo}


def draw_background(rng, shape, rates):
    """
    Draw the sky (band, y, x): level, gradient, a slow wave, and the rest.
    """
    sky = _slow_wave(rng, shape, rates)
    if happens(rng, rates['pedestal']):
        sky += _pedestal(rng, shape)
    if happens(rng, rates['scattered']):
        for _ in range(rng.integers(1, 3)):
            draw = SCATTERED[rng.integers(len(SCATTERED))]
            tint = rng.lognormal(0, .4, (shape[0], 1, 1))
            sky += (tint / tint.max() * draw(rng, *shape[1:])).astype(
                np.float32)
    return sky


def _slow_wave(rng, shape, rates):
    n_bands, ny, nx = shape
    coarse = rng.normal(size=(n_bands, 4, 4)) * rng.uniform(0, .4)
    coarse += (rng.uniform(-1, 1, (n_bands, 1, 1)) * np.arange(4)
               + rng.uniform(-1, 1, (n_bands, 1, 1)) * np.arange(4)[:, None])
    coarse = (rates['gradient'] * coarse
              + rng.uniform(-5, 50, (n_bands, 1, 1)))
    # bilinear, by its two matrices
    left, right = (np.maximum(1 - np.abs(
        np.linspace(0, 3, n)[:, None] - np.arange(4)), 0) for n in (ny, nx))
    return (left @ coarse).astype(np.float32) @ right.T.astype(np.float32)


def _pedestal(rng, shape):
    """Levels of amplifiers: stripes of one width, halves or quadrants."""
    n_bands, ny, nx = shape
    kind = rng.integers(4)
    n_y, n_x = [(1, rng.integers(2, 9)), (rng.integers(2, 9), 1), (2, 2),
                (1, 2) if rng.random() < .5 else (2, 1)][kind]
    # amplifiers are equal, and their border is anywhere in the frame if two
    rows, columns = (
        np.arange(n) * k // n if k > 2
        else (np.arange(n) >= rng.integers(n // 8, n - n // 8)) * (k - 1)
        for n, k in ((ny, n_y), (nx, n_x)))
    step = log_uniform(rng, .3, 5)
    level = rng.uniform(-1, 1, (n_bands, n_y, n_x))
    # the largest step between neighbours is the one that is wanted
    largest = max(np.abs(np.diff(level, axis=axis)).max(initial=1e-3)
                  for axis in (1, 2))
    level *= step / largest
    return level[:, rows[:, None], columns].astype(np.float32)


def _grid(ny, nx, x, y):
    """Offsets from a position."""
    return (np.arange(nx, dtype=np.float32) - np.float32(x),
            np.arange(ny, dtype=np.float32)[:, None] - np.float32(y))


def _slope(rng, ny, nx):
    """A strong slope, somewhat bent."""
    angle, height = rng.uniform(0, 2 * np.pi), log_uniform(rng, 3, 30)
    dx, dy = _grid(ny, nx, (nx - 1) / 2, (ny - 1) / 2)
    t = dx * np.cos(angle) + dy * np.sin(angle)
    t = (t - t.min()) / np.ptp(t)
    return height * t**rng.uniform(.7, 2.5)


def _wide_halo(rng, ny, nx):
    """Far wings of something bright, in the frame or beyond it."""
    side = min(ny, nx)
    x, y = rng.uniform(-.4, 1.4, 2) * (nx, ny)
    dx, dy = _grid(ny, nx, x, y)
    width = rng.uniform(.2, .8) * side
    return (log_uniform(rng, .5, 20)
            * (1 + (dx**2 + dy**2) / width**2)**-rng.uniform(1, 2))


def _arcs(rng, ny, nx):
    """Reflections of something beyond the frame."""
    side, image = min(ny, nx), 0
    x, y = rng.uniform(-.7, 1.7, 2) * (nx, ny)
    dx, dy = _grid(ny, nx, x, y)
    r, theta = np.hypot(dx, dy), np.arctan2(dy, dx)
    middle = np.arctan2(ny / 2 - y, nx / 2 - x)
    distance = np.hypot(ny / 2 - y, nx / 2 - x)
    for _ in range(rng.integers(1, 4)):
        radius = distance + rng.uniform(-.5, .5) * side
        width = log_uniform(rng, .02, .15) * side
        away = theta - middle - rng.normal(0, .3)
        away = np.abs((away + np.pi) % (2 * np.pi) - np.pi)
        image = image + (log_uniform(rng, .5, 10)
                         * np.exp(-((r - radius) / width)**2 / 2)
                         / (1 + np.exp((away - rng.uniform(.2, 1.5)) / .1)))
    return image


def _cirrus(rng, ny, nx):
    """Clouds of every size: a random field of a power law."""
    # a part of a larger field, which has no period
    size = [next_fast_len(n + n // 2, real=True) for n in (ny, nx)]
    waves = rfft2(rng.standard_normal(size, dtype=np.float32))
    fy, fx = np.fft.fftfreq(size[0])[:, None], np.fft.rfftfreq(size[1])
    f2 = fy**2 + fx**2
    f2[0, 0] = np.inf
    field = irfft2(waves * f2.astype(np.float32)**(CIRRUS_SLOPE / 4),
                   size)[:ny, :nx]
    field -= field.min()
    return log_uniform(rng, .3, 10) * field / field.std()


SCATTERED = _slope, _wide_halo, _arcs, _cirrus
