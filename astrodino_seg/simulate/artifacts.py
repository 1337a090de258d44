# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What an observation adds that is not in the sky, and what it loses.
"""

from typing import NamedTuple

import numpy as np

__all__ = ['Artifact', 'draw_artifacts', 'draw_masks']

#: A star is very bright, and may have a ghost, above this peak in units of
#: the noise.
GHOST_PEAK = 2000.0


class Artifact(NamedTuple):
    """
    Light that is an object of its own, of the class artifact.

    Attributes
    ----------
    kind : str
        For example ``'cosmic_ray'``.
    y0, x0 : int
        The pixel under the patch's first one.
    patch : `~numpy.ndarray`
        (band, y, x) its light in units of the nominal noise.
    """

    kind: str
    y0: int
    x0: int
    patch: np.ndarray


def draw_artifacts(rng, cube, psf_fwhm, stars, saturation, rates):
    """
    Draw satellite trails, cosmic rays, bleeding columns and ghosts.

    Parameters
    ----------
    rng : `numpy.random.Generator`
        Source of all randomness.
    cube : `~numpy.ndarray`
        (band, y, x) the light of the scene.
    psf_fwhm : `~numpy.ndarray`
        Pixels, one a band.
    stars : `~numpy.ndarray`
        (star, 2) positions x, y.
    saturation : float
        The largest value that a pixel holds.
    rates : dict of float
        Of `~astrodino_seg.simulate.rates.CONDITIONS`, complete.

    Returns
    -------
    artifacts : list of `Artifact`
        What there is.
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
    Lose pixels to chip gaps and stripes, in one band or in all; in place.

    Parameters
    ----------
    rng : `numpy.random.Generator`
        Source of all randomness.
    mask : `~numpy.ndarray`
        (band, y, x) bool.
    rates : dict of float
        Of `~astrodino_seg.simulate.rates.CONDITIONS`, complete.
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
