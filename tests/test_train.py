# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the train package.
"""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from astrodino_seg.heads import DenseMaps
from astrodino_seg.inference import find_seeds
from astrodino_seg.model import Model, load_model
from astrodino_seg.preprocess import PreprocessSpec
from astrodino_seg.simulate import Scene
from astrodino_seg.train import (
    fit_model,
    losses,
    supervised,
    train_from_config,
)
from astrodino_seg.train.losses import (
    WEIGHTS,
    _with_own_seeds,
    centre_focal_loss,
    grouping_losses,
    heat_target,
)
from astrodino_seg.train.supervised import learning_rate
from astrodino_seg.train.targets import (
    CropDataset,
    Sample,
    _dihedral,
    _turn_points,
    make_sample,
)

FEW = settings(deadline=None, max_examples=20)
SIZE = 96


def make_scene(seed, size=SIZE, n=7):
    """Gaussians with exact owners; needs no GalSim."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    width = rng.uniform(2, 5, n)
    width[0] = 11
    x0, y0 = rng.uniform(5, size - 6, (2, n))
    parts = rng.uniform(8, 40, n)[:, None, None] * np.exp(
        -((x - x0[:, None, None])**2 + (y - y0[:, None, None])**2)
        / (2 * width[:, None, None]**2))
    sn = np.sqrt(2) * parts
    order = np.argsort(-sn, axis=0)[:3]
    own = np.take_along_axis(sn, order, axis=0)
    return Scene(
        cube=np.stack([parts.sum(axis=0)] * 2).astype(np.float32),
        owner=np.where(own > 1e-3, order + 1, 0).astype(np.int16),
        own_sn=own.astype(np.float32), bands={'g': .48, 'r': .62},
        psf_fwhm=np.array([3.0, 3.0]),
        objects={'x': x0, 'y': y0, 'cls': rng.integers(1, 3, n),
                 'kind': np.array(['field'] * n), 're': width,
                 'primary': np.arange(n) == 0})


def tiny_model(seed=0):
    torch.manual_seed(seed)
    return Model(vit={'dim': 48, 'depth': 1, 'n_heads': 3},
                 head={'widths': (4, 8, 8, 8, 8)})


def crops(n=6, size=48, seed=0):
    data = CropDataset([make_scene(k) for k in range(3)], PreprocessSpec(),
                       n, n_items=1, crop_sizes=(size,), seed=seed)
    return [crop for k in range(n) for crop in data[k]]


# ---------------------------------------------------------------- targets

@FEW
@given(st.integers(0, 7), st.integers(0, 8), st.integers(0, 8))
def test_turn_points(turn, x, y):
    """Points go where a marked pixel of the array goes."""
    marked = np.zeros((2, 9, 9))
    marked[:, y, x] = 1
    new = _turn_points(turn, np.array([x]), np.array([y]), 9)
    assert_array_equal(np.argwhere(_dihedral(turn, marked)[1])[0],
                       [new[1][0], new[0][0]])


def test_eight_turns():
    image = np.arange(9).reshape(3, 3)
    assert len({_dihedral(k, image).tobytes() for k in range(8)}) == 8


def check_sample(sample, size):
    n = len(sample.cls)
    labels = sample.labels
    assert sample.channels.dtype == torch.float32
    assert labels.shape == sample.classes.shape == (size, size)
    assert labels.dtype == sample.classes.dtype == torch.int64
    assert sample.seed_xy.shape == (len(sample.seed_object), 2)
    assert sample.centre.shape == (n, 2)
    assert set(np.unique(labels)) - {-1, 0} == set(range(1, n + 1))
    # the centres first, one an object; every seed lies on its object
    assert_array_equal(sample.seed_object[:n], np.arange(n))
    x, y = sample.seed_xy.long().T
    assert_array_equal(labels[y, x], sample.seed_object + 1)
    assert_array_equal(sample.seed_xy, sample.seed_xy.round())
    for k in range(n):
        assert (sample.classes[labels == k + 1] == sample.cls[k]).all()
        assert (sample.seed_object[n:] == k).any()     # a decoy each
    assert_array_equal(labels == -1, sample.classes == -1)
    assert_array_equal(labels == 0, sample.classes == 0)


