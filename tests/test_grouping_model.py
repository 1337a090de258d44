# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the grouping head on weights of others: files of the genuine layouts
with random values, which have planes of their own.
"""

import json

import numpy as np
import pytest
import torch
from embed_toys import Same, make_backbone
from numpy.testing import assert_allclose, assert_array_equal
from safetensors import safe_open
from safetensors.torch import save_file
from scipy.ndimage import gaussian_filter
from test_backbones import (
    astroclip,
    dino,
    dinov2,
    dinov3,
    needs_timm,
    timm,
)
from test_train import make_scene

from astrodino_seg import DinoSegmenter, ModelFileError, inference, load_model
from astrodino_seg.backbones import (
    NoiseUnits,
    Photographic,
    load_backbone,
)
from astrodino_seg.binning import bin_channels
from astrodino_seg.coarse import find_giants
from astrodino_seg.image import as_image, write_image, write_label_map
from astrodino_seg.inference import predict, predict_maps
from astrodino_seg.model import Model
from astrodino_seg.planes import WithNoiseUnits, planes_to_dict
from astrodino_seg.preprocess import PreprocessSpec, normalise
from astrodino_seg.simulate import observe
from astrodino_seg.train import as_labelled, fit_head, fit_model
from astrodino_seg.train.pairs import fit_pairs
from astrodino_seg.train.recipe import make_model, train_from_config
from astrodino_seg.train.supervised import _step
from astrodino_seg.train.targets import CropDataset

SMALL = {'widths': [4, 8, 8, 8, 8]}
# for each, the side of its patches
FAMILIES = {'dino': (dino, 8), 'astroclip': (astroclip, 12),
            'dinov2': (dinov2, 14), 'dinov3': (dinov3, 16)}


@pytest.fixture(autouse=True)
def one_thread():
    """Sums in one order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=FAMILIES)
def family(request, tmp_path):
    make, patch_size = FAMILIES[request.param]
    torch.save(make(), tmp_path / 'weights.pth')
    return tmp_path / 'weights.pth', patch_size


@pytest.fixture
def path(tmp_path):
    """Weights with patches of 14 pixels."""
    torch.save(dinov2(), tmp_path / 'weights.pth')
    return tmp_path / 'weights.pth'


def put_head(path, head=SMALL, **kwargs):
    torch.manual_seed(1)
    return Model.from_backbone(load_backbone(path), head, **kwargs)


def lively(model):
    """A head that finds seeds, whose pixels vote."""
    with torch.no_grad():
        model.head.heat[1].bias.fill_(0.0)
        model.head.heat[1].weight.mul_(10)
        model.head.vote.weight.normal_(0, 0.3)
        model.head.seed_out.bias[model.head.n_embedding] += 3
    return model


def scene_image(seed=0, size=96):
    return observe(make_scene(seed, size=size), seed)[0]


def cube(shape, n=8, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, *shape)).astype(np.float32)


def all_maps(maps):
    return [*maps[:5], *maps.pyramid]


# ---------------------------------------------------------------- input

def test_planes_of_both():
    """The noise units of the whole image, and then the picture of it."""
    image = scene_image()
    rule = WithNoiseUnits(Photographic(), PreprocessSpec(softening=2.0))
    out = rule(image)
    assert out.shape == (rule.n_planes, 96, 96) == (8, 96, 96)
    assert out.dtype == np.float32
    assert_array_equal(out[:5], normalise(
        image, PreprocessSpec(softening=2.0)).channels)
    assert_array_equal(out[5:], Photographic()(image))


def star_in_a_corner():
    """A star so bright that the picture of the rest is another without it."""
    y, x = np.mgrid[:192, :208]
    noise = np.random.default_rng(2).normal(size=(2, 192, 208))
    return as_image(noise + 500 * np.exp(-((x - 20)**2 + (y - 20)**2) / 300))


def test_one_stretch_in_crops():
    """The pixels of a crop are pixels of the whole image's planes."""
    image = star_in_a_corner()
    labels = np.zeros((192, 208), int)
    labels[10:30, 10:30] = 1
    rule = WithNoiseUnits(Photographic())
    whole = {pixel.tobytes() for pixel in rule(image).reshape(8, -1).T.copy()}
    other = image.cube[:, 96:, 96:]
    part = rule(as_image(other))[5:]
    assert abs(part - rule(image)[5:, 96:, 96:]).mean() > 0.1
    # a large galaxy would at times be cut out before, as another image
    data = [as_labelled(image, labels, classes='star')]
    crops = CropDataset(data, rule, 4, crop_sizes=(64,))
    for k in range(4):
        for crop in crops[k]:
            assert crop.channels.shape == (8, 64, 64)
            assert {pixel.tobytes() for pixel in
                    crop.channels.numpy().reshape(8, -1).T.copy()} <= whole


