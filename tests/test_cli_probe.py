# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for ``astrodino probe``.
"""

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.table import QTable, Table
from embed_toys import blobs

from astrodino_seg.cli import _parser, main
from astrodino_seg.embed import evaluate
from astrodino_seg.embed.classifiers import PROTOCOLS, fold_splits
from astrodino_seg.embed.probe import BASELINES
from astrodino_seg.embed.vectors import write_embeddings

pytest.importorskip('sklearn')
pytest.importorskip('matplotlib')


@pytest.fixture
def table(tmp_path):
    vectors, y = blobs(60)
    table = QTable({'class': np.array(['spiral', 'round', 'edge'])[y],
                    'other': y % 2, 'ra': np.linspace(0, 359, 60) * u.deg,
                    'dec': np.zeros(60) * u.deg, 'embedding': vectors})
    write_embeddings(table, tmp_path / 'v.fits')
    return table


def test_table(table, tmp_path, capsys):
    args = ['probe', str(tmp_path / 'v.fits'), '-o', str(tmp_path / 'x')]
    assert main([*args, '--protocol', 'knn', '--folds', '4', '--repeats',
                 '2']) == 0
    assert {p.name for p in tmp_path.glob('x*')} == {
        'x_splits.ecsv', 'x_classes.ecsv', 'x_confusion.png', 'x_tsne.png'}
    wanted = evaluate(table, table['class'], protocol='knn',
                      splits=fold_splits(table['class'], n_folds=4,
                                         n_repeats=2))
    splits = Table.read(tmp_path / 'x_splits.ecsv')
    assert splits['accuracy'].tolist() == wanted.accuracies.tolist()
    classes = Table.read(tmp_path / 'x_classes.ecsv')
    assert classes['class'].tolist() == ['edge', 'round', 'spiral']
    out = capsys.readouterr().out
    assert f'knn: top-1 {wanted.accuracy:.4f}, standard deviation' in out
    assert main(args) == 1
    assert 'exists; give --overwrite' in capsys.readouterr().err


def test_other_splits_and_columns(table, tmp_path):
    args = ['probe', str(tmp_path / 'v.fits'), '-o', str(tmp_path / 'x'),
            '--no-png', '--overwrite', '--epochs', '2']
    assert main([*args, '--class-column', 'other', '--seeds', '3']) == 0
    classes = Table.read(tmp_path / 'x_classes.ecsv')
    assert classes['class'].tolist() == ['0', '1']
    splits = Table.read(tmp_path / 'x_splits.ecsv')
    assert splits['n_test'].tolist() == [12, 12, 12]
    assert main([*args, '--sky', '--seeds', '2']) == 0
    assert len(Table.read(tmp_path / 'x_splits.ecsv')) == 2
    assert not list(tmp_path.glob('*.png'))


def test_rows_without_a_vector(table, tmp_path, capsys):
    table['embedding'][[3, 7]] = np.nan
    write_embeddings(table, tmp_path / 'v.fits', overwrite=True)
    assert main(['probe', str(tmp_path / 'v.fits'), '--protocol', 'linear',
                 '--no-png', '-o', str(tmp_path / 'x')]) == 0
    assert 'rows left out: 2' in capsys.readouterr().err
    splits = Table.read(tmp_path / 'x_splits.ecsv')
    assert set(splits['n_train'] + splits['n_test']) == {58}


@pytest.mark.parametrize('kind', ['png', 'fits'])
def test_folder_of_classes(tmp_path, kind):
    picture = pytest.importorskip('PIL.Image')
    rng = np.random.default_rng(0)
    y, x = np.indices((32, 32)) - 15.5
    for k in range(24):
        name = ['dot', 'ring'][k % 2]
        light = (np.hypot(x, y) < 5) if k % 2 else (
            np.abs(np.hypot(x, y) - 12) < 2)
        pixels = (150 * light + rng.uniform(0, 50, (3, 32, 32))).astype(
            np.uint8)
        path = tmp_path / 'in' / name / f'{k}.{kind}'
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind == 'png':
            picture.fromarray(pixels.transpose(1, 2, 0)).save(path)
        else:
            fits.writeto(path, pixels.astype(np.float32))
    args = ['probe', str(tmp_path / 'in'), '--no-png', '-q', '--size', '32',
            '-o', str(tmp_path / 'x')]
    assert main([*args, '--protocol', 'linear', '--what', 'patch']) == 0
    classes = Table.read(tmp_path / 'x_classes.ecsv')
    assert classes['class'].tolist() == ['dot', 'ring']
    assert classes['n'].tolist() == [12, 12]
    assert min(classes['f1']) > 0.8
    assert main([*args, '--protocol', 'finetune', '--epochs', '1', '--seeds',
                 '1', '--overwrite']) == 0
    assert Table.read(tmp_path / 'x_splits.ecsv')['n_test'].tolist() == [5]


@pytest.mark.parametrize(('args', 'message'), [
    (['--class-column', 'kind'], "there is no column ['kind']"),
    (['--protocol', 'resnet18'], 'resnet18 needs images'),
    (['--protocol', 'finetune', '--what', 'cls'], 'what: it is not used by f'),
    (['--protocol', 'resnet18', '--backbone', 'a'], 'backbone: it is not us'),
    (['--pretrained'], 'pretrained: it is not used by mlp'),
    (['--size', '64'], 'size: it is not used with a table of vectors'),
    (['--batch-size', '2'], '--batch-size: it is not used with a table of v'),
    (['--folds', '30'], 'n_folds=30 is more than the members of 3 classes')])
def test_mistakes(table, tmp_path, capsys, args, message):
    assert main(['probe', str(tmp_path / 'v.fits'), '--no-png', *args, '-o',
                 str(tmp_path / 'x')]) == 1
    err = capsys.readouterr().err
    assert message in err
    assert err.count('\n') == 1
    assert not list(tmp_path.glob('x*'))


# --------------------------------------------------------------- Galaxy10

def galaxy10(path, labels):
    """A file of its layout: disks of label 2, rings of all other labels."""
    h5py = pytest.importorskip('h5py')
    rng = np.random.default_rng(0)
    y, x = np.indices((32, 32)) - 15.5
    r = np.hypot(x, y)
    light = np.where(np.equal(labels, 2)[:, None, None], r < 5,
                     np.abs(r - 12) < 2)[..., None]
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, 'w') as file:
        file['images'] = (150 * light + rng.uniform(
            0, 50, (len(labels), 32, 32, 3))).astype(np.uint8)
        file['ans'] = np.array(labels, np.uint8)
        for name in ('ra', 'dec', 'redshift', 'pxscale'):
            file[name] = np.linspace(0, 60, len(labels))
    return path


@pytest.mark.parametrize('name', ['Galaxy10_DECals.h5', 'gz10/healpix=7/a.h5',
                                  'gz10/healpix=7/a.hdf5'])
def test_galaxy10(tmp_path, name):
    """The file, or the folder of files of the Multimodal Universe."""
    galaxy10(tmp_path / name, [2, 5] * 15)
    assert main(['probe', str(tmp_path / name.split('/')[0]), '--size', '32',
                 '--backbone', 'grouping_tiny', '--what', 'patch',
                 '--protocol', 'linear', '--seeds', '2', '--no-png', '-q',
                 '-o', str(tmp_path / 'x')]) == 0
    splits = Table.read(tmp_path / 'x_splits.ecsv')
    assert splits['n_test'].tolist() == [6, 6]
    assert splits['n_train'].tolist() == [24, 24]
    classes = Table.read(tmp_path / 'x_classes.ecsv')
    there = classes[classes['n'] > 0]
    assert there['class'].tolist() == ['round smooth', 'barred spiral']
    assert min(there['f1']) > 0.8


@pytest.mark.parametrize(('damage', 'message'), [
    ('cut', 'cannot be read: '), ('label', '2 labels that are none of'),
    ('page', 'cannot be read: '), ('empty', 'has no images')])
def test_bad_galaxy10(tmp_path, capsys, damage, message):
    """One line of error before anything is embedded."""
    path = galaxy10(tmp_path / 'g.h5', {
        'label': [2, 5, 10, 255], 'empty': []}.get(damage, [2, 5] * 4))
    if damage == 'cut':
        path.write_bytes(path.read_bytes()[:-2000])
    if damage == 'page':
        path.write_text('<html>404 not found</html>')
    assert main(['probe', str(path), '--backbone', 'grouping_tiny',
                 '--no-png', '-o', str(tmp_path / 'x')]) == 1
    err = capsys.readouterr().err
    assert message in err
    assert err.count('\n') == 1
    assert not list(tmp_path.glob('x*'))


def test_choices_are_those_of_the_probes():
    # written down twice, so that --help needs no torch
    command = _parser()._subparsers._group_actions[0].choices['probe']
    known, = (one.choices for one in command._actions
              if one.dest == 'protocol')
    assert set(known) == {*PROTOCOLS, 'finetune', *BASELINES}
