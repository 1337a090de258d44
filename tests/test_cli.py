# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the command.
"""

import hashlib
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path
from shutil import copy

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.table import QTable, Table
from astropy.wcs import WCS
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image as Picture
from regions import PolygonPixelRegion, PolygonSkyRegion, Regions

import astrodino_seg
from astrodino_seg import DinoSegmenter, as_image, load_model
from astrodino_seg.cli import _parser, main
from astrodino_seg.datasets import demo_image
from astrodino_seg.image import read_label_map

PRODUCTS = ['field.png', 'field.reg', 'field_catalog.ecsv', 'field_segm.fits']


@pytest.fixture(scope='module')
def image():
    demo = demo_image()
    ys, xs = slice(90, 186), slice(260, 356)
    return as_image(demo.cube[:, ys, xs], wcs=demo.wcs[ys, xs],
                    bands=demo.bands)


def header_of(image, **cards):
    header = image.wcs.to_header()
    header.update(cards)
    return header


@pytest.fixture(scope='module')
def folder(image, tmp_path_factory):
    """Files: a cube, one a band, one without a WCS, noise, a text."""
    folder = tmp_path_factory.mktemp('images')

    def write(name, data, header=None):
        fits.PrimaryHDU(data, header).writeto(folder / name)

    write('cube.fits', image.cube, header_of(image, BANDS='griz'))
    write('unit.fits', image.cube, header_of(image, BANDS='griz',
                                             BUNIT='nJy'))
    write('nameless.fits', image.cube, image.wcs.to_header())
    for band, plane in zip(image.bands, image.cube):
        write(f'{band}.fits', plane, header_of(image, FILTER=band))
    write('no_wcs.fits', image.cube[1])
    noise = np.random.default_rng(1).normal(size=(64, 64)).astype('f4')
    write('noise.fits', noise)
    write('nan.fits', np.full((20, 30), np.nan))
    write('small.fits', image.cube[0, 8:], header_of(image))
    (folder / 'text.fits').write_text('This is no image.\n')
    return folder


@pytest.fixture
def run(folder, tmp_path, monkeypatch, capsys):
    """Run the command in an empty folder: status, output, errors."""
    monkeypatch.chdir(tmp_path)

    def call(*args):
        args = [str(folder / arg) if (folder / str(arg)).is_file()
                else str(arg) for arg in args]
        try:
            status = main(args)
        except SystemExit as end:
            status = end.code
        out, err = capsys.readouterr()
        assert 'Traceback' not in err
        return status, out, err
    return call


def names(folder):
    return sorted(path.name for path in Path(folder).iterdir())


# -------------------------------------------------------------- segment

def test_cube(run, image, tmp_path):
    status, out, err = run('segment', 'cube.fits', '-o', 'field', '-q')
    assert (status, err) == (0, '')
    assert names(tmp_path) == PRODUCTS
    result = DinoSegmenter().segment(image)
    labels = read_label_map('field_segm.fits')
    assert_array_equal(labels, result.segmentation_image.data)
    assert out.startswith(f'{labels.max()} objects: ')
    for name in PRODUCTS:
        assert f'wrote {name}' in out


def test_label_map_and_catalogue_agree(run, image):
    assert run('segment', 'unit.fits', '-o', 'field', '-q')[0] == 0
    with fits.open('field_segm.fits') as hdus:
        labels, wcs = hdus[0].data.astype(int), WCS(hdus[0].header)
        assert hdus[0].header['BITPIX'] == 32
    table = QTable.read('field_catalog.ecsv')
    assert_array_equal(table['label'], np.unique(labels)[1:])
    assert_array_equal(table['area'].value, np.bincount(labels.ravel())[1:])
    sky = wcs.pixel_to_world(table['x_centroid'], table['y_centroid'])
    assert (sky.separation(table['sky_centroid']) < 1 * u.mas).all()
    corners = [0, 95, 0], [0, 0, 95]
    assert (wcs.pixel_to_world(*corners).separation(
        image.wcs.pixel_to_world(*corners)) < 1 * u.mas).all()
    assert table['flux_g'].unit == u.nJy
    assert table.meta['bands'] == 'g,r,i,z'


def test_regions(run, image):
    assert run('segment', 'cube.fits', '-o', 'field', '-q')[0] == 0
    table = QTable.read('field_catalog.ecsv')
    labels = read_label_map('field_segm.fits')
    regions = Regions.read('field.reg', format='ds9')
    drawn = {}
    for region in regions:
        assert isinstance(region, PolygonSkyRegion)
        number, kind = region.meta['text'].split()
        assert kind == table['class'][int(number) - 1]
        pixels = region.to_pixel(image.wcs)
        drawn.setdefault(int(number), []).append(pixels)
    assert sorted(drawn) == table['label'].tolist()
    for label, parts in drawn.items():
        inside = sum(part.to_mask(mode='center').to_image(labels.shape)
                     for part in parts) > 0
        own = labels == label
        # all of the label, and of others only what its holes hold
        assert inside[own].mean() > 0.99


def test_without_wcs(run):
    assert run('segment', 'no_wcs.fits', '-o', 'field', '-q')[0] == 0
    table = QTable.read('field_catalog.ecsv')
    assert 'sky_centroid' not in table.colnames
    regions = Regions.read('field.reg', format='ds9')
    assert {type(region) for region in regions} == {PolygonPixelRegion}
    assert len(regions) >= len(table)
    # DS9 counts pixels from 1, and the reader takes that back
    labels = read_label_map('field_segm.fits')
    first = [r for r in regions if r.meta['text'].split()[0] == '1']
    x = np.concatenate([r.vertices.x for r in first])
    y = np.concatenate([r.vertices.y for r in first])
    rows, columns = np.nonzero(labels == 1)
    assert_allclose([x.min(), x.max(), y.min(), y.max()],
                    [columns.min() - 0.5, columns.max() + 0.5,
                     rows.min() - 0.5, rows.max() + 0.5], atol=1e-3)


def test_one_file_a_band(run, tmp_path, image):
    # in any order; the products are those of the cube
    assert run('segment', 'z.fits', 'g.fits', 'i.fits', 'r.fits', '-q',
               '-o', 'field', '--no-png')[0] == 0
    assert names(tmp_path) == PRODUCTS[1:]
    assert_array_equal(read_label_map('field_segm.fits'),
                       DinoSegmenter()(image).data)
    assert QTable.read('field_catalog.ecsv').meta['bands'] == 'g,r,i,z'


@pytest.mark.parametrize('bands', ['g,r,i,z', 'griz', ' g, r,i ,z'])
def test_bands(run, bands):
    assert run('segment', 'nameless.fits', '-o', 'field', '-q', '--no-png',
               '--bands', bands)[0] == 0
    assert 'flux_z' in QTable.read('field_catalog.ecsv').colnames


def test_bands_of_files(run):
    status, _, err = run('segment', 'no_wcs.fits', 'no_wcs.fits', '--no-png',
                         '--bands', 'K,H', '-q', '-o', 'field')
    assert (status, err) == (0, '')
    assert QTable.read('field_catalog.ecsv').meta['bands'] == 'H,K'


def test_reference(run):
    assert run('segment', 'g.fits', 'small.fits', '--bands', 'g,r', '-o',
               'field', '-q', '--no-png', '--reference', 'r')[0] == 0
    assert read_label_map('field_segm.fits').shape == (88, 96)
    status, _, err = run('segment', 'g.fits', 'r.fits', '--reference', 'u',
                         '-o', 'other')
    assert status == 1
    assert err == ("astrodino: error: --reference 'u' is none of the bands "
                   "['g', 'r']\n")


@pytest.mark.parametrize(('options', 'parameters'), [
    (['--n-sigma', '20'], {'n_sigma': 20}),
    (['--n-pixels', '60'], {'n_pixels': 60}),
    (['--merge', '0'], {'merge': 0}),
    (['--connectivity', '4'], {'connectivity': 4}),
    (['--min-seed', '0.5'], {'min_seed': 0.5}),
    (['--bin-factor', '2'], {'bin_factor': 2}),
    (['--float32'], {'bfloat16': False}),
    (['--symmetric'], {'symmetric': True}),
    (['--tile-size', '320'], {'tile_size': 320})])
def test_options(run, image, options, parameters):
    assert run('segment', 'cube.fits', '-o', 'field', '-q', '--no-png',
               *options)[0] == 0
    assert_array_equal(read_label_map('field_segm.fits'),
                       DinoSegmenter(**parameters)(image).data)


@pytest.mark.parametrize('name', ['cube.fits', 'unit.fits'])
def test_threshold(run, image, name):
    # in the unit of the image, whatever that is
    value = float(np.percentile(image.cube, 99))
    assert run('segment', name, '-o', 'field', '-q', '--no-png',
               '--threshold', value)[0] == 0
    assert_array_equal(read_label_map('field_segm.fits'),
                       DinoSegmenter()(image, value).data)


@pytest.mark.parametrize('name', ['cube.fits', 'unit.fits', 'no_wcs.fits'])
def test_fits_catalogue(run, tmp_path, name):
    status, _, err = run('segment', name, '-o', 'field', '-q', '--no-png',
                         '--catalog-format', 'fits')
    assert (status, err) == (0, '')
    assert 'field_catalog.fits' in names(tmp_path)
    table = QTable.read('field_catalog.fits')
    assert_array_equal(table['label'],
                       np.unique(read_label_map('field_segm.fits'))[1:])
    assert ('sky_centroid' in table.colnames) == (name != 'no_wcs.fits')
    if name == 'unit.fits':
        assert table['flux_r'].unit == u.nJy


def test_own_model(run, tmp_path, image):
    load_model().save(tmp_path / 'own.safetensors')
    assert run('segment', 'cube.fits', '-o', 'field', '-q', '--no-png',
               '--model', 'own.safetensors')[0] == 0
    assert_array_equal(read_label_map('field_segm.fits'),
                       DinoSegmenter()(image).data)


def test_defaults_are_those_of_the_segmenter():
    parameters = inspect.signature(DinoSegmenter).parameters
    args = _parser().parse_args(['segment', 'x.fits'])
    for name, parameter in parameters.items():
        if name not in ('progress_bar', 'others'):
            assert getattr(args, name) == parameter.default, name


def test_picture(run):
    assert run('segment', 'cube.fits', '-o', 'field', '-q')[0] == 0
    with Picture.open('field.png') as picture:
        assert picture.size[0] == 2 * 700


def test_progress_bar(run):
    assert 'segmenting' in run('segment', 'r.fits', '--no-png')[2]
    assert run('segment', 'r.fits', '--no-png', '--overwrite', '-q')[2] == ''


def test_default_output(run, folder, tmp_path):
    # beside the user, not beside the image
    before = names(folder)
    assert run('segment', f'{folder}/cube.fits[0]', '-q')[0] == 0
    assert names(tmp_path) == [name.replace('field', 'cube')
                               for name in PRODUCTS]
    assert names(folder) == before


@pytest.mark.parametrize('output', ['out', 'out/'])
def test_folder_as_output(run, tmp_path, output):
    (tmp_path / 'out').mkdir()
    assert run('segment', 'g.fits', '-q', '-o', output, '--no-png')[0] == 0
    assert names(tmp_path) == ['out']
    assert names('out') == ['g.reg', 'g_catalog.ecsv', 'g_segm.fits']


@pytest.mark.parametrize('prefix', ['a.b', 'deep/er/field v1.fits'])
def test_prefix(run, tmp_path, prefix):
    Path(prefix).parent.mkdir(parents=True, exist_ok=True)
    assert run('segment', 'g.fits', '-q', '-o', prefix, '--no-png')[0] == 0
    assert Path(f'{prefix}_segm.fits').is_file()


# ------------------------------------------------ what products tell, planes

def test_products_tell_what_they_are_of(run, folder):
    """Version, weights, dials and input, by its hash, in all of them."""
    assert run('segment', 'cube.fits', '-o', 'field', '-q', '--no-png',
               '--merge', '0.4', '--maps', 'all')[0] == 0
    code = hashlib.sha256((folder / 'cube.fits').read_bytes()).hexdigest()
    history = [' '.join(fits.getheader(f'field_{name}.fits')['HISTORY'])
               for name in ('segm', 'maps')]
    history += [' '.join(QTable.read('field_catalog.ecsv').meta['HISTORY']),
                Path('field.reg').read_text()]
    for text in history:
        for word in (f'astrodino_seg {astrodino_seg.__version__}',
                     'grouping_tiny.safetensors sha256', 'merge=0.4',
                     f'cube.fits sha256 {code[:16]}'):
            assert word in text
    assert run('segment', 'cube.fits', '-o', 'other', '-q', '--no-png',
               '--catalog-format', 'fits')[0] == 0
    assert 'merge=0.22' in ' '.join(
        fits.getheader('other_catalog.fits', 1)['HISTORY'])


def test_maps(run, image):
    assert run('segment', 'cube.fits', '-o', 'field', '-q', '--no-png',
               '--maps', 'all')[0] == 0
    result = DinoSegmenter().segment(image)
    with fits.open('field_maps.fits') as hdus:
        for name, values in (('FRAGMENTS', result.fragments.data),
                             ('CLASSES', result.class_map),
                             ('PROBABILITIES', result.probabilities),
                             ('BACKGROUND', result.background),
                             ('NOISE', result.noise)):
            assert_array_equal(hdus[name].data, values)
    assert run('segment', 'cube.fits', '-o', 'two', '-q', '--no-png',
               '--maps', 'noise,classes')[0] == 0
    with fits.open('two_maps.fits') as hdus:
        assert [hdu.name for hdu in hdus[1:]] == ['NOISE', 'CLASSES']
    assert run('segment', 'cube.fits', '--maps', 'nose')[0] == 2


def test_planes_of_the_command(run, image):
    """A mask, and errors as an image, a number or a weight."""
    mask = np.zeros(image.shape, np.uint8)
    mask[:48] = 255
    error = np.full(image.shape, 3, np.float32)
    for name, plane in (('mask', mask), ('error', error),
                        ('weight', np.where(mask, 0, error**-2))):
        fits.writeto(f'{name}.fits', plane)
    maps = {}
    for name, options in {
            'mask': ['--mask', 'mask.fits'], 'file': ['--error', 'error.fits'],
            'number': ['--error', '3'], 'weight': ['--weight', 'weight.fits'],
            }.items():
        assert run('segment', 'cube.fits', '-o', name, '-q', '--no-png',
                   '--maps', 'noise', '--threads', '1', *options)[0] == 0
        maps[name] = fits.getdata(f'{name}_maps.fits')
    assert np.isinf(maps['mask'][:, :48]).all()
    assert np.isfinite(maps['mask'][:, 48:]).all()
    assert_array_equal(maps['file'], 3)
    assert_array_equal(maps['number'], 3)
    assert_allclose(maps['weight'][:, 48:], 3)
    assert np.isinf(maps['weight'][:, :48]).all()
    assert not read_label_map('weight_segm.fits')[:48].any()
    status, _, err = run('segment', 'cube.fits', '--no-png', '--threads', '0')
    assert (status, one_line(err)) == (
        1, '--threads: must be 1 or more, got 0')


def test_each(run, folder, tmp_path):
    """A folder each; one that fails ends nothing; what is there is left."""
    args = ['segment', '--each', 'g.fits', 'text.fits', 'nan.fits', 'r.fits',
            '-o', 'out', '-q', '--no-png']
    status, out, err = run(*args)
    assert status == 1
    assert '2 of 4 images' in out
    assert [line.split(':')[1] for line in err.splitlines()] == [' error'] * 2
    for name in ('text.fits', 'nan.fits'):
        assert name in err
    parts = ['.reg', '_catalog.ecsv', '_segm.fits']
    for band in 'gr':
        assert names(tmp_path / 'out' / band) == [band + end for end in parts]
    before = Path('out/g/g_segm.fits').stat().st_mtime_ns
    Path('out/r/r.reg').unlink()
    status, out, _ = run(*args)
    assert 'g.fits: is there' in out
    assert 'r.fits: is there' not in out
    assert Path('out/g/g_segm.fits').stat().st_mtime_ns == before
    assert names(tmp_path / 'out' / 'r') == [f'r{end}' for end in parts]
    status, _, err = run('segment', '--each', 'g.fits', './g.fits')
    assert status == 1
    assert "'g' is the name of two" in one_line(err)


def test_file_of_numpy(run, image):
    np.savez('field.npz', **dict(zip(image.bands, image.cube)))
    np.save('plane.npy', image.cube[0])
    assert run('segment', 'field.npz', '-q', '--no-png')[0] == 0
    assert QTable.read('field_catalog.ecsv').meta['bands'] == 'g,r,i,z'
    assert_array_equal(as_image('plane.npy').cube[0], image.cube[0])
    np.savez('mask.npz', image=image.cube[0], mask=image.cube[0])
    assert 'not all (y, x) bands' in one_line(run('segment', 'mask.npz')[2])
    Path('broken.npz').write_bytes(b'PK no zip')
    assert 'cannot be read as a file of numpy' in one_line(
        run('segment', 'broken.npz')[2])


# ------------------------------------------------------ what goes wrong

def one_line(err):
    lines = err.splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith('astrodino: error: ')
    return lines[0].removeprefix('astrodino: error: ')


@pytest.mark.parametrize(('args', 'words'), [
    (['missing.fits'], "no such file: 'missing.fits'"),
    (['text.fits'], 'cannot be read as a FITS image'),
    (['nan.fits'], 'no valid pixels'),
    (['cube.fits[7]'], 'no such file'),
    (['cube.fits', '--bands', 'g,r'], 'bands must be 4 different names'),
    (['g.fits', 'no_wcs.fits', 'cube.fits'], 'must hold one band, it has 4'),
    (['noise.fits', 'g.fits'], 'cannot be reprojected'),
    (['cube.fits', '--merge', '2'], 'merge must be a number in [0, 1]'),
    (['cube.fits', '--n-pixels', '0'], '--n-pixels must be a positive'),
    (['cube.fits', '--n-sigma', 'nan'], '--n-sigma must be a positive'),
    (['cube.fits', '--threshold', 'nan'], 'threshold must not be NaN'),
    (['cube.fits', '--device', 'abacus'], "device 'abacus' cannot be used"),
    (['cube.fits', '--model', 'text.fits'], 'not a readable safetensors'),
    (['cube.fits', '--model', 'no.safetensors'], 'no weights file'),
    (['cube.fits', '-o', 'no/such/field'], "no folder 'no/such'")])
def test_errors(run, tmp_path, args, words):
    status, out, err = run('segment', *args, '-q')
    assert (status, out) == (1, '')
    assert words in one_line(err)
    assert names(tmp_path) == []


@pytest.mark.parametrize('args', [
    [], ['segment'], ['paint'], ['segment', 'g.fits', '--merge', 'most'],
    ['segment', 'g.fits', '--connectivity', '6'], ['train', 'x.toml'],
    ['segment', 'g.fits', '--catalog-format', 'csv'],
    ['segment', 'g.fits', '--nonsense'], ['info', 'more']])
def test_wrong_usage(run, args):
    status, out, err = run(*args)
    assert (status, out) == (2, '')
    assert err.startswith('usage: astrodino')


@pytest.mark.parametrize('args', [['noise.fits', '--n-sigma', '50'],
                                  ['cube.fits', '--threshold', '1e9']])
def test_nothing_found(run, tmp_path, args):
    status, out, err = run('segment', *args, '-q')
    assert (status, out) == (3, '')
    assert err == 'no sources were found\n'
    assert names(tmp_path) == []


def test_existing_products(run, tmp_path, image):
    old = tmp_path / 'field_catalog.ecsv'
    old.write_text('old')
    status, out, err = run('segment', 'cube.fits', '-o', 'field', '-q')
    assert (status, out) == (1, '')
    assert 'field_catalog.ecsv exists; give --overwrite' in one_line(err)
    assert names(tmp_path) == [old.name]
    assert old.read_text() == 'old'
    # what is not written is not in the way
    assert run('segment', 'cube.fits', '-o', 'field', '-q',
               '--catalog-format', 'fits')[0] == 0
    assert old.read_text() == 'old'
    assert run('segment', 'cube.fits', '-o', 'field', '-q',
               '--overwrite')[0] == 0
    assert len(QTable.read(old)) == DinoSegmenter()(image).n_labels


@pytest.mark.parametrize('product', [
    'astrodino_seg.image.write_label_map', 'astropy.table.QTable.write',
    'regions.Regions.write', 'astrodino_seg.plotting.save_figure'])
def test_nothing_half_written(run, tmp_path, monkeypatch, product):
    for name in PRODUCTS:
        (tmp_path / name).write_text('old')

    def fail(*args, **kwargs):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(product, fail)
    status, _, err = run('segment', 'cube.fits', '-o', 'field', '-q',
                         '--overwrite')
    assert status == 1
    assert 'No space left on device' in one_line(err)
    assert names(tmp_path) == PRODUCTS
    assert {(tmp_path / name).read_text() for name in PRODUCTS} == {'old'}


@pytest.mark.skipif(not hasattr(os, 'geteuid') or os.geteuid() == 0,
                    reason='root may write anywhere')
def test_folder_without_permission(run, tmp_path):
    (tmp_path / 'out').mkdir(mode=0o500)
    status, _, err = run('segment', 'cube.fits', '-o', 'out', '-q')
    assert status == 1
    assert 'ermission' in one_line(err)


def test_without_matplotlib(run, tmp_path, monkeypatch):
    # said before the work is done, not after
    monkeypatch.setitem(sys.modules, 'matplotlib', None)
    for args in (['segment', 'cube.fits', '-q'], ['demo']):
        status, _, err = run(*args)
        assert status == 1
        assert 'astrodino_seg[plot]' in one_line(err)
        assert names(tmp_path) == []
    assert run('segment', 'cube.fits', '-q', '--no-png')[0] == 0


def test_reader_has_gone():
    """As of ``astrodino info | head``: no traceback, the shell's status."""
    code = ('import sys; from astrodino_seg.cli import main; '
            'sys.stdin.read(); sys.exit(main(["info"]))')
    process = subprocess.Popen([sys.executable, '-c', code], text=True,
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE)
    with process:
        process.stdout.close()
        process.stdin.close()
        assert process.stderr.read() == ''
    assert process.returncode == 141


