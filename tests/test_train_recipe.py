# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the train.recipe module, what tables may be, recipes of pretraining
and ``astrodino pretrain``.
"""

import copy
import errno
import functools
import inspect
import json
import os
import shutil
import tomllib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from astropy.io import fits

import astrodino_seg
from astrodino_seg.cli import main
from astrodino_seg.errors import check
from astrodino_seg.models import Backbone, load_backbone
from astrodino_seg.train import pretrain, pretrain_from_config, recipe
from astrodino_seg.train.recipe import make_objective

pytest.importorskip('lightning_fabric')

RECIPES = [path for path in sorted((
    Path(astrodino_seg.__file__).parent / 'train' / 'recipes').glob('*.toml'))
    if '[views]' in path.read_text()]


# --------------------------------------------------------------- tables

def example(images, size, *, rate=0.1, turn=True, name='a', scale=(0.5, 1.0),
            seed=None, n=3, momentum=(0.1, 0.9), warmup=0.5):
    """What tables are checked against."""


@pytest.mark.parametrize('table', [
    {}, {'rate': 1}, {'rate': 0.5}, {'turn': False}, {'scale': [1, 2.5]},
    {'size': 'any'}, {'size': {'g': 'a table'}}, {'threads': 3},
    {'n': np.int64(7)}, {'seed': 0}, {'momentum': (0, 1)}, {'warmup': 0}])
def test_table(table):
    check('fit', table, example, without=['images'], extra=['threads'])


@pytest.mark.parametrize(('table', 'match'), [
    (3, 'fit must be a table, got 3'),
    ({'images': 1}, r"fit has unknown keys \['images'\]; known are \['mom"),
    ({'rates': 1}, r"fit has unknown keys \['rates'\]"),
    ({'rate': 'x'}, "fit: rate should be a valid number, got 'x'"),
    ({'rate': True}, 'fit: rate should be a valid number, got True'),
    ({'rate': 0}, 'fit: rate should be greater than 0, got 0'),
    ({'turn': 1}, 'fit: turn should be a valid boolean, got 1'),
    ({'name': 2}, 'fit: name should be a valid string, got 2'),
    ({'n': 0}, 'fit: n should be greater than or equal to 1, got 0'),
    ({'n': 1.0}, 'fit: n should be a valid integer, got 1.0'),
    ({'n': None}, 'fit: n should be a valid integer, got None'),
    ({'warmup': 1.5}, 'fit: warmup should be less than or equal to 1, got'),
    ({'momentum': [0.9, 1.1]}, r'momentum .* equal to 1, got \[0.9, 1.1\]'),
    ({'scale': [-1, 0.4]}, r'fit: scale should be greater than or equal to 0'),
    ({'scale': 0.5}, 'fit: scale should be 2 numbers, got 0.5'),
    ({'scale': [0.5]}, r'fit: scale should be 2 numbers, got \[0.5\]'),
    ({'scale': [0.5, 'x']}, 'fit: scale should be a valid number')])
def test_bad_table(table, match):
    with pytest.raises(ValueError, match=match):
        check('fit', table, example, without=['images'])


def test_what_is_missing():
    with pytest.raises(ValueError, match='fit: size is missing'):
        check('fit', {'rate': 1}, example, needs=['size'])


# -------------------------------------------------------------- recipes

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
    again = load_backbone(tmp_path / 'backbone.safetensors')
    assert again.spec['vit']['dim'] == 24
    assert again.provenance['source'] == {
        'images': [{'kind': 'folder', 'path': str(folder)}], 'n_images': 3,
        'views': config['views']}
    assert again.provenance['batch_size'] == 4
    start = Backbone.from_spec(vit=config['model']['vit'])
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
    found = load_backbone(out / 'backbone.safetensors').provenance
    assert found['objective']['kind'] == 'SimDINO'
    path.write_text('\n'.join(lines).replace('dim = 24', 'dim = 12'))
    assert main(['pretrain', str(path), '-o', str(out), '-q']) == 1
    assert 'encoder.vit.dim was 24, is 12' in capsys.readouterr().err
    path.write_text('[fit')
    assert main(['pretrain', str(path), '-o', str(out)]) == 1


@pytest.mark.parametrize(('path', 'value', 'match'), [
    ('fits', {}, "config has unknown tables .'fits'.; known are"),
    ('fit.n_step', 3, "fit has unknown keys .'n_step'"),
    ('fit.threads', 0, 'fit: threads should .* equal to 1, got 0'),
    ('fit.seed', -1, 'fit: seed should be .* equal to 0, got -1'),
    ('fit.out', 'x', "fit has unknown keys .'out'"),
    ('views.seed', 3, "views has unknown keys .'seed'"),
    ('model.vits', {}, "model has unknown keys .'vits'"),
    ('model.vit.dim', 25, 'dim must be a multiple of n_heads=3; got 25'),
    ('fit.n_steps', None, 'fit: n_steps is missing'),
    ('fit.momentum', [0.9, 2], 'momentum should be less than or equal to 1'),
    ('objective.kind', 'byol', "objective: kind must be .* got 'byol'"),
    ('objective.rate', 1, "objective has unknown keys .'rate'"),
    ('objective.ibot', 'much', 'objective: ibot should be a valid number'),
    ('objective.centring', 'x', "centring must be 'mean' or 'sinkhorn'"),
    ('images', [], 'images: no source'),
    ('images.0.kind', 'web', "images: kind must be one of .* got 'web'"),
    ('images.0.n_scenes', 5, "images has unknown keys .'n_scenes'"),
    ('images.0.share', 0.0, 'images: share should be greater than 0'),
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
    encoder = Backbone.from_spec(**config['model'])
    patch = encoder.vit.patch_size
    assert config['views']['global_size'] % patch == 0
    assert config['views']['local_size'] % patch == 0
    assert make_objective(config['objective']).patches
    check('fit', config['fit'], pretrain, extra=['threads'])
    if path.stem != 'gpu':      # what is bundled can be trained by users
        assert encoder.spec == load_backbone().spec


def test_there_are_recipes():
    assert [path.stem for path in RECIPES] == [
        'backbone_tiny', 'cpu', 'gpu']


# --------------------------------------------------------------- command

RECIPE = {
    'model.vit': {'patch_size': 8, 'dim': 24, 'depth': 1, 'n_heads': 3},
    'views': {'global_size': 32, 'local_size': 16, 'n_local': 1},
    'objective': {'n_prototypes': 8, 'hidden': 8, 'bottleneck': 4},
    'fit': {'n_steps': 1, 'batch_size': 2, 'n_workers': 0, 'device': 'cpu',
            'threads': 1}}


@pytest.fixture
def command(tmp_path, capsys):
    """Run the command; returns its status and what it said of errors."""
    folder = tmp_path / 'images'
    folder.mkdir()

    def run(*images, lines=(), **changes):
        for k, pixels in enumerate(images):
            fits.writeto(folder / f'{k}.fits', pixels.astype(np.float32),
                         overwrite=True)
        text = ['[[images]]', 'kind = "folder"', f"path = '{folder}'", *lines]
        for name, table in RECIPE.items():
            text.append(f'[{name}]')
            table = {**table, **changes.get(name.split('.')[-1], {})}
            text += [f'{key} = {json.dumps(v)}' for key, v in table.items()]
        recipe = tmp_path / 'recipe.toml'
        recipe.write_text('\n'.join(text))
        status = main(['pretrain', str(recipe), '-o', str(tmp_path / 'run'),
                       '-q'])
        return status, capsys.readouterr().err

    return run


def noise(*shape):
    return np.random.default_rng(0).normal(size=shape)


@pytest.mark.parametrize(('images', 'message'), [
    ([], "no file '*.fits*' in "),
    ([np.full((40, 40), np.nan)] * 2, 'none of the 2 files can be read; of '
                                      'the first: '),
    ([noise(40, 40), noise(90, 31)], '1.fits has 90 x 31 pixels, less than '
                                     'global_size=32'),
    ([np.ones((40, 40)), noise(40, 40), np.zeros((2, 40, 40))],
     '2 of 3 images cannot be used: ')])
def test_bad_images(command, tmp_path, images, message):
    """One line of error that names what is wrong, and nothing is written."""
    status, error = command(*images)
    assert status == 1
    assert error.startswith('astrodino: error: ')
    assert error.count('\n') == 1
    assert message in error
    assert not (tmp_path / 'run').exists()


def test_no_readable_file(command, tmp_path):
    for k in range(3):
        (tmp_path / 'images' / f'page{k}.fits').write_text('<html>404</html>')
    status, error = command()
    assert status == 1
    assert 'none of the 3 files can be read' in error
    assert error.count('\n') == 1


def test_unreadable_files_are_counted(command, tmp_path):
    (tmp_path / 'images' / 'page.fits').write_text('<html>404</html>')
    status, error = command(noise(40, 40))
    assert status == 0
    assert 'astrodino: warning: files left out: 1,' in error
    assert 'page.fits' in error
    assert (tmp_path / 'run' / 'backbone.safetensors').exists()


@pytest.mark.parametrize(('changes', 'message'), [
    ({'fit': {'n_steps': 'many'}}, 'fit: n_steps should be a valid integer'),
    ({'fit': {'peak_rate': 'x'}}, 'peak_rate should be a valid number, got'),
    ({'fit': {'momentum': 0.9}}, 'fit: momentum should be 2 numbers, got 0.9'),
    ({'fit': {'n_workers': -1}}, 'n_workers should be greater than or equal'),
    ({'fit': {'bfloat16': 'no'}}, 'bfloat16 should be a valid boolean, got'),
    ({'views': {'zoom': [1]}}, 'views: zoom should be 2 numbers, got [1]'),
    ({'vit': {'patch_size': 0}}, 'model.vit: patch_size should be greater'),
    ({'vit': {'n_heads': 0}}, 'n_heads should be greater than or equal to 1'),
    ({'objective': {'hidden': 1.5}}, 'hidden should be a valid integer'),
    ({'lines': ['share = "x"']}, "share should be a valid number, got 'x'"),
    ({'lines': ['pattern = 3']}, 'pattern should be a valid string, got 3')])
def test_bad_values(command, tmp_path, changes, message):
    status, error = command(noise(40, 40), **changes)
    assert status == 1
    assert message in error
    assert error.count('\n') == 1
    assert not (tmp_path / 'run').exists()


def test_checkpoint_of_another_architecture(command):
    assert command(noise(40, 40))[0] == 0
    status, error = command(vit={'depth': 2})
    assert status == 1
    assert 'encoder.vit.depth was 1, is 2' in error


def test_full_disk(command, tmp_path, monkeypatch):
    """Told before the first step, and when it fills up on the way."""
    usage = shutil.disk_usage
    monkeypatch.setattr(shutil, 'disk_usage',
                        lambda path: SimpleNamespace(free=10))
    status, error = command(noise(40, 40))
    assert status == 1
    assert 'out: 0 MB are free in ' in error
    assert not list((tmp_path / 'run').glob('checkpoint*'))
    monkeypatch.setattr(shutil, 'disk_usage', usage)

    def full(descriptor):
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(os, 'fsync', full)
    status, error = command()
    assert status == 1
    assert 'no checkpoint at step 1: ' in error
    assert 'No space left on device' in error
    assert not list((tmp_path / 'run').glob('*.part'))
