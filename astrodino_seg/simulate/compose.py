# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What is in a scene, and where: large galaxies, their neighbours, the field.
"""

import math

import numpy as np

from astrodino_seg.simulate.galaxies import sed
from astrodino_seg.simulate.render import (
    Renderer,
    enlarge,
    faint_disc,
    roughen,
)
from astrodino_seg.simulate.scene import (
    CONTENT,
    Canvas,
    happens,
    log_uniform,
    merge_rates,
)
from astrodino_seg.simulate.sky import draw_sky
from astrodino_seg.simulate.stars import (
    STREWN,
    add_star,
    add_star_field,
    bright_knots,
    nucleus,
    star_flux,
    star_stamp,
    strew,
)

#: Kinds of large galaxies that are drawn, with rates of these names.
DRAWN = ('spiral', 'lenticular', 'elliptical', 'irregular', 'edge_on', 'lsb',
         'disturbed', 'shells', 'cosmos')
#: In groups, spheroids are many times more frequent.
IN_GROUPS = np.array([.3, 4, 8, .1, .3, .1, .3, 2, 1])
MAX_LARGE = 6
#: No galaxy is drawn larger than this half-light radius, pixels; what fills a
#: frame is enlarged, if possible by no more than a factor.
MAX_RE, MAX_ZOOM = 130, 4


def make_scene(seed, *, size=512, band_set=None, psf_fwhm=None, density=None,
               pixel_scale=None, rates=None, stamps=None, cosmos=None):
    """
    Draw one noiseless scene.

    Parameters
    ----------
    seed : int
        The same seed gives the same scene, in any process.
    size : int or tuple of int, optional
        Side, or (y, x) sides, in pixels.
    band_set : str or dict, optional
        A key of `BAND_SETS`, or names of bands with their wavelengths in
        micron; drawn if `None`.
    psf_fwhm : float or sequence of float, optional
        Pixels, for all bands or one each; drawn between 1.5 and 8 if
        `None`.
    density : float, optional
        Small sources per 1000 pixels; drawn if `None`.
    pixel_scale : float, optional
        Arcsec; observations then have a WCS. Sizes of objects are drawn in
        pixels all the same.
    rates : dict of float, optional
        How much of each ingredient, where it is not the default; see
        `~astrodino_seg.simulate.scene.CONTENT`. 0 leaves it out.
    stamps : `~astrodino_seg.simulate.StampLibrary`, optional
        Where to take galaxies from, many times faster than they can be
        drawn. Bands, PSFs and optics are then those of the library, and so
        is what galaxies consist of: the rates of ``'bar'``, ``'ring'``,
        ``'knots'``, ``'dust'``, ``'specks'``, ``'icl'``, ``'spikes'`` and
        ``'halo'`` have no effect; those of points strewn over them have.
    cosmos : path-like, optional
        The folder of the COSMOS galaxies, for the ingredient ``'cosmos'``.

    Returns
    -------
    scene : `Scene`
        The scene.

    Raises
    ------
    ValueError
        If an argument is impossible.
    FileNotFoundError
        If ``cosmos`` has no galaxies.
    """
    if seed < 0:
        msg = f'seed must be 0 or more, got {seed!r}'
        raise ValueError(msg)
    shape = _check_shape(size)
    _check_density(density)
    if pixel_scale is not None and not 0 < pixel_scale < np.inf:
        msg = f'pixel_scale must be positive, got {pixel_scale!r}'
        raise ValueError(msg)
    rates = merge_rates(rates, CONTENT)
    rng = np.random.default_rng([seed, 2026])
    if stamps is None:
        sky = draw_sky(rng, rates, band_set=band_set, psf_fwhm=psf_fwhm)
        _check_psf(sky, shape)
        source = Renderer(sky, rates, cosmos=cosmos)
    elif psf_fwhm is not None or cosmos is not None:
        msg = (f'stamps have their own PSFs and kinds, got '
               f'psf_fwhm={psf_fwhm!r} and cosmos={cosmos!r} too')
        raise ValueError(msg)
    else:
        source = stamps.draw(rng, band_set)
        _check_psf(source.sky, shape)
    for kind in set(DRAWN) - source.kinds:
        rates[kind] = 0.0
    canvas = Canvas(shape, source.sky)
    if happens(rng, rates['filling']):
        _add_filling(rng, canvas, source, rates)
    _add_large_ones(rng, canvas, source, rates)
    _add_faint_discs(rng, canvas, rates)
    _add_field(rng, canvas, source, rates, density)
    if happens(rng, rates['star_field']):
        add_star_field(rng, canvas)
    return canvas.scene(pixel_scale)


def _check_shape(size):
    shape = (size, size) if np.ndim(size) == 0 else tuple(size)
    if len(shape) != 2 or not all(
            isinstance(n, int | np.integer) and n >= 16 for n in shape):
        msg = f'size must be one or two integers of at least 16, got {size!r}'
        raise ValueError(msg)
    return shape


def _check_density(density):
    if density is not None and not 0 <= density < 20:
        msg = f'density must be in [0, 20) per 1000 pixels, got {density!r}'
        raise ValueError(msg)


def _check_psf(sky, shape):
    widest = sky.psf_fwhm.max()
    if min(shape) < 4 * widest:
        msg = (f'size must be at least four times the PSF of {widest:.3g} '
               f'pixels, got {shape[0]} x {shape[1]}')
        raise ValueError(msg)


# ---------------------------------------------------------- large galaxies

def _add_large_ones(rng, canvas, source, rates):
    ny, nx = canvas.shape
    shares = np.array([rates[kind] for kind in DRAWN])
    if not rates['large'] or not shares.any():
        return
    n = min(rng.poisson(rates['large']), MAX_LARGE)
    largest = min(MAX_RE, min(canvas.shape) / 4)
    spots, last = [], None
    if rng.random() < rates['group']:
        n, shares = rng.integers(4, 9), shares * IN_GROUPS
        centre = rng.uniform(.3, .7, 2) * (nx, ny)
        spread = min(canvas.shape) / 9
        spots = [centre + rng.normal(0, spread, 2) for _ in range(n)]
        largest = min(30, largest)
    smallest = min(6, largest)
    if happens(rng, rates['moderate']):
        smallest, largest = 3, min(16, largest)
        n = min(3 * n, MAX_LARGE)
    for k in range(n):
        kind = str(rng.choice(DRAWN, p=shares / shares.sum()))
        re = log_uniform(rng, smallest, largest)
        if k < len(spots):
            x, y = spots[k]
            if k == 0:
                kind, re = 'central', max(re, .6 * largest)
        elif last and rng.random() < rates['pair']:
            x, y = _beside(rng, last, .3, 3, max(re, last[2]), at_least=6)
        else:
            x, y = rng.uniform(.05, .95, 2) * (nx, ny)
        re = _add_large(rng, canvas, source, rates, kind, re, x, y)
        last = x, y, re
        _add_neighbours(rng, canvas, source, rates, shares, last)


def _beside(rng, last, nearest, farthest, unit, at_least=0):
    """A position about another, at a distance in units of a size."""
    angle = rng.uniform(0, 2 * np.pi)
    d = max(rng.uniform(nearest, farthest) * unit, at_least)
    return last[0] + d * np.cos(angle), last[1] + d * np.sin(angle)


def _add_large(rng, canvas, source, rates, kind, re, x, y):
    """A large galaxy; the half-light radius that it has is returned."""
    galaxy = source.large(rng, kind, re)
    half = galaxy.cube.shape[1] // 2
    return _place(rng, canvas, rates, galaxy, kind, (int(x), int(y)),
                  (int(x) - half, int(y) - half))


def _place(rng, canvas, rates, galaxy, kind, centre, corner, brighter=0):
    """Place a galaxy with what is strewn over it and its nucleus."""
    if kind in STREWN and happens(rng, rates['clusters']):
        galaxy = strew(rng, galaxy, canvas.sky)
    bright = 10**(brighter + (rng.uniform(-.35, .4) if kind == 'lsb'
                              else rng.uniform(0.05, 1.75)))
    total = bright * np.pi * galaxy.re**2 * max(galaxy.q, .25) * 2
    total /= np.sqrt(len(canvas.sky.bands))
    light = galaxy.cube, *corner, total * galaxy.scale
    points, sky = [], canvas.sky
    if happens(rng, rates['nucleus']):
        points += nucleus(rng, sky, total, *centre, canvas.shape)
    if kind in STREWN and happens(rng, rates['bright_knots']):
        points += bright_knots(rng, sky, canvas.merge([light])[0].mean(
            axis=0), total, galaxy.re, *centre)
    if points:
        light = canvas.merge([light, *points])
    canvas.add(*light, x=centre[0], y=centre[1], cls=2, kind=kind,
               re=galaxy.re, primary=True)
    return galaxy.re


def _add_filling(rng, canvas, source, rates):
    """A galaxy without an end in the frame, and what lies on it."""
    shares = np.array([rates[kind] for kind in DRAWN])
    if not shares.any():
        return
    side = min(canvas.shape)
    re = side * log_uniform(rng, .25, 1.2)
    tried = []
    for _ in range(4):
        kind = str(rng.choice(DRAWN, p=shares / shares.sum()))
        tried.append((kind, source.large(rng, kind, min(re, MAX_RE))))
        if _zoom(tried[-1], re) < MAX_ZOOM:
            break
    kind, galaxy = min(tried, key=lambda one: _zoom(one, re))
    off = min(.1 + .5 * re / side, .6)
    centre = [int(c) for c in rng.uniform(.5 - off, .5 + off, 2)
              * canvas.shape[::-1]]
    galaxy = enlarge(galaxy, re, *centre, canvas.shape)
    if kind in STREWN:
        galaxy = roughen(rng, galaxy, canvas.sky)
    _place(rng, canvas, rates, galaxy, kind, centre, (0, 0), brighter=.4)
    # the nucleus may be out of sight, and neighbours should not
    about = canvas.shape[1] / 2, canvas.shape[0] / 2, side / 3
    for _ in range(3):
        _add_neighbours(rng, canvas, source, rates, shares, about)


def _zoom(one, re):
    """How much a galaxy must be enlarged to fill the frame both ways."""
    return re / one[1].re * max(.5 / one[1].q, 1)


def _add_faint_discs(rng, canvas, rates):
    n = rng.poisson(rates['faint_disc']) if rates['faint_disc'] else 0
    for _ in range(n):
        stamp, row = faint_disc(rng, canvas.sky, canvas.shape)
        canvas.add(stamp, 0, 0, cls=2, kind='lsb', primary=True, **row)


def _add_neighbours(rng, canvas, source, rates, shares, last):
    """Stars before a large galaxy, galaxies behind it, a companion."""
    re = last[2]
    for _ in range(rng.poisson(rates['star_on_galaxy'])):
        x, y = _beside(rng, last, .2, 2, re)
        _add_star(rng, canvas, 10**rng.uniform(1.2, 3.7), x, y)
    for _ in range(rng.poisson(rates['background'])):
        x, y = _beside(rng, last, .3, 2, re)
        _add_small(rng, canvas, source, 10**rng.uniform(1.2, 2.6), x, y,
                   slope=rng.uniform(1.2, 2.8))
    if re > 12 and rng.random() < rates['companion']:
        kind = str(rng.choice(DRAWN, p=shares / shares.sum()))
        x, y = _beside(rng, last, .3, 2.2, re)
        _add_large(rng, canvas, source, rates, kind,
                   max(re * rng.uniform(.08, .35), 2.5), x, y)


# --------------------------------------------------------- small and stars

def _add_field(rng, canvas, source, rates, density):
    ny, nx = canvas.shape
    if density is None:
        fwhm = canvas.sky.mean_fwhm
        density = min(10**rng.uniform(-.4, .5), 40 / fwhm**2)
    n, star_share = density * ny * nx / 1000, rng.uniform(.03, .4)
    for _ in range(rng.poisson(rates['field'] * (1 - star_share) * n)):
        x, y = rng.uniform(-2, 2, 2) + rng.uniform(0, 1, 2) * (nx, ny)
        sn = min(2.5 * (1 - rng.random())**-.87, 800)
        _add_small(rng, canvas, source, sn, x, y, rng.normal(.9, 1.15))
    for _ in range(rng.poisson(rates['star'] * star_share * n)):
        x, y = rng.uniform(-3, 3, 2) + rng.uniform(0, 1, 2) * (nx, ny)
        _add_star(rng, canvas, min(3 * (1 - rng.random())**-1.25, 3e4), x, y)
    for _ in range(rng.poisson(rates['bright_star'])):
        x, y = rng.uniform(0, 1, 2) * (nx, ny)
        _add_star(rng, canvas, 10**rng.uniform(3.3, 5.3), x, y)


def _add_small(rng, canvas, source, sn, x, y, slope):
    """A small galaxy of a total S/N, in all bands together."""
    fwhm = canvas.sky.mean_fwhm
    re = np.clip(.32 * fwhm * (sn / 10)**.22 * rng.lognormal(0, .55), .4, 16)
    half = int(min(max((3 + math.log10(sn)) * re + 2 * fwhm, 8), 80))
    bulge = sn > 30 and rng.random() < .6
    galaxy = source.small(rng, re, half, bulge=bulge)
    flux = sn * math.sqrt(4 * math.pi * ((fwhm / 2.35)**2
                                         + (galaxy.re / 1.18)**2))
    flux /= math.sqrt(len(canvas.sky.bands))
    share = rng.uniform(.05, .5) * bulge
    wave, group = canvas.sky.wavelengths, canvas.sky.groups[1]
    weights = [(1 - share) * sed(wave, slope)]
    if bulge:
        weights.append(share * sed(wave, slope + .7))
    stamp = sum(weight.astype(np.float32)[:, None, None] * part[group]
                for weight, part in zip(weights, galaxy.parts))
    half = stamp.shape[1] // 2
    ix, iy = round(x), round(y)
    canvas.add(stamp, ix - half, iy - half, flux * galaxy.scale,
               x=ix + galaxy.x, y=iy + galaxy.y, cls=2, kind='field',
               re=galaxy.re, primary=False)


def _add_star(rng, canvas, sn, x, y):
    """A star of a matched-filter S/N, in all bands together."""
    sky = canvas.sky
    flux = star_flux(sky, sn) * sed(sky.wavelengths, rng.normal(.6, 1.0))
    add_star(canvas, x, y, *star_stamp(sky, flux, x, y, canvas.shape))