@pytest.mark.parametrize('seed', range(4))
def test_crops(seed):
    found = crops(seed=seed)
    assert len(found) == 12
    for sample in found:
        assert sample.channels.shape == (5, 48, 48)
        check_sample(sample, 48)
    assert max(len(sample.cls) for sample in found) > 2


def test_crops_follow_the_image():
    """
    Light lies where the labels and the centres are, however it was turned.
    """
    inside, outside, at_centre, count = [], [], [], 0
    for sample in crops(30):
        detection = sample.channels[0]
        if (sample.labels > 0).any() and (sample.labels == 0).any():
            inside.append(float(detection[sample.labels > 0].mean()))
            outside.append(float(detection[sample.labels == 0].mean()))
        for k, (x, y) in enumerate(sample.centre.round().long().tolist()):
            if 0 <= x < 48 and 0 <= y < 48 and sample.labels[y, x] == k + 1:
                own = detection[sample.labels == k + 1]
                at_centre.append(float((detection[y, x] >= own).float()
                                       .mean()))
                assert_array_equal(sample.seed_xy[k], [x, y])
                count += 1
    assert np.mean(inside) > np.mean(outside) + 0.7
    assert count > 60
    assert np.mean(at_centre) > 0.8


def test_sizes_in_turn():
    """Sides go in turn by step, and one large crop is worth two."""
    data = CropDataset([make_scene(0, size=352)], PreprocessSpec(), 4,
                       n_items=2, crop_sizes=(32, 336))
    assert len(data) == 8
    shapes = [[tuple(c.labels.shape) for c in data[k]] for k in range(4)]
    assert shapes == 2 * [[(32, 32)] * 2] + 2 * [[(336, 336)]]


def test_items_are_fixed():
    data = CropDataset([make_scene(k) for k in range(3)], PreprocessSpec(),
                       3, crop_sizes=(48,), seed=4)
    one, two = data[3], data[3]
    for a, b in zip(one, two):
        for part in vars(a):
            assert_array_equal(getattr(a, part), getattr(b, part))
    assert not np.array_equal(one[0].channels, data[2][0].channels)
    other = CropDataset(data.scenes, PreprocessSpec(), 3, crop_sizes=(48,),
                        seed=5)
    assert not np.array_equal(one[0].channels, other[3][0].channels)


def test_crop_larger_than_scene():
    data = CropDataset([make_scene(0)], PreprocessSpec(), 1,
                       crop_sizes=(112,))
    match = 'crop_sizes must be at most the side of the scenes, 96, got 112'
    with pytest.raises(ValueError, match=match):
        data[0]


def hand_sample(labels, **objects):
    """A sample of given labels and objects on flat channels."""
    labels = np.asarray(labels)
    channels = np.zeros((5, *labels.shape), np.float32)
    n = len(objects.get('id', ()))
    objects = {'id': np.arange(1, n + 1), 'x': np.zeros(n), 'y': np.zeros(n),
               'cls': np.ones(n, int), 'n_pixels': np.full(n, 99),
               **{k: np.array(v) for k, v in objects.items()}}
    own_sn = np.where(labels > 0, 1 + np.arange(labels.size).reshape(
        labels.shape) / labels.size, 0)
    return make_sample(np.random.default_rng(0), channels, labels, own_sn,
                       objects)