def test_interrupt(run, monkeypatch, tmp_path):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt
    monkeypatch.setattr(DinoSegmenter, 'segment', interrupt)
    assert run('segment', 'cube.fits') == (130, '',
                                           'astrodino: interrupted\n')
    assert names(tmp_path) == []


def test_debug(folder):
    with pytest.raises(ValueError, match='cannot be read'):
        main(['--debug', 'segment', str(folder / 'text.fits')])


def test_a_bug_is_not_hidden(run, monkeypatch):
    def bug(*args, **kwargs):
        raise ZeroDivisionError('a bug')
    monkeypatch.setattr(DinoSegmenter, 'segment', bug)
    with pytest.raises(ZeroDivisionError):
        run('segment', 'cube.fits')


def test_warnings(run):
    # ours are shown, those of other packages are not
    status, _, err = run('segment', 'g.fits', 'no_wcs.fits', '--bands',
                         'g,odd', '-q', '--no-png')
    assert status == 0
    assert err.startswith('astrodino: warning: the wavelengths of')
    assert len(err.splitlines()) == 1


# ---------------------------------------------------- the other commands

def test_demo(run, tmp_path):
    status, out, err = run('demo', '-o', 'deep/demo')
    assert (status, err) == (0, '')
    assert names('deep/demo') == ['demo.html', 'demo.png', 'demo.reg',
                                  'demo_catalog.ecsv', 'demo_segm.fits']
    labels = read_label_map('deep/demo/demo_segm.fits')
    assert 'griz, 448 x 448 pixels' in out
    assert f'DinoSegmenter: {labels.max()} objects: ' in out
    count = out.split('photutils detect + deblend: ')[1].split()[0]
    assert int(count) > 20
    assert len(QTable.read('deep/demo/demo_catalog.ecsv')) == labels.max()
    with Picture.open('deep/demo/demo.png') as picture:
        assert picture.size[0] == 3 * 700
    assert run('demo', '-o', 'deep/demo')[0] == 0      # again


