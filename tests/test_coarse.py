# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the coarse module.
"""

from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy import ndimage
from test_grouping import prediction

from astrodino_seg import coarse
from astrodino_seg.coarse import GIANT_AREA, find_giants

SHAPE = (402, 610)
MODEL = SimpleNamespace(head=SimpleNamespace(in_channels=5))
KNOWN = {'min_seed': 0.3, 'merge': 0.35}


@pytest.fixture
def look(monkeypatch):
    """What the network sees of a galaxy of a given radius (binned)."""
    def see(radius):
        seen = []

        def predict(model, channels, **kwargs):
            seen.append((channels, kwargs))
            seeds = [{'x': 80, 'y': 50, 'radius': radius, 'bias': 3,
                      'falloff': (3, 0)}, {'x': 10, 'y': 10, 'radius': 3}]
            return prediction(channels.shape[1:], seeds)

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
    giants = find_giants(MODEL, channels(), **KNOWN)
    (binned, kwargs), = seen
    assert binned.shape == (5, 101, 153)        # whole blocks of four
    assert kwargs['bin_factor'] == 1
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
                        prediction(channels.shape[1:], [
                            {'x': x, 'y': y, 'radius': 35, 'bias': 3,
                             'falloff': (3, 0)}]))
    giants = find_giants(MODEL, channels(), **KNOWN)
    shape = (101, 153)
    labels = coarse.segment_maps(prediction(shape, [
        {'x': x, 'y': y, 'radius': 35, 'bias': 3, 'falloff': (3, 0)}]),
        **KNOWN, n_pixels=1).groups
    soft = ndimage.gaussian_filter((labels > 0).astype(np.float32), 0.7)
    whole = ndimage.zoom(soft, 4, order=1, mode='nearest', grid_mode=True)
    assert_array_equal(giants > 0, whole[:SHAPE[0], :SHAPE[1]] > 0.5)


def test_no_giant(look):
    look(9)                                     # a radius of 36 pixels
    assert find_giants(MODEL, channels(), **KNOWN) is None


def test_small_image_is_not_looked_at(look):
    seen = look(30)
    side = int(GIANT_AREA**0.5) - 1
    assert find_giants(MODEL, channels((side, side)), **KNOWN) is None
    # the image binned by eight has less than a giant's pixels
    assert find_giants(MODEL, channels(), bin_factor=8, **KNOWN) is None
    assert seen == []
