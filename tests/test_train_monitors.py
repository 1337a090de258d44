# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for monitors of pretraining.
"""

import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from astrodino_seg.errors import CollapseWarning
from astrodino_seg.train.losses import (
    dino_loss,
    distribution_state,
    feature_spread,
)
from astrodino_seg.train.ssl import CollapseMonitor

FINE = {'feature_std': 0.8, 'information': 0.5, 'teacher_entropy': 0.6}


def test_distribution_state():
    rng = torch.Generator().manual_seed(0)
    teacher = torch.randn(2, 6, 9, generator=rng).double().softmax(dim=-1)
    student = torch.randn(4, 6, 9, generator=rng).double()
    loss = dino_loss(student, teacher)
    state = distribution_state(teacher, loss)
    p, log_q = teacher.numpy(), (student / 0.1).log_softmax(dim=-1).numpy()
    entropy = -(p * np.log(p)).sum(axis=-1)
    assert_close(state['teacher_entropy'].item(),
                 entropy.mean() / math.log(9))
    kl = [(p[t] * (np.log(p[t]) - log_q[s])).sum(axis=-1).mean()
          for t in range(2) for s in range(4) if s != t]
    assert_close(state['kl'].item(), np.mean(kl))
    mean = p.mean(axis=1, keepdims=True)
    divergence = (p * np.log(p / mean)).sum(axis=-1).mean()
    assert_close(state['information'].item(), divergence / math.log(6))


@pytest.mark.parametrize(('teacher', 'entropy', 'information'), [
    (torch.full((2, 4, 8), 1 / 8), 1, 0),               # all alike
    (torch.eye(8)[[3] * 4].expand(2, 4, 8), 0, 0),      # one for all
    (torch.eye(8)[:4].expand(2, 4, 8), 0, 1)])          # one each
def test_extremes(teacher, entropy, information):
    state = distribution_state(teacher, torch.tensor(0.0))
    assert state['teacher_entropy'] == pytest.approx(entropy, abs=1e-6)
    assert state['information'] == pytest.approx(information, abs=1e-6)


def test_feature_spread():
    rng = torch.Generator().manual_seed(0)
    many = 5 * torch.randn(2, 4000, 16, generator=rng)
    assert feature_spread(many) == pytest.approx(1, abs=0.02)
    assert feature_spread(torch.ones(2, 8, 16)) == pytest.approx(0, abs=1e-6)
    # half at each end of an axis: a standard deviation of 1 in all
    ends = torch.eye(4)[:1] * torch.tensor([[1.], [-1.]])
    assert feature_spread(ends[None]) == pytest.approx(1)


@pytest.mark.parametrize(('values', 'match'), [
    ({'feature_std': 0.001}, 'features are the same for all images'),
    ({'feature_std': math.nan}, 'features are the same'),
    ({'information': 0.001, 'teacher_entropy': 0.99},
     'all prototypes alike .* lower the teacher'),
    ({'information': 0.001, 'teacher_entropy': 0.01},
     "same prototypes to every image .* 'sinkhorn'")])
def test_warnings(values, match):
    monitor = CollapseMonitor(10)
    monitor(9, {**FINE, **values})              # still warming up
    monitor(10, FINE)
    with pytest.warns(CollapseWarning, match=f'step 20: .*{match}'):
        monitor(20, {**FINE, **values})
    monitor(30, {**FINE, **values})             # once is enough


def test_without_prototypes():
    monitor = CollapseMonitor(0)
    monitor(5, {'feature_std': 0.5})
    with pytest.warns(CollapseWarning, match='features are the same'):
        monitor(6, {'feature_std': 0.0})
