# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the datasets package: positions from coordinates and tables.
"""

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import MaskedColumn, QTable, Table
from numpy.testing import assert_allclose

from astrodino_seg.datasets.tables import (
    as_table,
    pixel_positions,
    read_positions,
)

RA, DEC = np.array([10.5, 359.9]), np.array([-45.0, 89.5])
COORDS = SkyCoord(RA, DEC, unit='deg')
MISSING = MaskedColumn([1.0, 2.0], mask=[False, True])


@pytest.mark.parametrize('positions', [
    COORDS, COORDS.galactic, COORDS.fk5,
    Table({'ra': RA, 'dec': DEC}), Table({'RA': RA, 'Dec': DEC}),
    Table({'coord': COORDS.galactic}),
    QTable({'ra': RA * u.deg, 'dec': DEC * u.deg}),
    QTable({'ra': (RA / 15) * u.hourangle, 'dec': (60 * DEC) * u.arcmin}),
    Table({'dec': MaskedColumn(DEC), 'ra': MaskedColumn(RA)})])
def test_positions(positions):
    table = read_positions(positions)
    assert table.colnames == ['ra', 'dec']
    assert_allclose(table['ra'], RA)
    assert_allclose(table['dec'], DEC)


def test_other_columns_stay(tmp_path):
    table = Table({'name': ['a', 'b'], 'RA': [1, 2], 'DEC': [3, 4]})
    table.write(tmp_path / 'list.csv')
    for source in (table, tmp_path / 'list.csv', str(tmp_path / 'list.csv')):
        read = read_positions(source)
        assert read.colnames == ['ra', 'dec', 'name']
        assert read['name'].tolist() == ['a', 'b']
        assert read['dec'].tolist() == [3, 4]
    assert table.colnames == ['name', 'RA', 'DEC']


def test_one_position():
    assert len(read_positions(SkyCoord(1, 2, unit='deg'))) == 1


def test_negative_right_ascension():
    assert read_positions(Table({'ra': [-0.5], 'dec': [0]}))['ra'] == 359.5


@pytest.mark.parametrize(('positions', 'match'), [
    (COORDS[:0], 'positions are empty'),
    (Table({'ra': [], 'dec': []}), 'positions are empty'),
    (Table({'x': [1]}), r'no columns ra and dec; it has \[.x.\]'),
    (Table({'ra': [1.0], 'dec': [91.0]}), 'Latitude'),
    (Table({'ra': ['10:00:00'], 'dec': ['1:00:00']}), 'ra must be in degree'),
    (Table({'ra': [1.0, np.nan], 'dec': [1.0, 2.0]}),
     '1 of 2 are missing or not finite, the first in row 1'),
    (Table({'ra': MISSING, 'dec': [1.0, 2.0]}),
     '1 of 2 are missing or not finite, the first in row 1')])
def test_bad_positions(positions, match):
    with pytest.raises(ValueError, match=match):
        read_positions(positions)


def test_bad_types(tmp_path):
    with pytest.raises(TypeError, match='positions must be .*, got tuple'):
        read_positions((1, 2))
    with pytest.raises(FileNotFoundError, match='no such file'):
        read_positions(tmp_path / 'none.csv')
    (tmp_path / 'bad.fits').write_text('no table')
    with pytest.raises(ValueError, match='cannot be read as a table'):
        read_positions(tmp_path / 'bad.fits')


@pytest.mark.parametrize('names', [
    ('ALPHA_J2000', 'DELTA_J2000'), ('RAJ2000', 'DEJ2000'),
    ('RA_ICRS', 'DE_ICRS'), ('Ra', 'Dec'),
    ('sky_centroid.ra', 'sky_centroid.dec')])       # ours, as CSV has them
def test_names_of_programs(names):
    table = read_positions(Table(dict(zip(names, (RA, DEC)))))
    assert_allclose(table['ra'], RA)
    assert_allclose(table['dec'], DEC)


X, Y = np.array([20.0, 3]), np.array([50.0, 4])


@pytest.mark.parametrize(('names', 'first'), [
    (('x', 'y'), 0), (('X', 'Y'), 0), (('x_centroid', 'y_centroid'), 0),
    (('X_IMAGE', 'Y_IMAGE'), 1), (('XWIN_IMAGE', 'YWIN_IMAGE'), 1)])
def test_pixels(names, first):
    """By name, in whatever order, and of anything that has names."""
    pandas = pytest.importorskip('pandas')
    columns = {names[1]: Y + first, names[0]: X + first}
    array = np.array(list(zip(*columns.values())),
                     [(name, float) for name in columns])
    for source in (Table(columns), columns, array,
                   pandas.DataFrame(columns)):
        x, y = pixel_positions(as_table(source))
        assert_allclose(x, X)
        assert_allclose(y, Y)


@pytest.mark.parametrize('head', [
    'x y', '# x y', '# 1 X_IMAGE position [pixel]\n# 2 Y_IMAGE'])
def test_tables_of_text(tmp_path, head):
    """As SExtractor's, and others whose format is told by nothing."""
    first = 'X_IMAGE' in head
    path = tmp_path / 'some.cat'
    path.write_text(head + ''.join(
        f'\n{x + first} {y + first}' for x, y in zip(X, Y)))
    assert_allclose(pixel_positions(as_table(path)), (X, Y))


def test_no_names():
    assert as_table(np.zeros((3, 2))) is None
    assert pixel_positions(Table({'a': [1]})) is None


def test_ldac(tmp_path):
    """The first table of FITS_LDAC is a header in a cell."""
    hdus = [fits.PrimaryHDU(), fits.BinTableHDU(
        Table({'Field Header Card': [b'SIMPLE  =  T']}), name='LDAC_IMHEAD'),
        fits.BinTableHDU(Table({'X_IMAGE': X + 1, 'Y_IMAGE': Y + 1}),
                         name='LDAC_OBJECTS')]
    fits.HDUList(hdus).writeto(tmp_path / 'a.cat')
    assert_allclose(pixel_positions(as_table(tmp_path / 'a.cat')), (X, Y))
    fits.HDUList(hdus[:2]).writeto(tmp_path / 'b.cat')
    # cut off within its rows
    content = (tmp_path / 'a.cat').read_bytes()
    (tmp_path / 'c.cat').write_bytes(content[:-2880])
    for name in ('b.cat', 'c.cat'):
        with pytest.raises(ValueError, match='its LDAC_OBJECTS is missing or'):
            as_table(tmp_path / name)
