# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the pretrain.log module.
"""

import csv

import pytest
import torch

from astrodino_seg.train import runner as module
from astrodino_seg.train.runner import Log


class OneProcess:
    """Fabric, as far as the log needs it."""

    is_global_zero = True

    @staticmethod
    def all_reduce(values, reduce_op):
        assert reduce_op == 'mean'
        return values


@pytest.fixture
def clock(monkeypatch):
    """Time that passes when it is told to."""
    now = [100.0]
    monkeypatch.setattr(module.time, 'monotonic', lambda: now[0])
    monkeypatch.setattr(module, '_tensorboard', lambda *args: None)
    return now


def read(folder):
    with open(folder / 'log.csv', newline='') as stream:
        return [{k: float(v) for k, v in row.items()}
                for row in csv.DictReader(stream)]


def test_means_and_throughput(tmp_path, clock):
    log = Log(tmp_path, 0, 16, OneProcess)
    for value in (1., 2., 6.):
        with log.waiting():
            clock[0] += 0.5
        clock[0] += 1.5
        log.add(loss=torch.tensor(value, requires_grad=True),
                kl=torch.tensor(2 * value))
    values = log.write(3, 6.0, {'rate': torch.tensor(0.25)})
    assert values == pytest.approx({
        'seconds': 6, 'loss': 3, 'kl': 6, 'rate': 0.25,
        'images_per_second': 8, 'waiting': 0.25})
    clock[0] += 2
    log.add(loss=torch.tensor(5.), kl=torch.tensor(1.))
    log.write(4, 8.0, {'rate': 0.5})            # of this step alone
    log.close()
    first, second = read(tmp_path)
    assert first == pytest.approx({'step': 3, **values})
    assert (second['step'], second['loss'], second['waiting']) == (4, 5, 0)


def test_it_goes_on(tmp_path, clock):
    log = Log(tmp_path, 0, 16, OneProcess)
    for step in (1, 2, 3, 10):
        clock[0] += 1
        log.add(loss=torch.tensor(float(step)))
        log.write(step, 1.0, {})
    with open(log.path, 'a') as stream:
        stream.write('1,5')                     # the run was killed here
    log = Log(tmp_path, 2, 16, OneProcess)      # from the checkpoint of step 2
    clock[0] += 1
    log.add(loss=torch.tensor(7.))
    log.write(3, 1.0, {})
    assert [(row['step'], row['loss']) for row in read(tmp_path)] == [
        (1, 1), (2, 2), (3, 7)]


def test_it_begins_again(tmp_path, clock):
    log = Log(tmp_path, 0, 16, OneProcess)
    for begin in ('', 'step,loss\n1,2\n', 'ste'):
        log.path.write_text(begin)
        log = Log(tmp_path, 0, 16, OneProcess)
        log.add(loss=torch.tensor(3.))
        log.write(1, 1.0, {})
        assert read(tmp_path)[0]['step'] == 1


def test_tensorboard_has_the_same(tmp_path):
    pytest.importorskip('tensorboard')
    reader = pytest.importorskip(
        'tensorboard.backend.event_processing.event_accumulator')
    log = Log(tmp_path, 0, 16, OneProcess)
    for step in (5, 10):
        log.add(loss=torch.tensor(step / 2))
        log.write(step, 1.0, {'rate': 0.25})
    log.close()
    events = reader.EventAccumulator(str(tmp_path)).Reload()
    rows = read(tmp_path)
    assert set(events.Tags()['scalars']) == set(rows[0]) - {'step'}
    for name in ('loss', 'rate', 'images_per_second'):
        found = events.Scalars(name)
        assert [one.step for one in found] == [5, 10]
        assert [one.value for one in found] == pytest.approx(
            [row[name] for row in rows], rel=1e-5)
