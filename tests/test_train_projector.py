# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for projector of pretraining.
"""

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from astrodino_seg.train.methods import Projector

try:
    from lightly.models.modules.heads import DINOProjectionHead
except Exception as err:  # also RuntimeError of a torchvision for other torch
    DINOProjectionHead = None
    NO_LIGHTLY = f'lightly cannot be imported ({type(err).__name__})'
else:
    NO_LIGHTLY = ''


@pytest.fixture
def projector():
    torch.manual_seed(0)
    return Projector(12, 20, hidden=16, bottleneck=8)


def test_logits_are_cosines(projector):
    x = torch.randn(3, 5, 12)
    with torch.no_grad():
        projector.prototypes.mul_(7)            # their length has no effect
    hidden = x
    for layer in (0, 2, 4):
        hidden = projector.mlp[layer](hidden)
        hidden = F.gelu(hidden) if layer < 4 else hidden
    expected = F.cosine_similarity(hidden[..., None, :],
                                   projector.prototypes, dim=-1)
    assert projector(x).shape == (3, 5, 20)
    assert_close(projector(x), expected)


@pytest.mark.filterwarnings('ignore:.*weight_norm:FutureWarning')
@pytest.mark.skipif(DINOProjectionHead is None, reason=NO_LIGHTLY)
def test_equals_lightly(projector):
    theirs = DINOProjectionHead(12, 16, 8, 20)
    with torch.no_grad():
        theirs.last_layer.weight_v.copy_(projector.prototypes)
        for ours, name in zip((0, 2, 4), (0, 2, 4)):
            theirs.layers[name].load_state_dict(
                projector.mlp[ours].state_dict())
    x = torch.randn(6, 12)
    assert_close(projector(x), theirs(x))


def test_without_prototypes():
    projector = Projector(12, 0, hidden=16, bottleneck=8, n_layers=2)
    out = projector(torch.randn(6, 12))
    assert projector.n_outputs == 8
    assert len(projector.mlp) == 3
    assert_close(out.norm(dim=-1), torch.ones(6))
    projector.freeze_prototypes()               # nothing to do


def test_cosines_are_float32_under_autocast(projector):
    x = torch.randn(6, 12)
    with torch.autocast('cpu', torch.bfloat16):
        out = projector(x)
    assert out.dtype == torch.float32
    assert_close(out, projector(x), rtol=0, atol=0.02)


def test_frozen_prototypes_stay(projector):
    optimizer = torch.optim.AdamW(projector.parameters(), weight_decay=0.4)
    before = {k: v.clone() for k, v in projector.state_dict().items()}
    for _ in range(2):
        projector(torch.randn(6, 12)).square().sum().backward()
        projector.freeze_prototypes()
        optimizer.step()
        optimizer.zero_grad()
    after = projector.state_dict()
    assert torch.equal(after['prototypes'], before['prototypes'])
    assert not torch.equal(after['mlp.0.weight'], before['mlp.0.weight'])
    projector(torch.randn(6, 12)).square().sum().backward()
    optimizer.step()
    assert not torch.equal(projector.prototypes, before['prototypes'])
