# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the matching module.
"""

import tracemalloc
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal
from skimage.metrics import contingency_table

from astrodino_seg.evaluate.matching import (
    HaighScores,
    haigh_scores,
    match_classes,
    match_labels,
    measure_primaries,
)

FEW = settings(deadline=None, max_examples=40)
LABELS = arrays(np.int32, (5, 6), elements=st.integers(0, 3))
TRUTH = arrays(np.int32, (5, 6), elements=st.integers(-1, 3))


def block(shape, *boxes):
    """Labels 1, 2, ... of boxes (y0, y1, x0, x1), the last on top."""
    out = np.zeros(shape, int)
    for k, (y0, y1, x0, x1) in enumerate(boxes, start=1):
        out[y0:y1, x0:x1] = k
    return out


def iou_table(truth, predicted):
    """All IoU by sets of pixels, those of void left out."""
    valid = truth.ravel() >= 0
    pixels = [{k: set(np.flatnonzero((a.ravel() == k) & valid))
               for k in np.unique(a[a > 0])} for a in (truth, predicted)]
    return {(t, p): len(a & b) / len(a | b)
            for t, a in pixels[0].items() for p, b in pixels[1].items()
            if a | b}


def best_sum(iou, min_iou):
    """The largest sum of IoU over one-to-one matches, by trying all."""
    truth = sorted({t for t, _ in iou})
    predicted = sorted({p for _, p in iou})
    predicted += [None] * len(truth)
    scores = [0.0]
    for order in permutations(predicted, len(truth)):
        values = [iou.get(pair, 0) for pair in zip(truth, order)]
        scores.append(sum(v for v in values if v > min_iou))
    return max(scores)


def test_hand():
    truth = block((4, 6), (0, 2, 0, 4), (2, 4, 3, 6))
    predicted = block((4, 6), (0, 2, 1, 4), (3, 4, 4, 6))
    predicted[2, 1] = 1
    m = match_labels(truth, predicted)
    # label 1: 6 of 8 and 7 pixels shared; label 2: 2 of 6 and 2
    assert_array_equal(m.truth, [1])
    assert_array_equal(m.predicted, [1])
    assert_allclose(m.iou, [6 / 9])
    assert (m.n_truth, m.n_predicted) == (2, 2)
    assert_allclose([m.precision, m.recall, m.f1], 0.5)
    assert_allclose(m.sq, 6 / 9)
    assert_allclose(m.pq, (6 / 9) / (1 + 0.5 * 1 + 0.5 * 1))
    assert_allclose(sorted(match_labels(truth, predicted, 0.2).iou),
                    [1 / 3, 6 / 9])


@FEW
@given(LABELS)
def test_contingency(labels):
    """The IoU follow from scikit-image's table of shared pixels."""
    other = np.roll(labels, 1, axis=1)
    table = contingency_table(labels, other).toarray()
    m = match_labels(labels, other, 0.0)
    for t, p, iou in zip(m.truth, m.predicted, m.iou):
        both = table[t, p]
        assert_allclose(iou, both / (table[t].sum() + table[:, p].sum()
                                     - both))


@FEW
@given(TRUTH, LABELS, st.sampled_from([0.0, 0.2, 0.5]))
def test_brute_force(truth, predicted, min_iou):
    m = match_labels(truth, predicted, min_iou)
    iou = iou_table(truth, predicted)
    assert_allclose(m.iou.sum(), best_sum(iou, min_iou), atol=1e-12)
    assert_allclose(m.iou, [iou[pair] for pair in zip(m.truth, m.predicted)])
    assert len(set(m.truth)) == len(set(m.predicted)) == len(m.iou)
    assert (m.iou > min_iou).all()
    assert m.n_truth == len(np.unique(truth[truth > 0]))
    assert 0 <= m.pq <= m.f1 <= 1


@FEW
@given(TRUTH, LABELS, st.permutations([1, 2, 3]), st.permutations([1, 2, 3]))
def test_permuted(truth, predicted, one, other):
    flux = np.arange(1.0, 31).reshape(5, 6)
    to = np.array([0, *one, -1])           # the last is void
    new_truth, new = to[truth], np.array([0, *other])[predicted]
    a, b = match_labels(truth, predicted), match_labels(new_truth, new)
    assert_allclose([a.f1, a.pq], [b.f1, b.pq])
    rows, _ = measure_primaries(truth, predicted, flux, [1, 2])
    again, _ = measure_primaries(new_truth, new, flux, [to[1], to[2]])
    for row, other_row in zip(rows, again):
        for key in ('n_fragments', 'flux_share', 'lost'):
            assert_allclose(row[key], other_row[key], rtol=1e-6)


