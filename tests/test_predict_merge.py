# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests of what the image shows at seeds and between them.
"""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.ndimage import map_coordinates, uniform_filter

from astrodino_seg.predict import merge
from astrodino_seg.predict.merge import seed_looks, valleys

SHAPE = 60, 80
SCALES = 3, 5, 9, 17


def channels(seed=0, shape=SHAPE):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(5, *shape, generator=rng)


def points(n, seed=0, margin=0):
    """Positions in the image, n of each of x and y."""
    rng = np.random.default_rng(seed)
    ny, nx = SHAPE
    return (torch.from_numpy(rng.uniform(margin, nx - 1 - margin, n)).float(),
            torch.from_numpy(rng.uniform(margin, ny - 1 - margin, n)).float())


# ------------------------------------------------------------------ looks

def looks_by_loops(image, x, y):
    """Means over squares whose far pixels are those at the edge."""
    _, ny, nx = image.shape
    out = []
    for xc, yc in zip(np.round(x).astype(int), np.round(y).astype(int)):
        means = []
        for side in SCALES:
            reach = range(-(side // 2), side // 2 + 1)
            values = [[image[c, min(max(yc + dy, 0), ny - 1),
                             min(max(xc + dx, 0), nx - 1)]
                       for dy in reach for dx in reach] for c in range(4)]
            means.append(np.mean(values, axis=1))
        out.append(np.concatenate([means[0], *np.diff(means, axis=0)]))
    return np.array(out)


def test_seed_looks():
    """Seeds anywhere, also in the corners, and beside pixels' centres."""
    image = channels()
    x, y = points(12)
    x = torch.cat([x, torch.tensor([0.0, 79.0, 79.0, 0.4, 40.5])])
    y = torch.cat([y, torch.tensor([0.0, 59.0, 0.3, 59.0, 30.5])])
    looks = seed_looks(image, x, y)
    assert looks.shape == (17, 16)
    wanted = looks_by_loops(image.double().numpy(), x.numpy(), y.numpy())
    assert_allclose(looks, wanted, atol=1e-5)


def test_seed_looks_of_a_small_image():
    """An image smaller than the largest square."""
    image = channels(shape=(3, 7))
    x, y = torch.tensor([0.0, 6.0]), torch.tensor([2.0, 1.0])
    wanted = looks_by_loops(image.double().numpy(), x.numpy(), y.numpy())
    assert_allclose(seed_looks(image, x, y), wanted, atol=1e-5)


def test_seed_looks_of_flat_channels():
    """Each channel's value, and nothing more at the other scales."""
    image = torch.arange(5.0)[:, None, None].expand(5, *SHAPE) + 1
    looks = seed_looks(image, *points(6))
    assert_allclose(looks[:, :4], np.tile([1, 2, 3, 4], (6, 1)), rtol=1e-6)
    assert_allclose(looks[:, 4:], 0, atol=1e-6)


@pytest.mark.parametrize('n', [1, 3, 7])
def test_looks_in_chunks(monkeypatch, n):
    image, (x, y) = channels(), points(n)
    whole = seed_looks(image, x, y)
    monkeypatch.setattr(merge, 'CHUNK', 3)
    assert_allclose(seed_looks(image, x, y), whole, atol=1e-6)


def test_looks_of_no_seeds():
    assert seed_looks(channels(), *points(0)).shape == (0, 16)


# ---------------------------------------------------------------- valleys

def every_pair(n):
    i, j = np.triu_indices(n, 1)
    return torch.from_numpy(i), torch.from_numpy(j)


def test_valleys():
    """Linear interpolation of the mean of 3 by 3 pixels."""
    image, (x, y) = channels(), points(12, margin=3)
    i, j = every_pair(12)
    found = valleys(image, x, y, i, j)
    assert found.shape == (66, 3)
    smooth = uniform_filter(image[0].double().numpy(), 3)
    xy = torch.stack([x, y], dim=-1).double().numpy()
    for (a, b), one in zip(zip(i, j), found):
        t = np.linspace(0, 1, 17)[:, None]
        line = map_coordinates(smooth, ((1 - t) * xy[a] + t * xy[b]).T[::-1],
                               order=1)
        low, high = sorted(line[[0, -1]])
        assert_allclose(one, [line.min() - low, line.mean() - low,
                              high - low], atol=1e-4)


def test_valleys_at_the_edge():
    """Outside the image there is nothing, not zeros."""
    image = torch.full((5, *SHAPE), 7.0)
    x, y = torch.tensor([0.0, 79.0, 0.0]), torch.tensor([0.0, 59.0, 59.0])
    assert_allclose(valleys(image, x, y, *every_pair(3)), 0, atol=1e-5)


def test_valleys_are_symmetric():
    image, (x, y) = channels(), points(12)
    i, j = every_pair(12)
    one, two = valleys(image, x, y, i, j), valleys(image, x, y, j, i)
    assert_allclose(one, two, atol=1e-4)
    assert (one[:, 0] <= 0).all()
    assert (one[:, 2] >= 0).all()
    # of a seed and itself
    assert_allclose(valleys(image, x, y, i, i), 0, atol=1e-4)


def blobs(*centres):
    y, x = np.mgrid[:SHAPE[0], :SHAPE[1]]
    light = sum(np.exp(-((x - a)**2 + (y - b)**2) / 18) for a, b in centres)
    return torch.from_numpy(np.stack([5 * light] * 5)).float()


def test_valleys_of_blobs():
    """Deep between two objects; none from the middle of one outwards."""
    x, y = torch.tensor([20.0, 45.0]), torch.tensor([25.0, 32.0])
    pair = torch.tensor([0]), torch.tensor([1])
    two = valleys(blobs((20, 25), (45, 32)), x, y, *pair)[0]
    assert two[0] < -4
    assert two[1] < 0
    assert_allclose(two[2], 0, atol=0.01)
    one = valleys(blobs((20, 25)), x, y, *pair)[0]
    assert_allclose(one[0], 0, atol=1e-6)
    assert one[1] > 0.5
    assert one[2] > 4
    # the brighter object does not hide the valley
    apart = valleys(3 * blobs((20, 25)) + blobs((45, 32)), x, y, *pair)[0]
    assert apart[0] < -4
    assert apart[2] > 8


def test_valleys_of_no_pairs():
    none = torch.zeros(0, dtype=torch.long)
    assert valleys(channels(), *points(4), none, none).shape == (0, 3)
    assert valleys(channels(), *points(0), none, none).shape == (0, 3)
