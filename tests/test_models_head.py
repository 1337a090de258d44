# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the heads module.
"""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.linalg import expm

from astrodino_seg.models.head import (
    STRIDES,
    InstanceHead,
    InstanceMaps,
    SeedClass,
    Seeds,
    sample,
)

WIDTHS = (6, 6, 8, 8)       # of the pyramid
FEW = settings(deadline=None, max_examples=25)


def make_head(seed=0, **kwargs):
    """A small head whose weights all matter."""
    torch.manual_seed(seed)
    head = InstanceHead(**{'in_channels': 3, 'token_dim': 8,
                           'widths': WIDTHS, 'n_embedding': 5,
                           'n_descriptor': 7, **kwargs})
    with torch.no_grad():
        for module in head.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 2)
                module.weight.normal_(1, 0.2)
                module.bias.normal_(0, 0.2)
    return head.eval().requires_grad_(False)


HEAD = make_head()


def pyramid(height=64, width=96, seed=1):
    rng = torch.Generator().manual_seed(seed)
    return [torch.randn(n, height // s, width // s, generator=rng)
            for n, s in zip(WIDTHS, STRIDES)]


def seeds_at(x, y, scale=1.0, **kwargs):
    levels = [scale * level for level in pyramid(**kwargs)]
    return HEAD.read_seeds(levels, torch.tensor(x), torch.tensor(y))


def some_seeds(n=6, scale=3.0):
    rng = np.random.default_rng(2)
    return seeds_at(rng.uniform(0, 95, n).astype('f4'),
                    rng.uniform(0, 63, n).astype('f4'), scale)


def matrix_of(seeds, k):
    xx, xy, yy = seeds.matrix[k].double().tolist()
    return np.array([[xx, xy], [xy, yy]])


# ------------------------------------------------------------- dense maps

def test_items_of_a_batch_are_apart():
    x, tokens = torch.randn(3, 3, 32, 32), torch.randn(3, 8, 2, 2)
    binned = torch.tensor([0, 1, 0])
    together = HEAD(x, tokens, binned)
    for k in range(3):
        alone = HEAD(x[k:k + 1], tokens[k:k + 1], binned[k:k + 1])
        assert_allclose(together.pixels[k], alone.pixels[0], atol=1e-4)
        assert_allclose(together.heat[k], alone.heat[0], atol=1e-4)


def test_pixels_where_they_are_needed():
    """Those that are read one by one are those of the whole map."""
    x, tokens = torch.randn(1, 3, 32, 48), torch.randn(1, 8, 2, 3)
    dense, sparse = (HEAD(x, tokens, torch.tensor([0]), dense=dense)
                     for dense in (True, False))
    assert_allclose(sparse.heat, dense.heat, atol=1e-5)
    assert sparse.pixels is None
    one = InstanceMaps(sparse.heat[0], None, None, sparse.cells[0])
    index = torch.randperm(32 * 48)
    y, x = index // 48, index % 48
    assert_allclose(HEAD.read_pixels(one, index), dense.pixels[0, y, x],
                    atol=1e-5)


def test_starts_without_seeds():
    """A new head has few seeds: the focal loss needs a low prior."""
    head = InstanceHead(in_channels=3, token_dim=8, widths=(8, 8, 8, 8))
    maps = head.eval()(torch.zeros(1, 3, 32, 32), torch.zeros(1, 8, 2, 2),
                       torch.zeros(1, dtype=torch.long))
    assert maps.heat.sigmoid().max() < 0.05


# ------------------------------------------------------------------ seeds

def test_seed_shapes():
    seeds = some_seeds(6)
    assert isinstance(seeds, Seeds)
    assert [tuple(part.shape) for part in seeds] == [
        (6, 6), (6, 2), (6,), (6, 3), (6, 2), (6, 3), (6, 7)]
    none = seeds_at(np.zeros(0, 'f4'), np.zeros(0, 'f4'))
    assert [len(part) for part in none] == [0] * 7


@pytest.mark.parametrize('stride', STRIDES)
def test_positions(stride):
    """
    Features that hold the position of their own centre are read back as the
    seed's position: cell i of stride s is centred on s (i + 1/2) - 1/2.
    """
    h, w = 64, 96
    rows, columns = np.mgrid[:h // stride, :w // stride]
    x = np.array([33.0, 47.5, 60.25, 20.0], 'f4')
    y = np.array([31.5, 20.0, 40.75, 44.0], 'f4')
    levels = [torch.zeros(n, h // s, w // s) for n, s in zip(WIDTHS, STRIDES)]
    k = STRIDES.index(stride)
    levels[k][0] = torch.from_numpy(stride * (columns + 0.5) - 0.5)
    levels[k][1] = torch.from_numpy(stride * (rows + 0.5) - 0.5)
    seen = []
    hook = HEAD.seed.register_forward_pre_hook(
        lambda module, args: seen.append(args[0]))
    HEAD.read_seeds(levels, torch.from_numpy(x), torch.from_numpy(y))
    hook.remove()
    read, = seen
    assert read.shape == (4, 4 * 48)
    for i, part in enumerate(read.split(48, dim=1)):
        weight = HEAD.read[i].weight[:, :, 0, 0].numpy()
        wanted = np.outer(x, weight[:, 0]) + np.outer(y, weight[:, 1])
        assert_allclose(part, HEAD.read[i].bias.numpy() + (i == k) * wanted,
                        rtol=1e-5, atol=1e-5)


def test_seed_of_heatmap():
    """Pixel (2c + 1/2) of the heatmap's cell c is that cell exactly."""
    levels = pyramid()
    column, row = 13, 9
    seen = []
    hook = HEAD.seed.register_forward_pre_hook(
        lambda module, args: seen.append(args[0]))
    HEAD.read_seeds(levels, torch.tensor([2 * column + 0.5]),
                    torch.tensor([2 * row + 0.5]))
    hook.remove()
    wanted = HEAD.read[0](levels[0][None])[0, :, row, column]
    assert_allclose(seen[0][0, :48], wanted, atol=1e-4)