@FEW
@given(TRUTH.filter(lambda t: (t > 0).any()))
def test_truth_itself(truth):
    m = match_labels(truth, np.where(truth > 0, truth, 0))
    assert m.f1 == m.pq == 1
    ids = np.unique(truth[truth > 0])
    rows, _ = measure_primaries(truth, np.where(truth > 0, truth, 0),
                                np.ones(truth.shape), ids)
    for row in rows:
        assert row['ok']
        assert not row['lost']
        assert row['n_fragments'] == row['iou'] == row['flux_share'] == 1
        assert_allclose(row['contamination'], 0, atol=1e-12)


def test_void():
    """Pixels of void neither help nor harm, nor do labels made of them."""
    truth = block((6, 10), (0, 6, 0, 5))
    predicted = truth.copy()
    predicted[:, 7:] = 2
    assert_allclose(match_labels(truth, predicted).f1, 2 / 3)
    truth[:, 6:] = -1
    m = match_labels(truth, predicted)
    assert (m.f1, m.pq, m.n_predicted) == (1, 1, 1)
    # a label that is mostly void, but half of its valid part is sky
    predicted[:, 5] = 2
    assert match_labels(truth, predicted).n_predicted == 1
    predicted[:, 8:] = 0
    m = match_labels(truth, predicted)      # 6 of 12 are valid: no more
    assert m.n_predicted == 1
    predicted[:, 7] = 0
    assert match_labels(truth, predicted).n_predicted == 2


def test_matched_label_in_void():
    """A match counts as an object even if most of it is void."""
    truth = np.full((10, 20), -1)
    truth[:, :2] = 1
    m = match_labels(truth, np.ones_like(truth))
    assert (m.f1, m.pq, m.n_truth, m.n_predicted) == (1, 1, 1, 1)


def test_nothing():
    sky, one = np.zeros((3, 4), int), block((3, 4), (0, 2, 0, 2))
    for truth, predicted in ((sky, one), (one, sky), (sky, sky)):
        m = match_labels(truth, predicted)
        assert m.f1 == m.pq == 0
        assert len(m.iou) == 0


def test_shape():
    match = r'shape of truth, \(3, 4\), got \(4, 3\)'
    with pytest.raises(ValueError, match=match):
        match_labels(np.zeros((3, 4), int), np.zeros((4, 3), int))
    with pytest.raises(ValueError, match=match):
        measure_primaries(np.zeros((3, 4), int), np.zeros((4, 3), int),
                          np.zeros((3, 4)), [1])
    with pytest.raises(ValueError, match='flux must have the ' + match):
        measure_primaries(np.zeros((3, 4), int), np.zeros((3, 4), int),
                          np.zeros((4, 3)), [1])
    with pytest.raises(ValueError, match='brightness must have the ' + match):
        haigh_scores(np.zeros((3, 4), int), np.zeros((3, 4), int),
                     np.zeros((4, 3)))


def test_false_ones():
    """Two objects, one found; three labels: precision is not recall."""
    truth = block((6, 12), (0, 2, 0, 4), (4, 6, 0, 4))
    predicted = block((6, 12), (0, 2, 0, 3), (0, 2, 8, 10), (4, 6, 8, 10))
    m = match_labels(truth, predicted)
    assert_allclose([m.precision, m.recall, m.f1], [1 / 3, 1 / 2, 2 / 5])
    assert_allclose([m.sq, m.pq], [6 / 8, 6 / 8 * 2 / 5])


# ---------------------------------------------------------- class by class

def test_classes_hand():
    """A star and a galaxy are found, another galaxy is called a star."""
    truth = block((6, 20), (0, 2, 0, 4), (0, 2, 6, 10), (4, 6, 0, 4))
    predicted = truth.copy()
    predicted[0:2, 9] = 0                  # 6 of 8 pixels
    predicted[4:6, 12:14] = 4
    scores = match_classes(truth, predicted, {1: 1, 2: 2, 3: 2},
                           {1: 1, 2: 2, 3: 1, 4: 2})
    assert set(scores) == {1, 2}
    star, galaxy = scores[1], scores[2]
    assert (star.n_truth, star.n_predicted) == (1, 2)
    assert (galaxy.n_truth, galaxy.n_predicted) == (2, 2)
    assert_allclose(star.pq, 1 / (1 + 1 / 2))
    assert_allclose(galaxy.pq, 0.75 / (1 + 1 / 2 + 1 / 2))
    assert_allclose(galaxy.sq, 0.75)


