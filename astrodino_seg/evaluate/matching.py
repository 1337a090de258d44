# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Quality measures of one image: the labels that match the truth.

Truth labels are 0 for sky, -1 for void (neither demanded nor punished) and
object ids; predicted labels are 0 for sky. Each function raises `ValueError`
if shapes differ.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array

from astrodino_seg.truth import consecutive


@dataclass(frozen=True)
class MatchScores:
    """What one-to-one matches amount to. All scores are 0 without matches."""

    #: (match,) intersection over union of the matched pairs.
    iou: np.ndarray
    #: Objects that were there to be matched. An unmatched predicted label most
    #: of whose pixels are void does not count.
    n_truth: int
    n_predicted: int

    @property
    def precision(self):
        """TP / (TP + FP)."""
        return len(self.iou) / max(self.n_predicted, 1)

    @property
    def recall(self):
        """TP / (TP + FN)."""
        return len(self.iou) / max(self.n_truth, 1)

    @property
    def f1(self):
        """2 TP / (2 TP + FP + FN): the recognition quality RQ."""
        return 2 * len(self.iou) / max(self.n_truth + self.n_predicted, 1)

    @property
    def sq(self):
        """Segmentation quality: the mean IoU of the matches."""
        return float(np.sum(self.iou)) / max(len(self.iou), 1)

    @property
    def pq(self):
        """
        Panoptic quality, SQ x RQ: Kirillov et al. (2019), `CVPR, equation 1
        <https://doi.org/10.1109/CVPR.2019.00963>`_.
        """
        return self.sq * self.f1


@dataclass(frozen=True)
class Matching(MatchScores):
    """The matches themselves: `MatchScores` and (match,) labels of each."""

    truth: np.ndarray
    predicted: np.ndarray


class Overlap:
    """Pixel counts shared by truth and predicted labels, void left out."""

    def __init__(self, truth, predicted, last=0):
        truth, predicted = np.asarray(truth), np.asarray(predicted)
        check_shape(truth, predicted=predicted)
        void = truth < 0
        self.t = np.where(void, 0, truth).ravel()
        self.p = predicted.ravel().astype(np.intp)
        self.shape = (self.t.max(initial=last) + 1,
                      self.p.max(initial=0) + 1)
        self.counts = self.total((~void).astype(np.int64))
        self.area_t = self.counts.sum(axis=1)
        self.area_p = self.counts.sum(axis=0)
        self.full_p = np.bincount(self.p, minlength=self.shape[1])

    def total(self, values):
        """(truth, predicted) sums of (y, x) values, sparse."""
        return coo_array((values.ravel(), (self.t, self.p)),
                         shape=self.shape).tocsr()

    def pairs(self):
        """(truth, predicted, shared pixels, IoU) of all that touch."""
        c = self.counts.tocoo()
        keep = (c.coords[0] > 0) & (c.coords[1] > 0) & (c.data > 0)
        t, p, n = c.coords[0][keep], c.coords[1][keep], c.data[keep]
        return t, p, n, n / (self.area_t[t] + self.area_p[p] - n)

    def match(self, min_iou):
        """(truth, predicted, IoU) of the best one-to-one assignment."""
        t, p, _, iou = self.pairs()
        keep = iou > min_iou
        t, p, iou = t[keep], p[keep], iou[keep]
        if len(np.unique(t)) == len(t) and len(np.unique(p)) == len(p):
            return t, p, iou
        rows, columns = np.unique(t), np.unique(p)
        cost = np.zeros((len(rows), len(columns)))
        cost[np.searchsorted(rows, t), np.searchsorted(columns, p)] = -iou
        i, j = linear_sum_assignment(cost)
        real = cost[i, j] < 0
        return rows[i][real], columns[j][real], -cost[i, j][real]

    def objects(self):
        """Truth labels that have pixels."""
        return np.flatnonzero(self.area_t[1:] > 0) + 1

    def labels(self, matched):
        """Predicted labels that count, whether as right or as wrong."""
        counts = self.area_p > 0.5 * self.full_p
        counts[matched] = True
        return np.flatnonzero(counts[1:]) + 1


def check_shape(truth, **arrays):
    """Raise if an array, given by its name, has not the shape of truth."""
    for name, array in arrays.items():
        if array.shape != truth.shape:
            msg = (f'{name} must have the shape of truth, {truth.shape}, '
                   f'got {array.shape}')
            raise ValueError(msg)


def match_labels(truth, predicted, min_iou=0.5):
    """
    Match predicted to true objects one to one.

    Truth and predicted are (y, x) int labels; 0 is sky, and -1 in the truth is
    void. Pairs match above an IoU, and the sum of IoU is the largest there is.
    """
    truth, true = consecutive(truth)
    predicted, found = consecutive(predicted)
    overlap = Overlap(truth, predicted)
    t, p, iou = overlap.match(min_iou)
    return Matching(iou, len(overlap.objects()), len(overlap.labels(p)),
                    true[t], found[p])


def match_classes(truth, predicted, truth_class, predicted_class):
    """
    Class to `MatchScores`, for all classes of either map.

    As `Kirillov et al. (2019) <https://doi.org/10.1109/CVPR.2019.00963>`_, a
    pair matches if its IoU is above 0.5 and its classes are the same. The
    classes are mappings that must hold all labels.
    """
    truth, true = consecutive(truth)
    predicted, seen = consecutive(predicted)
    overlap = Overlap(truth, predicted)
    t, p, iou = overlap.match(0.5)
    truth_class = _classes('truth_class', truth_class,
                           true[overlap.objects()])
    predicted_class = _classes('predicted_class', predicted_class,
                               seen[overlap.labels(p)])
    both = [(truth_class[a], predicted_class[b])
            for a, b in zip(true[t], seen[p])]
    there, found = list(truth_class.values()), list(predicted_class.values())
    return {name: MatchScores(
        iou[[a == b == name for a, b in both]], there.count(name),
        found.count(name)) for name in sorted({*there, *found})}


def _classes(parameter, classes, labels):
    missing = [int(k) for k in labels if k not in classes]
    if missing:
        msg = f'{parameter} must hold all labels, but not {missing[:5]}'
        raise ValueError(msg)
    return {k: classes[k] for k in labels}
