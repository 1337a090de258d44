# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the losses of pretraining: against two-line formulae in float64,
against lightly, and with two processes against one.
"""

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from astrodino_seg.train.losses import (
    Centre,
    alignment_loss,
    all_rows,
    all_sum,
    coding_rate,
    coding_rate_weight,
    dino_loss,
    ibot_loss,
    koleo_loss,
    masked_alignment_loss,
    sinkhorn_knopp,
)

try:
    from lightly import loss as lightly
    from lightly.loss.swav_loss import sinkhorn as lightly_sinkhorn
except Exception as err:  # also RuntimeError of a torchvision for other torch
    lightly = None
    NO_LIGHTLY = f'lightly cannot be imported ({type(err).__name__})'
else:
    NO_LIGHTLY = ''

needs_lightly = pytest.mark.skipif(lightly is None, reason=NO_LIGHTLY)


def randn(*shape, seed=0, dtype=torch.float64):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=rng, dtype=dtype)


def unit(x):
    return x / x.norm(dim=-1, keepdim=True)


def softmax(x):
    e = np.exp(x)
    return e / e.sum(axis=-1, keepdims=True)


def draw_mask(n_images=6, grid=(3, 5), seed=1):
    rng = torch.Generator().manual_seed(seed)
    mask = torch.rand(n_images, *grid, generator=rng) < 0.4
    mask[2] = False                                 # an image without a mask
    return mask


# ---------------------------------------------------------------- DINO

@pytest.mark.parametrize(('n_student', 'n_teacher'), [(2, 2), (5, 2), (1, 2)])
def test_dino_loss(n_student, n_teacher):
    student, logits = randn(n_student, 4, 7), randn(n_teacher, 4, 7, seed=1)
    teacher = torch.from_numpy(softmax(logits.numpy() / 0.04))
    # the mean over pairs of different views and over images, one by one
    terms = [-(t[b] * np.log(softmax(s[b] / 0.1))).sum()
             for i, t in enumerate(teacher.numpy())
             for j, s in enumerate(student.numpy()) if i != j
             for b in range(4)]
    assert_close(dino_loss(student, teacher).item(), np.mean(terms))


def test_dino_loss_of_one_view():
    one = randn(1, 4, 7)
    with pytest.raises(ValueError, match='two different views, got 1 and 1'):
        dino_loss(one, one.softmax(-1))


def test_dino_loss_by_hand():
    # uniform teacher, student with logits 0 and tau log 3: p = 1/4, 3/4
    student = torch.tensor([0, 0.1 * math.log(3)]).expand(2, 1, 2)
    teacher = torch.full((2, 1, 2), 0.5)
    expected = -0.5 * (math.log(1 / 4) + math.log(3 / 4))
    assert_close(dino_loss(student, teacher).item(), expected)


@needs_lightly
def test_dino_equals_lightly():
    theirs = lightly.DINOLoss(output_dim=16, student_temp=0.1,
                              center_momentum=0.9)
    centre = Centre(16, momentum=0.9)
    for step in range(3):
        student = randn(6, 8, 16, seed=step, dtype=torch.float32)
        logits = randn(2, 8, 16, seed=10 + step, dtype=torch.float32)
        expected = theirs(list(logits), list(student), teacher_temp=0.05)
        found = dino_loss(student, centre.softmax(logits, 0.05))
        centre.update()
        assert_close(found, expected)
        assert_close(centre.value, theirs.center.flatten())


# -------------------------------------------------------------- centre

def test_centre():
    centre = Centre(5, momentum=0.8).double()
    logits = [randn(2, 3, 5, seed=k) for k in range(3)]
    expected = torch.zeros(5, dtype=torch.float64)
    for z in logits:
        found = centre.softmax(z, 0.07)
        assert_close(found.numpy(), softmax((z - expected).numpy() / 0.07))
        centre.update()
        expected = 0.8 * expected + 0.2 * z.mean(dim=(0, 1))
        assert_close(centre.value, expected)


def test_centre_of_parts_is_that_of_the_whole():
    one, two = Centre(5), Centre(5)
    logits = randn(7, 5, dtype=torch.float32)
    one.softmax(logits, 0.1)
    two.softmax(logits[:2], 0.1)
    two.softmax(logits[2:], 0.1)
    for centre in (one, two):
        assert not centre.value.any()           # not before the step's end
        centre.update()
    assert_close(one.value, two.value)
    before = one.value.clone()
    one.softmax(logits[:0], 0.1)                # no masked patch in a step
    one.update()
    one.update()
    assert torch.equal(one.value, before)


# ------------------------------------------------------------ Sinkhorn

def test_sinkhorn_knopp():
    logits = randn(2, 4, 6)
    q = np.exp(logits.numpy().reshape(8, 6) / 0.3)
    for _ in range(3):
        q = q / q.sum(axis=0) / 6
        q = q / q.sum(axis=1, keepdims=True) / 8
    found = sinkhorn_knopp(logits, 0.3)
    assert_close(found.numpy(), (8 * q).reshape(2, 4, 6))
    many = sinkhorn_knopp(logits, 0.3, n_iterations=200).flatten(0, 1)
    assert_close(many.sum(dim=0), torch.full((6,), 8 / 6).double())


def test_sinkhorn_knopp_takes_any_temperature():
    logits = randn(64, 16, dtype=torch.float32)
    q = sinkhorn_knopp(logits, 1e-3)
    assert torch.isfinite(q).all()
    assert_close(q.sum(dim=1), torch.ones(64))
    assert sinkhorn_knopp(logits[:0], 0.1).shape == (0, 16)


@needs_lightly
def test_sinkhorn_equals_lightly():
    logits = randn(12, 9, dtype=torch.float32)
    expected = lightly_sinkhorn(logits, iterations=3, epsilon=0.5)
    assert_close(sinkhorn_knopp(logits, 0.5), expected)


# ---------------------------------------------------------------- iBOT

def test_ibot_loss():
    mask = draw_mask()
    n = int(mask.sum())
    student, logits = randn(n, 7), randn(n, 7, seed=1)
    teacher = logits.softmax(dim=-1)
    entropy = -(teacher.numpy() * np.log(softmax(student.numpy() / 0.1))).sum(
        axis=-1)
    image = mask.nonzero()[:, 0].numpy()
    expected = sum(entropy[image == b].mean() for b in np.unique(image)) / 6
    assert_close(ibot_loss(student, teacher, mask).item(), expected)


def test_ibot_loss_without_masks():
    nothing = torch.zeros(0, 7, requires_grad=True)
    loss = ibot_loss(nothing, torch.zeros(0, 7),
                     torch.zeros(4, 3, 5, dtype=torch.bool))
    loss.backward()
    assert loss == 0


@needs_lightly
def test_ibot_equals_lightly():
    mask = draw_mask()
    n = int(mask.sum())
    theirs = lightly.IBOTPatchLoss(output_dim=16, student_temp=0.1)
    centre = Centre(16, momentum=0.9)
    for step in range(3):
        student = randn(n, 16, seed=step, dtype=torch.float32)
        logits = randn(n, 16, seed=10 + step, dtype=torch.float32)
        expected = theirs(logits, student, mask, teacher_temp=0.05)
        found = ibot_loss(student, centre.softmax(logits, 0.05), mask)
        centre.update()
        assert_close(found, expected)
        assert_close(centre.value, theirs.center.value.flatten())


# --------------------------------------------------------------- KoLeo

def test_koleo_loss():
    x = randn(9, 4)
    z = unit(x).numpy()
    far = np.linalg.norm(z[:, None] - z[None], axis=-1) + 9 * np.eye(9)
    assert_close(koleo_loss(x).item(), -np.log(far.min(axis=1)).mean())
    assert_close(koleo_loss(3 * x), koleo_loss(x))


def test_koleo_loss_of_equal_features():
    x = torch.ones(4, 3, requires_grad=True)
    loss = koleo_loss(x)
    loss.backward()
    assert loss.item() == pytest.approx(-math.log(2e-8))
    assert torch.isfinite(x.grad).all()
    with pytest.raises(ValueError, match='two or more are needed, got 1'):
        koleo_loss(torch.ones(1, 3))


@needs_lightly
def test_koleo_equals_lightly():
    x = randn(16, 8, dtype=torch.float32)
    assert_close(koleo_loss(x), lightly.KoLeoLoss()(x))


# ------------------------------------------------------------- SimDINO

def test_alignment_loss():
    student, teacher = unit(randn(4, 3, 8)), unit(randn(2, 3, 8, seed=1))
    terms = [((student[j, b] - teacher[i, b])**2).sum() / 2
             for i in range(2) for j in range(4) if i != j for b in range(3)]
    assert_close(alignment_loss(student, teacher), torch.stack(terms).mean())


def test_masked_alignment_loss():
    mask = draw_mask()
    n = int(mask.sum())
    student, teacher = unit(randn(n, 8)), unit(randn(n, 8, seed=1))
    half = ((student - teacher)**2).sum(dim=-1) / 2
    image = mask.nonzero()[:, 0]
    expected = sum(half[image == b].mean() for b in image.unique()) / 6
    assert_close(masked_alignment_loss(student, teacher, mask), expected)


def test_coding_rate():
    z = unit(randn(12, 5))
    moment = z.numpy().T @ z.numpy() / 12
    expected = np.linalg.slogdet(np.eye(5) + 5 / 0.2 * moment)[1] / 2
    assert_close(coding_rate(z, distortion=0.2).item(), expected)
    # all alike: one direction; along all axes: each has 1/5 of the moment
    alike = unit(torch.ones(12, 5).double())
    assert_close(coding_rate(alike, distortion=0.2).item(),
                 math.log(1 + 25) / 2)
    axes = torch.eye(5).double()
    assert_close(coding_rate(axes, distortion=0.2).item(),
                 5 * math.log(1 + 5) / 2)


def test_coding_rate_weight():
    assert coding_rate_weight(8, 2) == 10 / 16


# ------------------------------------------------------- several processes

def losses_of(network, x, mask):
    """All losses of a batch of inputs (V, B, 3), with their gradients."""
    out = {}
    teacher = Centre(6), Centre(6)
    logits, hidden = network(x).detach() * 0.5, mask[:, 0, 0]
    for name, make in {
            'dino': lambda z: dino_loss(z, teacher[0].softmax(
                logits[:2], 0.1)),
            'sinkhorn': lambda z: dino_loss(z, sinkhorn_knopp(
                logits[:2], 0.1)),
            'ibot': lambda z: ibot_loss(z[0][hidden], teacher[1].softmax(
                logits[0][hidden], 0.1), mask),
            'koleo': lambda z: koleo_loss(z[0]),
            'coding_rate': lambda z: coding_rate(unit(z[0]))}.items():
        network.zero_grad()
        loss = make(network(x))
        loss.backward()
        out[name] = loss.detach(), network.weight.grad.clone()
    for k, centre in enumerate(teacher):
        centre.update()
        out[f'centre {k}'] = centre.value, centre.value
    out['sum'] = all_sum(x.sum()), x.sum()
    out['rows'] = all_rows(x[0]), x[0].sum()
    return out


def problem():
    torch.manual_seed(3)
    network = nn.Linear(3, 6)
    x = randn(3, 8, 3, seed=4, dtype=torch.float32)
    mask = torch.tensor([1, 0, 1, 1, 0, 0, 0, 1]).bool()[:, None, None]
    return network, x, mask


def process(rank, path):
    """What each of two processes does: half of the batch."""
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{path}/meet', rank=rank, world_size=2)
    network, x, mask = problem()
    mine = slice(4 * rank, 4 * rank + 4)
    torch.save(losses_of(network, x[:, mine], mask[mine]),
               f'{path}/{rank}.pt')
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def test_two_processes_equal_one(tmp_path):
    code = ('import sys, test_train_ssl_losses as tests; '
            'tests.process(int(sys.argv[1]), sys.argv[2])')
    both = [subprocess.Popen([sys.executable, '-c', code, str(rank),
                              str(tmp_path)], cwd=Path(__file__).parent)
            for rank in range(2)]
    assert [p.wait(timeout=300) for p in both] == [0, 0]
    found = [torch.load(tmp_path / f'{rank}.pt', weights_only=True)
             for rank in range(2)]
    expected = losses_of(*problem())
    assert len(expected) == 9
    for name, (value, gradient) in expected.items():
        parts = [part[name] for part in found]
        mean = sum(part[0] for part in parts) / 2
        assert_close(mean, value, msg=lambda m, n=name: f'{n}: {m}')
        if name not in ('dino', 'sinkhorn', 'ibot'):    # means of their own
            assert_close(parts[0][0], parts[1][0])
        if name in ('sum', 'rows'):
            continue
        # DistributedDataParallel takes the mean of the gradients
        assert_close(sum(part[1] for part in parts) / 2, gradient,
                     msg=lambda m, n=name: f'{n}: {m}')
