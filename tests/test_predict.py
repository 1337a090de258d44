# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests of looks at all levels, of painting, grouping and decoding.
"""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from level_toys import make_level, small_model
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.ndimage import maximum_filter
from scipy.spatial.distance import squareform

from astrodino_seg.models.decision import Decision
from astrodino_seg.predict import pyramid
from astrodino_seg.predict.decode import compose, decode, paint_levels, weigh
from astrodino_seg.predict.merge import (
    candidates,
    group,
    pair_features,
    seed_features,
)
from astrodino_seg.predict.pyramid import find_peaks, look


def planes(shape=(112, 136), seed=0):
    rng = np.random.default_rng(seed)
    out = rng.normal(0, 1, (5, *shape)).astype(np.float32)
    out[-1] = 1
    return out


# ---------------------------------------------------------------- looks

@pytest.mark.parametrize(('shape', 'factors'), [
    ((20, 40), [1]), ((47, 300), [1]), ((48, 300), [1, 2]),
    ((100, 195), [1, 2, 4])])
def test_levels(shape, factors):
    levels = look(small_model(), planes(shape))
    assert [level.factor for level in levels] == factors
    for level in levels:
        side = tuple(-(-n // level.factor) for n in shape)
        assert level.sky.shape == side
        assert level.embedding.shape == (*side, 12)
        assert level.probabilities.shape == (4, *side)
        np.testing.assert_allclose(level.probabilities.sum(axis=0), 1,
                                   rtol=1e-5)


def test_binned_for_the_finest():
    levels = look(small_model(), planes((108, 108)), bin_factor=2)
    assert [level.factor for level in levels] == [2, 4]


def test_tiles_leave_no_trace(monkeypatch):
    """The head in tiles is the head on the whole image."""
    model, image = small_model(), planes((352, 352))
    whole = look(model, image, min_heat=0.01, tile_size=2048)
    monkeypatch.setattr(pyramid, 'MAP_TILE', 320)
    tiled = look(model, image, min_heat=0.01, tile_size=2048)
    for one, other in zip(whole, tiled):
        np.testing.assert_allclose(one.sky, other.sky, atol=1e-4)
        np.testing.assert_allclose(one.vote, other.vote, atol=1e-3)


def test_without_classes_of_pixels():
    for one, other in zip(look(small_model(), planes(), classes=False),
                          look(small_model(), planes())):
        assert one.logits is None
        for name in ('sky', 'embedding', 'vote', 'x', 'kernel'):
            np.testing.assert_array_equal(getattr(one, name),
                                          getattr(other, name))


def test_peaks():
    """Against another maximum filter."""
    heat = np.random.default_rng(0).normal(-2, 1.5, (60, 70)).astype('f4')
    x, y, value = (a.numpy() for a in find_peaks(torch.from_numpy(heat), .2))
    wanted = (maximum_filter(heat, 5, mode='constant', cval=-np.inf) == heat)
    wanted &= 1 / (1 + np.exp(-heat)) >= .2
    found = np.zeros(heat.shape, bool)
    found[y.astype(int), x.astype(int)] = True
    assert (found == wanted).all()
    assert (np.diff(value) <= 0).all()


# ------------------------------------------------------------- painting

def test_paint_is_the_best_score():
    """Every pixel, by all scores at once."""
    level = make_level(1, (60, 60), [(20, 30), (33, 30), (50, 12)], [12, 6, 5])
    owner = compose(paint_levels([level], np.ones(3, bool), (60, 60)),
                    (60, 60))
    y, x = np.mgrid[:60, :60]
    score = [4 - 4 * np.hypot(x - cx, y - cy) / r for (cx, cy), r in zip(
        level.centre, level.radius)]
    score = np.array([np.zeros((60, 60)), *score])
    clear = np.diff(np.sort(score, axis=0)[-2:], axis=0)[0] > 0.05
    assert (owner == score.argmax(axis=0))[clear].all()


def test_paint_without_some():
    level = make_level(1, (60, 60), [(20, 30), (33, 30)], [12, 6])
    owner = compose(paint_levels([level], np.array([False, True]), (60, 60)),
                    (60, 60))
    assert set(np.unique(owner)) == {0, 2}


def test_coarse_discs_are_round():
    """A disc painted in an image binned by 4 has the area of the disc."""
    level = make_level(4, (50, 50), [(25, 25)], 12)
    owner = compose(paint_levels([level], np.ones(1, bool), (197, 200)),
                    (197, 200))
    assert owner.shape == (197, 200)
    y, x = np.nonzero(owner)
    assert len(y) == pytest.approx(np.pi * 48**2, rel=0.02)
    # and lies where the binned pixel does
    assert x.mean() == pytest.approx(4 * 25.5 - .5, abs=0.3)
    away = np.hypot(x - 101.5, y - 101.5).max()
    assert away == pytest.approx(48, abs=1.5)


def test_finer_first():
    fine = make_level(1, (100, 100), [(50, 50)], 6)
    coarse = make_level(2, (50, 50), [(25, 25)], 15)
    owner = compose(paint_levels([fine, coarse], np.ones(2, bool),
                                 (100, 100)), (100, 100))
    assert owner[50, 50] == 1
    assert owner[50, 70] == 2
    assert np.count_nonzero(owner == 1) == pytest.approx(np.pi * 36, rel=.1)


@pytest.mark.parametrize(('radius', 'adds'), [(9, True), (17, False)])
def test_what_an_object_has_already(radius, adds):
    """A seed of a binned image adds to a knot and not to a whole object."""
    fine = make_level(1, (100, 100), [(50, 50)], radius)
    coarse = make_level(2, (50, 50), [(25, 25)], 10)
    painted = list(paint_levels([fine, coarse], np.ones(2, bool),
                                (100, 100)))
    apart, one = (compose(painted, (100, 100), np.array(objects))
                  for objects in ([0, 1], [0, 0]))
    assert (apart == compose(painted, (100, 100))).all()
    wanted = np.pi * (20 if adds else radius)**2
    assert np.count_nonzero(one) == pytest.approx(wanted, rel=.1)
    assert np.count_nonzero(apart) == pytest.approx(np.pi * 400, rel=.1)


# ------------------------------------------------------------- grouping

def dense(n, i, j, same):
    """Distances of all seeds, by the best chains (Floyd and Warshall)."""
    best = np.zeros((n, n))
    best[i, j] = best[j, i] = same
    np.fill_diagonal(best, 1)
    for k in range(n):
        best = np.maximum(best, best[:, k:k + 1] * best[k:k + 1])
    best[i, j] = best[j, i] = same          # as they were compared
    return 1 - best


def partition(label):
    return {frozenset(np.flatnonzero(label == k)) for k in np.unique(label)}


@st.composite
def pairs(draw):
    n = draw(st.integers(2, 12))
    every = [(a, b) for a in range(n) for b in range(a)]
    some = draw(st.lists(st.sampled_from(every), unique=True))
    same = draw(st.lists(st.floats(0.03, 0.999), min_size=len(some),
                         max_size=len(some)))
    i, j = np.array(some, int).reshape(-1, 2).T
    return n, i, j, np.array(same)


@given(pairs(), st.floats(0.01, 0.96))
@settings(deadline=None, max_examples=60)
def test_average_linkage(case, merge):
    """That of scipy, on all seeds at once."""
    n, i, j, same = case
    label, _ = group(n, i, j, same, merge)
    tree = linkage(squareform(dense(n, i, j, same), checks=False), 'average')
    wanted = fcluster(tree, np.nextafter(merge, 0), 'distance')
    assert partition(label) == partition(wanted)


@given(pairs())
@settings(deadline=None, max_examples=40)
def test_dial_is_monotone(case):
    """A larger one only ever joins more, and 0 nothing."""
    n, i, j, same = case
    before = None
    for merge in (0, .1, .3, .5, .7, .9, 1):
        label, right = group(n, i, j, same, merge)
        assert len(right) == label.max() + 1
        assert ((right >= 0) & (right <= 1)).all()
        if merge == 0:
            assert len(set(label)) == n
        if before is not None:
            assert all(any(small <= large for large in partition(label))
                       for small in partition(before))
        before = label


def test_how_right():
    """By hand: the last join made, and the next one refused."""
    i, j = np.array([1, 2]), np.array([0, 1])
    label, right = group(3, i, j, np.array([.9, .3]), 0.5)
    assert label[0] == label[1] != label[2]
    # the mean of 0.3 and of a pair that was not compared, refused
    apart = 1 - (.3 + .9 * .3) / 2
    assert right[label[0]] == pytest.approx(min(.9, apart))
    assert right[label[2]] == pytest.approx(apart)


def test_many_that_connect(monkeypatch):
    """Parts that are too large fall where they are weakest."""
    monkeypatch.setattr('astrodino_seg.predict.merge.LARGEST', 10)
    n = 40
    i, j = np.arange(1, n), np.arange(n - 1)
    same = np.where(i % 4 == 0, 0.05, 0.95)
    label, _ = group(n, i, j, same, 0.6)
    assert len(set(label)) >= n / 4
    assert all(label[a] != label[b] for a, b, s in zip(i, j, same) if s < .1)


# ------------------------------------------------------------- deciding

def test_candidates():
    fine = make_level(1, (100, 100), [(50, 50), (54, 50), (4, 95)], [5, 3, 3])
    coarse = make_level(2, (50, 50), [(25, 25)], 15)
    found = candidates([fine, coarse])
    assert found.level.tolist() == [0, 0, 0, 1]
    np.testing.assert_allclose(found.x, [50, 54, 4, 50.5])
    np.testing.assert_allclose(found.radius, [5, 3, 3, 30])
    some = {(int(a), int(b)) for a, b in zip(found.i, found.j)}
    # the larger first; the far one is nobody's
    assert some == {(0, 1), (3, 0), (3, 1)}
    # 4 (1 - distance / radius), at its own place and at the other's
    np.testing.assert_allclose(found.own[:3], 4, atol=0.1)
    k = [(a, b) for a, b in zip(found.i, found.j)].index((0, 1))
    np.testing.assert_allclose(found.claims[k], [4 - 16 / 5, 4 - 16 / 3],
                               atol=0.1)


def test_features():
    fine = make_level(1, (100, 100), [(50, 50), (54, 50)], [5, 3],
                      descriptor=[[1, 2, 3], [1, 0, 3]])
    coarse = make_level(2, (50, 50), [(25, 25)], 15)
    levels = [fine, coarse]
    found = candidates(levels)
    seeds = seed_features(levels, found)
    both = pair_features(levels, found)
    assert seeds.shape[0] == 3
    np.testing.assert_allclose(seeds[:2, -3:], fine.descriptor)
    assert both.shape[0] == len(found.i) == 3
    assert torch.isfinite(both).all()
    np.testing.assert_allclose(seeds[:, 0], [0, 0, 1])
    np.testing.assert_allclose(seeds[:, 1], np.log([5, 3, 30]), rtol=1e-6)


@pytest.mark.parametrize(('radius', 'star', 'expected'), [
    (3, 1, .8 / (.8 + .2 * np.e**2)),    # Bayes' rule with other prior odds
    (3, .5, .8 / (.8 + .2 * np.e)), (3, 0, .8), (12, 1, .8)])
def test_stars_before_a_galaxy(radius, star, expected):
    level = make_level(1, (100, 100), [(50, 50), (60, 50)], [30, radius])
    level.classes[1] = star, 1 - star, 0
    decision = decision_of(.9, .8, [level])
    other = Decision(**{**decision.spec, 'star_odds': 2.0})
    other.load_state_dict(decision.state_dict())
    for one, same in ((decision, .8), (other, expected)):
        found, _, p = weigh([level], one)
        assert found.i.tolist() == [0]
        np.testing.assert_allclose(p, same, rtol=1e-5)


def test_crowd_is_bounded():
    """A grid of stars: each is compared with the nearest only."""
    grid = [(x, y) for x in range(5, 600, 6) for y in range(5, 600, 6)]
    level = make_level(1, (600, 600), grid, 30.0)
    found = candidates([level])
    assert len(found.i) < 60 * len(grid)


def decision_of(real, same, levels):
    """A decision that says the same of all seeds, and of all pairs."""
    found = candidates(levels)
    seeds = seed_features(levels, found)
    n_pair = pair_features(levels, found).shape[1]
    out = Decision(seeds.shape[1], n_pair, width=4)
    for last, p in ((out.seed_out, real), (out.pair_out, same)):
        torch.nn.init.zeros_(last.weight)
        torch.nn.init.constant_(last.bias, np.log(p / (1 - p)))
    return out


LEVELS = [make_level(1, (100, 100), [(50, 50), (54, 50), (4, 95)],
                     [5, 3, 3]),
          make_level(2, (50, 50), [(25, 25)], 15)]


@pytest.mark.parametrize(('same', 'n'), [(.9, 2), (.1, 4)])
def test_decode(same, n):
    decision = decision_of(.9, same, LEVELS)
    found = decode(LEVELS, decision, (100, 100), n_pixels=3)
    assert found.groups.max() == n == len(found.seed_of)
    assert found.groups.dtype == np.int32
    assert (np.unique(found.groups) == np.arange(n + 1)).all()
    # the pieces of an object are its own
    for parent, children in found.children.items():
        inside = np.isin(found.fragments, children)
        assert (found.groups[inside] == parent).all()
    assert found.n_fragments.sum() == 4


def test_nothing_is_real():
    decision = decision_of(.3, .9, LEVELS)
    assert not decode(LEVELS, decision, (100, 100)).groups.any()
    assert decode(LEVELS, decision, (100, 100),
                  min_seed=.2).groups.max() == 2


def test_mask_and_keep():
    decision = decision_of(.9, .1, LEVELS)
    mask = np.zeros((100, 100), bool)
    mask[:, 50:] = True
    found = decode(LEVELS, decision, (100, 100), mask=mask)
    assert not found.groups[mask].any()
    none = decode(LEVELS, decision, (100, 100),
                  keep=lambda labels, n: np.zeros(n, bool))
    assert not none.groups.any()
    assert len(none.seed_of) == 0


def test_no_light_is_dropped():
    """All pixels that seeds win are in some label, however they are joined."""
    for same in (.05, .5, .95):
        decision = decision_of(.9, same, LEVELS)
        owner = compose(paint_levels(LEVELS, np.ones(4, bool), (100, 100)),
                        (100, 100))
        for merge in (0, .3, .7, 1):
            found = decode(LEVELS, decision, (100, 100), merge=merge,
                           n_pixels=1)
            assert ((found.groups > 0) == (owner > 0)).all()


def test_no_seeds():
    levels = [make_level(1, (40, 40), [], 1)]
    found, real, same = weigh(levels, None)
    assert len(real) == len(same) == len(found.x) == 0
    assert not decode(levels, None, (40, 40)).groups.any()


def test_without_a_decision():
    """Seeds by the heatmap, nothing joined."""
    found = decode(LEVELS, None, (100, 100), merge=1, n_pixels=1)
    assert found.groups.max() == 4
