# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for backbones: files of the genuine layouts with random values, strict
and safe loading, and outputs equal to those of timm.
"""

import argparse
import sys
from types import SimpleNamespace

import astropy.units as u
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from safetensors.torch import save_file
from torch.testing import assert_close

from astrodino_seg.embed import evaluate_network, linear_segmentation
from astrodino_seg.errors import ModelFileError
from astrodino_seg.image import as_image
from astrodino_seg.inputs.channels import PreprocessSpec, normalise
from astrodino_seg.inputs.rules import NanomaggyRGB, NoiseUnits, Photographic
from astrodino_seg.models import Backbone, load_backbone
from astrodino_seg.models.head import InstanceHead
from astrodino_seg.models.instance import Model
from astrodino_seg.models.load import load_any
from astrodino_seg.models.vit import VisionTransformer
from astrodino_seg.plotting import rgb_image

try:
    import timm
    from timm.models import eva, vision_transformer
except Exception as err:  # also RuntimeError of a torchvision for other torch
    timm = None
    NO_TIMM = f'timm cannot be imported ({type(err).__name__})'
else:
    NO_TIMM = ''

needs_timm = pytest.mark.skipif(timm is None, reason=NO_TIMM)

DIM, DEPTH, HIDDEN = 128, 4, 192        # two heads of 64, as all have


# ------------------------------------------------------ files of others

def block(layer_scale, mlp=('fc1', 'fc2')):
    """Shapes of a block by Meta's names; ``mlp`` says which kind."""
    shapes = {'norm1.weight': (DIM,), 'norm1.bias': (DIM,),
              'attn.qkv.weight': (3 * DIM, DIM), 'attn.qkv.bias': (3 * DIM,),
              'attn.proj.weight': (DIM, DIM), 'attn.proj.bias': (DIM,),
              'norm2.weight': (DIM,), 'norm2.bias': (DIM,)}
    if layer_scale:
        shapes.update({'ls1.gamma': (DIM,), 'ls2.gamma': (DIM,)})
    for name in mlp:
        n_in, n_out = DIM, HIDDEN
        if name == mlp[-1]:
            n_in, n_out = n_out, n_in
        elif name == 'w12':
            n_out *= 2
        shapes[f'mlp.{name}.weight'] = n_out, n_in
        shapes[f'mlp.{name}.bias'] = (n_out,)
    return shapes


