# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests of the points on real galaxies that the decision is fitted to.
"""

import numpy as np
import pytest

from astrodino_seg import as_image
from benchmarks.model.points import is_held, read_piece, read_points, vary


def test_table():
    """Objects have names, large ones several points, and some are held."""
    pieces = read_points()
    n_held = sum(map(is_held, pieces))
    assert 0.15 * len(pieces) < n_held < 0.35 * len(pieces)
    for name, points in pieces.items():
        owner = points['owner']
        np.testing.assert_array_equal(owner, owner.astype(int))
        assert owner.min() >= 1, name
        for k in np.unique(owner):      # an object is large or it is not
            assert len(np.unique(points['large'][owner == k])) == 1, name


@pytest.mark.parametrize('variant', [0, 1])
@pytest.mark.parametrize('seed', range(8))
def test_vary(variant, seed):
    """Points stay where they were in the picture."""
    rng = np.random.default_rng(seed)
    cube = rng.normal(size=(1, 20, 31)).astype(np.float32)
    x, y = np.array([3, 30, 0]), np.array([5, 0, 19])
    points = {'x': x, 'y': y, 'radius': np.ones(3), 'owner': np.ones(3),
              'large': np.zeros(3)}
    out = vary(as_image({'r': cube[0]}), points, variant, rng)
    found = out.image.cube[0][out.truth.y.astype(int),
                              out.truth.x.astype(int)]
    np.testing.assert_array_equal(found, cube[0, y, x])


@pytest.mark.filterwarnings('ignore:areas without data')
def test_pieces(data_dir):
    """Each piece is there, and its points are on it."""
    for name, points in list(read_points().items())[::12]:
        ny, nx = read_piece(name, data_dir).shape
        assert points['x'].max() < nx, name
        assert points['y'].max() < ny, name
