# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the grouping module.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from photutils.segmentation import SegmentationImage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from astrodino_seg.grouping import group_seeds, segment_maps
from astrodino_seg.joining import (
    FILL_SHARE,
    Giants,
    fill_giants,
    join_in_giants,
)
from astrodino_seg.painting import (
    CLEAR,
    LARGE,
    MAX_SKY,
    paint,
    reach_of,
    seed_window,
)
from astrodino_seg.prediction import Prediction

FEW = settings(deadline=None, max_examples=40)


def ellipse(a, b, angle):
    """(xx, xy, yy) of the quadratic form of semiaxes a and b."""
    turn = np.array([[np.cos(angle), -np.sin(angle)],
                     [np.sin(angle), np.cos(angle)]])
    m = turn @ np.diag([a**-2, b**-2]) @ turn.T
    return m[0, 0], m[0, 1], m[1, 1]


def prediction(shape, seeds, *, sky=0.0, pairs=(), same=(), embedding=None,
               heat=None, vote=(0, 0)):
    """
    A hand-made network output.

    Each seed is a dict of ``x``, ``y`` and maybe ``bias``, ``kernel``,
    ``radius`` or ``axes`` (a, b, angle), ``centre`` and ``falloff``.
    """
    n = len(seeds)
    if embedding is None:
        embedding = np.zeros((*shape, 3))

    def stack(values, width):
        return np.array(list(values), np.float32).reshape(n, *width)

    radius = [s.get('radius', 4.0) for s in seeds]
    axes = [s.get('axes', (r, r, 0.0)) for s, r in zip(seeds, radius)]
    return Prediction(
        embedding=np.asarray(embedding, np.float32),
        sky=np.broadcast_to(np.float32(sky), shape).copy(),
        probabilities=np.full((4, *shape), 0.25, np.float32),
        vote=np.broadcast_to(np.float32(vote), (*shape, 2)).copy(),
        x=stack((s['x'] for s in seeds), ()),
        y=stack((s['y'] for s in seeds), ()),
        heat=(np.linspace(0.9, 0.5, n) if heat is None
              else np.array(heat)).astype(np.float32),
        kernel=stack(([*s.get('kernel', (0, 0, 0)), s.get('bias', 3.0)]
                      for s in seeds), (4,)),
        centre=stack((s.get('centre', (s['x'], s['y'])) for s in seeds),
                     (2,)),
        matrix=stack((ellipse(*a) for a in axes), (3,)),
        falloff=stack((s.get('falloff', (3.0, 0.0)) for s in seeds), (2,)),
        radius=stack(radius, ()),
        classes=np.full((n, 3), 1 / 3, np.float32),
        pairs=np.array(pairs, int).reshape(-1, 2),
        same=np.array(same, np.float32))


def all_scores(pred):
    """Score of each seed in each pixel of the image, in float64."""
    ny, nx = pred.sky.shape
    y, x = np.mgrid[:ny, :nx] + np.moveaxis(pred.vote, -1, 0)[::-1].astype(
        float)
    out = []
    for k in range(len(pred.x)):
        d = np.stack([x - pred.centre[k, 0], y - pred.centre[k, 1]], axis=-1)
        xx, xy, yy = pred.matrix[k].astype(float)
        q = np.einsum('yxi,ij,yxj->yx', d, [[xx, xy], [xy, yy]], d)
        u, v = pred.falloff[k].astype(float)
        match = (pred.embedding.astype(float) * pred.kernel[k, :-1]).sum(-1)
        out.append(match + pred.kernel[k, -1] - u * np.sqrt(q + 1e-4)
                   - v * np.log(1 + q))
    return np.array(out)


# --------------------------------------------------------------- painting

def test_paint_hand():
    """A seed of bias 3 and u = 3 wins the pixels within one radius."""
    pred = prediction((31, 40), [{'x': 20, 'y': 15, 'radius': 6.0}])
    y, x = np.mgrid[:31, :40]
    r = np.hypot(x - 20, y - 15)
    assert_array_equal(paint(pred) == 1, r**2 / 36 + 1e-4 < 1)
    halfway = prediction((31, 40), [{'x': 10, 'y': 15}, {'x': 20, 'y': 15}])
    owner = paint(halfway)
    assert (owner[:, :15] != 2).all()
    assert (owner[:, 16:] != 1).all()


