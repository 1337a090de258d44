# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the image package: FITS files, label maps and real images.
"""

import bz2
import gzip
import os
import stat
import warnings

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import (
    CCDData,
    InverseVariance,
    StdDevUncertainty,
    VarianceUncertainty,
)
from astropy.utils.exceptions import AstropyWarning
from astropy.wcs import WCS
from helpers import check_promises, cube_wcs, make_wcs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from photutils.segmentation import SegmentationImage
from reproject import reproject_adaptive

from astrodino_seg.errors import AstroDinoUserWarning
from astrodino_seg.image import (
    as_image,
    read_label_map,
    write_label_map,
    write_plane,
)

DATA = np.random.default_rng(2).normal(size=(3, 40, 50)).astype(np.float32)


def image_hdu(data=DATA[0], name=None, wcs=None, **header):
    hdu = fits.ImageHDU(data, None if wcs is None else wcs.to_header(), name)
    for key, value in header.items():
        hdu.header[key] = value
    return hdu


def write(path, *hdus):
    """Write a file with an empty primary HDU in front."""
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(path)
    return path


# ---------------------------------------------------------------- files
def test_ways_to_a_file(tmp_path):
    """The same pixels, whatever the file is like."""
    path = tmp_path / 'image.fits'
    header = make_wcs().to_header()
    header['FILTER'] = 'r'
    header['BUNIT'] = 'MJy/sr'
    primary = fits.PrimaryHDU(DATA[0], header)
    primary.writeto(path)
    content = path.read_bytes()
    (tmp_path / 'image.fits.gz').write_bytes(gzip.compress(content))
    (tmp_path / 'image.fits.bz2').write_bytes(bz2.compress(content))
    write(tmp_path / 'image.fits.fz',
          fits.CompImageHDU(DATA[0], header, compression_type='GZIP_1',
                            quantize_level=0))
    with fits.open(path) as hdus:
        sources = [path, str(path), hdus, hdus[0], primary,
                   tmp_path / 'image.fits.gz', tmp_path / 'image.fits.bz2',
                   tmp_path / 'image.fits.fz', f'{path}[0]', [path]]
        for source in sources:
            image = as_image(source)
            check_promises(image)
            assert_array_equal(image.cube[0], DATA[0])
            assert image.bands == ('r',)
            assert image.unit == u.MJy / u.sr
            assert_allclose(image.wcs.wcs.crval, [150, 2])
    assert as_image({'J': path}).bands == ('J',)
    assert as_image(path, bands=['J']).bands == ('J',)


def test_scaled_integers(tmp_path):
    path = tmp_path / 'image.fits'
    for data in (np.array([[1, 2], [3, 4]], dtype='i2'),
                 np.array([[1, 2], [3, 65000]], dtype='u2'),
                 np.array([[1, 2], [3, 2**31]], dtype='u4')):
        hdu = fits.PrimaryHDU(data)
        hdu.header['BLANK'] = 2 - int(hdu.header.get('BZERO', 0))
        hdu.writeto(path, overwrite=True)
        image = as_image(path)
        check_promises(image)
        assert_array_equal(image.mask[0], data == 2)
        assert_array_equal(image.cube[0], np.where(data == 2, 0, data))
    hdu = fits.PrimaryHDU(np.array([[10.0, 20], [30, 40]]))
    hdu.scale('int16', bscale=0.5, bzero=3)
    hdu.writeto(path, overwrite=True)
    assert_array_equal(as_image(path).cube[0], [[10, 20], [30, 40]])


def test_hdus_are_not_changed(tmp_path):
    path = tmp_path / 'image.fits'
    hdu = fits.PrimaryHDU(np.array([[10.0, 20], [30, 40]]))
    hdu.scale('int16', bscale=0.5, bzero=3)
    hdu.writeto(path)
    with fits.open(path) as hdus:
        before = hdus[0].header.tostring()
        as_image(hdus)
        as_image(hdus[0])
        assert hdus[0].header.tostring() == before
    # what the user did to the data counts, not the file
    with fits.open(path) as hdus:
        hdus[0].data *= 2
        before = hdus[0].header.tostring()
        assert_array_equal(as_image(hdus).cube[0], [[20, 40], [60, 80]])
        assert hdus[0].header.tostring() == before
        hdus[0].data[0, 0] = np.nan
        image = as_image(hdus[0])
        image.cube[:] = 0
        assert hdus[0].data[1, 1] == 80


def test_cube_and_bands(tmp_path):
    path = tmp_path / 'cube.fits'
    hdu = fits.PrimaryHDU(DATA, cube_wcs().to_header())
    hdu.writeto(path)
    assert as_image(path).bands == ('band0', 'band1', 'band2')
    for keys in ({'BANDS': 'zrg'}, {'BANDS': 'z, r, g'},
                 {'BAND0': 'z', 'BAND1': 'r', 'BAND2': 'g'}):
        new = fits.PrimaryHDU(DATA, hdu.header)
        new.header.update(keys)
        image = as_image(new)
        check_promises(image)
        assert image.bands == ('g', 'r', 'z')
        assert_array_equal(image.cube, DATA[::-1])
        assert_allclose(image.wcs.pixel_to_world_values(3, 4),
                        cube_wcs().pixel_to_world_values(3, 4, 0)[:2])
    new.header['BANDS'] = 'gr'
    del new.header['BAND1']
    assert as_image(new).bands == ('band0', 'band1', 'band2')


def test_bands_in_extensions(tmp_path):
    path = write(tmp_path / 'mef.fits',
                 image_hdu(DATA[0], FILTER='z'), image_hdu(DATA[1], 'sdss_r'),
                 image_hdu(DATA[2], FILTER='HSC-G'),
                 image_hdu(np.ones((5, 5)), 'PSF'),
                 fits.BinTableHDU.from_columns([]))
    image = as_image(path)
    check_promises(image)
    assert image.bands == ('g', 'r', 'z')
    assert_array_equal(image.cube, DATA[::-1])
    assert as_image(f'{path}[2]').bands == ('r',)
    assert_array_equal(as_image(f'{path}[3]').cube[0], DATA[2])
    assert as_image(f'{path}[PSF]').shape == (5, 5)


def test_chips_are_not_bands(tmp_path):
    path = write(tmp_path / 'chips.fits',
                 image_hdu(DATA[0], 'SCI', EXTVER=1),
                 image_hdu(np.ones((40, 50)), 'ERR', EXTVER=1),
                 image_hdu(DATA[1], 'SCI', EXTVER=2),
                 image_hdu(np.full((40, 50), 2.0), 'ERR', EXTVER=2))
    with pytest.warns(AstroDinoUserWarning, match='has 1 further images'):
        image = as_image(path)
    assert_array_equal(image.cube, DATA[:1])
    assert_allclose(image.noise, 1)
    image = as_image(f'{path}[SCI,2]')
    assert_array_equal(image.cube, DATA[1:2])
    assert_allclose(image.noise, 2)


def test_filter_in_the_primary_header(tmp_path):
    path = tmp_path / 'jwst.fits'
    primary = fits.PrimaryHDU()
    primary.header.update(FILTER='F444W', PUPIL='F405N')
    fits.HDUList([primary, image_hdu(name='SCI')]).writeto(path)
    assert as_image(path).bands == ('F405N',)


def test_names_from_files(tmp_path):
    for name, header in (('sdss_g', 'g'), ('sdss_i', 'g'), ('x_f115w', None),
                         ('odd', 'L-eXtreme'), ('other', None)):
        hdu = fits.PrimaryHDU(DATA[0])
        if header:
            hdu.header['FILTER'] = header
        hdu.writeto(tmp_path / f'{name}.fits')

    def bands(*names):
        return as_image([tmp_path / f'{name}.fits' for name in names]).bands

    assert bands('sdss_i') == ('g',)
    assert bands('sdss_i', 'sdss_g') == ('g', 'i')
    assert bands('x_f115w', 'sdss_i') == ('g', 'F115W')
    assert bands('odd') == ('L-eXtreme',)
    assert bands('other') == ('band0',)
    assert bands('sdss_g', 'sdss_g') == ('g', 'g_2')


@pytest.mark.parametrize(('name', 'value', 'bad'), [
    ('ERR', 4, np.nan), ('RMS', 4, 0), ('VAR', 16, -1), ('IVAR', 1 / 16, 0),
    ('WGT', 1 / 16, 0), ('INVVAR_R', 1 / 16, np.nan)])
def test_uncertainty_extensions(tmp_path, name, value, bad):
    array = np.full((40, 50), value, dtype='f4')
    array[1, 2] = bad
    path = write(tmp_path / 'image.fits', image_hdu(name='SCI'),
                 image_hdu(array, name))
    image = as_image(path)
    check_promises(image)
    assert_allclose(image.noise, 4)
    assert_array_equal(np.argwhere(image.mask), [[0, 1, 2]])


@pytest.mark.parametrize(('name', 'values', 'header', 'n_bad'), [
    ('WHT', [0, 3.5, 7], {}, 1), ('MASK', [0, 1, 1], {}, 2),
    ('DQ', [0, 4, 4], {}, 2), ('DQ', [0, 1, 5], {'TELESCOP': 'JWST'}, 2),
    ('DQ', [0, 1, 4], {'TELESCOP': 'JWST'}, 1),
    ('MASK', [32, 1, 33], {'MP_BAD': 0, 'HIERARCH MP_DETECTED': 5}, 2),
    ('MASK', [32, 256, 1], {'MP_BAD': 0, 'HIERARCH MP_NO_DATA': 8}, 2),
    ('SEG', [1, 2, 3], {}, 0), ('BADPIX', [0, 1, 6], {}, 2),
    ('VAR_POISSON', [1, 2, 3], {}, 0), ('CTX', [1, 2, 3], {}, 0)])
def test_mask_extensions(tmp_path, name, values, header, n_bad):
    array = np.full((40, 50), values[0] if name != 'WHT' else 7)
    array = array.astype(np.array(values).dtype)
    array[0, :3] = values
    path = write(tmp_path / 'image.fits', image_hdu(name='SCI'),
                 image_hdu(array, name, **header))
    image = as_image(path)
    check_promises(image)
    assert image.mask.sum() == n_bad
    assert image.noise is None


@pytest.mark.parametrize(('name', 'values', 'match'), [
    ('DQ', [0, 1, 4], 'the meaning of its bits is not known; bad_bits'),
    ('MASK', [0, 1.0, 7.5], 'its values are no integers'),
    ('MASK', np.full(2000, 1), 'marks all pixels as bad')])
def test_mask_is_not_used(name, values, match):
    array = np.zeros(2000, dtype=np.array(values).dtype)
    array[:len(values)] = values
    hdus = fits.HDUList([fits.PrimaryHDU(DATA[0]),
                         image_hdu(array.reshape(40, 50), name)])
    with pytest.warns(AstroDinoUserWarning,
                      match=rf"not used of 'data': HDU 1 \({name}.*{match}"):
        image = as_image(hdus)
    assert not image.mask.any()


@pytest.mark.parametrize(('bad_bits', 'n_bad'), [
    (1, 1), (4, 2), (5, 3), ('any', 4), (0, 0)])
def test_bad_bits(bad_bits, n_bad):
    array = np.zeros((40, 50), 'i2')
    array[0, :4] = 1, 4, 6, 16
    hdus = fits.HDUList([fits.PrimaryHDU(DATA[0]), image_hdu(array, 'DQ')])
    image = as_image(hdus, bad_bits=bad_bits)
    assert image.mask.sum() == n_bad
    for wrong in ('some', True, 1.5):
        with pytest.raises(ValueError, match='bad_bits must be an int'):
            as_image(hdus, bad_bits=wrong)


@pytest.mark.parametrize('data', [
    DATA[0], as_image(DATA[0]), [DATA[0]],
    fits.PrimaryHDU(DATA[0]), fits.HDUList([
        fits.PrimaryHDU(DATA[0]), image_hdu(np.ones((40, 50)), 'WHT')])])
def test_bad_bits_of_what_has_none(data):
    with pytest.warns(AstroDinoUserWarning, match='bad_bits is not used: da'):
        as_image(data, bad_bits=1)
    with pytest.raises(ValueError, match='bad_bits must be an int'):
        as_image(data, bad_bits='some')


def test_priority_of_uncertainties(tmp_path):
    path = write(tmp_path / 'jwst.fits', image_hdu(name='SCI'),
                 image_hdu(np.full((40, 50), 2.0), 'VAR_POISSON'),
                 image_hdu(np.full((40, 50), 16.0), 'VAR'),
                 image_hdu(np.full((40, 50), 3.0), 'ERR'),
                 image_hdu(np.full((20, 50), 0.0), 'WHT'))
    with pytest.warns(AstroDinoUserWarning, match='WHT.* fits no image'):
        image = as_image(path)
    assert_allclose(image.noise, 3)
    assert not image.mask.any()


def test_cube_with_inverse_variance(tmp_path):
    ivar = np.full((3, 40, 50), 0.25)
    ivar[1, 0, 0] = 0
    primary = fits.PrimaryHDU(DATA)
    primary.header.update(BANDS='grz', IMAGETYP='IMAGE')
    path = tmp_path / 'cutout.fits'
    fits.HDUList([primary, image_hdu(ivar, IMAGETYP='invvar')]).writeto(path)
    image = as_image(path)
    check_promises(image)
    assert_allclose(image.noise, 2)
    assert_array_equal(np.argwhere(image.mask), [[1, 0, 0]])


@pytest.mark.parametrize('cls', [StdDevUncertainty, VarianceUncertainty,
                                 InverseVariance])
def test_ccddata_file(tmp_path, cls):
    path = tmp_path / 'ccd.fits'
    data = CCDData(DATA[0], unit='adu', mask=DATA[1] > 2, wcs=make_wcs(),
                   uncertainty=cls(np.full((40, 50), 0.5)))
    data.write(path)
    expected, image = as_image(data), as_image(path)
    check_promises(image)
    assert image.unit == u.adu
    assert_array_equal(image.cube, expected.cube)
    assert_array_equal(image.mask, expected.mask)
    assert_array_equal(image.noise, expected.noise)


# ------------------------------------------------------------------ WCS
@pytest.mark.parametrize('header', [
    {}, {'CTYPE1': '', 'CTYPE2': ''}, {'CTYPE1': 'PIXEL', 'CTYPE2': 'PIXEL'},
    {'CTYPE1': 'LINEAR', 'CRVAL1': 3.0}, {'CTYPE1': 'WAVE', 'CUNIT1': 'm'}])
def test_no_celestial_wcs(header):
    hdu = image_hdu(**header)
    before = hdu.header.tostring()
    assert as_image(hdu).wcs is None
    assert hdu.header.tostring() == before


def test_old_wcs_is_quiet():
    hdu = image_hdu(wcs=make_wcs(), RADECSYS='FK5', EPOCH=2000.0,
                    **{'DATE-OBS': '01/02/90', 'PC001001': 1.0})
    del hdu.header['RADESYS']
    image = as_image(hdu)
    check_promises(image)
    assert_allclose(image.wcs.wcs.crval, [150, 2])


def test_broken_wcs():
    hdu = image_hdu(wcs=make_wcs())
    for key in ('PC1_1', 'PC2_2', 'CDELT1', 'CDELT2'):
        hdu.header[key] = 0.0
    with pytest.warns(AstroDinoUserWarning, match='WCS .* cannot be used'):
        assert as_image(hdu).wcs is None
    hdu = image_hdu(wcs=make_wcs(), CUNIT1='parsec')
    with pytest.warns(AstroDinoUserWarning, match='WCS .* cannot be used'):
        assert as_image(hdu).wcs is None


def lookup_file(path):
    """A file with a distortion table for each axis."""
    x, y = np.meshgrid(np.linspace(-1, 1, 10), np.linspace(-1, 1, 8))
    tables = []
    for version, table in enumerate((x * y, x**2), start=1):
        hdu = image_hdu(table.astype('f4'), 'WCSDVARR', EXTVER=version)
        hdu.header.update(CRPIX1=1.0, CRVAL1=1.0, CDELT1=49 / 9,
                          CRPIX2=1.0, CRVAL2=1.0, CDELT2=39 / 7)
        tables.append(hdu)
    header = make_wcs().to_header()
    for axis in '12':
        header[f'CPDIS{axis}'] = 'LOOKUP'
        for field in (f'EXTVER: {axis}', 'NAXES: 2', 'AXIS.1: 1',
                      'AXIS.2: 2'):
            header.append((f'DP{axis}', field), end=True)
    fits.HDUList([fits.PrimaryHDU(DATA[0], header), *tables]).writeto(path)
    return path


def test_lookup_distortion(tmp_path):
    path = lookup_file(tmp_path / 'lookup.fits')
    with fits.open(path) as hdus:
        expected = WCS(hdus[0].header, fobj=hdus)
        assert expected.cpdis1 is not None
        plain = make_wcs().pixel_to_world_values(49, 39)
        world = expected.pixel_to_world_values(49, 39)
        assert abs(world[1] - plain[1]) > 0.5 / 3600
        for source in (path, hdus, f'{path}[0]'):
            image = as_image(source)
            check_promises(image)
            assert_allclose(image.wcs.pixel_to_world_values(49, 39), world)
        with pytest.warns(AstroDinoUserWarning, match='tables of the WCS'):
            image = as_image(hdus[0])
        assert_allclose(image.wcs.pixel_to_world_values(49, 39), plain)
    image = as_image(path)
    with pytest.warns(AstroDinoUserWarning, match='cannot hold the distort'):
        write_label_map(tmp_path / 'labels.fits',
                        np.zeros((40, 50), dtype=int), image)
    assert_allclose(WCS(fits.getheader(tmp_path / 'labels.fits'))
                    .pixel_to_world_values(49, 39), plain)


def test_sky_on_other_axes():
    hdu = fits.PrimaryHDU(DATA, cube_wcs().sub([3, 1, 2]).to_header())
    with pytest.raises(ValueError, match='last two of the array'):
        as_image(hdu)


# --------------------------------------------------------------- errors
def test_not_a_file(tmp_path):
    with pytest.raises(FileNotFoundError, match='no such file: .*x.fits'):
        as_image(tmp_path / 'x.fits')
    with pytest.raises(FileNotFoundError, match='no such file: .*x.fits'):
        as_image([tmp_path / 'x.fits[1]'])
    with pytest.raises(ValueError, match='is a directory, not a FITS file'):
        as_image(tmp_path)


@pytest.mark.parametrize('content', [
    b'', b'not FITS', b'\x1f\x8b not gzip', b'BZh9 not bzip2', b'\x89PNG\r\n',
    b'SIMPLE  =' + b' ' * 80, b'SIMPLE  =                    T' * 200])
def test_not_fits(tmp_path, content):
    path = tmp_path / 'bad.fits'
    path.write_bytes(content)
    match = r'bad.fits.* (cannot be read as a FITS|has no science) image'
    with pytest.raises(ValueError, match=match):
        as_image(path)


@pytest.mark.parametrize('ending', ['', '.fz', '.gz', '.bz2'])
def test_truncated(tmp_path, ending):
    path = tmp_path / f'image.fits{ending}'
    hdu = fits.CompImageHDU if ending == '.fz' else fits.ImageHDU
    fits.HDUList([fits.PrimaryHDU(), hdu(DATA[0])]).writeto(path)
    path.write_bytes(path.read_bytes()[:-4000])
    with pytest.raises(ValueError, match='cannot be read as a FITS image'):
        as_image(path)
    with pytest.raises(ValueError, match='cannot be read as a FITS image'):
        read_label_map(path)


@settings(deadline=None, max_examples=60,
          suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2879), st.binary(min_size=1, max_size=8))
def test_damaged_header(tmp_path, position, junk):
    """An image or one clear error, never something else."""
    path = tmp_path / 'image.fits'
    fits.PrimaryHDU(np.ones((5, 6)), make_wcs().to_header()).writeto(
        path, overwrite=True)
    content = bytearray(path.read_bytes())
    content[position:position + len(junk)] = junk
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', AstroDinoUserWarning)
        try:
            check_promises(as_image(path))
        except ValueError as err:
            message = str(err)
        else:
            message = ''
    assert '\n' not in message


def test_no_image(tmp_path):
    path = write(tmp_path / 'table.fits', fits.BinTableHDU.from_columns([]))
    with pytest.raises(ValueError, match='table.fits.* has no science image'):
        as_image(path)
    with pytest.raises(ValueError, match='is not an image HDU'):
        as_image(f'{path}[1]')
    with pytest.raises(ValueError, match='has no HDU 7; it has'):
        as_image(f'{path}[7]')
    with pytest.raises(ValueError, match="has no HDU 'SCI'; it has"):
        as_image(f'{path}[SCI]')
    with pytest.raises(ValueError, match='is not an image HDU'):
        as_image(fits.PrimaryHDU())
    with pytest.raises(TypeError, match='got BinTableHDU'):
        as_image(fits.BinTableHDU.from_columns([]))
    path = write(tmp_path / 'wht.fits', image_hdu(name='WHT'))
    with pytest.raises(ValueError, match='chosen by number, as in "file'):
        as_image(path)
    check_promises(as_image(f'{path}[1]'))


# ----------------------------------------------------------- label maps
@pytest.fixture
def image():
    return as_image(DATA, wcs=make_wcs())


LABELS = np.arange(2000, dtype=np.int64).reshape(40, 50) * 1000


@pytest.mark.parametrize('name', ['labels.fits', 'labels.fits.gz'])
def test_label_map(tmp_path, image, name):
    path = tmp_path / name
    meta = {'finder': 'this one', 'n': 3, 'ok': True, 'none': None,
            'a long name': 1.5, 'dotted.name': 'é\nx', 'list': [1, 2]}
    write_label_map(path, LABELS, image, meta=meta)
    labels = read_label_map(path)
    assert labels.dtype == np.int32
    assert labels.dtype.isnative
    assert_array_equal(labels, LABELS)
    assert [one.name for one in tmp_path.iterdir()] == [name]
    with fits.open(path) as hdus:
        hdus.verify('exception')
        header = hdus[0].header
        assert header['FINDER'] == 'this one'
        assert (header['N'], header['OK'], header['NONE']) == (3, True, None)
        assert header['A LONG NAME'] == 1.5
        assert header['DOTTED.NAME'] == '? x'
        assert header['LIST'] == '[1, 2]'
        assert_allclose(WCS(header).pixel_to_world_values(3, 4),
                        make_wcs().pixel_to_world_values(3, 4))
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


def test_label_map_of_photutils(tmp_path):
    labels = np.zeros((40, 50), dtype=np.uint8)
    labels[3:6, 4:9] = 255
    path = tmp_path / 'labels.fits'
    write_label_map(path, SegmentationImage(labels), as_image(DATA))
    assert_array_equal(read_label_map(str(path)), labels)
    # other programs
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.ones(3)),
                  fits.CompImageHDU(labels.astype('>i2'))]).writeto(
                      path, overwrite=True)
    assert_array_equal(read_label_map(path), labels)


def test_label_map_by_name(tmp_path):
    path = tmp_path / 'labels.fits'
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(LABELS, name='CLUMPS'),
                  fits.ImageHDU(LABELS + 1, name='OBJECTS')]).writeto(path)
    assert_array_equal(read_label_map(path), LABELS)
    assert_array_equal(read_label_map(path, 'OBJECTS'), LABELS + 1)
    with pytest.raises(ValueError, match="has no 2-D image named 'SKY'"):
        read_label_map(path, 'SKY')


def test_blank_labels(tmp_path):
    """Programs write blank integers where pixels are masked."""
    path = tmp_path / 'blank.fits'
    hdu = fits.ImageHDU(LABELS.astype('i4'), name='OBJECTS')
    hdu.header['BLANK'] = -2147483648
    hdu.data[2, 3] = -2147483648
    hdu.writeto(path)
    wanted = LABELS.copy()
    wanted[2, 3] = 0
    found = read_label_map(path)
    assert found.dtype.kind == 'i'
    assert_array_equal(found, wanted)


def test_write_plane(tmp_path):
    pixels = np.arange(12, dtype=np.float32).reshape(3, 4)
    pixels[1, 2] = np.nan
    write_plane(tmp_path / 'plane.fits', pixels)
    with fits.open(tmp_path / 'plane.fits') as hdus:
        assert len(hdus) == 1
        assert hdus[0].data.dtype == np.dtype('>f4')
        assert_array_equal(hdus[0].data, pixels)


def test_label_map_keeps_distortion(tmp_path):
    wcs = make_wcs(ctype='TAN-SIP')
    header = wcs.to_header(relax=True)
    header.update(A_ORDER=2, B_ORDER=2, A_2_0=2e-3, B_0_2=2e-3)
    wcs = WCS(header)
    wcs.array_shape = 40, 50
    write_label_map(tmp_path / 'labels.fits', LABELS,
                    as_image(DATA, wcs=wcs))
    again = WCS(fits.getheader(tmp_path / 'labels.fits'))
    assert_allclose(again.pixel_to_world_values(0, 0),
                    wcs.pixel_to_world_values(0, 0))


def test_label_map_exists(tmp_path, image):
    path = tmp_path / 'labels.fits'
    write_label_map(path, LABELS, image)
    with pytest.raises(OSError, match='labels.fits.* exists; overwrite=True'):
        write_label_map(path, LABELS * 0, image)
    assert_array_equal(read_label_map(path), LABELS)
    with pytest.raises(ValueError, match='meta'):
        write_label_map(path, LABELS * 0, image, meta={'NAXIS1': 4},
                        overwrite=True)
    assert_array_equal(read_label_map(path), LABELS)
    write_label_map(path, LABELS * 0, image, overwrite=True)
    assert_array_equal(read_label_map(path), LABELS * 0)
    with pytest.raises(FileNotFoundError, match='no such directory'):
        write_label_map(tmp_path / 'none' / 'x.fits', LABELS, image)
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(('labels', 'match'), [
    (LABELS[1:], r'labels has shape \(39, 50\), the image has \(40, 50\)'),
    (LABELS - 1, 'labels must be from 0 to 2147483647, got -1 to'),
    (LABELS * 10000, 'labels must be from 0 to 2147483647, got 0 to 1999')])
def test_bad_labels(tmp_path, image, labels, match):
    with pytest.raises(ValueError, match=match):
        write_label_map(tmp_path / 'x.fits', labels, image)
    assert not list(tmp_path.iterdir())


def test_bad_label_types(tmp_path, image):
    with pytest.raises(TypeError, match='labels must be .* int, got .* flo'):
        write_label_map(tmp_path / 'x.fits', LABELS * 1.0, image)
    with pytest.raises(TypeError, match='meta must be a dict, got str'):
        write_label_map(tmp_path / 'x.fits', LABELS, image, meta='x')
    with pytest.raises(ValueError, match="keyword 'CRVAL1'"):
        write_label_map(tmp_path / 'x.fits', LABELS, image,
                        meta={'CRVAL1': 1})
    with pytest.raises(ValueError, match=r"meta\['x'\] = nan cannot be"):
        write_label_map(tmp_path / 'x.fits', LABELS, image,
                        meta={'x': np.nan})
    path = write(tmp_path / 'x.fits', image_hdu())
    with pytest.raises(ValueError, match='pixels are >f4, not integers'):
        read_label_map(path)
    path = write(tmp_path / 'y.fits', image_hdu(DATA))
    with pytest.raises(ValueError, match='y.fits.* has no 2-D image'):
        read_label_map(path)


# ---------------------------------------------------------- real images
def plain(path, hdu=0):
    """The pixels and the WCS as astropy reads them."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', AstropyWarning)
        with fits.open(path) as hdus:
            wcs = WCS(hdus[hdu].header, fobj=hdus)
            return np.array(hdus[hdu].data, dtype=float), wcs


