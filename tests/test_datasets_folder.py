# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the datasets package: folders and tables of FITS files.
"""

import pickle
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import MaskedColumn, Table
from numpy.testing import assert_array_equal

from astrodino_seg.datasets import FolderImages, demo_image
from astrodino_seg.errors import SkippedWarning


def write(path, value=1.0, **header):
    path.parent.mkdir(parents=True, exist_ok=True)
    data = np.full((6, 8), value, np.float32)
    fits.writeto(path, data, fits.Header(header or {'FILTER': 'r'}))
    return path


@pytest.fixture
def folder(tmp_path):
    """Four good files, the third of them compressed, and three bad ones."""
    for k, name in enumerate(['a.fits', 'b/c.fits', 'd.fits.gz', 'e.fits']):
        write(tmp_path / name, k + 1)
    (tmp_path / 'page.fits').write_text('<html>not here</html>')
    content = (tmp_path / 'a.fits').read_bytes()
    (tmp_path / 'short.fits').write_bytes(content[:2900])
    write(tmp_path / 'nan.fits', np.nan)
    write(tmp_path / '.part-x' / 'hidden.fits')
    (tmp_path / 'notes.txt').write_text('no image')
    return tmp_path


def test_folder(folder):
    with pytest.warns(SkippedWarning, match='files left out: 3,') as caught:
        images = FolderImages(folder)
    bad = {path.name: why for path, why in caught[0].message.skipped}
    assert set(bad) == {'page.fits', 'short.fits', 'nan.fits'}
    assert 'no valid pixels' in bad['nan.fits']
    assert len(images) == 4
    assert [image.cube[0, 0, 0] for image in images] == [1, 2, 3, 4]
    assert images[-1].bands == ('r',)
    assert images.table is None
    assert repr(images) == '<FolderImages: 4 images>'
    with pytest.raises(IndexError):
        images[4]


def test_without_check(folder):
    images = FolderImages(folder, check=False)
    assert len(images) == 7
    good = [path.name.startswith(('a', 'c', 'd', 'e'))
            for path in images.paths]
    assert len(list(images[np.array(good)])) == 4
    for name, why in [('page', 'cannot be read as'), ('nan', 'no valid pix')]:
        row = images.paths.index(folder / f'{name}.fits')
        with pytest.raises(ValueError, match=rf'{name}\.fits.*{why}'):
            images[row]


def test_parts(folder):
    images = FolderImages(folder, pattern='[a-e].fits*')
    assert len(images) == 4
    assert [one.cube[0, 0, 0] for one in images[1:]] == [2, 3, 4]
    assert [one.cube[0, 0, 0] for one in images[[3, 0]]] == [4, 1]
    assert_array_equal(pickle.loads(pickle.dumps(images))[2].cube,
                       images[2].cube)


def test_options(folder):
    images = FolderImages(folder, pattern='a.*', bands=['i'])
    assert images[0].bands == ('i',)


def test_bad_arguments(folder):
    with pytest.raises(FileNotFoundError, match='no folder or table'):
        FolderImages(folder / 'nowhere')
    with pytest.raises(ValueError, match=r"no file '\*\.fit' in"):
        FolderImages(folder, pattern='*.fit')
    with pytest.raises(ValueError, match='none of the 1 files can be read'):
        FolderImages(folder, pattern='page*')
    with pytest.raises(ValueError, match='the table has no column'):
        FolderImages(folder / 'notes.txt')


def test_progress(folder, capsys):
    FolderImages(folder, pattern='a.fits', progress_bar=True)
    assert '1/1' in capsys.readouterr().err


# ------------------------------------------------------------------ tables
def test_table(folder):
    table = Table({'path': ['e.fits', 'page.fits', '', 'b/c.fits'],
                   'z': [0.1, 0.2, 0.3, 0.4]})
    table.write(folder / 'list.ecsv')
    with pytest.warns(SkippedWarning, match='files left out: 2,') as caught:
        images = FolderImages(folder / 'list.ecsv')
    assert caught[0].message.skipped[1] == (None, 'row 2 of the table has no '
                                                  'path')
    assert [one.cube[0, 0, 0] for one in images] == [4, 2]
    assert images.table['z'].tolist() == [0.1, 0.4]
    assert images[1:].table['z'].tolist() == [0.4]


def test_table_in_memory(folder, monkeypatch):
    monkeypatch.chdir(folder)
    names = MaskedColumn(['a.fits', 'x', 'e.fits'], mask=[0, 1, 0])
    with pytest.warns(SkippedWarning, match='files left out: 1,'):
        images = FolderImages(Table({'file': names}), column='file')
    assert [one.cube[0, 0, 0] for one in images] == [1, 4]
    absolute = Table({'path': [str(folder / 'a.fits')]})
    monkeypatch.chdir(Path(folder.anchor))
    assert FolderImages(absolute)[0].cube[0, 0, 0] == 1


def test_table_with_a_file_a_band(tmp_path):
    for band in 'zg':
        for k in range(3):
            write(tmp_path / f'{k}_{band}.fits', k + 10 * (band == 'z'))
    table = Table({'blue': [f'{k}_g.fits' for k in range(3)],
                   'red': ['0_z.fits', '1_z.fits', '']})
    table.write(tmp_path / 'list.csv')
    with pytest.warns(SkippedWarning, match='files left out: 1,'):
        images = FolderImages(tmp_path / 'list.csv',
                              column={'z': 'red', 'g': 'blue'})
    assert len(images) == 2
    assert images[1].bands == ('g', 'z')
    assert images[1].cube[:, 0, 0].tolist() == [1, 11]


def test_bad_tables(folder):
    with pytest.raises(ValueError, match=r"no column \['path'\]; it has"):
        FolderImages(Table({'file': ['a.fits']}))
    with pytest.raises(ValueError, match='the table has no rows'):
        FolderImages(Table({'path': np.array([], dtype=str)}))


# -------------------------------------------------------------------- demo
def test_demo():
    image = demo_image()
    assert image.bands == ('g', 'r', 'i', 'z')
    assert image.shape == (448, 448)
    assert image.wcs is not None
