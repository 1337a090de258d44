# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for attention maps, the masks from them, and their command.
"""

import numpy as np
import pytest
import torch
from astropy.io import fits
from astropy.wcs import WCS
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal
from photutils.segmentation import SegmentationImage

from astrodino_seg.cli import main
from astrodino_seg.embed import attention_maps
from astrodino_seg.embed.attention import AttentionMaps, rollout, top_mass
from astrodino_seg.image import as_image, read_label_map
from astrodino_seg.inputs.rules import NoiseUnits
from astrodino_seg.models import Backbone, load_backbone
from astrodino_seg.models.instance import Model
from astrodino_seg.models.vit import VisionTransformer, rotary_angles, rotate


def make_backbone(**kwargs):
    torch.manual_seed(1)
    vit = VisionTransformer(**{'patch_size': 8, 'in_channels': 5, 'dim': 48,
                               'depth': 3, 'n_heads': 3, 'n_registers': 2,
                               'grid_size': (4, 4), **kwargs}).eval()
    with torch.no_grad():
        for parameter in vit.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return Backbone(vit, NoiseUnits(), 'random')


def scene(shape=(40, 56), n_bands=3):
    y, x = np.mgrid[:shape[0], :shape[1]]
    light = 40 * np.exp(-((x - 40)**2 + (y - 12)**2) / 50)
    return light + np.random.default_rng(2).normal(size=(n_bands, *shape))


def bright_backbone():
    """One layer whose CLS token looks for what is bright."""
    vit = VisionTransformer(patch_size=4, in_channels=1, dim=4, depth=1,
                            n_heads=1, pos_embed='none').eval()
    with torch.no_grad():
        for parameter in vit.parameters():
            parameter.zero_()
        vit.blocks[0].norm1.weight.fill_(1)
        # a token is (b, -b, 1, -1) with its mean brightness b
        vit.patch_embed.proj.weight[0] = 1 / 16
        vit.patch_embed.proj.weight[1] = -1 / 16
        vit.patch_embed.proj.bias.copy_(torch.tensor([0., 0, 1, -1]))
        vit.cls_token[0, 0].copy_(torch.tensor([0., 0, 1, -1]))
        qkv = vit.blocks[0].attn.qkv.weight
        qkv[0, 2], qkv[4, 0] = 6, 2             # query from 1, key from b

    def planes(image):
        return image.cube
    planes.n_planes = 1
    return Backbone(vit, planes, 'bright')


# ------------------------------------------------------------------ maps

@pytest.mark.parametrize('rope', [False, True, 'dinov3'])
def test_by_hand(rope):
    backbone = make_backbone(rope=rope)
    vit, inputs = backbone.vit, []
    hook = vit.blocks[-1].attn.qkv.register_forward_hook(
        lambda module, args, out: inputs.append(out))
    with torch.inference_mode():
        vit(backbone.input(scene()))
    hook.remove()
    maps = attention_maps(scene(), backbone)
    assert maps.heads.shape == (3, 5, 7)
    assert maps.prefix.shape == (3, 3)
    qkv = inputs[0].reshape(3 + 35, 3, 3, 16)
    for i_head in range(3):
        q, k = qkv[0, 0, i_head], qkv[:, 1, i_head]
        if rope:
            angles = rotary_angles((5, 7), 16, relative=rope == 'dinov3')
            k = rotate(k[None, None], *angles)[0, 0]
        weight = np.exp((k @ q).numpy() / 4)
        weight /= weight.sum()
        assert_allclose(maps.prefix[i_head], weight[:3], rtol=1e-4)
        assert_allclose(maps.heads[i_head].ravel(), weight[3:], rtol=1e-4)


@pytest.mark.parametrize('kwargs', [{}, {'at': (3, 7)},
                                    {'use_rollout': True}, {'size': 32},
                                    {'at': (7, 0), 'use_rollout': True}])
@pytest.mark.parametrize('shape', [(40, 56), (37, 53), (8, 8)])
def test_rows_sum_to_one(kwargs, shape):
    maps = attention_maps(scene(shape), make_backbone(), **kwargs)
    assert_allclose(maps.heads.sum(axis=(1, 2)) + maps.prefix.sum(axis=1), 1,
                    rtol=1e-5)
    assert (maps.heads >= 0).all()
    assert len(maps.heads) == (1 if 'use_rollout' in kwargs else 3)
    assert maps.upsampled().shape == (len(maps.heads), *shape)
    assert maps.name == 'random'


def test_equals_the_network_and_leaves_it_alone():
    backbone = make_backbone()
    x = backbone.input(scene())
    with torch.inference_mode():
        before = backbone.vit(x)
    weights = {k: v.clone() for k, v in backbone.vit.state_dict().items()}
    maps = attention_maps(scene(), backbone)
    attention_maps(scene(), backbone, use_rollout=True)
    row = matrices(backbone.vit, x)[-1][:, 0]
    assert_allclose(maps.heads.reshape(3, -1), row[:, 3:], rtol=1e-4)
    with torch.inference_mode():
        assert torch.equal(backbone.vit(x), before)
    for key, value in backbone.vit.state_dict().items():
        assert torch.equal(value, weights[key])


def test_of_a_model():
    model = Model.from_backbone(make_backbone())
    assert_array_equal(attention_maps(scene(), model).heads,
                       attention_maps(scene(), make_backbone()).heads)


def matrices(vit, x):
    """The whole attention matrix of each layer, (h, T, T) each."""
    out = []

    def keep(module, args, qkv):
        n = qkv.shape[1]
        q, k, _ = qkv.reshape(n, 3, 3, 16).permute(1, 2, 0, 3).double()
        out.append(torch.softmax(q @ k.transpose(1, 2) / 4, dim=-1))

    hooks = [block.attn.qkv.register_forward_hook(keep)
             for block in vit.blocks]
    with torch.inference_mode():
        vit(x)
    for hook in hooks:
        hook.remove()
    return out


@pytest.mark.parametrize('token', [0, 11])
def test_rollout_is_the_product(token, monkeypatch):
    monkeypatch.setattr('astrodino_seg.embed.attention.ROWS', 7)
    backbone = make_backbone()
    x = backbone.input(scene())
    product = torch.eye(38, dtype=torch.float64)
    for attention in matrices(backbone.vit, x):
        product = (0.5 * attention.mean(0)
                   + 0.5 * torch.eye(38).double()) @ product
    with torch.inference_mode():
        row = rollout(backbone.vit, x, token)
    assert_allclose(row[0], product[token], rtol=1e-4)


def test_attention_of_a_patch():
    backbone = make_backbone()
    matrix = matrices(backbone.vit, backbone.input(scene()))[-1]
    # pixel (50, 12) of patches of 8: column 6, row 1
    maps = attention_maps(scene(), backbone, at=(50, 12))
    assert_allclose(maps.heads.reshape(3, -1),
                    matrix[:, 3 + 1 * 7 + 6, 3:], rtol=1e-4)


@pytest.mark.parametrize('at', [(-1, 0), (56, 0), (0, 40), (0, np.nan)])
def test_at_is_in_the_image(at):
    with pytest.raises(ValueError, match='at must be a pixel .* 40 x 56'):
        attention_maps(scene(), make_backbone(), at=at)


def test_nothing_to_see():
    with pytest.raises(ValueError, match='all pixels are masked or equal'):
        attention_maps(np.full((3, 40, 56), 2.0), make_backbone())


def test_it_finds_what_is_bright():
    data = np.zeros((61, 80))
    data[20:36, 48:72] = 3
    maps = attention_maps(data, bright_backbone())
    assert maps.heads.shape == (1, 15, 20)
    mask = maps.masks(0.95)[0]
    assert mask[20:36, 48:72].mean() > 0.9
    assert not mask[:17].any()
    assert not mask[39:].any()
    assert not mask[:, :45].any()
    assert not mask[:, 75:].any()
    assert maps.combined(0.95).n_labels == 1


def test_bundled_by_default():
    one = attention_maps(scene())
    two = attention_maps(scene(), load_backbone())
    assert_array_equal(one.heads, two.heads)
    assert one.name == 'backbone_tiny'
    assert one.heads.shape == (3, 2, 4)     # 40 x 56 is seen as 32 x 64
    assert one.upsampled().shape == (3, 40, 56)


def test_twenty_eight_squared():
    # ViT-S/8 at 224 pixels: 784 weights a head
    backbone = make_backbone(n_registers=0, grid_size=(28, 28))
    maps = attention_maps(scene(), backbone, size=224)
    assert maps.heads[0].size == 784
    assert maps.masks().shape == (3, 40, 56)


# ----------------------------------------------------------------- masks

HAND = np.array([[[0.05, 0.30], [0.25, 0.40]]])


@pytest.mark.parametrize(('keep_mass', 'kept'), [
    # the study: "the top 40%", threshold 0.6 on the cumulative mass
    (0.4, [[0, 0], [0, 1]]),
    # DINO's script with --threshold 0.6
    (0.6, [[0, 1], [0, 1]]),
    (0.39, [[0, 0], [0, 1]]), (0.41, [[0, 1], [0, 1]]),
    (0.71, [[0, 1], [1, 1]]), (1.0, [[1, 1], [1, 1]]),
    (1e-6, [[0, 0], [0, 1]])])
def test_both_conventions(keep_mass, kept):
    assert_array_equal(top_mass(HAND, keep_mass)[0], kept)
    # relative to its own sum: what the prefix takes does not count
    assert_array_equal(top_mass(HAND / 7, keep_mass)[0], kept)


def ascending(flat, threshold):
    """Keep what lies above the cumulative mass 1 - threshold."""
    order = np.argsort(flat)
    total, kept = 0, np.zeros(len(flat), bool)
    for i in order:
        total += flat[i] / flat.sum()
        kept[i] = total > 1 - threshold
    return kept


def test_equals_the_ascending_rule():
    rng = np.random.default_rng(4)
    for threshold in (0.1, 0.4, 0.6, 0.95):
        attention = rng.exponential(size=(3, 9, 11))**3
        mask = top_mass(attention, threshold)
        for k in range(3):
            assert_array_equal(mask[k].ravel(),
                               ascending(attention[k].ravel(), threshold))


@given(arrays(float, (4, 5), elements=st.floats(0, 1e3)).filter(np.any),
       st.floats(0.01, 1))
def test_top_mass_is_the_smallest_set(attention, keep_mass):
    mask = top_mass(attention, keep_mass)
    assert mask.any()
    total = attention.sum()
    assert attention[mask].sum() >= (keep_mass - 1e-6) * total
    least = attention[mask].min()
    assert attention[mask].sum() - least <= (keep_mass + 1e-6) * total
    if not mask.all():
        assert attention[~mask].max() <= least


def test_equal_weights():
    assert top_mass(np.ones((4, 5)), 0.4).sum() == 8
    assert top_mass(np.ones((10, 10), np.float32) / 100, 0.3).sum() == 30


@pytest.mark.parametrize('keep_mass', [0, -0.1, 1.1, np.nan])
def test_bad_share(keep_mass):
    with pytest.raises(ValueError, match='keep_mass must be above 0'):
        top_mass(HAND, keep_mass)


@pytest.mark.parametrize('value', [-1, np.nan, np.inf])
def test_bad_weights(value):
    for bad in (np.array([[1, value]]), np.zeros((2, 3))):
        with pytest.raises(ValueError, match='attention must be finite'):
            top_mass(bad, 0.4)


# ------------------------------------------------ on the pixels, as labels

def hand_made(shape=(12, 20)):
    heads = np.full((2, 3, 5), 0.01, np.float32)
    heads[0, 0, 0] = heads[0, 1, 1] = heads[0, 2, 4] = 0.3
    heads[1, 1, 2] = 0.8
    return AttentionMaps(as_image(np.ones(shape)), heads, np.zeros((2, 1)),
                         'hand')


def test_upsampled():
    maps = hand_made()
    assert_array_equal(maps.upsampled(),
                       np.kron(maps.heads, np.ones((1, 4, 4))))
    # no multiple of the grid: each pixel that of the patch its centre is in
    maps = hand_made((7, 11))
    for y in range(7):
        for x in range(11):
            assert_array_equal(
                maps.upsampled()[:, y, x],
                maps.heads[:, int((y + 0.5) * 3 / 7), int((x + 0.5) * 5 / 11)])


def test_segmentations():
    maps = hand_made()
    first, second = maps.segmentations(0.8)
    assert isinstance(first, SegmentationImage)
    # patches that touch at a corner are one region
    assert first.n_labels == 2
    assert first.data[0, 0] == first.data[4, 4] > 0
    assert first.data[11, 19] == 2
    assert_array_equal(first.data > 0, maps.masks(0.8)[0])
    assert_array_equal(second.data > 0, maps.masks(0.8)[1])
    mean = maps.combined(0.3)
    assert_array_equal(mean.data > 0,
                       np.kron(top_mass(maps.heads.mean(axis=0), 0.3),
                               np.ones((4, 4))))


# --------------------------------------------------------------- command

@pytest.fixture
def cube(tmp_path):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval = ('RA---TAN', 'DEC--TAN'), (150, 2)
    wcs.wcs.crpix, wcs.wcs.cdelt = (20, 20), (-1e-4, 1e-4)
    path = tmp_path / 'cube.fits'
    fits.writeto(path, scene((48, 64)).astype(np.float32), wcs.to_header())
    return path


def test_command(cube, tmp_path, capsys):
    pytest.importorskip('matplotlib')
    args = ['attention', str(cube), '--bands', 'gri', '-o',
            str(tmp_path / 'field')]
    assert main([*args, '--keep-mass', '0.6', '--size', '96']) == 0
    maps = attention_maps(as_image(cube, bands='gri'), size=96)
    assert {p.name for p in tmp_path.glob('field*')} == {
        'field_attention.fits', 'field_attention.png', 'field_mean_segm.fits',
        *(f'field_head{k}_segm.fits' for k in (1, 2, 3))}
    with fits.open(tmp_path / 'field_attention.fits') as hdus:
        assert_array_equal(hdus[0].data, maps.upsampled())
        assert hdus[0].header['CRVAL1'] == 150
        told = ' '.join(hdus[0].header['HISTORY'])
    assert told == ' '.join(fits.getheader(
        tmp_path / 'field_head1_segm.fits')['HISTORY'])
    for word in ('backbone_tiny.safetensors sha256', 'cube.fits sha256',
                 'keep_mass=0.6'):
        assert word in told
    for k, head in enumerate(maps.segmentations(0.6)):
        assert_array_equal(
            read_label_map(tmp_path / f'field_head{k + 1}_segm.fits'), head)
    assert_array_equal(read_label_map(tmp_path / 'field_mean_segm.fits'),
                       maps.combined(0.6))
    assert 'head 3: ' in capsys.readouterr().out
    assert main(args) == 1
    assert 'exists; give --overwrite' in capsys.readouterr().err


def test_command_rollout_without_a_picture(cube, tmp_path):
    assert main(['attention', str(cube), '--rollout', '--at', '40,12',
                 '--no-png', '-o', str(tmp_path / 'field')]) == 0
    assert {p.name for p in tmp_path.glob('field*')} == {
        'field_attention.fits', 'field_mean_segm.fits',
        'field_head1_segm.fits'}
    maps = attention_maps(cube, at=(40, 12), use_rollout=True)
    assert_array_equal(fits.getdata(tmp_path / 'field_attention.fits'),
                       maps.upsampled())


@pytest.mark.parametrize(('args', 'message'), [
    (['--keep-mass', '40'], '--keep-mass must be above 0'),
    (['--backbone', 'missing.pth'], "no weights file 'missing.pth'"),
    (['--at', '3'], "at: must be two numbers with a comma between, got '3'"),
    (['--at', '99,0'], 'at must be a pixel'),
    (['--size', '0'], 'size must be one or two positive int')])
def test_mistakes(cube, tmp_path, capsys, args, message):
    assert main(['attention', str(cube), '--no-png', *args, '-o',
                 str(tmp_path / 'field')]) == 1
    err = capsys.readouterr().err
    assert message in err
    assert err.count('\n') == 1
    assert not list(tmp_path.glob('field*'))