@pytest.mark.parametrize(('name', 'hdu', 'band', 'celestial'), [
    ('edge_cases/G.fits.fz', 1, 'g', True),
    ('edge_cases/R.fits.fz', 1, 'R', True),
    ('edge_cases/gc_2mass_j.fits', 0, 'J', True),
    ('edge_cases/image_with_distortion_map.fits', 0, 'band0', False),
    ('edge_cases/pole.fits', 0, 'IRAC1', True),
    ('edge_cases/razero.fits', 0, 'IRAC1', True),
    ('edge_cases/sipsample.fits', 0, 'IRAC1', True),
    ('edge_cases/small_MI_corrupt_img.fits', 0, 'g', True),
    ('edge_cases/tanflip.fits', 0, 'band0', True),
    ('edge_cases/tnx.fits', 0, 'z', True),
    ('edge_cases/tpv.fits.gz', 0, 'I', True),
    ('single_band/M51.fits', 0, 'band0', False),
    ('single_band/image.fits', 0, 'band0', False),
    ('single_band/HST-HDFS.fits', 1, 'F606W', True),
    ('kids_viking/Z.fits', 1, 'Z', True),
    ('spiral_with_star/SDSS_r.fits', 0, 'r', True),
    ('spiral_with_star/PS1_i.fits', 0, 'i', True)])
