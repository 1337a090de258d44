# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the module classifiers of the probe package.
"""

import sys

import numpy as np
import pytest
import torch
from embed_toys import blobs
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import minimize

from astrodino_seg.embed.classifiers import (
    PROTOCOLS,
    knn,
    linear,
    make_mlp,
    mlp,
)


def unit(*degrees):
    angle = np.deg2rad(degrees)
    return np.stack([np.cos(angle), np.sin(angle)], axis=-1)


# ---------------------------------------------------------------- k-NN

def test_votes_by_hand():
    pytest.importorskip('sklearn')
    train, labels = unit(10, 40, 45), np.array([1, 0, 0])
    # cosines with 0 degrees: 0.985, 0.766 and 0.707. At the temperature 0.07
    # their votes are exp of 14.07, 10.94 and 10.10: 1 wins by 1.3 million to
    # 81 thousand. At 1 they are 2.68, 2.15 and 2.03: 0 wins by 4.18 to 2.68.
    test = unit(0) * 5      # lengths do not matter
    assert knn(train, labels, test, k=3).tolist() == [1]
    assert knn(train, labels, test, k=3, temperature=1).tolist() == [0]
    # one neighbour only
    assert knn(train, labels, test, k=1, temperature=1).tolist() == [1]
    # as many as there are
    assert knn(train, labels, test, k=50, temperature=1).tolist() == [0]


def test_knn_as_defined():
    pytest.importorskip('sklearn')
    (train, labels), (test, _) = blobs(60, spread=3), blobs(40, seed=1)
    a = train / np.linalg.norm(train, axis=1, keepdims=True)
    b = test / np.linalg.norm(test, axis=1, keepdims=True)
    cosine = b @ a.T
    wanted = []
    for line in cosine:
        near = np.argsort(-line)[:20]
        votes = np.bincount(labels[near], np.exp(line[near] / 0.07), 3)
        wanted.append(votes.argmax())
    assert_array_equal(knn(train, labels, test), wanted)


# -------------------------------------------------------------- linear

def test_linear_is_the_optimum():
    pytest.importorskip('sklearn')
    x, y = blobs(80, n_classes=2, dim=3, spread=4)
    test = blobs(200, n_classes=2, dim=3, spread=4, seed=5)[0]
    mean, std = x.mean(axis=0), x.std(axis=0)

    def loss(parameters):
        *w, b = parameters
        margin = (2 * y - 1) * ((x - mean) / std @ w + b)
        return np.log1p(np.exp(-margin)).sum() + np.dot(w, w) / (2 * 0.1)

    best = minimize(loss, np.zeros(4)).x
    scores = (test - mean) / std @ best[:3] + best[3]
    clear = np.abs(scores) > 1e-2
    assert_array_equal(linear(x, y, test)[clear], scores[clear] > 0)
    assert 0 < (scores > 0).mean() < 1


def test_linear_has_no_scale():
    pytest.importorskip('sklearn')
    (x, y), (test, _) = blobs(60, spread=2), blobs(30, spread=2, seed=1)
    scale = np.geomspace(1e-3, 1e3, x.shape[1])
    assert_array_equal(linear(x, y, test),
                       linear(x * scale + 5, y, test * scale + 5))


# ----------------------------------------------------------------- MLP

@pytest.mark.parametrize(('dim', 'n_parameters'), [
    (384, 384 * 256 + 256 + 256 * 10 + 10), (1024, 264_970)])
def test_size_of_the_study(dim, n_parameters):
    network = make_mlp(dim, 10)
    assert sum(p.numel() for p in network.parameters()) == n_parameters
    assert [type(layer).__name__ for layer in network] == ['Linear', 'ReLU',
                                                           'Linear']


def test_steps_of_the_study(monkeypatch):
    # 130 vectors in batches of 64, 64 and 2, 30 times
    sizes, made = [], []
    entropy, adam = torch.nn.functional.cross_entropy, torch.optim.Adam

    def counted(scores, y):
        sizes.append(len(y))
        return entropy(scores, y)

    def make(parameters, **options):
        made.append(options)
        return adam(parameters, **options)

    monkeypatch.setattr(torch.nn.functional, 'cross_entropy', counted)
    monkeypatch.setattr(torch.optim, 'Adam', make)
    x, y = blobs(130)
    mlp(x, y, x, n_classes=3)
    assert sizes == 30 * [64, 64, 2]
    assert made == [{'lr': 1e-3}]


def test_mlp_learns():
    (x, y), (test, truth) = blobs(150), blobs(60)
    assert (mlp(x, y, test, n_classes=3) == truth).mean() > 0.95
    # not from labels that say nothing
    y = np.random.default_rng(0).permutation(y)
    assert (mlp(x, y, test, n_classes=3) == truth).mean() < 0.6


def test_mlp_learns_what_is_not_linear():
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (600, 2)).astype(np.float32)
    y = (x[:, 0] * x[:, 1] > 0).astype(int)
    found = mlp(x[:500], y[:500], x[500:], n_classes=2, rate=1e-2)
    assert (found == y[500:]).mean() > 0.9


def test_seeds():
    x, y = blobs(90, spread=3)
    torch.manual_seed(7)
    before = torch.get_rng_state()
    first = mlp(x, y, x, n_classes=3, n_epochs=2, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(8)
    assert_array_equal(mlp(x, y, x, n_classes=3, n_epochs=2, seed=1), first)
    assert not np.array_equal(mlp(x, y, x, n_classes=3, n_epochs=2, seed=2),
                              first)


def test_classes_that_are_missing():
    # of ten classes three are in the training set; the network has ten
    x, y = blobs(60)
    found = mlp(x, y, x, n_classes=10)
    assert set(found) <= set(range(10))
    assert_allclose((found == y).mean(), 1, atol=0.05)


@pytest.mark.parametrize('name', ['knn', 'linear'])
def test_without_scikit_learn(name, monkeypatch):
    for module in ('neighbors', 'linear_model'):
        monkeypatch.setitem(sys.modules, f'sklearn.{module}', None)
    x, y = blobs(9)
    with pytest.raises(ImportError, match=r'sklearn is needed .*\[probe\]'):
        PROTOCOLS[name](x, y, x)