@FEW
@given(TRUTH, LABELS)
def test_classes_add_up(truth, predicted):
    everything = match_labels(truth, predicted)
    one = match_classes(truth, predicted, dict.fromkeys(range(4), 'a'),
                        dict.fromkeys(range(4), 'a'))
    if everything.n_truth + everything.n_predicted:
        assert_allclose(one['a'].pq, everything.pq)
    two = match_classes(truth, predicted, {1: 1, 2: 2, 3: 2},
                        {1: 2, 2: 1, 3: 2})
    assert sum(s.n_truth for s in two.values()) == everything.n_truth
    assert sum(s.n_predicted for s in two.values()) == everything.n_predicted
    iou = dict(zip(zip(everything.truth, everything.predicted),
                   everything.iou))
    for name, pairs in ((1, [(1, 2)]), (2, [(2, 1), (2, 3), (3, 1), (3, 3)])):
        if name in two:
            assert_allclose(two[name].iou.sum(),
                            sum(iou.get(pair, 0) for pair in pairs))


def test_class_missing():
    labels = block((4, 8), (0, 2, 0, 4), (2, 4, 0, 4))
    with pytest.raises(ValueError, match=r'truth_class .* not \[2\]'):
        match_classes(labels, labels, {1: 1}, {1: 1, 2: 1})
    with pytest.raises(ValueError, match=r'predicted_class .* not \[1\]'):
        match_classes(labels, labels, {1: 1, 2: 1}, {2: 1})


# ------------------------------------------------------------- Haigh et al.

def haigh_by_hand(truth, predicted, brightness):
    """Of sets of pixels, region by region, as their text and code say."""
    valid = truth.ravel() >= 0
    t, p = ({int(k): set(np.flatnonzero((a.ravel() == k) & valid))
             for k in np.unique(a[truth >= 0])} for a in (truth, predicted))

    def error(ones, others):
        total = 0
        for one in ones.values():
            shared = [(len(one & other), len(other))
                      for other in others.values()]
            most = max(n for n, _ in shared)
            total += min((area - n) * n / area
                         for n, area in shared if n == most)
        return total / max(valid.sum(), 1)

    found = set()
    for k, pixels in t.items():
        if k > 0:
            peak = max(pixels, key=lambda i: brightness.ravel()[i])
            found.add(int(predicted.ravel()[peak]))
    return len(found - {0}), error(p, t), error(t, p)


def test_shredding():
    """One object of 64 of 400 pixels in four: UM alone."""
    truth = block((20, 20), (4, 12, 4, 12))
    predicted = block((20, 20), (4, 8, 4, 8), (4, 8, 8, 12), (8, 12, 4, 8),
                      (8, 12, 8, 12))
    scores = haigh_scores(truth, predicted, np.arange(400.).reshape(20, 20))
    assert_allclose(scores.under_merging, 4 * (64 - 16) * 16 / 64 / 400)
    assert scores.over_merging == 0
    assert_allclose(scores.area_score, 1 - 0.12)
    assert (scores.n_matched, scores.n_truth, scores.n_predicted) == (1, 1, 4)
    assert_allclose(scores.f_score, 2 / 5)     # recall 1, precision 1/4
    assert_allclose(scores.combined_a, np.sqrt(0.4**2 + 0.88**2))
    assert_allclose(scores.combined_b, (0.88 * 0.4)**(1 / 3))


def test_merging():
    """Two objects of 64 and 32 of 400 pixels in one label: OM alone."""
    truth = block((20, 20), (4, 12, 4, 12), (4, 12, 12, 16))
    predicted = (truth > 0).astype(int)
    scores = haigh_scores(truth, predicted, np.arange(400.).reshape(20, 20))
    assert scores.under_merging == 0
    assert_allclose(scores.over_merging,
                    ((96 - 64) * 64 + (96 - 32) * 32) / 96 / 400)
    assert scores.n_matched == 1               # of two objects
    assert_allclose(scores.f_score, 2 / 3)


def test_both_errors():
    scores = HaighScores(8, 10, 10, 0.3, 0.4, 100)
    assert_allclose(scores.area_score, 1 - 0.5)
    assert_allclose(scores.combined_b, (0.7 * 0.6 * 0.8)**(1 / 3))


