# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Quality measures of one image: the labels that match the truth; objects cut in
pieces, and objects run together. Truth labels are 0 for sky, -1 for void
(neither demanded nor punished) and object ids. Each function raises
`ValueError` if shapes differ.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array

from astrodino_seg.truth import consecutive

MIN_FRAGMENT_FLUX = 0.02
OK_IOU = 0.5
OK_CONTAMINATION = 0.1
SEPARATE_IOU = 0.3
SEPARATE_PIXELS = 25


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
    Match predicted to true objects one to one: (y, x) int labels, 0 sky, -1
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
    Class to `MatchScores`, for all classes of either map; a pair matches if
    its IoU is above 0.5 and its classes, mappings of all labels, are the same
    (Kirillov et al. 2019, CVPR).
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


def measure_primaries(truth, predicted, flux, primaries, companions=()):
    """
    How large galaxies fare, kept whole, and kept apart from others. A fragment
    is a label that holds at least 2% of a galaxy's true (y, x) flux inside its
    truth region, unless another true object owns most of the label's pixels or
    matches it with IoU > 0.3.
    """
    truth, flux = np.asarray(truth), np.asarray(flux, float)
    # an object may have no pixel left, where all of them are void
    overlap = Overlap(truth, predicted, max([0, *primaries, *companions]))
    check_shape(truth, flux=flux)
    t, p, n, iou = overlap.pairs()
    own = iou > SEPARATE_IOU
    claimed = own | (n > 0.5 * overlap.area_p[p])
    light = overlap.total(np.where(truth < 0, 0, flux))
    rows = []
    for k in primaries:
        of_others = p[claimed & (t != k)]
        row = _one_primary(int(k), light, of_others)
        row['iou'] = float(iou[(t == k) & (p == row['best'])].sum())
        row['ok'] = (row['n_fragments'] == 1 and row['iou'] > OK_IOU
                     and row['contamination'] < OK_CONTAMINATION)
        rows.append(row)
    separated = []
    for k in companions:
        if overlap.area_t[k] >= SEPARATE_PIXELS:
            taken = [row['best'] for row in rows if row['label'] != k]
            separated.append(not np.isin(p[own & (t == k)], taken).all())
    return rows, separated


def _one_primary(k, light, of_others):
    flux = light[[k]].toarray()[0]
    share = flux / max(flux.sum(), 1e-30)
    share[0] = 0
    fragments = np.setdiff1d(np.flatnonzero(share >= MIN_FRAGMENT_FLUX),
                             of_others)
    best = int(share.argmax())         # 0 if all of it is sky
    within = light[:, [best]].toarray()[1:, 0].sum()
    return {'label': k, 'best': best, 'n_fragments': len(fragments),
            'flux_share': float(share[best]),
            'contamination': float(1 - flux[best] / within) if best else 0.0,
            'lost': len(fragments) == 0}


@dataclass(frozen=True)
class HaighScores:
    """
    The measures of Haigh et al. (2021), `A&A 645, A107
    <https://doi.org/10.1051/0004-6361/201936561>`_.
    """

    #: Labels that hold the brightest pixel of at least one object.
    n_matched: int
    #: Objects and labels; a label that is not matched and most of whose pixels
    #: are void does not count.
    n_truth: int
    n_predicted: int
    #: Errors in [0, 1) of objects that are cut in pieces, and of labels that
    #: hold several objects.
    under_merging: float
    over_merging: float
    #: Pixels that are not void, to weight images with.
    n_pixels: int

    @property
    def f_score(self):
        """Of the detection by brightest pixels, in [0, 1]."""
        return 2 * self.n_matched / max(self.n_truth + self.n_predicted, 1)

    @property
    def area_score(self):
        """1 - sqrt(OM^2 + UM^2), at most 1."""
        return 1 - np.hypot(self.over_merging, self.under_merging)

    @property
    def combined_a(self):
        """sqrt(F^2 + area^2), at most sqrt(2)."""
        return np.hypot(self.f_score, self.area_score)

    @property
    def combined_b(self):
        """((1 - OM) (1 - UM) F)^(1/3), in [0, 1]."""
        return np.cbrt((1 - self.over_merging) * (1 - self.under_merging)
                       * self.f_score)


def haigh_scores(truth, predicted, brightness):
    """
    The `HaighScores` of (y, x) labels. An object is found if its brightest
    pixel lies in a label; a label finds one object at most. For the
    under-merging error, each predicted region, the sky too, of n shared pixels
    with the true region, of A pixels, that it shares most with adds (A - n) n
    / A; for the over-merging error, truth and prediction change places. Of
    regions that share the same number, that of the smallest error is taken.
    """
    overlap = Overlap(consecutive(truth)[0], consecutive(predicted)[0])
    brightness = np.asarray(brightness)
    check_shape(np.asarray(truth), brightness=brightness)
    objects = overlap.objects()
    order = np.lexsort((brightness.ravel(), overlap.t))
    last = np.searchsorted(overlap.t[order], objects, side='right') - 1
    found = np.unique(overlap.p[order[last]])
    found = found[found > 0]
    n_pixels = int(overlap.area_t.sum())
    return HaighScores(
        len(found), len(objects), len(overlap.labels(found)),
        _merging(overlap.counts, overlap.area_t) / max(n_pixels, 1),
        _merging(overlap.counts.T, overlap.area_p) / max(n_pixels, 1),
        n_pixels)


def _merging(counts, area):
    """Sum over columns of (A - n) n / A with the row of the largest n."""
    shared = counts.tocoo()
    there = shared.data > 0
    (row, column), n = np.array(shared.coords)[:, there], shared.data[there]
    error = (area[row] - n) * n / area[row]
    order = np.lexsort((-error, n, column))
    last = np.flatnonzero(np.diff(column[order], append=-1))
    return float(error[order][last].sum())
