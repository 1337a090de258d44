# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Classifiers of frozen vectors: functions of (n, d) vectors and (n,) int64
labels that return the (m,) labels of others; splits of a sample, and what
comes out.
"""

from dataclasses import dataclass

import numpy as np
import torch
from astropy.table import Table
from scipy.stats import bootstrap
from torch import nn
from torch.nn import functional as F

from astrodino_seg.datasets import random_split
from astrodino_seg.errors import require


def knn(train, labels, test, *, n_classes=None, seed=0, k=20,
        temperature=0.07):
    """
    Weighted nearest neighbours, as DINO is measured: the ``k`` of the largest
    cosine similarity s vote with exp(s / temperature) (Wu et al. 2018,
    arXiv:1805.01978, section 3.4).
    """
    neighbors = require('sklearn.neighbors', 'probe')
    model = neighbors.KNeighborsClassifier(
        min(k, len(train)), metric='cosine', algorithm='brute',
        weights=lambda distance: np.exp((1 - distance) / temperature))
    return model.fit(train, labels).predict(test)


def linear(train, labels, test, *, n_classes=None, seed=0, strength=0.1):
    """
    Logistic regression of standardised vectors; ``strength`` is the inverse of
    the L2 penalty.
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
    """A network of one hidden layer of ReLU units, by Adam."""
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
    """The network of `mlp`, with random weights."""
    return nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(),
                         nn.Linear(hidden, n_classes))


def fit(network, epochs, *, rate, loss=None, n_cosine=None):
    """
    Train by Adam on the inputs and labels of steps; with ``n_cosine`` epochs
    the rate goes down to 0 along a cosine.
    """
    loss = loss or F.cross_entropy
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    schedule = n_cosine and torch.optim.lr_scheduler.CosineAnnealingLR(
        optimizer, n_cosine)
    network.train()
    for batches in epochs:
        for x, y in batches:
            optimizer.zero_grad()
            loss(network(x), y).backward()
            optimizer.step()
        if schedule:
            schedule.step()
    return network.eval()


#: The classifiers by name.
PROTOCOLS = {'mlp': mlp, 'knn': knn, 'linear': linear}


def encode_labels(labels, classes=None):
    """
    The position (n,) int64 of the class of each label, and the names of the
    classes, which are those of the labels, sorted, if they are `None`.
    """
    labels = np.ma.asarray(labels)
    if labels.ndim != 1 or not labels.size:
        msg = f'labels must have the shape (n,), got {labels.shape}'
        raise ValueError(msg)
    if np.ma.is_masked(labels):
        msg = (f'labels: {np.ma.getmaskarray(labels).sum()} of {len(labels)} '
               f'are missing')
        raise ValueError(msg)
    labels = np.asarray(labels.data)
    if labels.dtype.kind not in 'iubUS':
        msg = f'labels must be int or str, got dtype {labels.dtype}'
        raise ValueError(msg)
    if labels.dtype.kind == 'S':
        labels = np.char.decode(labels)
    if classes is None:
        names, y = np.unique(labels, return_inverse=True)
        classes = tuple(str(name) for name in names)
    else:
        classes = tuple(classes)
        known = (classes if labels.dtype.kind == 'U'
                 else range(len(classes)))
        position = {name: k for k, name in enumerate(known)}
        y = np.array([position.get(one, -1) for one in labels.tolist()])
        outside = np.unique(labels[y < 0]).tolist()
        if outside:
            msg = (f'labels: {(y < 0).sum()} of {len(y)} are none of the '
                   f'{len(classes)} classes {list(known)}: {outside[:10]}')
            raise ValueError(msg)
    if len(classes) < 2:
        msg = f'labels must be of two classes or more, got {classes}'
        raise ValueError(msg)
    return y.astype(np.int64), classes


def seed_splits(n, *, n_seeds=5, test_fraction=0.2, seed=0):
    """Random splits, one a seed."""
    return [random_split(n, test_fraction=test_fraction, seed=seed + k)
            for k in range(n_seeds)]


def fold_splits(labels, *, n_folds=5, n_repeats=10, seed=0):
    """Repeated stratified folds of (n,) labels, for few images."""
    names, counts = np.unique(labels, return_counts=True)
    few = names[counts < n_folds]
    if len(few):
        msg = (f'n_folds={n_folds} is more than the members of '
               f'{len(few)} classes, as {few[0]!s} with '
               f'{counts[counts < n_folds][0]}')
        raise ValueError(msg)
    selection = require('sklearn.model_selection', 'probe')
    folds = selection.RepeatedStratifiedKFold(
        n_splits=n_folds, n_repeats=n_repeats, random_state=seed)
    return list(folds.split(np.zeros((len(labels), 1)), labels))


def labelled_splits(labels, n, what, classes, splits, seed):
    """Classes (n,) of ``what`` there are n of, their names, and splits."""
    truth, classes = encode_labels(labels, classes)
    if len(truth) != n:
        msg = f'there are {len(truth)} labels and {n} {what}'
        raise ValueError(msg)
    return truth, classes, check_splits(
        seed_splits(n, seed=seed) if splits is None else splits, n)


