# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the pretrain.recipe module, the recipes and ``astrodino pretrain``.
"""

import copy
import functools
import inspect
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from astropy.io import fits

import astrodino_seg
from astrodino_seg.cli import main
from astrodino_seg.models.load import Encoder, load_encoder
from astrodino_seg.train import pretrain, pretrain_from_config, recipe
from astrodino_seg.train.recipe import make_objective
from astrodino_seg.train.ssl import check_table

pytest.importorskip('lightning_fabric')

RECIPES = [path for path in sorted((
    Path(astrodino_seg.__file__).parent / 'train' / 'recipes').glob('*.toml'))
    if '[views]' in path.read_text()]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Three images of noise with a few blobs."""
    folder = tmp_path_factory.mktemp('images')
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:60, :72]
    for k in range(3):
        data = rng.normal(0, 1, (60, 72))
        for cy, cx in rng.uniform(5, 55, (8, 2)):
            data += 30 * np.exp(-((y - cy)**2 + (x - cx)**2) / 8)
        fits.writeto(folder / f'{k}.fits', data.astype(np.float32))
    return folder


@pytest.fixture
def config(folder):
    return {
        'model': {'vit': {'patch_size': 8, 'dim': 24, 'depth': 1,
                          'n_heads': 3}},
        'images': [{'kind': 'folder', 'path': str(folder)}],
        'views': {'global_size': 32, 'local_size': 16, 'n_local': 2},
        'objective': {'n_prototypes': 16, 'hidden': 8, 'bottleneck': 4},
        'fit': {'n_steps': 2, 'batch_size': 4, 'n_workers': 0,
                'device': 'cpu', 'threads': 1}}


def changed(config, path, value):
    """A copy of a recipe with one value replaced, or removed by `None`."""
    config = copy.deepcopy(config)
    *tables, key = path.split('.')
    table = config
    for name in tables:
        table = table[int(name) if name.isdigit() else name]
    if value is None:
        del table[key]
    else:
        table[key] = value
    return config


def test_recipe(config, folder, tmp_path):
    encoder = pretrain_from_config(config, tmp_path, progress=False)
    again = load_encoder(tmp_path / 'backbone.safetensors')
    assert again.spec['vit']['dim'] == 24
    assert again.provenance['source'] == {
        'images': [{'kind': 'folder', 'path': str(folder)}], 'n_images': 3,
        'views': config['views']}
    assert again.provenance['batch_size'] == 4
    start = Encoder(vit=config['model']['vit'])
    assert encoder.state_dict().keys() == start.state_dict().keys()
    # what has no effect on the weights may change; the views may not
    pretrain_from_config(changed(config, 'fit.save_every', 7), tmp_path,
                         progress=False)
    with pytest.raises(ValueError, match='n_local was 2, is 3'):
        pretrain_from_config(changed(config, 'views.n_local', 3), tmp_path,
                             progress=False)


def test_what_the_recipe_makes(config, monkeypatch, tmp_path):
    """Seeds, numbers and sources reach the data."""
    seen = {}

    @functools.wraps(pretrain)
    def catch(encoder, data, **kwargs):
        seen.update(kwargs, data=data, threads=torch.get_num_threads())

    monkeypatch.setattr(recipe, 'pretrain', catch)
    before = torch.get_num_threads()
    config['fit'].update(seed=7, threads=2)
    config['images'][0]['share'] = 0.25
    config['images'].append({'kind': 'scenes', 'n_scenes': 5, 'size': 40,
                             'share': 0.75})
    pretrain_from_config(config, tmp_path)
    assert (seen['seed'], seen['threads']) == (7, 2)
    assert torch.get_num_threads() == before
    data = seen['data']
    assert (data.seed, len(data), data.n_local) == (7, 8, 2)
    folder, scenes = data.images.sources
    assert (len(folder), len(scenes), scenes.seed) == (3, 5, 7)
    assert scenes.scenes.split == 'train'
    assert data.images.weights.tolist() == pytest.approx(
        [0.25 / 3] * 3 + [0.75 / 5] * 5)
    # without a batch size, that of the loop
    del config['fit']['batch_size']
    pretrain_from_config(config, tmp_path)
    batch_size = inspect.signature(pretrain).parameters['batch_size'].default
    assert len(seen['data']) == 2 * batch_size