def test_sky_is_a_region():
    """Ten pixels of an object, of which six are found, in 100."""
    truth = block((10, 10), (0, 1, 0, 10))
    predicted = block((10, 10), (0, 1, 0, 6))
    scores = haigh_scores(truth, predicted, np.arange(100.).reshape(10, 10))
    assert_allclose(scores.under_merging, (10 - 6) * 6 / 10 / 100)
    # the object's six lie in a label that is all its own, and the sky's 90
    # in one of 94
    assert_allclose(scores.over_merging, (94 - 90) * 90 / 94 / 100)
    assert scores.f_score == 0                 # the peak is the tenth
    nothing = haigh_scores(truth, 0 * truth, np.ones((10, 10)))
    assert nothing.under_merging == 0
    assert_allclose(nothing.over_merging, (90 * 10 + 10 * 90) / 100 / 100)


BRIGHTNESS = st.permutations(range(30)).map(
    lambda order: np.reshape(order, (5, 6)).astype(float))


@FEW
@given(TRUTH, LABELS, BRIGHTNESS)
def test_haigh_brute_force(truth, predicted, brightness):
    scores = haigh_scores(truth, predicted, brightness)
    n_matched, under, over = haigh_by_hand(truth, predicted, brightness)
    assert scores.n_matched == n_matched
    assert_allclose([scores.under_merging, scores.over_merging],
                    [under, over], atol=1e-12)
    assert scores.n_pixels == (truth >= 0).sum()
    assert 0 <= scores.f_score <= 1
    assert 0 <= scores.combined_b <= 1


@FEW
@given(TRUTH, LABELS, BRIGHTNESS, st.permutations([1, 2, 3]),
       st.permutations([1, 2, 3]))
def test_haigh_relabelled(truth, predicted, brightness, one, other):
    a = haigh_scores(truth, predicted, brightness)
    b = haigh_scores(np.array([0, *one, -1])[truth],
                     np.array([0, *other])[predicted], brightness)
    assert_allclose([a.f_score, a.under_merging, a.over_merging],
                    [b.f_score, b.under_merging, b.over_merging])


@FEW
@given(TRUTH.filter(lambda t: (t > 0).any()), LABELS)
def test_haigh_one_error_alone(truth, other):
    """The truth has none, shredding only UM and merging only OM."""
    right = np.maximum(truth, 0)
    scores = haigh_scores(truth, right, np.ones(truth.shape))
    assert scores.under_merging == scores.over_merging == 0
    assert scores.f_score == scores.area_score == scores.combined_b == 1
    assert_allclose(scores.combined_a, np.sqrt(2))
    pieces = np.where(right > 0, 10 * right + other, 0)
    scores = haigh_scores(truth, pieces, np.ones(truth.shape))
    assert scores.over_merging == 0
    n_objects, n_pieces = (len(np.unique(a[truth > 0]))
                           for a in (right, pieces))
    assert (scores.under_merging > 0) == (n_pieces > n_objects)
    merged = (right > 0).astype(int)
    scores = haigh_scores(truth, merged, np.ones(truth.shape))
    assert scores.under_merging == 0
    assert (scores.over_merging > 0) == (n_objects > 1)


# --------------------------------------------- a galaxy with a star on it

GALAXY = block((40, 40), (2, 38, 2, 38), (18, 23, 18, 23))
FLUX = np.where(GALAXY == 1, 1.0, np.where(GALAXY == 2, 10.0, 0.0))


def measure(predicted, companions=(2,)):
    rows, separated = measure_primaries(GALAXY, predicted, FLUX, [1],
                                        companions)
    return rows[0], separated


def test_merged():
    """One label over everything: the galaxy is whole but not apart."""
    row, separated = measure((GALAXY > 0).astype(int))
    assert separated == [False]
    assert row['n_fragments'] == 1
    n = 36**2 - 25
    assert_allclose(row['iou'], n / 36**2)
    assert_allclose(row['contamination'], 250 / (n + 250))
    assert not row['ok']


def test_apart():
    row, separated = measure(GALAXY)
    assert separated == [True]
    assert row['ok']


