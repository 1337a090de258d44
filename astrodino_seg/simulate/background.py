# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The sky of an observation, and light in it that is no object.
"""

import numpy as np
from scipy.fft import irfft2, next_fast_len, rfft2

from astrodino_seg.simulate.rates import happens

__all__ = ['draw_background']

#: Power of cirrus goes with the frequency to this (Gautier et al. 1992, AJ
#: 103, 1313).
CIRRUS_SLOPE = -3.0


def draw_background(rng, shape, rates):
    """
    Draw the sky: level, gradient and a slow wave, per band, and the rest.

    Parameters
    ----------
    rng : `numpy.random.Generator`
        Source of all randomness.
    shape : tuple of int
        (band, y, x) pixels.
    rates : dict of float
        Of `~astrodino_seg.simulate.rates.CONDITIONS`, complete.

    Returns
    -------
    sky : `~numpy.ndarray`
        (band, y, x) float32, in units of the noise.
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


def _log_uniform(rng, lowest, highest):
    return np.exp(rng.uniform(np.log(lowest), np.log(highest)))


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
    step = _log_uniform(rng, .3, 5)
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
    angle, height = rng.uniform(0, 2 * np.pi), _log_uniform(rng, 3, 30)
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
    return (_log_uniform(rng, .5, 20)
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
        width = _log_uniform(rng, .02, .15) * side
        away = theta - middle - rng.normal(0, .3)
        away = np.abs((away + np.pi) % (2 * np.pi) - np.pi)
        image = image + (_log_uniform(rng, .5, 10)
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
    return _log_uniform(rng, .3, 10) * field / field.std()


SCATTERED = _slope, _wide_halo, _arcs, _cirrus