def test_demo_where_no_folder_can_be(run, tmp_path):
    (tmp_path / 'file').write_text('')
    status, _, err = run('demo', '-o', 'file')
    assert status == 1
    assert 'file' in one_line(err)


def test_info(run, tmp_path):
    status, out, err = run('info')
    assert (status, err) == (0, '')
    model = load_model()
    assert 'grouping_tiny: tells objects apart' in out
    n = sum(p.numel() for p in model.parameters())
    assert f'{n / 1e6:.2f} million parameters' in out
    assert f'training: {model.provenance["steps"]:,} steps' in out
    told = json.loads(run('info', '--json')[1])
    assert told.pop('provenance') == model.provenance
    assert told == json.loads(json.dumps(model.spec))
    assert f'astrodino_seg {astrodino_seg.__version__}' in out
    assert 'devices: cpu' in out
    load_model().save(tmp_path / 'own.safetensors')
    assert 'own.safetensors: tells' in run('info', '--model',
                                           'own.safetensors')[1]
    assert 'star, galaxy or artifact' in run('info', '--model',
                                             'linear_tiny')[1]
    assert 'without a head' in run('info', '--model', 'backbone_tiny')[1]
    status, _, err = run('info', '--model', 'none.safetensors')
    assert status == 1
    assert 'none.safetensors' in one_line(err)


