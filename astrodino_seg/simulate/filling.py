# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Galaxies that fill the frame, and discs too faint to be seen pixel by pixel.
"""

import math

import numpy as np

from astrodino_seg.simulate.profiles import noise_field, sed

__all__ = ['enlarge', 'faint_disc', 'roughen']

#: Central S/N of a pixel of faint discs, in all bands together.
FAINT = 0.2, 1.2


def enlarge(galaxy, re, x, y, shape):
    """
    What a frame shows of an enlarged galaxy.

    Parameters
    ----------
    galaxy : `~astrodino_seg.simulate.render.Large`
        The galaxy.
    re : float
        The half-light radius wanted, pixels; a galaxy that is larger stays
        as it is.
    x, y : float
        Where in the frame its nucleus lies, pixels.
    shape : tuple of int
        (y, x) pixels of the frame.

    Returns
    -------
    galaxy : `~astrodino_seg.simulate.render.Large`
        The galaxy; its ``cube`` is the frame, and the scale is still that of
        the whole galaxy.
    """
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
    """
    Give an enlarged galaxy structure as fine as the PSF again.

    Parameters
    ----------
    rng : `numpy.random.Generator`
        Source of all randomness.
    galaxy : `~astrodino_seg.simulate.render.Large`
        The galaxy.
    sky : `~astrodino_seg.simulate.surveys.Sky`
        Through what it is seen.

    Returns
    -------
    galaxy : `~astrodino_seg.simulate.render.Large`
        The galaxy, patchy.
    """
    ny, nx = galaxy.cube.shape[1:]
    fields = [noise_field(rng, max(ny, nx), factor * sky.mean_fwhm)
              for factor in (1.5, 4)]
    lumps = rng.uniform(.05, .3) * sum(fields)[:ny, :nx]
    return galaxy._replace(cube=np.exp(lumps) * galaxy.cube)


def faint_disc(rng, sky, shape):
    """
    An exponential disc, smooth and of low surface brightness.

    Its scale is 8 to 200 pixels, at most half the frame's side.

    Parameters
    ----------
    rng : `numpy.random.Generator`
        Source of all randomness.
    sky : `~astrodino_seg.simulate.surveys.Sky`
        Through what it is seen.
    shape : tuple of int
        (y, x) pixels of the frame.

    Returns
    -------
    stamp : `~numpy.ndarray`
        (band, y, x) float32, the whole frame.
    row : dict of float
        ``x``, ``y`` and ``re``, pixels.
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
