# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the train package: the loop, and recipes.
"""

import json

import numpy as np
import pytest
import torch
from level_toys import SMALL, killed_at, small_model
from numpy.testing import assert_allclose, assert_array_equal
from torch.optim.optimizer import register_optimizer_step_post_hook

from astrodino_seg.inputs.channels import PreprocessSpec
from astrodino_seg.models import Backbone
from astrodino_seg.models.decision import Calibration, Decision
from astrodino_seg.models.load import load_model
from astrodino_seg.simulate.scene import Scene
from astrodino_seg.train import fit_model, supervised, train_from_config
from astrodino_seg.train.recipe import make_model

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


# --------------------------------------------------------------- the loop

def fit(out, n_steps=6, *, seed=0, n_scenes=2, **kwargs):
    return fit_model(small_model(seed), [make_scene(k)
                                         for k in range(n_scenes)],
                     out=out, n_steps=n_steps, **{
                         'n_items': 1, 'crop_size': 32, 'seed': 3,
                         'n_workers': 0, 'progress': False,
                         'save_every': 2, **kwargs})


def lines_of(path):
    """The log without what depends on the clock."""
    return [{k: v for k, v in json.loads(line).items()
             if k not in ('seconds', 'images_per_second', 'waiting')}
            for line in (path / 'log.jsonl').read_text().splitlines()]


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize('options', [
    {'bfloat16': True}, {'schedule': 'steady', 'freeze_backbone': True}],
    ids=['bfloat16', 'steady'])
def test_resume(tmp_path, one_thread, options):
    """A run that was killed ends with the weights of one that was not."""
    whole = fit(tmp_path / 'whole', **options)
    with killed_at(6), pytest.raises(KeyboardInterrupt):
        fit(tmp_path / 'killed', **options)
    assert not (tmp_path / 'killed' / 'model.safetensors').exists()
    torch.manual_seed(99)                  # of no importance
    again = fit(tmp_path / 'killed', **options)
    logs = [lines_of(tmp_path / name) for name in ('whole', 'killed')]
    assert [line['step'] for line in logs[0]] == [1, 2, 3, 4, 5, 6]
    assert logs[0] == logs[1]
    for key, value in whole.state_dict().items():
        assert_array_equal(again.state_dict()[key], value)


def test_stops_after_some_time(tmp_path, one_thread):
    """At a checkpoint, from which it goes on as if it had not stopped."""
    whole = fit(tmp_path / 'one', n_steps=4, milestone_every=2)
    fit(tmp_path / 'two', n_steps=4, milestone_every=2, stop_after=0)
    assert len(lines_of(tmp_path / 'two')) == 2
    assert not (tmp_path / 'two' / 'model.safetensors').exists()
    milestone = load_model(tmp_path / 'two' / 'average.safetensors')
    assert milestone.provenance['steps'] == 2
    again = fit(tmp_path / 'two', n_steps=4, milestone_every=2, seed=1)
    assert lines_of(tmp_path / 'one') == lines_of(tmp_path / 'two')
    milestone = load_model(tmp_path / 'two' / 'average.safetensors')
    for key, value in whole.state_dict().items():
        assert_array_equal(again.state_dict()[key], value)
        assert_array_equal(milestone.state_dict()[key], value)


def test_goes_on_from_a_version_of_before(tmp_path, one_thread, monkeypatch):
    """Whose optimiser was not fused; it is from then on."""
    whole = fit(tmp_path / 'one', n_steps=4)
    adam = torch.optim.AdamW

    def plain(groups, fused=None, **options):
        return adam(groups, **options)

    with monkeypatch.context() as context:
        context.setattr(torch.optim, 'AdamW', plain)
        fit(tmp_path / 'two', n_steps=4, stop_after=0)
    path = tmp_path / 'two' / 'checkpoint.pt'
    state = torch.load(path, weights_only=True)
    group, = state['optimizer']['param_groups']
    assert not group['fused']
    again = fit(tmp_path / 'two', n_steps=4)
    state = torch.load(path, weights_only=True)
    assert state['optimizer']['param_groups'][0]['fused']
    assert state['step'] == 4
    for key, value in whole.state_dict().items():
        assert_allclose(again.state_dict()[key], value, rtol=1e-3,
                        atol=2e-4)


def test_fit(tmp_path, one_thread):
    """What is left: the averaged weights, a log, and where it came from."""
    model = fit(tmp_path, n_steps=3)
    assert not model.training
    assert sorted(p.name for p in tmp_path.iterdir() if 'tfevents' not in
                  p.name) == ['checkpoint.pt', 'log.jsonl',
                              'model.safetensors']
    saved = load_model(tmp_path / 'model.safetensors')
    for key, value in model.state_dict().items():
        assert_array_equal(saved.state_dict()[key], value)
    assert saved.provenance['steps'] == 3
    assert saved.provenance['seed'] == 3
    assert saved.provenance['crop_size'] == 32
    state = torch.load(tmp_path / 'checkpoint.pt', weights_only=True)
    assert state['step'] == 3
    changed = [key for key, value in small_model().state_dict().items()
               if not torch.equal(value, model.state_dict()[key])]
    assert len(changed) > 50
    # a finished run is not gone on with
    fit(tmp_path, n_steps=3)
    assert len((tmp_path / 'log.jsonl').read_text().splitlines()) == 3


def test_average(tmp_path, one_thread):
    """The running average, from the weights of every step."""
    seen = []

    def watch(optimizer, *args):
        seen.append([p.detach().clone() for group in optimizer.param_groups
                     for p in group['params']])

    hook = register_optimizer_step_post_hook(watch)
    model = fit(tmp_path, n_steps=4, average_decay=0.25)
    hook.remove()
    average = [p.detach() for p in small_model().parameters()]
    for k, weights in enumerate(seen):
        decay = min(0.25, (k + 1) / (k + 10))
        average = [decay * old + (1 - decay) * new
                   for old, new in zip(average, weights)]
    assert len(seen) == 4
    for found, expected in zip(model.parameters(), average):
        assert_allclose(found.detach(), expected, rtol=1e-4, atol=1e-6)


def test_the_decision_stays(tmp_path, one_thread):
    """What was calibrated to the old weights does not."""
    model = small_model()
    torch.manual_seed(1)
    model.put_decision(Decision(4, 5, width=6))
    model.calibration = vars(Calibration())
    before = {k: v.clone() for k, v in model.decision.state_dict().items()}
    fit_model(model, [make_scene(0)], out=tmp_path, n_steps=2, n_items=1,
              crop_size=32, n_workers=0, progress=False)
    saved = load_model(tmp_path / 'model.safetensors')
    for key, value in before.items():
        assert_array_equal(saved.decision.state_dict()[key], value)
    assert model.calibration is saved.calibration is None
    assert all(p.requires_grad for p in model.parameters())


def test_the_decision_comes_last(tmp_path, one_thread, monkeypatch):
    """Without it the file of a model that is done is not there."""
    asked = []

    def killed(model, scenes, **options):
        asked.append(options)
        raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr(supervised, 'fit_decision', killed)
        with pytest.raises(KeyboardInterrupt):
            fit(tmp_path, n_steps=2, rates={'gap': 0.5}, n_scenes=11,
                decision={'n_scenes': 11})
    assert asked == [{'rates': {'gap': 0.5}, 'bfloat16': False,
                      'progress': False, 'n_scenes': 11}]
    assert not (tmp_path / 'model.safetensors').exists()

    def put(model, scenes, **options):
        model.put_decision(Decision(4, 5, width=6))

    monkeypatch.setattr(supervised, 'fit_decision', put)
    fit(tmp_path, n_steps=2, rates={'gap': 0.5}, n_scenes=11,
        decision={'n_scenes': 11})
    assert len(lines_of(tmp_path)) == 2         # was done already
    assert load_model(tmp_path / 'model.safetensors').decision is not None


@pytest.mark.parametrize(('change', 'match'), [
    ({'schedule': 'sine'}, "schedule must be one of .*, got 'sine'"),
    ({'rates': {'fog': 1}}, "rates must be some of .* got 'fog'"),
    ({'crop_size': 112}, 'crop_size must be at most the side of the scenes, '
                         '96, got 112')])
def test_impossible(tmp_path, change, match):
    with pytest.raises(ValueError, match=match):
        fit(tmp_path, n_steps=1, **change)


# ----------------------------------------------------------------- config

@pytest.mark.parametrize(('config', 'match'), [
    ({'scene': {}}, r"config has unknown tables \['scene'\]; known are"),
    ({'fit': {'n_steps': 1}}, 'scenes: n_scenes is missing'),
    ({'scenes': {}, 'fit': {'n_steps': 1}}, 'scenes: n_scenes is missing'),
    ({'scenes': {'n_scenes': 1}}, 'fit: n_steps is missing'),
    ({'scenes': {'n_scenes': 0}, 'fit': {'n_steps': 1}},
     'scenes: n_scenes should be greater than or equal to 1, got 0'),
    ({'scenes': {'n_scenes': 1, 'colour': 1}, 'fit': {'n_steps': 1}},
     r"scenes has unknown keys \['colour'\]"),
    ({'scenes': {'n_scenes': 1}, 'fit': {'n_steps': 1, 'colour': 1}},
     r"fit has unknown keys \['colour'\]"),
    ({'scenes': {'n_scenes': 1}, 'fit': {'n_steps': 1},
      'decision': {'colour': 1, 'model': 2}},
     r"decision has unknown keys \['colour', 'model'\]; known are"),
    ({'scenes': {'n_scenes': 1}, 'fit': {'n_steps': 1, 'decision': {}}},
     r"fit has unknown keys \['decision'\]; known are"),
    ({'scenes': {'n_scenes': 1}, 'levels': {'n_steps': 1}},
     r"config has unknown tables \['levels'\]"),
    ({'scenes': {'n_scenes': 1}, 'fit': {'n_steps': 1},
      'model': {'vit': {'dim': 47}}},
     'dim must be a multiple of n_heads=3'),
    ({'scenes': {'n_scenes': 1}, 'fit': {'n_steps': 1},
      'model': {'colour': 1}},
     r"model has unknown keys \['colour'\]"),
    *(({'scenes': {'n_scenes': 1}, 'fit': {'n_steps': 1},
        'model': {name: 3}}, f'{name} must be a table, got 3')
      for name in ('vit', 'planes', 'preprocess', 'decision')),
    ({'scenes': {'n_scenes': 1, 'rates': 3}, 'fit': {'n_steps': 1}},
     'rates must be a table, got 3'),
    ({'scenes': {'n_scenes': 1}, 'fit': {'n_steps': 1},
      'model': {'vit': {'mlp_ratio': 1e5}}}, 'mlp_ratio should be less than'),
    ({'scenes': {'n_scenes': 1}, 'fit': {'n_steps': 1, 'threads': 0}},
     'threads should be greater than or equal to 1, got 0'),
    ({'scenes': {'n_scenes': 1}, 'fit': {'n_steps': 1, 'n_workers': 10**10}},
     'n_workers should be less than or equal to 256')])
def test_bad_config(tmp_path, one_thread, config, match):
    with pytest.raises(ValueError, match=match):
        train_from_config(config, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_config(tmp_path, one_thread):
    """A whole recipe, with scenes from the simulator."""
    pytest.importorskip('galsim')
    config = {
        'model': SMALL,
        'scenes': {'n_scenes': 11, 'size': 64, 'path': str(tmp_path / 's')},
        'fit': {'n_steps': 2, 'n_items': 1, 'crop_size': 32, 'threads': 1,
                'n_workers': 0, 'seed': 1, 'schedule': 'steady',
                'rates': {'photographic': 0.5}, 'progress': False},
        'decision': {'n_epochs': 1, 'seed': 2}}
    # so short a training would find nothing
    model = make_model(SMALL)
    torch.nn.init.constant_(model.head.pixel.bias, -1.0)
    model.save(tmp_path / 'start.safetensors')
    config['model'] = {'start': str(tmp_path / 'start.safetensors')}
    before = json.dumps(config)
    one = train_from_config(config, tmp_path / 'a')
    two = train_from_config(config, tmp_path / 'b')
    assert json.dumps(config) == before
    assert one.decision is not None
    assert len(list((tmp_path / 's').iterdir())) == 11
    saved = load_model(tmp_path / 'a' / 'model.safetensors')
    assert one.state_dict().keys() == saved.state_dict().keys()
    for key, value in one.state_dict().items():
        assert_array_equal(two.state_dict()[key], value)
        assert_array_equal(saved.state_dict()[key], value)
    assert saved.provenance == one.provenance
    assert saved.provenance['decision']['seed'] == 2


def test_too_few_scenes_for_the_decision_is_told_before(tmp_path):
    config = {'scenes': {'n_scenes': 20, 'size': 64},
              'fit': {'n_steps': 1}, 'decision': {'n_scenes': 9}}
    with pytest.raises(ValueError, match='n_scenes must be 10 .* got 9'):
        train_from_config(config, tmp_path / 'run')
    with pytest.raises(ValueError, match='n_scenes must be 10 .* got 2'):
        fit(tmp_path / 'run', decision={})
    assert not (tmp_path / 'run').exists()


# ------------------------------------------------- a pretrained backbone

@pytest.fixture
def backbone(tmp_path):
    """The file of an encoder, none of whose weights are those of a start."""
    torch.manual_seed(11)
    encoder = Backbone.from_spec(vit={'dim': 48, 'depth': 1, 'n_heads': 3},
                      preprocess={'softening': 2.0},
                      provenance={'n_steps': 7})
    with torch.no_grad():
        for param in encoder.parameters():
            param.add_(torch.randn_like(param))
    encoder.save(tmp_path / 'backbone.safetensors')
    return tmp_path / 'backbone.safetensors', encoder


def test_start_from_a_backbone(backbone):
    path, encoder = backbone
    table = {'backbone': str(path), 'head': SMALL['head']}
    model = make_model(table)
    assert table['backbone'] == str(path)       # the recipe is left as it is
    assert model.vit.spec == encoder.vit.spec
    assert model.preprocess == PreprocessSpec(softening=2.0)
    assert model.provenance['backbone'] == {
        'file': 'backbone.safetensors', 'n_steps': 7}
    for key, value in encoder.vit.state_dict().items():
        assert_array_equal(model.vit.state_dict()[key], value)


@pytest.mark.parametrize('key', ['vit', 'preprocess'])
def test_a_backbone_has_its_own_spec(backbone, tmp_path, key):
    config = {'model': {'backbone': str(backbone[0]), key: {}},
              'scenes': {'n_scenes': 20}, 'fit': {'n_steps': 1}}
    with pytest.raises(ValueError, match=f'.{key}.*are those of backbone='):
        train_from_config(config, tmp_path / 'run')


def test_no_backbone(tmp_path):
    config = {'model': {'backbone': str(tmp_path / 'absent')},
              'scenes': {'n_scenes': 20}, 'fit': {'n_steps': 1}}
    with pytest.raises(FileNotFoundError, match='absent'):
        train_from_config(config, tmp_path / 'run')


def test_frozen_backbone(tmp_path, one_thread):
    """The transformer stays as it is, and the head learns."""
    start = small_model().state_dict()
    whole = fit(tmp_path / 'a', n_steps=4, freeze_backbone=True)
    for key, value in whole.state_dict().items():
        if key.startswith('vit.'):
            assert_array_equal(value, start[key])
    assert not torch.equal(whole.head.seed_out.weight,
                           start['head.seed_out.weight'])
    assert all(p.requires_grad for p in whole.parameters())
    state = torch.load(tmp_path / 'a' / 'checkpoint.pt', weights_only=True)
    n_head = sum(not name.startswith('vit.') for name, _ in
                 whole.named_parameters())
    assert len(state['optimizer']['param_groups'][0]['params']) == n_head
