# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Artifacts, masks and damage: what an observation has beside the light; and how
pixels answer to light, where not in proportion to it.
"""

from typing import NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter

from astrodino_seg.simulate.scene import log_uniform

FWHM = 2 * np.sqrt(2 * np.log(2))

#: A star is very bright, and may have a ghost, above this peak in units of
#: the noise.
GHOST_PEAK = 2000.0


class Artifact(NamedTuple):
    """Light that is an object of its own, of the class artifact."""

    #: For example ``'cosmic_ray'``.
    kind: str
    #: The pixel under the patch's first one.
    y0: int
    x0: int
    #: (band, y, x) its light in units of the nominal noise.
    patch: np.ndarray


def draw_artifacts(rng, cube, psf_fwhm, stars, saturation, rates):
    """
    Satellite trails, cosmic rays, bleeding columns and ghosts: `Artifact`s.
    """
    shape = cube.shape
    found = []
    if rng.random() < rates['trail']:
        found.append(_trail(rng, shape, psf_fwhm))
    found += [_cosmic_ray(rng, shape)
              for _ in range(rng.poisson(rates['cosmic_ray']))]
    bleeding = rng.random() < rates['bleed']
    xy = np.round(np.asarray(stars, float).reshape(-1, 2)).astype(int)
    inside = ((xy >= 0) & (xy < shape[:0:-1])).all(axis=1)
    for x, y in xy[inside]:
        peak = cube[:, y, x]
        if bleeding and peak.max() > 1.5 * saturation:
            found.append(_bleed(rng, cube, x, y, saturation, psf_fwhm))
        if peak.max() > GHOST_PEAK and rng.random() < rates['ghost']:
            found.append(_ghost(rng, shape, x, y))
    return [one for one in found if one.patch.any()]


def _in_band(rng, n_bands, image):
    """An image in one band, nothing in the others."""
    patch = np.zeros((n_bands, *image.shape), np.float32)
    patch[rng.integers(n_bands)] = image
    return patch


def _line(x, y, angle, half_length, width, shape):
    """A line of unit height; one dimension is the only one it needs."""
    yy, xx = np.ogrid[:shape[0], :shape[1]]
    xx, yy = (xx - x).astype(np.float32), (yy - y).astype(np.float32)
    along = xx * np.cos(angle) + yy * np.sin(angle)
    across = -xx * np.sin(angle) + yy * np.cos(angle)
    image = np.exp(-across**2 / (2 * width**2))
    if np.isfinite(half_length):
        image /= 1 + np.exp(np.clip((np.abs(along) - half_length) / .3,
                                    -50, 50))
    return image


def _trail(rng, shape, psf_fwhm):
    x, y = rng.uniform(0, 1, 2) * shape[:0:-1]
    image = 10**rng.uniform(0, 1.5) * _line(
        x, y, rng.uniform(0, np.pi), np.inf, psf_fwhm.mean() / 2.35,
        shape[1:])
    return Artifact('trail', 0, 0, _in_band(rng, shape[0], image))


def _cosmic_ray(rng, shape, half=16):
    x, y = rng.uniform(0, 1, 2) * shape[:0:-1]
    x0, y0 = max(int(x) - half, 0), max(int(y) - half, 0)
    size = (min(int(y) + half, shape[1]) - y0, min(int(x) + half,
                                                   shape[2]) - x0)
    image = 10**rng.uniform(1, 2.3) * _line(
        x - x0, y - y0, rng.uniform(0, np.pi), rng.uniform(.6, 8), .45, size)
    return Artifact('cosmic_ray', y0, x0, _in_band(rng, shape[0], image))


def _bleed(rng, cube, x, y, saturation, psf_fwhm):
    """
    Charge that ran along the column, up to the limit in each pixel: its
    length goes with the star's charge beyond the limit.
    """
    width = rng.uniform(.2, .6) * psf_fwhm.mean()
    scale = rng.uniform(.3, 2) * psf_fwhm.mean()
    length = scale * np.sqrt(cube[:, y, x] / saturation)
    half = int(min(2 * length.max() + 4, 200))
    x0, y0 = max(int(x - 3 * width), 0), max(y - half, 0)
    part = cube[:, y0:y + half + 1, x0:int(x + 3 * width) + 2]
    yy, xx = np.ogrid[y0:y0 + part.shape[1], x0:x0 + part.shape[2]]
    column = np.exp(-np.maximum(np.abs(xx - x) - width, 0)**2 / .3)
    ends = 1 / (1 + np.exp(np.clip(
        (np.abs(yy - y) - length[:, None, None]) / .7, -50, 50)))
    full = cube[:, y, x] > 1.5 * saturation
    patch = saturation * ends * column * full[:, None, None]
    return Artifact('bleed', y0, x0, np.maximum(patch - part, 0).astype(
        np.float32) * (patch > .02 * saturation))


def _ghost(rng, shape, x, y):
    """A reflection between surfaces: the pupil, out of focus, faint."""
    outer = rng.uniform(15, 60)
    inner = outer * rng.uniform(0, .5)
    angle, d = rng.uniform(0, 2 * np.pi), rng.uniform(.5, 3) * outer
    cx, cy = x + d * np.cos(angle), y + d * np.sin(angle)
    reach = outer + 4
    x0, y0 = int(max(cx - reach, 0)), int(max(cy - reach, 0))
    x1, y1 = (int(max(min(c + reach, n), 0)) for c, n in
              ((cx, shape[2]), (cy, shape[1])))
    yy, xx = np.ogrid[y0:max(y1, y0), x0:max(x1, x0)]
    r = np.hypot(xx - cx, yy - cy)
    ring = 1 / (1 + np.exp(np.clip(r - outer, -50, 50)))
    ring = ring * (1 - 1 / (1 + np.exp(np.clip(r - inner, -50, 50))))
    height = 10**rng.uniform(-.3, .5) * rng.lognormal(0, .4, shape[0])
    height /= np.sqrt(shape[0])
    return Artifact('ghost', y0, x0, (height[:, None, None] * ring).astype(
        np.float32))


def draw_masks(rng, mask, rates):
    """
    Lose pixels (band, y, x) to chip gaps and stripes, of a band or all; in
    place.
    """
    n_bands = len(mask)
    for _ in range(rng.poisson(rates['gap'])):
        band = slice(None) if rng.random() < .4 else rng.integers(n_bands)
        part = mask[band].swapaxes(-2, -1) if rng.random() < .5 else (
            mask[band])
        start, width = rng.integers(part.shape[-2]), rng.integers(2, 40)
        part[..., start:start + width, :] = True
    if rng.random() < rates['stripes']:
        part = mask[rng.integers(n_bands)]
        part = part.T if rng.random() < .5 else part
        step, width = rng.integers(8, 60), rng.integers(1, 4)
        start, stop = np.sort(rng.integers(0, len(part) + 1, 2))
        rows = np.arange(start, stop)
        part[rows[rows % step < width]] = True


def add_bad_lines(rng, image, sky, n):
    """Add bad rows and columns, whole or in part; in place."""
    n_bands = len(image)
    for _ in range(n):
        band = (slice(None) if rng.random() < .4
                else slice(k := rng.integers(n_bands), k + 1))
        line, under = image[band], sky[band]
        if rng.random() < .5:
            line, under = line.swapaxes(1, 2), under.swapaxes(1, 2)
        start, width = rng.integers(line.shape[1]), rng.integers(1, 4)
        first, last = 0, line.shape[2]
        if rng.random() < .5:
            first, last = np.sort(rng.integers(0, last + 1, 2))
        height = np.float32(rng.choice([-1, 1]) * log_uniform(rng, 3, 100))
        part = np.s_[:, start:start + width, first:last]
        if rng.random() < .6:
            line[part] += height
        else:               # dead, and blind to what is there
            line[part] = under[part] + height


def draw_edge(rng, shape):
    """
    Where, (y, x) bool, the frame is beyond the chip: a side of it, or two.
    """
    ny, nx = shape
    angle = rng.integers(4) * np.pi / 2
    if rng.random() < .4:
        angle += (rng.normal(0, .08) if rng.random() < .5
                  else rng.uniform(0, np.pi / 2))
    yy, xx = np.ogrid[:ny, :nx]
    beyond = np.zeros(shape, bool)
    for turn in range(1 + (rng.random() < .35)):
        a = angle + turn * np.pi / 2
        across = ((xx - (nx - 1) / 2) * np.cos(a)
                  + (yy - (ny - 1) / 2) * np.sin(a))
        half = across.max()
        beyond |= across > half * (1 - 2 * rng.uniform(.02, .35))
    return beyond


def fill(rng, image, where, *, smooth=True):
    """
    Put 0, a number near the sky or far from it, or a sky without noise in
    place of what was lost, ``where`` (band, y, x); in place.
    """
    kind = rng.choice(['zero', 'near', 'far', 'smooth'][:3 + smooth])
    away = rng.uniform(-2, 2) if kind == 'near' else (
        rng.choice([-1, 1]) * 10**rng.uniform(.7, 3.5))
    for plane, lost in zip(image, where):
        if not lost.any():
            continue
        if kind == 'zero':
            plane[lost] = 0
        elif kind == 'smooth' and not lost.all():
            plane[lost] = _smooth_sky(plane, lost)[lost]
        else:
            level, noise = _level(plane[::3, ::3])
            plane[lost] = level + away * noise


def _level(values):
    level = np.median(values)
    return level, 1.48 * np.median(np.abs(values - level))


def _smooth_sky(plane, lost):
    """A plane through the medians of blocks."""
    ny, nx = plane.shape
    rows, columns = (np.linspace(0, n, 5).astype(int) for n in (ny, nx))
    points = []
    for y0, y1 in zip(rows, rows[1:]):
        for x0, x1 in zip(columns, columns[1:]):
            good = ~lost[y0:y1:3, x0:x1:3]
            if good.any():
                points.append(((x0 + x1) / 2, (y0 + y1) / 2, np.median(
                    plane[y0:y1:3, x0:x1:3][good])))
    if len(points) < 4:
        return np.full_like(plane, np.median(plane[~lost]))
    x, y, value = np.array(points).T
    a, b, c = np.linalg.lstsq(np.stack([x, y, x * 0 + 1], axis=1), value,
                              rcond=None)[0]
    smooth = a * np.arange(nx) + b * np.arange(ny)[:, None] + c
    # nothing is extrapolated far beyond the edge of a chip
    return smooth.clip(value.min(), value.max()).astype(np.float32)


def odd_cores(rng, image, light, limit, sky):
    """
    What detectors read where they are saturated, without a mask: cores of 0,
    negative, flat, or flat with a negative centre; in place.
    """
    kind = rng.choice(['zero', 'negative', 'flat', 'hollow'])
    negative = -limit * 10**rng.uniform(-2, 0)
    factor = rng.uniform(1.5, 4)
    for plane, source, level in zip(image, light, sky[:, ::8, ::8].mean(
            axis=(1, 2))):
        core = source > limit
        if kind in ('flat', 'hollow'):
            plane[core] = level + limit
            core = source > factor * limit
        if kind != 'flat':
            plane[core] = 0 if kind == 'zero' else negative


def smooth_noise(rng, shape, sigma):
    """Noise of one sigma a pixel, float32, that is smooth in each band."""
    noise = rng.standard_normal(shape, dtype=np.float32)
    point = np.zeros(2 * int(5 * sigma + 2) + 1)
    point[len(point) // 2] = 1
    kernel = gaussian_filter(point, sigma, truncate=3)
    # the noise of a pixel is the same at the frame's edges
    return gaussian_filter(noise, (0, sigma, sigma), truncate=3,
                           mode='wrap') / np.float32((kernel**2).sum())


def count(rng, light, noise_map, sky):
    """Count photons of light (band, y, x) and a sky: an image, float32."""
    root = np.sqrt(sky)
    mean = (sky + root * light.astype(float)) / noise_map**2
    return (rng.poisson(mean.clip(0)) / root).astype(np.float32)


def quantise(image, step):
    """Round to steps; in place."""
    np.multiply(np.rint(image / np.float32(step)), np.float32(step),
                out=image)


def photographic(rng, light, noise_map):
    """
    A photographic plate, float32, for each band of light (band, y, x): the
    characteristic curve of density over the logarithm of the exposure (Hurter
    & Driffield 1890) is a logistic one; the grain is that of densities.
    """
    image = np.empty_like(light)
    steepness, toe = rng.uniform(1, 2.5), rng.uniform(.04, .3)
    for b, plane in enumerate(light):
        densest = log_uniform(rng, 15, 150)
        # so that, at the sky, density goes with light as one
        exposure = 1 + plane / np.float32(steepness * toe * densest)
        power = exposure.clip(1e-3)**np.float32(steepness)
        density = power / (power + np.float32(1 / toe - 1))
        image[b] = (density - toe) * np.float32(densest / (1 - toe))
    # a scanner's spot
    image += noise_map * smooth_noise(rng, image.shape, rng.uniform(.5, 1.2))
    return image


def stretch(rng, image):
    """Values (band, y, x) float32 as they are shown on a screen."""
    # the cheapest of robust levels
    sky = np.median(image[:, ::3, ::3], axis=(1, 2), keepdims=True)
    black = sky - (rng.uniform(2, 8) if rng.random() < .8
                   else rng.uniform(-.5, 2))
    span = log_uniform(rng, 20, 3000)
    x = ((image - black) / span).clip(0, 1).astype(np.float32)
    kind = rng.integers(4)
    if kind == 0:
        # Lupton et al. 2004, PASP 116, 133; linear up to some sigma
        scale = np.float32(span / rng.uniform(1, 10))
        x = np.arcsinh(scale * x) / np.arcsinh(scale)
    elif kind == 1:
        scale = np.float32(10**rng.uniform(1.5, 3))
        x = np.log1p(scale * x) / np.log1p(scale)
    else:
        x **= np.float32(.5 if kind == 2 else rng.uniform(.35, .9))
    x *= 255
    if rng.random() < .5:
        quantise(x, 1)
    return x