@pytest.mark.parametrize('seed', range(6))
@pytest.mark.parametrize('reach', [0.0, 3.0])
def test_paint_equals_argmax(seed, reach):
    """Windows change nothing, nor with votes of a few pixels."""
    rng = np.random.default_rng(seed)
    shape = 70, 90
    seeds = [{'x': rng.uniform(0, 89), 'y': rng.uniform(0, 69),
              'axes': (rng.uniform(2, 25), rng.uniform(2, 25),
                       rng.uniform(0, np.pi)),
              'bias': rng.uniform(1, 5), 'kernel': rng.normal(size=3),
              'falloff': rng.uniform(1, 4, 2)} for _ in range(7)]
    for one in seeds[::2]:
        one['centre'] = (one['x'] + rng.normal() * 6,
                         one['y'] + rng.normal() * 6)
    embedding = 0.1 * rng.normal(size=(*shape, 3))
    pred = prediction(shape, seeds, embedding=embedding,
                      sky=rng.uniform(0, 1, shape),
                      vote=reach * rng.normal(size=(*shape, 2)))
    score = np.concatenate([pred.sky[None].astype(float), all_scores(pred)])
    owner = paint(pred)
    assert owner.dtype == np.int32
    assert_array_equal(owner, score.argmax(axis=0))
    assert len(np.unique(owner)) > 4


def test_paint_votes():
    """Pixels go to the seed whose centre they vote for."""
    seeds = [{'x': 10, 'y': 12}, {'x': 22, 'y': 14}]
    shape = 25, 34
    before = paint(prediction(shape, seeds))
    assert before[12, 8] == before[13, 9] == 1
    assert before[14, 20] == before[14, 21] == 2
    assert before[1, 1] == 0
    vote = np.zeros((*shape, 2))
    vote[12, 8] = 22 - 8, 14 - 12          # x, y
    vote[13, 9] = 22 - 9 + 2.5, 14 - 13    # a little past it
    vote[14, 20] = 10 - 20, 12 - 14
    vote[14, 21] = 0, 60                   # for the sky
    vote[1, 1] = 10 - 1, 12 - 1            # from the sky, to the first
    wanted = before.copy()
    wanted[12, 8] = wanted[13, 9] = 2
    wanted[14, 20] = wanted[1, 1] = 1
    wanted[14, 21] = 0
    assert_array_equal(paint(prediction(shape, seeds, vote=vote)), wanted)
    # x is x: the other way about the same vote misses
    turned = prediction(shape, seeds, vote=vote[..., ::-1])
    assert paint(turned)[12, 8] == 0


def test_paint_shifted_votes():
    """Where all pixels vote one and the same way, the masks are moved."""
    seeds = [{'x': 22, 'y': 20, 'axes': (9, 4, .5)},
             {'x': 34, 'y': 26, 'radius': 6}]
    shape = 48, 60
    before = paint(prediction(shape, seeds))
    after = paint(prediction(shape, seeds, vote=(5, -3)))
    assert_array_equal(after, np.roll(before, (3, -5), (0, 1)))
    assert len(np.unique(before)) == 3


def test_votes_of_one_mask():
    """An object as long as it likes, if its pixels vote for its centre."""
    shape = 21, 90
    seeds = [{'x': 45, 'y': 10, 'radius': 4}]
    y, x = np.mgrid[:21, :90]
    arm = (abs(y - 10) <= 2) & (x > 3)
    vote = np.where(arm[..., None], np.stack([45 - x, 10 - y], -1), 0)
    pred = prediction(shape, seeds, vote=vote)
    assert_array_equal(paint(pred) == 1, arm | (np.hypot(x - 45, y - 10)
                                                / 4 < 1))


@pytest.mark.parametrize('constant', [-2.0, 0.5, 2.0])
def test_paint_constant_embedding(constant):
    """What the kernels make of a constant embedding is one more bias."""
    seeds = [{'x': 12, 'y': 10, 'kernel': (.4, 0, 0)},
             {'x': 20, 'y': 12, 'kernel': (0, .2, .1), 'radius': 7}]
    shape = 24, 32
    one = prediction(shape, seeds, embedding=np.full((*shape, 3), constant))
    for seed in seeds:
        seed['bias'] = 3 + constant * sum(seed.pop('kernel'))
    assert_array_equal(paint(one), paint(prediction(shape, seeds)))
    score = np.concatenate([one.sky[None], all_scores(one)])
    assert_array_equal(paint(one), score.argmax(axis=0))