def test_real_file(data_dir, tmp_path, name, hdu, band, celestial):
    data, wcs = plain(data_dir / name, hdu)
    image = as_image(data_dir / name)
    check_promises(image)
    assert image.bands == (band,)
    assert_array_equal(image.mask[0], ~np.isfinite(data))
    good = np.where(image.mask[0], 0, data)
    assert_allclose(image.cube[0], good.astype(np.float32))
    assert (image.wcs is not None) == celestial
    labels = np.ones(image.shape, dtype=int)
    write_label_map(tmp_path / 'labels.fits', labels, image)
    if celestial:
        ny, nx = image.shape
        x, y = np.array([0, nx - 1, nx / 3]), np.array([0, ny / 2, ny - 1])
        expected = wcs.pixel_to_world_values(x, y)
        assert_allclose(image.wcs.pixel_to_world_values(x, y), expected)
        _, again = plain(tmp_path / 'labels.fits')
        assert_allclose(again.pixel_to_world_values(x, y), expected,
                        rtol=0, atol=1e-7)


@pytest.mark.parametrize(('name', 'bands'), [
    ('legacy/cluster_ring_grz.fits', 'grz'),
    ('legacy/decals_dr5_example_a.fits', 'grz'),
    ('legacy/decals_dr5_example_b.fits', 'grz'),
    ('legacy/dr10_griz_192.6009_-28.2675.fits', 'griz'),
    ('hsc/hsc_ra=150.24071_dec=2.06514.fits', None)])
