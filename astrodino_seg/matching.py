# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Quality measures: a label map against the truth.

Truth labels are 0 for sky, -1 for void (neither demanded nor punished) and
object ids; predicted labels are 0 for sky.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array

__all__ = ['Matching', 'match_labels', 'measure_primaries']

MIN_FRAGMENT_FLUX = 0.02
OK_IOU = 0.5
OK_CONTAMINATION = 0.1
SEPARATE_IOU = 0.3
SEPARATE_PIXELS = 25


@dataclass(frozen=True)
class Matching:
    """
    One-to-one matches at IoU above a limit.

    Attributes
    ----------
    truth, predicted : `~numpy.ndarray`
        Labels of the matched pairs.
    iou : `~numpy.ndarray`
        Their intersection over union.
    n_truth, n_predicted : int
        Objects that were there to be matched. An unmatched predicted label
        most of whose pixels are void does not count.
    """

    truth: np.ndarray
    predicted: np.ndarray
    iou: np.ndarray
    n_truth: int
    n_predicted: int

    @property
    def f1(self):
        """2 TP / (2 TP + FP + FN)."""
        return 2 * len(self.iou) / max(self.n_truth + self.n_predicted, 1)

    @property
    def pq(self):
        """Panoptic quality (Kirillov et al. 2019, CVPR, equation 1)."""
        return 2 * self.iou.sum() / max(self.n_truth + self.n_predicted, 1)


class _Overlap:
    """Pixel counts shared by truth and predicted labels, void left out."""

    def __init__(self, truth, predicted, last=0):
        truth, predicted = np.asarray(truth), np.asarray(predicted)
        if truth.shape != predicted.shape:
            msg = (f'predicted must have the shape of truth, {truth.shape}, '
                   f'got {predicted.shape}')
            raise ValueError(msg)
        void = truth < 0
        self.t = np.where(void, 0, truth).ravel()
        self.p = predicted.ravel()
        valid = ~void.ravel()
        shape = (self.t.max(initial=last) + 1, self.p.max(initial=0) + 1)
        self.counts = coo_array(
            (valid.astype(np.int64), (self.t, self.p)), shape=shape).tocsr()
        self.area_t = np.asarray(self.counts.sum(axis=1)).ravel()
        self.area_p = np.asarray(self.counts.sum(axis=0)).ravel()
        self.full_p = np.bincount(self.p, minlength=shape[1])

    def pairs(self):
        """(truth, predicted, shared pixels, IoU) of all that touch."""
        c = self.counts.tocoo()
        keep = (c.coords[0] > 0) & (c.coords[1] > 0) & (c.data > 0)
        t, p, n = c.coords[0][keep], c.coords[1][keep], c.data[keep]
        return t, p, n, n / (self.area_t[t] + self.area_p[p] - n)


def match_labels(truth, predicted, min_iou=0.5):
    """
    Match predicted to true objects one to one.

    Parameters
    ----------
    truth, predicted : `~numpy.ndarray`
        (y, x) labels.
    min_iou : float, optional
        Pairs match above this IoU; the assignment maximises the sum of IoU.

    Returns
    -------
    matching : `Matching`
        The matches.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    overlap = _Overlap(truth, predicted)
    t, p, _, iou = overlap.pairs()
    keep = iou > min_iou
    t, p, iou = t[keep], p[keep], iou[keep]
    if len(t) and (len(np.unique(t)) < len(t) or len(np.unique(p)) < len(p)):
        rows, columns = np.unique(t), np.unique(p)
        cost = np.zeros((len(rows), len(columns)))
        cost[np.searchsorted(rows, t), np.searchsorted(columns, p)] = -iou
        i, j = linear_sum_assignment(cost)
        matched = cost[i, j] < 0
        t, p, iou = rows[i][matched], columns[j][matched], -cost[i, j][matched]
    counted = overlap.area_p > 0.5 * overlap.full_p
    counted[p] = True
    return Matching(t, p, iou, int((overlap.area_t[1:] > 0).sum()),
                    int(counted[1:].sum()))


def measure_primaries(truth, predicted, flux, primaries, companions=()):
    """
    How large galaxies fare: kept whole, and kept apart from others.

    A fragment of a galaxy is a label that holds at least 2% of its true flux
    inside its truth region, unless another true object owns most of the
    label's pixels or matches it with IoU > 0.3.

    Parameters
    ----------
    truth, predicted : `~numpy.ndarray`
        (y, x) labels.
    flux : `~numpy.ndarray`
        (y, x) true flux of the owner of each pixel.
    primaries : sequence of int
        Truth labels of the large galaxies.
    companions : sequence of int, optional
        Truth labels of objects whose peak lies on a primary.

    Returns
    -------
    rows : list of dict
        One a primary: ``label``, ``n_fragments``, ``flux_share`` and ``iou``
        of the label with most of its flux, ``contamination`` (share of the
        light in that label that belongs to others), ``ok`` (one fragment,
        IoU > 0.5, contamination < 0.1) and ``lost`` (no fragment).
    separated : list of bool
        One a companion of at least 25 pixels: whether it has a label of its
        own (IoU > 0.3, and not a primary's).
    """
    # an object may have no pixel left, where all of them are void
    overlap = _Overlap(truth, predicted, max([0, *primaries, *companions]))
    t, p, n, iou = overlap.pairs()
    best_truth_share = np.zeros(len(overlap.area_p))
    owner = np.zeros(len(overlap.area_p), int)
    for ti, pi, ni in zip(t, p, n):
        if ni > best_truth_share[pi]:
            best_truth_share[pi], owner[pi] = ni, ti
    owns_most = best_truth_share > 0.5 * np.maximum(overlap.area_p, 1)
    good = {}
    for ti, pi, value in zip(t, p, iou):
        if value > SEPARATE_IOU:
            good.setdefault(int(pi), set()).add(int(ti))
    shared = coo_array((np.where(truth.ravel() < 0, 0, flux.ravel()),
                        (overlap.t, overlap.p)),
                       shape=overlap.counts.shape).tocsr()
    iou_of = {(int(a), int(b)): c for a, b, c in zip(t, p, iou)}
    rows, primary_label = [], set()
    for k in primaries:
        row = _one_primary(int(k), shared, iou_of, owner, owns_most, good)
        primary_label.add(row.pop('best'))
        rows.append(row)
    separated = [any(value > SEPARATE_IOU and b not in primary_label
                     for (a, b), value in iou_of.items() if a == int(k))
                 for k in companions
                 if overlap.area_t[int(k)] >= SEPARATE_PIXELS]
    return rows, separated


def _one_primary(k, shared, iou_of, owner, owns_most, good):
    flux = shared[[k]].toarray()[0]
    total = max(flux.sum(), 1e-30)
    share = flux / total
    share[0] = 0
    fragments = [p for p in np.flatnonzero(share >= MIN_FRAGMENT_FLUX)
                 if not (owner[p] != k and owns_most[p])
                 and not (good.get(int(p), {k}) - {k})]
    best = int(share.argmax()) if share.max() > 0 else 0
    column = shared[:, [best]].toarray()[:, 0] if best else np.zeros(1)
    light = column[1:].sum()
    contamination = 1 - flux[best] / light if best and light > 0 else 0.0
    iou = iou_of.get((k, best), 0.0)
    return {'label': k, 'best': best, 'n_fragments': len(fragments),
            'flux_share': float(share[best]) if best else 0.0, 'iou': iou,
            'contamination': float(contamination),
            'ok': bool(len(fragments) == 1 and iou > OK_IOU
                       and contamination < OK_CONTAMINATION),
            'lost': not fragments}
