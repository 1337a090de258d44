# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
A file of each pipeline, small and in the form that it writes.

The sources of the forms are in `astrodino_seg.image.layouts`.
"""

import runpy
from pathlib import Path

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from helpers import check_promises
from numpy.testing import assert_allclose, assert_array_equal

from astrodino_seg.errors import AstroDinoUserWarning
from astrodino_seg.image import as_image, ds9_positions
from astrodino_seg.image.layouts import PIPELINES, ROLES

N = 40
SKY = np.random.default_rng(4).normal(20, 3, (4, N, N)).astype('f4')


def wcs(lon='RA---TAN', lat='DEC--TAN', **keys):
    return {'CTYPE1': lon, 'CTYPE2': lat, 'CRVAL1': 60.0, 'CRVAL2': 20.0,
            'CRPIX1': 20.5, 'CRPIX2': 20.5, 'CDELT1': -1e-4, 'CDELT2': 1e-4,
            **keys}


def set_keys(header, keys):
    for key, value in keys.items():
        header[f'HIERARCH {key}' if len(key) > 8 else key] = value


def hdu(data, name=None, ver=None, **keys):
    one = fits.ImageHDU(np.array(data), name=name, ver=ver)
    set_keys(one.header, keys)
    return one


def primary(data=None, **keys):
    one = fits.PrimaryHDU(data)
    set_keys(one.header, keys)
    return one


def const(value, dtype='f4'):
    return np.full((N, N), value, dtype)


def bits(*values, dtype='i4', fill=0):
    """A mask whose first pixels have these values."""
    array = const(fill, dtype)
    array[0, :len(values)] = values
    return array


#: name: HDUs, and what is read: bands, unit, noise, bad pixels of the first
#: row, the frame of the sky (None without a WCS)
LAYOUTS = {
    'JWST cal': ([
        primary(TELESCOP='JWST', FILTER='F200W', PUPIL='CLEAR'),
        hdu(SKY[0], 'SCI', 1, BUNIT='MJy/sr', **wcs(RADESYS='ICRS')),
        hdu(const(2), 'ERR', 1), hdu(bits(1, 4, 5, 2, dtype='u4'), 'DQ', 1),
        hdu(const(1), 'AREA', 1), hdu(const(1), 'VAR_POISSON', 1),
        hdu(const(1), 'VAR_RNOISE', 1), hdu(const(1), 'VAR_FLAT', 1)],
        ('F200W',), 'MJy/sr', 2, [0, 2], 'icrs'),
    'JWST i2d': ([
        primary(TELESCOP='JWST', FILTER='F444W', PUPIL='F405N'),
        hdu(SKY[0], 'SCI', 1, BUNIT='MJy/sr', **wcs(RADESYS='ICRS')),
        hdu(bits(np.nan, 2, dtype='f4', fill=2), 'ERR', 1),
        hdu(np.ones((1, N, N), 'i4'), 'CON', 1),
        hdu(bits(0, 0, dtype='f4', fill=9), 'WHT', 1)],
        ('F405N',), 'MJy/sr', 2, [0, 1], 'icrs'),
    'Roman as FITS': ([
        primary(TELESCOP='ROMAN'),
        hdu(SKY[0], 'SCI', FILTER='H158', **wcs()),
        hdu(const(2), 'ERR'), hdu(bits(1, 2, 3), 'DQ')],
        ('F158',), None, 2, [0, 2], 'icrs'),
    'HST ACS flc': ([
        primary(TELESCOP='HST', INSTRUME='ACS', DETECTOR='WFC',
                FILTER1='CLEAR1L', FILTER2='F814W'),
        hdu(SKY[0], 'SCI', 1, BUNIT='ELECTRONS', **wcs()),
        hdu(const(2), 'ERR', 1), hdu(bits(4, 16, 4096, 256), 'DQ', 1),
        hdu(SKY[1], 'SCI', 2, BUNIT='ELECTRONS', **wcs()),
        hdu(const(7), 'ERR', 2), hdu(bits(*[4] * 9), 'DQ', 2),
        hdu(np.ones((8, 8)), 'D2IMARR', 1)],
        ('F814W',), 'electron', 2, [0, 2], 'icrs'),
    'HST WFC3 IR flt': ([
        primary(TELESCOP='HST', INSTRUME='WFC3', DETECTOR='IR',
                FILTER='F160W'),
        hdu(SKY[0], 'SCI', 1, BUNIT='ELECTRONS/S', **wcs()),
        hdu(const(2), 'ERR', 1),
        hdu(bits(4, 512, 8192, 16, 256), 'DQ', 1),
        hdu(const(9, 'i2'), 'SAMP', 1), hdu(const(9), 'TIME', 1)],
        ('F160W',), 'electron/s', 2, [0, 3], 'icrs'),
    'HST drz': ([
        primary(TELESCOP='HST', INSTRUME='WFC3', FILTER='F606W'),
        hdu(SKY[0], 'SCI', 1, BUNIT='ELECTRONS/S', **wcs()),
        hdu(bits(0, dtype='f4', fill=800), 'WHT', 1),
        hdu(const(3, 'i4'), 'CTX', 1)],
        ('F606W',), 'electron/s', None, [0], 'icrs'),
    'Euclid NISP': ([
        primary(TELESCOP='EUCLID', INSTRUME='NISP', FILTER='J'),
        hdu(SKY[0], 'DET11.SCI', **wcs()), hdu(const(2), 'DET11.RMS'),
        hdu(bits(1, 2), 'DET11.DQ'),
        hdu(SKY[1], 'DET12.SCI', **wcs()), hdu(const(7), 'DET12.RMS'),
        hdu(bits(*[1] * 9), 'DET12.DQ')],
        ('NIR_J',), None, 2, [0], 'icrs'),
    'Euclid VIS': ([
        primary(TELESCOP='EUCLID', INSTRUME='VIS', FILTER='VIS'),
        hdu(SKY[0], '1-1.G.SCI', **wcs()), hdu(const(2), '1-1.G.RMS'),
        hdu(bits(0, 5, 2), '1-1.G.FLG'),
        hdu(SKY[1], '1-1.H.SCI', **wcs()), hdu(const(7), '1-1.H.RMS'),
        hdu(bits(*[1] * 9), '1-1.H.FLG')],
        ('VIS',), None, 2, [1], 'icrs'),
    'LSST': ([
        primary(FILTER='i', TELESCOP='LSST'),
        hdu(SKY[0], 'IMAGE', EXTTYPE='IMAGE', BUNIT='nJy', **wcs()),
        hdu(bits(1, 256, 32, 288, 2), 'MASK', EXTTYPE='MASK', MP_BAD=0,
            MP_SAT=1, MP_NO_DATA=8, MP_DETECTED=5),
        hdu(const(4), 'VARIANCE', EXTTYPE='VARIANCE')],
        ('i',), 'nJy', 2, [0, 1, 3], 'icrs'),
    'HSC by EXTTYPE alone': ([
        primary(FILTER='HSC-R2'),
        hdu(SKY[0], EXTTYPE='IMAGE', **wcs()),
        hdu(bits(1, 32, fill=32), EXTTYPE='MASK', MP_BAD=0),
        hdu(const(4), EXTTYPE='VARIANCE')],
        ('r',), None, 2, [0], 'icrs'),
    'SPHEREx': ([
        primary(TELESCOP='SPHEREx'),
        hdu(SKY[0], 'IMAGE', BUNIT='MJy / sr', **wcs()),
        hdu(bits(64, 1, 2**21), 'FLAGS', MP_NONFUNC=6, MP_SOURCE=21),
        hdu(const(4), 'VARIANCE'), hdu(const(5), 'ZODI'),
        hdu(np.ones((3, 5, 5)), 'PSF')],
        ('band0',), 'MJy/sr', 2, [0], 'icrs'),
    'Gemini': ([
        primary(OBSERVAT='Gemini-North', FILTER1='open1-6',
                FILTER2='i_G0302'),
        hdu(SKY[0], 'SCI', 1, BUNIT='electron', **wcs()),
        hdu(const(4), 'VAR', 1), hdu(bits(1, 2, 8, 16, 4), 'DQ', 1),
        hdu(const(1, 'u1'), 'OBJMASK', 1)],
        ('i',), 'electron', 2, [0, 2, 3], 'icrs'),
    'LCO': ([
        hdu(SKY[0], 'SCI', FILTER='rp', BUNIT='electron', ORIGIN='LCOGT',
            **wcs()), hdu(bits(1, 2, 8, 9), 'BPM'), hdu(const(2), 'ERR')],
        ('r',), 'electron', 2, [0, 2, 3], 'icrs'),
    'ESO MUSE image': ([
        primary(ORIGIN='ESO'),
        hdu(SKY[0], 'DATA', BUNIT='10**(-20)*erg/s/cm**2/Angstrom',
            HDUCLASS='ESO', HDUCLAS2='DATA', **wcs()),
        hdu(const(4), 'STAT', HDUCLASS='ESO', HDUCLAS2='ERROR',
            HDUCLAS3='MSE'),
        hdu(bits(0, 32, 1), 'DQ', HDUCLASS='ESO', HDUCLAS2='QUALITY',
            HDUCLAS3='FLAG32BIT')],
        ('band0',), '1e-20 erg / (s cm2 Angstrom)', 2, [1, 2], 'icrs'),
    'ESO with other names': ([
        primary(ORIGIN='ESO', **{'ESO INS FILT1 NAME': 'Ks'}),
        hdu(SKY[0], 'CHIP1', HDUCLASS='ESO', HDUCLAS2='DATA', **wcs()),
        hdu(const(2), 'CHIP1X', HDUCLASS='ESO', HDUCLAS2='ERROR',
            HDUCLAS3='RMSE'),
        hdu(bits(1, 2, 4), 'CHIP1Y', HDUCLASS='ESO', HDUCLAS2='QUALITY',
            HDUCLAS3='FLAG16BIT', QUALMASK=4)],
        ('Ks',), None, 2, [2], 'icrs'),
    'DES': ([
        primary(),
        hdu(SKY[0], 'SCI', FILTER='g DECam SDSS c0001 4720.0 1520.0',
            BUNIT='electrons', INSTRUME='DECam', **wcs()),
        hdu(bits(1, 32, 16, 2048, 512), 'MSK', INSTRUME='DECam'),
        hdu(const(0.25), 'WGT', INSTRUME='DECam')],
        ('g',), 'electron', 2, [0, 2, 4], 'icrs'),
    'DECam of today': ([
        primary(INSTRUME='DECam', PLVER='V5.2.1',
                FILTER='r DECam SDSS c0002 6415.0 1480.0'),
        hdu(SKY[0], 'N4', CCDNUM=35, **wcs()),
        hdu(bits(1, 3, 5, 7), 'N4 DQ', CCDNUM=35)],
        ('r',), None, None, [0, 2], 'icrs'),
    'DECam of 2013': ([
        primary(INSTRUME='DECam', PLVER='V2.0.1', FILTER='r DECam'),
        hdu(SKY[0], 'N4', CCDNUM=35, **wcs()),
        hdu(bits(1, 2, 16, 4), 'DQ', CCDNUM=35)],
        ('r',), None, None, [0, 2], 'icrs'),
    'chips by CCDNUM': ([
        primary(FILTER='z'),
        hdu(SKY[0], 'SCI', CCDNUM=1), hdu(SKY[1], 'SCI', CCDNUM=2),
        hdu(const(7), 'RMS', CCDNUM=2), hdu(const(2), 'RMS', CCDNUM=1),
        hdu(bits(0, 1), 'MASK', CCDNUM=1), hdu(bits(1), 'MASK', CCDNUM=2)],
        ('z',), None, 2, [1], None),
    'CCDData': ([
        primary(SKY[0], BUNIT='adu', **wcs(RADESYS='FK5', EQUINOX=2000.0)),
        hdu(bits(0, 1, dtype='u1'), 'MASK'),
        hdu(const(4), 'UNCERT', UTYPE='VarianceUncertainty')],
        ('band0',), 'adu', 2, [1], 'fk5'),
    'SWarp with WEIGHTMAP': ([
        primary(SKY[0], FILTER='K(short)_G0202', BUNIT='COUNTS', **wcs()),
        hdu(bits(0, dtype='f4', fill=8), 'WEIGHTMAP')],
        ('Ks',), 'count', None, [0], 'icrs'),
    'RMSMAP and QUALITY of one bit': ([
        primary(SKY[0], FILTER='V'), hdu(const(2), 'RMSMAP'),
        hdu(bits(64, 0, 64), 'QUALITY')],
        ('V',), None, 2, [0, 2], None),
    'BADPIX of several numbers': ([
        primary(SKY[0], FILTER='V'), hdu(const(2), 'sigma_image'),
        hdu(bits(3, 0, 7), 'BADPIX')], ('V',), None, 2, [0, 2], None),
    'MASK of floats': ([
        primary(SKY[0], FILTER='V'), hdu(bits(0, 1, dtype='f4'), 'MASK')],
        ('V',), None, None, [1], None),
    'MASK of 255': ([
        primary(SKY[0], FILTER='V'), hdu(bits(0, 255, dtype='u1'), 'MASK')],
        ('V',), None, None, [1], None),
    'good pixels': ([
        primary(SKY[0], FILTER='V'),
        hdu(bits(0, dtype='u1', fill=1), 'GOODPIX')],
        ('V',), None, None, [0], None),
    'names of several words': ([
        primary(SKY[0], FILTER='V'), hdu(const(0.25), 'INVERSE VARIANCE'),
        hdu(bits(0, 1), 'BAD PIXEL MASK')], ('V',), None, 2, [1], None),
    'Herschel SPIRE': ([
        primary(TELESCOP='Herschel Space Observatory'),
        hdu(SKY[0], 'image', BUNIT='Jy/beam', **wcs()),
        hdu(const(2), 'error', BUNIT='Jy/beam'), hdu(const(9), 'coverage')],
        ('band0',), 'Jy/beam', 2, [], 'icrs'),
    'WISE': ([
        primary(SKY[0], TELESCOP='WISE', BAND=2, BUNIT='DN', **wcs(
            RADESYS='FK5', EQUINOX=2000.0))],
        ('W2',), 'DN', None, [], 'fk5'),
    'WISE single exposure': ([
        primary(SKY[0], TELESCOP='WISE', BAND=3),
        hdu(bits(1, 2**10, 2**21, 2**24, 2**27), 'MSK')],
        ('W3',), None, None, [0, 2, 4], None),
    'unWISE': ([primary(
        SKY[0], UNW_URL='https://github.com/dstndstn/unwise-coadds', BAND=1)],
        ('W1',), None, None, [], None),
    'GALEX': ([primary(SKY[0], TELESCOP='GALEX', BAND=1, **wcs()),
               hdu(bits(1, 2, 4, 8, 32, 64, dtype='u1'), 'FLAGS')],
              ('NUV',), None, None, [1, 2, 5], 'icrs'),
    'Spitzer IRAC BCD': ([
        primary(SKY[0], INSTRUME='IRAC', CHNLNUM=1, BUNIT='MJy/sr'),
        hdu(bits(2**14, 2**13, 2**9, 2, 2**12, 2**13 + 8), 'IMASK')],
        ('IRAC1',), 'MJy/sr', None, [0, 2, 5], None),
    'ZTF': ([
        primary(SKY[0], INSTRUME='ZTF/MOSAIC', FILTER='ZTF_r'),
        hdu(bits(2, 256, 1, 2048, 512, 1024), 'MASK')],
        ('r',), None, None, [2, 4, 5], None),
    'Pan-STARRS stack and its mask': ([
        primary(), hdu(2.5 * np.log10(np.e) * np.arcsinh(
            SKY[0].astype(float) / 200), 'SCI', BSOFTEN=100.0, BOFFSET=0.0,
            **{'FPA.FILTERID': 'i.00000'}),
        hdu(bits(8, 32, 256, 0x1000, 1), 'MASK')],
        ('i',), None, None, [0, 2, 4], None),
    'chip numbers of two kinds': ([
        primary(FILTER='z'),
        hdu(SKY[0], 'SCI', CCDNUM=1.0), hdu(SKY[1], 'SCI', CCDNUM=2.0),
        hdu(const(7), 'RMS', CCDNUM=2), hdu(const(2), 'RMS', CCDNUM=1)],
        ('z',), None, 2, [], None),
    'chips in another order': ([
        primary(FILTER='z'), hdu(const(7), 'ERR', 1), hdu(bits(0, 1), 'DQ', 3),
        hdu(SKY[0], 'SCI', 3), hdu(const(2), 'ERR', 3),
        hdu(SKY[1], 'SCI', 1), hdu(bits(1), 'DQ', 1)],
        ('z',), None, 2, [1], None),
    'confidence map': ([
        primary(FILTER='K', INSTRUME='WFCAM'), hdu(SKY[0], 'SCI'),
        hdu(bits(0, dtype='i2', fill=100), 'CONF')],
        ('K',), None, None, [0], None),
    'Spitzer IRAC': ([
        primary(SKY[0], INSTRUME='IRAC', CHNLNUM=4, BUNIT='MJy/sr', **wcs())],
        ('IRAC4',), 'MJy/sr', None, [], 'icrs'),
    'radio': ([
        primary(SKY[:1, None], BUNIT='JY/BEAM', **wcs(
            'RA---SIN', 'DEC--SIN', CTYPE3='FREQ', CTYPE4='STOKES',
            CRVAL3=1.4e9, CRVAL4=1.0, CDELT3=1e6, CDELT4=1.0))],
        ('band0',), 'Jy/beam', None, [], 'icrs'),
    'SDSS frame': ([
        primary(SKY[0], FILTER='r', BUNIT='nanomaggy', **wcs()),
        hdu(np.ones(N)), fits.BinTableHDU.from_columns([])],
        ('r',), 'nmgy', None, [], 'icrs'),
    'Legacy Surveys cutout': ([
        primary(SURVEY='legacysurvey'),
        hdu(SKY[0], BAND='z', IMAGETYP='image', **wcs()),
        hdu(const(0.25), BAND='z', IMAGETYP='invvar'),
        hdu(SKY[1], BAND='g', IMAGETYP='image', **wcs()),
        hdu(const(0.25), BAND='g', IMAGETYP='invvar')],
        ('g', 'z'), None, 2, [], 'icrs'),
    'bands with one mask': ([
        primary(), hdu(SKY[0], FILTER='g'), hdu(SKY[1], FILTER='r'),
        hdu(bits(0, 1), 'MASK')], ('g', 'r'), None, None, [1], None),
    'cube with one mask': ([
        primary(SKY[:3], BANDS='grz'), hdu(bits(0, 1), 'MASK'),
        hdu(const(2), 'ERR')], ('g', 'r', 'z'), None, 2, [1], None),
    'what primary headers tell': ([
        primary(BUNIT='DN/S', FILTER='J', **wcs('GLON-TAN', 'GLAT-TAN')),
        hdu(SKY[0], 'SCI')], ('J',), 'DN/s', None, [], 'galactic'),
}


@pytest.mark.parametrize('name', LAYOUTS)
def test_layout(tmp_path, name):
    hdus, bands, unit, noise, bad, frame = LAYOUTS[name]
    if not isinstance(hdus[0], fits.PrimaryHDU):
        hdus = [fits.PrimaryHDU(), *hdus]
    path = tmp_path / 'file.fits'
    fits.HDUList(hdus).writeto(path)
    images = [one for one in hdus if np.shape(one.data) == (N, N)
              and abs(one.data.mean() - 20) < 2]
    several = len(images) > len(bands)
    if several:
        with pytest.warns(AstroDinoUserWarning, match='1 further images'):
            image = as_image(path)
    else:
        image = as_image(path)
    check_promises(image)
    assert image.bands == bands
    assert image.unit == (None if unit is None else u.Unit(unit))
    expected = SKY[:len(bands)]
    if name == 'Legacy Surveys cutout':
        expected = expected[::-1]
    valid = ~image.mask
    assert_allclose(image.cube[valid], expected.reshape(valid.shape)[valid])
    for mask in image.mask:
        assert_array_equal(np.flatnonzero(mask), bad)
    if noise is None:
        assert image.noise is None
    else:
        assert_allclose(image.noise, noise)
    if frame is None:
        assert image.wcs is None
    else:
        assert image.sky(19.5, 19.5).frame.name == frame


def test_table_of_pipelines():
    """Each has words for people, and says where it is written."""
    for one in PIPELINES:
        assert one.name
        assert one.planes
        assert one.source
    words = ' '.join(ROLES.values()).split()
    assert len(set(words)) == len(words)


def test_page_of_pipelines():
    """The page in the documentation is made of the table of today."""
    folder = Path(__file__).parents[1] / 'docs' / 'using' / 'files'
    made = runpy.run_path(folder / 'layouts.py')['tables']()
    assert (folder / 'layouts.txt').read_text() == made


# --------------------------------------------------- what cannot be decided
@pytest.mark.parametrize('extras', [
    [hdu(bits(1), 'DQ')], [hdu(bits(1), 'DQ'), hdu(bits(2), 'DQ')]])
def test_ambiguous(extras):
    hdus = fits.HDUList([primary(), hdu(SKY[0], 'SCI', FILTER='r'),
                         hdu(SKY[1], 'SCI', FILTER='r'), *extras])
    with pytest.raises(ValueError, match=r'cannot be told which image HDU 3 '
                       r'\(DQ,1\).* belongs to; the planes are 1 \(SCI,1\), '
                       r'2 \(SCI,1\), 3 \(DQ,1\)'):
        as_image(hdus)


def test_unknown_plane_is_named():
    hdus = fits.HDUList([primary(), hdu(SKY[0], 'SCI', FILTER='r'),
                         hdu(SKY[1], 'WHATEVER')])
    with pytest.warns(AstroDinoUserWarning, match=r'2 \(WHATEVER,1\), which '
                      'is of no known kind'):
        assert as_image(hdus).n_bands == 1


@pytest.mark.parametrize('value', [np.nan, 0, -1])
def test_useless_noise(value):
    hdus = fits.HDUList([primary(), hdu(SKY[0], 'SCI'),
                         hdu(const(value), 'ERR')])
    with pytest.warns(AstroDinoUserWarning, match=r'2 \(ERR,1\), in which no '
                      'pixel is positive'):
        image = as_image(hdus)
    assert image.noise is None
    assert not image.mask.any()


# -------------------------------------------------------------------- units
@pytest.mark.parametrize(('text', 'unit'), [
    ('JY/BEAM', 'Jy/beam'), ('Jy/bm', 'Jy/beam'), ('MJY/SR', 'MJy/sr'),
    ('mJy/beam', 'mJy/beam'), ('K', 'K'), ('DN/S', 'DN/s'),
    ('DN/sec', 'DN/s'), ('counts/s', 'count/s'), ('ELECTRONS', 'electron'),
    ('e-/s', 'electron/s'), ('electrons/sec', 'electron/s'), ('ADU', 'adu'),
    ('nanomaggies', 'nmgy'), ('erg/s/cm^2/Angstrom', 'erg / (s cm2 Angstrom)'),
    ('1e-17 erg/cm^2/s/Ang', '1e-17 erg / (s cm2 Angstrom)'), ('nJy', 'nJy'),
    ('Jy/pixel', 'Jy/pix'), ('10.0*nanoJansky', '10 nJy'),
    ('W m-2 sr-1', 'W m-2 sr-1'), ('uJy', 'uJy'), ('MJy sr-1', 'MJy/sr'),
    ('Mjy/sr', 'MJy/sr'), ('Mjy.sr-1', 'MJy/sr'), ('mJY/beam', 'mJy/beam'),
    ('JY/B', 'Jy/beam'), ('e/s', 'electron/s'), ('E-/S', 'electron/s'),
    ('CPS', 'count/s'), ('cps/pix', 'count/(s pix)'), ('K (Ta*)', 'K'),
    ('Jy/beam.km/s', 'Jy km/(beam s)'), ('JY/BEAM KM/S', 'Jy km/(beam s)'),
    ('1E-20 erg/s/cm2/A', '1e-20 erg / (s cm2 Angstrom)'),
    ('10^-17 ergs/s/cm^2/A', '1e-17 erg / (s cm2 Angstrom)'),
    ('ADU/sec', 'adu/s'), ('electron s-1', 'electron/s')])
def test_units(text, unit):
    assert as_image(primary(SKY[0], BUNIT=text)).unit == u.Unit(unit)


def test_units_of_what_is_not_linear():
    for text in ('mag', 'mag/arcsec2'):
        with pytest.raises(ValueError, match='a linear unit is needed'):
            as_image(primary(SKY[0], BUNIT=text))


@pytest.mark.parametrize('text', ['none', 'UNITLESS', '', '1'])
def test_no_unit(text):
    assert as_image(primary(SKY[0], BUNIT=text)).unit is None


def test_unread_unit():
    with pytest.warns(AstroDinoUserWarning, match="BUNIT = 'furlong/bee'"):
        assert as_image(primary(SKY[0], BUNIT='furlong/bee')).unit is None


@pytest.mark.parametrize(('text', 'factor'), [
    ('JY/BEAM', 1), ('MJY/SR', 1), ('K', 1), ('mK', 1), ('DN/S', 4 / 16),
    ('adu', 4 / 16)])
def test_brightness_is_interpolated(text, factor):
    def band(n, scale, name):
        keys = wcs(CRPIX1=(n + 1) / 2, CRPIX2=(n + 1) / 2, CDELT1=-scale,
                   CDELT2=scale)
        return primary(np.full((n, n), 7, 'f4'), BUNIT=text, FILTER=name,
                       **keys)

    image = as_image([band(40, 1e-4, 'J'), band(20, 2e-4, 'H')])
    assert_allclose(image.cube[1][~image.mask[1]], 7 * factor, rtol=1e-4)


@pytest.mark.parametrize(('name', 'unit', 'value'), [
    ('ERR', 'mJy', 3000), ('ERR', 'Jy', 3), ('ERR', None, 3),
    ('VAR', 'mJy2', 9e6), ('VAR', 'Jy', 9), ('IVAR', 'mJy-2', 1 / 9e6)])
def test_unit_of_the_noise(name, unit, value):
    keys = {} if unit is None else {'BUNIT': unit}
    image = as_image(fits.HDUList([
        primary(), hdu(SKY[0], 'SCI', BUNIT='Jy'),
        hdu(const(value, 'f8'), name, **keys)]))
    assert_allclose(image.noise, 3, rtol=1e-6)


def test_noise_in_a_foreign_unit():
    with pytest.warns(AstroDinoUserWarning, match='whose unit electron cann'):
        image = as_image(fits.HDUList([
            primary(), hdu(SKY[0], 'SCI', BUNIT='electron/s'),
            hdu(const(3), 'ERR', BUNIT='ELECTRONS')]))
    assert image.noise is None


# ------------------------------------------------------------------- frames
@pytest.mark.parametrize(('keys', 'frame', 'icrs'), [
    (wcs('ELON-TAN', 'ELAT-TAN'), 'icrs', (52.4222, 39.6062)),
    (wcs('GLON-TAN', 'GLAT-TAN', RADESYS='FK5'), 'galactic',
     (288.6, 45.7)),
    (wcs('SLON-TAN', 'SLAT-TAN'), 'supergalactic', None),
    (wcs(RADESYS='FK5', EQUINOX=1975.0), 'fk5', (60.37, 20.07)),
    (wcs(RADESYS='FK4', EQUINOX=1950.0), 'fk4', (60.73, 20.14)),
    (wcs(RADESYS='FK4-NO-E', EQUINOX=1950.0), 'fk4noeterms', (60.73, 20.14)),
    (wcs(), 'icrs', (60, 20))])
def test_frames(keys, frame, icrs):
    image = as_image(primary(SKY[0], **keys))
    sky = image.sky(19.5, 19.5)
    assert sky.frame.name == frame
    if frame == 'galactic':
        assert_allclose((sky.l.deg, sky.b.deg), (60, 20))
    elif icrs is not None:
        assert_allclose((sky.icrs.ra.deg, sky.icrs.dec.deg), icrs, atol=0.02)
    written = ds9_positions(image, 19.5, 19.5)
    assert written.frame.name in ('icrs', 'fk5', 'fk4', 'galactic')
    assert written.separation(sky).arcsec < 1e-3
    assert getattr(written, 'equinox', None) in (
        None, 'J2000', 'B1950') or written.frame.name == 'icrs'


@pytest.mark.parametrize('axes', [
    ('HPLN-TAN', 'HPLT-TAN'), ('MALN-TAN', 'MALT-TAN'),
    ('XXLN-TAN', 'XXLT-TAN'), ('TLON-TAN', 'TLAT-TAN'),
    ('RA---TAN', 'DEC--TAN')])
def test_no_frame(axes):
    image = as_image(primary(SKY[0], **wcs(*axes, RADESYS='GAPPT')))
    assert image.wcs is not None
    assert image.sky(3, 4) is None
    assert ds9_positions(image, [1, 2], [3, 4]) is None


def test_frames_that_do_not_mix():
    with pytest.raises(ValueError, match='coordinates are ELON, RA--'):
        as_image({'g': primary(SKY[0], **wcs()),
                  'r': primary(SKY[1], **wcs('ELON-TAN', 'ELAT-TAN'))})


# ------------------------------------------------------------------- pixels
@pytest.mark.parametrize('fill', [0, -9999, 99, 65535, np.float32(-1e30)])
@pytest.mark.parametrize('sky', [0, 50])
def test_fill(fill, sky):
    data = np.random.default_rng(1).normal(sky, 1, (2, 96, 96))
    expected = np.zeros(data.shape, bool)
    y, x = np.mgrid[:96, :96]
    expected[1] = x + y / 2 > 90
    data[expected] = fill
    with pytest.warns(AstroDinoUserWarning, match='of band 1 .all'):
        image = as_image(data)
    assert_array_equal(image.mask, expected)


@pytest.mark.parametrize('rate', [0.001, 0.02, 0.3, 4])
def test_photons_are_no_fill(rate):
    data = np.random.default_rng(1).poisson(rate, (96, 96))
    assert not as_image(data).mask.any()


def test_saturation_and_pictures_are_no_fill():
    rng = np.random.default_rng(1)
    star = rng.normal(900, 30, (96, 96)).astype('u2')
    star[30:60, 30:60] = 65535
    y, x = np.mgrid[:96, :96]
    picture = np.clip(200 * np.exp(-np.hypot(x - 50, y - 50) / 9) - 9
                      + rng.normal(size=x.shape), 0, 255).astype('u1')
    # at the border, with wings and a trail
    bright = np.minimum(1e5 * np.exp(-np.hypot(x - 50, y) / 9) + star, 65535)
    bright[:, 49:51] = 65535
    half = np.minimum(star, 6e4).astype('f2')
    for data in (star, bright, half, picture, np.zeros((96, 96)),
                 (x // 20 + y // 20) % 2 * 100.0):
        assert not as_image(data).mask.any()


@pytest.mark.parametrize(('pedestal', 'dtype'), [
    (1e5, 'f8'), (1e8, 'f8'), (-3e7, 'f8'), (2**30, 'i8'), (2**30, 'i4')])
def test_pedestal(pedestal, dtype):
    rng = np.random.default_rng(1)
    data = (100 * rng.normal(size=(2, 40, 40))).astype(dtype)
    if dtype == 'f8':
        data /= 100
    with pytest.warns(AstroDinoUserWarning, match='which is subtracted'):
        image = as_image((data + np.array(pedestal, dtype)).astype(dtype))
    for plane, one, whole in zip(image.cube, image.pedestal, data):
        assert_allclose(plane + (one - pedestal), whole, atol=1e-4)
    assert as_image(SKY).pedestal == (0, 0, 0, 0)


@pytest.mark.parametrize('unit', ['MJy/sr', 'Jy'])
def test_pedestal_on_the_whole_sky(unit):
    # many of the new pixels are off the sky, where they have no area
    data = 1e8 + np.random.default_rng(1).normal(size=(40, 40))
    old = primary(data, BUNIT=unit, **wcs(CDELT1=-1.0, CDELT2=1.0))
    new = WCS(naxis=2)
    new.wcs.ctype = ['RA---AIT', 'DEC--AIT']
    new.wcs.cdelt = -3, 3
    new.wcs.crval = 60, 0
    new.wcs.crpix = 61, 31
    new.array_shape = 61, 121
    with pytest.warns(AstroDinoUserWarning, match='which is subtracted'):
        image = as_image({'g': old}, reference=new)
    # pixels of 9 square degrees in place of one
    expected = 1e8 if unit == 'MJy/sr' else 9e8
    assert_allclose(image.pedestal, expected, rtol=0.25)


def test_too_large():
    with pytest.raises(ValueError, match='too large for single precision'):
        as_image(SKY.astype(float) * 1e40)
    with pytest.raises(ValueError, match='too large for single precision'):
        as_image(SKY.astype('f4') * np.float32(1e35))


def test_no_softening():
    image = as_image(primary(SKY[0], BSOFTEN=0.0, BOFFSET=0.5))
    assert_array_equal(image.cube[0], SKY[0])


def test_mask_of_good_pixels():
    with pytest.warns(AstroDinoUserWarning, match=r'2 \(MASK,1\) of .* marks '
                      '99.9% .* hand in mask='):
        as_image(fits.HDUList([primary(), hdu(SKY[0], 'SCI'),
                               hdu(bits(0, fill=1), 'MASK')]))


def test_asinh_of_panstarrs():
    flux = SKY[0].astype(float) * 10
    alpha = 2.5 * np.log10(np.e)
    image = as_image(primary(alpha * np.arcsinh((flux - 0.5) / 200),
                             BSOFTEN=100.0, BOFFSET=0.5,
                             **{'FPA.FILTERID': 'r.00000'}))
    assert_allclose(image.cube[0], flux, rtol=1e-5)
    assert image.bands == ('r',)


@pytest.mark.parametrize('shape', [(96, 80, 5), (96, 96, 9), (300, 300, 40),
                                   (100, 100, 64)])
def test_bands_last(shape):
    with pytest.raises(ValueError, match=r'looks like \(y, x, band\)'):
        as_image(np.ones(shape))


@pytest.mark.parametrize(('data', 'error', 'cure'), [
    ('https://a.b/c.fits', ValueError, 'download the file first'),
    (Path('gs://a.b/c.fits'), ValueError, 'download the file first'),
    (SKY.astype(complex), TypeError, r'numpy.abs\(data\) is real'),
    (SKY > 20, TypeError, r'data.astype\(float\) is one')])
def test_cures(data, error, cure):
    with pytest.raises(error, match=cure):
        as_image(data)


def test_more_cures(tmp_path):
    with pytest.raises(TypeError, match=r'astropy.wcs.WCS\(header\) makes'):
        as_image(SKY, wcs=WCS(wcs()).to_header())
    for start, what in ((b'\x89PNG\r\n', 'PNG'), (b'#ASDF 1.0', 'ASDF'),
                        (b'II*\x00', 'JPEG, GIF or TIFF'),
                        (b'\x89HDF', 'HDF5'), (b'<html>', 'web page')):
        path = tmp_path / 'x.fits'
        path.write_bytes(start + b' ' * 100)
        with pytest.raises(ValueError, match=f'it is an? {what}'):
            as_image(path)