def test_version(run):
    assert run('--version') == (0, f'astrodino {astrodino_seg.__version__}\n',
                                '')


@pytest.mark.parametrize('command', [[], ['segment'], ['demo'], ['info'],
                                     ['train']])
def test_help(run, command):
    status, out, err = run(*command, '--help')
    assert (status, err) == (0, '')
    assert out.startswith('usage: astrodino')


def test_train_errors(run, tmp_path):
    status, _, err = run('train', 'none.toml', '-o', 'out')
    assert status == 1
    assert 'none.toml' in one_line(err)
    (tmp_path / 'bad.toml').write_text('this is = = no TOML')
    status, _, err = run('train', 'bad.toml', '-o', 'out')
    assert status == 1
    one_line(err)


def test_console_script(folder, tmp_path):
    # the installed command, as a user calls it
    script = Path(sys.executable).with_name('astrodino')
    if not script.is_file():
        pytest.skip('the package is not installed')

    def call(*args):
        return subprocess.run([script, *args], cwd=tmp_path, text=True,
                              capture_output=True, check=False)

    done = call('segment', folder / 'cube.fits', '-o', 'field', '--no-png')
    assert done.returncode == 0, done.stderr
    assert names(tmp_path) == PRODUCTS[1:]
    done = call('segment', folder / 'text.fits')
    assert done.returncode == 1
    one_line(done.stderr)