def test_paint_large():
    """A seed may win far beyond its ellipse, even the whole image."""
    pred = prediction((300, 200), [{'x': 3, 'y': 290, 'radius': 2,
                                    'falloff': (0.001, 0.01)}])
    assert (paint(pred) == 1).all()


def test_paint_outside():
    """A centre far outside the image."""
    pred = prediction((20, 20), [{'x': 0, 'y': 0, 'centre': (-500, -400)},
                                 {'x': 19, 'y': 19, 'centre': (900, 0)}])
    assert not paint(pred).any()


def test_paint_mask():
    pred = prediction((9, 9), [{'x': 4, 'y': 4}])
    mask = np.zeros((9, 9), bool)
    mask[4] = True
    owner = paint(pred, mask)
    assert not owner[4].any()
    assert_array_equal(owner[~mask], paint(pred)[~mask])
    assert (pred.sky == 0).all()           # not painted over


@pytest.mark.parametrize(('ys', 'xs'), [
    ((5, 6), (2, 3)), ((0, 60), (15, 18)), ((18, 22), (9, 80)),
    ((0, 60), (0, 80)), ((19, 21), (14, 17))])
def test_reach(ys, xs):
    """
    The box holds all of a connected region about the seed, and is no wider
    than it was on the sides where that is within.
    """
    pred = prediction((60, 80), [{'x': 15, 'y': 20, 'radius': 4}])
    region = np.zeros((60, 80), bool)
    region[ys[0]:ys[1], xs[0]:xs[1]] = True
    region[20, min(xs[0], 15):max(xs[1], 16)] = True        # to the seed
    region[min(ys[0], 20):max(ys[1], 21), xs[0]] = True
    window, score, some = reach_of(
        pred, 0, lambda window, score: region[window])
    assert score.shape == some.shape == region[window].shape
    assert some.sum() == region.sum()
    first = seed_window(pred, 0, region.shape)
    rows, columns = np.nonzero(region)
    for one, start, where, n in zip(window, first, (rows, columns), (60, 80)):
        if where.min() > start.start:
            assert one.start == start.start
        if where.max() < start.stop - 1:
            assert one.stop == start.stop
        assert 0 <= one.start < one.stop <= n


# ------------------------------------------------------------- weak seeds

WEAK = [{'x': 10, 'y': 10, 'radius': 6}, {'x': 13, 'y': 10, 'radius': 4},
        {'x': 30, 'y': 10, 'radius': 5}, {'x': 32, 'y': 12, 'radius': 3}]


def weak_case(sky_here=0.0, pairs=(), same=()):
    """
    One strong seed; a weak one on its mask; one away from it, where the
    probability of the sky is ``sky_here``; and a weaker one on the mask of
    that. The sky's is the same everywhere else too, but for the strong.
    """
    pred = prediction((24, 44), WEAK, heat=[0.9, 0.25, 0.2, 0.15],
                      pairs=pairs, same=same)
    pred.probabilities[0] = sky_here
    pred.probabilities[0, 10, 10] = 1      # nothing is asked of the strong
    return pred


def of_seeds(pred, *kept):
    """The owners if there were only some of the seeds."""
    kept = np.array(kept)
    part = pred._replace(**{
        name: getattr(pred, name)[kept] for name in (
            'x', 'y', 'heat', 'kernel', 'centre', 'matrix', 'falloff',
            'radius', 'classes')})
    return np.concatenate([[0], kept + 1])[paint(part)]


def test_weak_seeds():
    """Used where there is light that no other claims, only."""
    pred = weak_case()
    owner = paint(pred, min_seed=0.3)
    assert_array_equal(np.unique(owner), [0, 1, 3])
    assert_array_equal(owner, of_seeds(pred, 0, 2))
    assert owner.dtype == np.int32


def test_weak_seeds_on_sky():
    """The probability of the sky counts at the seed's own pixel."""
    pred = weak_case(MAX_SKY + 0.01)
    assert_array_equal(paint(pred, min_seed=0.3), of_seeds(pred, 0))
    # of the two weak seeds at one place, the one where there is no sky
    for here, kept in (((10, 30), 2), ((12, 32), 3)):
        pred = weak_case(MAX_SKY + 0.01)
        pred.probabilities[0][here] = MAX_SKY - 0.01
        assert_array_equal(paint(pred, min_seed=0.3),
                           of_seeds(pred, 0, kept))
        pred = weak_case(MAX_SKY - 0.01)
        pred.probabilities[0][here] = MAX_SKY + 0.01
        assert_array_equal(paint(pred, min_seed=0.3),
                           of_seeds(pred, 0, 5 - kept))


