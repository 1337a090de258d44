# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the module figures of the probe package.
"""

import numpy as np
import pytest
from embed_toys import blobs
from numpy.testing import assert_array_equal

from astrodino_seg.embed.classifiers import ProbeResult
from astrodino_seg.embed.probe import tsne
from astrodino_seg.plotting import plot_confusion, plot_tsne


def test_tsne():
    pytest.importorskip('sklearn')
    vectors, labels = blobs(45)
    points = tsne(vectors, seed=1)
    assert points.shape == (45, 2)
    assert_array_equal(points, tsne(vectors, seed=1))
    # the nearest point is of the same class
    apart = np.linalg.norm(points[:, None] - points, axis=-1)
    np.fill_diagonal(apart, np.inf)
    assert (labels[apart.argmin(axis=1)] == labels).mean() > 0.95
    vectors[4] = np.nan
    for bad in (vectors, vectors[:3]):
        with pytest.raises(ValueError, match='4 rows or more that all have'):
            tsne(bad)


@pytest.mark.parametrize('n_classes', [3, 12])
def test_plot_tsne(n_classes):
    pytest.importorskip('matplotlib')
    points = np.random.default_rng(0).normal(size=(50, 2))
    labels = np.arange(50) % n_classes
    figure = plot_tsne(points, labels, [f'c{k}' for k in range(n_classes)])
    groups = figure.axes[0].collections
    assert len(groups) == n_classes
    for k, group in enumerate(groups):
        assert_array_equal(group.get_offsets(), points[labels == k])
    assert len({tuple(group.get_facecolor()[0]) for group in groups}) == (
        n_classes)
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts[1] == f'c1 ({(labels == 1).sum()})'


def test_plot_confusion():
    pytest.importorskip('matplotlib')
    result = ProbeResult('x', ('a', 'b'), np.array([0, 0, 0, 0, 1]),
                         [(np.arange(0), np.arange(5))],
                         [np.array([0, 0, 0, 1, 1])])
    axis = plot_confusion(result).axes[0]
    assert [text.get_text() for text in axis.texts] == ['75', '25', '0',
                                                        '100']
    assert_array_equal(axis.get_images()[0].get_array(), [[.75, .25], [0, 1]])
    assert [text.get_text() for text in axis.get_xticklabels()] == ['a', 'b']
    assert axis.get_title().startswith('x: top-1 80.0%')
