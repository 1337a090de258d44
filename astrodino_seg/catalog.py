# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The table of a segmentation, and the light about labels that tells totals.
"""

import warnings
from typing import Any, NamedTuple

import numpy as np
from astropy import units as u
from astropy.table import QTable
from scipy import ndimage

from astrodino_seg.errors import AstroDinoUserWarning
from astrodino_seg.flags import FLAGS, flags_of, saturated
from astrodino_seg.image import Image
from astrodino_seg.inputs.background import correlation_of_area
from astrodino_seg.inputs.channels import (
    Normalised,
    detection_channel,
    parts_of,
)
from astrodino_seg.truth import CLASSES

CLASS_NAMES = CLASSES[1:]

#: Borders of the annuli, in radii of the label: finer where most light is.
EDGES = np.concatenate([np.linspace(0, 1, 9), np.linspace(1, 2, 6)[1:]])
N_ANNULI = len(EDGES) - 1
#: What `features` has of each label.
N_FEATURES = 4 * N_ANNULI + 2


def make_table(image: Image, normalised: Normalised, grouping: Any,
               classes: np.ndarray, totals: Any = None,
               class_names: tuple = CLASS_NAMES, lost: Any = None) -> QTable:
    """
    Measure the objects of a segmentation, with (n_objects, n_classes)
    probabilities of the classes and, if given, the totals of the model; and
    why the image is unlike those that the model copes with, if it is.
    """
    groups = grouping.groups
    n = len(grouping.seed_of)
    where = np.flatnonzero(groups)
    labels = groups.ravel()[where]

    def total(values):
        return np.bincount(labels, values, minlength=n + 1)[1:]

    area = np.bincount(labels, minlength=n + 1)[1:]
    weight = np.sinh(normalised.channels[0].ravel()[where])
    x, y = centroids(weight, 1e-6, where, groups.shape, total)
    table = QTable()
    table['label'] = np.arange(1, n + 1, dtype=np.int32)
    table['class'] = np.array(class_names)[classes.argmax(axis=1)]
    for k, name in enumerate(class_names):
        table[f'p_{name}'] = classes[:, k].astype(np.float32)
    table['group_confidence'] = grouping.confidence.astype(np.float32)
    table['n_fragments'] = grouping.n_fragments.astype(np.int32)
    table['area'] = area * u.pix**2
    table['x_centroid'], table['y_centroid'] = x, y
    sky = image.sky(x, y)
    if sky is not None:
        table['sky_centroid'] = sky
    elif image.wcs is not None:
        axes = ' '.join([*image.wcs.wcs.ctype, image.wcs.wcs.radesys]).strip()
        msg = (f'no positions on the sky: astropy has no frame for {axes} '
               f'(it has those of the Sun after "import sunpy.coordinates")')
        warnings.warn(msg, AstroDinoUserWarning)
    unit = 1 if image.unit is None else image.unit
    covered, bright = [], []
    for b, band in enumerate(image.bands):
        sigma, value, sky = (planes[b].ravel()[where] for planes in (
            normalised.noise, image.cube, normalised.background))
        good = np.isfinite(sigma)
        value -= sky
        bright.append(saturated(value, sigma, where, groups,
                                normalised.noise[b], n))
        covered.append(total(good) / area)
        seen = np.where(covered[-1] > 0, 1, np.nan)
        table[f'flux_{band}'] = total(np.where(good, value, 0)) * seen * unit
        table[f'flux_err_{band}'] = correlation_of_area(
            normalised.correlation[b], covered[-1] * area) * np.sqrt(
            total(np.where(good, sigma, 0).astype(float)**2)) * seen * unit
    if totals is not None:
        _add_totals(table, image, normalised, groups, totals)
    table['flags'] = flags_of(image, grouping, np.array(covered),
                              np.concatenate(bright))
    if lost:
        table['flags'] |= FLAGS['out_of_domain']
        table.meta['lost'] = lost
    # a string, which FITS headers hold too
    table.meta['flags'] = ', '.join(f'{k}={v}' for k, v in FLAGS.items())
    table.meta['bands'] = ','.join(image.bands)
    return table


def measure(result, grouping, classes):
    """`make_table` of other labels, from what a `SegmentationResult` keeps."""
    planes = result.background, result.noise, result.noise_correlation
    return make_table(result.image, Normalised(
        detection_channel(result.image, *planes)[None], *planes), grouping,
        classes, result.totals, result.class_names[1:], result.lost)


def _add_totals(table, image, normalised, groups, totals):
    """Columns of all light, within the label and beyond."""
    light = measure_light(image, normalised.background, normalised.noise,
                          groups, table)
    factor, error = totals.factors(features(light))
    positive = light.flux > 0       # of what has no light none is missing
    factor[~positive] = 1
    whole = np.where(positive, light.flux, np.inf)
    share = light.error / whole
    for weight, band in zip(light.weights, image.bands):
        flux, noise = table[f'flux_{band}'], table[f'flux_err_{band}']
        table[f'total_flux_{band}'] = factor * flux
        # the noise of all bands together is in the error of the factor
        own = np.maximum(noise**2 - (share * flux)**2, 0 * noise**2)
        # what a label lacks has its own colour; 2 is for pulls of width one
        apart = 1 - np.clip(weight * np.asarray(flux) / whole, 0, 1)
        table[f'total_flux_err_{band}'] = factor * np.sqrt(
            (1 + 2 * apart) * (error * positive * flux)**2 + own)
    table['half_light_radius'] = half_light_radius(
        light.growth, factor * light.flux) * u.pix


def centroids(weight, least, where, shape, total):
    """Centroids weighted by what is positive."""
    weight = np.clip(weight, 0, None).astype(float) + least
    rows, columns = np.divmod(where, shape[1])
    norm = total(weight)
    return total(weight * columns) / norm, total(weight * rows) / norm


class Growth(NamedTuple):
    """
    Sums (n, annulus) over elliptical annuli about each label: of ``valid``
    pixels, its own and those of the sky that have no nearer label, of their
    ``light``, and of its ``own`` pixels. They have the area of those between
    circles of `EDGES` times the (n,) ``radius`` of the circle of the label's
    area.
    """

    valid: np.ndarray
    own: np.ndarray
    light: np.ndarray
    radius: np.ndarray

    @property
    def area(self):
        """(n, annulus) pixels of the annuli, whoever has them."""
        return np.pi * self.radius[:, None]**2 * np.diff(EDGES**2)


class Light(NamedTuple):
    """
    The light of labels in all bands together, (n,), and about them; (band,)
    ``weights`` are 0 for a band without valid pixels.
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
    typical = [_typical(sigma) for sigma in noise]
    for b, band in enumerate(image.bands):
        if not np.isfinite(typical[b]):
            continue
        # the best band has 1, so that no unit makes it too large a number
        weights[b] = (min(typical) / typical[b])**2
        for rows in parts_of(image.shape):
            good = np.isfinite(noise[b, rows])
            light[rows] += np.float32(weights[b]) * np.where(
                good, image.cube[b, rows] - background[b, rows], 0)
            valid[rows] |= good
        value, error = (np.nan_to_num(np.asarray(table[f'{name}_{band}']))
                        for name in ('flux', 'flux_err'))
        flux += weights[b] * value
        variance += (weights[b] * error)**2
    return Light(flux, np.sqrt(variance), growth(light, valid, labels),
                 weights)


