# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the train.ssl module.
"""

import copy
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from pretrain_toys import BATCH_SIZE, N_STEPS, VIT, ToyViews, toy_run
from safetensors.torch import load_file
from torch.testing import assert_close
from torch.utils.data import Dataset

from astrodino_seg.errors import CollapseWarning
from astrodino_seg.inputs.channels import PreprocessSpec
from astrodino_seg.models import Backbone, load_backbone
from astrodino_seg.train import DINO, SimDINO, pretrain
from astrodino_seg.train.batches import Batches
from astrodino_seg.train.losses import dino_loss, ibot_loss
from astrodino_seg.train.methods import Student

pytest.importorskip('lightning_fabric')


def read_log(folder):
    rows = [json.loads(line) for line in
            (folder / 'log.jsonl').read_text().splitlines()]
    return {key: np.array([row[key] for row in rows]) for key in rows[0]}


def read_state(folder):
    """The tensors of a checkpoint, by name."""
    state = torch.load(folder / 'checkpoint.pt', weights_only=True)
    out = {f'optimizer.{k}.{key}': value
           for k, one in state['optimizer']['state'].items()
           for key, value in one.items()}
    for part in ('student', 'teacher', 'objective'):
        out |= {f'{part}.{key}': v for key, v in state[part].items()}
    return out


def same_run(one, two):
    """Check that all tensors of two runs are equal to the last bit."""
    for read in (read_state, lambda folder: load_file(
            folder / 'backbone.safetensors')):
        first, second = read(one), read(two)
        assert first.keys() == second.keys()
        for key, value in first.items():
            assert torch.equal(value, second[key]), key
    first, second = read_log(one), read_log(two)
    for key in set(first) - {'seconds', 'images_per_second', 'waiting'}:
        assert np.array_equal(first[key], second[key]), key


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """A run that nothing happened to."""
    folder = tmp_path_factory.mktemp('whole')
    return folder, toy_run(folder)


# ------------------------------------------------------------- learning

@pytest.mark.parametrize('objective', [
    DINO(n_prototypes=32, hidden=32, bottleneck=8),
    DINO(n_prototypes=32, hidden=32, bottleneck=8, centring='sinkhorn'),
    SimDINO(hidden=32, bottleneck=8)], ids=['dino', 'sinkhorn', 'simdino'])
def test_it_learns(tmp_path, objective):
    """The loss falls, and views of one image become alike."""
    options = {'n_steps': 30, 'batch_size': 16, 'peak_rate': 3e-3,
               'log_every': 5, 'temperature': (0.07, 0.07), 'drop_path': 0.0,
               'warmup': 0.0}
    encoder = toy_run(tmp_path, objective=objective, **options)
    log = read_log(tmp_path)
    assert log['loss'][-1] < log['loss'][0] - 0.15
    assert log['ibot'][-1] < log['ibot'][0]
    assert log['feature_std'].min() > 0.1
    assert not encoder.training


def test_one_step(tmp_path):
    """Weights after the first step, from the formulae of each part."""
    options = {'peak_rate': 0.01, 'weight_decay': (0.3, 0.3), 'warmup': 0.0,
               'momentum': (0.75, 0.75), 'temperature': (0.05, 0.05),
               'drop_path': 0.0, 'max_gradient': 0.5}
    toy_run(tmp_path, n_steps=1, objective=DINO(
        n_prototypes=32, hidden=16, bottleneck=8, koleo=0), **options)
    state = read_state(tmp_path)

    torch.manual_seed(0)
    encoder = Backbone.from_spec(vit=VIT)
    torch.manual_seed(0)
    student = Student(encoder.vit, {'n_prototypes': 32, 'hidden': 16,
                                    'bottleneck': 8})
    start = {k: v.clone() for k, v in student.state_dict().items()}
    batch = Batches(ToyViews(BATCH_SIZE), BATCH_SIZE, VIT['patch_size'])[0]
    with torch.no_grad():
        theirs = student(batch.global_views, mask=batch.mask, hide=False)
    ours = student(*batch)
    loss = dino_loss(ours.views, (theirs.views / 0.05).softmax(-1))
    loss = loss + ibot_loss(ours.patches, (theirs.patches / 0.05).softmax(-1),
                            batch.mask.flatten(0, 1))
    loss.backward()
    assert read_log(tmp_path)['loss'] == pytest.approx(loss.item(), rel=1e-5)
    norm = torch.stack([p.grad.norm() for p in student.parameters()]).norm()
    assert norm > 0.5                           # it will be clipped
    moments = [v.norm() for k, v in state.items() if k.endswith('exp_avg')]
    assert_close(10 * torch.stack(moments).norm(), torch.tensor(0.5))
    for name, param in student.named_parameters():
        decay = 0.3 if param.ndim > 1 else 0.0
        gradient = param.grad * 0.5 / norm
        # AdamW: the first step is one of 0.01 down each component's slope
        expected = start[name] * (1 - 0.01 * decay) - 0.01 * gradient / (
            gradient.abs() + 1e-8)
        found = state[f'student.{name}']
        clear = gradient.abs() > 1e-5           # the others are rounding
        assert_close(found[clear], expected[clear], rtol=1e-3, atol=1e-5)
        assert_close(state[f'teacher.{name}'],
                     0.75 * start[name] + 0.25 * found)
    for name, logits in (('cls', theirs.views), ('patch', theirs.patches)):
        assert_close(state[f'objective.{name}_centre.value'],
                     0.1 * logits.flatten(0, -2).mean(dim=0))


def test_teacher_is_what_remains(whole):
    folder, encoder = whole
    state = read_state(folder)
    for name, value in encoder.vit.state_dict().items():
        assert torch.equal(value, state[f'teacher.vit.{name}'])
        if value.ndim > 1:
            assert not torch.equal(value, state[f'student.vit.{name}'])
    again = load_backbone(folder / 'backbone.safetensors')
    assert again.spec == encoder.spec
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
    assert again.provenance['n_steps'] == N_STEPS
    assert again.provenance['objective']['kind'] == 'DINO'
    assert again.provenance['seed'] == 0


def test_the_schedules_are_followed(whole):
    log = read_log(whole[0])
    assert log['step'].tolist() == [1, 2, 3, 4, 5, 6]
    # warm-up of round(0.1 * 6) = 1 step, a cosine for the others
    assert log['learning_rate'][:2] == pytest.approx([2.5e-4, 5e-4])
    assert log['learning_rate'][-1] == pytest.approx(1e-6)
    assert log['weight_decay'][[0, -1]] == pytest.approx([0.04, 0.4])
    assert log['momentum'][[0, -1]] == pytest.approx([0.996, 1])
    assert log['temperature'][:3] == pytest.approx([0.04, 0.055, 0.07])


def test_prototypes_are_frozen_at_first(tmp_path):
    state = []
    for share in (1.0, 0.5):
        toy_run(tmp_path / str(share), frozen_prototypes=share)
        state.append(read_state(tmp_path / str(share)))
    assert not any(key.startswith('optimizer') and state[0][key].shape == (
        32, 8) for key in state[0])
    assert any(key.startswith('optimizer') and state[1][key].shape == (
        32, 8) for key in state[1])
    name = 'student.cls_projector.prototypes'
    teacher = 'teacher.cls_projector.prototypes'
    assert torch.equal(state[0][name], state[0][teacher])
    assert not torch.equal(state[1][name], state[1][teacher])


def test_parts_of_a_batch_equal_the_whole(tmp_path):
    """Without KoLeo, whose neighbours are those of a part."""
    for n_parts in (1, 2):
        toy_run(tmp_path / str(n_parts), n_parts=n_parts, drop_path=0.0,
                objective=DINO(n_prototypes=32, hidden=16, bottleneck=8,
                               koleo=0))
    one, two = (read_state(tmp_path / str(n))
                for n in (1, 2))
    for name in one:
        if name.startswith(('student', 'objective')):
            assert_close(one[name], two[name], rtol=1e-3, atol=1e-5)
    one, two = (read_log(tmp_path / str(n)) for n in (1, 2))
    for name in ('loss', 'gradient'):
        assert one[name] == pytest.approx(two[name], rel=1e-3)


def test_bfloat16_if_asked_for(tmp_path, whole):
    toy_run(tmp_path, bfloat16=True)
    exact, found = read_log(whole[0]), read_log(tmp_path)
    assert not np.array_equal(found['loss'], exact['loss'])
    assert found['loss'] == pytest.approx(exact['loss'], rel=0.05)
    for value in read_state(tmp_path).values():
        assert value.dtype == torch.float32


@pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU')
def test_on_a_gpu(tmp_path, whole):
    """In bfloat16 there, with the same data and masks."""
    encoder = toy_run(tmp_path, device='cuda', n_workers=1)
    exact, found = read_log(whole[0]), read_log(tmp_path)
    assert found['loss'] == pytest.approx(exact['loss'], rel=0.05)
    assert next(encoder.parameters()).device.type == 'cpu'
    for value in read_state(tmp_path).values():
        assert value.dtype == torch.float32


# ------------------------------------------------------------ going on

class Killed(Exception):
    pass


class Killer(ToyViews):
    """Views whose maker fails at an item."""

    def __init__(self, n_items, last):
        super().__init__(n_items)
        self.last = last

    def __getitem__(self, index):
        if index == self.last:
            raise Killed
        return super().__getitem__(index)


@pytest.mark.parametrize('n_done', [1, 2, 5])
def test_a_failed_run_goes_on(tmp_path, whole, n_done):
    views = Killer(N_STEPS * BATCH_SIZE, n_done * BATCH_SIZE + 3)
    with pytest.raises(Killed):
        toy_run(tmp_path, views=views)
    # another encoder to begin with: the checkpoint's counts
    start = n_done // 2 * 2
    toy_run(tmp_path, seed=0 if start == 0 else 5)
    same_run(tmp_path, whole[0])


def test_a_finished_run_is_only_read(tmp_path, whole):
    for name in ('checkpoint.pt', 'log.jsonl'):
        (tmp_path / name).write_bytes((whole[0] / name).read_bytes())
    views = Killer(N_STEPS * BATCH_SIZE, BATCH_SIZE + 1)
    encoder = toy_run(tmp_path, views=views, seed=5)
    same_run(tmp_path, whole[0])
    assert torch.equal(encoder.vit.patch_embed.proj.weight,
                       whole[1].vit.patch_embed.proj.weight)


@pytest.mark.parametrize('number', [
    signal.SIGTERM, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)])
def test_a_killed_run_goes_on(tmp_path, whole, number):
    """A signal in the middle of another process's run."""
    code = ('import sys, time, pretrain_toys as toys\n'
            'class Slow(toys.ToyViews):\n'
            '    def __getitem__(self, index):\n'
            '        time.sleep(0.02)\n'
            '        return super().__getitem__(index)\n'
            'toys.toy_run(sys.argv[1], views=Slow(48))\n')
    child = subprocess.Popen([sys.executable, '-c', code, str(tmp_path)],
                             cwd=Path(__file__).parent)
    checkpoint = tmp_path / 'checkpoint.pt'
    for _ in range(6000):
        if checkpoint.exists() or child.poll() is not None:
            break
        time.sleep(0.02)
    child.send_signal(number)
    assert child.wait(timeout=60) == -number
    assert not (tmp_path / 'backbone.safetensors').exists()
    toy_run(tmp_path)
    same_run(tmp_path, whole[0])


