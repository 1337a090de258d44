# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for ``astrodino embed``.
"""

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from embed_toys import make_images
from helpers import make_wcs
from numpy.testing import assert_allclose

from astrodino_seg.cli import main
from astrodino_seg.embed import cutouts, embed, label_cutouts, read_embeddings
from astrodino_seg.image import as_image


@pytest.fixture
def cube(tmp_path):
    path = tmp_path / 'field.fits'
    image = make_images(1, shape=(60, 70), n_bands=3)[0]
    fits.writeto(path, image, make_wcs(shape=(60, 70)).to_header())
    return path


def test_positions(cube, tmp_path, capsys):
    where = [(20, 30), (1, 1), (300, 2)]
    Table(rows=where, names=['x', 'y']).write(tmp_path / 'list.ecsv')
    out = tmp_path / 'v.fits'
    args = ['embed', str(cube), '--bands', 'gri', '--positions',
            str(tmp_path / 'list.ecsv'), '--cutout', '24', '--what', 'both',
            '-q', '-o', str(out)]
    assert main(args) == 0
    table = read_embeddings(out)
    image = as_image(cube, bands='gri')
    assert_allclose(table['embedding'][:2], embed(
        cutouts(image, where[:2], 24), what='both'), atol=1e-4)
    assert np.isnan(table['embedding'][2]).all()
    assert table['flags'].tolist() == [0, 1, 4]
    assert table.meta['WHAT'] == 'both'
    said = capsys.readouterr()
    assert '3 rows of 384 numbers, 2 flagged' in said.out
    assert 'images without a vector left out: 1' in said.err
    assert main(args) == 1
    assert 'overwrite' in capsys.readouterr().err
    assert main([*args, '--overwrite']) == 0


def test_labels(cube, tmp_path):
    labels = np.zeros((60, 70), np.int32)
    labels[20:30, 10:20], labels[25:40, 30:50] = 3, 8
    fits.writeto(tmp_path / 'segm.fits', labels)
    assert main(['embed', str(cube), '--labels', str(tmp_path / 'segm.fits'),
                 '--mask-others', '--size', '32', '-q', '-o',
                 str(tmp_path / 'v.fits')]) == 0
    table = read_embeddings(tmp_path / 'v.fits')
    assert table['id'].tolist() == [3, 8]
    assert_allclose(table['embedding'], embed(label_cutouts(
        cube, labels, mask_others=True), size=32), atol=1e-4)


def test_folder_and_files(tmp_path, capsys):
    for k, image in enumerate(make_images(3)):
        fits.writeto(tmp_path / f'{k}.fits', image)
    names = [str(tmp_path / f'{k}.fits') for k in range(3)]
    for source in ([str(tmp_path)], names):
        assert main(['embed', *source, '--bands', 'g, r', '-q', '-o',
                     str(tmp_path / 'v.parquet'), '--overwrite']) == 0
        table = read_embeddings(tmp_path / 'v.parquet')
        assert table['path'].tolist() == names
        assert_allclose(table['embedding'], embed(make_images(3)), atol=1e-4)


def test_multimodal(tmp_path, capsys):
    """Records of HDF5 files, with their identifiers and positions."""
    h5py = pytest.importorskip('h5py')
    rng = np.random.default_rng(2)
    flux = rng.normal(size=(3, 2, 32, 32)).astype(np.float32)
    (tmp_path / 'hsc' / 'healpix=9').mkdir(parents=True)
    with h5py.File(tmp_path / 'hsc' / 'healpix=9' / 'a.hdf5', 'w') as file:
        file['image_array'] = flux
        file['image_ivar'] = np.ones_like(flux)
        file['image_mask'] = np.ones(flux.shape, bool)
        file['image_band'] = np.array([['hsc-g', 'hsc-r']] * 3, 'S')
        file['image_psf_fwhm'] = file['image_scale'] = np.ones((3, 2))
        file['object_id'] = np.array(['n5', 'n6', 'n7'], 'S')
        file['ra'], file['dec'] = [1., 2., 3.], [4., 5., 6.]
    args = ['embed', str(tmp_path / 'hsc'), '--multimodal', '--backbone',
            'grouping_tiny', '-q', '-o', str(tmp_path / 'v.fits')]
    assert main(args) == 0
    table = read_embeddings(tmp_path / 'v.fits')
    assert table['id'].tolist() == ['n5', 'n6', 'n7']
    assert table['dec'].value.tolist() == [4, 5, 6]
    images = [as_image(one, bands=('hsc-g', 'hsc-r'), error=np.ones_like(one))
              for one in flux]
    assert_allclose(table['embedding'], embed(images, 'grouping_tiny'),
                    atol=1e-4)
    args[1] = str(tmp_path / 'nowhere' / 'else' / 'x')
    assert main([*args, '--overwrite']) == 1
    assert 'no folder' in capsys.readouterr().err
    assert main(['embed', 'another', *args[1:], '--overwrite']) == 1
    assert '--multimodal takes one, got 2' in capsys.readouterr().err


@pytest.mark.parametrize(('args', 'message'), [
    (['-o', 'v.csv'], 'must end in .fits or .parquet'),
    (['--positions', 'list.ecsv'], '--positions needs --cutout'),
    (['--positions', 'none.ecsv', '--cutout', '9'], 'no such file'),
    (['--labels', 'field.fits'], 'has no 2-D image'),
    (['--cutout', '9'], 'cutout: it is not used without --positions'),
    (['--reference', 'g'], 'reference: it is not used without --positions'),
    (['--bad-bits', '4'], '--bad-bits: it is not used without --positions'),
    (['--positions', 'list.ecsv', '--cutout', '9', '--mask-others'],
     '--mask-others: it is not used without --labels'),
    (['--multimodal', '--bands', 'gri'], 'bands: it is not used with --mul'),
    (['--backbone', 'missing.pth'], "no weights file 'missing.pth'"),
    (['--device', 'nowhere'], "device: 'nowhere' cannot be used"),
    (['--size', '-3'], 'size must be one or two positive int')])
def test_mistakes(cube, tmp_path, capsys, monkeypatch, args, message):
    monkeypatch.chdir(tmp_path)
    Table({'x': [1], 'y': [2]}).write('list.ecsv')
    assert main(['embed', 'field.fits', '-q', '-o', 'v.fits', *args]) == 1
    err = capsys.readouterr().err
    assert message in err
    assert err.count('\n') == 1
    assert not list(tmp_path.glob('v*'))
