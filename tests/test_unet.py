# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests of the U-Net that stands in the ViT's place.
"""

import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch import nn

from astrodino_seg.model import Model, load_model
from astrodino_seg.unet import UNet

SMALL = {'widths': [4, 6, 8, 10, 12, 14], 'n_blocks': [1, 1, 1, 1, 1, 1],
         'dim': 24}


@pytest.fixture
def unet():
    torch.manual_seed(0)
    return UNet(in_channels=3, **SMALL).eval()


@pytest.mark.parametrize('shape', [(64, 64), (96, 160), (48, 16)])
def test_stride(unet, shape):
    """One feature for each 16 x 16 pixels, whatever the size."""
    x = torch.randn(2, 3, *shape)
    assert unet(x).shape == (2, 24, shape[0] // 16, shape[1] // 16)


def test_reach(unet):
    """A feature sees beyond its own patch, and the coarse path farther."""
    x = torch.randn(1, 3, 256, 256, requires_grad=True)
    unet(x)[0, :, 8, 8].sum().backward()
    seen = x.grad[0].abs().sum(dim=0) > 0
    rows = torch.nonzero(seen.any(dim=1))[:, 0]
    assert rows.min() < 8 * 16 - 64
    assert rows.max() > 9 * 16 + 64


def test_skips(unet):
    """Without the coarse levels the fine ones still get through."""
    def silence(module, args, output):
        return torch.zeros_like(output)

    x = torch.randn(1, 3, 64, 64)
    unet.down[5].register_forward_hook(silence)
    one, two = unet(x), unet(x.flip(-1))
    assert one.std() > 0
    assert not torch.allclose(one, two)


def test_n_blocks():
    """The convolutions are those that are asked for."""
    n = (2, 1, 3, 1, 2, 1)
    unet = UNet(in_channels=5, widths=(4, 4, 4, 4, 4, 4), n_blocks=n)
    convolutions = [m for m in unet.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == sum(n) + 2 + 1
    strided = [m for m in convolutions if m.stride == (2, 2)]
    assert len(strided) == 6


def test_model(tmp_path):
    """The same head on it; the file tells which backbone it is for."""
    torch.manual_seed(1)
    model = Model(unet=SMALL).eval()
    assert not hasattr(model, 'vit')
    x = torch.randn(1, model.preprocess.n_channels, 64, 48)
    with torch.inference_mode():
        maps = model(x)
        assert maps.sky.shape == (1, 1, 64, 48)
        model.save(tmp_path / 'u.safetensors')
        again = load_model(tmp_path / 'u.safetensors')
        assert again.spec == model.spec
        for one, two in zip(maps[:-1], again(x)[:-1]):
            assert_array_equal(one, two)
        fused = again.fused()(x)
        assert_allclose(fused.embedding, maps.embedding, atol=2e-4)


def test_only_one_backbone():
    with pytest.raises(ValueError, match=r'only one of vit=.* and unet={}'):
        Model(vit={'depth': 1}, unet={})
