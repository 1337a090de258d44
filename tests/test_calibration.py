# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the calibration of a model's probabilities.
"""

import copy
import json

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import expit, logit, softmax

from astrodino_seg import DinoSegmenter, as_image, load_model
from astrodino_seg.calibration import (
    DECISION_LIMIT,
    Calibration,
    log_odds,
    read_calibration,
)
from astrodino_seg.catalog import CLASS_NAMES
from astrodino_seg.datasets import demo_image
from astrodino_seg.inference import predict
from astrodino_seg.preprocess import normalise

NOTHING = {'class_temperature': 1.0, 'pair_scale': 1, 'pair_bias': 0,
           'confidence': None, 'fit': {'n_scenes': 24}}
WRONG = {
    'class_temperature': [0, -1.0, np.inf, np.nan, None, '1', True, [1.0]],
    'pair_scale': [0.0, -0.5, np.nan, 'big'],
    'pair_bias': [np.inf, np.nan, None, '0'],
    'confidence': [1.0, [1, 2], [1, 2, 3, 4], [1, 2, np.nan], [1, 2, '3'],
                   'abc', {}],
}


@pytest.fixture(scope='module')
def image():
    """A crowded part of the sample: a large galaxy and neighbours."""
    demo = demo_image()
    ys, xs = slice(90, 218), slice(260, 388)
    return as_image(demo.cube[:, ys, xs], bands=demo.bands)


@pytest.fixture(scope='module')
def plain():
    model = load_model()
    model.provenance.pop('calibration', None)
    return model


@pytest.fixture
def calibrated(plain):
    """The model with a calibration, which has been through JSON."""
    def make(values):
        model = copy.deepcopy(plain)
        model.provenance['calibration'] = json.loads(json.dumps(values))
        return model
    return make


def probabilities(result):
    return np.stack([result.table[f'p_{name}'] for name in CLASS_NAMES], -1)


# ------------------------------------------------------------- the numbers

@pytest.mark.parametrize(('name', 'value'), [
    (name, value) for name, many in WRONG.items() for value in many])
def test_bad_values(name, value):
    with pytest.raises(ValueError, match=f'^{name} of a calibration must be'):
        read_calibration({'calibration': {name: value}})


@pytest.mark.parametrize('found', [[], 'T', 1.5, {'temperature': 1.0}])
def test_bad_keys(found):
    with pytest.raises(ValueError, match=r"^calibration in the model's"):
        read_calibration({'calibration': found})


def test_without_calibration():
    for provenance in ({}, {'calibration': None}, {'calibration': {}}):
        assert read_calibration(provenance) == Calibration()


def test_log_odds():
    p = np.array([0.2, 0.5, 0.9])
    assert_allclose(log_odds(p), logit(p), atol=1e-12)
    assert_allclose(log_odds([0, 1, 0.999], 0.99), logit([0.01, 0.99, 0.99]))
    assert np.isfinite(log_odds(np.array([0, 1], np.float32))).all()


def test_confidences():
    rng = np.random.default_rng(2)
    decision, heat = rng.uniform(0.02, 0.98, (2, 50))
    found = Calibration(confidence=(0.5, 2.0, -0.3)).confidences(decision,
                                                                 heat)
    assert_allclose(found, expit(0.5 * logit(decision) + 2 * logit(heat)
                                 - 0.3))
    # nothing compared is not the same as certain
    found = Calibration(confidence=(1, 0, 0)).confidences(
        np.array([1.0, 0.5]), np.array([0.3, 1.0]))
    assert_allclose(found, [DECISION_LIMIT, 0.5])
    assert Calibration().confidences(decision, heat) is decision


# ---------------------------------------------------- in the segmenter

def test_nothing_is_changed_by_the_identity(image, plain, calibrated):
    # to the last bit, whether it is stated or left out
    expected = DinoSegmenter(model=plain).segment(image)
    found = DinoSegmenter(model=calibrated(NOTHING)).segment(image)
    assert_array_equal(found.segmentation_image.data,
                       expected.segmentation_image.data)
    assert_array_equal(found.probabilities, expected.probabilities)
    for name in expected.table.colnames:
        assert_array_equal(found.table[name], expected.table[name])


@pytest.mark.parametrize('temperature', [0.4, 3.0])
def test_temperature(image, plain, calibrated, temperature):
    expected = DinoSegmenter(model=plain).segment(image)
    model = calibrated({'class_temperature': temperature})
    found = DinoSegmenter(model=model).segment(image)
    p, before = probabilities(found), probabilities(expected)
    assert_allclose(p.sum(axis=1), 1, rtol=1e-5)
    assert_array_equal(found.table['class'], expected.table['class'])
    # softmax does not see what is added to all logits
    assert_allclose(p, softmax(np.log(before.astype(float)) / temperature,
                               axis=1), atol=1e-5)
    # hotter is less sure
    assert (np.sign(1 - temperature) * (p.max(1) - before.max(1))
            > -1e-6).all()
    assert_array_equal(found.segmentation_image.data,
                       expected.segmentation_image.data)


def test_pairs(image, plain, calibrated):
    model = calibrated({'pair_scale': 0.5, 'pair_bias': -1.5})
    planes = normalise(image, model.preprocess).channels
    found = predict(model, planes, bin_factor=1)
    expected = predict(plain, planes, bin_factor=1)
    assert_array_equal(found.pairs, expected.pairs)
    p = expected.same.astype(float)
    clear = (p > 1e-5) & (p < 1 - 1e-3)
    assert clear.sum() > 10
    assert_allclose(found.same[clear], expit(0.5 * logit(p[clear]) - 1.5),
                    rtol=1e-3)
    for name in ('classes', 'heat', 'probabilities', 'embedding'):
        assert_array_equal(getattr(found, name), getattr(expected, name))


def test_the_dial_moves_with_the_pairs(image, plain, calibrated):
    # the same labels where the threshold is mapped as the probabilities are
    model = calibrated({'pair_scale': 0.5, 'pair_bias': -1.5})
    finders = [DinoSegmenter(model=one) for one in (plain, model)]
    counts = set()
    for merge in (0.2, 0.5, 0.8):
        finders[0].merge = merge
        finders[1].merge = float(1 - expit(0.5 * logit(1 - merge) - 1.5))
        one, other = (finder(image) for finder in finders)
        assert_array_equal(one.data, other.data)
        counts.add(one.n_labels)
    assert len(counts) > 1


def test_confidence(image, plain, calibrated):
    weights = [0.3, 1.5, -0.2]
    finder = DinoSegmenter(model=calibrated({'confidence': weights}))
    found = finder.segment(image)
    before = DinoSegmenter(model=plain).segment(image)
    assert_array_equal(found.segmentation_image.data,
                       before.segmentation_image.data)
    decision = np.clip(before.table['group_confidence'].astype(float),
                       1 - DECISION_LIMIT, DECISION_LIMIT)
    # what is left is the part of the leading centre, one of those there are
    left = logit(found.table['group_confidence'].astype(float))
    left = (left - 0.3 * logit(decision) + 0.2) / 1.5
    planes = normalise(image, plain.preprocess).channels
    heat = predict(finder.model_, planes, bin_factor=1).heat.astype(float)
    nearest = np.abs(left[:, None] - logit(heat)).min(axis=1)
    assert_allclose(nearest, 0, atol=1e-3)
    assert len(np.unique(np.round(left, 3))) > 3


def test_a_bad_model_is_refused(image, calibrated):
    model = calibrated({'class_temperature': 0})
    with pytest.raises(ValueError, match='class_temperature of a calib'):
        DinoSegmenter(model=model).segment(image)


def test_it_is_kept_in_the_file(calibrated, tmp_path):
    values = {**NOTHING, 'pair_bias': -0.25, 'confidence': [1, 2, 3]}
    calibrated(values).save(tmp_path / 'model.safetensors')
    again = load_model(tmp_path / 'model.safetensors')
    assert read_calibration(again.provenance) == Calibration(**values)