@pytest.mark.parametrize('sky_here', [0.0, 1.0])
@pytest.mark.parametrize(('radius', 'above', 'is_used'), [
    (LARGE, 0.01, True), (LARGE, -0.01, False), (LARGE - 1, 0.01, False)])
def test_large_weak_seed(sky_here, radius, above, is_used):
    """A large one is used where it claims its pixel much more than others."""
    pred = weak_case(sky_here)
    pred.radius[1] = radius
    strong, weak, *_ = all_scores(pred)[:, 10, 13]
    pred.kernel[1, -1] += (max(strong, pred.sky[10, 13]) + CLEAR + above
                           - weak)
    kept = (0,) + is_used * (1,) + (not sky_here) * (2,)
    assert_array_equal(paint(pred, min_seed=0.3), of_seeds(pred, *kept))


@pytest.mark.parametrize(('min_seed', 'kept'), [
    (0.0, (0, 1, 2, 3)), (0.15, (0, 1, 2, 3)), (0.2, (0, 1, 2)),
    (0.22, (0, 1)), (0.3, (0,)), (0.95, ())])
def test_min_seed(min_seed, kept):
    """Seeds at ``min_seed`` or above are used wherever they are."""
    pred = weak_case(1.0)
    pred = pred._replace(heat=np.array([0.9, 0.25, 0.2, 0.15]))
    owner = paint(pred, min_seed=min_seed)
    assert_array_equal(owner, of_seeds(pred, *kept) if kept else 0)
    assert len(np.unique(owner)) == len(kept) + 1


@pytest.mark.parametrize('sky_here', [0.0, 1.0])
def test_min_seed_zero(sky_here):
    """With 0, the default, a seed's heat is of no importance."""
    pred = weak_case(sky_here)
    pred.heat[:] = [0.9, 0.2, 0.1, 0.0]
    score = np.concatenate([pred.sky[None], all_scores(pred)])
    assert_array_equal(paint(pred, min_seed=0.0), score.argmax(axis=0))
    assert_array_equal(paint(pred), score.argmax(axis=0))


def test_weak_seeds_in_a_segmentation():
    pred = weak_case(pairs=[(0, 1), (0, 2), (2, 3)], same=[0.1, 0.1, 0.1])
    grouping = segment_maps(pred, min_seed=0.3, n_pixels=1)
    check_labels(grouping)
    assert_array_equal(grouping.seed_of, [0, 2])
    assert_array_equal(grouping.groups, np.array([0, 1, 0, 2])[
        paint(pred, min_seed=0.3)])
    every = segment_maps(pred, n_pixels=1)
    assert_array_equal(every.seed_of, [0, 1, 2, 3])
    assert_array_equal(segment_maps(pred, min_seed=0.0, n_pixels=1).groups,
                       every.groups)


def test_no_seeds():
    pred = prediction((7, 9), [])
    assert not paint(pred).any()
    grouping = segment_maps(pred)
    assert grouping.groups.shape == grouping.fragments.shape == (7, 9)
    assert not grouping.groups.any()
    assert not grouping.fragments.any()
    assert len(grouping.seed_of) == len(grouping.confidence) == 0
    assert grouping.children == {}


# --------------------------------------------------------------- grouping

@st.composite
def networks(draw, n_max=7):
    """Seeds, some of which are compared."""
    n = draw(st.integers(1, n_max))
    pairs = [(i, j) for i in range(n) for j in range(i + 1, n)
             if draw(st.booleans())]
    same = [draw(st.floats(0, 1, width=32)) for _ in pairs]
    heat = [draw(st.floats(0, 1, width=32)) for _ in range(n)]
    return (np.array(pairs, int).reshape(-1, 2), np.array(same),
            np.array(heat))


def n_groups(leader):
    return len(np.unique(leader))


def reference(pairs, same, heat, merge):
    """The rule of the docstring, with sets of seeds instead of leaders."""
    order = sorted(range(len(heat)), key=lambda k: -heat[k])
    rank = {k: r for r, k in enumerate(order)}
    groups = {k: {k} for k in range(len(heat))}
    for p, (i, j) in sorted(zip(same, pairs.tolist()),
                            key=lambda one: -one[0]):
        if merge == 0 or (merge < 1 and p <= 1 - merge):
            break
        if i in groups and j in groups:
            first, second = sorted((i, j), key=rank.get)
            groups[first] |= groups.pop(second)
    leader = np.empty(len(heat), int)
    for first, members in groups.items():
        leader[list(members)] = first
    return leader


