# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the bands module.
"""

import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astrodino_seg.errors import BandWarning
from astrodino_seg.image.filters import canonical, order_bands, wavelength


@pytest.mark.parametrize(('name', 'expected'), [
    ('g', 'g'), ('G', 'g'), ('z', 'z'), ('Z', 'Z'), ('y', 'y'), ('Y', 'Y'),
    ('j', 'J'), ('KS', 'Ks'), ('ks', 'Ks'), ('K', 'K'), ('K_s', 'Ks'),
    ('2MASS_Ks', 'Ks'), ('VISTA Z', 'Z'), ('HSC-G', 'g'), ('HSC-Y', 'y'),
    ('sdss_r', 'r'), ('SDSSr', 'r'), ('decam_g', 'g'), ("r'", 'r'),
    ('g DECam SDSS c0001 4720.0 1520.0', 'g'), ('z SDSS c6020', 'z'),
    ('g.MP9401', 'g'), ('g.00000', 'g'), ('f444w', 'F444W'),
    ('F444W', 'F444W'), ('f770w_80mas_sci', 'F770W'),
    ('ACS_WFC3_F160W', 'F160W'), ('NIR-Y', 'NIR_Y'), ('irac1', 'IRAC1'),
    ('NB0921', 'NB0921'), ('reprojected_sdss_i', 'i'), (' g ', 'g')])
def test_canonical(name, expected):
    assert canonical(name) == expected


@pytest.mark.parametrize('name', [
    '', 'band0', 'image', 'M51', '28', 'HST-HDFS', 'cluster_ring_grz',
    'hsc_ra=150.24071_dec=2.06514', None])
def test_unknown(name):
    assert canonical(name) is None
    assert wavelength(name) is None


# pivot or effective wavelengths in micron, from the instruments' handbooks
@pytest.mark.parametrize(('name', 'micron'), [
    ('sdss_u', 0.355), ('sdss_g', 0.469), ('des_r', 0.642), ('hsc_i', 0.77),
    ('ps1_z', 0.866), ('lsst_y', 0.971), ('V', 0.551), ('VISTA J', 1.252),
    ('2MASS Ks', 2.159), ('F435W', 0.433), ('F814W', 0.804),
    ('F098M', 0.986), ('F160W', 1.537), ('F070W', 0.704), ('F200W', 1.989),
    ('F480M', 4.817), ('F560W', 5.635), ('F2550W', 25.36), ('F184', 1.84),
    ('VIS', 0.715), ('NB816', 0.816)])
def test_wavelength(name, micron):
    assert wavelength(name) == pytest.approx(micron, rel=0.05)


def test_order():
    kids = ['Ks', 'u', 'H', 'g', 'J', 'r', 'Y', 'i', 'Z']
    assert ([kids[i] for i in order_bands(kids)]
            == ['u', 'g', 'r', 'i', 'Z', 'Y', 'J', 'H', 'Ks'])
    mixed = ['F770W', 'F115W', 'F606W', 'f444w', 'F160W']
    assert order_bands(mixed) == (2, 1, 4, 3, 0)
    assert order_bands(['r', 'sdss_r', 'g']) == (2, 0, 1)
    assert order_bands([]) == ()


def test_order_unknown():
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert order_bands(['band1', 'band0']) == (0, 1)
    with pytest.warns(BandWarning, match=r"\['odd'\] are not known"):
        assert order_bands(['z', 'odd', 'g']) == (0, 1, 2)


@settings(deadline=None, max_examples=50)
@given(st.text(max_size=12))
def test_any_name(name):
    short = canonical(name)
    if short is None:
        assert wavelength(name) is None
    else:
        assert 0.1 < wavelength(name) < 30
        assert canonical(short) == short
        assert wavelength(short) == wavelength(name)


@settings(deadline=None, max_examples=50)
@given(st.permutations(['u', 'g', 'F115W', 'f444w', 'Ks', 'F770W']))
def test_any_order(names):
    order = order_bands(names)
    assert ([names[i] for i in order]
            == ['u', 'g', 'F115W', 'Ks', 'f444w', 'F770W'])