def test_one_stretch_in_tiles(path, monkeypatch):
    """What the network sees of a tile is a part of the whole image's."""
    model = put_head(path)
    whole = model.planes(star_in_a_corner())
    seen, tokens = [], model.tokens
    monkeypatch.setattr(model, 'tokens', lambda x: [
        seen.append(x[0].numpy()), tokens(x)][1])
    with torch.inference_mode():
        predict_maps(model, whole, tile_size=112)
    assert len(seen) > 4
    windows = [whole[:, y:y + 112, x:x + 112].tobytes()
               for y in range(0, 96, 16) for x in range(0, 112, 16)]
    assert all(np.ascontiguousarray(part).tobytes() in windows
               for part in seen if part.shape[1:] == (112, 112))


# ---------------------------------------------------------------- model

def test_tokens(family):
    """At 16 pixels, of the planes of the weights and of nothing else."""
    path, patch_size = family
    model = put_head(path)
    assert model.vit.patch_size == patch_size
    for block in model.vit.blocks:      # no token sees another
        torch.nn.init.zeros_(block.attn.proj.weight)
    x = torch.from_numpy(cube((64, 96)))[None]
    other = x.clone()
    other[:, :5] += 1
    other[:, 5:, 38:42, 22:26] += 1     # within one cell
    with torch.no_grad():
        one, two = model.tokens(x), model.tokens(other)
    assert one.shape == (1, 128, 4, 6)
    changed = (one - two).abs().amax(dim=1)[0] > 1e-4
    assert changed.nonzero().tolist() == [[2, 1]]


def test_head_sees_the_noise_units(path):
    model = put_head(path)
    x = torch.from_numpy(cube((32, 48)))[None]
    tokens = torch.zeros(1, 128, 2, 3)
    with torch.no_grad():
        wanted = model.head(x[:, :5], tokens)
        assert_array_equal(model.head(x, tokens).embedding, wanted.embedding)
        maps = model(x)
    assert maps.heat.shape == (1, 1, 16, 24)
    assert not torch.equal(maps.embedding, wanted.embedding)


@pytest.mark.parametrize('shape', [(64, 96), (50, 61), (1, 1)])
def test_edges(path, shape):
    """Beyond the image there is no noise; the picture goes on as it is."""
    model, x = put_head(path), cube(shape)
    edges = [(0, 0), *((0, -n % 16) for n in shape)]
    padded = np.concatenate([np.pad(x[:5], edges),
                             np.pad(x[5:], edges, mode='edge')])
    with torch.no_grad():
        wanted = model(torch.from_numpy(padded)[None])
        maps = predict_maps(model, x)
    for found, whole in zip(all_maps(maps), all_maps(wanted)):
        _, h, w = found.shape
        assert_allclose(found, whole[0, :, :h, :w], atol=1e-5)


def test_head_in_tiles(path, monkeypatch):
    """The tiles of the head leave no trace."""
    model, x = lively(put_head(path)), cube((320, 80))
    with torch.inference_mode():
        whole = predict_maps(model, x)
        monkeypatch.setattr(inference, 'MAP_TILE', 240)
        parts = predict_maps(model, x)
    for found, wanted in zip(all_maps(parts), all_maps(whole)):
        assert_allclose(found, wanted, atol=2e-6)


def test_file(family, tmp_path):
    """One file with all that is needed."""
    model = lively(put_head(family[0], preprocess={'softening': 2.0}))
    model.save(tmp_path / 'x.safetensors')
    with safe_open(tmp_path / 'x.safetensors', 'pt') as f:
        spec = json.loads(f.metadata()['spec'])
    own = load_backbone(family[0])
    assert spec['planes'] == json.loads(json.dumps(planes_to_dict(own.planes)))
    assert model.provenance == {'backbone': {'file': 'weights.pth'}}
    again = load_model(tmp_path / 'x.safetensors')
    assert again.planes == WithNoiseUnits(own.planes,
                                          PreprocessSpec(softening=2.0))
    planes = again.planes(scene_image())
    for one, two in zip(predict(model, planes), predict(again, planes)):
        assert_array_equal(one, two)
    # its transformer may serve as a backbone again, with its own planes
    backbone = load_backbone(tmp_path / 'x.safetensors')
    assert backbone.planes == own.planes
    for key, value in own.vit.state_dict().items():
        assert torch.equal(backbone.vit.state_dict()[key], value)


