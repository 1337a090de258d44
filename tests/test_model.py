# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the model module.
"""

import copy
import hashlib
import json
import os
from dataclasses import asdict

import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from safetensors import safe_open
from safetensors.torch import save_file

from astrodino_seg.errors import ModelFileError
from astrodino_seg.inputs.channels import PreprocessSpec
from astrodino_seg.inputs.rules import NoiseUnits, Photographic
from astrodino_seg.models import Backbone, load_backbone
from astrodino_seg.models import load as module
from astrodino_seg.models.instance import Model
from astrodino_seg.models.load import load_model

TINY = {'vit': {'dim': 48, 'depth': 1, 'n_heads': 3},
        'head': {'widths': (8, 8, 8, 8), 'n_middle': 8}}


def tiny_model(seed=0, **kwargs):
    """A model with batch norms that have seen something."""
    torch.manual_seed(seed)
    model = Model(**TINY, **kwargs)
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.3)
            layer.running_var.uniform_(0.5, 2)
            torch.nn.init.normal_(layer.weight, 1, 0.2)
            torch.nn.init.normal_(layer.bias, 0, 0.2)
    return model.eval()


def outputs(model, n_channels=5):
    rng = torch.Generator().manual_seed(1)
    x = torch.randn(1, n_channels, 48, 64, generator=rng)
    with torch.no_grad():
        maps = model(x, torch.zeros(1, dtype=torch.long))
    return [*maps[:2], *maps.pyramid]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / 'tiny.safetensors'
    tiny_model(provenance={'threshold': 0.25}).save(path)
    return path


def rewrite(path, *, tensors=None, **metadata):
    """Write the file anew with other metadata or tensors."""
    with safe_open(path, 'pt') as f:
        old = {key: f.get_tensor(key) for key in f.keys()}  # noqa: SIM118
        metadata = {**f.metadata(), **metadata}
    save_file(old if tensors is None else tensors(old), path,
              {k: v for k, v in metadata.items() if v is not None})


# -------------------------------------------------------------- the model

def test_forward():
    """The head sees the image and the tokens of the last layer."""
    model = tiny_model()
    x = torch.randn(2, 5, 32, 48)
    with torch.no_grad():
        tokens = model.tokens(x)
        assert tokens.shape == (2, 48, 2, 3)
        direct = model.vit(x)[:, model.vit.n_prefix:]
        assert_allclose(tokens.flatten(2).transpose(1, 2), direct, atol=1e-6)
        fine = torch.zeros(1, dtype=torch.long)
        assert_array_equal(model(x, fine).heat,
                           model.head(x, tokens, fine).heat)


def test_defaults():
    model = Model()
    assert model.preprocess == PreprocessSpec()
    assert model.vit.dim == 192
    assert len(model.vit.blocks) == 6
    assert model.vit.in_channels == 5


def test_fused():
    model = tiny_model()
    wanted = outputs(model)
    n = sum(isinstance(m, torch.nn.BatchNorm2d) for m in model.modules())
    fused = copy.deepcopy(model).fused()
    assert n > 10
    assert not any(isinstance(m, torch.nn.BatchNorm2d)
                   for m in fused.modules())
    assert not any(p.requires_grad for p in fused.parameters())
    for a, b in zip(outputs(fused), wanted):
        assert_allclose(a, b, atol=1e-4, rtol=1e-4)
    # once more changes nothing
    for a, b in zip(outputs(fused.fused()), wanted):
        assert_allclose(a, b, atol=1e-4, rtol=1e-4)
    # the norms matter, or this would show nothing
    bare = copy.deepcopy(model)
    for layer in bare.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.reset_running_stats()
    assert (outputs(bare)[1] - wanted[1]).abs().max() > 0.01


# --------------------------------------------------------------- the file

@pytest.mark.parametrize('preprocess', [
    {}, {'n_slots': 2, 'softening': 3.0, 'box_size': 32}])
def test_round_trip(tmp_path, preprocess):
    model = tiny_model(preprocess=preprocess, provenance={'steps': 7})
    model.save(tmp_path / 'a')
    again = load_model(str(tmp_path / 'a'))
    assert not again.training
    assert again.preprocess == model.preprocess
    assert again.provenance == {'steps': 7}
    assert json.dumps(again.spec) == json.dumps(model.spec)
    n = model.preprocess.n_channels
    for a, b in zip(outputs(again, n), outputs(model, n)):
        assert_array_equal(a, b)
    for key, value in model.state_dict().items():
        assert_array_equal(again.state_dict()[key], value)


def test_file(path):
    """Any safetensors reader reads it, and everybody may."""
    with safe_open(path, 'np') as f:
        metadata = f.metadata()
        name = 'vit.patch_embed.proj.weight'
        assert_array_equal(f.get_tensor(name),
                           tiny_model().state_dict()[name])
    assert metadata['format'] == Model.FORMAT
    assert json.loads(metadata['spec'])['vit']['dim'] == 48
    assert json.loads(metadata['provenance']) == {'threshold': 0.25}
    assert os.listdir(path.parent) == [path.name]
    if os.name == 'posix':
        assert path.stat().st_mode & 0o777 == 0o644


def test_overwrite(path):
    other = tiny_model(1)
    other.save(path)
    assert_array_equal(outputs(load_model(path))[2], outputs(other)[2])
    assert os.listdir(path.parent) == [path.name]


def test_saved_channels_last(tmp_path):
    """The layout in memory does not matter."""
    model = tiny_model()
    model.to(memory_format=torch.channels_last).save(tmp_path / 'a')
    again = load_model(tmp_path / 'a').state_dict()
    for key, value in tiny_model().state_dict().items():
        assert_array_equal(again[key], value)


@pytest.mark.parametrize('where', ['astrodino_seg.models.backbone.to_bytes',
                                   'pathlib.Path.replace'])
def test_failed_save(path, monkeypatch, where):
    """The old file stays, and nothing else."""
    def fail(*args, **kwargs):
        msg = 'disk full'
        raise OSError(msg)

    before = path.read_bytes()
    monkeypatch.setattr(where, fail)
    with pytest.raises(OSError, match='disk full'):
        tiny_model(1).save(path)
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_save_without_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match='nowhere'):
        tiny_model().save(tmp_path / 'nowhere' / 'model')


@pytest.mark.parametrize('name', ['absent.safetensors', '.'])
def test_no_file(tmp_path, name):
    with pytest.raises(FileNotFoundError, match='path: no weights file .*'):
        load_model(tmp_path / name)


@pytest.mark.parametrize('content', [
    b'', b'not weights', bytes(1000), b'\xff' * 100])
def test_corrupt(path, content):
    path.write_bytes(content)
    with pytest.raises(ModelFileError,
                       match=r"path: '.*tiny.safetensors' is not a readable"):
        load_model(path)


@pytest.mark.parametrize('part', [0.0001, 0.01, 0.5, 0.9999])
def test_truncated(path, part):
    content = path.read_bytes()
    path.write_bytes(content[:int(part * len(content))])
    with pytest.raises(ModelFileError,
                       match=r"path: '.*tiny.safetensors' is not a readable"):
        load_model(path)


def test_foreign(path):
    save_file({'weight': torch.zeros(3)}, path)
    with pytest.raises(ModelFileError, match=(
            r"path: '.*tiny.safetensors' has format None, this version "
            rf"reads '{Model.FORMAT}'")):
        load_model(path)


def test_other_version(path):
    rewrite(path, format='astrodino_seg/999')
    with pytest.raises(ModelFileError, match=(
            r"path: '.*tiny.safetensors' has format 'astrodino_seg/999'")):
        load_model(path)


def drop_first(tensors):
    tensors.pop(sorted(tensors)[0])
    return tensors


def add_one(tensors):
    return {**tensors, 'more': torch.zeros(2)}


def reshape_one(tensors):
    return {**tensors, 'vit.cls_token': torch.zeros(1, 1, 47)}


SPEC = tiny_model().spec


@pytest.mark.parametrize('change', [
    {'tensors': drop_first}, {'tensors': add_one}, {'tensors': reshape_one},
    {'spec': None}, {'provenance': None}, {'spec': '{'}, {'spec': '[]'},
    {'spec': json.dumps({**SPEC, 'vit': {**SPEC['vit'], 'depth': 2}})},
    {'spec': json.dumps({**SPEC, 'vit': {**SPEC['vit'], 'dim': 47}})},
    {'spec': json.dumps({**SPEC, 'vit': {**SPEC['vit'], 'colour': 1}})},
    {'spec': json.dumps({**SPEC, 'preprocess': {'n_slots': 4}})},
    {'spec': json.dumps({**SPEC, 'more': 1})}],
    # the same in every process, as pytest-xdist asks
    ids=lambda change: '-'.join(
        f'{k}-{getattr(v, "__name__", v)}' for k, v in change.items())[:40])
def test_spec_mismatch(path, change):
    rewrite(path, **change)
    with pytest.raises(ModelFileError, match=(
            r"path: weights of '.*tiny.safetensors' do not fit their spec")):
        load_model(path)


@pytest.mark.parametrize('odds', [
    float('nan'), float('inf'), 'two', None, True])
def test_odds_of_a_decision(path, odds):
    rewrite(path, spec=json.dumps({**SPEC, 'decision': {
        'n_seed': 2, 'n_pair': 3, 'star_odds': odds}}))
    with pytest.raises(ModelFileError, match='star_odds of a decision must '
                       f'be a finite number, got {odds!r}'):
        load_model(path)


# ------------------------------------------------------ the bundled model

@pytest.fixture
def bundled(path, monkeypatch):
    """A small file in the place of the bundled one, and its sha256."""
    module._check_bundled.cache_clear()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_suffix('.sha256').write_text(f'{digest}  {path.name}\n')
    monkeypatch.setattr(module, 'DATA', path.parent)
    monkeypatch.setattr(module, 'DEFAULT_MODEL', path.stem)
    monkeypatch.setattr(module, 'BUNDLED', (path.stem,))
    yield path
    module._check_bundled.cache_clear()


def test_bundled(bundled):
    assert_array_equal(outputs(load_model())[0], outputs(tiny_model())[0])


def test_damaged_bundled(bundled):
    content = bytearray(bundled.read_bytes())
    content[-1] ^= 1
    bundled.write_bytes(content)
    with pytest.raises(ModelFileError, match='installation is damaged'):
        load_model()
    # only the bundled file has a sha256 to be held to
    assert not load_model(bundled).training


# -------------------------------------------------------------- backbone

def tiny_backbone():
    torch.manual_seed(2)
    return Backbone.from_spec(vit=TINY['vit'], preprocess={'n_slots': 4},
                              provenance={'n_steps': 3})


def test_backbone_round_trip(tmp_path):
    backbone = tiny_backbone().eval()
    backbone.save(tmp_path / 'b.safetensors')
    again = load_backbone(tmp_path / 'b.safetensors')
    assert not again.training
    assert again.spec == backbone.spec
    assert again.preprocess == PreprocessSpec(n_slots=4)
    assert again.provenance == {'n_steps': 3}
    x = torch.randn(2, again.preprocess.n_channels, 32, 48)
    with torch.no_grad():
        one, two = backbone(x), again(x)
    assert_array_equal(one.cls, two.cls)
    assert one.patches[-1].shape == (2, 48, 2, 3)
    with safe_open(tmp_path / 'b.safetensors', 'pt') as f:
        assert f.metadata()['format'] == Backbone.FORMAT
        assert all(key.startswith('vit.') for key in f.keys())  # noqa: SIM118


def test_spec_of_an_older_backbone(tmp_path):
    """It told the preprocessing, and no other rule."""
    path = tmp_path / 'b.safetensors'
    backbone = tiny_backbone()
    backbone.save(path)
    rewrite(path, spec=json.dumps({
        'vit': {'patch_size': 16, 'pos_embed': 'none', 'rope': True,
                'n_registers': 2, **TINY['vit']},
        'preprocess': asdict(backbone.preprocess)}))
    again = load_backbone(path)
    assert again.spec == backbone.spec
    assert again.planes == backbone.planes


def test_one_preprocessing(tmp_path):
    """The head sees the noise units that the backbone sees."""
    planes = tiny_backbone().spec['planes']
    for model in (Model(**TINY, planes=planes),
                  Model.from_backbone(tiny_backbone(), TINY['head'])):
        model.save(tmp_path / 'm.safetensors')
        for one in (model, load_model(tmp_path / 'm.safetensors')):
            assert one.preprocess == PreprocessSpec(n_slots=4)
            assert one.planes.spec == one.backbone.planes.spec
            assert one.vit.in_channels == one.head.in_channels == (
                one.preprocess.n_channels)
    with pytest.raises(ValueError, match='preprocess is that of the planes'):
        Model(**TINY, planes=planes, preprocess={'n_slots': 3})
    with pytest.raises(ValueError, match='preprocess is that of the planes'):
        Model.from_backbone(tiny_backbone(), preprocess={'n_slots': 3})


def test_a_backbone_with_other_planes():
    backbone = tiny_backbone()
    other = NoiseUnits(PreprocessSpec(n_slots=4, softening=2.0))
    for one in (backbone, Model.from_backbone(backbone, TINY['head'])):
        found = load_backbone(one, planes=other)
        assert found.planes is other
        assert found.vit is one.vit
    assert backbone.preprocess.softening == 1
    with pytest.raises(ValueError, match='planes: these weights need'):
        load_backbone(backbone, planes=Photographic())
    for one in (backbone, None, 'grouping_tiny'):
        with pytest.raises(ValueError, match='key: only a checkpoint of oth'):
            load_backbone(one, key='student')


def test_backbone_of_photographs(tmp_path):
    """Any rule of the package may stand in a file."""
    backbone = Backbone.from_spec(vit=TINY['vit'], planes={
        'kind': 'Photographic', 'mean': (0.1, 0.2, 0.3)})
    backbone.save(tmp_path / 'b.safetensors')
    again = load_backbone(tmp_path / 'b.safetensors')
    assert again.planes == backbone.planes
    assert again.planes.mean == (0.1, 0.2, 0.3)


def test_backbone_and_model_are_told_apart(tmp_path):
    other = tmp_path / 'b.safetensors'
    tiny_backbone().save(other)
    with pytest.raises(ModelFileError, match=(
            f"format '{Backbone.FORMAT}', this version reads "
            f"'{Model.FORMAT}'")):
        load_model(other)


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_weights_must_be_finite(path, value):
    def spoil(tensors):
        tensors['vit.norm.bias'][3] = value
        return tensors

    rewrite(path, tensors=spoil)
    for load in (load_model, load_backbone):
        with pytest.raises(ModelFileError, match=(
                r"path: '.*tiny.safetensors': 1 parameters are not finite, "
                'vit.norm.bias among')):
            load(path)


def test_model_holds_its_backbone(path):
    """Its tokens are those of the backbone, wherever it is moved."""
    model = copy.deepcopy(load_model(path))
    with torch.no_grad():
        model.vit.norm.bias += 1
    x = torch.randn(1, 5, 32, 48)
    model.double()
    with torch.no_grad():
        assert_array_equal(model.tokens(x.double()),
                           model.backbone.tokens(x.double()))
    assert not any(key.startswith('backbone') for key in model.state_dict())


@pytest.mark.parametrize('patch_size', [8, 4])
def test_small_patches_are_averaged(patch_size):
    model = Model(vit={**TINY['vit'], 'patch_size': patch_size},
                  head=TINY['head']).eval()
    x = torch.randn(1, 5, 32, 48)
    with torch.no_grad():
        fine = model.vit.forward_features(x).patches[-1]
        found = model.tokens(x)
        assert model(x, torch.zeros(1, dtype=torch.long)).heat.shape == (
            1, 32, 48)
    n = 16 // patch_size
    expected = fine.unflatten(3, (3, n)).unflatten(2, (2, n)).mean(dim=(3, 5))
    assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