def _typical(sigma):
    """The median of what is finite, or infinity."""
    good = np.isfinite(sigma)
    return float(np.median(sigma[good])) if good.any() else np.inf


def growth(light, valid, labels):
    """
    The `Growth` of (y, x) ``light`` less the background, in annuli about each
    of the (y, x) labels from 1; ``valid`` (y, x) bool.
    """
    n = int(labels.max(initial=0))
    radius, (x0, y0, xx, xy, yy) = _ellipses(light, labels, n)
    nearest = ndimage.distance_transform_edt(
        labels == 0, return_distances=False, return_indices=True)
    farthest = EDGES[-1] * radius.max(initial=0)
    # no ellipse reaches further: its matrix has the determinant radius^-4
    reach = 1.01 * EDGES[-1]**2 * (xx + yy) * radius**4
    sums = np.zeros((3, n * N_ANNULI))
    for part in parts_of(labels.shape):
        near_y, near_x = nearest[:, part]
        rows, columns = np.indices(near_y.shape, float, sparse=True)
        apart = (near_y - (rows + part.start))**2 + (near_x - columns)**2
        close = np.nonzero(np.sqrt(apart) <= farthest)
        rows, columns = close[0] + part.start, close[1]
        k = labels[near_y[close], near_x[close]] - 1
        dx, dy = columns - x0[k], rows - y0[k]
        some = dx * dx + dy * dy <= reach[k]
        rows, columns, k, dx, dy = (
            one[some] for one in (rows, columns, k, dx, dy))
        distance = np.sqrt(xx[k] * dx**2 + 2 * xy[k] * dx * dy
                           + yy[k] * dy**2)
        some = distance < EDGES[-1]
        rows, columns = rows[some], columns[some]
        at = k[some] * N_ANNULI + np.searchsorted(
            EDGES, distance[some], 'right') - 1
        good = valid[rows, columns]
        for total, values in zip(sums, (
                good, labels[rows, columns] > 0,
                np.where(good, light[rows, columns], 0))):
            np.add.at(total, at, values.astype(float))
    return Growth(*sums.reshape(3, n, N_ANNULI), radius)


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
    the shares of the label and of sky; the label's radius and S/N.
    """
    flux, error, one = light.flux, np.maximum(light.error, 1e-30), light.growth
    count = np.maximum(one.valid, 1)
    mean = one.light / count
    sigma = (error / (np.pi**0.5 * one.radius))[:, None] / np.sqrt(count)
    whole = np.maximum(np.abs(flux), 3 * error)[:, None]
    parts = [np.clip(mean * one.area / whole, -1, 2),
             np.arcsinh(mean / sigma / 3), np.clip(one.own / one.area, 0, 1.5),
             np.clip((one.valid - one.own) / one.area, 0, 1.5),
             np.log(one.radius)[:, None], np.arcsinh(flux / error)[:, None]]
    return np.concatenate(parts, axis=1).astype(np.float32)


def half_light_radius(one, total):
    """
    (n,) radius of the circle of the area of the ellipse within which half of
    ``total`` (n,) is, pixels; NaN if that is beyond the annuli.
    """
    light = one.light / np.maximum(one.valid, 1) * one.area
    within = np.maximum.accumulate(np.pad(np.cumsum(light, axis=1),
                                          ((0, 0), (1, 0))), axis=1)
    # surface brightness is even within an annulus, so light goes as its area
    area = [np.interp(half, part, EDGES**2, right=np.nan)
            for half, part in zip(total / 2, within)]
    return np.sqrt(area) * one.radius