def test_make_sample_hand():
    """A visible centre, one beyond the crop, a sliver, and void."""
    labels = np.zeros((16, 16), int)
    labels[2:6, 2:6] = 4
    labels[10:16, 0:5] = 2
    labels[0, 10:15] = 7                   # five pixels are too few
    labels[8, 8:16] = -1
    sample = hand_sample(labels, id=[2, 4, 7], x=[-9., 3.4, 12.],
                         y=[12., 3.6, 0.], cls=[2, 1, 1],
                         n_pixels=[400, 16, 5])
    check_sample(sample, 16)
    assert_array_equal(sample.labels == 1, labels == 2)
    assert_array_equal(sample.labels == 2, labels == 4)
    assert_array_equal(sample.labels == -1, (labels == -1) | (labels == 7))
    # the brightest own pixel where the centre is outside
    assert_array_equal(sample.seed_xy[:2], [[4, 15], [3, 4]])
    assert_allclose(sample.centre, [[-9, 12], [3.4, 3.6]], rtol=1e-6)
    assert_allclose(sample.log_size,
                    np.log(np.sqrt(np.array([400, 16]) / np.pi)), rtol=1e-6)
    assert_array_equal(sample.cls, [2, 1])


def test_empty_sample():
    sample = hand_sample(np.zeros((16, 16), int))
    check_sample(sample, 16)
    assert sample.seed_xy.shape == sample.centre.shape == (0, 2)


def test_many_objects():
    """Objects beyond the limit are void."""
    labels = 1 + np.arange(32 * 32).reshape(32, 32) // 8
    sample = hand_sample(labels, id=np.arange(1, 129))
    check_sample(sample, 32)
    assert len(sample.cls) == 90
    assert (sample.labels == -1).sum() == 38 * 8


# ----------------------------------------------------------------- losses

def test_heat_target():
    """Exactly one at the centres; elsewhere the largest Gaussian."""
    xy = torch.tensor([[10.0, 7], [13, 7], [30, 21], [0, 0]])
    log_size = torch.tensor([1.0, 0.0, 4.0, 2.0])
    target = heat_target(xy, log_size, (12, 18)).double().numpy()
    rows, columns = [3, 3, 10, 0], [5, 6, 15, 0]
    assert (target[rows, columns] == 1).all()
    assert (target == 1).sum() == 4
    y, x = np.mgrid[:12, :18]
    sigma = np.clip(0.06 * np.exp([1.0, 0.0, 4.0, 2.0]), 0.8, 3)
    gauss = np.array([np.exp(-((y - r)**2 + (x - c)**2) / (2 * s**2))
                      for r, c, s in zip(rows, columns, sigma)])
    wanted = gauss.max(axis=0)
    far = wanted < np.exp(-4.5)            # cut beyond 3 sigma
    assert_allclose(target[~far], wanted[~far], rtol=1e-5)
    assert (target[far] <= wanted[far] * 1.001).all()
    assert (heat_target(xy[:0], log_size[:0], (4, 5)) == 0).all()


