# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the Vision Transformer.
"""

import math

import pytest
import torch
from torch.testing import assert_close

from astrodino_seg.models.vit import (
    Block,
    VisionTransformer,
    drop_some,
    resample_pos_embed,
    rotary_angles,
    rotate,
)

try:
    from timm import create_model
    from timm.layers import resample_abs_pos_embed
    from timm.models.vision_transformer import VisionTransformer as TimmViT
except Exception as err:  # also RuntimeError of a torchvision for other torch
    TimmViT = None
    NO_TIMM = f'timm cannot be imported ({type(err).__name__})'
else:
    NO_TIMM = ''

needs_timm = pytest.mark.skipif(TimmViT is None, reason=NO_TIMM)

SMALL = {'dim': 48, 'depth': 3, 'n_heads': 3}


def make(*, seed=0, **kwargs):
    """Return a small model in evaluation mode whose weights all matter."""
    torch.manual_seed(seed)
    model = VisionTransformer(**{**SMALL, **kwargs}).eval()
    shake(model)
    return model


def shake(model):
    """Give every parameter a value that is neither 0 nor 1."""
    with torch.no_grad():
        for param in model.parameters():
            param.add_(0.1 * torch.randn_like(param))


def image(height, width, n_bands=3, n_batch=2, seed=1):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(n_batch, n_bands, height, width, generator=rng)


# -------------------------------------------------------- same as timm

CASES = {
    'patch8': ({'patch_size': 8}, {}),
    'patch16': ({'patch_size': 16}, {}),
    'patch14-layer-scale': ({'patch_size': 14, 'layer_scale': 0.5}, {}),
    'registers': ({'patch_size': 16, 'n_registers': 4, 'layer_scale': 0.5},
                  {}),
    'registers-not-embedded': (
        {'patch_size': 8, 'n_registers': 4, 'embed_prefix': False,
         'layer_scale': 0.5}, {'no_embed_class': True}),
    'five-bands-no-embedding': (
        {'patch_size': 8, 'in_channels': 5, 'pos_embed': 'none'}, {}),
    'normed-queries': ({'patch_size': 8, 'qk_norm': True}, {'qk_norm': True}),
    'no-qkv-bias': ({'patch_size': 8, 'qkv_bias': False, 'mlp_ratio': 2.0},
                    {}),
}


@pytest.fixture(params=CASES)
def pair(request):
    """Return our model, timm's with equal weights, and an image."""
    ours, theirs = CASES[request.param]
    patch = ours['patch_size']
    torch.manual_seed(2)
    timm_model = TimmViT(
        img_size=14 * patch, patch_size=patch, embed_dim=SMALL['dim'],
        in_chans=ours.get('in_channels', 3), depth=SMALL['depth'],
        num_heads=SMALL['n_heads'], mlp_ratio=ours.get('mlp_ratio', 4.0),
        qkv_bias=ours.get('qkv_bias', True), num_classes=0,
        init_values=ours.get('layer_scale'),
        reg_tokens=ours.get('n_registers', 0), dynamic_img_size=True,
        pos_embed='none' if ours.get('pos_embed') == 'none' else 'learn',
        **theirs).eval()
    shake(timm_model)
    model = make(**ours)
    model.load_state_dict(timm_model.state_dict(), strict=True)
    return model, timm_model


@needs_timm
@pytest.mark.parametrize('grid', [(14, 14), (9, 17), (20, 16)])
def test_equals_timm(pair, grid):
    model, timm_model = pair
    patch = model.patch_size
    x = image(grid[0] * patch, grid[1] * patch, model.in_channels)
    with torch.inference_mode():
        assert_close(model(x), timm_model.forward_features(x),
                     rtol=0, atol=1e-5)
        features = model.forward_features(x, n_last=2)
        expected = timm_model.forward_intermediates(
            x, indices=2, norm=True, intermediates_only=True)
    for ours, theirs in zip(features.patches, expected, strict=True):
        assert_close(ours, theirs, rtol=0, atol=1e-5)


@needs_timm
@pytest.mark.parametrize(('name', 'kwargs'), [
    ('vit_small_patch8_224.dino', {'patch_size': 8, 'grid_size': (28, 28)}),
    ('vit_small_patch16_224.dino', {}),
    ('vit_small_patch14_dinov2', {'patch_size': 14, 'grid_size': (37, 37),
                                  'layer_scale': 1e-5}),
    ('vit_small_patch14_reg4_dinov2', {
        'patch_size': 14, 'grid_size': (37, 37), 'layer_scale': 1e-5,
        'n_registers': 4, 'embed_prefix': False})])
