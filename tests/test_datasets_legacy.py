# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the datasets package: cutouts of the Legacy Surveys.
"""

import hashlib
import time
from dataclasses import replace
from io import BytesIO
from urllib.parse import parse_qs, urlsplit

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import Table
from cutout_service import CutoutServer, make_fits
from helpers import check_promises
from numpy.testing import assert_allclose, assert_array_equal

from astrodino_seg.datasets import (
    FolderImages,
    LegacyCutouts,
    legacy,
)
from astrodino_seg.datasets.service import CutoutRequest, FileCache
from astrodino_seg.errors import (
    AstroDinoUserWarning,
    DownloadError,
    SkippedWarning,
)

pytest.importorskip('urllib3')
PLACE = SkyCoord(150.1163, 2.2058, unit='deg')


def legacy_cutout(position, **options):
    image, = LegacyCutouts(position, **options)
    return image


@pytest.fixture
def server(monkeypatch):
    for name in ('http_proxy', 'HTTP_PROXY', 'all_proxy', 'ALL_PROXY'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(time, 'sleep', lambda seconds: None)
    with CutoutServer() as server:
        yield server


@pytest.fixture
def options(server, tmp_path):
    return {'service': server.url, 'cache': tmp_path / 'cache', 'size': 24}


def everything(folder):
    return sorted(str(path.relative_to(folder))
                  for path in folder.rglob('*'))


# -------------------------------------------------------------- one cutout
def test_cutout(options, server):
    image = legacy_cutout(PLACE, **options)
    with fits.open(BytesIO(make_fits(150.1163, 2.2058, 24, 0.262,
                                     'griz'))) as hdus:
        flux, ivar = hdus[0].data, hdus[1].data
    check_promises(image)
    assert image.bands == ('g', 'r', 'i', 'z')
    assert image.unit == u.Unit('nmgy')
    assert_array_equal(image.mask, ivar == 0)
    assert image.mask.sum() == 4
    assert_array_equal(image.cube, np.where(ivar > 0, flux, 0))
    good = ~image.mask
    assert_allclose(image.noise[good], ivar[good]**-0.5, rtol=1e-6)
    assert_allclose(image.wcs.world_to_pixel(PLACE), 11.5, atol=1e-6)
    scale = u.Quantity(image.wcs.proj_plane_pixel_scales())
    assert_allclose(scale.to_value(u.arcsec), 0.262)


def test_what_is_asked(options, server):
    legacy_cutout(PLACE.galactic, bands='zg', layer='ls-dr9', ivar=False,
                  **(options | {'pixel_scale': 1 * u.arcsec,
                                'size': 0.5 * u.arcmin}))
    path, = (path for path, _ in server.requests)
    query = parse_qs(urlsplit(path).query, keep_blank_values=True)
    assert_allclose(float(query.pop('ra')[0]), 150.1163, rtol=0, atol=1e-7)
    assert_allclose(float(query.pop('dec')[0]), 2.2058, rtol=0, atol=1e-7)
    assert query == {'layer': ['ls-dr9'], 'pixscale': ['1'], 'size': ['30'],
                     'bands': ['zg']}
    legacy_cutout(PLACE, **options)
    assert 'invvar' in parse_qs(urlsplit(server.requests[1][0]).query,
                                keep_blank_values=True)


@pytest.mark.parametrize(('change', 'n_pixels', 'unit'), [
    ({'bands': 'r'}, 24, 'nmgy'), ({'pixel_scale': 0.524}, 24, None),
    ({'ivar': False}, 24, 'nmgy'), ({'size': 3 * u.arcsec}, 12, 'nmgy'),
    ({'size': 24 * 0.262 * u.arcsec}, 24, 'nmgy')])
def test_options(options, change, n_pixels, unit):
    image = legacy_cutout(PLACE, **(options | change))
    check_promises(image)
    assert image.bands == tuple(change.get('bands', 'griz'))
    assert image.shape == (n_pixels, n_pixels)
    assert image.unit == (None if unit is None else u.Unit(unit))
    # no inverse variance of images that are binned, or not asked for it
    assert (image.noise is None) == (
        'pixel_scale' in change or 'ivar' in change)
    # the pixel without data is masked in any case
    assert image.mask[:, 0, 0].all()
    assert image.mask.sum() == image.n_bands


def test_band_without_data(options):
    with pytest.warns(AstroDinoUserWarning, match=r"\['i'\] have no valid"):
        image = legacy_cutout(SkyCoord(150, 40, unit='deg'), **options)
    assert image.mask.all(axis=(1, 2)).tolist() == [False, False, True, False]


@pytest.mark.parametrize(('change', 'match'), [
    ({'size': 0}, 'size must be 2 to 3000 pixels, got 0'),
    ({'size': 3001}, 'size must be 2 to 3000 pixels, got 3001'),
    ({'size': 1 * u.deg}, 'size must be 2 to 3000 pixels, got 13741'),
    ({'bands': ''}, 'bands must be names of one letter'),
    ({'bands': ['W1']}, 'bands must be names of one letter'),
    ({'bands': 'gg'}, 'bands must be different'),
    ({'pixel_scale': 0}, 'pixel_scale must be positive, got 0'),
    ({'pixel_scale': np.nan}, 'pixel_scale must be positive, got nan'),
    ({'layer': 'ls dr10&x='}, 'layer must be a name'),
    ({'n_connections': 0}, 'n_connections must be 1 or more, got 0')])
def test_wrong_options(options, change, match):
    with pytest.raises(ValueError, match=match):
        LegacyCutouts(PLACE, **(options | change))


@pytest.mark.parametrize('change', [{'size': 2.5}, {'pixel_scale': 'wide'},
                                    {'pixel_scale': 1 * u.s},
                                    {'size': 3 * u.m}])
def test_wrong_types(options, change):
    with pytest.raises(TypeError):
        LegacyCutouts(PLACE, **(options | change))


@pytest.mark.parametrize(('name', 'ask', 'position'), [
    ('cluster_ring_grz', CutoutRequest(256, 'grz', layer='ls-dr9',
                                       ivar=False), (357.9087, -54.8817)),
    ('dr10_griz_192.6009_-28.2675', CutoutRequest(256, 'griz', 0.06,
                                                  ivar=False),
     (192.6009, -28.2675)),
    ('decals_dr5_example_a', CutoutRequest(509, 'grz', layer='decals-dr5',
                                           ivar=False),
     (359.995016, 0.701753))])
def test_genuine_answers(data_dir, name, ask, position):
    path = data_dir / 'legacy' / f'{name}.fits'
    image = ask.read(path, *position)
    assert image.bands == ask.bands
    assert_array_equal(image.mask, fits.getdata(path) == 0)
    with pytest.raises(DownloadError, match='no inverse variance'):
        replace(ask, ivar=True).read(path, *position)
    with pytest.raises(DownloadError, match='not in its middle'):
        ask.read(path, position[0], position[1] + 0.001)


# ------------------------------------------------------------- bad answers
@pytest.mark.parametrize(('fault', 'match'), [
    ('page', "no FITS file but a page, 'Site maintenance'"),
    ('empty', 'no FITS file but empty'),
    ('truncated', 'cannot be read as a FITS image'),
    ('elsewhere', 'has the position at .* not in its middle'),
    ('no ivar', 'no inverse variance; is it all there'),
    ('missing', 'status 404 Not Found')])
def test_wrong_content(options, server, fault, match):
    server.faults = [fault]
    cutouts = LegacyCutouts(PLACE, **options)
    with pytest.raises(DownloadError, match=match) as info:
        cutouts[0]
    assert str(info.value).startswith(f'{server.url}?ra=150.1163000&dec=')
    assert everything(options['cache']) == []
    assert len(server.requests) == 1
    # what was wrong is not kept
    assert cutouts[0].shape == (24, 24)


@pytest.mark.parametrize(('change', 'match'), [
    ({'layer': 'ls-dr99'}, "no FITS file but 'no such layer'"),
    ({'bands': 'gy'}, r"bands \('g', 'r', 'i', 'z'\), not \('g', 'y'\)"),
    ({'bands': 'y'}, r"bands \('g', 'r', 'i', 'z'\), not \('y',\)"),
    ({'size': 200}, r'shape \(100, 100\), not size 200')])
def test_what_the_service_leaves_unsaid(options, server, change, match):
    server.max_size = 100
    with pytest.raises(DownloadError, match=match):
        legacy_cutout(PLACE, **(options | change))
    assert everything(options['cache']) == []


def test_no_data_at_all(options, server):
    server.faults = ['zero']
    with pytest.raises(DownloadError, match='no data: all pixels are 0'):
        legacy_cutout(PLACE, ivar=False, **options)


def test_no_wcs(tmp_path):
    path = tmp_path / 'answer.fits'
    header = fits.Header({'BAND0': 'g', 'BAND1': 'r'})
    fits.writeto(path, np.ones((2, 24, 24)), header)
    with pytest.raises(DownloadError, match='the answer has no WCS'):
        CutoutRequest(24, 'gr').read(path, 150.0, 2.0)


def test_off_the_footprint(options):
    with pytest.raises(DownloadError, match='dec=%2B89.* status 500'):
        legacy_cutout(SkyCoord(0, 89, unit='deg'), **options)


@pytest.mark.parametrize('fault', ['busy', 'too many', 'cut off'])
def test_passing_faults(options, server, fault):
    server.faults = [fault] * 3
    assert legacy_cutout(PLACE, **options).shape == (24, 24)
    assert len(server.requests) == 4


# ------------------------------------------------------------------- cache
def test_cache(options, server):
    first = legacy_cutout(PLACE, **options)
    again = legacy_cutout(PLACE, **options)
    assert len(server.requests) == 1
    assert_array_equal(first.cube, again.cube)
    name = 'ls-dr10_150.1163000+2.2058000_24x0.262_griz_ivar'
    assert everything(options['cache']) == [f'{name}.fits', f'{name}.sha256']
    content = (options['cache'] / f'{name}.fits').read_bytes()
    line = (options['cache'] / f'{name}.sha256').read_text()
    assert line == f'{hashlib.sha256(content).hexdigest()}  {name}.fits\n'
    # another request is another file
    legacy_cutout(PLACE, **(options | {'ivar': False}))
    assert len(server.requests) == 2


@pytest.mark.parametrize('damage', ['change', 'cut', 'no checksum',
                                    'empty checksum'])
def test_damaged_cache(options, server, damage):
    first = legacy_cutout(PLACE, **options)
    path, = options['cache'].glob('*.fits')
    content = path.read_bytes()
    if damage == 'change':
        path.write_bytes(content[:5000] + b'\x01' + content[5001:])
    elif damage == 'cut':
        path.write_bytes(content[:-2880])
    elif damage == 'no checksum':
        path.with_suffix('.sha256').unlink()
    else:
        path.with_suffix('.sha256').write_text('')
    assert_array_equal(legacy_cutout(PLACE, **options).cube, first.cube)
    assert len(server.requests) == 2
    assert path.read_bytes() == content
    legacy_cutout(PLACE, **options)
    assert len(server.requests) == 2


def test_default_cache(monkeypatch, tmp_path):
    monkeypatch.setattr(legacy.paths, 'get_cache_dir',
                        lambda name: str(tmp_path / name))
    cutouts = LegacyCutouts(PLACE)
    assert cutouts._folder == tmp_path / 'astrodino_seg' / 'legacysurvey'


# ---------------------------------------------------------------- many
def test_fetch(options, server):
    table = Table({'name': ['a', 'b', 'c', 'd', 'e'],
                   'RA': [10.0, 20.0, 30.0, 20.0, 40.0],
                   'DEC': [1.0, 2.0, 88.0, 2.0, -3.0]})
    cutouts = LegacyCutouts(table, **options)
    with pytest.warns(SkippedWarning, match='cutouts left out: 1,') as caught:
        done = cutouts.fetch(progress_bar=False)
    (where, why), = caught[0].message.skipped
    assert where == 'row 2'
    assert 'status 500' in why
    assert done['ok'].tolist() == [True, True, False, True, True]
    assert done['name'].tolist() == ['a', 'b', 'c', 'd', 'e']
    assert done['error'][2] == why
    assert set(done['error'][done['ok']]) == {''}
    assert done['path'][2] == ''
    assert all(url.startswith(server.url) for url in done['url'])
    # two rows are one position
    assert done['path'][1] == done['path'][3]
    assert len(server.requests) == 4
    good = cutouts[done['ok']]
    assert len(good) == 4
    for image, ra in zip(good, (10, 20, 20, 40), strict=True):
        assert_allclose(image.wcs.wcs.crval[0], ra)
    assert len(server.requests) == 4
    assert len(cutouts[1:3]) == 2
    # the table is one for FolderImages too
    with pytest.warns(SkippedWarning, match='files left out: 1,'):
        images = FolderImages(done)
    assert images.table['name'].tolist() == ['a', 'b', 'd', 'e']
    assert_array_equal(images[3].cube, good[3].cube)
    # and for a second call, which asks for the missing one alone
    with pytest.warns(SkippedWarning):
        again = LegacyCutouts(done, **options).fetch(progress_bar=False)
    assert again.colnames == done.colnames
    assert len(server.requests) == 5


def test_fetch_is_in_order_and_limited(options, server):
    server.pause = 0.01
    ra = np.arange(30) * 7.0
    cutouts = LegacyCutouts(SkyCoord(ra, 0 * ra, unit='deg'),
                            n_connections=3, **options)
    table = cutouts.fetch(progress_bar=False)
    assert table['ok'].all()
    assert server.most_active <= 3
    for k, path in enumerate(table['path']):
        assert_allclose(fits.getheader(path)['CRVAL1'], ra[k])
    assert not [name for name in everything(options['cache'])
                if 'part' in name]


def test_fetch_with_faults(options, server):
    server.faults = ['busy', 'page', 'cut off', 'too many', 'truncated']
    ra = np.arange(8) * 7.0
    cutouts = LegacyCutouts(SkyCoord(ra, 0 * ra, unit='deg'), **options)
    with pytest.warns(SkippedWarning, match='cutouts left out: 2,'):
        table = cutouts.fetch(progress_bar=False)
    assert table['ok'].sum() == 6
    assert len(everything(options['cache'])) == 12
    assert cutouts.fetch(progress_bar=False)['ok'].all()


def test_service_is_gone(options, server):
    cutouts = LegacyCutouts(PLACE, n_retries=0, **(
        options | {'service': 'http://127.0.0.1:1/'}))
    with pytest.raises(ConnectionError, match='127.0.0.1:1 cannot be'):
        cutouts.fetch(progress_bar=False)
    with pytest.raises(ConnectionError, match='127.0.0.1:1 cannot be'):
        cutouts[0]
    assert everything(options['cache']) == []


def test_interrupt_leaves_no_parts(options, server, monkeypatch):
    add, done = FileCache.add, []

    def interrupted(self, part, name):
        if done:
            raise KeyboardInterrupt
        done.append(name)
        return add(self, part, name)

    monkeypatch.setattr(FileCache, 'add', interrupted)
    ra = np.arange(6) * 7.0
    cutouts = LegacyCutouts(SkyCoord(ra, 0 * ra, unit='deg'), **options)
    with pytest.raises(KeyboardInterrupt):
        cutouts.fetch(progress_bar=False)
    name = done[0].removesuffix('.fits')
    assert everything(options['cache']) == [f'{name}.fits', f'{name}.sha256']
    monkeypatch.setattr(FileCache, 'add', add)
    server.requests.clear()
    assert cutouts.fetch(progress_bar=False)['ok'].all()
    # of the others alone, perhaps again by threads that were interrupted
    assert len({path for path, _ in server.requests}) == 5


def test_progress(options, capsys):
    cutouts = LegacyCutouts(PLACE, **options)
    cutouts.fetch()
    assert '1/1' in capsys.readouterr().err
    cutouts.fetch(progress_bar=False)
    assert capsys.readouterr().err == ''


def test_names_of_files_differ():
    one = CutoutRequest(24, 'gr')
    others = [CutoutRequest(25, 'gr'), CutoutRequest(24, 'rg'),
              CutoutRequest(24, 'gr', 0.3),
              CutoutRequest(24, 'gr', ivar=False),
              CutoutRequest(24, 'gr', layer='ls-dr9')]
    names = {ask.file_name(1.0, -2.0) for ask in [one, *others]}
    names |= {one.file_name(1.0, 2.0), one.file_name(1.0000001, -2.0)}
    assert len(names) == 8


def test_repr(options):
    text = repr(LegacyCutouts(PLACE, **options))
    assert text == ('<LegacyCutouts: 1 of ls-dr10, griz, 24 pixels of 0.262 '
                    'arcsec>')