def fill(shapes, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return {key: 0.3 * torch.randn(shape, generator=rng)
            + ('norm' in key and key.endswith('weight'))
            for key, shape in shapes.items()}


def meta(patch, grid=None, *, registers=None, layer_scale=True,
         mask_token=True, mlp=('fc1', 'fc2'), depth=DEPTH):
    """A state dictionary as Meta's files have it."""
    shapes = {'cls_token': (1, 1, DIM),
              'patch_embed.proj.weight': (DIM, 3, patch, patch),
              'patch_embed.proj.bias': (DIM,),
              'norm.weight': (DIM,), 'norm.bias': (DIM,)}
    if grid:
        shapes['pos_embed'] = 1, 1 + grid**2, DIM
    if registers:
        shapes[registers] = 1, 4, DIM
    if mask_token:
        shapes['mask_token'] = 1, DIM
    for i in range(depth):
        for key, shape in block(layer_scale, mlp).items():
            shapes[f'blocks.{i}.{key}'] = shape
    return fill(shapes)


def dino(patch=8):
    """``dino_deitsmall8_pretrain.pth``."""
    return meta(patch, 28, layer_scale=False, mask_token=False)


def dinov2(**kwargs):
    """``dinov2_vits14_pretrain.pth``."""
    return meta(14, 37, **kwargs)


def dinov2_registers(**kwargs):
    """``dinov2_vits14_reg4_pretrain.pth``."""
    return meta(14, 37, registers='register_tokens', **kwargs)


def dinov3(mlp=('fc1', 'fc2')):
    """``dinov3_vits16_pretrain_lvd1689m-*.pth``."""
    state = meta(16, registers='storage_tokens', mlp=mlp)
    state['rope_embed.periods'] = 100 ** (torch.arange(16) / 16)
    for i in range(DEPTH):
        mask = torch.ones(3 * DIM)
        mask[DIM:2 * DIM] = 0
        state[f'blocks.{i}.attn.qkv.bias_mask'] = mask
    return state


def chunked(state, n_chunks=4):
    """Blocks in chunks, as DINOv2 trains them; absolute numbers within."""
    out = {}
    for key, value in state.items():
        if key.startswith('blocks.'):
            i = int(key.split('.')[1])
            key = key.replace('blocks.', f'blocks.{i * n_chunks // DEPTH}.')
        out[key] = value
    return out


def head(name):
    """A projection head of the training."""
    return fill({f'{name}.mlp.0.weight': (8, DIM), f'{name}.mlp.0.bias': (8,),
                 f'{name}.last_layer.weight_g': (5, 1),
                 f'{name}.last_layer.weight_v': (5, 8)})


def with_prefix(prefix, state):
    return {prefix + key: value for key, value in state.items()}


def astrodino():
    """``astrodino.ckpt`` of AstroCLIP."""
    state = chunked(meta(12, 12))
    state = {**with_prefix('backbone.', state), **head('dino_head')}
    return {'teacher': with_prefix('module.', state)}


def astroclip():
    """``astroclip.ckpt``, a checkpoint of Lightning."""
    state = with_prefix('image_encoder.backbone.', chunked(meta(12, 12)))
    state.update(fill({
        'image_encoder.cross_attention.query': (1, 1, 8),
        'image_encoder.mlp.encoder.weight': (8, 8),
        'spectrum_encoder.backbone.transformer.0.weight': (8, 8),
        'spectrum_encoder.mlp.decoder.bias': (8,)}))
    return {'epoch': 3, 'global_step': 7, 'state_dict': state,
            'pytorch-lightning_version': '2.3.3',
            'hyper_parameters': {'image_encoder': torch.nn.Linear(2, 2),
                                 'lr': 1e-4, 'temperature': 15.5}}


@pytest.fixture
def write(tmp_path):
    def write(content, name='weights.pth'):
        torch.save(content, tmp_path / name)
        return tmp_path / name
    return write


@pytest.fixture
def x():
    def x(size, seed=5):
        rng = torch.Generator().manual_seed(seed)
        return torch.randn(1, 3, *size, generator=rng)
    return x


def tokens(backbone, x):
    with torch.inference_mode():
        return backbone.vit(x)


# -------------------------------------------------------- equal to timm

SMALL = {'embed_dim': DIM, 'depth': DEPTH, 'num_heads': 2, 'num_classes': 0,
         'dynamic_img_size': True}
GELU, GATED = {'mlp_ratio': HIDDEN / DIM}, {'mlp_ratio': 2 * HIDDEN / DIM}
V2, V3 = 'vit_small_patch14_dinov2', 'vit_small_patch16_dinov3_qkvb'
TIMM = {
    'dino8': (dino, 'vit_small_patch8_224.dino', GELU, 8),
    'dino16': (lambda: meta(16, 14, layer_scale=False, mask_token=False),
               'vit_small_patch16_224.dino', GELU, 16),
    'dinov2': (dinov2, V2, GELU, 14),
    'dinov2-reg4': (dinov2_registers, 'vit_small_patch14_reg4_dinov2', GELU,
                    14),
    'dinov2-giant': (lambda: dinov2(mlp=('w12', 'w3')),
                     'vit_giant_patch14_dinov2', GATED, 14),
    'dinov3': (dinov3, V3, GELU, 16),
    'dinov3-plus': (lambda: dinov3(mlp=('w1', 'w2', 'w3')),
                    'vit_small_plus_patch16_dinov3_qkvb', GELU, 16),
    'astrodino': (lambda: meta(12, 12), V2,
                  {**GELU, 'patch_size': 12, 'img_size': 144}, 12),
}


def timm_model(name, state, **kwargs):
    """timm's model with the weights of Meta's file, converted by timm."""
    model = timm.create_model(name, pretrained=False, **SMALL, **kwargs).eval()
    module = eva if 'dinov3' in name else vision_transformer
    model.load_state_dict(module.checkpoint_filter_fn(dict(state), model))
    return model


def norm_eps(model):
    return {module.eps for module in model.modules()
            if isinstance(module, torch.nn.LayerNorm)}


@needs_timm
@pytest.mark.parametrize('case', TIMM)
def test_equals_timm(case, write, tmp_path, x):
    make, name, kwargs, patch = TIMM[case]
    model = timm_model(name, make(), **kwargs)
    files = [write({'astrodino': astrodino}.get(case, make)()),
             tmp_path / 'model.safetensors']        # timm's own layout
    save_file(model.state_dict(), files[1])
    for path in files:
        backbone = load_backbone(path)
        assert norm_eps(backbone.vit) == norm_eps(model)
        for grid in ((7, 9), (12, 12)):
            x_ = x([n * patch for n in grid])
            with torch.inference_mode():
                expected = model.forward_features(x_)
            assert_close(tokens(backbone, x_), expected, rtol=1e-4, atol=1e-4)


@needs_timm
@pytest.mark.parametrize('name', [
    'vit_small_patch8_224.dino', 'vit_small_patch14_reg4_dinov2.lvd142m',
    'vit_small_patch16_dinov3.lvd1689m', 'vit_large_patch16_dinov3.sat493m'])
def test_names_of_timm(name, monkeypatch, x):
    made, create = [], timm.create_model

    def offline(name, pretrained, **kwargs):
        assert pretrained
        # a smaller model, and no network
        made.append(create(name, **{**SMALL, **kwargs}).eval())
        return made[0]

    monkeypatch.setattr(timm, 'create_model', offline)
    backbone = load_backbone(name)
    x_ = x([6 * backbone.vit.patch_size] * 2)
    with torch.inference_mode():
        expected = made[0].forward_features(x_)
    assert_close(tokens(backbone, x_), expected, rtol=1e-4, atol=1e-4)
    assert backbone.planes.mean == made[0].pretrained_cfg['mean']
    assert backbone.name == name


# ------------------------------------------- without timm, by hand

def plain(state, **kwargs):
    """Our transformer with a state that needs no conversion."""
    vit = VisionTransformer(dim=DIM, depth=DEPTH, n_heads=2,
                            mlp_ratio=HIDDEN / DIM, **kwargs).eval()
    vit.load_state_dict(state)
    return vit


def test_dino(write, x):
    backbone = load_backbone(write(dino()))
    vit = plain(dino(), patch_size=8, grid_size=(28, 28))
    with torch.inference_mode():
        assert_close(tokens(backbone, x((32, 40))), vit(x((32, 40))))
    assert backbone.planes == Photographic()
    assert backbone.name == 'weights.pth'
    assert not backbone.vit.training
    assert all(p.requires_grad for p in backbone.vit.parameters())


def test_register_tokens_have_no_position(write, x):
    state = dinov2_registers()
    backbone = load_backbone(write(state))
    with torch.inference_mode():
        embedded, grid = backbone.vit.embed(x((518, 518)))
        patches = torch.nn.functional.conv2d(
            x((518, 518)), state['patch_embed.proj.weight'],
            state['patch_embed.proj.bias'], stride=14)
    assert grid == (37, 37)
    assert_close(embedded[0, 0],
                 state['cls_token'][0, 0] + state['pos_embed'][0, 0])
    assert_close(embedded[0, 1:5], state['register_tokens'][0])
    assert_close(embedded[0, 5 + 38], patches[0, :, 1, 1]
                 + state['pos_embed'][0, 1 + 38])


def test_blocks_in_chunks(write, x):
    whole = load_backbone(write(dinov2()))
    parts = load_backbone(write(chunked(dinov2()), 'chunked.pth'))
    assert_close(tokens(parts, x((28, 28))), tokens(whole, x((28, 28))))


@pytest.mark.parametrize('make', [astrodino, astroclip])
def test_astroclip(make, write, x):
    backbone = load_backbone(write(make(), 'a.ckpt'))
    state = meta(12, 12)
    del state['mask_token']
    vit = plain(state, patch_size=12, grid_size=(12, 12), layer_scale=1.0)
    with torch.inference_mode():
        assert_close(tokens(backbone, x((144, 144))), vit(x((144, 144))))
    assert backbone.planes == NanomaggyRGB()


def test_dinov3_keys_have_no_bias(write):
    state = dinov3()
    biases = load_backbone(write(state)).vit.state_dict()
    key = 'blocks.2.attn.qkv.bias'
    assert not biases[key][DIM:2 * DIM].any()
    assert_close(biases[key][2 * DIM:], state[key][2 * DIM:])


def test_timm_layout_of_dinov3(write, x):
    # the names of timm's Eva by hand, so that this runs without timm
    state, other = dinov3(mlp=('w1', 'w2', 'w3')), {}
    for key, value in state.items():
        stem, _, kind = key.rpartition('attn.qkv.')
        if kind == 'bias':
            q, _, v = value.chunk(3)
            other.update({f'{stem}attn.q_bias': q, f'{stem}attn.v_bias': v})
        elif kind != 'bias_mask' and not key.startswith(('rope', 'mask')):
            for old, new in (('storage_tokens', 'reg_token'),
                             ('ls1.gamma', 'gamma_1'),
                             ('ls2.gamma', 'gamma_2'), ('w1', 'fc1_g'),
                             ('w2', 'fc1_x'), ('w3', 'fc2')):
                key = key.replace(old, new)
            other[key] = value
    one, two = load_backbone(write(state)), load_backbone(
        write(other, 'timm.bin'))
    assert_close(tokens(two, x((32, 48))), tokens(one, x((32, 48))))


def test_training_checkpoint(write, x):
    def network(seed, prefix):
        state = {key: value + seed for key, value in dino().items()}
        return with_prefix(prefix, {**with_prefix('backbone.', state),
                                    **head('head')})

    path = write({'student': network(0.5, 'module.'),
                  'teacher': network(0, ''), 'epoch': 100,
                  'optimizer': {'state': {}, 'param_groups': []},
                  'args': argparse.Namespace(arch='vit_small', lr=5e-4)})
    teacher = load_backbone(path)
    assert_close(teacher.vit.cls_token.data, dino()['cls_token'])
    student = load_backbone(path, key='student')
    assert_close(student.vit.cls_token.data, dino()['cls_token'] + 0.5)
    with pytest.raises(ModelFileError, match="no 'ema' in it; it has .*teac"):
        load_backbone(path, key='ema')


def test_checkpoint_of_dinov2(write, x):
    """Student and teacher in one dictionary, and all heads."""
    def network(part, seed):
        state = {key: value + seed for key, value in dinov2().items()}
        return with_prefix(f'{part}.', {
            **with_prefix('backbone.', state), **head('dino_head'),
            **head('ibot_head')})

    path = write({'model': {**network('student', 0.5), **network('teacher', 0),
                            'dino_loss.center': torch.zeros(1, 5)},
                  'iteration': 12, 'optimizer': {}})
    for key, seed in ((None, 0), ('teacher', 0), ('student', 0.5)):
        found = load_backbone(path, key=key).vit
        assert_close(found.cls_token.data, dinov2()['cls_token'] + seed)
    with pytest.raises(ModelFileError, match="no 'ema' in it; it has .*model"):
        load_backbone(path, key='ema')


@pytest.mark.parametrize('wrap', [
    lambda key: f'_orig_mod.{key}', lambda key: f'module._orig_mod.{key}',
    lambda key: f'_orig_mod.module.{key}',
    lambda key: key.replace('blocks.0.', 'blocks.0._orig_mod.')])
def test_compiled_networks(wrap, write, x):
    state = {wrap(key): value for key, value in dino().items()}
    assert_close(tokens(load_backbone(write(state)), x((16, 16))),
                 tokens(load_backbone(write(dino(), 'b.pth')), x((16, 16))))


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_weights_must_be_finite(value, write):
    state = dino()
    state['blocks.1.mlp.fc1.weight'][2, 3] = value
    with pytest.raises(ModelFileError, match=(
            r'weights.pth.*: 1 parameters are not finite, blocks.1.mlp.fc1')):
        load_backbone(write(state))


def test_half_precision_becomes_single(write):
    state = {key: value.half() for key, value in dino().items()}
    backbone = load_backbone(write(state))
    assert {p.dtype for p in backbone.vit.parameters()} == {torch.float32}


def test_weights_survive_their_file(write, x):
    path = write(dino())
    backbone = load_backbone(path)
    before = tokens(backbone, x((16, 16)))
    path.write_bytes(bytes(path.stat().st_size))
    assert_close(tokens(backbone, x((16, 16))), before)


# ------------------------------------------------- strict, and safe

def test_every_parameter_is_accounted_for(write):
    state = dinov2()
    del state['blocks.1.norm2.bias'], state['norm.weight']
    state['blocks.0.attn.rel_pos'] = torch.zeros(3)
    state['extra.weight'] = torch.zeros(3)
    state['blocks.2.ls1.gamma'] = torch.zeros(7)
    with pytest.raises(ModelFileError) as info:
        load_backbone(write(state))
    message = str(info.value)
    assert ('unknown parameters: blocks.0.attn.rel_pos, extra.weight; '
            in message)
    assert 'missing parameters: blocks.1.norm2.bias, norm.weight; ' in message
    assert 'blocks.2.ls1.gamma (7,) and not (128,)' in message
    assert 'weights.pth' in message


#: What a file may lack: it is not used, or (registers of DINOv2, which then
#: looks like one without) nothing else tells that it should be there.
SPARE = ('mask_token', 'periods', 'bias_mask', 'register_tokens', 'dino_head',
         'cross_attention', 'image_encoder.mlp', 'spectrum_encoder')


@pytest.mark.parametrize('layout', [
    dino, dinov2, dinov2_registers, dinov3, astrodino, astroclip,
    lambda: dinov3(mlp=('w1', 'w2', 'w3'))])
def test_no_layout_may_miss_a_parameter(layout, write):
    whole = layout()
    state = whole.get('teacher', whole.get('state_dict', whole))
    for key in list(state):
        # one block in the middle stands for all but the first
        if '.2.' in key or '.3.' in key or any(s in key for s in SPARE):
            continue
        value = state.pop(key)
        with pytest.raises(ModelFileError, match='missing|unknown|no .*it has'
                           ) as info:
            load_backbone(write(whole))
        if '.1.' in key and '.w' not in key:
            name = key.rsplit('.1.', 1)[1]
            assert f'missing parameters: blocks.1.{name}' in str(info.value)
        state[key] = value
    load_backbone(write(whole))


def test_odd_length_of_tokens(write):
    state = {key: value[..., :96] if key == 'cls_token' else value
             for key, value in dino().items()}
    state['patch_embed.proj.weight'] = torch.zeros(96, 3, 8, 8)
    with pytest.raises(ModelFileError, match='tokens of 96 numbers are no'):
        load_backbone(write(state))


def test_two_names_for_one_parameter(write):
    state = {**dino(), 'module.norm.bias': torch.zeros(DIM)}
    with pytest.raises(ModelFileError, match=r"two .* that mean 'norm.bias'"):
        load_backbone(write(state))


@pytest.mark.parametrize(('content', 'match'), [
    ({'conv1.weight': torch.zeros(3)}, "no 'cls_token'; it has 'conv1"),
    ({'cls_token': torch.zeros(1, 1, 8)}, "no 'patch_embed.proj.weight'"),
    ({}, 'no dictionary of parameters'),
    ({'epoch': 3}, 'looked for teacher, state_dict'),
    ([torch.zeros(3)], 'no dictionary of parameters'),
    ({'teacher': {'a': 1}}, 'no dictionary of parameters')])
def test_not_a_backbone(content, match, write):
    with pytest.raises(ModelFileError, match=match):
        load_backbone(write(content))


def test_odd_grid(write):
    state = dino()
    state['pos_embed'] = torch.zeros(1, 700, DIM)
    with pytest.raises(ModelFileError, match='700 positions'):
        load_backbone(write(state))


@pytest.mark.parametrize('name', ['a.pth', 'a.safetensors'])
@pytest.mark.parametrize('content', [b'', b'<html>404</html>', b'PK\x03\x04'])
def test_unreadable_files(content, name, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelFileError, match='it (cannot be|is not a) read'
                       ) as info:
        load_backbone(tmp_path / name)
    assert 'weights_only' not in str(info.value)


def test_truncated_file(write):
    path = write(dino())
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(ModelFileError, match='cannot be read'):
        load_backbone(path)


class Bomb:
    def __init__(self, function, argument):
        self.parts = function, (argument,)

    def __reduce__(self):
        return self.parts


@pytest.mark.parametrize('zipped', [True, False])
@pytest.mark.parametrize('code', ['exec', 'eval', 'system'])
def test_no_code_of_a_file_is_run(code, zipped, tmp_path, recwarn):
    import os

    mark, path = tmp_path / 'mark', tmp_path / 'bomb.pth'
    bomb = {'exec': Bomb(exec, f'open({str(mark)!r}, "w").close()'),
            'eval': Bomb(eval, f'open({str(mark)!r}, "w").close()'),
            'system': Bomb(os.system, f'touch {mark}')}[code]
    torch.save({'teacher': dino(), 'args': bomb}, path,
               _use_new_zipfile_serialization=zipped)
    if code == 'system' or not zipped:
        with pytest.raises(ModelFileError, match='cannot be read safely'):
            load_backbone(path)
    else:       # an empty object stands in its place
        load_backbone(path)
    assert not mark.exists()
    torch.load(path, weights_only=False)        # the bomb is a live one
    assert mark.exists()


# ------------------------------------------------------ names and paths

@pytest.mark.parametrize('name', [None, 'backbone_tiny', 'grouping_tiny'])
def test_bundled(name):
    backbone = load_backbone(name)
    model = load_any(name or 'backbone_tiny')
    assert backbone.name == (name or 'backbone_tiny')
    assert_close(backbone.vit.state_dict(), model.vit.state_dict())
    assert backbone.planes == NoiseUnits(model.preprocess)
    image = as_image(np.random.default_rng(1).normal(size=(2, 64, 48)))
    assert_array_equal(backbone.input(image)[0],
                       normalise(image, model.preprocess).channels)


@pytest.mark.parametrize('model', [Model, Backbone.from_spec])
def test_own_file(model, tmp_path):
    model = model(preprocess={'n_slots': 2})
    model.save(tmp_path / 'model.safetensors')
    backbone = load_backbone(str(tmp_path / 'model.safetensors'))
    assert_close(backbone.vit.state_dict(), model.vit.state_dict())
    assert backbone.planes.n_planes == 4


@pytest.mark.parametrize(('name', 'error', 'match'), [
    ('missing.pth', FileNotFoundError, 'no weights file'),
    ('folder/weights', FileNotFoundError, 'no weights file'),
    ('resnet50', ValueError, "'resnet50' is neither a file nor"),
    ('convnext_tiny.dinov3_lvd1689m', ValueError, 'neither a file nor'),
    ('vit_base_patch16_224.augreg_in21k', ValueError, 'neither')])
def test_bad_names(name, error, match):
    with pytest.raises(error, match=match):
        load_backbone(name)


def test_timm_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, 'timm', None)
    with pytest.raises(ImportError, match='timm is needed for this'):
        load_backbone('vit_small_patch8_224.dino')


