# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What detectors and pipelines spoil without a mask: lines, edges, gaps, cores.
"""

import numpy as np

__all__ = ['add_bad_lines', 'draw_edge', 'fill', 'odd_cores']


def add_bad_lines(rng, image, sky, n):
    """
    Add bad rows and columns, whole or in part; in place.

    Parameters
    ----------
    rng : `numpy.random.Generator`
        Source of all randomness.
    image, sky : `~numpy.ndarray`
        (band, y, x) what is observed, and the sky alone.
    n : int
        How many.
    """
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
        height = np.float32(rng.choice([-1, 1])
                            * np.exp(rng.uniform(np.log(3), np.log(100))))
        part = np.s_[:, start:start + width, first:last]
        if rng.random() < .6:
            line[part] += height
        else:               # dead, and blind to what is there
            line[part] = under[part] + height


def draw_edge(rng, shape):
    """
    Where the frame is beyond the chip: a side of it, or two.

    Parameters
    ----------
    rng : `numpy.random.Generator`
        Source of all randomness.
    shape : tuple of int
        (y, x) pixels.

    Returns
    -------
    beyond : `~numpy.ndarray`
        (y, x) bool.
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
    Put something in place of what was lost; in place.

    It is 0, a number near the sky or far from it, or a sky without noise.

    Parameters
    ----------
    rng : `numpy.random.Generator`
        Source of all randomness.
    image, where : `~numpy.ndarray`
        (band, y, x) what is observed, and bool.
    smooth : bool, optional
        Whether it may be a sky without noise.
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
    What detectors read where they are saturated, without a mask; in place.

    Cores are 0, negative, flat, or flat with a negative centre.

    Parameters
    ----------
    rng : `numpy.random.Generator`
        Source of all randomness.
    image, light : `~numpy.ndarray`
        (band, y, x) what is observed, and the light before it saturated.
    limit : float
        The light at which a pixel saturates.
    sky : `~numpy.ndarray`
        (band, y, x) the sky alone.
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
