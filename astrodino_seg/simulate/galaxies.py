# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Large, resolved galaxies as noiseless images, before the PSF: what they are
painted with, and each kind as a function ``kind(rng, frame, wavelengths,
rates)`` that returns a cube (band, y, x); `resolved_galaxy` draws the shape,
calls it and normalises. All light of one galaxy is in that cube: its truth is
one object.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

from astrodino_seg.simulate.scene import CONTENT, merge_rates


def sed(wavelengths, slope):
    """A smooth spectral shape, one at 0.62 micron."""
    x = np.log(np.asarray(wavelengths, float) / 0.62)
    return np.exp(slope * x / (1 + 0.6 * np.abs(x)))


def sersic_bn(n):
    """Sersic b_n, Ciotti & Bertin (1999), A&A 352, 447, eq. 18."""
    return 2 * n - 1 / 3 + 4 / (405 * n) + 46 / (25515 * n**2)


@dataclass(frozen=True)
class Frame:
    """Pixel grid seen from one galaxy: plane coordinates and sizes."""

    size: int        # stamp side, pixels
    re: float        # half-light radius of the whole, pixels
    q: float         # axis ratio of the disc, cos(inclination)
    u: np.ndarray    # along the major axis, pixels
    v: np.ndarray    # along the minor axis, deprojected, pixels
    x: np.ndarray    # pixel offset in x
    y: np.ndarray    # pixel offset in y

    @property
    def r(self):
        return np.hypot(self.u, self.v)

    @property
    def theta(self):
        return np.arctan2(self.v, self.u)


def make_frame(size, re, q, angle, offset=(0.0, 0.0)):
    c = (size - 1) / 2
    y, x = np.mgrid[:size, :size].astype(np.float32)
    x -= c + offset[0]
    y -= c + offset[1]
    u = x * np.cos(angle) + y * np.sin(angle)
    v = (-x * np.sin(angle) + y * np.cos(angle)) / q
    return Frame(size, re, q, u, v, x, y)


def noise_field(rng, size, scale):
    """A smooth Gaussian random field of unit variance."""
    n = max(int(np.ceil(size / max(scale / 2, 1))) + 4, 8)
    coarse = gaussian_filter(rng.normal(size=(n, n)), 2.0, mode='wrap')
    grid = np.linspace(0, n - 1, size)
    field = map_coordinates(coarse, np.meshgrid(grid, grid, indexing='ij'),
                            order=1)
    return ((field - coarse.mean()) / coarse.std()).astype(np.float32)


def sersic(r, re, n):
    soft = np.sqrt(r**2 + 0.35**2)     # a pixel's worth of core smoothing
    return np.exp(-sersic_bn(n) * ((soft / re)**(1 / n) - 1))


def unit(image):
    return image / max(float(image.sum()), 1e-12)


def clumps(rng, frame, density, n_clumps, sizes, slope=-1.7):
    """
    Gaussian knots placed with a probability ``density``, of fluxes dN/dL ~
    L**slope (Kennicutt, Edgar & Hodge 1989, ApJ 337, 761).
    """
    weight = np.clip(density, 0, None).ravel().astype(float)
    if n_clumps == 0 or weight.sum() == 0:
        return np.zeros_like(frame.u)
    where = rng.choice(weight.size, n_clumps, p=weight / weight.sum())
    flux = (1 - rng.uniform(0, 0.999, n_clumps))**(1 / (slope + 1))
    flux = np.minimum(flux, 60)
    radius = np.exp(rng.uniform(*np.log(sizes), n_clumps))
    cy, cx = np.divmod(where, frame.size)
    shift = rng.uniform(-.5, .5, (2, n_clumps))
    return spots(frame, cx + shift[0], cy + shift[1], radius,
                 flux / radius**2)


def spots(frame, x, y, sigma, height):
    """Sum of round Gaussians at pixel positions, each cut at 4 sigma."""
    out = np.zeros_like(frame.u)
    for cx, cy, s, peak in zip(x, y, sigma, height):
        h = int(np.ceil(4 * s))
        x0, y0 = max(int(cx) - h, 0), max(int(cy) - h, 0)
        xx = np.arange(x0, min(int(cx) + h + 1, frame.size))
        yy = np.arange(y0, min(int(cy) + h + 1, frame.size))
        out[y0:y0 + len(yy), x0:x0 + len(xx)] += peak * np.outer(
            np.exp(-(yy - cy)**2 / (2 * s**2)),
            np.exp(-(xx - cx)**2 / (2 * s**2)))
    return out