def test_command_starts_fast():
    # wrong usage and help need neither torch nor astropy
    code = ('import sys\nfrom astrodino_seg.cli import main\n'
            'try:\n    main(["--help"])\nexcept SystemExit:\n    pass\n'
            'print(*sys.modules, file=sys.stderr)')
    done = subprocess.run([sys.executable, '-c', code], text=True, check=True,
                          capture_output=True)
    assert not {'torch', 'astropy', 'numpy', 'photutils'} & set(
        done.stderr.split())


# ---------------------------------------------------------------- edits

@pytest.mark.parametrize('form', ['ecsv', 'fits'])
def test_edits(run, tmp_path, form):
    """Applied to the labels, and told in every product."""
    Path('edits.csv').write_text('action,labels,x,y,class\n'
                                 'reclassify,1,,,artifact\n'
                                 'draw,,20 30 30 20,20 20 30 30,star\n')
    status, out, err = run('segment', 'cube.fits', '-o', 'field', '-q',
                           '--no-png', '--edits', 'edits.csv',
                           '--catalog-format', form)
    assert (status, err) == (0, '')
    table = QTable.read(f'field_catalog.{form}')
    assert table['class'][0] == 'artifact'
    labels = read_label_map('field_segm.fits')
    new = labels[25, 25]
    assert table['class'][new - 1] == 'star'
    assert (labels == new).sum() == 121
    told = str(fits.getheader('field_segm.fits')['HISTORY'])
    assert 'input edits.csv sha256' in told
    assert 'edit reclassify 1 x ' in told
    assert 'edit draw x 20.00 30.00' in told
    assert 'edit draw x 20.00' in Path('field.reg').read_text()
    assert table.meta[{'ecsv': 'edits', 'fits': 'EDITS'}[form]].startswith(
        'reclassify 1 x ')


