# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Several finders on one image, side by side.
"""

import time
import warnings
from dataclasses import dataclass

import numpy as np
from astropy.table import QTable
from photutils.utils.exceptions import NoDetectionsWarning
from scipy.ndimage import find_objects

from astrodino_seg.errors import AstroDinoUserWarning, ProgramError
from astrodino_seg.evaluate.matching import Overlap, match_labels
from astrodino_seg.image import as_image
from astrodino_seg.inputs.channels import (
    PreprocessSpec,
    normalise,
    rgb_image,
)
from astrodino_seg.report import measure_labels, write_report

#: A piece counts if it holds this share of a label's flux.
MIN_PIECE = 0.02


def run_finder(name, finder, image, *, ignored=NoDetectionsWarning):
    """
    Labels of a finder, its table (`None` if it has none) and its seconds. All
    labels are 0 if it finds nothing, or, with a warning, if it is another
    program that fails. ``ignored`` are warnings of the finder.
    """
    labels, table = np.zeros(image.shape, np.int32), None
    segment = getattr(finder, 'segment', None)
    start = time.perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', ignored)
            found = (segment or finder)(image)
    except ProgramError as err:
        msg = f'{name} failed and has found nothing: {err}'
        warnings.warn(msg, AstroDinoUserWarning)
        found = None
    else:
        if segment:
            table = () if found is None else found.table
            found = found and found.segmentation_image
    seconds = time.perf_counter() - start
    if found is not None:
        labels = np.asarray(found.data)
    return labels, table, seconds


@dataclass(frozen=True)
class Comparison:
    """Label maps of one image."""

    #: What was segmented.
    image: object
    #: (y, x) sum of the bands, less their backgrounds, in the image's unit; 0
    #: where masked.
    flux: np.ndarray
    #: (y, x) int labels of each finder, all 0 where it found nothing. The
    #: first is the reference.
    maps: dict
    #: Wall time of each finder.
    seconds: dict
    #: (y, x) true labels; 0 sky, -1 void.
    truth: np.ndarray | None = None
    #: (band, y, x) what ``flux`` is less of.
    background: np.ndarray | None = None

    def report(self, path, *, title='Comparison', lines=()):
        """Write one HTML page with the maps to blink, and their tables."""
        write_report(path, self.image, rgb_image(self.image), self.all_maps, {
            name: matched_table(self, name) for name in self.all_maps},
            title=title, lines=lines)

    @property
    def all_maps(self):
        """Those of the finders and the truth, whose void is sky here."""
        if self.truth is None:
            return self.maps
        truth = self.truth.clip(0)
        if truth.max(initial=0) > truth.size:       # ids of a survey
            truth = np.unique(truth, return_inverse=True)[1].reshape(
                truth.shape)
        return {**self.maps, 'truth': truth}


def compare_finders(data, finders, *, truth=None):
    """
    Run finders on an image.

    Parameters
    ----------
    data : image-like
        What `~astrodino_seg.as_image` takes.
    finders : dict of str to callable
        Name to a callable that takes an `~astrodino_seg.Image` and returns a
        `~photutils.segmentation.SegmentationImage`, or `None` where nothing
        is found: a `~astrodino_seg.DinoSegmenter`, those of
        `astrodino_seg.evaluate.baselines`, or any other. The first is what the
        others are compared with.
    truth : array_like, optional
        (y, x) true labels; 0 sky, -1 void.

    Returns
    -------
    comparison : `Comparison`
        The label maps.

    Raises
    ------
    ValueError
        If ``finders`` is empty or ``truth`` has another shape.

    Warns
    -----
    AstroDinoUserWarning
        If a finder, being another program, fails; its map is then empty.
    """
    if not finders:
        msg = f'finders must hold at least one finder, got {finders!r}'
        raise ValueError(msg)
    image = as_image(data)
    if truth is not None:
        truth = np.asarray(truth)
        if truth.shape != image.shape:
            msg = (f'truth must have the shape of the image, {image.shape}, '
                   f'got {truth.shape}')
            raise ValueError(msg)
    background = normalise(image, PreprocessSpec()).background
    flux = np.where(image.mask, 0, image.cube - background).sum(axis=0)
    maps, seconds = {}, {}
    for name, finder in finders.items():
        maps[name], _, seconds[name] = run_finder(name, finder, image)
    return Comparison(image, flux, maps, seconds, truth, background)


class _Overlap:
    """Pixels and flux that the labels of two maps share, sky left out."""

    def __init__(self, first, second, flux):
        over = Overlap(first, second)
        *self.pair, self.shared, self.iou = over.pairs()
        self.area = [over.area_t, over.area_p]
        light = over.total(np.maximum(flux, 0))
        self.flux = [light.sum(axis=k) for k in (1, 0)]
        self.light = np.asarray(light[self.pair[0], self.pair[1]]).ravel()

    def n_pieces(self, of):
        """
        How many labels of the other map are pieces of each label: lie in it
        with more than half of their pixels and hold `MIN_PIECE` of its flux.
        """
        whole, piece = self.pair[of], self.pair[1 - of]
        counts = ((self.shared > 0.5 * self.area[1 - of][piece])
                  & (self.light >= MIN_PIECE * self.flux[of][whole]))
        return np.bincount(whole[counts], minlength=len(self.area[of]))

    def best_iou(self):
        """The best IoU of each label of the first map."""
        best = np.zeros(len(self.area[0]))
        np.maximum.at(best, self.pair[0], self.iou)
        return best


def comparison_table(comparison):
    """
    How the maps differ from the first, and from the truth where it is known.

    Parameters
    ----------
    comparison : `Comparison`
        Of `compare_finders`.

    Returns
    -------
    table : `~astropy.table.QTable`
        One row a finder: ``finder``, ``seconds``, ``n_labels``,
        ``n_matched`` (labels that match one of the reference at IoU > 0.5),
        ``n_split`` (labels of the reference that are two or more here),
        ``n_merged`` (labels here that are two or more in the reference),
        ``flux_ratio`` and ``flux_scatter`` (median of the matched labels'
        flux over the reference's, and half the distance of its 16th and 84th
        percentiles); with a truth also ``f1`` and ``pq`` against it.
    """
    reference = next(iter(comparison.maps.values()))
    rows = []
    for name, labels in comparison.maps.items():
        over = _Overlap(reference, labels, comparison.flux)
        match = match_labels(reference, labels)
        before = over.flux[0][match.truth]
        good = before > 0
        ratio = over.flux[1][match.predicted][good] / before[good]
        low, middle, high = (np.percentile(ratio, [16, 50, 84])
                             if len(ratio) else [np.nan] * 3)
        row = {'finder': name, 'seconds': comparison.seconds[name],
               'n_labels': int((over.area[1][1:] > 0).sum()),
               'n_matched': len(match.iou),
               'n_split': int((over.n_pieces(0)[1:] > 1).sum()),
               'n_merged': int((over.n_pieces(1)[1:] > 1).sum()),
               'flux_ratio': middle, 'flux_scatter': (high - low) / 2}
        if comparison.truth is not None:
            against = match_labels(comparison.truth, labels)
            row.update(f1=against.f1, pq=against.pq)
        rows.append(row)
    table = QTable(rows=rows)
    for column in table.columns.values():
        if column.dtype.kind == 'f':
            column.info.format = '.3f'
    return table


def matched_table(comparison, name=None):
    """
    Label by label of a finder (the first, if `None`), its ``label``, ``area``,
    ``x_centroid``, ``y_centroid``, ``flux_<band>`` and ``flux``, and what
    became of it in the others' maps (of others than the first, in the
    first's): ``<finder>_label`` of the best IoU (0 is none), ``_iou``,
    ``_pieces`` (labels there that are pieces of it), ``_merged`` (labels here
    that are pieces of that label) and ``_flux``.
    """
    maps = comparison.all_maps
    first, *others = maps
    name = first if name is None else name
    labels = maps[name]
    table = measure_labels(labels, comparison.image, comparison.background)
    own = table['label']
    unit = 1 if comparison.image.unit is None else comparison.image.unit

    def flux_of(labels):
        return np.bincount(labels.ravel(), comparison.flux.ravel())

    table['flux'] = flux_of(labels)[own] * unit
    for other in others if name == first else [first]:
        over = _Overlap(labels, maps[other], comparison.flux)
        best = np.zeros((2, len(over.area[0])))
        order = np.argsort(over.iou)            # the last, the best, stays
        best[:, over.pair[0][order]] = over.pair[1][order], over.iou[order]
        partner = best[0, own].astype(int)
        table[f'{other}_label'] = partner
        table[f'{other}_iou'] = best[1, own]
        table[f'{other}_pieces'] = over.n_pieces(0)[own]
        table[f'{other}_merged'] = over.n_pieces(1)[partner] * (partner > 0)
        table[f'{other}_flux'] = np.where(
            partner > 0, flux_of(maps[other])[partner], np.nan) * unit
    return table


def most_different(comparison, n_places=6, *, margin=0.25):
    """
    Where the other finders differ most from the first: ``n_places`` at most,
    (x0, x1, y0, y1) in pixels, the worst first, by flux times the share of the
    others that cut a label in pieces, or else disagree about its extent.
    """
    reference, *others = comparison.maps.values()
    if not others or not reference.any():
        return []
    worst = 0
    for labels in others:
        over = _Overlap(reference, labels, comparison.flux)
        cut = np.maximum(over.n_pieces(0) - 1, 0)
        worst = worst + over.flux[0] * (cut + 1 - over.best_iou())
    worst[0] = 0
    windows = find_objects(reference)
    zooms = []
    for k in np.argsort(-worst, kind='stable'):
        if len(zooms) == n_places or worst[k] <= 0:
            break
        zoom = _square(windows[k - 1], reference.shape, margin)
        if not any(_inside(zoom, other) for other in zooms):
            zooms.append(zoom)
    return zooms


def _square(window, shape, margin):
    """A square about a window, moved into the image."""
    side = max(c.stop - c.start for c in window)
    side = int(max(side * (1 + 2 * margin), 40))
    out = []
    for cut, n in zip(window[::-1], shape[::-1]):           # x, y
        low = (cut.start + cut.stop - side) // 2
        low = max(min(low, n - side), 0)
        out += [low, min(low + side, n)]
    return tuple(out)


def _inside(zoom, other):
    """Whether the middle of a zoom is shown in another already."""
    x, y = (zoom[0] + zoom[1]) / 2, (zoom[2] + zoom[3]) / 2
    return other[0] <= x < other[1] and other[2] <= y < other[3]
