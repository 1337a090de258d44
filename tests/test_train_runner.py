# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the train.runner module and schedules.
"""

import errno
import json
import math
import os
import shutil
from collections import namedtuple

import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn
from torch.testing import assert_close

from astrodino_seg.errors import ModelFileError
from astrodino_seg.train import runner
from astrodino_seg.train.runner import (
    Run,
    make_fabric,
    move_average,
    start_average,
)
from astrodino_seg.train.ssl import cosine, ramp, warmup_cosine
from astrodino_seg.train.supervised import cosine_rate, steady_rate

pytest.importorskip('lightning_fabric')

SETTINGS = {'n_steps': 9, 'momentum': (0.9, 1.0),
            'objective': {'kind': 'DINO', 'koleo': 0.1}}


# ------------------------------------------------------------ schedules

def test_ramp():
    assert [ramp(step, 4, 0.04, 0.08) for step in (0, 1, 2, 4, 9)] == (
        pytest.approx([0.04, 0.05, 0.06, 0.08, 0.08]))
    assert ramp(0, 0, 0.04, 0.07) == 0.07           # no warm-up


def test_cosine():
    # 0, 60, 90, 180 degrees of 7 steps
    found = [cosine(step, 7, 0.996, 1.0) for step in (0, 2, 3, 6)]
    assert found == pytest.approx([0.996, 0.997, 0.998, 1.0])
    assert cosine(6, 7, 0.04, 0.4) == 0.4
    assert cosine(0, 1, 0.2, 0.3) == 0.2


def test_warmup_cosine():
    rates = [warmup_cosine(step, 11, peak=0.8, warmup=3, end=0.2)
             for step in range(11)]
    assert rates[:4] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert rates[10] == pytest.approx(0.2)
    middle = 0.2 + 0.6 * 0.5 * (1 + math.cos(math.pi * 4 / 7))
    assert rates[7] == pytest.approx(middle)
    assert rates[3:] == sorted(rates[3:], reverse=True)
    assert warmup_cosine(0, 5, peak=0.8, warmup=0) == 0.8


def test_cosine_rate():
    rates = [cosine_rate(step, 1200, peak=2.0, warmup=200)
             for step in range(1201)]
    assert_allclose([rates[k] for k in (0, 99, 199, 200)],
                    [0.01, 1.0, 2.0, 2.0])
    assert_allclose(rates[700], 0.02 + 0.99)    # half of the cosine
    assert_allclose(rates[1200], 0.02)
    assert rates[:200] == sorted(rates[:200])
    assert rates[200:] == sorted(rates[200:], reverse=True)


def test_steady_rate():
    rates = [steady_rate(k, 1000, peak=2.0, warmup=100) for k in range(1000)]
    assert_allclose(rates[0], 0.02)
    assert_allclose(rates[99:800], 2.0)
    assert_allclose(rates[900], 1.0)
    assert rates[800:] == sorted(rates[800:], reverse=True)
    assert steady_rate(0, 1000, peak=2.0, warmup=0) == 2.0


# ----------------------------------------------------------------- runs

class Toy:
    """A training of a line, of which each step can be looked at."""

    def __init__(self, out, *, seed=0, dim=3, n_steps=6, settings=SETTINGS,
                 **options):
        torch.manual_seed(seed)
        self.model = nn.Linear(dim, 2)
        self.average = start_average(self.model)
        unused = nn.Parameter(torch.zeros(2))   # no state in the optimiser
        self.optimizer = torch.optim.AdamW([
            {'params': [self.model.weight], 'lr': 0.1},
            {'params': [unused, self.model.bias], 'lr': 0.2}])
        self.run = Run(out, make_fabric('cpu'), {
            'model': self.model, 'average': self.average}, self.optimizer,
            settings, n_steps=n_steps, **{
                'batch_size': 16, 'save_every': 2, 'same': True,
                'progress': False, **options})

    def go(self, each=lambda step: None):
        """All steps; ``each`` is called in the middle of each of them."""
        batches = iter(range(99))
        for step in self.run.steps():
            self.run.load(batches)
            x = torch.full((1, self.model.in_features), 1.0 + step)
            loss = self.model(x).square().mean()
            self.optimizer.zero_grad()
            loss.backward()
            each(step)
            self.optimizer.step()
            move_average(self.average, self.model, 0.5)
            self.run.add(loss=loss, twice=2 * loss)
            self.run.note(1.0, rate=torch.tensor(0.25))
        return self


def read(folder):
    return [json.loads(line) for line in
            (folder / 'log.jsonl').read_text().splitlines()]


def same(one, two):
    return all(torch.equal(value, second.state_dict()[key])
               for first, second in ((one.model, two.model),
                                     (one.average, two.average))
               for key, value in first.state_dict().items())


def kill(last):
    def each(step):
        if step == last:
            raise KeyboardInterrupt
    return each


@pytest.mark.parametrize('last', [1, 2, 5])
def test_it_goes_on(tmp_path, last):
    whole = Toy(tmp_path / 'whole').go()
    with pytest.raises(KeyboardInterrupt):
        Toy(tmp_path / 'killed').go(kill(last))
    # other weights to begin with: the checkpoint's count
    again = Toy(tmp_path / 'killed', seed=5 if last > 1 else 0)
    assert again.run.step == last // 2 * 2
    again.go()
    assert same(whole, again)
    logs = [[{k: line[k] for k in ('step', 'loss', 'twice', 'rate')}
             for line in read(tmp_path / name)]
            for name in ('whole', 'killed')]
    assert logs[0] == logs[1]
    assert [line['step'] for line in logs[0]] == [1, 2, 3, 4, 5, 6]
    assert again.optimizer.param_groups[1]['lr'] == 0.2
    # what is over is not gone on with
    assert same(whole, Toy(tmp_path / 'killed', seed=7).go(kill(0)))


def test_it_stops_in_time(tmp_path):
    """At a checkpoint, from which it goes on as if it had not stopped."""
    whole = Toy(tmp_path / 'whole').go()
    part = Toy(tmp_path / 'part', stop_after=0).go()
    assert (part.run.step, part.run.is_over) == (2, False)
    again = Toy(tmp_path / 'part', seed=5).go()
    assert again.run.is_over
    assert same(whole, again)


def test_a_checkpoint_describes_itself(tmp_path):
    toy = Toy(tmp_path).go()
    state = torch.load(tmp_path / 'checkpoint.pt', weights_only=True)
    assert state['format'] == runner.FORMAT
    assert state['step'] == 6
    assert state['settings'] == {**SETTINGS, 'momentum': [0.9, 1.0]}
    assert state['average'].keys() == toy.average.state_dict().keys()
    assert not list(tmp_path.glob('*.part'))


@pytest.mark.parametrize(('change', 'match'), [
    ({'n_steps': 10}, 'n_steps was 9, is 10'),
    ({'momentum': (0.9, 0.99)}, r'momentum was \[0.9, 1.0\], is \[.*\]'),
    ({'objective': {'kind': 'DINO'}}, 'objective.koleo was 0.1, is None'),
    ({'new': 1}, 'new was None, is 1')])
def test_of_another_run(tmp_path, change, match):
    Toy(tmp_path).go()
    with pytest.raises(ValueError, match=f'another run; .*{match}$'):
        Toy(tmp_path, settings={**SETTINGS, **change}, dim=4)
    Toy(tmp_path, settings={**SETTINGS, **change}, same=False)


def test_foreign_or_corrupt(tmp_path):
    path = tmp_path / 'checkpoint.pt'
    torch.save({'a': torch.zeros(1)}, path)
    with pytest.raises(ModelFileError, match='has format None'):
        Toy(tmp_path)
    path.write_bytes(b'nothing of the kind')
    with pytest.raises(ModelFileError, match='not a readable checkpoint'):
        Toy(tmp_path)


def test_rates_and_kernels_are_those_of_now(tmp_path):
    """And not those of the machine that wrote the checkpoint."""
    whole = Toy(tmp_path / 'whole').go()
    with pytest.raises(KeyboardInterrupt):
        Toy(tmp_path / 'old').go(kill(4))
    path = tmp_path / 'old' / 'checkpoint.pt'
    state = torch.load(path, weights_only=True)
    for group in state['optimizer']['param_groups']:
        group.update(fused=True, lr=7.0)
    torch.save(state, path)
    assert same(whole, Toy(tmp_path / 'old', seed=5, same=False).go())


def test_the_old_one_is_not_written_over(tmp_path):
    """Who was reading it, or was killed in between, has it whole."""
    toy = Toy(tmp_path).go()
    before = toy.run.path.read_bytes()
    with open(toy.run.path, 'rb') as stream:
        toy.run.step = 7
        toy.run.save()
        assert stream.read() == before
    assert toy.run.path.read_bytes() != before


def test_full_disk_leaves_the_old_one(tmp_path, monkeypatch):
    toy = Toy(tmp_path).go()
    before = toy.run.path.read_bytes()

    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(OSError, match='no checkpoint at step 6: .*No space'):
        toy.run.save()
    assert not list(tmp_path.glob('*.part'))
    assert toy.run.path.read_bytes() == before


def test_folder_is_checked(tmp_path, monkeypatch):
    # model and average of 8 numbers, AdamW's two for each of 10, 4 bytes
    need = 2 * 4 * (2 * 8 + 2 * 10)
    usage = namedtuple('usage', 'free')
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage(need))
    Toy(tmp_path)
    assert not os.listdir(tmp_path)
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage(need - 1))
    with pytest.raises(OSError, match='0 MB are free in .* need 0 MB'):
        Toy(tmp_path)
    (tmp_path / 'file').write_text('')
    with pytest.raises(OSError, match='file'):
        Toy(tmp_path / 'file')


def test_a_loss_that_is_not_finite(tmp_path):
    toy = Toy(tmp_path)

    def each(step):
        if step == 3:
            toy.model.bias.grad.fill_(torch.nan)

    with pytest.raises(FloatingPointError, match='step 4: the loss is nan'):
        toy.go(each)
    assert torch.load(tmp_path / 'checkpoint.pt',
                      weights_only=True)['step'] == 4


def test_a_gradient_that_is_not_finite(tmp_path):
    toy = Toy(tmp_path)

    def go():
        for step in toy.run.steps():
            toy.run.add(loss=torch.tensor(1.0))
            toy.run.note(torch.inf if step == 1 else 1.0)

    with pytest.raises(FloatingPointError, match=(
            'step 1: the loss is 1 and the norm of its gradient inf')):
        go()


@pytest.mark.parametrize('lost', ['average', 'optimizer', 'step'])
def test_a_checkpoint_without_a_part(tmp_path, lost):
    Toy(tmp_path).go()
    path = tmp_path / 'checkpoint.pt'
    state = torch.load(path, weights_only=True)
    del state[lost]
    torch.save(state, path)
    with pytest.raises(ModelFileError, match=f"another run.*'{lost}'"):
        Toy(tmp_path)


def test_a_checkpoint_that_was_damaged(tmp_path):
    Toy(tmp_path).go()
    path = tmp_path / 'checkpoint.pt'
    whole = path.read_bytes()
    for broken in (whole[:-9], whole[:999], b'',
                   whole.replace(b'seconds', b'\xff' * 7)):
        path.write_bytes(broken)
        with pytest.raises(ModelFileError, match='not a readable checkpoint'):
            Toy(tmp_path)


def test_a_checkpoint_of_another_network(tmp_path):
    Toy(tmp_path).go()
    with pytest.raises(ModelFileError, match='of another run; give another'):
        Toy(tmp_path, dim=4)


# ------------------------------------------------------------------ log

@pytest.fixture
def clock(monkeypatch):
    """Time that passes when it is told to."""
    now = [100.0]
    monkeypatch.setattr(runner.time, 'monotonic', lambda: now[0])
    return now


def test_means_and_throughput(tmp_path, clock):
    toy = Toy(tmp_path, n_steps=4, log_every=3, save_every=9)

    def batches():
        while True:
            clock[0] += 0.5
            yield

    values, source = [1.0, 2.0, 6.0, 5.0], batches()
    for step in toy.run.steps():
        toy.run.load(source)
        clock[0] += 1.5
        loss = torch.tensor(values[step], requires_grad=True)
        toy.run.add(loss=loss, kl=2 * loss)
        toy.run.note(0.5, rate=torch.tensor(0.25))
    line, = read(tmp_path)
    assert line == pytest.approx({
        'step': 3, 'seconds': 6, 'loss': 3, 'kl': 6, 'gradient': 0.5,
        'rate': 0.25, 'images_per_second': 8, 'waiting': 0.25})


def test_what_is_measured_is_logged(tmp_path):
    seen = []
    toy = Toy(tmp_path, measure=lambda step: {} if step % 2 else {'pq': .5},
              watch=lambda step, values: seen.append((step, values['loss'])))
    toy.go()
    lines = read(tmp_path)
    assert ['pq' in line for line in lines] == [False, True] * 3
    assert [step for step, _ in seen] == [1, 2, 3, 4, 5, 6]
    assert [loss for _, loss in seen] == pytest.approx(
        [line['loss'] for line in lines], rel=1e-5)


@pytest.mark.parametrize('begin', ['', '{"step": 1}\n{"ste', 'step,loss\n'])
def test_the_log_begins_again(tmp_path, begin):
    """A line that a killed run broke off, or of another format, goes."""
    (tmp_path / 'log.jsonl').write_text(begin)
    Toy(tmp_path, n_steps=1).go()
    line, = read(tmp_path)
    assert line['step'] == 1
    assert 'loss' in line


def test_tensorboard_has_the_same(tmp_path):
    pytest.importorskip('tensorboard')
    reader = pytest.importorskip(
        'tensorboard.backend.event_processing.event_accumulator')
    Toy(tmp_path, log_every=2).go()
    events = reader.EventAccumulator(str(tmp_path)).Reload()
    rows = read(tmp_path)
    assert set(events.Tags()['scalars']) == set(rows[0]) - {'step'}
    for name in ('loss', 'rate', 'images_per_second'):
        found = events.Scalars(name)
        assert [one.step for one in found] == [2, 4, 6]
        assert [one.value for one in found] == pytest.approx(
            [row[name] for row in rows], rel=1e-5)


def test_progress(tmp_path, capsys):
    """Steps, time left, loss and throughput."""
    Toy(tmp_path, n_steps=2, progress=True).go()
    last = capsys.readouterr().err.split('\r')[-1]
    assert '2/2' in last
    assert '<00:00' in last
    assert f'loss={read(tmp_path)[-1]["loss"]:.3f}' in last
    assert 'images_s=' in last


# -------------------------------------------------- averages and devices

def test_average_follows():
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    average = start_average(model)
    start = {k: v.clone() for k, v in model.state_dict().items()}
    assert not any(p.requires_grad for p in average.parameters())
    assert all(p.requires_grad for p in model.parameters())
    with torch.no_grad():
        for value in model.state_dict().values():
            value.add_(1)
    for decay in (0.9, 0.5, 1.0):
        move_average(average, model, decay)
    # after 0.9 it is at 0.1, after 0.5 half way from there to 1
    for name, value in average.state_dict().items():
        assert_close(value, start[name] + (
            0.55 if value.is_floating_point() else 1))


@pytest.mark.parametrize(('options', 'match'), [
    ({'device': 'abacus'}, 'invalid accelerator name: .*abacus'),
    ({'bfloat16': 'no'}, 'bfloat16 must be True, False or None'),
    pytest.param({'device': 'cuda:1'}, "no GPU for 'cuda:1'",
                 marks=pytest.mark.skipif(torch.cuda.is_available(),
                                          reason='there is one'))])
def test_no_such_device(options, match):
    with pytest.raises(ValueError, match=match):
        make_fabric(**options)