def mix(wavelengths, parts, dust=None, tau=0.0):
    """Add ``(image, share, slope)`` parts and dim them by a dust screen."""
    cube = sum(share * sed(wavelengths, slope)[:, None, None] * unit(image)
               for image, share, slope in parts)
    if dust is not None:
        depth = tau * (0.62 / np.asarray(wavelengths))[:, None, None]
        cube = cube * np.exp(-np.minimum(depth, 4) * dust)
    return cube


def colours(rng):
    """Slopes of an old, a young and a star-forming population."""
    return rng.uniform(1.2, 2.4), rng.uniform(0.1, 1.2), rng.uniform(-.8, .4)


def spiral(rng, f, wavelengths, rates, *, strength=None, bulge=None):
    """Log-spiral arms with HII regions, dust lanes, a bulge, maybe a bar."""
    old, young, blue = colours(rng)
    strength = rng.uniform(0.6, 2.6) if strength is None else strength
    bulge = rng.uniform(0.02, 0.3) if bulge is None else bulge
    barred = rng.random() < rates['bar']
    h = f.re / 1.68
    n_arms = rng.choice([1, 2, 2, 2, 3, 4])
    pitch = np.deg2rad(rng.uniform(9, 32))
    turn = rng.choice([-1, 1])
    r = f.r + 0.3
    flocculent = rng.uniform(0.05, 0.7)
    ragged = flocculent * noise_field(rng, f.size, 0.35 * f.re)
    phase = n_arms * (turn * f.theta - np.log(r / h) / np.tan(pitch))
    phase = phase + ragged * n_arms / 2
    inner = 1 / (1 + np.exp(-(r - 0.6 * h) / (0.15 * h)))
    arms = np.exp(strength * inner * (np.cos(phase) - 1))
    patches = np.exp(flocculent * noise_field(rng, f.size, 0.15 * f.re))
    disc = np.exp(-r / h) / (1 + np.exp((r - rng.uniform(3, 6) * h)
                                        / (0.4 * h)))
    young_disc = disc * arms * patches
    n_knots = int(rates['knots'] * (rng.integers(0, 12)
                                    + rng.uniform(0.2, 2.5) * f.re))
    knots = clumps(rng, f, young_disc * inner * np.exp(0.5 * r / h),
                   n_knots, (0.5, max(0.06 * f.re, 0.8)))
    parts = [(sersic(np.hypot(f.u, f.v * rng.uniform(f.q, 1)),
                     rng.uniform(.08, .3) * f.re, rng.uniform(1, 3.5)),
              bulge, old),
             (disc, rng.uniform(0.1, 0.5), 0.5 * (old + young)),
             (young_disc, 1.0, young),
             (knots, rng.uniform(0.0, 0.25) * bool(n_knots), blue)]
    if barred:
        angle = rng.uniform(0, np.pi)
        a = rng.uniform(0.5, 1.3) * h
        bu = f.u * np.cos(angle) + f.v * np.sin(angle)
        bv = -f.u * np.sin(angle) + f.v * np.cos(angle)
        bar = np.exp(-((np.abs(bu) / a)**3
                       + (np.abs(bv) / (a * rng.uniform(.15, .35)))**2))
        parts.append((bar, rng.uniform(0.05, 0.25), old))
    if rng.random() < rates['ring']:
        width = rng.uniform(.1, .3) * h
        ring = np.exp(-((r - rng.uniform(1, 2.6) * h) / width)**2 / 2)
        parts.append((ring * patches, rng.uniform(0.05, 0.4), young))
    lane = np.exp(strength * inner * (np.cos(phase + 0.6) - 1)) * disc**.3
    return mix(wavelengths, parts, lane, rates['dust'] * rng.uniform(0, 1.2))