def fake_timm(monkeypatch, create_model):
    monkeypatch.setitem(sys.modules, 'timm',
                        SimpleNamespace(create_model=create_model))


def test_statistics_come_with_the_name(monkeypatch):
    statistics = {'mean': (0.4, 0.5, 0.6), 'std': (0.1, 0.2, 0.3)}
    fake_timm(monkeypatch, lambda name, **kwargs: SimpleNamespace(
        state_dict=dino, pretrained_cfg=statistics))
    backbone = load_backbone('vit_small_patch8_224.dino')
    assert backbone.planes == Photographic(**statistics)


def test_no_network(monkeypatch):
    def offline(name, **kwargs):
        raise RuntimeError('cannot\nfind the host')

    fake_timm(monkeypatch, offline)
    with pytest.raises(OSError, match=r'cannot find the host\); without a '
                                      r'network, give the path of a file'):
        load_backbone('vit_small_patch14_dinov2.lvd142m')


def test_planes_must_fit(write):
    with pytest.raises(ValueError, match='need 3 planes, Noise.* makes 5'):
        load_backbone(write(dino()), planes=NoiseUnits())
    backbone = load_backbone(write(dino()), planes=NanomaggyRGB())
    assert backbone.planes == NanomaggyRGB()


# ------------------------------------------------------------- planes