@FEW
@given(networks(), st.floats(0, 1))
def test_group_rule(network, merge):
    leader, _ = group_seeds(*network, merge)
    assert_array_equal(leader, reference(*network, merge))


@FEW
@given(networks(), st.floats(0, 1))
def test_group_leaders(network, merge):
    """A leader leads itself and is the most certain of its group."""
    pairs, same, heat = network
    leader, confidence = group_seeds(pairs, same, heat, merge)
    assert_array_equal(leader[leader], leader)
    assert (heat[leader] >= heat).all()
    assert ((confidence >= 0) & (confidence <= 1)).all()


def test_group_no_chains():
    """1 is one with 0 and 2 with 1, but 0 is not with 2: 2 stays alone."""
    pairs = np.array([(0, 1), (1, 2), (0, 2)])
    leader, _ = group_seeds(pairs, np.array([0.9, 0.8, 0.1]),
                            np.array([0.9, 0.8, 0.7]), 0.5)
    assert_array_equal(leader, [0, 0, 2])


@FEW
@given(networks())
def test_group_ends_of_dial(network):
    pairs, same, heat = network
    n = len(heat)
    leader, _ = group_seeds(pairs, same, heat, 0.0)
    assert_array_equal(leader, np.arange(n))
    # 1 joins all that was compared: no two leaders were
    leader, _ = group_seeds(pairs, same, heat, 1.0)
    for i, j in pairs:
        assert leader[i] != i or leader[j] != j
    every = np.stack(np.triu_indices(n, 1), axis=-1)
    leader, _ = group_seeds(every, np.zeros(len(every)), heat, 1.0)
    assert n_groups(leader) == 1


@FEW
@given(st.integers(2, 8), st.randoms(use_true_random=False),
       st.floats(0.01, 0.99), st.floats(0.01, 0.99))
def test_group_consistent(n, random, one, other):
    """
    Where probabilities agree with one another (they come from a tree), the
    groups are the connected components above the dial, so a larger value
    never gives more groups.
    """
    p = np.ones((n, n))
    members = [[k] for k in range(n)]
    for value in np.linspace(0.95, 0.05, n - 1):
        random.shuffle(members)
        one_branch, other_branch = members.pop(), members.pop()
        for i in one_branch:
            for j in other_branch:
                p[i, j] = p[j, i] = value
        members.append(one_branch + other_branch)
    i, j = np.triu_indices(n, 1)
    heat = np.array([random.random() for _ in range(n)])
    found = []
    for merge in sorted((one, other)):
        leader, _ = group_seeds(np.stack([i, j], axis=-1), p[i, j], heat,
                                merge)
        n_wanted, wanted = connected_components(
            coo_array(p > 1 - merge), directed=False)
        assert n_groups(leader) == n_wanted
        assert_array_equal(leader[i] == leader[j], wanted[i] == wanted[j])
        found.append(n_wanted)
    assert found[0] >= found[1]


@FEW
@given(networks(), st.floats(0, 1), st.floats(0, 1))
def test_group_monotone(network, one, other):
    """A larger value never gives more groups."""
    low, high = sorted((one, other))
    assert (n_groups(group_seeds(*network, low)[0])
            >= n_groups(group_seeds(*network, high)[0]))


def test_group_monotone_four():
    pairs = np.array([(0, 1), (1, 2), (1, 3), (0, 2), (0, 3)])
    same = np.array([0.4, 0.9, 0.9, 0.05, 0.05])
    heat = np.array([0.9, 0.8, 0.7, 0.6])
    n = [n_groups(group_seeds(pairs, same, heat, merge)[0])
         for merge in (0, 0.5, 0.7, 1)]
    assert n == sorted(n, reverse=True)