def test_heat_target_is_found():
    """Seeds found in a perfect heatmap are the centres."""
    xy = torch.tensor([[10.0, 7], [31, 20], [21, 2]])
    target = heat_target(xy, torch.tensor([1.0, 3.0, 2.0]), (16, 24))
    x, y, _ = find_seeds(torch.logit(target, 1e-6), 0.9)
    found = sorted(zip((x - 0.5).tolist(), (y - 0.5).tolist()))
    assert found == sorted((2 * (a // 2), 2 * (b // 2))
                           for a, b in xy.tolist())


@FEW
@given(st.integers(0, 10**6), st.integers(0, 7))
def test_focal_loss(seed, n):
    """Equation 1 of Zhou et al. (2019), pixel by pixel."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 4, (6, 8))
    target = rng.uniform(0, 0.99, (6, 8))
    target.flat[rng.choice(48, n, replace=False)] = 1
    ignore = rng.random((6, 8)) < 0.2
    total = 0
    for value, wanted, skip in zip(logits.flat, target.flat, ignore.flat):
        p = np.clip(1 / (1 + np.exp(-value)), 1e-5, 1 - 1e-5)
        if wanted == 1:
            total += (1 - p)**2 * np.log(p)
        elif not skip:
            total += (1 - wanted)**4 * p**2 * np.log(1 - p)
    found = centre_focal_loss(*map(torch.from_numpy,
                                   (logits, target, ignore)))
    assert_allclose(found, -total / max(n, 4), rtol=1e-9)


def maps_of(model, sample):
    maps = model(sample.channels[None])
    return DenseMaps(*(part[0] for part in maps[:4]),
                     tuple(level[0] for level in maps.pyramid))


def losses_of(model, sample, seed=0):
    return grouping_losses(model.head, maps_of(model, sample), sample,
                           torch.Generator().manual_seed(seed))


def test_losses_are_finite():
    model = tiny_model()
    for sample in crops(3):
        found = losses_of(model, sample)
        assert set(found) <= set(WEIGHTS)
        if len(sample.cls):
            assert set(found) == set(WEIGHTS)
        for value in found.values():
            assert value.shape == ()
            assert torch.isfinite(value)
            assert value >= 0
        total = sum(WEIGHTS[k] * v for k, v in found.items())
        model.zero_grad()
        total.backward()
        for param in model.parameters():
            assert param.grad is None or torch.isfinite(param.grad).all()


@pytest.mark.parametrize('labels', [
    np.zeros((32, 32)), np.full((32, 32), -1),
    np.where(np.arange(32) < 31, -1, 0) * np.ones((32, 1))],
    ids=['sky', 'void', 'nearly void'])
def test_losses_without_objects(labels):
    model = tiny_model()
    found = losses_of(model, hand_sample(labels.astype(int)))
    assert all(torch.isfinite(value) for value in found.values())
    sum(found.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters()
               if p.grad is not None)


def test_void_is_not_learned(monkeypatch):
    """What the maps say in void pixels has no part in the losses."""
    labels = np.zeros((32, 32), int)
    labels[:, 20:] = -1
    labels[4:12, 4:12] = 1
    sample = hand_sample(labels, id=[1], x=[8.], y=[8.])
    model = tiny_model().eval()
    maps = maps_of(model, sample)
    void = sample.labels < 0
    other = maps._replace(
        embedding=torch.where(void, 7.0, maps.embedding),
        sky=torch.where(void, -9.0, maps.sky),
        classes=torch.where(void, 5.0, maps.classes),
        heat=torch.where(void[::2, ::2], 3.0, maps.heat))
    one, two = (grouping_losses(model.head, m, sample,
                                torch.Generator().manual_seed(0))
                for m in (maps, other))
    for key in one:
        assert_allclose(one[key].item(), two[key].item(), rtol=1e-5)


def test_perfect_mask():
    """The mask losses vanish for a perfect score, and not for others."""
    labels = np.zeros((32, 32), int)
    labels[4:12, 4:12] = 1
    labels[16:30, 10:30] = 2
    sample = hand_sample(labels, id=[1, 2], x=[8., 20.], y=[8., 22.])
    sky = torch.where(sample.labels == 0, 30.0, 0.0)[None]

    class Head:
        """Scores that know the labels."""

        @staticmethod
        def score(seeds, embedding, x, y):
            here = sample.labels[y.long(), x.long()]
            return 30.0 * (here == torch.tensor([[1], [2]])).float()

    maps = DenseMaps(None, torch.zeros(3, 32, 32), sky, None, ())
    generator = torch.Generator().manual_seed(0)
    mask, dice = losses._mask_losses(Head, None, maps, sample, generator)
    assert mask < 1e-6
    assert abs(dice) < 1e-3
    worse = maps._replace(sky=torch.full_like(sky, 90.0))
    mask, dice = losses._mask_losses(Head, None, worse, sample, generator)
    assert mask > 5
    assert dice > 0.9


def test_loss_falls():
    """A few steps on one crop."""
    model, sample = tiny_model(), crops(1)[0]
    assert len(sample.cls) > 0
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    values = []
    for _ in range(25):
        found = losses_of(model, sample)
        total = sum(WEIGHTS[k] * v for k, v in found.items())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        values.append(total.item())
    assert np.mean(values[-3:]) < 0.7 * values[0]


# --------------------------------------------------------------- the loop

def test_learning_rate():
    def rate(step):
        return learning_rate(step, 1200, peak=2.0, warmup=200)

    assert_allclose(rate(0), 0.01)
    assert_allclose(rate(99), 1.0)
    assert_allclose(rate(199), 2.0)
    assert_allclose(rate(200), 2.0)
    assert_allclose(rate(700), 0.02 + 0.99)      # half of the cosine
    assert_allclose(rate(1200), 0.02)
    every = np.array([rate(k) for k in range(1200)])
    assert (np.diff(every[:200]) > 0).all()
    assert (np.diff(every[200:]) < 0).all()


def fit(out, n_steps=6, **kwargs):
    return fit_model(tiny_model(), [make_scene(k) for k in range(2)],
                     out=out, n_steps=n_steps, **{
                         'n_items': 1, 'crop_sizes': (32, 48), 'seed': 3,
                         'n_workers': 0, 'progress': False,
                         'save_every': 2, **kwargs})


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_resume(tmp_path, one_thread, monkeypatch):
    """A run that was killed ends with the weights of one that was not."""
    whole = fit(tmp_path / 'whole')
    step, count = supervised._step, []

    def killed(*args, **kwargs):
        count.append(1)
        if len(count) == 6:
            raise KeyboardInterrupt
        return step(*args, **kwargs)

    with monkeypatch.context() as context:
        context.setattr(supervised, '_step', killed)
        with pytest.raises(KeyboardInterrupt):
            fit(tmp_path / 'killed')
    assert not (tmp_path / 'killed' / 'model.safetensors').exists()
    torch.manual_seed(99)                  # of no importance
    again = fit(tmp_path / 'killed')
    logs = [[json.loads(line) for line in (tmp_path / name / 'log.jsonl')
             .read_text().splitlines()] for name in ('whole', 'killed')]
    assert [line['step'] for line in logs[0]] == [0, 1, 2, 3, 4, 5]
    assert [line['step'] for line in logs[1]] == [0, 1, 2, 3, 4, 5]
    for key, value in whole.state_dict().items():
        assert_array_equal(again.state_dict()[key], value)
    for key in ('total', 'heat', 'rate'):
        assert logs[0][-1][key] == logs[1][-1][key]


def test_fit(tmp_path, one_thread):
    """What is left: the averaged weights, a log, and where it came from."""
    model = fit(tmp_path, n_steps=3)
    assert not model.training
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        'checkpoint.pt', 'log.jsonl', 'model.safetensors']
    saved = load_model(tmp_path / 'model.safetensors')
    for key, value in model.state_dict().items():
        assert_array_equal(saved.state_dict()[key], value)
    assert saved.provenance['steps'] == 3
    assert saved.provenance['seed'] == 3
    assert saved.provenance['crop_sizes'] == [32, 48]
    state = torch.load(tmp_path / 'checkpoint.pt', weights_only=True)
    assert state['step'] == 3
    changed = [key for key, value in tiny_model().state_dict().items()
               if not torch.equal(value, model.state_dict()[key])]
    assert len(changed) > 50
    # a finished run is not gone on with
    fit(tmp_path, n_steps=3)
    assert len((tmp_path / 'log.jsonl').read_text().splitlines()) == 3


def test_average(tmp_path, one_thread, monkeypatch):
    """The running average, from the weights of every step."""
    seen, average = [], supervised._average

    def watch(state, model, decay):
        seen.append((model.state_dict()['vit.cls_token'].clone(), decay))
        return average(state, model, decay)

    monkeypatch.setattr(supervised, '_average', watch)
    model = fit(tmp_path, n_steps=4, average_decay=0.25)
    value = tiny_model().state_dict()['vit.cls_token']
    decays = [min(0.25, (k + 1) / (k + 10)) for k in range(4)]
    for (weights, decay), wanted in zip(seen, decays):
        assert_allclose(decay, wanted)
        value = decay * value + (1 - decay) * weights
    assert_allclose(model.state_dict()['vit.cls_token'], value, rtol=1e-4,
                    atol=1e-9)


# ----------------------------------------------------------------- config

@pytest.mark.parametrize(('config', 'match'), [
    ({'scene': {}}, r"config has unknown tables \['scene'\]; known are"),
    ({'fit': {'n_steps': 1}}, "config: 'scenes'"),
    ({'scenes': {}}, 'config: .*n_scenes'),
    ({'scenes': {'n_scenes': 1}}, 'config: .*n_steps'),
    ({'scenes': {'n_scenes': 0}}, r'n_scenes must be in \[1, 1000000\]'),
    ({'scenes': {'n_scenes': 1, 'colour': 1}}, 'config: .*colour'),
    ({'scenes': {'n_scenes': 1}, 'fit': {'n_steps': 1, 'colour': 1}},
     'config: .*colour'),
    ({'scenes': {'n_scenes': 1}, 'model': {'vit': {'dim': 47}}},
     'dim must be a multiple of n_heads=3'),
    ({'scenes': {'n_scenes': 1}, 'model': {'colour': 1}},
     'config: .*colour')])
def test_bad_config(tmp_path, one_thread, config, match):
    with pytest.raises(ValueError, match=match):
        train_from_config(config, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_config(tmp_path, one_thread):
    """A whole recipe, with scenes from the simulator."""
    pytest.importorskip('galsim')
    config = {
        'model': {'vit': {'dim': 48, 'depth': 1, 'n_heads': 3},
                  'head': {'widths': [4, 8, 8, 8, 8]}},
        'scenes': {'n_scenes': 1, 'size': 64, 'path': str(tmp_path / 's')},
        'fit': {'n_steps': 2, 'n_items': 1, 'crop_sizes': [32],
                'n_workers': 0, 'threads': 1, 'seed': 1,
                'progress': False}}
    before = json.dumps(config)
    one = train_from_config(config, tmp_path / 'a')
    two = train_from_config(config, tmp_path / 'b')
    assert json.dumps(config) == before
    for key, value in one.state_dict().items():
        assert_array_equal(two.state_dict()[key], value)
    assert len(list((tmp_path / 's').iterdir())) == 1


def test_sample_is_plain():
    """Samples go from process to process as tensors."""
    assert all(isinstance(part, torch.Tensor)
               for part in vars(crops(1)[0]).values())
    assert isinstance(crops(1)[0], Sample)


def test_own_seeds():
    """Peaks of the heatmap on an object become its decoys, others not."""
    labels = torch.zeros(32, 32, dtype=torch.long)
    labels[8:16, 8:16], labels[20:24, 20:24] = 2, -1
    sample = Sample(torch.zeros(5, 32, 32), labels, labels.clamp(max=1),
                    torch.tensor([[4., 4.], [12., 12.]]),
                    torch.tensor([0, 1]), torch.zeros(2, 2), torch.zeros(2),
                    torch.tensor([1, 2]))
    heat = torch.full((16, 16), -9.)
    for row, column in ((5, 6), (11, 11), (2, 14)):  # object, void, sky
        heat[row, column] = 2.
    found = _with_own_seeds(heat, sample, torch.Generator().manual_seed(0))
    assert found.seed_xy.tolist() == [[4, 4], [12, 12], [12.5, 10.5]]
    assert found.seed_object.tolist() == [0, 1, 1]
    assert len(sample.seed_xy) == 2        # the sample is left as it is