def scene(n_bands, shape=(40, 50), **kwargs):
    y, x = np.mgrid[:shape[0], :shape[1]]
    light = 50 * np.exp(-((x - 30)**2 + (y - 12)**2) / 18)
    noise = np.random.default_rng(3).normal(size=(n_bands, *shape))
    slopes = np.linspace(0.5, 1.5, n_bands)[:, None, None]
    return as_image(slopes * light + noise, **kwargs)


@pytest.mark.parametrize('n_bands', [1, 2, 3, 4, 9])
@pytest.mark.parametrize('planes', [Photographic(), NanomaggyRGB()])
def test_any_number_of_bands(planes, n_bands):
    image = scene(n_bands)
    out = planes(image)
    assert out.shape == (3, 40, 50)
    assert out.dtype == np.float32
    assert np.isfinite(out).all()
    # where it was, neither flipped nor with x and y exchanged
    for plane in out:
        assert plane[10:15, 28:33].mean() > plane[25:].mean() + 0.3


def test_photographic():
    image = scene(3)
    parts = normalise(image, PreprocessSpec())
    rgb = rgb_image(image, parts.background, parts.noise)
    out = Photographic()(image)
    red = (rgb[12, 30, 0] / 255 - 0.485) / 0.229
    blue = (rgb[7, 9, 2] / 255 - 0.406) / 0.225
    assert_allclose([out[0, 12, 30], out[2, 7, 9]], [red, blue], rtol=1e-5)
    # one band is grey, and what lies redward is red
    grey = Photographic((0, 0, 0), (1, 1, 1))(scene(1))
    assert_array_equal(grey[0], grey[2])
    assert out[0, 12, 30] * 0.229 + 0.485 > out[2, 12, 30] * 0.225 + 0.406


