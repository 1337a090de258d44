# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests of the model of the pyramid's levels.
"""

import copy

import numpy as np
import pytest
import torch
from level_toys import SMALL, small_model
from torch.nn import functional as F

from astrodino_seg import load_model
from astrodino_seg.errors import ModelFileError
from astrodino_seg.models.decision import Decision
from astrodino_seg.models.instance import Model

NOT_BINNED = torch.zeros(1, dtype=torch.long)


@pytest.fixture(scope='module')
def model():
    return small_model()


def image(seed=0, side=64):
    return torch.randn(1, 5, side, side,
                       generator=torch.Generator().manual_seed(seed))


def test_shapes(model):
    x = torch.cat([image(0), image(1)])
    maps = model(x, torch.tensor([0, 1]))
    assert maps.heat.shape == (2, 64, 64)
    assert maps.pixels.shape == (2, 64, 64, 12 + 1 + 4 + 2)
    assert [level.shape[1:] for level in maps.pyramid] == [
        (8, 32, 32), (12, 16, 16), (16, 8, 8), (16, 4, 4)]
    embedding, rest, classes, vote = model.head.split_pixels(maps.pixels)
    assert embedding.shape[-1] == 12
    assert rest.shape == (2, 64, 64)
    assert classes.shape[-1] == 4
    assert vote.shape[-1] == 2


def test_parts_of_cells(model):
    """The four pixels of a cell lie where torch puts them."""
    head = model.head
    middle = torch.randn(1, head.pixel.in_features, 6, 5)
    parts = head.pixel(middle.permute(0, 2, 3, 1))
    n = parts.shape[-1] // 4
    # pixel_shuffle has the channel first and the part last
    wanted = F.pixel_shuffle(parts.view(1, 6, 5, 4, n).permute(
        0, 4, 3, 1, 2).reshape(1, 4 * n, 6, 5), 2)
    found = parts.view(1, 6, 5, 2, 2, n).permute(0, 1, 3, 2, 4, 5).reshape(
        1, 12, 10, n)
    assert torch.equal(found.permute(0, 3, 1, 2), wanted)


def test_shifted_by_a_patch(model):
    """Far from the borders a shift of the input is one of the maps."""
    x = image(side=160)
    with torch.inference_mode():
        tokens = torch.zeros(1, 48, 10, 10)     # which see the whole image
        one = model.head(x, tokens, NOT_BINNED)
        two = model.head(x.roll((16, 32), (2, 3)), tokens, NOT_BINNED)
    inner = slice(56, -56)
    moved = one.pixels.roll((16, 32), (1, 2))
    assert torch.allclose(moved[:, inner, inner], two.pixels[:, inner, inner],
                          atol=1e-4)


def test_level_matters(model):
    """Nothing at the start, and something once it has been learned."""
    model, x = copy.deepcopy(model), image()
    with torch.no_grad():
        zero, one = (model(x, torch.tensor([k])).heat for k in (0, 1))
        assert torch.equal(zero, one)
        model.head.level.weight[1] = 1.0
        assert not torch.allclose(zero, model(x, torch.tensor([1])).heat)
        assert torch.equal(zero, model(x, NOT_BINNED).heat)


def test_patches_see_their_borders():
    """With a border, and not without."""
    for border, sees in ((0, False), (8, True)):
        torch.manual_seed(0)
        model = Model(vit={**SMALL['vit'], 'patch_border': border},
                              head=SMALL['head']).eval()
        x = image()
        other = x.clone()
        other[0, 0, 20, 12] += 1        # four pixels from the patch (1, 1)
        with torch.no_grad():
            one, two = (model.vit.patch_embed(a)[0, :, 1, 1]
                        for a in (x, other))
        assert torch.equal(one, two) is not sees


def test_fused(model):
    model, x = copy.deepcopy(model), image()
    for norm in model.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(norm.running_mean)
            torch.nn.init.uniform_(norm.running_var, 0.5, 2)
    with torch.no_grad():
        wanted = model(x, NOT_BINNED)
        found = copy.deepcopy(model).fused()(x, NOT_BINNED)
    assert torch.allclose(found.pixels, wanted.pixels, atol=1e-4)
    assert torch.allclose(found.heat, wanted.heat, atol=1e-4)


def test_fused_is_not_saved(model, tmp_path):
    with pytest.raises(ValueError, match='a fused model cannot be saved'):
        copy.deepcopy(model).fused().save(tmp_path / 'model.safetensors')


def test_rounded_weights():
    """Weights rounded once are those that autocast rounds at each call."""
    once = small_model().fused()
    each = copy.deepcopy(once)
    once.run_in(True)
    assert once.in_bfloat16
    with torch.inference_mode(), torch.autocast('cpu', torch.bfloat16):
        one, other = (model(image(), NOT_BINNED)
                      for model in (once, each))
    assert torch.equal(one.pixels, other.pixels)
    assert torch.equal(one.heat, other.heat)


@pytest.mark.parametrize('half', [False, True])
def test_file(model, tmp_path, half):
    model = copy.deepcopy(model)
    model.put_decision(Decision(3, 5, width=4))
    model.provenance['by'] = 'hand'
    path = tmp_path / 'model.safetensors'
    model.save(path, half=half)
    again = load_model(path)
    assert isinstance(again, Model)
    assert again.spec == model.spec
    assert again.provenance == {'by': 'hand'}
    for key, value in model.state_dict().items():
        np.testing.assert_allclose(again.state_dict()[key], value,
                                   rtol=1e-3 if half else 0, atol=1e-6)


def test_unknown_argument(model, tmp_path):
    path = tmp_path / 'model.safetensors'
    model = copy.deepcopy(model)
    model.spec['wings'] = 2
    model.save(path)
    with pytest.raises(ModelFileError, match='wings'):
        load_model(path)
    assert Model.FORMAT == 'astrodino_seg/2'
