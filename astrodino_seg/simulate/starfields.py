# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Fields crowded with stars, and globular clusters.
"""

import numpy as np

from astrodino_seg.simulate.profiles import sed
from astrodino_seg.simulate.stars import (
    moffat,
    moffat_reach,
    star_flux,
    star_stamp,
)

__all__ = ['add_star_field']

#: Stars a pixel.
DENSITY = 1 / 3000, 1 / 50
#: How often they are a globular cluster.
GLOBULAR = 0.3
#: Stars that need a wider stamp than this have spikes and haloes too.
MAX_HALF = 24


def add_star_field(rng, canvas):
    """
    Add the stars of a field, each an object of its own.

    Their number above a flux goes with flux**-a, a in [0.5, 1.5]: 1.5 is a
    uniform space, and counts in the Galaxy are flatter (Bahcall & Soneira
    1980, ApJS 44, 73). In a globular cluster they are distributed by the
    model of Plummer (1911, MNRAS 71, 460), but a third of them.

    Parameters
    ----------
    rng : `numpy.random.Generator`
        Source of all randomness.
    canvas : `~astrodino_seg.simulate.scene.Canvas`
        Where they are added.
    """
    sky = canvas.sky
    # more would be fragments, not stars
    most = min(DENSITY[1], .4 / sky.mean_fwhm**2)
    density = np.exp(rng.uniform(np.log(DENSITY[0]), np.log(most)))
    n = rng.poisson(density * canvas.shape[0] * canvas.shape[1])
    x, y = _positions(rng, n, canvas.shape)
    sn = _power_law(rng, n, rng.uniform(.5, 1.5), 10**rng.uniform(.3, 1),
                    10**rng.uniform(2.5, 4.5))
    tint = sed(sky.wavelengths, rng.normal(.6, .7, (n, 1)))
    flux = star_flux(sky, sn[:, None]) * tint
    half = moffat_reach(sky, flux.max(axis=1, initial=0))
    for k in np.flatnonzero(half > MAX_HALF):
        _add(canvas, x[k], y[k],
             *star_stamp(sky, flux[k], x[k], y[k], canvas.shape))
    for size in np.unique(half[half <= MAX_HALF]):
        _add_small_ones(canvas, *(a[half == size] for a in (flux, x, y)),
                        size)


def _positions(rng, n, shape):
    """Uniform, or about a centre."""
    x, y = rng.uniform(0, 1, (2, n)) * np.array(shape[::-1])[:, None]
    if rng.random() < GLOBULAR:
        centre = rng.uniform(.2, .8, 2) * shape[::-1]
        core = rng.uniform(.04, .2) * min(shape)
        u, angle = rng.uniform(0, .95, n), rng.uniform(0, 2 * np.pi, n)
        r = core * np.sqrt(u / (1 - u))
        bound = rng.random(n) < 2 / 3
        x = np.where(bound, centre[0] + r * np.cos(angle), x)
        y = np.where(bound, centre[1] + r * np.sin(angle), y)
    return x, y


def _power_law(rng, n, slope, lowest, highest):
    """Numbers of a cumulative power law between two limits."""
    tail = (highest / lowest)**-slope
    return lowest * (1 - (1 - tail) * rng.random(n))**(-1 / slope)


def _add_small_ones(canvas, flux, x, y, half):
    """Stars with stamps of one size, drawn together."""
    sky = canvas.sky
    ix, iy = np.round(x).astype(int), np.round(y).astype(int)
    span = np.arange(-half, half + 1)
    r2 = ((span - (x - ix)[:, None])[:, None]**2
          + (span - (y - iy)[:, None])[:, :, None]**2).astype(np.float32)
    rim = np.clip((1 - np.sqrt(r2) / half) / .15, 0, 1)
    widths, group = sky.groups
    light = np.stack([rim * moffat(r2, width, sky.beta)
                      for width in widths.tolist()], axis=1)
    flux = flux.astype(np.float32)[:, :, None, None]
    for k in range(len(x)):
        _add(canvas, x[k], y[k], flux[k] * light[k, group], ix[k] - half,
             iy[k] - half)


def _add(canvas, x, y, stamp, x0, y0):
    canvas.add(stamp, int(x0), int(y0), x=x, y=y, cls=1, kind='star',
               re=canvas.sky.mean_fwhm / 2, primary=False)