def test_standardise():
    rgb = np.zeros((2, 4, 3), np.uint8)
    rgb[1, 2] = 255, 128, 0
    out = Photographic().standardise(rgb)
    assert out.shape == (3, 2, 4)
    assert_allclose(out[:, 1, 2], [(1 - 0.485) / 0.229,
                                   (128 / 255 - 0.456) / 0.224,
                                   -0.406 / 0.225], rtol=1e-5)
    for bad in (rgb / 255, rgb[0], rgb.transpose(2, 0, 1)):
        with pytest.raises(ValueError, match='rgb must be uint8'):
            Photographic().standardise(bad)


def legacy_viewer(g, r, z):
    """One pixel of the Legacy Surveys' viewer, as planes (z, r, g)."""
    s = [2.2 * z + 0.03, 3.4 * r + 0.03, 6.0 * g + 0.03]
    mean = sum(max(value, 0) for value in s) / 3 or 1e-6
    stretch = np.arcsinh(20 * mean) / 20**0.5
    return [min(max(value * stretch / mean, 0), 1) for value in s]


@pytest.mark.parametrize('flux', [(0.01, 0.02, 0.03), (1.0, 2.0, 4.0),
                                  (-0.5, 0.1, 0.2), (-1.0, -1.0, -1.0)])