@pytest.mark.slow
def test_torchrun(tmp_path):
    """Two processes do what one does."""
    code = tmp_path / 'run.py'
    code.write_text(
        'import sys, pretrain_toys as toys\n'
        'toys.toy_run(sys.argv[1], drop_path=0.0)\n')
    subprocess.run([sys.executable, '-m', 'torch.distributed.run',
                    '--standalone', '--nproc-per-node', '2', code,
                    tmp_path / 'two'], check=True, timeout=300,
                   env={**os.environ, 'PYTHONPATH': str(
                       Path(__file__).parent)})
    toy_run(tmp_path / 'one', drop_path=0.0)
    one, two = (read_state(tmp_path / name)
                for name in ('one', 'two'))
    for name in one:
        if name.startswith(('student', 'objective')):
            assert_close(one[name], two[name], rtol=1e-3, atol=1e-5)
    one, two = (read_log(tmp_path / name) for name in ('one', 'two'))
    for name in ('loss', 'dino', 'ibot', 'koleo'):
        assert one[name] == pytest.approx(two[name], rel=1e-4)


# ------------------------------------------------------- what goes wrong

class Constant(Dataset):
    """The same for all items."""

    def __len__(self):
        return 400

    def __getitem__(self, index):
        return ToyViews(400, noise=0)[0]


