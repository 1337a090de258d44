# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Probes: classifiers of frozen vectors.

Each is a function ``probe(train, labels, test, *, n_classes, seed)`` of (n, d)
vectors and (n,) int64 labels that returns the (m,) labels of the others.
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from astrodino_seg.errors import require

__all__ = ['PROTOCOLS', 'fit', 'knn', 'linear', 'make_mlp', 'mlp']


def knn(train, labels, test, *, n_classes=None, seed=0, k=20,
        temperature=0.07):
    """
    Weighted nearest neighbours, as DINO is measured.

    The ``k`` training vectors of the largest cosine similarity s vote with
    the weight exp(s / temperature) (Wu et al. 2018, arXiv:1805.01978, section
    3.4; Caron et al. 2021, arXiv:2104.14294).

    Parameters
    ----------
    train, labels, test, n_classes, seed
        As of all probes; the last two are ignored.
    k : int, optional
        Neighbours; all if there are fewer.
    temperature : float, optional
        Of the votes.

    Returns
    -------
    predicted : int64 `~numpy.ndarray`
        (m,) labels.
    """
    neighbors = require('sklearn.neighbors', 'probe')
    model = neighbors.KNeighborsClassifier(
        min(k, len(train)), metric='cosine', algorithm='brute',
        weights=lambda distance: np.exp((1 - distance) / temperature))
    return model.fit(train, labels).predict(test)


def linear(train, labels, test, *, n_classes=None, seed=0, strength=0.1):
    """
    Logistic regression of standardised vectors.

    Parameters
    ----------
    train, labels, test, n_classes, seed
        As of all probes; the last two are ignored: there is one optimum.
    strength : float, optional
        Inverse of the L2 penalty, scikit-learn's ``C``.

    Returns
    -------
    predicted : int64 `~numpy.ndarray`
        (m,) labels.
    """
    pipeline = require('sklearn.pipeline', 'probe')
    preprocessing = require('sklearn.preprocessing', 'probe')
    models = require('sklearn.linear_model', 'probe')
    model = pipeline.make_pipeline(
        preprocessing.StandardScaler(),
        models.LogisticRegression(C=strength, max_iter=5000))
    return model.fit(train, labels).predict(test)


def mlp(train, labels, test, *, n_classes, seed=0, hidden=256, n_epochs=30,
        batch_size=64, rate=1e-3):
    """
    A network of one hidden layer of ReLU units, by Adam.

    Parameters
    ----------
    train, labels, test, n_classes, seed
        As of all probes.
    hidden : int, optional
        Units.
    n_epochs, batch_size : int, optional
        Passes through the sample, and vectors a step; the last step of an
        epoch has what remains.
    rate : float, optional
        Of Adam.

    Returns
    -------
    predicted : int64 `~numpy.ndarray`
        (m,) labels.
    """
    x = torch.as_tensor(np.asarray(train, np.float32))
    y = torch.as_tensor(np.asarray(labels, np.int64))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = make_mlp(x.shape[1], n_classes, hidden=hidden)
        epochs = (((x[rows], y[rows]) for rows in
                   torch.randperm(len(x)).split(batch_size))
                  for _ in range(n_epochs))
        fit(network, epochs, rate=rate)
    with torch.inference_mode():
        scores = network(torch.as_tensor(np.asarray(test, np.float32)))
    return scores.argmax(dim=1).numpy()


def make_mlp(dim, n_classes, *, hidden=256):
    """
    The network of `mlp`.

    Parameters
    ----------
    dim, n_classes, hidden : int
        Inputs, outputs and hidden units.

    Returns
    -------
    network : `~torch.nn.Sequential`
        With random weights.
    """
    return nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(),
                         nn.Linear(hidden, n_classes))


def fit(network, epochs, *, rate):
    """
    Train a network by cross-entropy.

    Parameters
    ----------
    network : `~torch.nn.Module`
        From inputs to logits; changed in place.
    epochs : iterable of iterables
        Inputs and labels of each step of each epoch.
    rate : float
        Of Adam (Kingma & Ba 2015).

    Returns
    -------
    network : `~torch.nn.Module`
        In evaluation mode.
    """
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    network.train()
    for batches in epochs:
        for x, y in batches:
            loss = F.cross_entropy(network(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return network.eval()


#: The probes by name.
PROTOCOLS = {'mlp': mlp, 'knn': knn, 'linear': linear}