def test_command(config, folder, tmp_path, capsys):
    lines = ['[model.vit]', 'patch_size = 8', 'dim = 24', 'depth = 1',
             '[[images]]', 'kind = "folder"', f"path = '{folder}'",
             '[views]', 'global_size = 32', 'local_size = 16', 'n_local = 1',
             '[objective]', 'kind = "simdino"', 'hidden = 8',
             'bottleneck = 4', '[fit]', 'n_steps = 1', 'batch_size = 2',
             'n_workers = 0', 'device = "cpu"', 'threads = 1']
    path = tmp_path / 'recipe.toml'
    path.write_text('\n'.join(lines))
    out = tmp_path / 'run'
    assert main(['pretrain', str(path), '-o', str(out), '-q']) == 0
    found = load_encoder(out / 'backbone.safetensors').provenance
    assert found['objective']['kind'] == 'SimDINO'
    path.write_text('\n'.join(lines).replace('dim = 24', 'dim = 12'))
    assert main(['pretrain', str(path), '-o', str(out), '-q']) == 1
    assert 'encoder.vit.dim was 24, is 12' in capsys.readouterr().err
    path.write_text('[fit')
    assert main(['pretrain', str(path), '-o', str(out)]) == 1


@pytest.mark.parametrize(('path', 'value', 'match'), [
    ('fits', {}, "config has unknown keys .'fits'.; known are"),
    ('fit.n_step', 3, "fit has unknown keys .'n_step'"),
    ('fit.threads', 0, 'threads must be a positive integer, got 0'),
    ('fit.out', 'x', "fit has unknown keys .'out'"),
    ('views.seed', 3, "views has unknown keys .'seed'"),
    ('model.vits', {}, "model has unknown keys .'vits'"),
    ('model.vit.dim', 25, 'dim must be a multiple of n_heads=3; got 25'),
    ('fit.n_steps', None, 'n_steps must be a positive .* got None'),
    ('fit.momentum', [0.9, 2], 'momentum must be two numbers'),
    ('objective.kind', 'byol', "objective: kind must be .* got 'byol'"),
    ('objective.rate', 1, "objective has unknown keys .'rate'"),
    ('objective.ibot', 'much', 'objective: ibot must be a number'),
    ('objective.centring', 'x', "centring must be 'mean' or 'sinkhorn'"),
    ('images', [], 'images: no source'),
    ('images.0.kind', 'web', "images: kind must be one of .* got 'web'"),
    ('images.0.n_scenes', 5, "images has unknown keys .'n_scenes'"),
    ('images.0.share', 0.0, 'shares must be 1 positive numbers'),
    ('views.global_size', 64, '60 x 72 pixels, less than global_size=64'),
    ('views.local_size', 20, 'multiples of patch_size=8, got 20'),
    ('views.global_scale', [0.2, 1.0], 'global_scale must be a range')])
def test_impossible_recipes(config, tmp_path, path, value, match):
    with pytest.raises(ValueError, match=match):
        pretrain_from_config(changed(config, path, value), tmp_path / 'run')
    assert not (tmp_path / 'run').exists()


def test_shares_of_all_or_none(config, tmp_path):
    config['images'].append({**config['images'][0], 'share': 0.5})
    with pytest.raises(ValueError, match='all sources have a share'):
        pretrain_from_config(config, tmp_path / 'run')


def test_no_folder(config, tmp_path):
    config['images'][0]['path'] = str(tmp_path / 'absent')
    with pytest.raises(FileNotFoundError, match='absent'):
        pretrain_from_config(config, tmp_path / 'run')


def test_out_is_a_file(config, tmp_path):
    (tmp_path / 'run').write_text('')
    with pytest.raises(OSError, match='run'):
        pretrain_from_config(config, tmp_path / 'run', progress=False)


@pytest.mark.parametrize('path', RECIPES, ids=lambda path: path.stem)
def test_committed_recipes(path):
    config = tomllib.loads(path.read_text())
    encoder = Encoder(**config['model'])
    patch = encoder.vit.patch_size
    assert config['views']['global_size'] % patch == 0
    assert config['views']['local_size'] % patch == 0
    assert make_objective(config['objective']).patches
    check_table('fit', config['fit'], pretrain, extra=['threads'])
    if path.stem != 'gpu':      # what is bundled can be trained by users
        assert encoder.spec == load_encoder().spec


def test_there_are_recipes():
    assert [path.stem for path in RECIPES] == [
        'backbone_tiny', 'cpu', 'gpu']