def test_group_confidence():
    """0.9 joined, 0.3 refused between 0 and 2, 0.2 between 1 and 2."""
    pairs = np.array([(0, 1), (0, 2), (1, 2)])
    same = np.array([0.9, 0.3, 0.2])
    heat = np.array([0.9, 0.8, 0.7, 0.6])
    leader, confidence = group_seeds(pairs, same, heat, 0.5)
    assert_array_equal(leader, [0, 0, 2, 3])
    assert_allclose(confidence[[0, 2, 3]], [0.7, 0.7, 1])
    leader, confidence = group_seeds(pairs, same, heat, 0.05)
    assert_array_equal(leader, [0, 1, 2, 3])
    assert_allclose(confidence, [0.1, 0.1, 0.7, 1])
    leader, confidence = group_seeds(pairs, same, heat, 0.8)
    assert_array_equal(leader, [0, 0, 0, 3])
    assert_allclose(confidence[0], 0.3)


def test_group_order():
    """The most certain seed leads, wherever it stands in the list."""
    leader, _ = group_seeds(np.array([(0, 1), (1, 2)]), np.array([.9, .8]),
                            np.array([.3, .9, .5]), 0.5)
    assert_array_equal(leader, [1, 1, 1])


# ----------------------------------------------------------------- labels

def check_labels(grouping, mask=None):
    """What `Grouping` promises, by NumPy alone."""
    groups, fragments = grouping.groups, grouping.fragments
    n = len(grouping.seed_of)
    assert groups.dtype == fragments.dtype == np.int32
    assert_array_equal(np.unique(groups[groups > 0]), np.arange(1, n + 1))
    assert_array_equal(groups > 0, fragments > 0)
    assert len(grouping.confidence) == len(grouping.n_fragments) == n
    for k in range(1, n + 1):
        inside = np.unique(fragments[groups == k])
        assert len(inside) == grouping.n_fragments[k - 1]
        if len(inside) == 1:
            assert_array_equal(inside, [k])
            assert k not in grouping.children
        else:
            assert_array_equal(inside, np.sort(grouping.children[k]))
            assert inside.min() > n
            # each piece lies in this object only
            assert (groups[np.isin(fragments, inside)] == k).all()
    pieces = [v for c in grouping.children.values() for v in c.tolist()]
    assert sorted(pieces) == list(range(n + 1, n + 1 + len(pieces)))
    if mask is not None:
        assert not groups[mask].any()


SEEDS = [{'x': 8, 'y': 8, 'radius': 5}, {'x': 15, 'y': 9, 'radius': 5},
         {'x': 30, 'y': 25, 'radius': 6}, {'x': 33, 'y': 8, 'radius': 4},
         {'x': 26, 'y': 29, 'radius': 5}, {'x': 37, 'y': 20, 'radius': 3}]


@FEW
@given(st.lists(st.floats(0, 1, width=32), min_size=15, max_size=15),
       st.floats(0, 1), st.integers(1, 60), st.booleans())
def test_labels(same, merge, n_pixels, masked):
    pairs = [(i, j) for i in range(6) for j in range(i + 1, 6)]
    pred = prediction((40, 45), SEEDS, pairs=pairs, same=same)
    mask = np.zeros((40, 45), bool)
    mask[:, 14:17] = masked
    grouping = segment_maps(pred, merge=merge, n_pixels=n_pixels, mask=mask)
    check_labels(grouping, mask)
    area = np.bincount(grouping.groups.ravel())[1:]
    assert (area >= n_pixels).all()
    leader, confidence = group_seeds(pred.pairs, pred.same, pred.heat, merge)
    assert set(grouping.seed_of) <= set(leader)
    assert_allclose(grouping.confidence, confidence[grouping.seed_of])


def test_joined():
    """The union of the fragments is the object, as they were painted."""
    pred = prediction((40, 45), SEEDS, pairs=[(0, 1), (2, 4)],
                      same=[0.9, 0.2])
    owner = paint(pred)
    grouping = segment_maps(pred)
    check_labels(grouping)
    assert_array_equal(grouping.groups,
                       np.array([0, 1, 1, 2, 3, 4, 5])[owner])
    assert_array_equal(grouping.fragments,
                       np.array([0, 6, 7, 2, 3, 4, 5])[owner])
    assert_array_equal(grouping.seed_of, [0, 2, 3, 4, 5])
    assert_array_equal(grouping.n_fragments, [2, 1, 1, 1, 1])
    assert_allclose(grouping.confidence, [.9, .8, 1, .8, 1], rtol=1e-6)


