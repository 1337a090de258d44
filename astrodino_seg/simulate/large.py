# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What is done to a large galaxy that is drawn: points strewn over it (star
clusters, HII regions, nuclei, which look like stars one by one, and only their
crowd tells that they are of it), and enlargement until it fills the frame. And
discs too faint to be seen pixel by pixel.
"""

import math
from dataclasses import replace

import numpy as np

from astrodino_seg.simulate.galaxies import noise_field, sed
from astrodino_seg.simulate.stars import moffat, star_stamp

#: Kinds of galaxies that have such clusters.
STREWN = ('spiral', 'irregular', 'edge_on', 'lsb', 'disturbed')
#: Central S/N of a pixel of faint discs, in all bands together.
FAINT = 0.2, 1.2


def strew(rng, galaxy, sky):
    """
    Strew point-like clusters over a galaxy.

    There are 6 to 99 of them, where the galaxy shines, with 1% to 40% of its
    light (in the mean of the bands), about evenly or by the luminosity
    function of young clusters, dN/dL ~ L**-2, over a factor of 50 (Portegies
    Zwart, McMillan & Gieles 2010, ARA&A 48, 431).
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


def nucleus(rng, sky, total, x, y, shape):
    """
    An active nucleus, a point with a peak of 30 to 5000 sigma.

    It is no more than three times as bright as its galaxy.
    """
    return _bright_point(rng, sky, (30, 5000), 3 * total, rng.normal(0, .9),
                         x, y, shape)


def bright_knots(rng, sky, light, total, re, x, y):
    """
    One to eight knots with peaks of 30 to 1000 sigma.

    They lie within one and a half half-light radii, rather where the galaxy
    shines, and each has up to 30 per cent of its light; half of them are
    wider than the PSF, by up to 60 per cent.

    Takes ``light`` (y, x).
    """
    n = rng.integers(1, 9)
    angle = rng.uniform(0, 2 * np.pi, 12 * n)
    r = 1.5 * re * np.sqrt(rng.random(12 * n))
    spots = np.stack([x + r * np.cos(angle), y + r * np.sin(angle)], axis=1)
    column, row = np.floor(spots + .5).astype(int).T
    inside = ((column >= 0) & (column < light.shape[1])
              & (row >= 0) & (row < light.shape[0]))
    spots, weight = spots[inside], light[row[inside], column[inside]]
    weight = weight.clip(0).astype(float)**.7
    n = min(n, np.count_nonzero(weight))
    if n == 0:
        return []
    chosen = rng.choice(len(spots), n, replace=False, p=weight / weight.sum())
    slope, knots = rng.normal(-.2, .6), []
    for px, py in spots[chosen]:
        size = rng.uniform(1, 1.6) if rng.random() < .5 else 1
        knots += _bright_point(
            rng, replace(sky, psf_fwhm=size * sky.psf_fwhm), (30, 1000),
            .3 * total, slope + rng.normal(0, .3), px, py, light.shape)
    return knots


def _bright_point(rng, sky, peaks, most, slope, x, y, shape):
    """
    A point with a peak S/N, in all bands together, between two limits; none
    if it were brighter than ``most``.
    """
    tint = sed(sky.wavelengths, slope)
    tint /= tint.mean()
    at_peak = tint * moffat(0, sky.psf_fwhm, sky.beta) * sky.depth
    unit_peak = np.sqrt((at_peak**2).sum())
    highest = min(peaks[1], most * unit_peak)
    if highest <= peaks[0]:
        return []
    peak = np.exp(rng.uniform(np.log(peaks[0]), np.log(highest)))
    return [star_stamp(sky, peak / unit_peak * tint, x, y, shape)]


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
    An exponential disc, smooth and of low surface brightness.

    Its scale is 8 to 200 pixels, at most half the frame's side.

    Gives ``stamp`` (band, y, x) float32.
    """
    x, y = rng.uniform(0, 1, 2) * shape[::-1]
    largest = min(200, min(shape) / 2)
    scale = np.exp(rng.uniform(np.log(min(8, largest)), np.log(largest)))
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
