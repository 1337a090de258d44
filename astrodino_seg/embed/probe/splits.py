# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Labels as numbers, and splits of a sample into train and test.
"""

import numpy as np

from astrodino_seg.datasets import random_split
from astrodino_seg.errors import require

__all__ = ['check_splits', 'encode_labels', 'fold_splits', 'seed_splits']


def encode_labels(labels, classes=None):
    """
    Number the labels.

    Parameters
    ----------
    labels : array_like
        (n,) names of classes, or int.
    classes : sequence of str, optional
        The classes in their order. Labels are then their names, or their
        positions from 0. If `None`, the classes are the labels that there
        are, sorted.

    Returns
    -------
    y : int64 `~numpy.ndarray`
        (n,) position of the class of each.
    classes : tuple of str
        The names.

    Raises
    ------
    ValueError
        If there are no labels, fewer than two classes, or labels that are
        missing or outside the classes.
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
    """
    Random splits, one a seed.

    Parameters
    ----------
    n : int
        The size of the sample.
    n_seeds : int, optional
        How many splits.
    test_fraction : float, optional
        The share to test on.
    seed : int, optional
        The first seed.

    Returns
    -------
    splits : list of tuple of `~numpy.ndarray`
        Train and test of each; see `~astrodino_seg.datasets.random_split`.
    """
    return [random_split(n, test_fraction=test_fraction, seed=seed + k)
            for k in range(n_seeds)]


def fold_splits(labels, *, n_folds=5, n_repeats=10, seed=0):
    """
    Repeated stratified folds, for few images.

    In each repeat, every image is tested once, by what was learned from the
    other folds, and each fold has its share of each class.

    Parameters
    ----------
    labels : array_like
        (n,) labels.
    n_folds, n_repeats : int, optional
        How many.
    seed : int, optional
        Seed of the folds.

    Returns
    -------
    splits : list of tuple of `~numpy.ndarray`
        Train and test of each fold of each repeat.

    Raises
    ------
    ValueError
        If a class has fewer members than there are folds.
    ImportError
        If scikit-learn cannot be imported.
    """
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


def check_splits(splits, n):
    """
    Check splits of a sample.

    Parameters
    ----------
    splits : iterable of tuple of array_like
        Indices of train and test.
    n : int
        The size of the sample.

    Returns
    -------
    splits : list of tuple of `~numpy.ndarray`
        The same as arrays.

    Raises
    ------
    ValueError
        If there are none, a part is empty, an index is not in the sample, or
        train and test share items.
    """
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