def test_real_cube(data_dir, name, bands):
    data, _ = plain(data_dir / name)
    image = as_image(data_dir / name)
    check_promises(image)
    assert image.bands == (tuple(bands) if bands else
                           tuple(f'band{i}' for i in range(5)))
    assert_allclose(image.cube, data.astype(np.float32))
    assert image.wcs is not None
    if not bands:
        image = as_image(data_dir / name, bands='grizy')
        assert image.bands == tuple('grizy')


def test_legacy_surveys_with_inverse_variance(data_dir):
    path = (data_dir / 'legacy'
            / 'cutout_59.1067_-30.4848_grz_invvar_psf.fits')
    image = as_image(path)
    check_promises(image)
    assert image.bands == ('g', 'r', 'z')
    for i in range(3):
        assert_array_equal(image.cube[i], plain(path, 2 * i + 1)[0])
        ivar, _ = plain(path, 2 * i + 2)
        assert_allclose(image.noise[i], ivar**-0.5, rtol=1e-6)
    assert not image.mask.any()


def test_hsc_arrays(data_dir):
    file = np.load(data_dir / 'hsc' / 'hsc_cosmos_35.npz')
    mask = file['mask'] & 1 > 0
    image = as_image(file['images'], bands=list(file['filters']), mask=mask,
                     error=np.sqrt(file['variance']))
    check_promises(image)
    assert image.bands == tuple('grizy')
    valid = ~image.mask
    assert_array_equal(image.mask, mask | ~np.isfinite(file['images']))
    assert_array_equal(image.cube[valid], file['images'][valid])
    assert_allclose(image.noise[valid]**2, file['variance'][valid],
                    rtol=1e-5)