def lenticular(rng, f, wavelengths, rates):
    """A bulge in a smooth red disc."""
    old, _, _ = colours(rng)
    disc = np.exp(-f.r / (f.re / 1.5))
    bulge = sersic(np.hypot(f.u, f.v * rng.uniform(f.q, 1)),
                   rng.uniform(.1, .4) * f.re, rng.uniform(1.5, 4))
    return mix(wavelengths, [(bulge, rng.uniform(.2, .7), old),
                             (disc, 1.0, old - rng.uniform(0, .5))])


def elliptical(rng, f, wavelengths, rates):
    """A Sersic spheroid, sometimes with globular-cluster-like specks."""
    old, _, _ = colours(rng)
    body = sersic(f.r, f.re, rng.uniform(2, 5))
    n = int(rng.integers(4, 40) * (rng.random() < rates['specks']))
    specks = clumps(rng, f, np.sqrt(body), n, (0.3, 0.5))
    share = rng.uniform(0.002, 0.02) * bool(n)
    return mix(wavelengths, [(body, 1.0, old), (specks, share, old - .5)])


def central(rng, f, wavelengths, rates):
    """
    The brightest galaxy of a group: a spheroid and the group's light between
    the galaxies, of ten times its radius (Gonzalez et al. 2005, ApJ 618, 195).
    """
    body = elliptical(rng, f, wavelengths, rates)
    if rng.random() >= rates['icl']:
        return body
    wide = unit(sersic(f.r, rng.uniform(3, 6) * f.re, 1.0))
    share = rng.uniform(.2, .8) * body.sum(axis=(1, 2), keepdims=True)
    return body + share * wide


def shells(rng, f, wavelengths, rates):
    """
    A spheroid with shells: arcs that end sharply on the outside (Malin &
    Carter 1983, ApJ 274, 534).
    """
    base = elliptical(rng, f, wavelengths, rates)
    old, young, _ = colours(rng)
    arcs = np.zeros_like(f.u)
    axis = rng.uniform(0, np.pi)
    n = rng.integers(2, 6)
    for k, radius in enumerate(np.sort(rng.uniform(1.2, 4, n)) * f.re):
        away = f.theta - axis - np.pi * (k % 2)
        away = np.abs((away + np.pi) % (2 * np.pi) - np.pi)
        inside = np.clip(radius - f.r, 0, None)
        arcs += (np.exp(-inside / (rng.uniform(.1, .35) * f.re))
                 * (f.r < radius) * (f.re / radius)
                 / (1 + np.exp((away - rng.uniform(.5, 1.2)) / .12)))
    share = rng.uniform(.04, .2) * base.sum(axis=(1, 2), keepdims=True)
    tint = sed(wavelengths, rng.uniform(young, old))
    return base + share * (tint / tint.mean())[:, None, None] * unit(arcs)


def irregular(rng, f, wavelengths, rates):
    """A clumpy blue dwarf: lopsided, patchy, with bright off-centre knots."""
    _, young, blue = colours(rng)
    r = np.hypot(f.u - rng.uniform(-.3, .3) * f.re, f.v)
    r = r * np.exp(rng.uniform(0.1, 0.35)
                   * noise_field(rng, f.size, 1.2 * f.re))
    body = sersic(r, f.re, rng.uniform(0.5, 1.1))
    lumps = noise_field(rng, f.size, rng.uniform(.2, .5) * f.re)
    patchy = body * np.exp(rng.uniform(.4, 1.1) * lumps)
    knots = clumps(rng, f, patchy, int(rates['knots'] * rng.integers(3, 30)),
                   (0.6, max(0.14 * f.re, 0.9)), slope=-1.5)
    return mix(wavelengths, [(body, rng.uniform(.1, .6), young + .3),
                             (patchy, 1.0, young),
                             (knots, rng.uniform(.1, .7), blue)])