def test_photutils():
    """photutils reads the fragments as deblended labels."""
    pred = prediction((40, 45), SEEDS, pairs=[(0, 1), (2, 4), (2, 5)],
                      same=[0.9, 0.8, 0.7])
    grouping = segment_maps(pred)
    segm = SegmentationImage(grouping.fragments)
    segm._deblend_label_map = dict(grouping.children)
    groups = grouping.groups
    assert sorted(segm.parent_to_deblended_labels) == [1, 2]
    assert len(segm.deblended_label_to_parent) == 5
    for child, parent in segm.deblended_label_to_parent.items():
        assert (groups[grouping.fragments == child] == parent).all()
    for parent, children in segm.parent_to_deblended_labels.items():
        assert_array_equal(np.isin(grouping.fragments, children),
                           groups == parent)
    assert_array_equal(SegmentationImage(groups).labels, [1, 2, 3])


def test_n_pixels():
    pred = prediction((40, 45), SEEDS)
    area = np.bincount(paint(pred).ravel())[1:]
    for n_pixels in (1, sorted(area)[2], sorted(area)[2] + 1):
        grouping = segment_maps(pred, n_pixels=n_pixels)
        assert_array_equal(grouping.seed_of,
                           np.flatnonzero(area >= n_pixels))


def test_keep():
    """``keep`` sees labels of leading seeds plus one."""
    pred = prediction((40, 45), SEEDS, pairs=[(0, 1)], same=[0.9])

    def keep(labels, n):
        assert n == 6
        assert_array_equal(labels, np.array([0, 1, 1, 3, 4, 5, 6])[
            paint(pred)])
        return np.arange(1, n + 1) % 2 == 1

    grouping = segment_maps(pred, keep=keep)
    check_labels(grouping)
    assert_array_equal(grouping.seed_of, [0, 2, 4])


def with_holes(*holes, shape=(40, 40)):
    """One large object with the sky in given slices."""
    sky = np.zeros(shape)
    for hole in holes:
        sky[hole] = 99
    return prediction(shape, [{'x': 20, 'y': 20, 'radius': 15}], sky=sky)


def test_pinholes():
    """Sky of up to 12 pixels within one object is the object's."""
    full = segment_maps(with_holes()).groups
    small, large = np.s_[18:21, 18:22], np.s_[18:21, 18:23]
    assert_array_equal(segment_maps(with_holes(small)).groups, full)
    left = segment_maps(with_holes(large)).groups
    assert not left[large].any()
    left[large] = 1
    assert_array_equal(left, full)


def test_pinhole_of_one_fragment():
    """The filled pixels belong to one of the object's fragments."""
    sky = np.zeros((40, 45))
    sky[8, 8] = 99
    pred = prediction((40, 45), SEEDS, pairs=[(0, 1)], same=[0.9], sky=sky)
    grouping = segment_maps(pred)
    check_labels(grouping)
    assert grouping.groups[8, 8] == 1


def test_hole_between_two():
    """Sky that touches two objects stays."""
    seeds = [{'x': 10, 'y': 10, 'radius': 7}, {'x': 20, 'y': 10,
                                               'radius': 7}]
    sky = np.zeros((21, 31))
    hole = np.s_[9:12, 14:17]
    sky[hole] = 99
    assert not segment_maps(prediction((21, 31), seeds,
                                       sky=sky)).groups[hole].any()
    joined = prediction((21, 31), seeds, sky=sky, pairs=[(0, 1)], same=[.9])
    assert (segment_maps(joined).groups[hole] == 1).all()


def test_hole_at_edge():
    """Sky at the edge of the image is not enclosed."""
    pred = prediction((6, 6), [{'x': 0, 'y': 0, 'radius': 5.5}])
    owner = paint(pred)
    assert 0 < (owner == 0).sum() <= 12
    assert_array_equal(segment_maps(pred).groups, owner)


def test_masked_hole():
    """A masked hole is no pinhole."""
    mask = np.zeros((40, 40), bool)
    mask[20, 20] = True
    groups = segment_maps(with_holes(), mask=mask).groups
    assert groups[20, 20] == 0
    assert groups[20, 21] == 1


def test_islands():
    """Pieces below 4% of the largest, or below n_pixels, are dropped."""
    wall = np.s_[:, 25:29]
    whole = with_holes(wall)
    owner = paint(whole)
    area = [(owner[:, :25] > 0).sum(), (owner[:, 29:] > 0).sum()]
    assert area[1] > 0.04 * area[0]
    assert_array_equal(segment_maps(whole).groups, owner)
    grouping = segment_maps(whole, n_pixels=int(area[1]) + 1)
    assert not grouping.groups[:, 29:].any()
    assert (grouping.groups[:, :25] > 0).sum() == area[0]
    small = with_holes(np.s_[:, 25:34])
    area = (paint(small)[:, 34:] > 0).sum()
    assert 5 <= area < 0.04 * (paint(small)[:, :25] > 0).sum()
    assert not segment_maps(small).groups[:, 34:].any()


