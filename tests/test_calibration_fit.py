# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the command that calibrates a model, and for the looks that it and
other commands group.
"""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from benchmark_toys import finding_model, script
from level_toys import disc_truth, make_level
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import expit, softmax

from astrodino_seg import DinoSegmenter, load_model
from astrodino_seg.models.decision import Calibration
from astrodino_seg.predict.decode import weigh
from astrodino_seg.simulate import make_scene, observe


@pytest.fixture(scope='module')
def fits():
    return script('calibration.calibration')


@pytest.fixture(scope='module')
def looks():
    return script('common')


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


def test_decisions(fits, monkeypatch):
    """Of a star and a galaxy with two seeds, and of a seed on the sky."""
    shape = (60, 90)
    level = make_level(1, shape, [(20, 30), (28, 30), (43, 30), (52, 30)],
                       [8, 8, 6, 5])
    truth = disc_truth(shape, [(24, 30, 12, 9, 2), (43, 30, 6, 9, 1)])
    scene = SimpleNamespace(levels=[level], truth=truth,
                            dead=np.zeros(shape, bool))
    network = SimpleNamespace(model=SimpleNamespace(decision=None))
    found, _, _ = weigh([level], None)
    same = np.linspace(0.1, 0.9, len(found.i))
    monkeypatch.setattr(fits, 'weigh', lambda levels, decision: (
        found, np.array([0.9, 0.8, 0.7, 0.6]), same))
    (p, on_object), (q, one) = fits.decisions(network, scene, 0.5)
    assert_array_equal(p, [0.9, 0.8, 0.7, 0.6])
    assert_array_equal(on_object, [True, True, True, False])
    pairs = [{int(a), int(b)} for a, b in zip(found.i, found.j)]
    known = [k for k, pair in enumerate(pairs) if 3 not in pair]
    assert 1 < len(known) < len(pairs)
    assert_array_equal(q, same[known])
    assert_array_equal(one, [pairs[k] == {0, 1} for k in known])
    # what is less probable is no part of the grouping
    _, (q, one) = fits.decisions(network, scene, 0.75)
    assert_array_equal(q, same[[pairs.index({0, 1})]])
    assert one.all()


# ------------------------------------------------------------------- looks

@pytest.fixture(scope='module')
def scene():
    """A scene whose binned image is looked at."""
    return observe(make_scene(1_000_003, size=128), [1, 1])


@pytest.fixture(scope='module')
def file(scene, tmp_path_factory):
    path = tmp_path_factory.mktemp('models') / 'model.safetensors'
    finding_model(scene[0]).save(path)
    return path


def test_the_labels_are_those_of_the_segmenter(looks, scene, file):
    network = looks.Network(file)
    found = network.look(*scene)
    n = set()
    for merge, min_seed in ((0.3, 0.5), (0.8, 0.7)):
        grouping = network.group(found, merge=merge, min_seed=min_seed)
        wanted = DinoSegmenter(model=file, merge=merge,
                               min_seed=min_seed).segment(scene[0])
        assert_array_equal(grouping.groups, wanted.segmentation_image.data)
        assert_allclose(grouping.confidence, wanted.table['group_confidence'],
                        atol=1e-4)
        n.add(grouping.groups.max())
    assert len(n) == 2


def test_other_weights_have_another_name(looks, file, tmp_path):
    """But not another calibration, which has no part in the labels."""
    model = load_model(file)
    model.calibration = {'class_temperature': 0.5}
    model.save(tmp_path / 'calibrated.safetensors')
    network = looks.Network(tmp_path / 'calibrated.safetensors')
    assert network.calibration == Calibration(class_temperature=0.5)
    assert network.digest == looks.Network(file).digest
    model.decision.of_pair.mean += 1
    model.save(tmp_path / 'other.safetensors')
    assert (looks.Network(tmp_path / 'other.safetensors').digest
            != network.digest)


def toy(looks, seed):
    """
    A scene of pairs of discs, each of which is there with the probability of
    its seed, and of a class with the square root of that which is said.
    """
    rng = np.random.default_rng(seed)
    x, y = np.meshgrid(np.arange(15, 300, 30), np.arange(15, 120, 30))
    centres = np.stack([np.append(x - 6.75, x + 6.75), np.append(y, y)], -1)
    heat = rng.uniform(0.5, 0.98, len(centres))
    p = rng.dirichlet([1, 1, 1], len(centres))
    classes = [rng.choice([1, 2, 3], p=one) for one in p]
    there = rng.uniform(size=len(heat)) < heat
    truth = disc_truth((120, 300), [
        (*centre, 7, 9, one) for centre, one, some in zip(
            centres, classes, there) if some])
    level = make_level(1, (120, 300), centres, 6.5, heat=heat, height=3)
    level = level._replace(
        classes=(p**2 / (p**2).sum(axis=1, keepdims=True)).astype('f4'))
    return looks.SceneLooks(None, truth, np.zeros((120, 300), bool), [level])


@pytest.fixture
def network(looks):
    """Scenes without a decision."""
    out = object.__new__(looks.Network)
    out.model = SimpleNamespace(decision=None)
    out.calibration = Calibration()
    out.scenes = lambda split, n: [
        toy(looks, [k, len(split)]) for k in range(n)]
    return out


def test_what_is_known_is_found(fits, network):
    calibration = fits.fit(network, 25, 0.5, 0.5)
    assert calibration.fit['n_scenes'] == 25
    assert_allclose(calibration.class_temperature, 2, rtol=0.1)
    # nothing was compared: all is told by the seed
    heat = np.array([0.6, 0.75, 0.9])
    assert_allclose(calibration.confidences(np.ones(3), heat), heat,
                    atol=0.04)


def test_what_is_fitted_is_better(fits, network):
    """On other scenes than it was fitted to."""
    calibration = fits.fit(network, 25, 0.5, 0.5)
    measures = fits.measure_all([fits.rated(network, one, calibration)
                                 for one in network.scenes('other', 25)])
    assert set(measures) == set(fits.QUANTITIES)
    before, after = (measures['confidence'][k] for k in ('before', 'after'))
    assert_allclose(before['ece'], 0.26, atol=0.03)     # it said 1 of all
    assert after['ece'] < 0.05
    assert measures['class']['after']['loss'] < (
        measures['class']['before']['loss'])
    # the seeds' own probabilities are true, and measured as they are
    assert measures['seed']['before']['ece'] < 0.05
    assert set(measures['pair']) == set(measures['seed']) == {'before'}


def test_command(fits, network, file, tmp_path, monkeypatch, capsys):
    """What is written is the model, with what was fitted."""
    asked = []
    scenes = network.scenes
    network.scenes = lambda *args: asked.append(args) or scenes(*args)
    monkeypatch.setattr(fits, 'Network', lambda path, folder: network)
    out = tmp_path / 'calibrated.safetensors'
    monkeypatch.setattr(sys, 'argv', [
        'calibration', str(tmp_path), '--model', str(file), '--fit-scenes',
        '2', '--scenes', '3', '--merge', '0.6', '--write', str(out)])
    fits.main()
    assert asked == [('train', 2), ('validation', 3)]
    values = json.loads((tmp_path / 'calibration.json').read_text())
    model, before = load_model(out), load_model(file)
    assert model.calibration == values
    assert values['fit']['merge'] == 0.6
    for key, value in before.state_dict().items():
        assert (model.state_dict()[key] == value).all()
    assert 'Measured on 3 scenes' in capsys.readouterr().out
    text = (tmp_path / 'calibration.txt').read_text()
    assert text.count('   * - ') == 1 + len(fits.QUANTITIES)
    assert text.count('     -\n') == 4          # seeds and pairs, after
    assert (tmp_path / 'reliability.png').stat().st_size > 5000
