# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Star clusters and HII regions too small to be resolved, as part of a galaxy.

They look like stars one by one, and only their crowd about a galaxy tells that
they are of it.
"""

import math

import numpy as np

from astrodino_seg.simulate.profiles import sed
from astrodino_seg.simulate.stars import moffat

__all__ = ['STREWN', 'strew']

#: Kinds of galaxies that have such clusters.
STREWN = ('spiral', 'irregular', 'edge_on', 'lsb', 'disturbed')


def strew(rng, galaxy, sky):
    """
    Strew point-like clusters over a galaxy.

    There are 6 to 99 of them, where the galaxy shines, with 1% to 40% of its
    light (in the mean of the bands), about evenly or by the luminosity
    function of young clusters, dN/dL ~ L**-2, over a factor of 50 (Portegies
    Zwart, McMillan & Gieles 2010, ARA&A 48, 431).

    Parameters
    ----------
    rng : `numpy.random.Generator`
        Source of all randomness.
    galaxy : `~astrodino_seg.simulate.render.Large`
        The galaxy, through the PSF.
    sky : `~astrodino_seg.simulate.surveys.Sky`
        Bands and PSFs.

    Returns
    -------
    galaxy : `~astrodino_seg.simulate.render.Large`
        The galaxy with its clusters; the mean of the bands' light is kept.
    """
    n = int(10**rng.uniform(.8, 2))
    share = 10**rng.uniform(-2, -.4)
    cube = galaxy.cube.astype(np.float32) * np.float32(galaxy.scale)
    where = cube.mean(axis=0).clip(0).ravel()**rng.uniform(.6, 1.1)
    rows, columns = np.divmod(rng.choice(where.size, n, p=where / where.sum()),
                              cube.shape[2])
    flux = (rng.lognormal(0, .3, n) if rng.random() < .5
            else 1 / (1 - .98 * rng.random(n)))
    flux *= share * cube.sum(axis=(1, 2)).mean() / flux.sum()
    slope, size = rng.normal(0, .8), 1 + .4 * rng.random() * (
        rng.random() < .5)
    points = np.zeros_like(cube)
    for k in range(n):
        tint = sed(sky.wavelengths, slope + rng.normal(0, .2))
        x, y = np.array([columns[k], rows[k]]) + rng.uniform(-.5, .5, 2)
        _add_point(points, sky, flux[k] * tint / tint.mean(), x, y, size)
    return galaxy._replace(cube=(1 - share) * cube + points, scale=1.0)


def _add_point(cube, sky, light, x, y, size):
    """A point source, somewhat wider than the PSF if ``size`` is not 1."""
    widths, group = sky.groups
    half = math.ceil(4 * widths.max() * size)
    ys, xs = (slice(max(round(c) - half, 0), min(round(c) + half + 1, n))
              for c, n in ((y, cube.shape[1]), (x, cube.shape[2])))
    r2 = ((np.arange(xs.start, xs.stop) - x)**2
          + (np.arange(ys.start, ys.stop)[:, None] - y)**2)
    rim = np.clip((1 - np.sqrt(r2) / half) / .15, 0, 1)
    for g, width in enumerate(widths.tolist()):
        point = rim * moffat(r2, size * width, sky.beta)
        for b in np.flatnonzero(group == g):
            cube[b, ys, xs] += light[b] * point
