# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the module splits of the probe package.
"""

import sys

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from astrodino_seg.datasets.pictures import GALAXY10_CLASSES
from astrodino_seg.embed.classifiers import (
    check_splits,
    encode_labels,
    fold_splits,
    seed_splits,
)


def test_labels():
    y, classes = encode_labels(['star', 'galaxy', 'star'])
    assert classes == ('galaxy', 'star')
    assert y.tolist() == [1, 0, 1]
    assert y.dtype == np.int64
    for labels in (['cigar shaped smooth', 'merging'], np.array([4, 1]),
                   np.array([b'cigar shaped smooth', b'merging'])):
        y, classes = encode_labels(labels, GALAXY10_CLASSES)
        assert y.tolist() == [4, 1]
        assert classes == GALAXY10_CLASSES
    y, classes = encode_labels([7, 3, 7])
    assert (y.tolist(), classes) == ([1, 0, 1], ('3', '7'))


@pytest.mark.parametrize(('labels', 'classes', 'message'), [
    ([0, 10, 3, 10], GALAXY10_CLASSES,
     r'2 of 4 are none of the 10 classes .*: \[10\]'),
    (['merging', 'blob'], GALAXY10_CLASSES, r"1 of 2 .*: \['blob'\]"),
    ([0, -1], ('a', 'b'), r'1 of 2 .*: \[-1\]'),
    (np.ma.array([1, 0], mask=[False, True]), None, '1 of 2 are missing'),
    ([0.5, 1.0], None, 'labels must be int or str, got dtype float64'),
    ([], None, r'must have the shape \(n,\)'),
    (['a', 'a'], None, 'two classes or more')])
def test_bad_labels(labels, classes, message):
    with pytest.raises(ValueError, match=message):
        encode_labels(labels, classes)


def test_sizes_of_the_study():
    # 80% and 20% of the 17,736 images of Galaxy10 DECaLS
    splits = seed_splits(17736, n_seeds=3)
    for train, test in splits:
        assert (len(train), len(test)) == (14189, 3547)
        assert_array_equal(np.sort(np.concatenate([train, test])),
                           np.arange(17736))
    assert not np.array_equal(splits[0][1], splits[1][1])
    assert_array_equal(seed_splits(17736, n_seeds=1, seed=1)[0][1],
                       splits[1][1])


def test_folds():
    pytest.importorskip('sklearn')
    labels = np.repeat(['a', 'b', 'c'], [10, 5, 21])
    splits = fold_splits(labels, n_folds=5, n_repeats=3, seed=2)
    assert len(splits) == 15
    for repeat in range(3):
        tested = np.concatenate([test for _, test in
                                 splits[5 * repeat:5 * repeat + 5]])
        assert_array_equal(np.sort(tested), np.arange(36))
    for train, test in splits:
        assert not np.intersect1d(train, test).size
        # stratified: each fold has its share of each class
        assert (labels[test] == 'a').sum() == 2
        assert (labels[test] == 'b').sum() == 1
        assert (labels[test] == 'c').sum() in (4, 5)
    again = fold_splits(labels, n_folds=5, n_repeats=3, seed=2)
    assert all(np.array_equal(a[1], b[1]) for a, b in zip(splits, again))
    with pytest.raises(ValueError, match='n_folds=6 .* 1 classes, as b with'):
        fold_splits(labels, n_folds=6)


def test_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, 'sklearn.model_selection', None)
    with pytest.raises(ImportError, match=r'astrodino_seg\[probe\]'):
        fold_splits([0, 0, 1, 1], n_folds=2)


@pytest.mark.parametrize(('splits', 'message'), [
    ([], 'splits are empty'),
    ([([0], [])], r'splits\[0\]: train has 1, test 0'),
    ([([0], [1]), ([0, 1], [1])], r'splits\[1\]: train and test share 1'),
    ([([0], [4])], r'splits\[0\]: indices must be in \[0, 4\)')])
def test_bad_splits(splits, message):
    with pytest.raises(ValueError, match=message):
        check_splits(splits, 4)