def edge_on(rng, f, wavelengths, rates):
    """A disc seen from the side: dust lane, knots, often a bulge."""
    old, young, blue = colours(rng)
    u = f.u
    w = f.v * f.q + (rng.uniform(-.05, .05) * u * np.abs(u) / f.re
                     * (rng.random() < .3))        # height, with a warp
    h = f.re / 1.2
    z0 = rng.uniform(0.06, 0.2) * h
    thin = np.exp(-np.abs(u) / h) / np.cosh(np.clip(w / z0, -20, 20))**2
    lumps = np.exp(rng.uniform(.1, .7)
                   * noise_field(rng, f.size, rng.uniform(.1, .4) * f.re))
    lane = np.exp(-0.5 * ((w - rng.uniform(-.4, .4) * z0) / (0.4 * z0))**2)
    lane = lane * np.exp(-np.abs(u) / (1.5 * h)) * lumps
    knots = clumps(rng, f, thin * (np.abs(u) > 0.3 * h),
                   int(rates['knots'] * rng.integers(0, 20)),
                   (.5, max(.5 * z0, .8)))
    bulge = sersic(np.hypot(u, w * rng.uniform(1, 2)),
                   rng.uniform(.1, .3) * f.re, rng.uniform(1, 3))
    return mix(wavelengths,
               [(thin * lumps, 1.0, young),
                (bulge, rng.uniform(0, .4), old),
                (knots, rng.uniform(0, .15), blue)],
               lane, rates['dust'] * rng.uniform(0, 2.5))


def low_surface_brightness(rng, f, wavelengths, rates):
    """A faint, diffuse disc with a few specks and weak arms."""
    return spiral(rng, f, wavelengths, {**rates, 'bar': 0},
                  strength=rng.uniform(0.1, 1.0),
                  bulge=rng.uniform(0, 0.05))


def disturbed(rng, f, wavelengths, rates):
    """A galaxy with one or two tidal tails, all its own light."""
    kind = rng.choice([spiral, lenticular, irregular])
    base = kind(rng, f, wavelengths, rates)
    _, young, _ = colours(rng)
    total = base.sum(axis=(1, 2), keepdims=True)
    tint = sed(wavelengths, young)
    middle = (f.size - 1) / 2
    for _ in range(rng.integers(1, 3)):
        start, bend = rng.uniform(0, 2 * np.pi), rng.uniform(-1.2, 1.2)
        length = rng.uniform(2.0, 4.5) * f.re
        t = np.linspace(0.6 * f.re, length, 60)
        angle = start + bend * t / length
        width = rng.uniform(.9, 1.1, 60) * (0.09 * f.re + 0.03 * t)
        tail = spots(f, middle + t * np.cos(angle),
                     middle + t * np.sin(angle), width,
                     (1 - t / (1.05 * length))**1.5 / width)
        tail = tail * np.exp(.4 * noise_field(rng, f.size, .3 * f.re))
        share = rng.uniform(0.03, 0.2)
        base = base + share * total * (
            tint / tint.mean())[:, None, None] * unit(tail)
    return base


KINDS = {'spiral': spiral, 'lenticular': lenticular,
         'elliptical': elliptical, 'irregular': irregular,
         'edge_on': edge_on, 'lsb': low_surface_brightness,
         'disturbed': disturbed, 'shells': shells, 'central': central}


def resolved_galaxy(rng, kind, re, wavelengths, rates=None):
    """Draw one large galaxy (band, y, x) float32 without PSF or noise."""
    if kind not in KINDS:
        msg = f'kind must be one of {sorted(KINDS)}, got {kind!r}'
        raise ValueError(msg)
    rates = merge_rates(rates, CONTENT)
    q = rng.uniform(0.3, 1.0)
    if kind == 'edge_on':
        q = rng.uniform(0.08, 0.2)
    elif kind in ('elliptical', 'central', 'shells'):
        q = rng.uniform(0.5, 1.0)
    reach = {'elliptical': 7, 'central': 12, 'disturbed': 5.5}.get(kind, 5)
    size = 2 * int(np.clip(reach * re, 12, 400)) + 1
    frame = make_frame(size, re, q, rng.uniform(0, np.pi))
    cube = KINDS[kind](rng, frame, wavelengths, rates)
    # fade to nothing at the stamp's edge, so that no square is seen
    edge = np.hypot(frame.x, frame.y) / (size / 2)
    cube = cube * np.clip((1 - edge) / 0.2, 0, 1)
    cube = cube / cube.sum(axis=(1, 2)).mean()
    return cube.astype(np.float32), q
