# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the fit of the pair score.
"""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from test_train import make_scene, tiny_model

from astrodino_seg.inference import predict
from astrodino_seg.pairs import n_features
from astrodino_seg.preprocess import normalise
from astrodino_seg.simulate import observe
from astrodino_seg.train import pairs
from astrodino_seg.train.pairs import fit_pairs, pairs_of_scene

N_FEATURES = n_features(24, 5)


def state_of(model):
    return {k: v.clone() for k, v in model.state_dict().items()}


# -------------------------------------------------------- pairs of a scene

def hand_truth(shape, primary=(2,)):
    """Two objects beside each other, a third, sky between, and void."""
    labels = np.zeros(shape, np.int32)
    labels[:20, :15], labels[:20, 15:] = 4, 2
    labels[28:, :25], labels[28:, 35:] = 7, -1
    ids = np.array([2, 4, 7])
    return SimpleNamespace(labels=labels, objects={
        'id': ids, 'primary': np.isin(ids, primary)})


def test_pairs_of_scene():
    """Truth of the seeds that inference finds, pair by pair."""
    model = tiny_model().eval()
    image, _ = observe(make_scene(0, size=48), 1)
    truth = hand_truth(image.shape)
    features, same, primary = pairs_of_scene(model, image, truth, 0.0)
    channels = normalise(image, model.preprocess).channels
    found = predict(model, channels, min_heat=0.0, bin_factor=1)
    owner = [truth.labels[int(y), int(x)] for x, y in zip(found.x, found.y)]
    assert set(owner) == {-1, 0, 2, 4, 7}
    kept, wanted = [], []
    for k, (i, j) in enumerate(found.pairs):
        if owner[i] > 0 and owner[j] > 0:
            kept.append(k)
            wanted.append((owner[i] == owner[j], 2 in (owner[i], owner[j])))
    assert 50 < len(kept) < len(found.pairs) - 50
    assert len(set(wanted)) == 4           # of all kinds
    assert_array_equal(same, np.array(wanted)[:, 0])
    assert_array_equal(primary, np.array(wanted)[:, 1])
    assert same.dtype == torch.float32
    assert primary.dtype == torch.bool
    # and they are the very pairs that inference asks about
    assert features.shape == (len(kept), N_FEATURES)
    with torch.no_grad():
        assert_allclose(model.pairs(features).sigmoid(), found.same[kept],
                        atol=1e-5)


def test_pairs_of_faint_seeds():
    """Fewer seeds above a larger ``min_heat``, and none above 1."""
    model = tiny_model().eval()
    image, _ = observe(make_scene(0, size=48), 1)
    truth = hand_truth(image.shape)
    channels = normalise(image, model.preprocess).channels
    heat = predict(model, channels, min_heat=0.0, bin_factor=1).heat
    n = [len(pairs_of_scene(model, image, truth, float(least))[1])
         for least in (0.0, np.median(heat), 1.1)]
    assert n[0] > n[1] > n[2] == 0


@pytest.mark.parametrize('value', [0, -1])
def test_scene_without_objects(value):
    model = tiny_model().eval()
    image, _ = observe(make_scene(0, size=32), 1)
    truth = SimpleNamespace(labels=np.full(image.shape, value, np.int32),
                            objects={'id': np.zeros(0, int),
                                     'primary': np.zeros(0, bool)})
    features, same, primary = pairs_of_scene(model, image, truth, 0.0)
    assert features.shape == (0, N_FEATURES)
    assert len(same) == len(primary) == 0


# ------------------------------------------------------------------- fits

@pytest.fixture
def toy(monkeypatch):
    """Install pairs of one's own; scenes are integers."""
    seen = []

    def install(make):
        def observe(scene, seed):
            seen.append((scene, seed))
            return scene, seed

        monkeypatch.setattr(pairs, 'observed', observe)
        monkeypatch.setattr(pairs, 'pairs_of_scene',
                            lambda model, image, truth, min_heat: make(image))
        return seen

    return install


def separable(scene):
    """Pairs that are one object where ten features are larger."""
    rng = torch.Generator().manual_seed(scene)
    features = 5 + 3 * torch.randn(40, N_FEATURES, generator=rng)
    same = (features[:, 0] > 5).float()
    features[:, 1:11] += 9 * same[:, None]
    return features, same, features[:, 20] > 7


def constant(scene):
    """
    Features that tell nothing. Of every other scene a hundred pairs, which
    are none, of the others four, which are.
    """
    n = 4 if scene % 2 else 100
    return (torch.zeros(n, N_FEATURES), torch.full((n,), float(n == 4)),
            torch.zeros(n, dtype=torch.bool))


def entropy(score, features, same):
    """Mean binary cross entropy by NumPy."""
    with torch.no_grad():
        logits = score(features).double().numpy()
    p = 1 / (1 + np.exp(-logits))
    return -np.log(np.where(same.numpy() > 0, p, 1 - p)).mean()


def fit(model, n=21, **kwargs):
    return fit_pairs(model, range(n), **{'n_epochs': 2, 'progress': False,
                                         **kwargs})