def test_edits_that_cannot_be(run, tmp_path):
    Path('edits.csv').write_text('action,labels\ndelete,999\n')
    status, _, err = run('segment', 'cube.fits', '-q', '--no-png', '--edits',
                         'edits.csv')
    assert (status, err) == (
        1, 'astrodino: error: --edits: there is no label 999\n')
    assert names(tmp_path) == ['edits.csv']
    status, _, err = run('segment', 'cube.fits', '-q', '--edits', 'none.csv')
    assert status == 1
    assert 'none.csv' in err
    status, _, err = run('segment', '--each', 'cube.fits', '-q', '--edits',
                         'edits.csv')
    assert (status, err) == (
        1, 'astrodino: error: --edits: it is not used with --each\n')


@pytest.mark.parametrize(('columns', 'name', 'form', 'file'), [
    ('sextractor', 'FLUX_AUTO_r', 'votable', 'field_catalog.vot'),
    ('lsst', 'isPrimary', 'fits', 'field_catalog.fits')])
def test_catalogues_of_other_programs(run, columns, name, form, file):
    status, _, err = run('segment', 'cube.fits', '-o', 'field', '-q',
                         '--no-png', '--columns', columns,
                         '--catalog-format', form)
    assert (status, err) == (0, '')
    assert name in Table.read(file).colnames
    told = (Path(file).read_text() if form == 'votable'
            else str(fits.getheader(file, 1)))
    assert 'input cube.fits sha256' in ' '.join(told.split())