# -------------------------------------------------------------- giants


def giant_case():
    """Six objects of 20 x 20 pixels, a small one, and one giant."""
    labels = np.zeros((40, 160), int)
    for k in range(6):
        labels[:20, 20 * k:20 * k + 20] = k + 1
    labels[30:36, :6] = 7                              # too small to judge
    giants = np.zeros_like(labels)
    giants[:20, :60] = 1                               # all of 1, 2, 3
    giants[:20, 60:75] = 1                             # 3/4 of 4
    giants[30:36, :6] = 1
    giants[:20, 80:97] = 2                             # 17/20 of 5
    return labels, Giants(giants, 4)


def test_pieces_of_a_giant_are_joined():
    labels, giants = giant_case()
    labels[20:30, 20:40] = 2                           # the largest piece
    giants.labels[20:30, 20:40] = 1
    leader = join_in_giants(np.arange(7), labels, giants, np.zeros(7, bool))
    assert leader.tolist() == [1, 1, 1, 3, 4, 5, 6]


def test_stars_are_not_pieces():
    labels, giants = giant_case()
    is_star = np.arange(7) == 2
    leader = join_in_giants(np.arange(7), labels, giants, is_star)
    assert leader.tolist() == [0, 0, 2, 3, 4, 5, 6]


def test_led_seeds_follow_their_leader():
    labels, giants = giant_case()
    labels[labels == 3] = 2            # seed 2 is led by seed 1
    leader = join_in_giants(np.array([0, 1, 1, 3, 4, 5, 6]), labels, giants,
                            np.zeros(7, bool))
    assert leader.tolist() == [1, 1, 1, 3, 4, 5, 6]


def test_the_sky_in_a_giant_is_filled():
    labels, giants = np.zeros((40, 100), int), np.zeros((40, 100), int)
    giants[:20, :50], giants[20:, :50], giants[:, 60:] = 1, 2, 3
    labels[:20, :20] = 4                    # 2/5 of giant 1
    labels[:20, 20:25] = 9                  # another in it
    labels[20:, :5] = 5                     # 1/10 of giant 2
    labels[10:30, 40:60] = 6                # less than half of it in any
    filled = fill_giants(labels, Giants(giants, 4))
    expected = labels.copy()
    expected[(giants == 1) & (labels == 0)] = 4
    assert_array_equal(filled, expected)
    assert labels[0, 30] == 0               # the input is left alone


def test_giants_in_a_segmentation():
    seeds = [{'x': x, 'y': 30, 'radius': 12, 'falloff': (2, 0)}
             for x in (30, 60)]
    pred = prediction((60, 90), seeds)
    assert segment_maps(pred).groups.max() == 2
    giants = np.ones((60, 90), int)
    found = segment_maps(pred, giants=[Giants(giants, 4)])
    assert found.groups.max() == 1
    assert found.n_fragments.tolist() == [2]
    # most of the giant is theirs, so that all of it is
    assert found.groups.all() == (
        (segment_maps(pred).groups > 0).mean() > FILL_SHARE)
    none = segment_maps(pred, giants=[Giants(0 * giants, 4)])
    assert none.groups.max() == 2


def test_a_second_look_goes_on_from_the_first():
    """Three objects; the first look joins two, the second the third."""
    seeds = [{'x': x, 'y': 40, 'radius': 35, 'falloff': (2, 0)}
             for x in (60, 130, 200)]
    pred = prediction((81, 260), seeds)
    plain = segment_maps(pred).groups
    assert plain.max() == 3
    first = np.isin(plain, plain[40, [60, 130]]).astype(int)
    every = (plain > 0).astype(int)
    both = segment_maps(pred, giants=[Giants(first, 4), Giants(every, 8)])
    assert both.groups.max() == 1
    assert both.n_fragments.tolist() == [3]
    assert_array_equal(both.groups > 0, plain > 0)
    # the third alone is too small for a look at the image binned by 32
    assert np.bincount(plain.ravel())[3] < 16 * 32**2
    few = segment_maps(pred, giants=[Giants(first, 4), Giants(every, 32)])
    assert few.groups.max() == 2
