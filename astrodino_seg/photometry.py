# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The light about each label: what it is that a label leaves out.
"""

from typing import NamedTuple

import numpy as np
from scipy.ndimage import distance_transform_edt

#: Borders of the annuli, in radii of the label: finer where most light is.
EDGES = np.concatenate([np.linspace(0, 1, 9), np.linspace(1, 2, 6)[1:]])
N_ANNULI = len(EDGES) - 1
#: What `features` has of each label.
N_FEATURES = 4 * N_ANNULI + 2


class Growth(NamedTuple):
    """
    Sums (n, annulus) over elliptical annuli about each label: ``count`` valid
    pixels, its own and those of the sky that have no nearer label; ``own``
    pixels of the label; ``light``, the sum over those of ``count``.
    ``radius``, (n,), is that of the circle of its area; the annuli have the
    area of those between circles of `EDGES` times this.
    """

    count: np.ndarray
    own: np.ndarray
    light: np.ndarray
    radius: np.ndarray

    @property
    def area(self):
        """(n, annulus) pixels of the annuli, whoever has them."""
        return np.pi * self.radius[:, None]**2 * np.diff(EDGES**2)


class Light(NamedTuple):
    """
    The light of labels in all bands together: ``flux`` and its ``error``,
    (n,), within, ``growth`` about them, and (band,) ``weights`` of the bands,
    0 for one without valid pixels.
    """

    flux: np.ndarray
    error: np.ndarray
    growth: Growth
    weights: np.ndarray


def measure_light(image, background, noise, labels, table):
    """
    Measure all bands as one, each with the weight that is best for a spectrum
    as flat as its noise: background, noise (band, y, x), labels (y, x) from 1,
    and a table with ``flux_<band>`` and ``flux_err_<band>``.
    """
    weights = np.zeros(len(noise))
    light = np.zeros(image.shape, np.float32)
    valid = np.zeros(image.shape, bool)
    flux, variance = np.zeros((2, len(table)))
    seen = np.isfinite(noise)
    typical = [float(np.median(sigma[good])) if good.any() else np.inf
               for sigma, good in zip(noise, seen)]
    for b, (band, good) in enumerate(zip(image.bands, seen)):
        if not good.any():
            continue
        # the best band has 1, so that no unit makes it too large a number
        weights[b] = (min(typical) / typical[b])**2
        light += np.float32(weights[b]) * np.where(
            good, image.cube[b] - background[b], 0)
        valid |= good
        value, error = (np.nan_to_num(np.asarray(table[f'{name}_{band}']))
                        for name in ('flux', 'flux_err'))
        flux += weights[b] * value
        variance += (weights[b] * error)**2
    return Light(flux, np.sqrt(variance), growth(light, valid, labels),
                 weights)


def growth(light, valid, labels):
    """
    The `Growth` of (y, x) ``light`` less the background, in annuli about each
    of the (y, x) labels from 1; ``valid`` (y, x) bool.
    """
    n = int(labels.max(initial=0))
    radius, (x0, y0, xx, xy, yy) = _ellipses(light, labels, n)
    apart, (near_y, near_x) = distance_transform_edt(labels == 0,
                                                     return_indices=True)
    rows, columns = np.nonzero(apart <= EDGES[-1] * radius.max(initial=0))
    k = labels[near_y[rows, columns], near_x[rows, columns]] - 1
    dx, dy = columns - x0[k], rows - y0[k]
    distance = np.sqrt(xx[k] * dx**2 + 2 * xy[k] * dx * dy + yy[k] * dy**2)
    annulus = np.searchsorted(EDGES, distance, 'right') - 1
    inside = annulus < N_ANNULI
    rows, columns = rows[inside], columns[inside]
    at = (k * N_ANNULI + annulus)[inside]

    def total(values):
        return np.bincount(at, values, n * N_ANNULI).reshape(n, N_ANNULI)

    good = valid[rows, columns]
    return Growth(count=total(good), own=total(labels[rows, columns] > 0),
                  light=total(np.where(good, light[rows, columns], 0)),
                  radius=radius)


def _ellipses(light, labels, n):
    """
    Radius of each label, and x, y, xx, xy, yy: the centre, and the form that
    is 1 on the ellipse of its area, with the root of the light for weight.
    """
    rows, columns = np.nonzero(labels)
    k = labels[rows, columns] - 1
    bright = np.sqrt(np.maximum(light[rows, columns], 0).astype(float))
    bright += 1e-3 * bright.max(initial=0) + 1e-30

    def mean(values):
        return np.bincount(k, bright * values, n) / norm

    norm = np.bincount(k, bright, n)
    x0, y0 = mean(columns), mean(rows)
    dx, dy = columns - x0[k], rows - y0[k]
    xx, xy, yy = mean(dx * dx) + 1 / 12, mean(dx * dy), mean(dy * dy) + 1 / 12
    radius = np.sqrt(np.bincount(k, minlength=n) / np.pi)
    root = np.sqrt(np.maximum(xx * yy - xy**2, 1e-6)) * radius**2
    return radius, (x0, y0, yy / root, -xy / root, xx / root)


def features(light):
    """
    (n, `N_FEATURES`) float32: the light of each annulus, were it all like its
    pixels, of that of the label; its surface brightness in units of its noise;
    its shares that are the label's, and that are sky; the label's radius and
    S/N.
    """
    flux, error, one = light.flux, np.maximum(light.error, 1e-30), light.growth
    count = np.maximum(one.count, 1)
    mean = one.light / count
    sigma = (error / (np.pi**0.5 * one.radius))[:, None] / np.sqrt(count)
    whole = np.maximum(np.abs(flux), 3 * error)[:, None]
    parts = [np.clip(mean * one.area / whole, -1, 2),
             np.arcsinh(mean / sigma / 3), np.clip(one.own / one.area, 0, 1.5),
             np.clip((one.count - one.own) / one.area, 0, 1.5),
             np.log(one.radius)[:, None], np.arcsinh(flux / error)[:, None]]
    return np.concatenate(parts, axis=1).astype(np.float32)


def half_light_radius(one, total):
    """
    (n,) radius of the circle of the area of the ellipse within which half of
    ``total`` (n,) is, pixels; NaN if that is beyond the annuli.
    """
    light = one.light / np.maximum(one.count, 1) * one.area
    within = np.maximum.accumulate(np.pad(np.cumsum(light, axis=1),
                                          ((0, 0), (1, 0))), axis=1)
    # surface brightness is even within an annulus, so light goes as its area
    area = [np.interp(half, part, EDGES**2, right=np.nan)
            for half, part in zip(total / 2, within)]
    return np.sqrt(area) * one.radius
