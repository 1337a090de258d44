# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The default segmenter on images that are unlike a deep field.
"""

import warnings

import numpy as np
import pytest
from photutils.utils.exceptions import NoDetectionsWarning

from astrodino_seg import DinoSegmenter


@pytest.fixture(scope='module')
def finder():
    return DinoSegmenter()


def find(finder, data):
    """Labels; none is no news."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', NoDetectionsWarning)
        found = finder(data)
    return np.zeros(data.shape, int) if found is None else found.data


def test_crowded_field(finder):
    """Stars everywhere, nothing but stars: each is alone."""
    rng, n = np.random.default_rng(7), 256
    y, x = np.mgrid[:n, :n]
    data = rng.normal(0, 1, (n, n))
    grid = np.arange(8, n - 7, 13)
    stars = [(a + rng.uniform(-1.5, 1.5), b + rng.uniform(-1.5, 1.5))
             for b in grid for a in grid]
    for a, b in stars:
        data += 60 * rng.uniform(.7, 1.4) * np.exp(
            -((x - a)**2 + (y - b)**2) / 3)
    labels = find(finder, data)
    at = np.array([labels[round(b), round(a)] for a, b in stars])
    alone = np.bincount(at)[at] == 1
    assert np.mean(alone & (at > 0)) > 0.95


@pytest.mark.parametrize('seed', range(3))
def test_faint_disc(finder, seed):
    """Nowhere above the noise of a pixel, and one label."""
    n = 512
    y, x = np.mgrid[:n, :n]
    disc = np.exp(-np.hypot(x - 250, y - 262) / 60)
    data = np.random.default_rng(seed).normal(0, 1, (n, n)) + .9 * disc
    labels = find(finder, data)
    inside = np.bincount(labels.ravel(), disc.ravel())
    inside[0] = 0
    assert inside.max(initial=0) > 0.25 * disc.sum()


@pytest.mark.parametrize('sigma', [3, 6, 12, 25])
@pytest.mark.parametrize('peak', [20, 2000])
def test_alone(finder, sigma, peak):
    """A bright smooth object without company has a label at its centre."""
    n = 160
    y, x = np.mgrid[:n, :n]
    blob = peak * np.exp(-((x - 77)**2 + (y - 84)**2) / (2 * sigma**2))
    labels = find(finder, np.random.default_rng(3).normal(0, 1, (n, n))
                  + blob)
    assert labels[84, 77] > 0


@pytest.mark.parametrize('data', [
    np.zeros((96, 96)), np.full((96, 96), 7.0),
    np.kron(np.indices((8, 8)).sum(axis=0) % 2, np.ones((20, 20))) * 100.0])
def test_no_sky_at_all(finder, data):
    """Whatever is found, nothing breaks."""
    labels = find(finder, data)
    assert labels.shape == data.shape


def test_noise_alone(finder):
    """White noise has next to no objects."""
    labels = find(finder, np.random.default_rng(0).normal(5, 3, (600, 600)))
    assert labels.max() <= 3