@pytest.mark.parametrize(('change', 'match'), [
    ({'planes': {'kind': 'Other'}}, "unknown kind 'Other'"),
    ({'planes': {'kind': 'Photographic', 'mode': 1}}, "argument 'mode'"),
    ({'planes': None}, 'size mismatch for vit.patch_embed'),
    ({'preprocess': {'n_slots': 4}}, 'size mismatch for head.detail')])
def test_damaged_file(path, tmp_path, change, match):
    model = put_head(path)
    model.spec.update(change)
    model.save(tmp_path / 'x.safetensors')
    with pytest.raises(ModelFileError, match=f'(?s){match}'):
        load_model(tmp_path / 'x.safetensors')


def test_backbone_with_noise_units():
    """There is one set of channels, for both."""
    backbone = make_backbone(NoiseUnits(PreprocessSpec(softening=2.0)))
    model = Model.from_backbone(backbone, SMALL)
    assert model.planes == backbone.planes
    assert 'planes' not in model.spec
    with pytest.raises(ValueError, match="preprocess is that of .* 'toy'"):
        Model.from_backbone(backbone, preprocess={'softening': 1.0})


def test_bad_planes():
    with pytest.raises(TypeError, match='planes must be .* got Same'):
        Model.from_backbone(make_backbone(Same()))


# ------------------------------------------------------------- training

TRAIN = {'n_items': 1, 'crop_sizes': (48,), 'warmup': 2, 'n_workers': 0,
         'progress': False}


def mean_loss(model, data):
    """Of the same crops with the same choices, in evaluation mode."""
    crops = [crop for k in range(4) for crop in data[k]]
    with torch.no_grad():
        return _step(model.eval(), crops,
                     torch.Generator().manual_seed(0))['total'].item()


def test_learns_on_a_frozen_backbone(family, tmp_path):
    """The loss falls; the backbone is the same to the last bit."""
    model = put_head(family[0])
    scenes = [make_scene(k) for k in range(2)]
    data = CropDataset(scenes, model.planes, 4, n_items=1, crop_sizes=(48,))
    before = {k: v.clone() for k, v in model.vit.state_dict().items()}
    start = mean_loss(model, data)
    fit_model(model, scenes, out=tmp_path, n_steps=25, peak_rate=5e-3,
              freeze_backbone=True, average_decay=0.5, **TRAIN)
    assert mean_loss(model, data) < 0.75 * start
    for key, value in model.vit.state_dict().items():
        assert torch.equal(value, before[key])
    assert load_model(tmp_path / 'model.safetensors').planes == model.planes


def test_layers_learn(path, tmp_path):
    """With the backbone, the deeper a layer the less it moves."""
    model = put_head(path)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    image, truth = observe(make_scene(0), 0)
    fit_head(model, [(image, truth.labels)], out=tmp_path, n_steps=3,
             validation=None, freeze_backbone=False, layer_decay=0.1,
             average_decay=0.0, weight_decay=0.0, crop_sizes=[48], n_items=1,
             progress=False)
    moved = [float((model.state_dict()[key] - before[key]).abs().max())
             for key in (f'vit.blocks.{k}.mlp.fc1.weight' for k in range(4))]
    assert_allclose(np.divide(moved[1:], moved[:-1]), 10, rtol=0.2)


def test_pairs_and_validation(path, tmp_path):
    """The pair score is fitted to it, and its quality is measured."""
    model = lively(put_head(path))
    scenes = [make_scene(k, size=64) for k in range(10)]
    before = {k: v.clone() for k, v in model.state_dict().items()}
    fit_pairs(model, scenes, n_epochs=1, progress=False)
    assert model.provenance['pairs']['n_scenes'] == 10
    changed = {k.split('.')[0] for k, v in model.state_dict().items()
               if not torch.equal(v, before[k])}
    assert changed == {'pairs'}
    fit_head(model, [as_labelled(image, truth.labels) for image, truth in (
        observe(scene, 0) for scene in scenes[:2])], out=tmp_path, n_steps=1,
        validation=0.5, crop_sizes=[48], n_items=1, progress=False)
    assert 0 <= model.provenance['validation_pq'] <= 1