def test_equals_timm_by_name(name, kwargs):
    timm_model = create_model(name, pretrained=False, num_classes=0,
                              dynamic_img_size=True).eval()
    shake(timm_model)
    model = VisionTransformer(**kwargs).eval()
    model.load_state_dict(timm_model.state_dict(), strict=True)
    x = image(6 * model.patch_size, 8 * model.patch_size, n_batch=1)
    with torch.inference_mode():
        expected = timm_model.forward_features(x)
        assert_close(model(x), expected, rtol=1e-5, atol=1e-5)


@needs_timm
@pytest.mark.parametrize('new_grid', [(14, 14), (7, 9), (30, 21)])
def test_resample_equals_timm(new_grid):
    pos = torch.randn(1, 196, 12)
    expected = resample_abs_pos_embed(pos, new_grid, (14, 14),
                                      num_prefix_tokens=0)
    assert_close(resample_pos_embed(pos, (14, 14), new_grid), expected)


# ------------------------------------------------------------ features

@pytest.mark.parametrize('n_registers', [0, 4])
@pytest.mark.parametrize('rope', [False, True])
def test_features(n_registers, rope):
    model = make(patch_size=8, n_registers=n_registers, rope=rope)
    x = image(40, 24)
    features = model.forward_features(x, n_last=2)
    tokens = model(x)
    n_prefix = 1 + n_registers
    assert tokens.shape == (2, n_prefix + 15, 48)
    assert_close(features.cls, tokens[:, 0])
    assert len(features.patches) == 2
    assert features.patches[0].shape == (2, 48, 5, 3)
    last = features.patches[-1]
    assert_close(last[:, :, 4, 1], tokens[:, n_prefix + 4 * 3 + 1])
    mean = features.patches[0].detach().sub(model.norm.bias[:, None, None])
    mean = mean.div(model.norm.weight[:, None, None]).mean(dim=1)
    assert_close(mean, torch.zeros_like(mean), rtol=0, atol=1e-4)


def cls_attention(attn, x):
    """The row of the CLS token, (B, h, T)."""
    q, k, _ = attn.split_heads(x, None)
    return torch.softmax(torch.einsum('bhd,bhtd->bht', q[:, :, 0], k)
                         / math.sqrt(q.shape[-1]), dim=-1)


def test_attention_is_the_one_used():
    attn = make().blocks[0].attn
    x = torch.randn(2, 7, 48)
    _, _, v = attn.split_heads(x, None)
    row = cls_attention(attn, x)  # (B, h, T)
    mixed = (row[:, :, None] @ v)[:, :, 0].flatten(1)
    assert_close(attn(x)[:, 0], attn.proj(mixed))


def test_normed_queries():
    """Attention does not sharpen as queries and keys grow."""
    attn = make(qk_norm=True, qkv_bias=False).blocks[0].attn
    plain = make(qkv_bias=False).blocks[0].attn
    x = torch.randn(2, 7, 48)
    before, sharp = cls_attention(attn, x), cls_attention(plain, x)
    with torch.no_grad():
        attn.qkv.weight.mul_(100)
        plain.qkv.weight.mul_(100)
    assert_close(cls_attention(attn, x), before, rtol=1e-3, atol=1e-4)
    assert cls_attention(plain, x).amax(-1).mean() > sharp.amax(-1).mean() + .2
    q, _, _ = attn.split_heads(x, None)
    unit = (q - attn.q_norm.bias) / attn.q_norm.weight
    assert_close(unit.mean(-1), torch.zeros(2, 3, 7), rtol=0, atol=1e-5)
    assert_close(unit.pow(2).mean(-1), torch.ones(2, 3, 7), rtol=1e-3,
                 atol=1e-3)


