# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the pretrain.checkpoint module.
"""

import errno
import json
import os
import shutil
from collections import namedtuple

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from astrodino_seg.errors import ModelFileError
from astrodino_seg.train.runner import FORMAT, Checkpoint

SETTINGS = {'n_steps': 9, 'momentum': (0.9, 1.0),
            'objective': {'kind': 'DINO', 'koleo': 0.1}}


def make(folder, *, seed=0, settings=SETTINGS, dim=3):
    """A checkpoint of two modules, one step done."""
    torch.manual_seed(seed)
    modules = {'student': nn.Linear(dim, 2), 'teacher': nn.Linear(dim, 2)}
    frozen = nn.Parameter(torch.zeros(2))       # no state in the optimiser
    optimizer = torch.optim.AdamW([
        {'params': [modules['student'].weight], 'lr': 0.1},
        {'params': [frozen, modules['student'].bias], 'lr': 0.2}])
    step(modules['student'], optimizer)
    return Checkpoint(folder / 'run.safetensors', modules, optimizer,
                      settings)


def step(student, optimizer):
    student(torch.ones(1, student.in_features)).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()


def test_round_trip(tmp_path):
    one, two = make(tmp_path), make(tmp_path, seed=1)
    assert one.read() == (0, 0.0)               # nothing there
    one.write(5, 12.5)
    assert two.read() == (5, 12.5)
    assert os.listdir(tmp_path) == ['run.safetensors']
    for _ in range(2):                          # and both go on alike
        for kind, module in one.modules.items():
            for name, value in module.state_dict().items():
                assert torch.equal(two.modules[kind].state_dict()[name],
                                   value)
        for both in (one, two):
            step(both.modules['student'], both.optimizer)
    assert two.optimizer.param_groups[1]['lr'] == 0.2


def test_it_describes_itself(tmp_path):
    make(tmp_path).write(5, 12.5)
    with safe_open(tmp_path / 'run.safetensors', 'pt') as f:
        metadata, keys = f.metadata(), set(f.keys())
    assert metadata['format'] == FORMAT
    assert json.loads(metadata['step']) == 5
    assert json.loads(metadata['settings']) == {
        **SETTINGS, 'momentum': [0.9, 1.0]}
    assert keys == {'student.weight', 'student.bias', 'teacher.weight',
                    'teacher.bias', *(f'optimizer.{i}.{k}' for i in (0, 2)
                                      for k in ('step', 'exp_avg',
                                                'exp_avg_sq'))}


@pytest.mark.parametrize(('change', 'match'), [
    ({'n_steps': 10}, 'n_steps was 9, is 10'),
    ({'momentum': (0.9, 0.99)}, r'momentum was \[0.9, 1.0\], is \[.*\]'),
    ({'objective': {'kind': 'DINO'}}, 'objective.koleo was 0.1, is None'),
    ({'new': 1}, 'new was None, is 1')])
def test_of_another_run(tmp_path, change, match):
    make(tmp_path).write(5, 12.5)
    other = make(tmp_path, settings={**SETTINGS, **change}, dim=4)
    with pytest.raises(ValueError, match=f'another run; .*{match}$'):
        other.read()


def test_foreign_or_corrupt(tmp_path):
    checkpoint = make(tmp_path)
    save_file({'a': torch.zeros(1)}, checkpoint.path)
    with pytest.raises(ModelFileError, match='has format None'):
        checkpoint.read()
    checkpoint.path.write_bytes(b'nothing of the kind')
    with pytest.raises(ModelFileError, match='not a readable checkpoint'):
        checkpoint.read()


def test_the_old_one_is_not_written_over(tmp_path):
    # who was reading it, or was killed in between, has it whole
    checkpoint = make(tmp_path)
    checkpoint.write(5, 12.5)
    before = checkpoint.path.read_bytes()
    with open(checkpoint.path, 'rb') as stream:
        checkpoint.write(6, 13.0)
        assert stream.read() == before
    assert checkpoint.path.read_bytes() != before


def test_full_disk_leaves_the_old_one(tmp_path, monkeypatch):
    checkpoint = make(tmp_path)
    checkpoint.write(5, 12.5)

    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(OSError, match='no checkpoint at step 6: .*No space'):
        checkpoint.write(6, 13.0)
    assert os.listdir(tmp_path) == ['run.safetensors']
    assert checkpoint.read() == (5, 12.5)


def test_check_folder(tmp_path, monkeypatch):
    checkpoint = make(tmp_path)
    checkpoint.check_folder()
    assert not os.listdir(tmp_path)
    checkpoint.write(1, 1.0)
    # student and teacher of 8 numbers, AdamW's two for each of 10, 4 bytes
    need = 2 * 4 * (2 * 8 + 2 * 10)
    usage = namedtuple('usage', 'free')
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage(need))
    checkpoint.check_folder()
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage(need - 1))
    with pytest.raises(OSError, match='0 MB are free in .* need 0 MB'):
        checkpoint.check_folder()
    checkpoint.path = tmp_path / 'absent' / 'run.safetensors'
    with pytest.raises(OSError, match=r"cannot write to '.*absent'"):
        checkpoint.check_folder()
