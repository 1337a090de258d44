# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the baselines that use watersheds.
"""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from astrodino_seg.evaluate.baselines import (
    PeakFinder,
    PhotutilsFinder,
    RegionFinder,
    SEPFinder,
)
from astrodino_seg.evaluate.finders import touching

NO_MASK = np.zeros((64, 64), bool)
WITHIN = [PhotutilsFinder(), SEPFinder(), PeakFinder(),
          PeakFinder(detector='DAOStarFinder'), RegionFinder()]
PLACE = st.tuples(st.integers(8, 55), st.integers(8, 55))


def blobs(*places, sigma=2.0, height=30.0, shape=(64, 64)):
    """Gaussians and nothing else."""
    y, x = np.mgrid[:shape[0], :shape[1]]
    return sum(height * np.exp(-((x - cx)**2 + (y - cy)**2) / 2 / sigma**2)
               for cx, cy in places)


@pytest.mark.parametrize('finder', WITHIN, ids=str)
@given(first=PLACE, second=PLACE)
@settings(max_examples=10, deadline=None)
def test_two_blobs_are_two_labels(finder, first, second):
    assume(np.hypot(*np.subtract(first, second)) > 16)
    found = finder.find(blobs(first, second), NO_MASK)
    assert found.n_labels == 2
    assert {found.data[y, x] for x, y in (first, second)} == {1, 2}


@pytest.mark.parametrize('detector', ['find_peaks', 'DAOStarFinder'])
def test_blobs_that_touch_part_in_the_middle(detector):
    sn = blobs((20, 32), (41, 32), sigma=7)
    found = PeakFinder(detector=detector, n_sigma=1).find(sn, NO_MASK).data
    above = found > 0
    assert above[32, 20:42].all()
    x = np.nonzero(above)[1]
    assert_array_equal(found[above] == found[32, 20], x <= 30)
    assert found.max() == 2


def test_min_separation():
    sn = blobs((28, 32)) + 0.8 * blobs((36, 32))
    assert PeakFinder(min_separation=5).find(sn, NO_MASK).n_labels == 2
    assert PeakFinder(min_separation=12).find(sn, NO_MASK).n_labels == 1


def test_masked_peak():
    sn = blobs((20, 20), (45, 45))
    mask = NO_MASK.copy()
    mask[40:50, 40:50] = True
    for finder in (PeakFinder(), PeakFinder(detector='DAOStarFinder'),
                   RegionFinder()):
        found = finder.find(np.where(mask, 0, sn), mask).data
        assert found[20, 20] > 0
        assert not found[mask].any()


def test_width_for_stars():
    finder = PeakFinder(detector='DAOStarFinder', fwhm=0)
    with pytest.raises(ValueError, match='^fwhm must be positive for DAO'):
        finder.find(blobs((20, 20)), NO_MASK)


# ------------------------------------------------------ merging of regions

def ridge(*heights):
    """A ridge along x with these heights, three pixels wide."""
    sn = np.zeros((5, len(heights) + 2))
    sn[1:4, 1:-1] = 0.9 * np.array(heights)
    sn[2, 1:-1] = heights
    return sn


def n_labels(sn, **kwargs):
    finder = RegionFinder(**{'fwhm': 0, 'n_pixels': 1, 'prominence': 0,
                             **kwargs})
    return finder.find(sn, np.zeros(sn.shape, bool)).n_labels


@pytest.mark.parametrize(('kwargs', 'expected'), [
    ({'saddle': 0.74}, 1), ({'saddle': 0.76}, 2), ({'saddle': 1.0}, 2),
    ({'saddle': 1.0, 'prominence': 1.9}, 2),
    ({'saddle': 1.0, 'prominence': 2.1}, 1), ({'saddle': 0.0}, 1)])
def test_merging(kwargs, expected):
    # peaks of 10 and 8 with a pass of 6 between: 0.75 of the lower, 2 below
    sn = ridge(4, 7, 10, 8, 6, 7, 8, 5, 3)
    assert n_labels(sn, **kwargs) == expected
    assert n_labels(sn[:, ::-1], **kwargs) == expected
    assert n_labels(sn.T, **kwargs) == expected


def test_merged_regions_keep_the_higher_peak():
    # the low peak joins the left one; the right one is then compared with
    # 10, not with 5, and stays
    sn = ridge(6, 10, 7, 4.5, 5, 3, 6, 9, 4)
    found = RegionFinder(fwhm=0, n_pixels=1, saddle=0.8, prominence=0).find(
        sn, np.zeros(sn.shape, bool))
    line = found.data[2, [1, 2, 3, 4, 5, 7, 8, 9]]      # less the pass
    assert_array_equal(line == line[0], [1, 1, 1, 1, 1, 0, 0, 0])
    assert found.n_labels == 2


def test_regions_that_do_not_touch_are_not_merged():
    assert n_labels(ridge(5, 6, 5, 0, 5, 6, 5), saddle=0.0) == 2


def test_diagonal_contact():
    sn = np.zeros((6, 6))
    sn[1:3, 1:3] = sn[3:5, 3:5] = 5
    sn[1, 1] = sn[4, 4] = 6
    assert n_labels(sn, saddle=0.5, connectivity=8) == 1
    assert n_labels(sn, saddle=0.5, connectivity=4) == 2


def test_touching():
    parts = np.array([[1, 1, 0], [1, 2, 2], [0, 3, 0]])
    height = np.array([[9.0, 5, 0], [3, 4, 8], [0, 2, 0]])
    assert touching(parts, height, 4) == [(1, 2, 4.0), (2, 3, 2.0)]
    # by the diagonals: 9 and 4, 5 and 8; 3 and 2; 8 and 2
    assert touching(parts, height, 8) == [(1, 2, 5.0), (1, 3, 2.0),
                                          (2, 3, 2.0)]
    assert touching(np.zeros((3, 3), int), height, 8) == []
    assert touching(np.ones((1, 4), int), np.ones((1, 4)), 8) == []
