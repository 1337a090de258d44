# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Points: the point-spread function with its wings, spikes and reflections,
fields crowded with stars, and what is strewn over a large galaxy: star
clusters, HII regions, nuclei, which look like stars one by one, and only their
crowd tells that they are of it.
"""

import math
from dataclasses import replace

import numpy as np

from astrodino_seg.simulate.galaxies import sed
from astrodino_seg.simulate.scene import log_uniform

#: Largest half-width of a star's stamp, pixels.
MAX_REACH = 256
#: Stars a pixel.
DENSITY = 1 / 3000, 1 / 50
#: How often they are a globular cluster.
GLOBULAR = 0.3
#: Kinds of galaxies that are strewn with clusters.
STREWN = ('spiral', 'irregular', 'edge_on', 'lsb', 'disturbed')
#: Stars that need a wider stamp than this have spikes and haloes too.
MAX_HALF = 24


def moffat(r2, fwhm, beta):
    """Moffat (1969) profile of unit flux; ``r2`` is radius squared."""
    a2 = (fwhm / 2)**2 / (2**(1 / beta) - 1)
    return (beta - 1) / (np.pi * a2) * (1 + r2 / a2)**-beta


def moffat_reach(sky, flux, floor=.02):
    """Half-widths of stamps beyond which a Moffat profile is below a floor."""
    width = sky.psf_fwhm.max()
    a = width / 2 / math.sqrt(2**(1 / sky.beta) - 1)
    peak = flux * moffat(0, sky.psf_fwhm.min(), sky.beta)
    r = a * np.sqrt(np.maximum((peak / floor)**(1 / sky.beta) - 1, 0))
    return np.ceil(np.maximum(r, 1.5 * width)).astype(int)


def star_flux(sky, sn):
    """The flux in a band that gives a matched-filter S/N in all together."""
    flux = sn * math.sqrt(4 * math.pi) * sky.mean_fwhm / 2.35
    return flux / math.sqrt(len(sky.bands))


def star_stamp(sky, flux, x, y, shape):
    """A star of (band,) flux, out to where its wings drown in the noise."""
    half = _reach(sky, flux.max())
    x0, y0 = (max(round(c) - half, 0) for c in (x, y))
    x1, y1 = (min(round(c) + half + 1, n)
              for c, n in ((x, shape[1]), (y, shape[0])))
    dx = np.arange(x0, x1, dtype=np.float32) - np.float32(x)
    dy = np.arange(y0, y1, dtype=np.float32)[:, None] - np.float32(y)
    r2 = dx**2 + dy**2
    widths, group = sky.groups
    aureole = sky.optics['aureole']
    stamp = np.empty((len(flux), *r2.shape), np.float32)
    rays = _reflections(dx, dy, r2, sky.optics)
    # so that no edge is seen
    rim = np.clip((1 - np.sqrt(r2) / half) / .15, 0, 1)
    for g, width in enumerate(widths.tolist()):
        light = moffat(r2, width, sky.beta)
        light += aureole * moffat(r2, 9 * width, 1.7)
        light = (light + rays) * rim
        for b in np.flatnonzero(group == g):
            stamp[b] = np.float32(flux[b]) * light
    return stamp, x0, y0


def _reach(sky, flux):
    """Half-width of a star's stamp, pixels."""
    fwhm, spikes = sky.psf_fwhm, sky.optics['spikes']
    half = 4 * sky.mean_fwhm
    peak = flux / sky.mean_fwhm**2
    if peak > 10:
        a = fwhm.max() * 9
        wings = flux * (sky.optics['aureole'] + .003) / a**2
        half = max(half, a * min((wings / .05)**(1 / 3.4), 4), 30)
        if peak > 300:
            half = max(half, 2.5 * spikes[3], sky.optics['halo'][0] + 8)
    return int(min(half, MAX_REACH))


def _reflections(x, y, r2, optics):
    """Diffraction spikes, and the disc that reflections make."""
    image = np.zeros_like(r2)
    n, angle, share, length, width = optics['spikes']
    for k in range(n):
        a = angle + k * np.pi / n
        along = np.abs(x * math.cos(a) + y * math.sin(a))
        across = y * math.cos(a) - x * math.sin(a)
        image += share / n / (3.5 * length * width) * np.exp(
            -along / length - across**2 / (2 * width**2))
    radius, share = optics['halo']
    if share:
        disc = 1 / (1 + np.exp(np.clip((np.sqrt(r2) - radius) / 2, -30, 30)))
        image += share * disc / (np.pi * radius**2)
    return image


def add_star_field(rng, canvas):
    """
    Add the stars of a field, each an object of its own; their number above a
    flux goes with flux**-a, a in [0.5, 1.5] (Bahcall & Soneira 1980, ApJS 44,
    73). In a globular cluster all but a third follow Plummer (1911, MNRAS 71,
    460).
    """
    sky = canvas.sky
    # more would be fragments, not stars
    most = min(DENSITY[1], .4 / sky.mean_fwhm**2)
    density = log_uniform(rng, DENSITY[0], most)
    n = rng.poisson(density * canvas.shape[0] * canvas.shape[1])
    x, y = _positions(rng, n, canvas.shape)
    sn = _power_law(rng, n, rng.uniform(.5, 1.5), 10**rng.uniform(.3, 1),
                    10**rng.uniform(2.5, 4.5))
    tint = sed(sky.wavelengths, rng.normal(.6, .7, (n, 1)))
    flux = star_flux(sky, sn[:, None]) * tint
    half = moffat_reach(sky, flux.max(axis=1, initial=0))
    for k in np.flatnonzero(half > MAX_HALF):
        add_star(canvas, x[k], y[k],
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
        add_star(canvas, x[k], y[k], flux[k] * light[k, group], ix[k] - half,
             iy[k] - half)


def add_star(canvas, x, y, stamp, x0, y0):
    """Add a stamp as a star."""
    canvas.add(stamp, int(x0), int(y0), x=x, y=y, cls=1, kind='star',
               re=canvas.sky.mean_fwhm / 2, primary=False)


def strew(rng, galaxy, sky):
    """
    Strew 6 to 99 point-like clusters over a galaxy, where it shines, with 1%
    to 40% of its light, about evenly or by the luminosity function of young
    clusters, dN/dL ~ L**-2 (Portegies Zwart et al. 2010, ARA&A 48, 431).
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
    An active nucleus, a point with a peak of 30 to 5000 sigma, no more than
    three times as bright as its galaxy.
    """
    return _bright_point(rng, sky, (30, 5000), 3 * total, rng.normal(0, .9),
                         x, y, shape)


def bright_knots(rng, sky, light, total, re, x, y):
    """
    One to eight knots with peaks of 30 to 1000 sigma, where a galaxy of
    ``light`` (y, x) shines, with up to 30% of it each; half of them are wider
    than the PSF, by up to 60%.
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
    peak = log_uniform(rng, peaks[0], highest)
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