@pytest.mark.parametrize('n', [2, 3, 6])
def test_shredded(n):
    predicted = np.where(GALAXY > 0, 1 + np.arange(40) * n // 40, 0)
    row, _ = measure(predicted)
    assert row['n_fragments'] == n
    assert not row['ok']
    assert not row['lost']


@pytest.mark.parametrize(('side', 'n_fragments'), [(5, 1), (6, 2)])
def test_small_piece(side, n_fragments):
    """25 of the 1271 units of flux are less than 2%, 36 are more."""
    predicted = (GALAXY > 0).astype(int)
    predicted[2:2 + side, 2:2 + side] = 2
    row, _ = measure(predicted)
    assert row['n_fragments'] == n_fragments
    assert row['ok'] is False              # the star's light is in it


@pytest.mark.parametrize(('grown', 'n_fragments', 'apart'), [
    (1, 1, True), (2, 1, True), (3, 2, False)])
def test_star_is_no_fragment(grown, n_fragments, apart):
    """
    The star's label spills over galaxy pixels: IoU with the star is 25/49,
    25/81 and 25/121.
    """
    predicted = GALAXY.copy()
    predicted[18 - grown:23 + grown, 18 - grown:23 + grown] = 2
    row, separated = measure(predicted)
    assert row['n_fragments'] == n_fragments
    assert separated == [apart]


def test_owned_by_other():
    """A label that is mostly another object's is not a fragment."""
    truth = block((30, 60), (0, 30, 0, 30), (0, 30, 30, 60))
    flux = np.where(truth == 1, 1.0, 2.0)
    predicted = truth.copy()
    predicted[:, 30:39] = 0
    # 3 columns of galaxy 1 are 10% of its flux; 4 are galaxy 2's, of 30
    predicted[:, 27:34] = 3
    row = measure_primaries(truth, predicted, flux, [1])[0][0]
    assert row['n_fragments'] == 1
    predicted[:, 32:34] = 0                # 3 and 2 columns
    row = measure_primaries(truth, predicted, flux, [1])[0][0]
    assert row['n_fragments'] == 2


def test_lost():
    row, separated = measure(np.zeros_like(GALAXY))
    assert row['lost']
    assert not row['ok']
    assert row['n_fragments'] == row['iou'] == row['flux_share'] == 0
    assert separated == [False]


def test_small_companion():
    truth = block((20, 20), (0, 20, 0, 20), (5, 9, 5, 11))     # 24 pixels
    args = truth, truth, np.ones(truth.shape), [1]
    assert measure_primaries(*args, [2])[1] == []
    truth[9, 5] = 2
    assert measure_primaries(*args, [2])[1] == [True]


def test_no_pixel_left():
    """Objects of the truth's table all of whose pixels are void."""
    truth = np.where(GALAXY == 2, -1, GALAXY)
    rows, separated = measure_primaries(truth, GALAXY, FLUX, [1, 7], [2, 8])
    assert separated == []
    assert rows[0]['ok']
    assert rows[1]['lost']


def test_two_primaries():
    """Of two that overlap, each must have a label that is not the other's."""
    truth = block((20, 40), (0, 20, 0, 25), (0, 20, 25, 40))
    flux = np.ones(truth.shape)
    rows, separated = measure_primaries(truth, truth, flux, [1, 2], [2])
    assert separated == [True]
    assert rows[0]['ok']
    assert rows[1]['ok']
    rows, separated = measure_primaries(truth, (truth > 0).astype(int), flux,
                                        [1, 2], [2])
    assert separated == [False]
    assert [row['best'] for row in rows] == [1, 1]
    assert_allclose([row['contamination'] for row in rows], [.375, .625])


@pytest.mark.parametrize('dtype', [np.int64, np.uint32, np.uint64])
def test_sparse_ids(dtype):
    """Up to 2**32, as of surveys: they cost what others cost."""
    rng = np.random.default_rng(4)
    truth = np.kron(rng.integers(0, 6, (6, 6)), np.ones((4, 4), int))
    names = np.array([0, 7, 10**8, 2**31, 2**32 - 9, 2**32 - 1])
    predicted = np.roll(truth, 1, axis=0)
    plain = match_labels(truth, predicted)
    tracemalloc.start()
    found = match_labels(names[truth].astype(dtype),
                         names[predicted].astype(dtype))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1e6
    assert_array_equal(found.truth, names[plain.truth])
    assert_array_equal(found.predicted, names[plain.predicted])
    assert_array_equal(found.iou, plain.iou)
    assert (found.n_truth, found.n_predicted) == (5, plain.n_predicted)
    classes = dict.fromkeys(names.tolist(), 'star')
    scores = match_classes(names[truth], names[predicted], classes, classes)
    assert scores['star'].n_truth == 5
    brightness = rng.random(truth.shape)
    assert haigh_scores(names[truth], names[predicted], brightness) == (
        haigh_scores(truth, predicted, brightness))


def test_sparse_ids_with_void():
    truth = np.zeros((20, 20), np.int64)
    truth[2:8, 2:8], truth[12:18, 12:18] = 2**32, -1
    predicted = np.where(truth != 0, 3, 0)
    found = match_labels(truth, predicted)
    assert found.truth.tolist() == [2**32]
    assert found.iou.tolist() == [1.0]
