# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
How often a probe is right, with error bars.
"""

from dataclasses import dataclass

import numpy as np
from astropy.table import Table

from astrodino_seg.embed.probe.classifiers import PROTOCOLS
from astrodino_seg.embed.probe.splits import (
    check_splits,
    encode_labels,
    seed_splits,
)
from astrodino_seg.embed.vectors import vectors_of

__all__ = ['ProbeResult', 'evaluate', 'mean_interval']


def mean_interval(values, level=0.95, *, groups=None, n_draws=1000, seed=0):
    """
    Confidence interval of a mean, by bootstraps (Efron 1979, Ann. Statist.
    7, 1).

    Of the difference of the `ProbeResult.shares` of two probes with the same
    splits, it is a paired test of the two, in which what makes items hard
    for both cancels.

    Parameters
    ----------
    values : array_like
        (n,) float; NaN are left out.
    level : float, optional
        The probability.
    groups : array_like, optional
        (n,) numbers or names of groups of values that are not independent,
        and are therefore drawn together.
    n_draws : int, optional
        Bootstraps.
    seed : int, optional
        Their seed.

    Returns
    -------
    low, high : float
        The interval.

    Raises
    ------
    ValueError
        If there are no values, or ``groups`` has another length.
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
    rng = np.random.default_rng(seed)
    pick = rng.integers(len(count), size=(n_draws, len(count)))
    means = total[pick].sum(axis=1) / count[pick].sum(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


@dataclass(frozen=True, eq=False, repr=False)
class ProbeResult:
    """
    What was predicted in the test part of each split.

    Attributes
    ----------
    name : str
        Of the probe.
    classes : tuple of str
        The names of the classes.
    truth : `~numpy.ndarray`
        (n,) int64 classes of the sample.
    splits : list of tuple of `~numpy.ndarray`
        Train and test of each split.
    predictions : list of `~numpy.ndarray`
        (n_test,) int64 classes that were predicted in each split.
    """

    name: str
    classes: tuple
    truth: np.ndarray
    splits: list
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

    def interval(self, level=0.95, *, groups=None, n_draws=1000, seed=0):
        """
        Confidence interval of the accuracy, by bootstraps of the sample.

        What is drawn is `shares`: folds that share their training sets are
        not independent, items are.

        Parameters
        ----------
        level, groups, n_draws, seed
            See `mean_interval`.

        Returns
        -------
        low, high : float
            The interval.
        """
        return mean_interval(self.shares, level, groups=groups,
                             n_draws=n_draws, seed=seed)

    @property
    def confusion(self):
        """(class, class) int64: rows are true; the sum of all splits."""
        n = len(self.classes)
        where = np.concatenate([
            n * self.truth[test] + predicted for (_, test), predicted in
            zip(self.splits, self.predictions)])
        return np.bincount(where, minlength=n * n).reshape(n, n)

    def split_table(self):
        """
        The splits.

        Returns
        -------
        table : `~astropy.table.Table`
            ``split``, ``n_train``, ``n_test``, ``accuracy``.
        """
        return Table({
            'split': np.arange(len(self.splits)),
            'n_train': [len(train) for train, _ in self.splits],
            'n_test': [len(test) for _, test in self.splits],
            'accuracy': self.accuracies})

    def class_table(self):
        """
        The classes.

        Returns
        -------
        table : `~astropy.table.Table`
            ``class``; ``n``, in the sample; ``recall``, the share of it that
            is called so; ``precision``, the share of what is called so that
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
    truth, classes = encode_labels(labels, classes)
    if len(truth) != len(vectors):
        msg = f'there are {len(truth)} labels and {len(vectors)} vectors'
        raise ValueError(msg)
    splits = check_splits(seed_splits(len(truth), seed=seed)
                          if splits is None else splits, len(truth))
    predictions = [np.asarray(PROTOCOLS[protocol](
        vectors[train], truth[train], vectors[test],
        n_classes=len(classes), seed=seed + k, **options))
        for k, (train, test) in enumerate(splits)]
    return ProbeResult(protocol, classes, truth, splits, predictions)