def test_fit_learns(toy):
    seen, model = toy(separable), tiny_model()
    held = [torch.cat(part) for part in zip(*map(separable, (0, 10, 20)))]
    used = [k for k in range(21) if k % 10]
    before = entropy(model.pairs, *held[:2])
    assert fit(model, seed=5, n_epochs=40) is model
    assert not model.training
    assert seen == [(k, [5, k, 2]) for k in range(21)]
    after = entropy(model.pairs, *held[:2])
    assert after < 0.2 * before
    features = torch.cat([separable(k)[0] for k in used])
    assert_allclose(model.pairs.mean, features.mean(dim=0), rtol=1e-5)
    assert_allclose(model.pairs.scale, features.std(dim=0), rtol=0.01)
    found = model.provenance['pairs']
    assert found['n_pairs'] == 18 * 40
    assert found['n_scenes'] == 21
    assert found['seed'] == 5
    assert_allclose(found['loss'], after, atol=1e-4)
    features, same, primary = held
    assert 5 < primary.sum() < 60
    assert_allclose(found['loss_primary'], entropy(
        model.pairs, features[primary], same[primary]), atol=1e-4)
    with torch.no_grad():
        right = (model.pairs(features) > 0) == (same > 0)
    assert_allclose(found['right'], right.float().mean(), atol=1e-4)
    assert_allclose(found['right_primary'], right[primary].float().mean(),
                    atol=1e-4)
    assert found['right'] > 0.95


def test_fit_of_pairs_only(toy):
    """All but the pair score is left as it was, to the last bit."""
    toy(separable)
    model = tiny_model()
    model.provenance |= {'steps': 7, 'calibration': {'pair_bias': 1.0}}
    before = state_of(model)
    fit(model, n_epochs=1)
    changed = {key for key, value in model.state_dict().items()
               if not torch.equal(value, before[key])}
    assert changed == {f'pairs.{key}' for key in model.pairs.state_dict()}
    assert list(model.state_dict()) == list(before)
    assert model.provenance['steps'] == 7
    assert 'calibration' not in model.provenance    # of the old score
    assert all(param.grad is None for name, param in model.named_parameters()
               if not name.startswith('pairs.'))


def test_fit_of_scenes():
    """With scenes, their noise, and the network's own seeds."""
    model, scenes = tiny_model(), [make_scene(k, size=48) for k in range(11)]
    before = state_of(model)
    fit_pairs(model, scenes, min_heat=0.0, n_epochs=1, progress=False)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]) != key.startswith('pairs.')
        assert torch.isfinite(value).all()
    assert model.provenance['pairs']['n_scenes'] == 11
    assert model.provenance['pairs']['n_pairs'] > 100


def test_fit_is_reproducible(toy):
    toy(separable)
    states = []
    for seed in (3, 3, 4):
        model = tiny_model()
        torch.manual_seed(99 + len(states))            # of no importance
        states.append(fit(model, n_epochs=2, seed=seed).pairs.state_dict())
    one, two, three = states
    for key, value in one.items():
        assert_array_equal(two[key], value)
    assert not torch.equal(one['net.0.weight'], three['net.0.weight'])


@pytest.mark.parametrize('all_primary', [False, True])
def test_weights_of_pairs(toy, all_primary):
    """
    A scene counts as the root of its number of pairs: 8 scenes with weight
    10 in all and 10 with 2. If the latter are large galaxies, thrice that.
    """
    def make(scene):
        features, same, primary = constant(scene)
        return features, same, (same > 0) & all_primary

    toy(make)
    model = fit(tiny_model(), n=20, n_epochs=150, peak_rate=0.01)
    with torch.no_grad():
        p = model.pairs(torch.zeros(1, N_FEATURES)).sigmoid()
    weight = 3 if all_primary else 1
    used = [k % 2 for k in range(20) if k % 10]
    assert used.count(1) == 10
    wanted = 10 * 2 * weight / (10 * 2 * weight + 8 * 10)
    assert_allclose(p, wanted, rtol=0.05)


def test_number_of_scenes(toy):
    """No more than asked for; those without pairs count for nothing."""
    seen = toy(lambda scene: tuple(
        part[:40 * (scene != 4)] for part in separable(scene)))
    model = fit(tiny_model(), n=30, n_scenes=14, n_epochs=1)
    assert [scene for scene, _ in seen] == list(range(14))
    assert model.provenance['pairs']['n_scenes'] == 13
    assert model.provenance['pairs']['n_pairs'] == 11 * 40


@pytest.mark.parametrize(('n', 'n_scenes', 'n_empty'), [
    (9, 400, 0), (30, 9, 0), (12, 12, 3)])
def test_too_few_scenes(toy, n, n_scenes, n_empty):
    toy(lambda scene: tuple(
        part[:40 * (scene >= n_empty)] for part in separable(scene)))
    model = tiny_model()
    before = state_of(model)
    with pytest.raises(ValueError, match='n_scenes must give ten scenes with '
                                         'pairs, got 9'):
        fit(model, n=n, n_scenes=n_scenes)
    for key, value in model.state_dict().items():
        assert_array_equal(value, before[key])
    assert 'pairs' not in model.provenance


@pytest.mark.parametrize('all_primary', [False, True])
def test_provenance_is_json(toy, all_primary):
    """Also where no pair is of a large galaxy: NaN would not be."""
    toy(lambda scene: (*separable(scene)[:2],
                       torch.full((40,), all_primary)))
    model = fit(tiny_model(), n_epochs=1)
    found = json.loads(json.dumps(model.provenance, allow_nan=False))
    assert found == model.provenance
    assert ('loss_primary' in found['pairs']) == all_primary
    assert {'loss', 'right'} < set(found['pairs'])


def test_progress(toy, capsys):
    toy(separable)
    fit(tiny_model(), n_epochs=1, progress=True)
    assert 'pairs' in capsys.readouterr().err
    fit(tiny_model(), n_epochs=1)
    assert capsys.readouterr().err == ''
