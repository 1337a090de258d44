# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the datasets package: splits at random and by position.
"""

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from astrodino_seg.datasets import random_split, sky_split


@given(st.integers(2, 300), st.floats(0.01, 0.99), st.integers(0, 9))
def test_random_split(n, fraction, seed):
    train, test = random_split(n, test_fraction=fraction, seed=seed)
    assert_array_equal(np.sort(np.concatenate([train, test])), np.arange(n))
    assert abs(len(test) - n * fraction) <= 1
    assert min(len(train), len(test)) >= 1
    again = random_split(n, test_fraction=fraction, seed=seed)
    assert_array_equal(again[1], test)


def test_seeds_differ():
    tests = {tuple(random_split(50, seed=seed)[1]) for seed in range(20)}
    assert len(tests) == 20
    # the study's: 80/20 of 17,736
    assert len(random_split(17736)[1]) == 3547


def fields(n_fields=40, n_each=25):
    """Fields of 0.2 degrees, no two of them within 9 degrees."""
    k = np.arange(n_fields)
    centres = SkyCoord(360 * ((k * 0.618034) % 1),
                       np.degrees(np.arcsin(2 * (k + 0.5) / n_fields - 1)),
                       unit='deg')
    rng = np.random.default_rng(1)
    coords = centres[:, None].directional_offset_by(
        rng.uniform(0, 360, (n_fields, n_each)) * u.deg,
        rng.uniform(0, 0.1, (n_fields, n_each)) * u.deg)
    return coords.ravel(), np.repeat(k, n_each)


@pytest.mark.parametrize('seed', range(5))
def test_sky_split_keeps_fields_together(seed):
    # with cells of 58 degrees, no more than a few fields lie on a border
    coords, field = fields()
    train, test = sky_split(coords.ra, coords.dec, nside=4, seed=seed)
    assert_array_equal(np.sort(np.concatenate([train, test])),
                       np.arange(len(coords)))
    assert 0.15 <= len(test) / len(coords) <= 0.25
    both = set(field[train]) & set(field[test])
    assert len(both) <= 3
    # a random split has most of the fields in both parts
    train, test = random_split(len(coords), seed=seed)
    assert len(set(field[train]) & set(field[test])) > 35


def test_cells():
    # of nside=1: eight cells meet the parallels of +-60 degrees, four each,
    # with borders at multiples of 90 degrees (Gorski et al. 2005, fig. 4)
    ra = np.repeat([45, 135, 225, 315], 10) + np.linspace(-40, 40, 40)
    cell = np.floor(ra / 90)
    train, test = sky_split(ra, np.full(40, 60), nside=1, test_fraction=0.5)
    assert len(test) == 20
    assert set(cell[train]).isdisjoint(cell[test])


def test_over_zero_hours():
    # of nside=1, four cells have their centres on the equator, at 0 degrees
    # and so on; right ascensions 359.9 and 0.1 are of one
    ra = np.array([359.9, 0.1, 179.9, 180.1] * 5)
    train, test = sky_split(ra, 0 * ra, nside=1, test_fraction=0.5)
    assert {frozenset(train % 4), frozenset(test % 4)} == {
        frozenset({0, 1}), frozenset({2, 3})}


def test_units():
    coords, _ = fields()
    expected = sky_split(coords.ra.deg, coords.dec.deg)[1]
    for ra, dec in ((coords.ra, coords.dec),
                    (coords.ra.to(u.hourangle), coords.dec.to(u.rad))):
        assert_array_equal(sky_split(ra, dec)[1], expected)


@pytest.mark.parametrize(('ra', 'dec', 'match'), [
    ([1, 2], [3], r'of one shape \(n,\), got \(2,\) and \(1,\)'),
    ([1, np.nan], [3, 4], '1 positions are not on the sky, the first in row'),
    ([1, 2], [3, 95], 'row 1'), ([1], [3], 'two items or more, got 1'),
    ([1, 1], [3, 3], 'in one cell of nside=16')])
def test_bad_positions(ra, dec, match):
    with pytest.raises(ValueError, match=match):
        sky_split(ra, dec)


@pytest.mark.parametrize('fraction', [0, 1, -0.1, np.nan])
def test_bad_fraction(fraction):
    match = 'test_fraction must be between 0 and 1'
    with pytest.raises(ValueError, match=match):
        random_split(10, test_fraction=fraction)
    with pytest.raises(ValueError, match=match):
        sky_split([1, 100], [2, 20], test_fraction=fraction)
