# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests of the commands that make images and stamps.
"""

import re

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import QTable
from astropy.wcs import WCS
from astropy.wcs.utils import proj_plane_pixel_scales
from numpy.testing import assert_allclose, assert_array_equal
from simulate_helpers import EMPTY

from astrodino_seg.cli import main
from astrodino_seg.image import as_image, read_label_map
from astrodino_seg.simulate import (
    CONDITIONS,
    CONTENT,
    SceneLibrary,
    make_scene,
    observe,
)
from astrodino_seg.simulate.sky import BAND_SETS

pytest.importorskip('galsim')

FILES = ['one_image.fits', 'one_truth.ecsv', 'one_truth.fits']
QUICK = ['simulate', '-o', 'one', '--size', '64', '--density', '1']


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run the command in an empty folder: status, output, errors."""
    monkeypatch.chdir(tmp_path)

    def call(*args):
        try:
            status = main([str(arg) for arg in args])
        except SystemExit as end:
            status = end.code
        out, err = capsys.readouterr()
        assert 'Traceback' not in err
        return status, out, err
    return call


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def one_line(err):
    lines = err.splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith('astrodino: error: ')
    return lines[0].removeprefix('astrodino: error: ')


# ------------------------------------------------------------------ simulate

def test_simulate(run, tmp_path):
    """The files hold what Python gives."""
    status, out, err = run(*QUICK, '--seed', 4, '--bands', 'griz', '--depth',
                           2, '--pixel-scale', .3)
    assert (status, err) == (0, '')
    assert names(tmp_path) == FILES
    scene = make_scene(4, size=64, band_set='griz', density=1,
                       pixel_scale=.3)
    image, truth = observe(scene, [4, 1], depth=2, bands=range(4))
    assert out.startswith(
        f'g,r,i,z: 64 x 64 pixels, {len(truth.objects["id"])} objects\n')
    for name in FILES:
        assert f'wrote {name}' in out
    found = as_image('one_image.fits')
    assert found.bands == image.bands == ('g', 'r', 'i', 'z')
    assert_array_equal(found.cube, image.cube)
    assert_array_equal(found.mask, image.mask)
    assert_allclose(proj_plane_pixel_scales(found.wcs) * 3600, .3)
    assert_array_equal(read_label_map('one_truth.fits'), truth.labels)
    with fits.open('one_truth.fits') as hdus:
        assert [hdu.name for hdu in hdus[1:]] == ['LABELS', 'OWNERS',
                                                  'SHARES']
        assert_array_equal(hdus['OWNERS'].data, truth.owners)
        assert_array_equal(hdus['SHARES'].data, truth.shares)
        assert hdus[0].header['ISOPHOTE'] == 0.5
        assert hdus[0].header['SEED'] == 4
        wcs = WCS(hdus['LABELS'].header)
        assert_allclose(proj_plane_pixel_scales(wcs) * 3600, .3)


def test_catalogue(run):
    assert run(*QUICK, '--seed', 2, '--bands', 'grz')[0] == 0
    table = QTable.read('one_truth.ecsv')
    _, truth = observe(make_scene(2, size=64, band_set='grz', density=1,
                                  pixel_scale=.2), [2, 1], bands=range(3))
    o = truth.objects
    assert len(table) == len(o['id']) > 3
    for key in ('id', 'x', 'y', 'kind', 're', 'primary', 'sn', 'n_pixels',
                'blendedness', 'on_primary', 'overlaps'):
        assert_array_equal(table[key], o[key])
    assert_array_equal([('star', 'galaxy', 'artifact').index(name) + 1
                        for name in table['class']], o['cls'])
    for k, band in enumerate('grz'):
        assert_allclose(table[f'flux_{band}'], o['flux'][:, k])
    assert table.meta['ISOPHOTE'] == 0.5
    assert set(np.unique(read_label_map('one_truth.fits'))) <= {
        -1, 0, *table['id']}


@pytest.mark.parametrize('band_set', list(BAND_SETS))
def test_bands(run, band_set):
    """Every set can be read back; all of its bands are there."""
    assert run(*QUICK, '--bands', band_set, '--rate', 'large=0')[0] == 0
    assert as_image('one_image.fits').bands == tuple(BAND_SETS[band_set])


def test_scene_of_a_split(run):
    """The defaults are those of the scenes of a split."""
    assert run('simulate', '-o', 'one', '--size', 64, '--seed', 2_000_003)[
        0] == 0
    scenes = SceneLibrary('benchmark', 4, size=64)
    image, _ = observe(scenes[3], [scenes.seed(3), 1])
    assert_array_equal(as_image('one_image.fits').cube, image.cube)


def test_missing_bands(run):
    """Bands that were named are all there, unless one asks otherwise."""
    numbers = set()
    for seed in range(5):
        assert run(*QUICK, '--bands', 'ugrizy', '--seed', seed, '--rate',
                   'missing_bands=1', '--rate', 'large=0',
                   '--overwrite')[0] == 0
        numbers.add(as_image('one_image.fits').n_bands)
    assert len(numbers) > 2


def test_masked_pixels(run):
    assert run(*QUICK, '--bands', 'griz', '--rate', 'gap=8')[0] == 0
    with fits.open('one_image.fits') as hdus:
        nan = [np.isnan(hdu.data).any() for hdu in hdus[1:]]
    image = as_image('one_image.fits')
    assert any(nan)
    assert_array_equal(image.mask.any(axis=(1, 2)), nan)


def test_size(run):
    assert run(*QUICK[:3], '--size', 48, 80, '--bands', 'r', '--psf-fwhm',
               2.5)[0] == 0
    assert as_image('one_image.fits').shape == (48, 80)


