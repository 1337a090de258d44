# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the train.methods module.
"""

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from astrodino_seg.models.vit import VisionTransformer
from astrodino_seg.train import DINO, SimDINO
from astrodino_seg.train.losses import (
    alignment_loss,
    coding_rate,
    dino_loss,
    ibot_loss,
    koleo_loss,
    masked_alignment_loss,
    sinkhorn_knopp,
)
from astrodino_seg.train.methods import (
    Projected,
    Projector,
    Student,
    decay_groups,
)
from astrodino_seg.train.runner import start_average

SIZES = {'n_prototypes': 12, 'hidden': 8, 'bottleneck': 6}


@pytest.fixture
def said():
    """What student and teacher say of 4 images, and the mask."""
    rng = torch.Generator().manual_seed(0)

    def unit(*shape):
        x = torch.randn(shape, generator=rng)
        return x / x.norm(dim=-1, keepdim=True)

    mask = torch.rand(2, 4, 3, 3, generator=rng) < 0.4
    n = mask.sum()
    student, teacher = (Projected(unit(v, 4, 12), unit(n, 12), unit(2, 4, 8))
                        for v in (5, 2))
    return student, teacher, mask


def test_dino(said):
    student, teacher, mask = said
    objective = DINO(**SIZES, ibot=0.5, koleo=0.2)
    for _ in range(2):          # the second time with a centre
        cls, patch = objective.cls_centre, objective.patch_centre
        total, parts = objective(student, teacher, mask, 0.05)
        expected = {
            'dino': dino_loss(student.views, (
                (teacher.views - cls.value) / 0.05).softmax(-1)),
            'ibot': ibot_loss(student.patches, (
                (teacher.patches - patch.value) / 0.05).softmax(-1),
                mask.flatten(0, 1)),
            'koleo': (koleo_loss(student.features[0])
                      + koleo_loss(student.features[1])) / 2}
        for name, value in expected.items():
            assert_close(parts[name], value)
        assert_close(total, expected['dino'] + 0.5 * expected['ibot']
                     + 0.2 * expected['koleo'])
        assert {'kl', 'teacher_entropy', 'information',
                'feature_std'} < set(parts)
        objective.end_step()
    assert_close(cls.value, 0.19 * teacher.views.mean(dim=(0, 1)))
    assert set(objective.state_dict()) == {'cls_centre.value',
                                           'patch_centre.value'}


def test_dino_with_sinkhorn_alone(said):
    student, teacher, _ = said
    objective = DINO(**SIZES, ibot=0, koleo=0, centring='sinkhorn')
    assert not objective.patches
    total, parts = objective(student._replace(patches=None),
                             teacher._replace(patches=None), None, 0.05)
    objective.end_step()
    expected = dino_loss(student.views, sinkhorn_knopp(teacher.views, 0.05))
    assert_close(total, expected)
    assert not {'ibot', 'koleo'} & set(parts)
    assert not objective.state_dict()


def test_simdino(said):
    student, teacher, mask = said
    objective = SimDINO(hidden=8, bottleneck=12, ibot=0.5, rate=3.0,
                        distortion=0.1)
    total, parts = objective(student, teacher, mask, 0.05)
    objective.end_step()
    rate = (coding_rate(student.views[0], distortion=0.1)
            + coding_rate(student.views[1], distortion=0.1)) / 2
    expected = (alignment_loss(student.views, teacher.views)
                + 0.5 * masked_alignment_loss(
                    student.patches, teacher.patches, mask.flatten(0, 1))
                - 3 * (4 + 12) / (4 * 12) * rate)
    assert_close(parts['coding_rate'], rate)
    assert_close(total, expected)
    assert objective.projector['n_prototypes'] == 0


@pytest.mark.parametrize(('kind', 'kwargs', 'match'), [
    (DINO, {'centring': 'median'}, "centring must be .*, got 'median'"),
    (DINO, {'n_prototypes': 0}, 'n_prototypes should be .* to 1, got 0'),
    (DINO, {'ibot': -1}, 'ibot should be .* to 0, got -1'),
    (DINO, {'student_temperature': 0.0}, 'student_temperature should be gr'),
    (SimDINO, {'distortion': -0.1}, 'distortion should be .* 0, got -0.1'),
    (SimDINO, {'ibot': float('nan')}, 'ibot should be .* to 0, got nan')])
def test_impossible_values(kind, kwargs, match):
    with pytest.raises(ValueError, match=match):
        kind(**kwargs)


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
    assert [block.drop_path for block in student.vit.blocks] == (
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