def test_edge():
    """Positions on the rim are read without falling off."""
    x, y = np.array([0, 95], 'f4'), np.array([0, 63], 'f4')
    seeds = seeds_at(x, y)
    assert all(torch.isfinite(part).all() for part in seeds)


@pytest.mark.parametrize('scale', [0.1, 3.0, 50.0])
def test_ellipse(scale):
    """A positive definite matrix, whatever the features."""
    seeds = some_seeds(12, scale)
    for k in range(12):
        values = np.linalg.eigvalsh(matrix_of(seeds, k))
        assert values.min() > 0
        radius = np.exp(np.clip(float(seeds.log_size[k]), -1, 6))
        # of the area of a circle with the object's radius
        assert_allclose(np.prod(values), radius**-4, rtol=0.05)
    assert (seeds.falloff > 0).all()


def test_ellipse_is_matrix_exponential():
    """exp of [[a, b], [b, -a]], twice, over the radius squared."""
    outputs = torch.zeros(3, sum(HEAD.n_out))
    a, b = np.array([0.3, -1.2, 0.0]), np.array([0.5, 0.1, 1.0])
    start = HEAD.n_embedding + 1 + 2 + 1
    outputs[:, start] = torch.from_numpy(a)
    outputs[:, start + 1] = torch.from_numpy(b)
    outputs[:, start - 1] = torch.tensor([0.0, 0.5, -0.5])    # size
    outputs[:, start - 3:start - 1] = 0.25                    # shift
    hook = HEAD.seed_out.register_forward_hook(lambda *args: outputs)
    seeds = seeds_at(np.array([10, 20, 30], 'f4'),
                     np.array([5, 6, 7], 'f4'))
    hook.remove()
    radius = np.exp(1.5 + np.array([0, 0.5, -0.5]))
    for k in range(3):
        wanted = expm(2 * np.array([[a[k], b[k]], [b[k], -a[k]]]))
        assert_allclose(matrix_of(seeds, k), wanted / radius[k]**2,
                        rtol=1e-4, atol=1e-6)
    assert_allclose(seeds.log_size, np.log(radius), rtol=1e-6)
    assert_allclose(seeds.centre[:, 0], [10, 20, 30] + 0.25 * radius,
                    rtol=1e-6)
    assert_allclose(seeds.centre[:, 1], [5, 6, 7] + 0.25 * radius, rtol=1e-6)


