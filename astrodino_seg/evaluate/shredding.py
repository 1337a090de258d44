# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Objects cut in pieces, and objects run together: measures of one image.

`measure_primaries` has ``ok``, ``frag`` and ``sep`` of large galaxies and what
lies on them; `haigh_scores` the area errors of all objects. Labels are those
of `astrodino_seg.evaluate.matching`.
"""

from dataclasses import dataclass

import numpy as np

from astrodino_seg.evaluate.matching import Overlap, check_shape
from astrodino_seg.truth import consecutive

MIN_FRAGMENT_FLUX = 0.02
OK_IOU = 0.5
OK_CONTAMINATION = 0.1
SEPARATE_IOU = 0.3
SEPARATE_PIXELS = 25


def measure_primaries(truth, predicted, flux, primaries, companions=()):
    """
    How large galaxies fare: kept whole, and kept apart from others.

    A fragment of a galaxy is a label that holds at least 2% of its true flux
    inside its truth region, unless another true object owns most of the
    label's pixels or matches it with IoU > 0.3.

    Takes truth, predicted (y, x) int, ``flux`` (y, x).
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
    <https://doi.org/10.1051/0004-6361/201936561>`_; the page on measures
    says where the formulae were read.
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
    The `HaighScores` of (y, x) labels.

    An object is found if its brightest pixel, by the (y, x) ``brightness``,
    lies in a label; a label that holds several of them finds one object. The
    area errors take each map as a partition of the image, the sky being one
    of its regions. For the under-merging error, each predicted region of n
    shared pixels with the true region, of A pixels, that it shares most with
    adds (A - n) n / A, and the sum is divided by the number of pixels; for
    the over-merging error, truth and prediction change places. Of regions
    that share the same number, that of the smallest error is taken.
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