def test_teacher_of_another_input(path, tmp_path):
    with pytest.raises(ValueError, match='teacher must have the input With'):
        fit_model(put_head(path), [make_scene(0)], out=tmp_path, n_steps=1,
                  teacher=Model(head=SMALL))


# ---------------------------------------------------------- segmentation

@pytest.mark.parametrize('options', [
    {}, {'bin_factor': 2}, {'tile_size': 112}])
def test_segments(family, tmp_path, options):
    model = lively(put_head(family[0]))
    model.save(tmp_path / 'x.safetensors')
    image = scene_image(size=150)
    results = [DinoSegmenter(model=one, n_pixels=3, **options).segment(image)
               for one in (model, tmp_path / 'x.safetensors')]
    for result in results:
        segm = result.segmentation_image
        assert segm.data.shape == (150, 150)
        assert segm.n_labels > 0
        assert_array_equal(segm.data, results[0].segmentation_image.data)


def test_oversampled(path):
    """The noise units tell by how much; the planes are averaged."""
    noise = gaussian_filter(np.random.default_rng(1).normal(size=(140, 150)),
                            2.5)
    model = lively(put_head(path))
    planes = model.planes(as_image(noise))
    found = predict(model, planes)
    wanted = predict(model, planes, bin_factor=2)
    assert_array_equal(found.sky, wanted.sky)
    assert abs(found.sky - predict(model, planes, bin_factor=1).sky).max() > 0


def test_look_at_the_binned_image(path, monkeypatch):
    seen = []

    def stop(model, channels, **kwargs):
        seen.append(channels)
        raise StopIteration

    monkeypatch.setattr('astrodino_seg.coarse.predict', stop)
    planes = cube((80, 80))
    with pytest.raises(StopIteration):
        find_giants(put_head(path), planes, merge=0.5, min_seed=0.3)
    assert_array_equal(seen[0], bin_channels(planes, 4, 5))


# --------------------------------------------------------------- recipes

@needs_timm
@pytest.mark.parametrize('name', [
    'vit_tiny_patch16_224', 'vit_small_patch8_224.dino',
    'vit_small_patch14_reg4_dinov2.lvd142m'])
@pytest.mark.parametrize('head', ['grouping', SMALL], ids=['name', 'table'])
def test_recipe(tmp_path, name, head):
    """From a file of timm to a model, as a recipe says."""
    torch.manual_seed(0)
    network = timm.create_model(name, pretrained=False, depth=2, num_classes=0,
                                dynamic_img_size=True)
    save_file(network.state_dict(), tmp_path / 'timm.safetensors')
    table = {'backbone': str(tmp_path / 'timm.safetensors'), 'head': head,
             'preprocess': {'softening': 2.0}}
    model = make_model(table)
    assert table['head'] == head
    assert model.planes == WithNoiseUnits(Photographic(),
                                          PreprocessSpec(softening=2.0))
    assert_array_equal(model.vit.cls_token.detach(),
                       network.cls_token.detach())
    widths = (16, 32, 64, 96, 128) if head == 'grouping' else SMALL['widths']
    assert model.head.detail.stem[0].out_channels == widths[0]


def test_train_from_config(path, tmp_path):
    """Twice the same, and as the file has it."""
    image, truth = observe(make_scene(0), 0)
    write_image(tmp_path / 'a.fits', image)
    write_label_map(tmp_path / 'b.fits', truth.labels.clip(min=0),
                    image)
    config = {'model': {'backbone': str(path), 'head': SMALL},
              'images': [{'image': str(tmp_path / 'a.fits'),
                          'labels': str(tmp_path / 'b.fits')}] * 2,
              'head': {'n_steps': 2, 'crop_sizes': [48], 'threads': 1,
                       'progress': False, 'validation': 0.5}}
    one, two = (train_from_config(config, tmp_path / name) for name in 'xy')
    saved = load_model(tmp_path / 'x' / 'model.safetensors')
    for key, value in one.state_dict().items():
        assert_array_equal(two.state_dict()[key], value)
        assert_array_equal(saved.state_dict()[key], value)


@pytest.mark.parametrize(('change', 'match'), [
    ({'head': 'group'}, "one of .'grouping', 'linear', 'ms'. .* got 'group'"),
    ({'head': {'colour': 1}}, r"model.head has unknown keys \['colour'\]"),
    ({'vit': {}}, r"\['vit'\], which are those of backbone="),
    ({'planes': {}}, r"\['planes'\], which are those of backbone=")])
def test_bad_recipe(path, change, match):
    with pytest.raises(ValueError, match=match):
        make_model({'backbone': str(path), **change})
