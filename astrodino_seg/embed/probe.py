# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What a backbone has learned: classes told from frozen embeddings.

Most of it needs scikit-learn (extra ``probe``).
"""

from dataclasses import dataclass

import numpy as np
from astropy.table import Table
from scipy.stats import bootstrap

from astrodino_seg.embed.classifiers import (
    PROTOCOLS,
    encode_labels,
    labelled_splits,
    seed_splits,
)
from astrodino_seg.embed.embedding import embed
from astrodino_seg.embed.vectors import vectors_of
from astrodino_seg.errors import require

#: The numbers of the AstroDINO study; Adam's rate is its default.
STUDY = {'what': 'cls', 'size': 224, 'test_fraction': 0.2, 'hidden': 256,
         'n_epochs': 30, 'batch_size': 64, 'rate': 1e-3}


def mean_interval(values, level=0.95, *, groups=None, n_draws=1000, seed=0):
    """
    Confidence interval of a mean, by bootstraps (Efron 1979, Ann. Statist.
    7, 1).

    Of the difference of the `ProbeResult.shares` of two probes with the same
    splits, it is a paired test of the two, in which what makes items hard
    for both cancels.

    Takes ``values`` (n,) float, ``groups`` (n,).
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

    def interval(self, **options):
        """
        The `mean_interval` of the accuracy.

        What is drawn is `shares`: folds that share their training sets are
        not independent, items are.
        """
        return mean_interval(self.shares, **options)

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
        A table of ``class``; ``n``, in the sample; ``recall``, the share of it
        that is called so; ``precision``, the share of what is called so that
        is right; ``f1``, their harmonic mean. NaN for none of none.
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


def evaluate(vectors, labels, *, protocol='mlp', splits=None, classes=None,
             seed=0, **options):
    """
    Train a probe on one part of a sample and test it on the other.

    The defaults are the study's: see `STUDY`.

    Parameters
    ----------
    vectors : array_like or `~astropy.table.Table`
        (n, d), or a table with a column ``embedding``.
    labels : array_like
        (n,) names or numbers of classes; see `encode_labels`.
    protocol : {'mlp', 'knn', 'linear'}, optional
        The probe.
    splits : sequence of tuple, optional
        Indices of train and test, as of `seed_splits` and `fold_splits`;
        five random ones of 80% and 20% if `None`.
    classes : sequence of str, optional
        The classes.
    seed : int, optional
        The k-th split is trained with this seed plus k.
    **options
        Of the probe: `mlp`, `knn` or `linear`.

    Returns
    -------
    result : `ProbeResult`
        What was predicted.

    Raises
    ------
    ValueError
        If rows have no vector, labels are outside the classes, or splits do
        not fit.
    ImportError
        If the probe needs scikit-learn and that cannot be imported.
    """
    if protocol not in PROTOCOLS:
        msg = f'protocol must be one of {list(PROTOCOLS)}, got {protocol!r}'
        raise ValueError(msg)
    vectors, good = vectors_of(vectors)
    if not good.all():
        msg = (f'vectors: {(~good).sum()} of {len(good)} rows have none, the '
               f'first is {np.flatnonzero(~good)[0]}; leave them out')
        raise ValueError(msg)
    truth, classes, splits = labelled_splits(labels, len(vectors), 'vectors',
                                             classes, splits, seed)
    predictions = [np.asarray(PROTOCOLS[protocol](
        vectors[train], truth[train], vectors[test],
        n_classes=len(classes), seed=seed + k, **options))
        for k, (train, test) in enumerate(splits)]
    return ProbeResult(protocol, classes, truth, splits, predictions)


def run_study(images, labels, backbone=None, *, classes=None, n_seeds=5,
              seed=0, **options):
    """
    Classify images as the study does: `embed` with its size, and `evaluate`
    with ``n_seeds`` splits, each trained with a seed of its own.

    ``options`` are of `embed`. Gives a `ProbeResult`, and the (n, d) vectors.
    """
    encode_labels(labels, classes)      # a bad label is told first
    vectors = embed(images, backbone, what=STUDY['what'], size=STUDY['size'],
                    **options)
    splits = seed_splits(len(vectors), n_seeds=n_seeds, seed=seed,
                         test_fraction=STUDY['test_fraction'])
    network = {key: STUDY[key] for key in
               ('hidden', 'n_epochs', 'batch_size', 'rate')}
    result = evaluate(vectors, labels, protocol='mlp', splits=splits,
                      classes=classes, seed=seed, **network)
    return result, vectors


def tsne(vectors, *, perplexity=30.0, seed=0):
    """
    Place vectors in a plane (van der Maaten & Hinton 2008, JMLR 9, 2579).

    ``vectors`` (n, d) -> ``points`` (n, 2) float32.
    """
    vectors, good = vectors_of(vectors)
    if len(vectors) < 4 or not good.all():
        msg = (f'vectors: t-SNE needs 4 rows or more that all have one, got '
               f'{good.sum()} of {len(good)}')
        raise ValueError(msg)
    manifold = require('sklearn.manifold', 'probe')
    return manifold.TSNE(
        perplexity=min(perplexity, (len(vectors) - 1) / 3), init='pca',
        random_state=seed).fit_transform(vectors)