def test_rates(run):
    options = [option for name in EMPTY if name != 'star'
               for option in ('--rate', f'{name}=0')]
    options += [option for name in CONDITIONS
                for option in ('--rate', f'{name}=0')]
    assert run(*QUICK, *options, '--depth', 5, '--rate', 'star=9')[0] == 0
    assert set(QTable.read('one_truth.ecsv')['kind']) == {'star'}
    assert not as_image('one_image.fits').mask.any()
    # an empty sky has an empty catalogue
    assert run(*QUICK, *options, '--rate', 'star=0', '--rate',
               'bright_star=0', '--overwrite')[0] == 0
    assert len(QTable.read('one_truth.ecsv')) == 0


def test_segment(run, tmp_path):
    assert run(*QUICK, '--bands', 'griz', '--size', 96)[0] == 0
    assert run('segment', 'one_image.fits', '-q', '--no-png')[0] == 0
    assert 'one_image_segm.fits' in names(tmp_path)
    assert read_label_map('one_image_segm.fits').shape == (96, 96)


def test_existing(run, tmp_path):
    (tmp_path / 'one_truth.ecsv').write_text('old')
    status, _, err = run(*QUICK)
    assert status == 1
    assert 'one_truth.ecsv exists; give --overwrite' in one_line(err)
    assert names(tmp_path) == ['one_truth.ecsv']
    assert run(*QUICK, '--overwrite')[0] == 0
    assert len(QTable.read('one_truth.ecsv')) > 0


@pytest.mark.parametrize('product', [
    'astrodino_seg.image.write_image', 'astrodino_seg.image.write_maps',
    'astropy.table.QTable.write'])
def test_nothing_half_written(run, tmp_path, monkeypatch, product):
    def fail(*args, **kwargs):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(product, fail)
    status, _, err = run(*QUICK)
    assert status == 1
    assert 'No space left on device' in one_line(err)
    assert names(tmp_path) == []


@pytest.mark.parametrize(('options', 'words'), [
    (['--size', '8'], 'size must be one or two integers of at least 16'),
    (['--size', '64', '64', '3'], 'size must be one or two integers'),
    (['--bands', 'xyz'], 'band_set must be one of'),
    (['--density', '-1'], 'density must be in [0, 20)'),
    (['--depth', '0'], 'depth must be positive, got 0.0'),
    (['--pixel-scale', '0'], '--pixel-scale must be positive'),
    (['--psf-fwhm', '.5'], '--psf-fwhm must be at least one pixel, got 0.5'),
    (['--seed', '-1'], 'seed must be 0 or more, got -1'),
    (['--rate', 'stars=1'], "got 'stars=1'"),
    (['--rate', 'star'], "rate: must be NAME=VALUE, got 'star'"),
    (['--rate', 'star=many'], "rate: must be NAME=VALUE, got 'star=many'"),
    (['--rate', 'gap=-1'], "rates['gap'] must be a number of 0 or more"),
    (['--stamps', 'none'], 'no stamps of version'),
    (['--cosmos', 'none'], "cosmos: no file 'none/galaxies_f814w.fits'"),
    (['-o', 'no/such/one'], "output: no folder 'no/such'")])
def test_errors(run, tmp_path, options, words):
    status, out, err = run(*QUICK, *options)
    assert (status, out) == (1, '')
    assert words in one_line(err)
    assert names(tmp_path) == []


def test_rate_names(run):
    # each goes to the one table that has it
    err = one_line(run(*QUICK, '--rate', 'fog=1')[2])
    known = re.search('one of (.*); got', err)[1].split(', ')
    assert known == [*CONTENT, *CONDITIONS]


def test_without_galsim(run, tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, 'galsim', None)
    for args in (QUICK, ['stamps', 'folder']):
        status, _, err = run(*args)
        assert status == 1
        assert 'astrodino_seg[simulate]' in one_line(err)
        assert names(tmp_path) == []


# -------------------------------------------------------------------- stamps

def test_stamps(run, tmp_path):
    """A folder that scenes can be composed of."""
    options = ['stamps', 'folder', '--skies', 1, '--large', 1, '--small', 4,
               '--bands', 'r']
    status, out, err = run(*options, '-q')
    assert (status, err) == (0, '')
    assert out == 'folder: 1 skies\n'
    file, = (tmp_path / 'folder').iterdir()
    before = file.stat().st_mtime_ns
    status, out, err = run(*options[:3], 2, *options[4:], '--first-seed', 0)
    assert (status, out) == (0, 'folder: 2 skies\n')
    assert 'sky' in err                    # the progress
    assert file.stat().st_mtime_ns == before
    assert run(*QUICK, '--stamps', 'folder', '--bands', 'r')[0] == 0
    assert as_image('one_image.fits').bands == ('r',)


@pytest.mark.parametrize(('options', 'words'), [
    (['--skies', '0'], 'n_skies must be at least 1, got 0'),
    (['--large', '-2'], 'n_large must be at least 1, got -2'),
    (['--bands', 'r', 'xyz'], 'band_set must be one of'),
    (['--cosmos', 'none'], "cosmos: no file 'none/galaxies_f814w.fits'")])
def test_stamps_errors(run, tmp_path, options, words):
    status, out, err = run('stamps', 'folder', '-q', *options)
    assert (status, out) == (1, '')
    assert words in one_line(err)
    assert not list(tmp_path.rglob('*.safetensors'))


@pytest.mark.parametrize('command', ['simulate', 'stamps'])
def test_help(run, command):
    status, out, err = run(command, '--help')
    assert (status, err) == (0, '')
    assert out.startswith(f'usage: astrodino {command}')