def test_nanomaggies(flux):
    bands = {band: np.full((2, 3), value) for band, value in zip('grz', flux)}
    expected = legacy_viewer(*flux)
    out = NanomaggyRGB()(as_image(bands))
    assert_allclose(out[:, 1, 2], expected, rtol=1e-5, atol=1e-6)
    # a further band in between changes nothing
    bands['i'] = np.full((2, 3), 9.0)
    assert_array_equal(NanomaggyRGB()(as_image(bands)), out)
    del bands['i']
    jansky = {band: value * 3631e-9 * u.Jy for band, value in bands.items()}
    assert_allclose(NanomaggyRGB()(as_image(jansky)), out, rtol=1e-5)


def test_nanomaggies_of_one_band():
    out = NanomaggyRGB()(as_image(np.full((2, 3), 0.1), bands='r'))
    assert_allclose(out[:, 0, 0], legacy_viewer(0.1, 0.1, 0.1), rtol=1e-5)
    # the middle of g and z stands for r
    out = NanomaggyRGB()(as_image({'g': np.full((2, 2), 0.1),
                                   'z': np.full((2, 2), 0.3)}))
    assert_allclose(out[:, 0, 0], legacy_viewer(0.1, 0.2, 0.3), rtol=1e-5)


def test_nanomaggies_need_a_flux():
    with pytest.raises(ValueError, match='unit electron cannot be converted'):
        NanomaggyRGB()(as_image(np.ones((4, 4)) * u.electron))