def test_spiral_of_three_surveys(data_dir):
    folder = data_dir / 'spiral_with_star'
    des = as_image([folder / f'DES_{band}.fits' for band in 'zirg'])
    check_promises(des)
    assert des.bands == tuple('griz')
    assert des.unit == u.electron
    for i, band in enumerate('griz'):
        path = folder / f'DES_{band}.fits'
        assert_array_equal(des.cube[i], plain(path)[0])
        weight, _ = plain(path, 1)
        assert_allclose(des.noise[i], weight**-0.5, rtol=1e-6)
    ps1 = as_image([folder / f'PS1_{band}.fits' for band in 'griz'])
    check_promises(ps1)
    assert ps1.bands == tuple('griz')
    # the WCS of the SDSS images is that of the frames before they were cut
    # out: reprojected they are seven pixels apart, with one WCS they agree
    paths = {band: folder / f'SDSS_{band}.fits' for band in 'gi'}
    sdss = as_image(paths)
    check_promises(sdss)
    assert sdss.unit == u.Unit('nmgy')
    expected, _ = reproject_adaptive(
        plain(paths['i']), sdss.wcs, shape_out=(240, 240), conserve_flux=True)
    inside = np.isfinite(expected)
    assert_allclose(sdss.cube[1][inside], expected[inside], atol=1e-3)
    sdss = as_image(paths, wcs=sdss.wcs)
    assert_array_equal(sdss.cube[1], plain(paths['i'])[0])


