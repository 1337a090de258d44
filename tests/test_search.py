# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the search module.
"""

import astropy.units as u
import numpy as np
import pytest
from astropy.table import QTable
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from astrodino_seg.embed import anomaly_scores, similar
from astrodino_seg.embed.vectors import nearest
from astrodino_seg.plotting import plot_neighbours

VECTORS = np.array([[1, 0], [0, 2], [3, 3], [-1, 0], [np.nan, 0], [0, 0]],
                   np.float32)


@pytest.fixture
def table():
    return QTable({'id': list('abcdef'), 'ra': [0, 1, 2, 3, 4, 5] * u.deg,
                   'dec': np.zeros(6) * u.deg, 'embedding': VECTORS})


def test_by_hand():
    rows, values = nearest(VECTORS, VECTORS[[0]], 10)
    assert rows.tolist() == [[0, 2, 1, 3]]
    assert_allclose(values, [[1, np.sqrt(0.5), 0, -1]], atol=1e-6)
    rows, values = nearest(VECTORS, VECTORS[[0, 2]], 1,
                           exclude=np.array([0, 2]))
    assert rows.tolist() == [[2], [0]]     # 0 and 1 are equally near to 2


@given(st.integers(0, 10**6), st.integers(1, 12), st.booleans())
def test_equal_to_a_full_sort(seed, n, without):
    # vectors of few values: many are equally near
    rng = np.random.default_rng(seed)
    vectors = rng.integers(-1, 2, (12, 3)).astype(np.float32)
    vectors[0] = 1, 0, 0
    vectors[1] = 0, 1, 0
    good = np.flatnonzero(vectors.any(axis=1))
    rows, values = nearest(vectors, vectors[good], n,
                           exclude=good if without else None)
    for row, line, value in zip(good, rows, values):
        cosine = {other: unit_dot(vectors, row, other) for other in good
                  if not (without and other == row)}
        assert set(line) <= set(cosine)
        assert len(line) == min(n, len(cosine)) == len(set(line.tolist()))
        wanted = sorted(cosine.values(), reverse=True)[:n]
        assert_allclose(value, wanted, atol=1e-6)
        assert_allclose(value, [cosine[k] for k in line], atol=1e-6)


def unit_dot(vectors, a, b):
    return vectors[a] @ vectors[b] / (np.linalg.norm(vectors[a])
                                      * np.linalg.norm(vectors[b]))


def test_blocks(monkeypatch):
    vectors = np.random.default_rng(0).normal(size=(50, 5))
    whole = nearest(vectors, vectors, 7)
    for n_values in (1, 120, 999):
        monkeypatch.setattr('astrodino_seg.embed.vectors.N_VALUES', n_values)
        for a, b in zip(nearest(vectors, vectors, 7), whole):
            assert_allclose(a, b, atol=1e-6)


def test_similar(table):
    found = similar(table, [0, 3], n=2)
    assert found.colnames == ['query', 'rank', 'row', 'id', 'ra', 'dec',
                              'similarity', 'separation']
    assert found['query'].tolist() == [0, 0, 3, 3]
    assert found['rank'].tolist() == [1, 2, 1, 2]
    assert found['id'].tolist() == ['c', 'b', 'b', 'c']
    assert_allclose(found['similarity'], [np.sqrt(0.5), 0, 0, -np.sqrt(0.5)],
                    atol=1e-6)
    # along the equator
    assert found['separation'].unit == u.arcsec
    assert_allclose(found['separation'].value, [7200, 3600, 7200, 3600])
    assert_array_equal(similar(table, -6, n=2)['row'], found['row'][:2])


def test_similar_to_others(table):
    found = similar(table, [0.1, 5.0], n=1)
    assert found['id'].tolist() == ['b']
    assert 'separation' not in found.colnames
    other = table[[3, 0]]
    other['dec'] = [1, 2] * u.deg
    found = similar(table, other, n=1)
    assert found['query'].tolist() == [0, 1]
    assert found['id'].tolist() == ['d', 'a']      # themselves: other rows
    assert_allclose(found['separation'].value, [3600, 7200])
    del table['ra']
    assert 'separation' not in similar(table, 0).colnames


@pytest.mark.parametrize(('queries', 'n', 'message'), [
    (6, 3, 'must be rows of a table of 6, got 6 to 6'),
    (-7, 3, 'must be rows of a table of 6'),
    (4, 3, 'queries: 1 of 1 have no vector'),
    ([0, 5], 3, 'queries: 1 of 2 have no vector, the first is 1'),
    ([1.0, 2.0, 3.0], 3, r'must have 2 numbers each, got the shape \(1, 3\)'),
    ([], 3, 'queries are empty'),
    (0, 0, 'n must be 1 or more')])
def test_bad_queries(table, queries, n, message):
    with pytest.raises(ValueError, match=message):
        similar(table, queries, n=n)


def test_anomalies_by_hand(table):
    scores = anomaly_scores(table, k=1)
    assert scores.colnames == ['row', 'id', 'ra', 'dec', 'score']
    # the nearest of d is b, at a right angle; of the others c, at 45 degrees
    assert scores['id'].tolist() == ['d', 'a', 'b', 'c']
    assert_allclose(scores['score'], [1] + 3 * [1 - np.sqrt(0.5)], atol=1e-6)
    # the last neighbour if there are fewer
    assert_allclose(anomaly_scores(table, k=9)['score'],
                    [2, 2, 1 + np.sqrt(0.5), 1], atol=1e-6)


def test_anomalies_as_scikit_learn():
    neighbors = pytest.importorskip('sklearn.neighbors')
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(80, 6)) + 4
    vectors[17] = -4
    scores = anomaly_scores(QTable({'embedding': vectors}), k=5)
    assert scores['row'][0] == 17
    distance, _ = neighbors.NearestNeighbors(
        n_neighbors=6, metric='cosine').fit(vectors).kneighbors()
    assert_allclose(np.sort(scores['score']), np.sort(distance[:, 4]),
                    atol=1e-5)
    assert_allclose(scores['score'], distance[scores['row'], 4], atol=1e-5)


def test_too_few(table):
    with pytest.raises(ValueError, match='of 0 others'):
        anomaly_scores(table[[0, 4, 5]])
    with pytest.raises(ValueError, match='n must be 1 or more'):
        anomaly_scores(table, k=0)


def test_figure(table):
    pytest.importorskip('matplotlib')

    class Pictures(list):
        def rgb(self, i):
            return np.full((4, 4, 3), 10 * i, np.uint8)

    found = similar(table, [0, 2, 1], n=3)
    figure = plot_neighbours(Pictures(range(6)), found, n_queries=2)
    shown = [axis.get_images()[0].get_array()[0, 0, 0] // 10
             for axis in figure.axes if axis.get_images()]
    assert shown == [0, 2, 1, 3, 2, 0, 1, 3]
    assert [axis.get_title() for axis in figure.axes][:3] == [
        'row 0', '0.707', '0.000']
    images = np.random.default_rng(0).normal(size=(6, 3, 16, 16))
    assert len(plot_neighbours(images, found).axes) == 12
