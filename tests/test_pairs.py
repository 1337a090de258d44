# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the pairs module.
"""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy.ndimage import map_coordinates, uniform_filter

from astrodino_seg import pairs
from astrodino_seg.heads import GroupingHead, Seeds
from astrodino_seg.image import as_image
from astrodino_seg.inference import predict
from astrodino_seg.model import Model
from astrodino_seg.pairs import (
    PairScore,
    n_features,
    pair_features,
    seed_looks,
    valleys,
)
from astrodino_seg.preprocess import normalise

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
    monkeypatch.setattr(pairs, 'CHUNK', 3)
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


# --------------------------------------------------------------- features

N, D = 9, 5


def head(n_descriptor=D):
    torch.manual_seed(0)
    return GroupingHead(in_channels=5, token_dim=8, widths=(4, 4, 4, 4, 4),
                        n_descriptor=n_descriptor)


def case(seed=0, n_descriptor=D):
    """Random seeds, and all else that is asked of N of them."""
    rng = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=rng)

    x, y = points(N, seed)
    a, b = normal(2, N)
    matrix = torch.stack([a.exp(), 0.1 * b, (-a).exp()], dim=-1) / 50
    seeds = Seeds(normal(N, 13), torch.stack([x, y], -1) + normal(N, 2),
                  1.5 + normal(N), matrix, normal(N, 2).abs(), normal(N, 3),
                  normal(N, n_descriptor))
    i, j = every_pair(N)
    vote = normal(2, N)
    return {'seeds': seeds, 'claims': (4 * normal(len(i)),
                                       4 * normal(len(i))),
            'looks': normal(N, 16), 'lines': normal(len(i), 3),
            'heat': torch.rand(N, generator=rng), 'i': i, 'j': j,
            'x': x + vote[0], 'y': y + vote[1]}


def numpy_features(seeds, claims, looks, lines, heat, i, j, x, y):
    """One pair after the other, by NumPy."""
    s = Seeds(*(part.double().numpy() for part in seeds))
    p = np.exp(s.classes) / np.exp(s.classes).sum(axis=1, keepdims=True)
    heat, looks = heat.double().numpy(), looks.double().numpy()
    at = torch.stack([x, y], dim=-1).double().numpy()
    out = []
    for k, (a, b) in enumerate(zip(i.tolist(), j.tolist())):
        far = []
        for one, two in ((a, b), (b, a)):
            d = at[two] - s.centre[one]
            xx, xy, yy = s.matrix[one]
            q = d @ [[xx, xy], [xy, yy]] @ d
            far.append(np.log(1 + min(q, 1e4)) / 4)
        claim = [np.tanh(float(c[k]) / 4) for c in claims]
        out.append(np.concatenate([
            abs(s.descriptor[a] - s.descriptor[b]),
            s.descriptor[a] * s.descriptor[b],
            sorted(far), sorted(claim),
            [abs(s.log_size[a] - s.log_size[b]),
             np.log(1 + np.hypot(*(s.centre[a] - s.centre[b]))),
             p[a] @ p[b]],
            sorted([p[a, 0], p[b, 0]]), sorted([heat[a], heat[b]]),
            abs(looks[a] - looks[b]), looks[a] + looks[b],
            lines[k].double().numpy()]))
    return np.array(out)


@pytest.mark.parametrize('seed', range(3))
def test_pair_features(seed):
    known = case(seed)
    assert_allclose(pair_features(head(), **known), numpy_features(**known),
                    rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('n_descriptor', [1, 5, 24])
def test_n_features(n_descriptor):
    found = pair_features(head(n_descriptor),
                          **case(n_descriptor=n_descriptor))
    assert found.shape == (36, n_features(n_descriptor, 5))
    assert found.dtype == torch.float32
    assert len(np.unique(found[0])) > 40


@pytest.mark.parametrize('seed', range(3))
def test_features_are_symmetric(seed):
    known = case(seed)
    swapped = known | {'i': known['j'], 'j': known['i'],
                       'claims': known['claims'][::-1]}
    assert_allclose(pair_features(head(), **swapped),
                    pair_features(head(), **known), rtol=1e-6)
    # a claim is one seed's on the other
    other = known | {'claims': (known['claims'][0], known['claims'][0])}
    assert not torch.equal(pair_features(head(), **other),
                           pair_features(head(), **known))


def test_features_of_no_pairs():
    known, none = case(), torch.zeros(0, dtype=torch.long)
    known |= {'i': none, 'j': none, 'lines': torch.zeros(0, 3),
              'claims': (torch.zeros(0), torch.zeros(0))}
    assert pair_features(head(), **known).shape == (0, n_features(D, 5))


# ------------------------------------------------------------------ score

def test_score_by_hand():
    """One path through the layers: of the second feature, standardised."""
    score = PairScore(3)
    with torch.no_grad():
        for param in score.parameters():
            param.zero_()
        score.mean.copy_(torch.tensor([9.0, 2.0, -5.0]))
        score.scale.copy_(torch.tensor([7.0, 4.0, 0.1]))
        score.net[0].weight[0, 1] = 1.0
        score.net[2].weight[0, 0] = 3.0
        score.net[4].weight[0, 0] = 2.0
        score.net[4].bias[0] = -1.0
        logits = score(torch.tensor([[0.0, 2.0, 0.0], [1.0, 12.0, 3.0],
                                     [0.0, -6.0, 0.0]]))
    # (12 - 2) / 4 = 2.5, times 3 times 2 less 1; below the mean is cut off
    assert_allclose(logits, [-1, 14, -1])


def test_score_standardises():
    """Shifted and stretched features, with a mean and scale to match."""
    torch.manual_seed(0)
    score, features = PairScore(6), torch.randn(10, 6)
    with torch.no_grad():
        before = score(features)           # mean 0 and scale 1 in a new one
        assert before.shape == (10,)
        assert before.std() > 0
        score.mean.copy_(torch.arange(6.0))
        score.scale.copy_(torch.arange(6.0) + 0.5)
        after = score(features * score.scale + score.mean)
    assert_allclose(after, before, atol=1e-5)


def test_score_of_no_pairs():
    assert PairScore(4)(torch.zeros(0, 4)).shape == (0,)


def test_score_state():
    """The standardisation is saved with the weights, but is not trained."""
    score = PairScore(4)
    assert {'mean', 'scale'} < set(score.state_dict())
    assert len(list(score.parameters())) == 6
    assert_array_equal(score.mean, np.zeros(4))
    assert_array_equal(score.scale, np.ones(4))


@pytest.mark.parametrize('n_slots', [1, 5])
def test_other_numbers_of_slots(n_slots):
    model = Model(vit={'dim': 48, 'depth': 1, 'n_heads': 3},
                  head={'widths': (4, 8, 8, 8, 8)},
                  preprocess={'n_slots': n_slots}).eval()
    rng = np.random.default_rng(2)
    image = as_image(rng.normal(size=(3, 64, 64)))
    found = predict(model, normalise(image, model.preprocess).channels,
                    min_heat=0.0)
    assert len(found.same) == len(found.pairs) > 0