def test_any_size_and_bands():
    model = make(patch_size=4, in_channels=1, grid_size=(6, 6))
    for height, width in ((4, 4), (24, 24), (20, 52)):
        out = model.forward_features(image(height, width, 1)).patches[0]
        assert out.shape == (2, 48, height // 4, width // 4)
        assert torch.isfinite(out).all()


@pytest.mark.parametrize('border', [0, 8])
def test_patches_in_training(border):
    """They are those of the convolution, and so is the gradient."""
    model = make(patch_border=border, pos_embed='none')
    x = image(48, 32)
    found = model.embed(x)[0]
    found.square().sum().backward()
    proj = model.patch_embed.proj
    gradient = proj.weight.grad.clone()
    proj.weight.grad = None
    wanted = proj(x).flatten(2).transpose(1, 2)
    assert_close(found[:, model.n_prefix:], wanted, atol=1e-5, rtol=1e-5)
    wanted.square().sum().backward()
    assert_close(gradient, proj.weight.grad, atol=1e-4, rtol=1e-4)


def test_batch_entries_are_independent():
    model = make(patch_size=8, n_registers=1)
    x = image(16, 16, n_batch=3)
    assert_close(model(x)[1:2], model(x[1:2]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('kwargs', [
    {}, {'n_registers': 2, 'layer_scale': 0.1}, {'rope': True},
    {'qk_norm': True}])
def test_every_parameter_has_a_gradient(kwargs):
    model = make(patch_size=8, grid_size=(2, 2), **kwargs).train()
    # not the plain sum, which the norm makes independent of most weights
    model(image(16, 16)).pow(3).sum().backward()
    for name, param in model.named_parameters():
        assert param.grad is not None, name
        assert torch.isfinite(param.grad).all(), name
        # the softmax does not see a bias that all keys share
        if 'qkv.bias' not in name:
            assert param.grad.abs().max() > 0, name


def test_bfloat16():
    model = make(patch_size=8, rope=True)
    x = image(32, 32)
    with torch.inference_mode(), torch.autocast('cpu', torch.bfloat16):
        out = model(x)
    assert_close(out.float(), model(x), rtol=0, atol=0.3)


@pytest.mark.parametrize('kwargs', [
    {'pos_embed': 'none', 'rope': True}, {'grid_size': (3, 4)}])
def test_mask(kwargs):
    model = make(patch_size=8, n_registers=1, **kwargs)
    x, mask = image(24, 32), torch.zeros(2, 3, 4, dtype=torch.bool)
    mask[0, 1, 2] = mask[1, 0, 0] = True
    token = torch.randn(48)
    # the token stands in the place of the embedded patch, before positions
    plain, grid = model.embed(x)
    tokens, _ = model.embed(x, mask, token)
    bare = model.patch_embed(x).permute(0, 2, 3, 1)
    change = (tokens - plain)[:, 2:].unflatten(1, grid)
    assert_close(change[mask], token - bare[mask])
    assert not change[~mask].any()
    assert not (tokens - plain)[:, :2].any()
    features = model.forward_features(x, mask=mask, mask_token=token)
    assert not torch.allclose(features.cls, model.forward_features(x).cls)
    nothing = model.forward_features(x, mask=torch.zeros_like(mask),
                                     mask_token=token)
    assert torch.equal(nothing.cls, model.forward_features(x).cls)
    with pytest.raises(ValueError, match=r'mask must have the shape '
                                         r'\(2, 3, 4\); got \(2, 4, 3\)'):
        model.forward_features(x, mask=mask.transpose(1, 2),
                               mask_token=token)


# ------------------------------------------------------------- rotary

def test_rotary_angles():
    cos, sin = rotary_angles((3, 5), 8)
    assert cos.shape == sin.shape == (15, 4)
    # row 2, column 3: two waves for the row and two for the column
    angle = torch.tensor([2, 0.2, 3, 0.3])
    assert_close(cos[2 * 5 + 3], angle.cos())
    assert_close(sin[2 * 5 + 3], angle.sin())


def test_rotate_keeps_prefix_and_norm():
    x = torch.randn(2, 3, 2 + 12, 16)
    out = rotate(x, *rotary_angles((3, 4), 16))
    assert torch.equal(out[:, :, :3], x[:, :, :3])  # token 2 is at (0, 0)
    assert not torch.allclose(out[:, :, 3:], x[:, :, 3:])
    assert_close(out.norm(dim=-1), x.norm(dim=-1))
    double = rotate(x.double(), *rotary_angles((3, 4), 16))
    assert double.dtype == torch.float64


def test_rotary_product_depends_on_offset_only():
    q, k = torch.randn(2, 16)
    cos, sin = rotary_angles((12, 15), 16)

    def product(first, second):
        i, j = (row * 15 + col for row, col in (first, second))
        turned = [rotate(t.expand(1, 1, 1, 16), cos[n:n + 1], sin[n:n + 1])
                  for t, n in ((q, i), (k, j))]
        return (turned[0] * turned[1]).sum()

    here = product((1, 2), (4, 9))
    assert_close(product((8, 7), (11, 14)), here, rtol=1e-4, atol=1e-5)
    assert abs(product((1, 2), (9, 4)) - here) > 1e-3


def test_rotary_is_translation_equivariant():
    # an attention layer that may look only at a patch's own 3 x 3 window
    # gives the same answer wherever the window lies
    block = make(rope=True).blocks[0]
    tokens = torch.randn(1, 9, 48)
    outs = []
    for row, col, grid in ((0, 0, (3, 3)), (5, 2, (9, 6)), (30, 40, (33, 43))):
        cos, sin = (part.unflatten(0, grid)[row:row + 3, col:col + 3]
                    .flatten(0, 1) for part in rotary_angles(grid, 16))
        outs.append(block(tokens, (cos, sin)))
    for out in outs[1:]:
        assert_close(out, outs[0], rtol=1e-4, atol=1e-5)


def test_rotary_sees_order():
    model = make(patch_size=8, rope=True, pos_embed='none')
    blind = make(patch_size=8, pos_embed='none')
    blind.load_state_dict(model.state_dict())
    x = image(24, 24)
    swapped = x.clone()
    swapped[..., :8, :8], swapped[..., 16:, 8:16] = (
        x[..., 16:, 8:16], x[..., :8, :8])
    assert_close(blind.forward_features(swapped).cls,
                 blind.forward_features(x).cls, rtol=1e-4, atol=1e-5)
    change = (model.forward_features(swapped).cls
              - model.forward_features(x).cls).detach()
    assert change.abs().max() > 1e-3


# ------------------------------------------------------------ training

def test_drop_path():
    torch.manual_seed(3)
    x = torch.ones(4000, 2, 3)
    out = drop_some(x, 0.25)
    assert out.unique().tolist() == pytest.approx([0, 4 / 3])
    assert torch.equal(out, out[:, :1, :1].expand_as(out))  # whole samples
    assert abs(out.mean() - 1) < 0.05


def test_drop_path_rises_with_depth():
    model = make(depth=5, drop_path=0.4)
    rates = [block.drop_path for block in model.blocks]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    x = image(32, 32)
    assert torch.equal(model(x), model(x))
    model.train()
    assert not torch.equal(model(x), model(x))


def test_initial_weights():
    torch.manual_seed(4)
    model = VisionTransformer(n_registers=4, depth=2, layer_scale=1e-5)
    block = model.blocks[1]
    assert abs(block.attn.qkv.weight.std() - 0.02) < 1e-3
    assert torch.equal(block.mlp.fc1.bias, torch.zeros(1536))
    assert torch.equal(block.ls1.gamma, torch.full((384,), 1e-5))
    assert model.reg_token.abs().max() < 1e-5
    assert abs(model.pos_embed.std() - 0.02) < 1e-3
    assert model.pos_embed.shape == (1, 5 + 196, 384)


def test_block_without_branches_is_identity():
    block = Block(16, 2, mlp_ratio=2, qkv_bias=True, layer_scale=0.0,
                  drop_path=0.0)
    x = torch.randn(2, 5, 16)
    assert torch.equal(block(x), x)


# -------------------------------------------------------------- errors

@pytest.mark.parametrize(('kwargs', 'match'), [
    ({'dim': 50}, 'dim must be a multiple of n_heads=3; got 50'),
    ({'dim': 18, 'rope': True}, 'rope .* multiple of 4; got 6'),
    ({'pos_embed': 'sine'}, "pos_embed must be .*; got 'sine'")])
def test_bad_spec(kwargs, match):
    with pytest.raises(ValueError, match=match):
        make(**kwargs)


@pytest.mark.parametrize(('shape', 'match'), [
    ((3, 32, 32), r'x must have 4 dimensions .* got \(3, 32, 32\)'),
    ((1, 5, 32, 32), 'x must have in_channels=3; got 5'),
    ((1, 3, 32, 40), 'multiples of patch_size=16; got 32 x 40'),
    ((1, 3, 0, 32), 'multiples of patch_size=16; got 0 x 32')])
def test_bad_image(shape, match):
    with pytest.raises(ValueError, match=match):
        make()(torch.zeros(shape))


@pytest.mark.parametrize('n_last', [0, 4])
def test_bad_n_last(n_last):
    with pytest.raises(ValueError, match=f'n_last .* depth 3; got {n_last}'):
        make().forward_features(image(32, 32), n_last=n_last)
