# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the calibration of a model's probabilities.
"""

import copy

import numpy as np
import pytest
from benchmark_toys import finding_model
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import expit, logit, softmax

from astrodino_seg import DinoSegmenter, as_image, load_model
from astrodino_seg.catalog import CLASS_NAMES
from astrodino_seg.datasets import demo_image
from astrodino_seg.errors import ModelFileError
from astrodino_seg.models.decision import (
    DECISION_LIMIT,
    Calibration,
    log_odds,
    read_calibration,
)
from astrodino_seg.predict.decode import decode
from astrodino_seg.predict.instances import has_pixels, input_of
from astrodino_seg.predict.pyramid import look

NOTHING = {'class_temperature': 1.0, 'confidence': None,
           'fit': {'n_scenes': 24}}
WRONG = {
    'class_temperature': [0, -1.0, np.inf, np.nan, None, '1', True, [1.0]],
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
def plain(image):
    return finding_model(image)


@pytest.fixture
def calibrated(plain):
    def make(values):
        model = copy.deepcopy(plain)
        model.calibration = values
        return model
    return make


def segment(model, image, **kwargs):
    return DinoSegmenter(model=model, bfloat16=False, **kwargs).segment(image)


@pytest.fixture(scope='module')
def expected(plain, image):
    result = segment(plain, image)
    assert len(result.table) > 50
    assert result.table['n_fragments'].max() > 1
    return result


def probabilities(result):
    return np.stack([result.table[f'p_{name}'] for name in CLASS_NAMES], -1)


# ------------------------------------------------------------- the numbers

@pytest.mark.parametrize(('name', 'value'), [
    (name, value) for name, many in WRONG.items() for value in many])
def test_bad_values(name, value):
    with pytest.raises(ValueError, match=f'^{name} of a calibration must be'):
        read_calibration({name: value})


@pytest.mark.parametrize('found', [[], 'T', 1.5, {'temperature': 1.0},
                                   {'pair_scale': 1.0}])
def test_bad_keys(found):
    with pytest.raises(ValueError, match=r'^calibration of a model must be'):
        read_calibration(found)


def test_without_calibration():
    for values in (None, {}):
        assert read_calibration(values) == Calibration()


def test_log_odds():
    p = np.array([0.2, 0.5, 0.9])
    assert_allclose(log_odds(p), logit(p), atol=1e-12)
    assert_allclose(log_odds([0, 1, 0.999], 0.99), logit([0.01, 0.99, 0.99]))
    assert np.isfinite(log_odds(np.array([0, 1], np.float32))).all()


@pytest.mark.parametrize('temperature', [0.4, 1.0, 3.0])
def test_class_probabilities(temperature):
    """Those of the logits that were divided, which softmax has hidden."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (40, 5, 3))
    p = softmax(logits, axis=-1).astype(np.float32)
    found = Calibration(class_temperature=temperature).class_probabilities(p)
    assert found.dtype == np.float32
    assert_allclose(found, softmax(logits / temperature, axis=-1), atol=1e-6)


def test_classes_that_are_certain():
    """No probability of 0 or 1 makes what is not a number."""
    p = np.array([[1, 0, 0], [0.5, 0.5, 0]])
    for temperature in (0.01, 0.5, 20):
        found = Calibration(
            class_temperature=temperature).class_probabilities(p)
        assert_allclose(found.sum(axis=1), 1)
        assert found[0, 0] == found[0].max()
        assert found[1, 0] == found[1, 1]
    assert Calibration().class_probabilities(p) is p


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


# ------------------------------------------------------------ of the model

def test_a_bad_calibration_is_refused(plain, tmp_path):
    model = copy.deepcopy(plain)
    with pytest.raises(ValueError, match='class_temperature of a calib'):
        model.calibration = {'class_temperature': 0}
    assert model.calibration is None
    model.spec['calibration'] = {'class_temperature': 0}
    model.save(tmp_path / 'model.safetensors')
    with pytest.raises(ModelFileError, match='class_temperature of a calib'):
        load_model(tmp_path / 'model.safetensors')


def test_it_is_kept_in_the_file(calibrated, tmp_path):
    values = {**NOTHING, 'class_temperature': 0.75, 'confidence': [1, 2, 3]}
    path = tmp_path / 'model.safetensors'
    calibrated(values).save(path)
    assert load_model(path).calibration == values
    assert 'calibration' not in load_model(path).provenance
    calibrated(None).save(path)
    assert load_model(path).calibration is None


def test_another_decision_is_not_calibrated(calibrated):
    model = calibrated({'class_temperature': 0.75})
    model.put_decision(model.decision)
    assert model.calibration is None


# ------------------------------------------------------- in the segmenter

def test_nothing_is_changed_by_the_identity(image, expected, calibrated):
    # to the last bit, whether it is stated or left out
    found = segment(calibrated(NOTHING), image)
    assert_array_equal(found.segmentation_image.data,
                       expected.segmentation_image.data)
    assert_array_equal(found.probabilities, expected.probabilities)
    for name in expected.table.colnames:
        assert_array_equal(found.table[name], expected.table[name])


@pytest.mark.parametrize('temperature', [0.4, 3.0])
def test_temperature(image, expected, calibrated, temperature):
    found = segment(calibrated({'class_temperature': temperature}), image)
    p, before = probabilities(found), probabilities(expected)
    assert_allclose(p.sum(axis=1), 1, rtol=1e-5)
    assert_array_equal(found.table['class'], expected.table['class'])
    assert_allclose(p, softmax(np.log(before.astype(float)) / temperature,
                               axis=1), atol=1e-5)
    # hotter is less sure
    assert (np.sign(1 - temperature) * (p.max(1) - before.max(1))
            > -1e-6).all()
    assert np.ptp(p - before) > 1e-3
    assert_array_equal(found.segmentation_image.data,
                       expected.segmentation_image.data)


def test_confidence(image, plain, expected, calibrated):
    found = segment(calibrated({'confidence': [0.3, 1.5, -0.2]}), image)
    assert_array_equal(found.segmentation_image.data,
                       expected.segmentation_image.data)
    decision = np.clip(expected.table['group_confidence'].astype(float),
                       1 - DECISION_LIMIT, DECISION_LIMIT)
    # the seeds that the objects have, from another look
    model = copy.deepcopy(plain).fused()
    levels = look(model, input_of(model, image)[1])
    grouping = decode(levels, plain.decision, image.shape,
                      keep=lambda labels, n: has_pixels(labels, n, 5, 8))
    heat = np.concatenate([level.heat for level in levels]).astype(float)
    assert_allclose(found.table['group_confidence'], expit(
        0.3 * logit(decision) + 1.5 * logit(heat[grouping.seed_of]) - 0.2),
        atol=1e-4)
    assert np.ptp(heat[grouping.seed_of]) > 0.01


def test_what_files_of_before_had(image, expected, calibrated):
    """The power of shares of light, which there are no more."""
    found = segment(calibrated({'share_power': 0.5}), image)
    assert_array_equal(found.segmentation_image.data,
                       expected.segmentation_image.data)
