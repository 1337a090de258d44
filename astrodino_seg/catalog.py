# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The table of a segmentation: one row a label.
"""

import warnings
from typing import Any

import numpy as np
from astropy import units as u
from astropy.table import QTable
from scipy.ndimage import binary_dilation, maximum_filter
from skimage.measure import label as label_regions

from astrodino_seg.errors import AstroDinoUserWarning
from astrodino_seg.image import Image
from astrodino_seg.inputs.background import correlation_of_area
from astrodino_seg.inputs.channels import Normalised, detection_channel
from astrodino_seg.photometry import (
    features,
    half_light_radius,
    measure_light,
)
from astrodino_seg.truth import CLASSES

CLASS_NAMES = CLASSES[1:]

#: Bits of the ``flags`` column. ``saturated``: in a band the brightest pixels
#: are a plateau, or around a hole of invalid ones; ``uncovered``: a band has
#: no valid pixel of the label, and no flux; ``part_covered``: a band lacks
#: some of its pixels; ``blended``: it touches another label;
#: ``low_confidence``: the ``group_confidence`` is below 0.5; ``edited``: a
#: person changed the label or its class; ``cut``: blocks of a mosaic cut it.
FLAGS = {'edge': 1, 'masked': 2, 'disjoint': 4, 'saturated': 8,
         'uncovered': 16, 'part_covered': 32, 'blended': 64,
         'low_confidence': 128, 'edited': 256, 'cut': 512}

MIN_SATURATED_SN = 200
MIN_PLATEAU = 4
#: Of pixels above half the peak the share above 0.9 of it, 0.15 for any
#: Gaussian and more for a plateau; and the least number of these.
MIN_STEEP, MIN_STEEP_PIXELS = 0.3, 9


def make_table(image: Image, normalised: Normalised, grouping: Any,
               classes: np.ndarray, totals: Any = None,
               class_names: tuple = CLASS_NAMES) -> QTable:
    """
    Measure the objects of a segmentation, with (n_objects, n_classes)
    probabilities of the classes and, if they are given, the totals of the
    model. Columns ``label``, ``class``, ``p_<class>``, ``group_confidence``,
    ``n_fragments``, ``area`` (pixels), ``x_centroid``, ``y_centroid``
    (S/N-weighted, pixels), ``sky_centroid`` (with a WCS whose frame is known),
    ``flux_<band>`` and ``flux_err_<band>`` (the sum over the valid pixels of
    the label less the background, in the image's unit; NaN without any; errors
    are those of the noise, with its correlation), with ``totals``
    ``total_flux_<band>`` and ``total_flux_err_<band>`` (with the light that
    the label leaves out, of the colour of that within) and
    ``half_light_radius`` (pixels: of the circle with the area of the ellipse;
    of all bands together), and ``flags`` (bits of `FLAGS`). With a calibrated
    model, ``group_confidence`` is the probability that the label is one
    object, neither cut nor merged, and else that its weakest grouping decision
    is right.
    """
    groups = grouping.groups
    n = len(grouping.seed_of)
    where = np.flatnonzero(groups)
    labels = groups.ravel()[where]

    def total(values):
        return np.bincount(labels, values, minlength=n + 1)[1:]

    area = np.bincount(labels, minlength=n + 1)[1:]
    weight = np.sinh(normalised.channels[0].ravel()[where])
    x, y = _centroids(weight, 1e-6, where, groups.shape, total)
    table = QTable()
    table['label'] = np.arange(1, n + 1, dtype=np.int32)
    table['class'] = np.array(class_names)[classes.argmax(axis=1)]
    for k, name in enumerate(class_names):
        table[f'p_{name}'] = classes[:, k].astype(np.float32)
    table['group_confidence'] = grouping.confidence.astype(np.float32)
    table['n_fragments'] = grouping.n_fragments.astype(np.int32)
    table['area'] = area * u.pix**2
    table['x_centroid'], table['y_centroid'] = x, y
    if image.wcs is not None:
        sky = image.sky(x, y)
        if sky is not None:
            table['sky_centroid'] = sky
        else:
            msg = (f'astropy has no frame for {list(image.wcs.wcs.ctype)}; '
                   f'there are no positions on the sky')
            warnings.warn(msg, AstroDinoUserWarning)
    unit = 1 if image.unit is None else image.unit
    covered = []
    for b, band in enumerate(image.bands):
        sigma = normalised.noise[b].ravel()[where]
        good = np.isfinite(sigma)
        value = (image.cube[b] - normalised.background[b]).ravel()[where]
        covered.append(total(good) / area)
        seen = np.where(covered[-1] > 0, 1, np.nan)
        table[f'flux_{band}'] = total(np.where(good, value, 0)) * seen * unit
        table[f'flux_err_{band}'] = correlation_of_area(
            normalised.correlation[b], covered[-1] * area) * np.sqrt(
            total(np.where(good, sigma, 0).astype(float)**2)) * seen * unit
    if totals is not None:
        _add_totals(table, image, normalised, groups, totals)
    table['flags'] = _flags(image, normalised, grouping, np.array(covered))
    # a string, which FITS headers hold too
    table.meta['flags'] = ', '.join(f'{k}={v}' for k, v in FLAGS.items())
    table.meta['bands'] = ','.join(image.bands)
    return table


def measure_labels(labels, image, background):
    """
    Measure (y, x) int labels of any tool, of which 0 and less are sky: a table
    of ``label``, ``area``, ``x_centroid``, ``y_centroid`` (of the light of all
    bands) and ``flux_<band>`` less the (band, y, x) background.
    """
    where = np.flatnonzero(labels > 0)
    values, index = np.unique(labels.ravel()[where], return_inverse=True)

    def total(weights=None):
        return np.bincount(index, weights, minlength=len(values))

    light = np.where(image.mask, 0, image.cube - background).reshape(
        image.n_bands, -1)[:, where]
    x, y = _centroids(light.sum(axis=0, dtype=float), 1e-30, where,
                      image.shape, total)
    unit = 1 if image.unit is None else image.unit
    table = QTable({'label': values, 'area': total() * u.pix**2,
                    'x_centroid': x, 'y_centroid': y})
    for band, plane in zip(image.bands, light):
        table[f'flux_{band}'] = total(plane) * unit
    return table


def measure(result, grouping, classes):
    """`make_table` of other labels, from what a `SegmentationResult` keeps."""
    planes = result.background, result.noise, result.noise_correlation
    return make_table(result.image, Normalised(
        detection_channel(result.image, *planes)[None], *planes), grouping,
        classes, result.totals, result.class_names[1:])


def _add_totals(table, image, normalised, groups, totals):
    """Columns of all light, within the label and beyond."""
    light = measure_light(image, normalised.background, normalised.noise,
                          groups, table)
    factor, error = totals.factors(features(light))
    positive = light.flux > 0       # of what has no light none is missing
    factor[~positive] = 1
    share = light.error / np.where(positive, light.flux, np.inf)
    for band in image.bands:
        flux, noise = table[f'flux_{band}'], table[f'flux_err_{band}']
        table[f'total_flux_{band}'] = factor * flux
        # the noise of all bands together is in the error of the factor
        own = np.maximum(noise**2 - (share * flux)**2, 0 * noise**2)
        own[~positive] = noise[~positive]**2
        table[f'total_flux_err_{band}'] = factor * np.sqrt(
            (error * positive * flux)**2 + own)
    table['half_light_radius'] = half_light_radius(
        light.growth, factor * light.flux) * u.pix


def _centroids(weight, least, where, shape, total):
    """Centroids weighted by what is positive."""
    weight = np.clip(weight, 0, None).astype(float) + least
    rows, columns = np.divmod(where, shape[1])
    norm = total(weight)
    return total(weight * columns) / norm, total(weight * rows) / norm


def _flags(image, normalised, grouping, covered):
    groups, n = grouping.groups, covered.shape[1]
    flags = np.zeros(n + 1, np.int32)
    flags[1:][grouping.confidence < 0.5] |= FLAGS['low_confidence']
    flags[np.unique(neighbours(groups)[0])] |= FLAGS['blended']
    flags[1:][(covered == 0).any(axis=0)] |= FLAGS['uncovered']
    flags[1:][((covered > 0) & (covered < 1)).any(axis=0)] |= (
        FLAGS['part_covered'])
    edge = np.concatenate([groups[0], groups[-1], groups[:, 0],
                           groups[:, -1]])
    flags[np.unique(edge)] |= FLAGS['edge']
    bad = binary_dilation(image.mask.any(axis=0), np.ones((3, 3), bool))
    flags[np.unique(groups[bad])] |= FLAGS['masked']
    pieces, n_pieces = label_regions(groups, background=0, connectivity=2,
                                     return_num=True)
    owner = np.zeros(n_pieces + 1, np.int32)
    owner[pieces.ravel()] = groups.ravel()
    n_of = np.bincount(owner[1:], minlength=n + 1)
    flags[n_of > 1] |= FLAGS['disjoint']
    for b in range(image.n_bands):
        flags[_saturated(image.cube[b] - normalised.background[b],
                         normalised.noise[b], groups, n)] |= (
                             FLAGS['saturated'])
    return flags[1:]


def neighbours(groups, *planes, connectivity=8):
    """
    (2, m) labels of pixels that touch, by a corner too if the connectivity is
    8, and for each (y, x) plane its (2, m) values there.
    """
    ny, nx = groups.shape
    found = []
    for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1))[:connectivity // 2]:
        here = np.s_[:ny - dy, max(-dx, 0):nx - max(dx, 0)]
        there = np.s_[dy:, max(dx, 0):nx + min(dx, 0)]
        one, other = groups[here], groups[there]
        both = (one != other) & (one > 0) & (other > 0)
        found.append([[plane[here][both], plane[there][both]]
                      for plane in (groups, *planes)])
    return [np.concatenate(part, axis=1) for part in zip(*found)]


def _saturated(data, noise, groups, n):
    """
    Labels with a flat top, which is some pixels within 1% of a high peak or
    more within 10%, and a steep fall below; or with a hole in their middle.
    """
    high = (groups > 0) & (data > MIN_SATURATED_SN * noise)
    if not high.any():
        return []
    labels, values = groups[high], data[high]
    peak = np.zeros(n + 1)
    np.maximum.at(peak, labels, values)
    exact, near, half = (
        np.bincount(labels[values > share * peak[labels]], minlength=n + 1)
        for share in (0.99, 0.9, 0.5))
    found = (near > MIN_STEEP * half) & (
        (exact >= MIN_PLATEAU) | (near >= MIN_STEEP_PIXELS))
    valid = np.isfinite(noise)
    if not valid.all():
        holes = label_regions(~valid, connectivity=1)
        ring = maximum_filter(holes, 3) * valid
        size, whole, bright = (
            np.bincount(one.ravel(), minlength=holes.max() + 1)
            for one in (holes, ring, ring[high]))
        hole = (size >= MIN_PLATEAU) & (bright == whole)
        hole[0] = False
        found[groups[hole[ring]]] = True
        found[0] = False
    return np.flatnonzero(found)
