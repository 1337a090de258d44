# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for ``astrodino search``.
"""

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.table import QTable
from embed_toys import make_images

from astrodino_seg.cli import main
from astrodino_seg.embed.vectors import write_embeddings

# two pairs that look alike, and one that is like no other
ANGLES = np.radians([0, 1, 90, 92, 215])
VECTORS = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1)


@pytest.fixture
def table(tmp_path):
    table = QTable({'id': list('abcde'), 'ra': np.arange(5.) * u.deg,
                    'dec': np.zeros(5) * u.deg,
                    'embedding': VECTORS.astype(np.float32)})
    write_embeddings(table, tmp_path / 'v.fits')
    write_embeddings(table[[1, 4]], tmp_path / 'other.fits')
    return str(tmp_path / 'v.fits')


def test_rows(table, tmp_path, capsys):
    args = ['search', table, '--rows', '0,3', '-n', '2', '-o', str(tmp_path)]
    assert main(args) == 0
    found = QTable.read(tmp_path / 'v_similar.ecsv')
    assert found['query'].tolist() == [0, 0, 3, 3]
    assert found['id'].tolist() == ['b', 'c', 'c', 'b']
    assert found['similarity'][0] == pytest.approx(np.cos(np.radians(1)))
    # a degree apart on the sky
    assert found['separation'][0].to_value('deg') == pytest.approx(1)
    assert 'similarity' in capsys.readouterr().out
    assert main(args) == 1
    assert 'exists; give --overwrite' in capsys.readouterr().err
    assert main([*args, '--overwrite']) == 0


def test_like(table, tmp_path):
    assert main(['search', table, '--like', str(tmp_path / 'other.fits'),
                 '-n', '1', '-o', str(tmp_path / 'x')]) == 0
    found = QTable.read(tmp_path / 'x_similar.ecsv')
    assert found['id'].tolist() == ['b', 'e']


def test_anomalies(table, tmp_path):
    assert main(['search', table, '-n', '1', '-o', str(tmp_path)]) == 0
    found = QTable.read(tmp_path / 'v_anomalies.ecsv')
    assert found['id'][0] == 'e'
    # its nearest neighbour is d
    assert found['score'][0] == pytest.approx(1 - np.cos(np.radians(123)))


def test_picture(table, tmp_path, monkeypatch):
    pytest.importorskip('matplotlib')
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'images').mkdir()
    for k, image in enumerate(make_images(5)):
        fits.writeto(tmp_path / 'images' / f'{k}.fits', image)
    assert main(['search', table, '--rows', '1', '--images', 'images',
                 '--bands', 'g,r']) == 0
    assert (tmp_path / 'v_similar.png').stat().st_size > 1000


@pytest.mark.parametrize(('args', 'message'), [
    (['--rows', 'a'], "rows: must be integers with commas between, got 'a'"),
    (['--rows', '7'], 'queries must be rows of a table of 5'),
    (['--rows', '1', '-n', '0'], 'n must be 1 or more'),
    (['--images', 'a.fits'], 'images: only what is found for --rows'),
    (['--rows', '1', '--images', 'a.fits'], 'images: there are 1, the table '
                                            'has 5 rows'),
    (['--like', 'missing.fits'], 'missing.fits')])
def test_mistakes(table, tmp_path, capsys, monkeypatch, args, message):
    monkeypatch.chdir(tmp_path)
    fits.writeto('a.fits', make_images(1)[0])
    assert main(['search', table, '-o', 'out', *args]) == 1
    err = capsys.readouterr().err
    assert message in err
    assert err.count('\n') == 1
    assert not list(tmp_path.glob('out*'))