def test_collapse_is_told(tmp_path):
    with pytest.warns(CollapseWarning) as caught:
        toy_run(tmp_path, views=Constant(), objective=DINO(
            n_prototypes=32, hidden=16, bottleneck=8, koleo=0))
    assert 'the features are the same for all images' in str(
        caught[0].message)


def test_a_loss_that_is_not_finite(tmp_path):
    class Broken(ToyViews):
        def __getitem__(self, index):
            views = super().__getitem__(index)
            if index == 3 * BATCH_SIZE:
                views.global_views[0, 0, 0] = torch.nan
            return views

    with pytest.raises(FloatingPointError, match='step 3: the loss is nan'):
        toy_run(tmp_path, views=Broken(48))
    # what was there before is still good
    state = read_state(tmp_path)
    assert all(torch.isfinite(value).all() for value in state.values())


@pytest.mark.parametrize(('kwargs', 'match'), [
    ({'n_steps': 0}, 'n_steps should be .* equal to 1, got 0'),
    ({'n_steps': 7.0}, 'n_steps should be a valid integer, got 7.0'),
    ({'batch_size': 9, 'n_parts': 2}, 'multiple of n_parts=2 .* got 9'),
    ({'save_every': 0}, 'save_every should be .* to 1, got 0'),
    ({'device': 'abacus'}, 'invalid accelerator name: .*abacus'),
    ({'peak_rate': 0.0}, 'peak_rate should be greater than 0, got 0.0'),
    ({'warmup': 1.5}, 'warmup should be less than or equal to 1, got 1.5'),
    ({'momentum': (0.99, 1.01)}, r'momentum should be .* got \(0.99, 1.01'),
    ({'temperature': (0.0, 0.07)}, 'temperature should be .* to 0.0001'),
    ({'mask_ratio': (0.5, 0.1)}, r'must be a range, got \(0.5, 0.1'),
    ({'mask_ratio': (0.1,)}, r'mask_ratio should be 2 numbers, got \(0.1,'),
    ({'peak_rate': '1e-3'}, "peak_rate should be a valid number, got '1e-3'"),
    ({'momentum': 0.996}, 'momentum should be 2 numbers, got 0.996'),
    ({'views': ToyViews(3)}, 'views has 3 items; .* = 48 are needed'),
    ({'views': ToyViews(48, n_channels=3)}, 'the global ones have 3 channels'),
    ({'views': ToyViews(48, sizes=(32, 20))},
     'sides of the local ones must be multiples of patch_size=8, got 20')])
def test_impossible_arguments(tmp_path, kwargs, match):
    with pytest.raises(ValueError, match=match):
        toy_run(tmp_path / 'run', **kwargs)
    assert not (tmp_path / 'run').exists()


def test_views_of_another_preprocessing(tmp_path):
    views = ToyViews(48)
    views.spec = PreprocessSpec(softening=3.0)
    with pytest.raises(ValueError, match='softening=3.0.*softening=1.0'):
        toy_run(tmp_path, views=views)


def test_checkpoint_of_another_architecture(tmp_path, whole):
    (tmp_path / 'checkpoint.pt').write_bytes(
        (whole[0] / 'checkpoint.pt').read_bytes())
    encoder = Backbone.from_spec(vit={**VIT, 'depth': 3})
    before = copy.deepcopy(encoder.state_dict())
    with pytest.raises(ValueError, match='another run; .*depth was 2, is 3'):
        pretrain(encoder, ToyViews(48), out=tmp_path, n_steps=N_STEPS,
                 batch_size=BATCH_SIZE, n_workers=0, device='cpu',
                 progress=False)
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, before[name])
