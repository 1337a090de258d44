# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What is kept of one simulated scene: counts and lists, not ratios.

A record can be held by JSON, so that a benchmark can be stopped and resumed;
`astrodino_seg.evaluate.tables` pools any number of them.
"""

from dataclasses import asdict

import numpy as np

from astrodino_seg.evaluate.matching import (
    SEPARATE_PIXELS,
    haigh_scores,
    match_classes,
    match_labels,
    measure_primaries,
)
from astrodino_seg.image.filters import wavelength
from astrodino_seg.truth import CLASSES


def scene_scores(truth, labels, image, classes=None):
    """
    Measure the labels (y, x) of one simulated scene against its `Truth`.

    Of the image only the names of its bands are used; ``classes``, if given,
    are label to index into `CLASSES`, of all labels, or it is a `ValueError`.
    The record, for `json.dumps`, has `None` for what cannot be measured:

    - ``n_predicted``: labels, less those of void.
    - ``haigh``: the fields of `HaighScores`.
    - ``objects``: the objects with pixels; lists ``sn``, ``size`` (root of
      pixels over pi), ``surface_brightness`` (root mean square of the own
      S/N per pixel), ``blendedness``, ``kind`` and ``iou`` (of the match at
      IoU > 0.5, or 0).
    - ``primaries``: the same of the large galaxies, where ``iou`` is that of
      the best label, and ``ok``, ``frag``, ``n_fragments``, ``flux_share``,
      ``contam``, ``lost``, ``mag_error`` and ``colour_error`` (found less
      true, in magnitudes).
    - ``companions``: objects of at least 25 pixels with their peak on a
      primary other than themselves, and whether ``separated``.
    - ``classes``, if given: for the name of each, the list ``iou`` of its
      matches, ``n_truth`` and ``n_predicted``.
    """
    labels, o = np.asarray(labels), truth.objects
    match = match_labels(truth.labels, labels)
    area = dict(zip(*np.unique(truth.labels, return_counts=True)))
    n_pixels = np.array([area.get(k, 0) for k in o['id']], int)
    large = o['primary'] & (n_pixels > 0)
    on_large = o['on_primary'] & (n_pixels >= SEPARATE_PIXELS)
    rows, separated = measure_primaries(truth.labels, labels, truth.own_sn,
                                        o['id'][large], o['id'][on_large])
    objects = _properties(o, n_pixels > 0)
    iou = dict(zip(match.truth, match.iou))
    objects['iou'] = [float(iou.get(k, 0)) for k in o['id'][n_pixels > 0]]
    record = {
        'n_predicted': match.n_predicted,
        'haigh': asdict(haigh_scores(truth.labels, labels, truth.own_sn)),
        'objects': objects,
        'primaries': {**_properties(o, large), **_columns(rows),
                      **_photometry(truth, labels, rows, image.bands)},
        'companions': {**_properties(o, on_large), 'separated': separated}}
    if classes is not None:
        found = match_classes(truth.labels, labels,
                              dict(zip(o['id'], o['cls'])), classes)
        record['classes'] = {
            CLASSES[k]: {**asdict(one), 'iou': one.iou.tolist()}
            for k, one in found.items()}
    return record


def _properties(objects, which):
    """What objects are binned by."""
    n, sn = objects['n_pixels'][which], objects['sn'][which]
    return {'sn': sn.tolist(), 'size': np.sqrt(n / np.pi).tolist(),
            'surface_brightness': (sn / np.sqrt(n)).tolist(),
            'blendedness': objects['blendedness'][which].tolist(),
            'kind': objects['kind'][which].tolist()}


def _columns(rows):
    """The rows of `measure_primaries` as lists."""
    names = {'iou': 'iou', 'ok': 'ok', 'n_fragments': 'n_fragments',
             'flux_share': 'flux_share', 'contam': 'contamination',
             'lost': 'lost'}
    return {name: [row[key] for row in rows]
            for name, key in names.items()} | {
                'frag': [row['n_fragments'] > 1 for row in rows]}


def reference_bands(names):
    """
    The indices of the band nearest to r, and of the bands of a colour.

    Those are the two neighbours in wavelength that are nearest to g and r, or
    `None` if there is one band. If a wavelength is not known, the bands are
    taken to go from blue to red.
    """
    waves = [wavelength(name) for name in names]
    if None in waves:
        waves = range(len(names))
    g, r = wavelength('g'), wavelength('r')
    reference = int(np.argmin([abs(wave - r) for wave in waves]))
    order = np.argsort(waves, kind='stable').tolist()
    pairs = zip(order, order[1:])
    return reference, min(pairs, default=None, key=lambda pair: abs(
        waves[pair[0]] - g) + abs(waves[pair[1]] - r))


def _photometry(truth, labels, rows, bands):
    """Errors of a perfect photometry within the best labels."""
    reference, colour = reference_bands(bands)
    flux = dict(zip(truth.objects['id'], truth.objects['flux']))
    out = {'mag_error': [], 'colour_error': []}
    for row in rows:
        found = truth.light[:, labels == row['best']].sum(
            axis=1, dtype=float) if row['best'] else np.nan
        with np.errstate(divide='ignore', invalid='ignore'):
            error = -2.5 * np.log10(found / flux[row['label']])
        out['mag_error'].append(_finite(error[reference]))
        out['colour_error'].append(None if colour is None else _finite(
            error[colour[0]] - error[colour[1]]))
    return out


def _finite(value):
    return float(value) if np.isfinite(value) else None
