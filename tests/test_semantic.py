# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the semantic heads: the model, its file, and the regions they draw.
"""

import json

import numpy as np
import pytest
import torch
from embed_toys import Same, make_backbone, make_images
from numpy.testing import assert_allclose, assert_array_equal
from safetensors import safe_open
from scipy import ndimage
from torch.nn import functional as F

from astrodino_seg import DinoSegmenter, ModelFileError, load_model
from astrodino_seg.inputs.channels import PreprocessSpec
from astrodino_seg.inputs.rules import (
    NanomaggyRGB,
    NoiseUnits,
    Photographic,
    planes_from_dict,
    planes_to_dict,
)
from astrodino_seg.models import load_backbone
from astrodino_seg.models.load import BUNDLED_BACKBONE, BUNDLED_HEADS, load_any
from astrodino_seg.models.semantic import HEADS, SemanticModel
from astrodino_seg.predict.instances import predict_classes, segment_classes
from astrodino_seg.simulate import make_scene, observe
from astrodino_seg.simulate.scene_library import SPLITS
from astrodino_seg.truth import pixel_classes

RULES = [NoiseUnits(PreprocessSpec(softening=2.0)), Photographic(),
         Photographic((0.1, 0.2, 0.3), (0.4, 0.5, 0.6)), NanomaggyRGB()]


def make_model(head='linear', planes=None, **kwargs):
    backbone = make_backbone(planes, depth=4, **kwargs)
    torch.manual_seed(5)
    model = SemanticModel.from_backbone(backbone, head)
    with torch.no_grad():
        model.head[0].running_mean.normal_()
        model.head[1].weight.normal_()
    return model.eval()


@pytest.mark.parametrize('planes', RULES, ids=lambda r: type(r).__name__)
def test_rules_in_a_file(planes):
    table = json.loads(json.dumps(planes_to_dict(planes)))
    assert planes_from_dict(table) == planes


def test_rules_of_others():
    with pytest.raises(TypeError, match='planes must be .* got Same'):
        SemanticModel.from_backbone(make_backbone(Same()))
    with pytest.raises(ValueError, match="planes: unknown kind 'Same'"):
        planes_from_dict({'kind': 'Same'})


@pytest.mark.parametrize('patch_size', [8, 12, 14, 16])
@pytest.mark.parametrize('planes', RULES[::2], ids=['own', 'photographs'])
@pytest.mark.parametrize('head', HEADS)
def test_any_backbone(head, planes, patch_size):
    """Logits are one affine map of each token, interpolated to the pixels."""
    model = make_model(head, planes, patch_size=patch_size)
    x = torch.randn(2, planes.n_planes, 48, 80)
    scale = 1.5
    ny, nx = (round(scale * n / patch_size) * patch_size for n in (48, 80))
    large = F.interpolate(x, size=(ny, nx), mode='bilinear', antialias=True)
    n_last = 1 if head == 'linear' else 4
    with torch.no_grad():
        layers = model.vit.forward_features(large, n_last).patches
        tokens = torch.cat(layers, dim=1).double().numpy()
        found = model(x, scale).numpy()
    norm, conv = model.head
    assert tokens.shape[1] == conv.in_channels == n_last * 16
    normed = ((tokens - norm.running_mean[:, None, None].numpy())
              / np.sqrt(norm.running_var.double().numpy()
                        + norm.eps)[:, None, None])
    scores = np.einsum('ck,bkyx->bcyx',
                       conv.weight[..., 0, 0].detach().numpy(), normed)
    scores += conv.bias[:, None, None].detach().numpy()
    wanted = F.interpolate(torch.from_numpy(scores), size=(48, 80),
                           mode='bilinear', align_corners=False)
    assert_allclose(found, wanted, atol=2e-4)


def test_scales():
    """Probabilities are averaged, and the tokens are as the docs count."""
    model = make_model('ms')
    assert model.scales == (1.0, 1.5, 2.0)
    x = torch.randn(1, 5, 64, 64)
    with torch.no_grad():
        found = model.probabilities(x)
        parts = [model(x, s).softmax(dim=1) for s in (1, 1.5, 2)]
        n_tokens = [model.tokens(x, s)[0, 0].numel() for s in model.scales]
        halved = model.probabilities(x, 0.5)
    assert_allclose(found, torch.stack(parts).mean(dim=0), rtol=1e-5)
    assert_allclose(found.sum(dim=1), 1, rtol=1e-5)
    assert sum(n_tokens) == 7.25 * 64
    half = SemanticModel(**{**model.spec, 'head': {
        'kind': 'ms', 'scales': [0.5, 0.75, 1]}}).eval()
    half.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert_allclose(half.probabilities(x), halved, rtol=1e-5)


def test_bad_heads():
    backbone = make_backbone()
    with pytest.raises(ValueError, match=r"head must be one of .*, got 'x'"):
        SemanticModel.from_backbone(backbone, 'x')
    with pytest.raises(ValueError, match="'ms' reads 4 layers, vit has 2"):
        SemanticModel.from_backbone(backbone, 'ms')
    for scales in ([], [1, -1], [99]):
        with pytest.raises(ValueError, match='scales must be one or more'):
            SemanticModel.from_backbone(backbone, scales=scales)


@pytest.mark.parametrize('head', HEADS)
@pytest.mark.parametrize('planes', RULES, ids=lambda r: type(r).__name__)
def test_file(tmp_path, head, planes):
    """One file with all that is needed, read as any model is."""
    model = make_model(head, planes, patch_size=14, pos_embed='learned',
                       rope=False, grid_size=(3, 5))
    path = tmp_path / 'x.safetensors'
    model.save(path)
    with safe_open(path, 'pt') as f:
        assert f.metadata()['format'] == 'astrodino_seg/semantic-1'
        assert json.loads(f.metadata()['provenance']) == {'backbone': 'toy'}
    x = torch.randn(1, planes.n_planes, 40, 56)
    for again in (load_model(path), load_any(path)):
        assert again.planes == planes
        assert again.scales == model.scales
        with torch.no_grad():
            assert torch.equal(again.probabilities(x), model.probabilities(x))
    # its transformer may serve as a backbone again
    backbone = load_backbone(path)
    assert backbone.planes == planes
    assert torch.equal(backbone.vit.cls_token, model.vit.cls_token)


def test_head_without_its_backbone(tmp_path):
    """The bundled backbone is not stored twice."""
    path = tmp_path / 'head.safetensors'
    model = SemanticModel.from_backbone(load_backbone(BUNDLED_BACKBONE), 'ms')
    with torch.no_grad():
        model.head[1].weight.normal_()
    model.save(path, backbone=BUNDLED_BACKBONE)
    assert path.stat().st_size < 60_000
    x = torch.randn(1, model.vit.in_channels, 48, 64)
    found = load_model(path)
    assert found.scales == model.scales
    with torch.no_grad():
        assert_array_equal(found(x), model(x))
    with torch.no_grad():
        model.vit.norm.bias += 1
    model.save(path, backbone=BUNDLED_BACKBONE)
    with pytest.raises(ModelFileError, match='head of other weights than'):
        load_model(path)
    model.save(path, backbone='other')
    with pytest.raises(ModelFileError, match="no bundled backbone 'other'"):
        load_model(path)


@pytest.mark.parametrize('name', BUNDLED_HEADS)
def test_bundled_heads(name):
    """Each beats the guess that all is sky, in a scene it has not seen."""
    model = load_model(name)
    assert model.spec['head']['kind'] == name.split('_')[0]
    scene = make_scene(SPLITS['validation'][0] + 7, size=192)
    image, truth = observe(scene, [7], depth=1.0)
    with torch.no_grad():
        found = model.probabilities(torch.from_numpy(
            model.planes(image))[None])[0].argmax(dim=0).numpy()
    wanted = pixel_classes(truth.labels, truth.objects)
    known = wanted >= 0
    iou = [((found == k) & (wanted == k) & known).sum()
           / (((found == k) | (wanted == k)) & known).sum() for k in (0, 2)]
    assert iou[0] > (wanted == 0).sum() / known.sum()
    assert iou[1] > 0.3


def test_damaged_file(tmp_path):
    model = make_model()
    model.spec['planes']['kind'] = 'Other'
    model.save(tmp_path / 'x.safetensors')
    with pytest.raises(ModelFileError, match="unknown kind 'Other'"):
        load_model(tmp_path / 'x.safetensors')


# ------------------------------------------------------------- regions

@pytest.mark.parametrize('connectivity', [4, 8])
def test_regions(connectivity):
    """The labels of scipy, class by class."""
    rng = np.random.default_rng(0)
    smooth = ndimage.gaussian_filter(rng.normal(size=(4, 60, 70)),
                                     (0, 2, 2))
    p = np.exp(60 * smooth)
    p = (p / p.sum(axis=0)).astype(np.float32)
    mask = np.zeros((60, 70), bool)
    mask[:, 30] = True
    grouping, classes = segment_classes(p, n_pixels=9, mask=mask,
                                        connectivity=connectivity)
    called = np.where(mask, 0, p.argmax(axis=0))
    wanted = set()
    for c in (1, 2, 3):
        structure = np.ones((3, 3)) if connectivity == 8 else None
        labels, n = ndimage.label(called == c, structure)
        wanted |= {np.flatnonzero(labels == k).tobytes()
                   for k in range(1, n + 1) if (labels == k).sum() >= 9}
    n = len(classes)
    found = {np.flatnonzero(grouping.groups == k).tobytes()
             for k in range(1, n + 1)}
    assert found == wanted
    assert n == grouping.groups.max() > 20
    assert grouping.groups.dtype == np.int32
    assert np.isnan(grouping.confidence).all()
    own = grouping.groups == 3
    mean = p[1:, own].mean(axis=1)
    assert_allclose(classes[2], mean / mean.sum(), rtol=1e-5)
    assert (classes.argmax(axis=1)[2] + 1 == called[own]).all()


def test_regions_to_keep():
    p = np.zeros((4, 20, 20), np.float32)
    p[0] = 0.4
    p[1, 2:6, 2:6], p[2, 10:15, 10:15] = 0.6, 0.5
    grouping, classes = segment_classes(
        p, keep=lambda labels, n: np.arange(1, n + 1) > 1)
    assert_array_equal(grouping.groups, p[2] > 0)
    assert_allclose(classes, [[0, 1, 0]])
    grouping, classes = segment_classes(np.eye(4)[0][:, None, None]
                                        * np.ones((4, 9, 9)))
    assert not grouping.groups.any()
    assert classes.shape == (0, 3)


@pytest.mark.parametrize('shape', [(1, 1), (13, 200), (224, 336)])
@pytest.mark.parametrize('patch_size', [8, 12, 14, 16])
def test_tiles(shape, patch_size):
    """Probabilities everywhere; of one tile those of the model."""
    model = make_model(patch_size=patch_size)
    planes = np.random.default_rng(0).normal(
        size=(5, *shape)).astype(np.float32)
    whole = predict_classes(model, planes, tile_size=512)
    tiled = predict_classes(model, planes, tile_size=112)
    for found in (whole, tiled):
        assert found.shape == (4, *shape)
        assert found.dtype == np.float32
        assert_allclose(found.sum(axis=0), 1, rtol=1e-5)
    assert abs(whole - tiled).mean() < 0.05
    if shape == (224, 336) and patch_size != 12:
        with torch.no_grad():
            wanted = model.probabilities(torch.from_numpy(planes)[None])
        assert_allclose(whole, wanted[0], atol=1e-5)


def test_symmetric():
    model = make_model(patch_size=16)
    planes = np.random.default_rng(0).normal(
        size=(5, 64, 96)).astype(np.float32)
    one, other = (predict_classes(model, x, symmetric=True)
                  for x in (planes, planes[:, :, ::-1].copy()))
    assert_allclose(other[:, :, ::-1], one, atol=1e-5)
    assert abs(predict_classes(model, planes) - one).max() > 1e-4


class Threshold(torch.nn.Module):
    """A head that calls what is bright star or galaxy by its colour."""

    def forward(self, tokens):
        level, red = tokens[:, :1] - 4, tokens[:, 1:2] - 0.5
        return torch.cat([-level, level + red, level - red, -9 + 0 * red],
                         dim=1)


@pytest.fixture
def knowing(monkeypatch):
    """A model whose tokens are the channels of the pixels themselves."""
    model = make_model(patch_size=8)
    monkeypatch.setattr(SemanticModel, 'tokens', lambda self, x, scale=1.0: (
        torch.cat([x[:, :1], x[:, 3:4] - x[:, 1:2]], dim=1)))
    model.head = Threshold()
    return model


def test_in_place_of_source_finder(knowing):
    """Two that touch are one label; one of another class is another."""
    rng = np.random.default_rng(2)
    y, x = np.mgrid[:96, :128]
    cube = rng.normal(size=(3, 96, 128))
    for (cx, cy), colour in (((30, 40), 1), ((38, 40), 1), ((90, 40), 3)):
        cube += np.array([1, 1, colour])[:, None, None] * 60 * np.exp(
            -((x - cx)**2 + (y - cy)**2) / 30)
    result = DinoSegmenter(model=knowing, n_pixels=20).segment(
        {'g': cube[0], 'r': cube[1], 'z': cube[2]})
    segm = result.segmentation_image
    assert segm.n_labels == 2
    other = segm.data[40, 90]
    assert segm.data[40, 30] == segm.data[40, 38] == 3 - other
    assert result.table['class'][other - 1] == 'star'   # red here
    assert_array_equal(result.table['area'].value, segm.areas)
    assert np.isnan(result.table['group_confidence']).all()
    assert_array_equal(result.fragments.data, segm.data)
    assert_array_equal(result.class_map, result.probabilities.argmax(axis=0))
    # a threshold, and pixels that are masked, mean what they always do
    again = DinoSegmenter(model=knowing, n_pixels=20)(
        {'g': cube[0], 'r': cube[1], 'z': cube[2]}, 150)
    assert again.n_labels == 1
    assert again.data[40, 90]
    mask = np.zeros((96, 128), bool)
    mask[:, 64:] = True
    again = DinoSegmenter(model=knowing, n_pixels=20)(cube, mask=mask)
    assert not again.data[:, 64:].any()


@pytest.mark.parametrize('planes', RULES, ids=lambda r: type(r).__name__)
def test_segmenter_takes_the_file(tmp_path, planes):
    model = make_model('ms', planes, patch_size=14)
    with torch.no_grad():               # no class is sky
        model.head[1].weight.mul_(0.01)
        model.head[1].bias.copy_(torch.tensor([-9., 0, 2, 1]))
    model.save(tmp_path / 'x.safetensors')
    image = make_images(1, (50, 61), 3)[0]
    before = {k: v.clone() for k, v in model.state_dict().items()}
    for one in (tmp_path / 'x.safetensors', str(tmp_path / 'x.safetensors'),
                model):
        segm = DinoSegmenter(model=one)(image)
        assert segm.data.shape == (50, 61)
        assert (segm.data > 0).all()
        binned = DinoSegmenter(model=one, bin_factor=2)(image)
        assert binned.data.shape == (50, 61)
    assert all(torch.equal(v, before[k])
               for k, v in model.state_dict().items())