def test_gradients_are_finite():
    """Also where the ellipse is a circle."""
    head = make_head().requires_grad_(True)
    levels = [torch.zeros(n, 64 // s, 64 // s)
              for n, s in zip(WIDTHS, STRIDES)]
    with torch.no_grad():
        head.seed_out.weight.zero_()
        head.seed_out.bias.zero_()
    seeds = head.read_seeds(levels, torch.tensor([9.0]), torch.tensor([9.0]))
    score = head.score(seeds, torch.zeros(5, 2), torch.tensor([9.0, 30]),
                       torch.tensor([9.0, 30]))
    score.sum().backward()
    grad = head.seed_out.bias.grad
    assert torch.isfinite(grad).all()
    assert grad.any()


# ---------------------------------------------------------------- classes

def make_seed_class(dim=6, **kwargs):
    torch.manual_seed(3)
    return SeedClass(dim, **kwargs).requires_grad_(False)


def plain_seed_class(module, hidden):
    """What `SeedClass` says, seed by seed in float64."""
    def linear(layer, x):
        return (layer.weight.double().numpy() @ x
                + layer.bias.double().numpy())

    first, _, last = module.out
    hidden = hidden.double().numpy()
    query = np.array([linear(module.query, h) for h in hidden])
    value = np.array([linear(module.value, h) for h in hidden])
    gathered = []
    for q in query.T:                      # one mean over the seeds each
        weight = np.exp(q - q.max())
        gathered.extend((weight[:, None] * value).sum(0) / weight.sum())
    return np.array([linear(last, np.maximum(
        linear(first, np.concatenate([h, gathered])), 0)) for h in hidden])


@pytest.mark.parametrize('n', [1, 2, 9])
def test_seed_class(n):
    module = make_seed_class(n_queries=2, n_gathered=5)
    hidden = 3 * torch.randn(n, 6)
    assert_allclose(module(hidden), plain_seed_class(module, hidden),
                    rtol=1e-4, atol=1e-5)


def test_seed_class_alone():
    """A single seed gathers itself; none is none."""
    module = make_seed_class()
    one = torch.randn(1, 6)
    gathered = module.value(one).repeat(1, 8)
    assert_allclose(module(one), module.out(torch.cat([one, gathered], 1)),
                    atol=1e-6)
    # company of its like says nothing new
    assert_allclose(module(one.repeat(4, 1)), module(one).repeat(4, 1),
                    atol=1e-5)
    assert module(one[:0]).shape == (0, 3)


@FEW
@given(st.permutations(range(7)))
def test_seed_class_permuted(order):
    """The seeds are a set: their order is their logits' only."""
    module = make_seed_class()
    hidden = 2 * torch.randn(7, 6, generator=torch.Generator().manual_seed(1))
    assert_allclose(module(hidden[list(order)]), module(hidden)[list(order)],
                    atol=1e-5)


def test_company():
    """Only the classes of a seed depend on the image's other seeds."""
    rng = np.random.default_rng(2)
    x, y = (rng.uniform(0, 60, 6).astype('f4') for _ in range(2))
    every, some = seeds_at(x, y, 3.0), seeds_at(x[:2], y[:2], 3.0)
    for name, part in some._asdict().items():
        if name == 'classes':
            assert (getattr(every, name)[:2] - part).abs().min() > 1e-4
        else:
            assert_allclose(getattr(every, name)[:2], part, rtol=1e-4,
                            atol=1e-5)
    order = [3, 1, 5, 0, 2, 4]
    swapped = seeds_at(x[order], y[order], 3.0)
    assert_allclose(swapped.classes, every.classes[order], atol=1e-5)


# ---------------------------------------------------------------- scoring

def plain_distance(seeds, k, x, y):
    d = np.array([x, y]) - seeds.centre[k].double().numpy()
    return d @ matrix_of(seeds, k) @ d


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_sample(dtype):
    """Bilinear, as torch's own, beyond the border too."""
    rng = torch.Generator().manual_seed(0)
    level = torch.randn(5, 7, 9, generator=rng).to(dtype)
    x = torch.rand(40, generator=rng) * 11 - 1.5
    y = torch.rand(40, generator=rng) * 9 - 1.5
    grid = torch.stack([(2 * x + 1) / 9 - 1, (2 * y + 1) / 7 - 1], dim=-1)
    wanted = torch.nn.functional.grid_sample(
        level[None].float(), grid[None, None], padding_mode='border',
        align_corners=False)[0, :, 0].T
    assert_allclose(sample(level, x, y), wanted, atol=1e-5)


def plain_score(seeds, k, embedding, x, y):
    kernel = seeds.kernel[k].double().numpy()
    q = min(plain_distance(seeds, k, x, y), 1e4)
    u, v = seeds.falloff[k].double().tolist()
    return (kernel[:-1] @ embedding + kernel[-1] - u * np.sqrt(q + 1e-4)
            - v * np.log(1 + q))


def test_distance_and_score():
    seeds = some_seeds(6)
    rng = np.random.default_rng(4)
    x, y = rng.uniform(-20, 300, (2, 9)).astype('f4')
    embedding = rng.normal(size=(5, 9)).astype('f4')
    args = [torch.from_numpy(a) for a in (embedding, x, y)]
    found = HEAD.score(seeds, *args)
    distance = HEAD.distance(seeds, *args[1:])
    wanted = [[plain_distance(seeds, k, *xy) for xy in zip(x, y)]
              for k in range(6)]
    assert_allclose(distance, wanted, rtol=1e-3)
    wanted = [[plain_score(seeds, k, embedding[:, p], x[p], y[p])
               for p in range(9)] for k in range(6)]
    assert_allclose(found, wanted, rtol=1e-3, atol=1e-3)


def test_score_of_votes():
    """
    A pixel's vote moves it for the distance alone: one that votes for a
    centre loses nothing by being far away, whatever it is like.
    """
    seeds = some_seeds(3)
    rng = np.random.default_rng(5)
    x, y = rng.uniform(-20, 300, (2, 3)).astype('f4')
    vote = seeds.centre.numpy() - np.stack([x, y], axis=-1)
    embedding = rng.normal(size=(5, 3)).astype('f4')
    found = HEAD.score(seeds, torch.from_numpy(embedding),
                       torch.from_numpy(x + vote[:, 0]),
                       torch.from_numpy(y + vote[:, 1])).numpy()
    kernel = seeds.kernel.numpy()
    loss = 0.01 * seeds.falloff[:, 0].numpy()      # u sqrt(1e-4)
    for k in range(3):
        assert_allclose(found[k, k], kernel[k, :-1] @ embedding[:, k]
                        + kernel[k, -1] - loss[k], rtol=1e-3, atol=1e-3)
        wanted = plain_score(seeds, 0, embedding[:, k], x[k] + vote[k, 0],
                             y[k] + vote[k, 1])
        assert_allclose(found[0, k], wanted, rtol=1e-3, atol=1e-3)


def test_score_of_own_pixels():
    """Positions of each seed's own give the diagonal."""
    seeds = some_seeds(6)
    rng = torch.Generator().manual_seed(0)
    x, y = 90 * torch.rand(2, 6, generator=rng)
    embedding = torch.randn(5, 6, generator=rng)
    every = HEAD.score(seeds, embedding, x, y)
    own = HEAD.score(seeds, embedding.T[:, :, None], x[:, None], y[:, None])
    assert own.shape == (6, 1)
    assert_allclose(own[:, 0], every.diagonal(), rtol=1e-5, atol=1e-5)


def test_score_falls():
    """Along a ray from the centre the score falls."""
    seeds = some_seeds(4)
    steps = torch.linspace(0, 200, 50)
    for k in range(4):
        x0, y0 = seeds.centre[k]
        score = HEAD.score(seeds, torch.zeros(5, 50), x0 + 0.6 * steps,
                           y0 - 0.8 * steps)[k]
        assert (score.diff() <= 1e-4).all()
        assert score[0] > score[-1]


@FEW
@given(st.integers(0, 10**6))
def test_pair_symmetric(seed):
    rng = torch.Generator().manual_seed(seed)
    x, y = 90 * torch.rand(2, 5, generator=rng)
    seeds = HEAD.read_seeds([2 * level for level in pyramid(seed=seed)], x,
                            y)
    i, j = torch.triu_indices(5, 5, 1)
    claims = torch.randn(2, len(i), generator=rng)
    one = HEAD.pair_logits(seeds, tuple(claims), i, j, x, y)
    other = HEAD.pair_logits(seeds, tuple(claims.flip(0)), j, i, x, y)
    assert one.shape == (10,)
    assert_allclose(one, other, atol=1e-5)
    # the pairs are scored one by one
    alone = HEAD.pair_logits(seeds, tuple(claims[:, 3:4]), i[3:4], j[3:4],
                             x, y)
    assert_allclose(alone, one[3:4], atol=1e-5)


def test_pair_features():
    """What a pair is judged by, from plain NumPy."""
    seeds = some_seeds(2)
    x, y = torch.tensor([10.0, 25.0]), torch.tensor([12.0, 40.0])
    claims = torch.tensor([1.5]), torch.tensor([-2.0])
    seen = []
    hook = HEAD.pair.register_forward_pre_hook(
        lambda module, args: seen.append(args[0]))
    HEAD.pair_logits(seeds, claims, torch.tensor([0]), torch.tensor([1]),
                     x, y)
    hook.remove()
    d = seeds.descriptor.numpy()
    far = sorted(np.log1p(min(plain_distance(seeds, a, float(x[b]),
                                             float(y[b])), 1e4)) / 4
                 for a, b in ((0, 1), (1, 0)))
    c = seeds.centre.numpy()
    wanted = [*np.abs(d[0] - d[1]), *(d[0] * d[1]), *far,
              *np.tanh([-2 / 4, 1.5 / 4]),
              abs(float(seeds.log_size[0] - seeds.log_size[1])),
              np.log1p(np.hypot(*(c[0] - c[1])))]
    assert_allclose(seen[0][0], wanted, rtol=1e-3, atol=1e-4)


def test_permuted():
    """The order of the seeds does not matter."""
    seeds = some_seeds(6)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    x, y = torch.arange(7.0), torch.arange(7.0)
    embedding = torch.ones(5, 7)
    swapped = Seeds(*(part[order] for part in seeds))
    assert_array_equal(HEAD.score(swapped, embedding, x, y),
                       HEAD.score(seeds, embedding, x, y)[order])
