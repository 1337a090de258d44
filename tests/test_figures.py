# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the figures of what a network sees.
"""

import sys

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from astrodino_seg.figures import class_rgb, plot_attention, plot_classes


@pytest.fixture
def rgb():
    return np.random.default_rng(1).integers(60, 200, (30, 40, 3), np.uint8)


def masks(n):
    out = np.zeros((n, 30, 40), bool)
    for k in range(n):
        out[k, 5:15, 3 * k:3 * k + 10] = True
    return out


def pictures(figure):
    return [axis.images[0].get_array() if axis.images else None
            for axis in figure.axes]


@pytest.mark.parametrize(('n', 'shape'), [(1, (2, 2)), (3, (2, 4)),
                                          (6, (2, 7)), (8, (4, 7))])
def test_attention(rgb, n, shape):
    heads = np.random.default_rng(2).random((n, 30, 40))
    combined = masks(n)[0].astype(int)
    figure = plot_attention(rgb, heads, masks(n), combined, width=1)
    shown = np.array(figure.axes).reshape(shape)
    assert_array_equal(shown[0, 0].images[0].get_array(), rgb)
    for k in range(n):
        row, column = 2 * (k // 6), k % 6 + 1
        assert_array_equal(shown[row, column].images[0].get_array(), heads[k])
        assert shown[row, column].get_title() == f'head {k + 1}'
        assert shown[row, column].images[0].origin == 'lower'
        below = shown[row + 1, column].images[0].get_array()
        assert_array_equal(below[6:14, 3 * k + 1:3 * k + 9],
                           rgb[6:14, 3 * k + 1:3 * k + 9])
        assert (below[~masks(n)[k]] <= rgb[~masks(n)[k]] / 2).all()
    assert_array_equal(shown[1, 0].images[0].get_array()[6:14, 1:9],
                       rgb[6:14, 1:9])
    assert sum(p is not None for p in pictures(figure)) == 2 + 2 * n


def test_class_rgb(rgb):
    classes = np.zeros((30, 40), np.uint8)
    classes[0, :4] = 0, 1, 2, 3
    out = class_rgb(rgb, classes)
    assert out.dtype == np.uint8
    assert (np.ptp(out[classes == 0].astype(int), axis=-1) == 0).all()
    star, galaxy, artifact = out[0, 1:4].argmax(axis=-1)
    assert (star, galaxy, artifact) == (2, 0, 1)


def test_classes(rgb):
    labels = np.zeros((30, 40), int)
    labels[10:20, 10:20], labels[25:28, 2:5] = 4, 9
    classes = np.where(labels > 0, 2, 0)
    classes[10, 10:15] = 1
    figure = plot_classes(rgb, classes, labels, width=1)
    assert [axis.get_title() for axis in figure.axes] == [
        '', 'star 5%, galaxy 95%, artifact 0%', '2 labels']
    figure = plot_classes(rgb, classes, labels, zoom=(8, 24, 6, 22), width=1)
    assert figure.axes[2].get_title() == '1 labels'
    plain, coloured, _ = pictures(figure)
    assert_array_equal(plain, rgb[6:22, 8:24])
    assert_array_equal(coloured, class_rgb(rgb, classes)[6:22, 8:24])
    # nothing there at all
    plot_classes(rgb, 0 * classes, 0 * labels, width=1)


def test_without_matplotlib(rgb, monkeypatch):
    monkeypatch.setitem(sys.modules, 'matplotlib.figure', None)
    with pytest.raises(ImportError, match=r'matplotlib is needed .*\[plot\]'):
        plot_attention(rgb, masks(1), masks(1), masks(1)[0])
