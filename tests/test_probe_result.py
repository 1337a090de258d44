# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the module result of the probe package, and the study's preset.
"""

import numpy as np
import pytest
from astropy.table import QTable
from embed_toys import blobs, make_backbone, make_images
from numpy.testing import assert_allclose, assert_array_equal

from astrodino_seg.embed import embed, evaluate
from astrodino_seg.embed.classifiers import (
    ProbeResult,
    mean_interval,
    seed_splits,
)
from astrodino_seg.embed.probe import STUDY, run_study

# the classes of seven items, two splits and what was predicted
TRUTH = np.array([0, 0, 0, 1, 1, 2, 2])
SPLITS = [(np.array([0, 1, 3, 6]), np.array([2, 4, 5])),
          (np.array([2, 4, 5]), np.array([0, 1, 3, 6]))]
PREDICTED = [np.array([0, 0, 2]), np.array([0, 1, 1, 1])]
RESULT = ProbeResult('hand', ('a', 'b', 'c'), TRUTH, SPLITS, PREDICTED)


def test_accuracy():
    assert_allclose(RESULT.accuracies, [2 / 3, 2 / 4])
    assert_allclose(RESULT.accuracy, 7 / 12)
    assert_allclose(RESULT.std, (2 / 3 - 1 / 2) / np.sqrt(2))
    table = RESULT.split_table()
    assert table['n_train'].tolist() == [4, 3]
    assert table['n_test'].tolist() == [3, 4]
    assert_allclose(table['accuracy'], [2 / 3, 2 / 4])
    assert repr(RESULT).startswith('<ProbeResult hand: top-1 0.583, 0.118 ')


def test_confusion():
    assert_array_equal(RESULT.confusion, [[2, 1, 0], [1, 1, 0], [0, 1, 1]])
    table = RESULT.class_table()
    assert table['class'].tolist() == ['a', 'b', 'c']
    assert table['n'].tolist() == [3, 2, 2]
    assert_allclose(table['recall'], [2 / 3, 1 / 2, 1 / 2])
    assert_allclose(table['precision'], [2 / 3, 1 / 3, 1])
    assert_allclose(table['f1'], [2 / 3, 2 / 5, 2 / 3])


def test_scores_as_scikit_learn():
    metrics = pytest.importorskip('sklearn.metrics')
    rng = np.random.default_rng(0)
    truth, called = rng.integers(0, 4, (2, 300))
    result = ProbeResult('x', tuple('abcd'), truth,
                         [(np.arange(0), np.arange(300))], [called])
    assert_array_equal(result.confusion,
                       metrics.confusion_matrix(truth, called))
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(
        truth, called)
    table = result.class_table()
    for name, wanted in (('precision', precision), ('recall', recall),
                         ('f1', f1)):
        assert_allclose(table[name], wanted)


def test_class_that_is_never_called():
    result = ProbeResult('x', ('a', 'b', 'c'), np.array([0, 1, 0]),
                         [(np.array([2]), np.array([0, 1]))],
                         [np.array([0, 0])])
    table = result.class_table()
    assert np.isnan(table['precision'][1])
    assert np.isnan(table['recall'][2])
    assert table['recall'][1] == 0


def made_up(n, share, n_repeats=1, seed=0):
    rng = np.random.default_rng(seed)
    truth = np.zeros(n, int)
    wrong = (rng.random(n) > share).astype(int)
    split = (np.arange(0), np.arange(n))
    return ProbeResult('x', ('a', 'b'), truth, n_repeats * [split],
                       n_repeats * [wrong])


def test_interval():
    # the normal approximation of the binomial distribution
    result = made_up(400, 0.7)
    p = result.accuracy
    half = 1.96 * np.sqrt(p * (1 - p) / 400)
    assert_allclose(result.interval(n_draws=4000), (p - half, p + half),
                    atol=0.006)
    low, high = result.interval(0.5)
    assert result.interval()[0] < low < p < high < result.interval()[1]
    assert result.interval() == result.interval()
    assert made_up(50, 1).interval() == (1, 1)


def test_interval_of_groups():
    # ten copies of each value are no more than one: the normal approximation
    # with n = 60, not 600
    values = np.random.default_rng(0).normal(size=60)
    groups = np.repeat(np.arange(60), 10)
    half = 1.96 * values.std() / np.sqrt(60)
    mean = values.mean()
    assert_allclose(mean_interval(np.repeat(values, 10), groups=groups,
                                  n_draws=4000), (mean - half, mean + half),
                    atol=0.02)
    alone = mean_interval(np.repeat(values, 10), n_draws=4000)
    assert_allclose(np.ptp(alone), 2 * half / np.sqrt(10), rtol=0.1)
    # the order of the groups does not matter, and a NaN is left out
    names = np.array([f'{99 - k}' for k in groups])
    low, high = mean_interval(np.append(np.repeat(values, 10), np.nan),
                              groups=np.append(names, 'x'), n_draws=4000)
    assert_allclose((low, high), (mean - half, mean + half), atol=0.02)


def test_interval_of_a_difference():
    # what is hard for both cancels
    rng = np.random.default_rng(1)
    hard = rng.random(300)
    one, other = (hard + shift + 0.01 * rng.normal(size=300)
                  for shift in (0.03, 0))
    low, high = mean_interval(one - other)
    assert 0.027 < low < 0.03 < high < 0.033
    assert mean_interval(one)[0] < mean_interval(other)[1]


@pytest.mark.parametrize(('values', 'groups', 'match'), [
    ([np.nan], None, 'no finite number'),
    ([1, 2], [1], r'groups has shape \(1,\), values \(2,\)')])
def test_bad_interval(values, groups, match):
    with pytest.raises(ValueError, match=match):
        mean_interval(values, groups=groups)


def test_shares():
    result = ProbeResult(
        'x', ('a', 'b'), np.array([0, 1, 1, 0]),
        [(np.array([3]), np.array([0, 1])), (np.array([3]), np.array([1]))],
        [np.array([0, 1]), np.array([0])])
    assert_allclose(result.shares, [1, 0.5, np.nan, np.nan])


def test_repeats_are_no_new_items():
    once, often = made_up(100, 0.6), made_up(100, 0.6, n_repeats=20)
    assert often.interval() == once.interval()
    assert_allclose(often.std, 0, atol=1e-12)
    assert np.isnan(once.std)


# ------------------------------------------------------------- evaluate

@pytest.mark.parametrize('protocol', ['mlp', 'knn', 'linear'])
def test_evaluate(protocol):
    if protocol != 'mlp':
        pytest.importorskip('sklearn')
    vectors, y = blobs(120)
    names = np.array(['x', 'y', 'z'])[y]
    result = evaluate(vectors, names, protocol=protocol)
    assert result.classes == ('x', 'y', 'z')
    assert [(len(a), len(b)) for a, b in result.splits] == 5 * [(96, 24)]
    assert result.accuracy > 0.95
    assert result.confusion.sum() == 5 * 24
    # labels that say nothing: at chance
    y = np.random.default_rng(1).permutation(y)
    result = evaluate(QTable({'embedding': vectors}), y, protocol=protocol)
    assert result.accuracy < 0.55


def test_evaluate_is_deterministic():
    vectors, y = blobs(60, spread=3)
    first, again, other = (evaluate(vectors, y, seed=k, n_epochs=3)
                           for k in (0, 0, 1))
    assert all(map(np.array_equal, first.predictions, again.predictions))
    # the second split of the first seed is the first of the second
    assert_array_equal(other.predictions[0], first.predictions[1])


def test_test_labels_are_not_seen():
    vectors, y = blobs(60, spread=3)
    split = seed_splits(60, n_seeds=1)
    changed = y.copy()
    changed[split[0][1]] = 0
    assert_array_equal(evaluate(vectors, y, splits=split).predictions[0],
                       evaluate(vectors, changed, classes=list('abc'),
                                splits=split).predictions[0])


@pytest.mark.parametrize(('change', 'message'), [
    ({'protocol': 'svm'}, "protocol must be one of .* got 'svm'"),
    ({'labels': np.arange(11) % 3}, 'there are 11 labels and 12 vectors'),
    ({'classes': ('a', 'b')}, r'4 of 12 are none of the 2 classes'),
    ({'vectors': np.full((12, 3), np.nan)}, '12 of 12 rows have none'),
    ({'splits': [([0, 1], [1])]}, 'train and test share 1 items')])
def test_bad_input(change, message):
    vectors, y = blobs(12)
    with pytest.raises(ValueError, match=message):
        evaluate(**{'vectors': vectors, 'labels': y, **change})


# ------------------------------------------------------------ the study

def test_study():
    assert STUDY == {'what': 'cls', 'size': 224, 'test_fraction': 0.2,
                     'hidden': 256, 'n_epochs': 30, 'batch_size': 64,
                     'rate': 1e-3}
    backbone = make_backbone(patch_size=56)
    images, y = make_images(15, shape=(24, 24)), np.arange(15) % 3
    result, vectors = run_study(images, y, backbone, n_seeds=2, batch_size=7)
    assert_allclose(vectors, embed(images, backbone, size=224), atol=1e-5)
    wanted = evaluate(vectors, y, splits=seed_splits(15, n_seeds=2))
    assert all(map(np.array_equal, result.predictions, wanted.predictions))
    assert [len(test) for _, test in result.splits] == [3, 3]
    with pytest.raises(ValueError, match='none of the 2 classes'):
        run_study(iter([]), y, backbone, classes=('a', 'b'))
