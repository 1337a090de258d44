# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the pretrain.checks module, and what ``astrodino pretrain`` says of
bad images and bad recipes before it computes anything.
"""

import errno
import json
from types import SimpleNamespace

import numpy as np
import pytest
from astropy.io import fits

from astrodino_seg.cli import main
from astrodino_seg.train import runner as checkpoint
from astrodino_seg.train.ssl import check_counts, check_settings, check_table

pytest.importorskip('lightning_fabric')


def example(images, size, *, rate=0.1, turn=True, name='a', scale=(0.5, 1.0),
            seed=None):
    """What tables are checked against."""


@pytest.mark.parametrize('table', [
    {}, {'rate': 1}, {'rate': 0.5}, {'turn': False}, {'scale': [1, 2.5]},
    {'seed': 'any'}, {'size': 'any'}, {'name': {'g': 'a table'}},
    {'threads': 3}])
def test_table(table):
    check_table('fit', table, example, without=['images'], extra=['threads'])


@pytest.mark.parametrize(('table', 'match'), [
    (3, 'fit must be a table, got 3'),
    ({'images': 1}, r"fit has unknown keys \['images'\]; known are \['name'"),
    ({'rates': 1}, r"fit has unknown keys \['rates'\]"),
    ({'rate': 'x'}, "fit: rate must be a number, got 'x'"),
    ({'rate': True}, 'fit: rate must be a number, got True'),
    ({'turn': 1}, 'fit: turn must be true or false, got 1'),
    ({'name': 2}, 'fit: name must be a string, got 2'),
    ({'scale': 0.5}, 'fit: scale must be 2 numbers, got 0.5'),
    ({'scale': [0.5]}, r'fit: scale must be 2 numbers, got \[0.5\]'),
    ({'scale': [0.5, 'x']}, 'fit: scale must be 2 numbers')])
def test_bad_table(table, match):
    with pytest.raises(ValueError, match=match):
        check_table('fit', table, example, without=['images'])


def test_counts():
    check_counts(a=1, b=np.int64(7))
    check_counts(0, a=0)
    for value in (0, 1.0, '3', None):
        with pytest.raises(ValueError, match='b must be a positive integer'):
            check_counts(a=1, b=value)
    with pytest.raises(ValueError, match='a must be an integer of 0 or more'):
        check_counts(0, a=-1)


@pytest.mark.parametrize(('name', 'value', 'match'), [
    ('seed', -1, 'seed must be an integer of 0 or more, got -1'),
    ('mask_ratio', (0.5, 0.1), r'mask_ratio must be a range, got \(0.5, 0.1')])
def test_settings(name, value, match):
    settings = {
        'n_steps': 1, 'batch_size': 1, 'n_parts': 1, 'seed': 0,
        'peak_rate': 1, 'max_gradient': 1, 'warmup': 0,
        'temperature_warmup': 0, 'frozen_prototypes': 0, 'drop_path': 0,
        'mask_share': 0, 'weight_decay': (0, 0), 'momentum': (1, 1),
        'temperature': (1, 1), 'mask_ratio': (0, 1)}
    check_settings(settings)
    with pytest.raises(ValueError, match=match):
        check_settings({**settings, name: value})


# --------------------------------------------------------------- command

RECIPE = {
    'model.vit': {'patch_size': 8, 'dim': 24, 'depth': 1, 'n_heads': 3},
    'views': {'global_size': 32, 'local_size': 16, 'n_local': 1},
    'objective': {'n_prototypes': 8, 'hidden': 8, 'bottleneck': 4},
    'fit': {'n_steps': 1, 'batch_size': 2, 'n_workers': 0, 'device': 'cpu',
            'threads': 1}}


@pytest.fixture
def pretrain(tmp_path, capsys):
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
def test_bad_images(pretrain, tmp_path, images, message):
    """One line of error that names what is wrong, and nothing is written."""
    status, error = pretrain(*images)
    assert status == 1
    assert error.startswith('astrodino: error: ')
    assert error.count('\n') == 1
    assert message in error
    assert not (tmp_path / 'run').exists()


def test_no_readable_file(pretrain, tmp_path):
    for k in range(3):
        (tmp_path / 'images' / f'page{k}.fits').write_text('<html>404</html>')
    status, error = pretrain()
    assert status == 1
    assert 'none of the 3 files can be read' in error
    assert error.count('\n') == 1


def test_unreadable_files_are_counted(pretrain, tmp_path):
    (tmp_path / 'images' / 'page.fits').write_text('<html>404</html>')
    status, error = pretrain(noise(40, 40))
    assert status == 0
    assert 'astrodino: warning: files left out: 1,' in error
    assert 'page.fits' in error
    assert (tmp_path / 'run' / 'backbone.safetensors').exists()


@pytest.mark.parametrize(('changes', 'message'), [
    ({'fit': {'n_steps': 'many'}}, 'n_steps must be a positive integer, got '),
    ({'fit': {'peak_rate': 'x'}}, "fit: peak_rate must be a number, got 'x'"),
    ({'fit': {'momentum': 0.9}}, 'fit: momentum must be 2 numbers, got 0.9'),
    ({'fit': {'n_workers': -1}}, 'n_workers must be an integer of 0 or more'),
    ({'fit': {'bfloat16': 'no'}}, 'bfloat16 must be True, False or None'),
    ({'views': {'zoom': [1]}}, r'views: zoom must be 2 numbers, got [1]'),
    ({'vit': {'patch_size': 0}}, 'patch_size must be a positive integer'),
    ({'vit': {'n_heads': 0}}, 'n_heads must be a positive integer, got 0'),
    ({'objective': {'hidden': 1.5}}, 'objective: hidden must be an integer'),
    ({'lines': ['share = "x"']}, "images: share must be a number, got 'x'"),
    ({'lines': ['pattern = 3']}, 'images: pattern must be a string, got 3')])
def test_bad_values(pretrain, tmp_path, changes, message):
    status, error = pretrain(noise(40, 40), **changes)
    assert status == 1
    assert message in error
    assert error.count('\n') == 1
    assert not (tmp_path / 'run').exists()


def test_checkpoint_of_another_architecture(pretrain):
    assert pretrain(noise(40, 40))[0] == 0
    status, error = pretrain(vit={'depth': 2})
    assert status == 1
    assert 'encoder.vit.depth was 1, is 2' in error


def test_full_disk(pretrain, tmp_path, monkeypatch):
    """Told before the first step, and when it fills up on the way."""
    usage = checkpoint.shutil.disk_usage
    monkeypatch.setattr(checkpoint.shutil, 'disk_usage',
                        lambda path: SimpleNamespace(free=10))
    status, error = pretrain(noise(40, 40))
    assert status == 1
    assert 'out: 0 MB are free in ' in error
    assert not list((tmp_path / 'run').glob('*.safetensors'))
    monkeypatch.setattr(checkpoint.shutil, 'disk_usage', usage)

    def full(descriptor):
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(checkpoint.os, 'fsync', full)
    status, error = pretrain()
    assert status == 1
    assert 'no checkpoint at step 1: ' in error
    assert 'No space left on device' in error
    assert not list((tmp_path / 'run').glob('*.part'))
