# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for what lies in pieces in another object; those of giants are beside
the tests of `segment_maps`.
"""

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from test_grouping import prediction

from astrodino_seg.grouping import segment_maps
from astrodino_seg.joining import SCATTERED, SCATTERED_SHARE, join_scattered

SPOTS = [(20, 20), (20, 40), (40, 20), (40, 40), (30, 50), (50, 30)]


def scene(n, *, side=3):
    """
    Object 1 in a disc with n spots of object 2, whose seeds 1 to n are; the
    sky is at the edge, and object n + 2 beside.
    """
    y, x = np.mgrid[:70, :90]
    labels = np.where(np.hypot(x - 32, y - 32) < 30, 1, 0)
    for b, a in SPOTS[:n]:
        labels[b:b + side, a:a + side] = 2
    labels[10:60, 66:86] = n + 2
    leader = np.array([0, *[1] * n, n + 1])
    return leader, labels


@pytest.mark.parametrize('n', range(1, 7))
def test_spots(n):
    """Many are part of what they lie in; a few may be of something else."""
    leader, labels = scene(n)
    wanted = leader.copy()
    if n >= SCATTERED:
        wanted[1:n + 1] = 0
    assert_array_equal(join_scattered(leader, labels), wanted)


def test_large_spots():
    leader, labels = scene(6, side=10)
    assert (labels == 2).sum() > SCATTERED_SHARE * (labels == 1).sum()
    assert_array_equal(join_scattered(leader, labels), leader)


def test_one_seed():
    """Pieces of one seed are the network's doubt, and no knots."""
    leader, labels = scene(5)
    leader = np.array([0, 1, 2])
    labels[labels == 7] = 3
    assert_array_equal(join_scattered(leader, labels), leader)


@pytest.mark.parametrize('where', [(slice(2, 5), slice(2, 5)),
                                   (slice(0, 3), slice(80, 90)),
                                   (slice(30, 33), slice(70, 73))])
def test_one_elsewhere(where):
    """On the sky, at the image's edge, or in another object."""
    leader, labels = scene(5)
    assert join_scattered(leader, labels)[1] == 0
    labels[where] = 2
    assert_array_equal(join_scattered(leader, labels), leader)


def test_in_turn():
    """Spots in spots in a disc are of the disc."""
    labels = np.ones((200, 200), int)
    for b, a in SPOTS[:4]:
        labels[3 * b:3 * b + 30, 3 * a:3 * a + 30] = 2
        labels[3 * b + 10:3 * b + 12, 3 * a + 10:3 * a + 12] = 4
    leader = np.array([0, 1, 1, 3, 3])
    assert_array_equal(join_scattered(leader, labels), 0)


def test_in_segment_maps():
    """Knots that are joined with each other, and not with their galaxy."""
    spots = [(b, a) for b in (14, 26) for a in (14, 26)]
    seeds = [{'x': 20, 'y': 20, 'radius': 12, 'bias': 4},
             *({'x': a, 'y': b, 'radius': 1.5, 'bias': 8} for b, a in spots)]
    pairs = [(i, j) for i in range(5) for j in range(i + 1, 5)]
    same = [0.9 if i > 0 else 0.1 for i, _ in pairs]
    maps = prediction((41, 41), seeds, pairs=pairs, same=same)
    assert segment_maps(maps).groups.max() == 1
    three = prediction((41, 41), seeds[:4], pairs=pairs[:3] + [
        (1, 2), (1, 3), (2, 3)], same=[0.1] * 3 + [0.9] * 3)
    assert segment_maps(three).groups.max() == 2