# ------------------------------------------------ input and dense tokens

@pytest.mark.parametrize(('size', 'shape'), [
    (None, (40, 48)), (224, (224, 224)), ((30, 62), (32, 64)), (3, (8, 8))])
def test_input_size(write, size, shape):
    backbone = load_backbone(write(dino()))
    x = backbone.input(scene(4), size=size)
    assert x.shape == (1, 3, *shape)
    assert x.dtype == torch.float32


def test_input_is_left_alone_if_it_fits(write):
    backbone = load_backbone(write(dino()))
    image = scene(3, (40, 48))
    assert_array_equal(backbone.input(image)[0], Photographic()(image))


@pytest.mark.parametrize('size', [0, (8, 8, 8), (-1, 8)])
def test_bad_size(write, size):
    backbone = load_backbone(write(dino()))
    with pytest.raises(ValueError, match='size must be one or two positive'):
        backbone.input(scene(1), size=size)


def test_tokens_are_averaged(write, x):
    backbone = load_backbone(write(dino()))
    with torch.inference_mode():
        patches = backbone.vit.forward_features(x((32, 48))).patches[-1]
        out = backbone.tokens(x((32, 48)))
    assert out.shape == (1, DIM, 2, 3)
    assert_close(out[0, :, 1, 2], patches[0, :, 2:, 4:].mean(dim=(1, 2)))


