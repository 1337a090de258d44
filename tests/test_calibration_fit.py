# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the command that calibrates a model, and for the maps that it and
the dial's curve keep on disk.
"""

import importlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import expit, logit, softmax

from astrodino_seg import DinoSegmenter, load_model
from astrodino_seg.calibration import Calibration, read_calibration
from astrodino_seg.simulate import make_scene, observe

FOLDER = Path(__file__).parents[1] / 'benchmarks'


@pytest.fixture(scope='module')
def fits():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        yield importlib.import_module('calibration')


@pytest.fixture(scope='module')
def cached(fits):
    return sys.modules['cached_maps']


# ------------------------------------------------------------------- fits

@pytest.mark.parametrize('temperature', [0.5, 1.0, 2.5])
def test_temperature(fits, temperature):
    # classes that are drawn with the probabilities of other logits
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 2, (20_000, 3))
    p = softmax(logits, axis=1)
    classes = (rng.uniform(size=(len(p), 1)) > p.cumsum(axis=1)).sum(axis=1)
    found = fits.fit_temperature(temperature * logits, classes)
    assert_allclose(found, temperature, rtol=0.04)


def test_line(fits):
    rng = np.random.default_rng(2)
    x = rng.normal(0, 2, (30_000, 2))
    outcome = rng.uniform(size=len(x)) < expit(0.5 * x[:, 0] - x[:, 1] + 0.7)
    assert_allclose(fits.fit_line(x, outcome), [0.5, -1, 0.7], atol=0.06)


def test_line_of_what_is_told_for_sure(fits):
    x = np.linspace(-1, 1, 40)[:, None]
    weights = fits.fit_line(x, x[:, 0] > 0)
    assert np.isfinite(weights).all()
    assert weights[0] > 5


# --------------------------------------------------------------- measures

def test_calibration_error_by_hand(fits):
    # two bins: 0.2 stated and 1/4 true, 0.9 stated and 1/2 true
    p = np.array([0.1, 0.3, 0.2, 0.2, 0.9, 0.9])
    outcome = np.array([0, 1, 0, 0, 1, 0])
    edges = np.array([-np.inf, 0.5, np.inf])
    mean, share, n = fits.reliability(p, outcome, edges)
    assert_allclose(mean, [0.2, 0.9])
    assert_allclose(share, [0.25, 0.5])
    assert_array_equal(n, [4, 2])
    assert_allclose(fits.calibration_error(p, outcome, edges),
                    4 / 6 * 0.05 + 2 / 6 * 0.4)
    # an empty bin counts for nothing
    edges = np.array([-np.inf, 0.5, 0.8, np.inf])
    assert_allclose(fits.calibration_error(p, outcome, edges),
                    4 / 6 * 0.05 + 2 / 6 * 0.4)


def test_log_loss_by_hand(fits):
    assert_allclose(fits.log_loss(np.array([0.8, 0.4]), np.array([1, 0])),
                    -(np.log(0.8) + np.log(0.6)) / 2)
    assert np.isfinite(fits.log_loss(np.array([1.0, 0.0]),
                                     np.array([0, 1])))


def test_bins_have_equal_counts(fits):
    p = np.random.default_rng(3).beta(5, 1, 1000)
    n = fits.reliability(p, p, fits.bin_edges(p))[2]
    assert_array_equal(n, 100)
    # many that are the same are in one bin
    p[:350] = p.max()
    n = fits.reliability(p, p, fits.bin_edges(p))[2]
    assert n.sum() == 1000
    assert n.max() >= 350


def test_measure(fits):
    """What is calibrated has an error of about nothing; half of it has not."""
    rng = np.random.default_rng(4)
    p = rng.uniform(size=(40, 200))
    true = rng.uniform(size=p.shape) < p
    scenes = [{'good': (a, b), 'bad': (a / 2, b)} for a, b in zip(p, true)]
    good, bad = (fits.measure(scenes, key) for key in ('good', 'bad'))
    assert good['n'] == 8000
    assert good['ece'] < 0.03
    # half of what is true is missing: the mean of p / 2
    assert_allclose(bad['ece'], 0.25, atol=0.02)
    assert good['loss'] < bad['loss']
    assert ((bad['low'] <= bad['share']) & (bad['share'] <= bad['high'])).all()
    # an interval of one sigma of 800 numbers
    assert_allclose(bad['high'] - bad['low'], 2 * np.sqrt(
        bad['share'] * (1 - bad['share']) / 800), rtol=0.6)


# ----------------------------------------------------------- what is right

def test_right_labels(fits):
    truth = np.zeros((40, 90), int)
    truth[5:25, 5:25], truth[5:25, 35:55] = 1, 2        # cut; whole
    truth[5:15, 65:75], truth[5:15, 75:85] = 3, 4       # merged
    truth[30:36, 80:86] = -1                            # void
    labels = np.zeros_like(truth)
    labels[5:25, 5:18], labels[5:25, 18:25] = 1, 2
    labels[5:25, 35:55] = 3
    labels[5:15, 65:85] = 4
    labels[30:36, 5:11] = 5                             # nothing there
    labels[30:36, 80:86] = 6
    scene = SimpleNamespace(labels=truth, own_sn=(truth > 0) * 1.0)
    right, counts = fits.right_labels(scene, labels)
    assert_array_equal(right[:5], [False, False, True, False, False])
    assert_array_equal(counts, [True, True, True, True, True, False])


@pytest.mark.parametrize('merge', [0, 0.1, 0.5, 0.95, 1])
def test_dial(fits, merge):
    line = Calibration(pair_scale=0.4, pair_bias=-1.5)
    after = fits.dial_after(merge, line)
    if 0 < merge < 1:
        # a pair at the old threshold is at the new one
        assert_allclose(1 - after, expit(0.4 * logit(1 - merge) - 1.5))
    else:
        assert after == merge
    assert_allclose(fits.dial_before(after, line), merge)


# ------------------------------------------------------ maps kept on disk

@pytest.fixture(scope='module')
def scene():
    """A scene whose binned image is looked at."""
    return observe(make_scene(1_000_003, size=96), [1, 1])


@pytest.mark.parametrize('calibration', [
    {}, {'class_temperature': 0.7, 'pair_scale': 0.5, 'pair_bias': -1.0,
         'confidence': [0.5, 1.8, -1.0]}])
def test_the_labels_are_those_of_the_segmenter(cached, scene, tmp_path,
                                               calibration):
    path = tmp_path / 'model.safetensors'
    model = load_model()
    model.provenance['calibration'] = calibration
    model.save(path)
    network = cached.Network(path, tmp_path)
    assert network.calibration == Calibration(**calibration)
    maps = network.look(*scene, 'one')
    for merge in (0.3, 0.8):
        found, prediction = cached.group(maps, merge=merge,
                                         calibration=network.calibration)
        wanted = DinoSegmenter(model=path, merge=merge).segment(scene[0])
        assert_array_equal(found.groups, wanted.segmentation_image.data)
        assert_allclose(found.confidence, wanted.table['group_confidence'],
                        atol=1e-4)
        assert_allclose(prediction.classes[found.seed_of, 0],
                        wanted.table['p_star'], atol=1e-5)


def test_the_network_runs_once(cached, scene, tmp_path, monkeypatch):
    network = cached.Network(None, tmp_path)
    first = network.look(*scene, 'one')
    monkeypatch.setattr(cached, 'predict', None)
    again = cached.Network(None, tmp_path).look(*scene, 'one')
    for a, b in zip(first.prediction, again.prediction):
        assert_array_equal(a, b)
    with pytest.raises(TypeError, match='not callable'):
        network.look(*scene, 'two')
    # other weights, other maps
    model = load_model()
    model.pairs.net[4].bias.data += 1
    model.save(tmp_path / 'other.safetensors')
    other = cached.Network(tmp_path / 'other.safetensors', tmp_path)
    assert other.digest != network.digest
    with pytest.raises(TypeError, match='not callable'):
        other.look(*scene, 'one')


@pytest.mark.slow
def test_command(fits, tmp_path, monkeypatch, capsys):
    file = tmp_path / 'calibrated.safetensors'
    monkeypatch.setattr(sys, 'argv', [
        'calibration', str(tmp_path), '--fit-scenes', '2', '--scenes', '2',
        '--write', str(file)])
    fits.main()
    values = json.loads((tmp_path / 'calibration.json').read_text())
    model = load_model(file)
    assert model.provenance['calibration'] == values
    assert read_calibration(model.provenance).fit['n_scenes'] == 2
    # the labels are as they were at the default of the dial
    merge = values['fit']['merge']
    line = Calibration(pair_scale=values['pair_scale'],
                       pair_bias=values['pair_bias'])
    assert_allclose(fits.dial_before(merge, line), DinoSegmenter().merge,
                    atol=0.001)
    # as small as it was
    assert file.stat().st_size < 10e6
    assert 'Measured on 2 scenes' in capsys.readouterr().out
    assert {path.name for path in tmp_path.glob('*.*')} >= {
        'calibration.txt', 'reliability.png'}