def check_splits(splits, n):
    """The splits of a sample as arrays, unless they do not fit it."""
    splits = [tuple(np.asarray(part) for part in split) for split in splits]
    if not splits:
        msg = 'splits are empty'
        raise ValueError(msg)
    for k, (train, test) in enumerate(splits):
        both = np.concatenate([train, test])
        if not (len(train) and len(test)):
            msg = f'splits[{k}]: train has {len(train)}, test {len(test)}'
            raise ValueError(msg)
        if both.min() < 0 or both.max() >= n:
            msg = f'splits[{k}]: indices must be in [0, {n})'
            raise ValueError(msg)
        if np.intersect1d(train, test).size:
            msg = (f'splits[{k}]: train and test share '
                   f'{np.intersect1d(train, test).size} items')
            raise ValueError(msg)
    return splits


def mean_interval(values, level=0.95, *, groups=None, n_draws=1000, seed=0):
    """
    Confidence interval of the mean of (n,) values, by bootstraps of their (n,)
    groups. Of the difference of two probes' `ProbeResult.shares`, it is a
    paired test.
    """
    values = np.asarray(values, float)
    groups = np.arange(len(values)) if groups is None else np.asarray(groups)
    if groups.shape != values.shape:
        msg = f'groups has shape {groups.shape}, values {values.shape}'
        raise ValueError(msg)
    good = np.isfinite(values)
    if not good.any():
        msg = 'values has no finite number'
        raise ValueError(msg)
    _, member = np.unique(groups[good], return_inverse=True)
    total, count = np.bincount(member, values[good]), np.bincount(member)
    if len(count) == 1:
        return 2 * (float(total[0] / count[0]),)
    found = bootstrap(
        (total, count), lambda t, n, axis: t.sum(axis) / n.sum(axis),
        n_resamples=n_draws, paired=True, vectorized=True, method='percentile',
        confidence_level=level, random_state=np.random.default_rng(seed))
    return tuple(map(float, found.confidence_interval))


def confusion_matrix(true, called, n):
    """(n, n) int64 counts; rows are true."""
    metrics = require('sklearn.metrics', 'probe')
    return metrics.confusion_matrix(true, called, labels=np.arange(n))


@dataclass(frozen=True, eq=False, repr=False)
class ProbeResult:
    """What was predicted in the test part of each split."""

    #: Of the probe.
    name: str
    #: The names of the classes.
    classes: tuple
    #: (n,) int64 classes of the sample.
    truth: np.ndarray
    #: Train and test of each split.
    splits: list
    #: (n_test,) int64 classes that were predicted in each split.
    predictions: list

    def __repr__(self):
        low, high = self.interval()
        train, test = self.splits[0]
        return (f'<ProbeResult {self.name}: top-1 {self.accuracy:.3f}, '
                f'{self.std:.3f} between {len(self.splits)} splits of '
                f'{len(train)} + {len(test)}, 95% of the sample in '
                f'{low:.3f} to {high:.3f}>')

    @property
    def accuracies(self):
        """Top-1 accuracy of each split."""
        return np.array([(self.truth[test] == predicted).mean() for
                         (_, test), predicted in
                         zip(self.splits, self.predictions)])

    @property
    def accuracy(self):
        """The mean of `accuracies`."""
        return self.accuracies.mean()

    @property
    def std(self):
        """Their standard deviation: of seeds and splits alone."""
        n = len(self.splits)
        return self.accuracies.std(ddof=1) if n > 1 else np.nan

    @property
    def shares(self):
        """(n,) share of right answers for each item; NaN if never tested."""
        right, times = np.zeros((2, len(self.truth)))
        for (_, test), predicted in zip(self.splits, self.predictions):
            right[test] += self.truth[test] == predicted
            times[test] += 1
        return np.divide(right, times, out=np.full_like(right, np.nan),
                         where=times > 0)

    def interval(self, level=0.95, **options):
        """
        The `mean_interval` of the accuracy. `shares` are drawn, as folds that
        share their training sets are not independent.
        """
        return mean_interval(self.shares, level, **options)

    @property
    def confusion(self):
        """(class, class) int64: rows are true; the sum of all splits."""
        true = [self.truth[test] for _, test in self.splits]
        return confusion_matrix(np.concatenate(true), np.concatenate(
            self.predictions), len(self.classes))

    def split_table(self):
        """A table: ``split``, ``n_train``, ``n_test``, ``accuracy``."""
        return Table({
            'split': np.arange(len(self.splits)),
            'n_train': [len(train) for train, _ in self.splits],
            'n_test': [len(test) for _, test in self.splits],
            'accuracy': self.accuracies})

    def class_table(self):
        """
        A table: ``class``, ``n``, ``recall``, ``precision``, ``f1``; NaN for
        none of none.
        """
        confusion = self.confusion
        right = np.diag(confusion).astype(float)
        true, called = confusion.sum(axis=1), confusion.sum(axis=0)
        with np.errstate(invalid='ignore'):
            return Table({
                'class': list(self.classes),
                'n': np.bincount(self.truth, minlength=len(self.classes)),
                'recall': right / true, 'precision': right / called,
                'f1': 2 * right / (true + called)})
