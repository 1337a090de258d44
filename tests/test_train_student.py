# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for student of pretraining.
"""

import pytest
import torch
from torch.testing import assert_close

from astrodino_seg.models.vit import VisionTransformer
from astrodino_seg.train.methods import Student, decay_groups
from astrodino_seg.train.runner import start_average

PROJECTOR = {'n_prototypes': 20, 'hidden': 16, 'bottleneck': 8}


def make(seed=0, **kwargs):
    torch.manual_seed(seed)
    vit = VisionTransformer(patch_size=8, in_channels=5, dim=24, depth=3,
                            n_heads=3, pos_embed='none', n_registers=2,
                            rope=False)
    student = Student(vit, PROJECTOR, **kwargs)
    with torch.no_grad():
        for param in student.parameters():
            param.add_(0.1 * torch.randn_like(param))
    return student


@pytest.fixture
def batch():
    rng = torch.Generator().manual_seed(1)
    both = torch.randn(2, 3, 5, 32, 24, generator=rng)
    local = torch.randn(4, 3, 5, 16, 16, generator=rng)
    mask = torch.rand(2, 3, 4, 3, generator=rng) < 0.4
    return both, local, mask


def test_views(batch):
    both, local, mask = batch
    student = make().eval()
    out = student(both, local, mask)
    assert out.views.shape == (6, 3, 20)
    assert out.patches.shape == (mask.sum(), 20)
    assert out.features.shape == (2, 3, 24)
    # each view by itself; the global ones have their hidden patches
    hidden = student.vit.forward_features(
        both[1], mask=mask[1], mask_token=student.mask_token)
    assert_close(out.features[1], hidden.cls)
    assert_close(out.views[1], student.cls_projector(hidden.cls))
    plain = student.vit.forward_features(local[2]).cls
    assert_close(out.views[2 + 2], student.cls_projector(plain))
    # the masked patches in the order of mask.nonzero()
    for k, (view, image, row, column) in enumerate(mask.nonzero().tolist()):
        tokens = student.vit.forward_features(
            both[view], mask=mask[view], mask_token=student.mask_token)
        token = tokens.patches[-1][image, :, row, column]
        assert_close(out.patches[k], student.patch_projector(token))


def test_what_is_hidden_is_not_seen(batch):
    both, _, mask = batch
    student = make().eval()
    pixels = mask.repeat_interleave(8, 2).repeat_interleave(8, 3)[:, :, None]
    other = torch.where(pixels, torch.full_like(both, 7), both)
    seen = student(both, mask=mask, hide=False)
    for hide in (True, False):
        one, two = (student(x, mask=mask, hide=hide) for x in (both, other))
        assert torch.equal(one.views, two.views) == hide
    assert_close(seen.views, student(both).views)
    assert seen.patches.shape == (mask.sum(), 20)


def test_without_patches_or_local_views(batch):
    both, local, _ = batch
    student = make(patches=False).eval()
    assert not any('mask_token' in name or 'patch_projector' in name
                   for name, _ in student.named_parameters())
    out = student(both, local[:0])
    assert out.patches is None
    assert_close(out.views, student(both, local).views[:2])


def test_every_parameter_has_a_gradient(batch):
    both, local, mask = batch
    student = make().train()
    out = student(both, local, mask)
    (out.views.pow(3).sum() + out.patches.pow(3).sum()).backward()
    for name, param in student.named_parameters():
        assert param.grad is not None, name
        if 'qkv.bias' not in name:      # the softmax does not see the keys'
            assert param.grad.abs().max() > 0, name


def test_drop_path_is_the_students_alone(batch):
    both = batch[0]
    student = make(drop_path=0.6)
    assert [block.drop_path.rate for block in student.vit.blocks] == (
        pytest.approx([0, 0.3, 0.6]))
    teacher = start_average(student)
    assert not torch.equal(student(both).views, student(both).views)
    assert torch.equal(teacher(both).views, teacher(both).views)


def test_parameter_groups():
    student = make()
    student.mask_token.requires_grad_(False)
    with_decay, without = decay_groups(student)
    assert (with_decay['decays'], without['decays']) == (1, 0)
    names = {id(p): name for name, p in student.named_parameters()}
    found = {names[id(p)] for p in without['params']}
    assert found == {name for name in names.values()
                     if 'norm' in name or name.endswith('bias')}
    assert len(with_decay['params']) + len(found) + 1 == len(names)
