# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The measures of Haigh et al. (2021) of one image.
"""

from dataclasses import dataclass

import numpy as np

from astrodino_seg.evaluate.matching import Overlap, check_shape

__all__ = ['HaighScores', 'haigh_scores']


@dataclass(frozen=True)
class HaighScores:
    """
    The measures of Haigh et al. (2021), `A&A 645, A107
    <https://doi.org/10.1051/0004-6361/201936561>`_; the page on measures
    says where the formulae were read.

    Attributes
    ----------
    n_matched : int
        Labels that hold the brightest pixel of at least one object.
    n_truth, n_predicted : int
        Objects and labels; a label that is not matched and most of whose
        pixels are void does not count.
    under_merging : float
        Error in [0, 1) of objects that are cut in pieces.
    over_merging : float
        Error in [0, 1) of labels that hold several objects.
    n_pixels : int
        Pixels that are not void, to weight images with.
    """

    n_matched: int
    n_truth: int
    n_predicted: int
    under_merging: float
    over_merging: float
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
    Detection and area measures of Haigh et al. (2021).

    An object is found if its brightest pixel lies in a label; a label that
    holds several of them finds one object. The area errors take each map as
    a partition of the image, the sky being one of its regions. For the
    under-merging error, each predicted region of n shared pixels with the
    true region, of A pixels, that it shares most with adds (A - n) n / A,
    and the sum is divided by the number of pixels; for the over-merging
    error, truth and prediction change places. Of regions that share the same
    number, that of the smallest error is taken.

    Parameters
    ----------
    truth, predicted : `~numpy.ndarray`
        (y, x) labels.
    brightness : `~numpy.ndarray`
        (y, x) of which the maximum within an object is its brightest pixel.

    Returns
    -------
    scores : `HaighScores`
        The measures.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    overlap = Overlap(truth, predicted)
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
