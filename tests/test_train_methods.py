# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the train.methods module: objectives.
"""

import pytest
import torch
from torch.testing import assert_close

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
from astrodino_seg.train.methods import Projected

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