def test_sdss_with_wrong_headers(data_dir):
    folder = data_dir / 'sdss_ngc6976'
    image = as_image([folder / f'reprojected_sdss_{band}.fits.bz2'
                      for band in 'irg'])
    check_promises(image)
    assert image.bands == tuple('gri')
    data, _ = plain(folder / 'reprojected_sdss_i.fits.bz2')
    assert_array_equal(image.cube[2], data)


def test_jwst_on_two_grids(data_dir):
    """F770W at 80 mas onto 40 mas, against the pipeline's own at 40 mas."""
    folder = data_dir / 'jwst_uds'
    image = as_image([folder / 'f770w_80mas_sci.fits',
                      folder / 'f444w_sci.fits'])
    check_promises(image)
    assert image.bands == ('F444W', 'F770W')
    assert image.shape == (820, 1000)
    assert_array_equal(image.cube[0], plain(folder / 'f444w_sci.fits')[0])
    other = as_image(folder / 'f770w_sci.fits')
    assert other.bands == ('F770W',)
    # the WCS of the two files differ by one pixel of 40 mas in x and y
    ours, theirs = (one.reshape(40, 20, 48, 20).sum(axis=(1, 3))
                    for one in (image.cube[1, 1:801, 1:961],
                                other.cube[0, :800, :960]))
    bright = theirs > np.percentile(theirs, 97)
    assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.998
    assert_allclose(ours[bright], theirs[bright], rtol=0.15)
    assert ours[bright].sum() == pytest.approx(theirs[bright].sum(), rel=0.01)


def test_kids_and_viking(data_dir):
    folder = data_dir / 'kids_viking'
    image = as_image([folder / 'Ks.fits', folder / 'u.fits'])
    check_promises(image)
    assert image.bands == ('u', 'Ks')
    assert image.shape == (2600, 1400)
    assert_allclose(image.cube[0], plain(folder / 'u.fits', 1)[0])


def test_segmentation_of_a_pipeline(data_dir):
    path = data_dir / 'jwst_uds' / 'LW_seg.fits'
    assert_array_equal(read_label_map(path), plain(path, 1)[0])
    with pytest.raises(ValueError, match='has no science image'):
        as_image(path)
    with pytest.raises(ValueError, match='has no science image'):
        as_image(data_dir / 'single_band' / 'M51_table.fits')
