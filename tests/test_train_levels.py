# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests of what is asked of the network at each level.
"""

import numpy as np
import pytest
from level_toys import disc_truth

from astrodino_seg.models.instance import CALLED, KEPT
from astrodino_seg.train.crops import level_truth

STAR, GALAXY = 1, 2


def levels_of(discs, b, shape=(160, 160), seed=0):
    truth = disc_truth(shape, discs)
    labels, radius, asked = level_truth(np.random.default_rng(seed), truth, b)
    return truth, labels, radius, asked


def test_what_is_large_is_the_rest():
    truth, labels, radius, asked = levels_of(
        [(80, 80, 50, 20, GALAXY), (90, 80, 5, 40, STAR),
         (10, 10, 6, 9, GALAXY)], 1)
    assert asked.tolist() == [False, True, True]
    np.testing.assert_allclose(radius, [0, 5, 6], rtol=0.05)
    assert labels[80, 60] == 0                  # of the large galaxy
    assert labels[80, 90] == 2
    assert labels[10, 10] == 3
    assert truth.labels[80, 60] == 1            # which is left as it is


def test_what_is_small_does_not_exist_when_binned():
    _, labels, radius, asked = levels_of(
        [(80, 80, 20, 20, GALAXY), (90, 80, 5, 40, STAR),
         (10, 10, 6, 9, STAR)], 4)
    assert asked.tolist() == [True, False, False]
    # the light beneath the star
    assert labels[80, 90] == 1
    # nothing beneath the other one
    assert labels[10, 10] == 0
    np.testing.assert_allclose(radius[0], 20, rtol=0.05)


def test_faint_galaxies_reach_further_when_binned():
    """From 0.5 of the noise down to what the binned noise shows."""
    b, shape = 3, (160, 160)
    truth = disc_truth(shape, [(80, 80, 20, 12, GALAXY),
                               (80, 80, 15, 1.5 * b, STAR)])
    y, x = np.mgrid[:160, :160]
    # in units of the noise, which is a third of that of a pixel
    truth.own_sn[:] = 6 * np.exp(-np.hypot(x - 80, y - 80) / 10)
    truth.labels[:] = np.where(truth.own_sn > 0.5, 1, 0)
    truth.objects.update({k: v[:1] for k, v in truth.objects.items()})
    labels, *_ = level_truth(np.random.default_rng(0), truth, b)
    # its peak of twice the noise of a pixel is followed to 0.05 of it, which
    # is less than what can be seen: half of the noise
    assert (labels == 1).sum() == (truth.own_sn > 0.5).sum()
    star = disc_truth(shape, [(80, 80, 20, 12, STAR)])
    star.own_sn[:], star.labels[:] = truth.own_sn, truth.labels
    labels, *_ = level_truth(np.random.default_rng(0), star, b)
    assert (labels == 1).sum() == (truth.own_sn > 0.5 * b).sum()


def test_between_levels_may_be_either():
    """Never asked for; there in some draws and not in others."""
    size = (CALLED[1] + KEPT[1]) / 2
    found = []
    for seed in range(30):
        _, labels, _, asked = levels_of([(80, 80, size, 20, GALAXY)], 1,
                                        seed=seed)
        assert not asked.any()
        found.append(bool((labels == 1).any()))
    assert 5 < sum(found) < 25


def test_void_stays_void():
    dead = np.zeros((160, 160), bool)
    dead[:40] = True
    truth = disc_truth((160, 160), [(80, 80, 15, 20, GALAXY)], dead)
    for b in (1, 3.5):
        labels, *_ = level_truth(np.random.default_rng(0), truth, b)
        assert (labels[:40] == -1).all()
        assert (labels[40:] >= 0).all()


@pytest.mark.parametrize('b', [1, 2, 8])
def test_nothing_there(b):
    truth = disc_truth((32, 32), [])
    labels, radius, asked = level_truth(np.random.default_rng(0), truth, b)
    assert not labels.any()
    assert len(radius) == len(asked) == 0


@pytest.mark.parametrize('b', [1, 2])
def test_labels_that_were_given_are_not_cut(b):
    """Where only labels are known, they say how far objects reach."""
    truth = disc_truth((96, 96), [(40, 40, 18, 9, GALAXY)])
    truth.own_sn[:] = 0.1
    none = np.zeros((0, 96, 96))
    truth.owners = truth.shares = truth.light = none
    labels, radius, asked = level_truth(np.random.default_rng(0), truth, b)
    assert (labels == truth.labels).all()
    assert radius == pytest.approx([18], rel=0.03)
    assert asked.all()