# ------------------------------------------------- many and large images

def test_block(run, image):
    """One block is the whole image, labels and table."""
    args = ['unit.fits', '-q', '--no-png', '--threshold', '0.05',
            '--background', '0']
    assert run('segment', *args)[0] == 0
    status, out, _ = run('segment', *args, '--block', '192', '--margin', '64',
                         '-o', 'b', '--catalog-format', 'fits')
    assert status == 0
    assert 'wrote b_segm.fits' in out
    assert_array_equal(read_label_map('b_segm.fits'),
                       read_label_map('unit_segm.fits'))
    one, two = QTable.read('unit_catalog.ecsv'), QTable.read('b_catalog.fits')
    assert_allclose(one['flux_g'], two['flux_g'], rtol=1e-6)
    assert one.colnames == two.colnames
    assert any('unit.fits sha256' in line for line in fits.getheader(
        'b_segm.fits')['HISTORY'])
    status, _, err = run('segment', *args, '--block', '100', '-o', 'c')
    assert (status, 'multiples of 64' in one_line(err)) == (1, True)
    status, _, err = run('segment', *args, '--block', '192', '--each')
    assert one_line(err) == '--each: it is not used with --block'


def test_positions(run, folder, tmp_path):
    """Cutouts by their ids, and one catalogue of all."""
    QTable({'id': ['a', 'b', 'far'], 'x': [30.0, 70, 300],
            'y': [40.0, 60, 40]}).write('at.ecsv')
    args = ['segment', 'cube.fits', '--positions', 'at.ecsv', '-o', 'out',
            '-q', '--no-png', '--join', 'all.parquet']
    assert '--cutout' in one_line(run(*args)[2])
    status, out, err = run(*args, '--cutout', '48')
    assert (status, err) == (0, 'astrodino: warning: far is not on the '
                             'image\n')
    assert '2 of 2 images' in out
    table = QTable.read('all.parquet')
    whole = as_image(folder / 'cube.fits')
    for name, x0, y0 in (('a', 6, 16), ('b', 46, 36)):
        labels = read_label_map(f'out/{name}/{name}_segm.fits')
        assert labels.shape == (48, 48)
        rows = table[table['image'] == name]
        assert len(rows) == labels.max() > 0
        assert rows['sky_centroid'].separation(whole.sky(
            rows['x_centroid'] + x0, rows['y_centroid'] + y0)
            ).arcsec.max() < 1e-6


def test_folder_on_a_cluster(run, folder, tmp_path):
    """A folder stands for its FITS files; a bad one ends nothing."""
    distributed = pytest.importorskip('distributed')
    (tmp_path / 'in').mkdir()
    for name in ('g.fits', 'nan.fits', 'text.fits'):
        copy(folder / name, tmp_path / 'in')
    (tmp_path / 'in' / 'notes.txt').write_text('no image')
    args = ['segment', '--each', 'in', '-o', 'out', '-q', '--no-png']
    with distributed.LocalCluster(
            1, threads_per_worker=1, processes=False, protocol='tcp',
            dashboard_address=None) as cluster:
        status, out, err = run(*args, '--scheduler',
                               cluster.scheduler_address)
    assert status == 1
    assert '1 of 3 images' in out
    assert sorted(line.split(':')[2].strip() for line in err.splitlines()
                  if 'astrodino: error' in line) == ['in/nan.fits',
                                                     'in/text.fits']
    assert 'in/g.fits: is there' in run(*args)[1]