@pytest.mark.parametrize('layout', [
    dino, dinov2, dinov2_registers, dinov3, astrodino])
def test_a_head_trains_on_it(layout, write, x):
    backbone = load_backbone(write(layout()))
    torch.manual_seed(0)
    dense = InstanceHead(in_channels=3, token_dim=DIM)
    x_ = x((64, 96))
    maps = dense(x_, backbone.tokens(x_), torch.zeros(1, dtype=torch.long))
    assert maps.heat.shape == (1, 64, 96)
    maps.pixels.pow(2).mean().backward()
    for module in (dense.fuse, backbone.vit.blocks[0], backbone.vit.norm):
        for name, parameter in module.named_parameters():
            if 'qkv.bias' not in name:
                assert parameter.grad.abs().max() > 0, name


def quarters(n, seed):
    """Images of four bright or dark squares, and which is which."""
    rng = np.random.default_rng(seed)
    for _ in range(n):
        classes = np.kron(rng.integers(0, 2, (2, 2)), np.ones((32, 32), int))
        noise = rng.normal(size=(3, 64, 64))
        yield 8 * classes + noise, classes


@pytest.mark.parametrize('layout', [
    dino, dinov2, dinov2_registers, dinov3, astrodino, astroclip])
def test_probes_train_on_it(layout, write):
    """A linear layer on the tokens, and the whole network."""
    backbone = load_backbone(write(layout()))
    before = {k: v.clone() for k, v in backbone.vit.state_dict().items()}
    score = linear_segmentation(quarters(8, 0), quarters(4, 1), backbone,
                                classes=('dark', 'bright'), n_epochs=30)
    assert score.miou > 0.55        # of random tokens; chance is a third
    images = [image * k for image, _ in quarters(4, 2) for k in (0.1, 1)]
    result = evaluate_network(
        images, np.arange(8) % 2, 'finetune', backbone=backbone, size=48,
        n_epochs=1, splits=[(np.arange(6), np.arange(6, 8))])
    assert result.confusion.sum() == 2
    for key, value in backbone.vit.state_dict().items():
        assert torch.equal(value, before[key])


def test_backbone_needs_planes():
    vit = VisionTransformer(in_channels=2, dim=64, depth=1, n_heads=1)
    with pytest.raises(ValueError, match='need 2 planes, Photographic.* 3'):
        Backbone(vit, Photographic(), 'mine')
