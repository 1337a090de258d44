# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the coarse module.
"""

from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import ndimage
from test_grouping import prediction

from astrodino_seg import coarse
from astrodino_seg.binning import bin_channels
from astrodino_seg.coarse import GIANT_AREA, find_giants

SHAPE = (402, 610)
MODEL = SimpleNamespace(head=SimpleNamespace(in_channels=5))
KNOWN = {'min_seed': 0.3, 'merge': 0.35}


def inside(seeds, shape):
    """Those of the seeds that lie in an image."""
    return [s for s in seeds if s['y'] < shape[0] and s['x'] < shape[1]]


@pytest.fixture
def look(monkeypatch):
    """What the network sees of a galaxy of a given radius (binned)."""
    def see(radius):
        seen = []

        def predict(model, channels, **kwargs):
            seen.append((channels, kwargs))
            seeds = [{'x': 80, 'y': 50, 'radius': radius, 'bias': 3,
                      'falloff': (3, 0)}, {'x': 10, 'y': 10, 'radius': 3}]
            return prediction(channels.shape[1:],
                              inside(seeds, channels.shape[1:]))

        monkeypatch.setattr(coarse, 'predict', predict)
        return seen

    return see


def channels(shape=SHAPE):
    rng = np.random.default_rng(3)
    cube = np.arcsinh(rng.normal(size=(5, *shape))).astype(np.float32)
    cube[-1] = 1
    return cube


def test_giant(look):
    seen = look(30)
    (giants, factor), *_ = find_giants(MODEL, channels(), **KNOWN)
    (binned, kwargs), (further, _) = seen
    assert binned.shape == (5, 101, 153)        # whole blocks of four
    assert further.shape == (5, 26, 39)
    # as from the image itself, but for what pads the last row and column
    assert_allclose(further[:, :-1, :-1],
                    bin_channels(channels(), 16)[:, :-1, :-1], atol=1e-6)
    assert kwargs['bin_factor'] == 1
    assert factor == 4
    assert giants.shape == SHAPE
    assert len(np.unique(giants)) == 2          # the small object is none
    y, x = np.mgrid[:SHAPE[0], :SHAPE[1]]
    far = np.hypot(x // 4 - 80, y // 4 - 50)
    assert_array_equal(giants[far < 28.5] > 0, True)
    assert_array_equal(giants[far > 31], 0)


@pytest.mark.parametrize(('x', 'y'), [(0, 0), (152, 100), (80, 100), (3, 50)])
def test_giant_at_the_edge(monkeypatch, x, y):
    """It is cut from a box of the image as it would be from the whole."""
    monkeypatch.setattr(coarse, 'predict', lambda model, channels, **kwargs:
                        prediction(channels.shape[1:], inside([
                            {'x': x, 'y': y, 'radius': 35, 'bias': 3,
                             'falloff': (3, 0)}], channels.shape[1:])))
    giants = find_giants(MODEL, channels(), **KNOWN)[0].labels
    shape = (101, 153)
    labels = coarse.segment_maps(prediction(shape, [
        {'x': x, 'y': y, 'radius': 35, 'bias': 3, 'falloff': (3, 0)}]),
        **KNOWN, n_pixels=1).groups
    soft = ndimage.gaussian_filter((labels > 0).astype(np.float32), 0.7)
    whole = ndimage.zoom(soft, 4, order=1, mode='nearest', grid_mode=True)
    assert_array_equal(giants > 0, whole[:SHAPE[0], :SHAPE[1]] > 0.5)


def test_no_giant(look):
    look(9)                                     # a radius of 36 pixels
    assert find_giants(MODEL, channels(), **KNOWN) == []


def test_small_image_is_not_looked_at(look):
    seen = look(30)
    side = int(4 * GIANT_AREA**0.5) - 1
    assert find_giants(MODEL, channels((side, side)), **KNOWN) == []
    # the image binned by 32 has less than a giant's pixels
    assert find_giants(MODEL, channels(), bin_factor=8, **KNOWN) == []
    assert seen == []
    find_giants(MODEL, channels((4 * side, 4 * side)), **KNOWN)
    assert len(seen) == 1                       # and not binned by 16


def test_giant_of_the_second_look(look):
    """In each look there is one, at another place of the image."""
    look(12)
    shape = 1200, 1700
    first, second = find_giants(MODEL, channels(shape), **KNOWN)
    assert (first.factor, second.factor) == (4, 16)
    for one in (first, second):
        y, x = ndimage.center_of_mass(one.labels > 0)
        wanted = one.factor * np.array([50, 80]) + (one.factor - 1) / 2
        assert_array_equal(abs(wanted - [y, x]) < one.factor, True)
