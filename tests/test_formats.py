# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests of results in the forms of other programs, each read by the other.
"""

import shutil
import textwrap
import warnings
from pathlib import Path

import astropy.units as u
import numpy as np
import pytest
from astropy.io.votable import parse, validate
from astropy.io.votable.ucd import check_ucd
from astropy.io.votable.xmlutil import validate_schema
from astropy.nddata import CCDData
from astropy.table import QTable, Table
from helpers import blobs
from numpy.testing import assert_allclose, assert_array_equal
from photutils.aperture import CircularAperture
from photutils.segmentation import SourceCatalog
from regions import PolygonPixelRegion, PolygonSkyRegion
from scipy import ndimage
from shapely.geometry import Point

from astrodino_seg import DinoSegmenter, as_image
from astrodino_seg.catalog import FLAGS
from astrodino_seg.formats import (
    lsst_table,
    sextractor_table,
    to_moc,
    to_nddata,
    to_regions,
    to_votable,
)


@pytest.fixture(scope='module')
def image():
    plain = blobs(slice(6, 102), slice(8, 104))
    return as_image(plain.cube * u.nJy, wcs=plain.wcs, bands=plain.bands)


@pytest.fixture(scope='module')
def result(image):
    return DinoSegmenter().segment(image)


def bare(result):
    """The same of one band without a unit and a WCS."""
    return DinoSegmenter().segment(result.image.cube[1])


@pytest.mark.parametrize('sky', [True, False])
def test_regions_out_and_in(result, sky):
    """Drawn again, they are the labels; only holes are filled."""
    regions = to_regions(result, sky=sky)
    kind = PolygonSkyRegion if sky else PolygonPixelRegion
    assert {type(one) for one in regions} == {kind}
    labels = result.segmentation_image.data
    assert len({one.meta['text'] for one in regions}) == len(result.table)
    for one in regions:
        label = int(one.meta['text'].split()[0])
        if sky:
            one = one.to_pixel(result.image.wcs)
        inside = one.to_mask(mode='center').to_image(labels.shape) > 0
        island = ndimage.binary_fill_holes(labels == label)
        assert (island & inside).sum() >= 0.99 * inside.sum()
    # and in, as edits
    regions = list(regions)
    biggest = max(regions, key=lambda one: len(one.vertices.ra) if sky
                  else len(one.vertices.x))
    label = int(biggest.meta['text'].split()[0])
    biggest.meta['text'] = 'star'
    drawn = result.edit(biggest)
    assert drawn.table['class'][-1] == 'star'
    own = labels == label
    assert (drawn.segmentation_image.data == len(drawn.table))[
        own].mean() > 0.9


def test_polygons(result):
    """photutils' own outlines, of shapely."""
    segm = result.segmentation_image
    for polygon, label, area in zip(segm.polygons, segm.labels, segm.areas):
        assert polygon.area == area
        y, x = np.argwhere(segm.data == label)[0]
        assert polygon.buffer(1e-6).covers(Point(x, y))


def test_moc(image):
    mocpy = pytest.importorskip('mocpy')
    moc = to_moc(image)
    assert isinstance(moc, mocpy.MOC)
    ny, nx = image.shape
    inside = image.sky(*np.random.default_rng(1).uniform(4, 91, (2, 200)))
    assert moc.contains_skycoords(inside.icrs).all()
    outside = image.sky([-30, 130, 40], [40, 50, -30]).icrs
    assert not moc.contains_skycoords(outside).any()
    area = image.wcs.proj_plane_pixel_area() * ny * nx
    assert_allclose(moc.sky_fraction * 4 * np.pi,
                    area.to_value(u.sr), rtol=0.2)
    coarse = to_moc(image, max_order=10)
    assert coarse.max_order == 10
    # what no band has is not covered
    mask = np.zeros(image.cube.shape, bool)
    mask[:, :, :48] = True
    half = to_moc(as_image(image, mask=mask))
    assert half.sky_fraction < 0.65 * moc.sky_fraction
    with pytest.raises(ValueError, match='no WCS'):
        to_moc(as_image(image.cube))


def test_nddata(image, tmp_path):
    """What goes out comes in as it was, with noise, mask and WCS."""
    mask = np.zeros(image.cube.shape, bool)
    mask[1, 10:20, 10:20] = True
    image = as_image(image, mask=mask, error=2 * u.nJy)
    again = as_image(to_nddata(image))
    for name in ('cube', 'mask', 'noise'):
        assert_array_equal(getattr(again, name), getattr(image, name))
    assert (again.bands, again.unit) == (image.bands, u.nJy)
    assert again.wcs.wcs.compare(image.wcs.wcs)
    # one band by a file
    data = to_nddata(image, 'r')
    assert isinstance(data, CCDData)
    data.write(tmp_path / 'r.fits')
    for source in (CCDData.read(tmp_path / 'r.fits'), tmp_path / 'r.fits'):
        band = as_image(source)
        assert_array_equal(band.cube[0], image.cube[1])
        assert_array_equal(band.mask[0], image.mask[1])
        assert_array_equal(band.noise[0][~band.mask[0]], 2)
        assert (band.bands, band.unit) == (('r',), u.nJy)
        assert_allclose(band.wcs.wcs.crpix, image.wcs.wcs.crpix)
    assert to_nddata(as_image(image.cube[:1]), 'band0').unit == ''
    with pytest.raises(ValueError, match="one of .*, got 'K'"):
        to_nddata(image, 'K')


def test_sextractor_columns(result):
    table, ours = sextractor_table(result), result.table
    assert_array_equal(table['NUMBER'], ours['label'])
    # the first pixel is 1, as FITS and its WCS count
    assert_allclose(result.image.wcs.all_world2pix(np.stack([
        table['ALPHA_J2000'].value, table['DELTA_J2000'].value], 1), 1).T,
        [table['X_IMAGE'].value, table['Y_IMAGE'].value], atol=1e-4)
    for row, box in zip(table, ndimage.find_objects(
            result.segmentation_image.data)):
        assert row['YMIN_IMAGE'].value == box[0].start + 1
        assert row['XMAX_IMAGE'].value == box[1].stop
    assert_array_equal(table['FLUX_ISO_r'], ours['flux_r'])
    assert_array_equal(table['FLUXERR_AUTO_z'], ours['total_flux_err_z'])
    assert table['FLUX_AUTO_g'].unit == u.nJy
    for name, bit in (('edge', 8), ('blended', 2), ('saturated', 4)):
        assert_array_equal(table['FLAGS'] & bit > 0,
                           ours['flags'] & FLAGS[name] > 0)
    assert_array_equal(table['CLASS_STAR'], ours['p_star'])
    plain = sextractor_table(bare(result))
    assert {'FLUX_ISO', 'FLUXERR_ISO', 'FLUX_AUTO'} <= set(plain.colnames)
    assert 'ALPHA_J2000' not in plain.colnames


def test_lsst_columns(result):
    table, n = lsst_table(result), len(result.table)
    assert table.colnames == [*result.table.colnames, 'parent', 'nChild',
                              'isPrimary']
    primary, blends = table[table['isPrimary']], table[~table['isPrimary']]
    assert_array_equal(primary['label'], result.table['label'])
    assert_array_equal(primary['flux_r'], result.table['flux_r'])
    assert (primary['nChild'] == 0).all()
    assert (blends['parent'] == 0).all()
    assert_array_equal(primary['parent'] > 0,
                       result.table['flags'] & FLAGS['blended'] > 0)
    assert len(blends) > 0
    assert_array_equal(blends['label'], np.arange(n + 1, n + 1 + len(blends)))
    for row in blends:
        children = primary[primary['parent'] == row['label']]
        assert len(children) == row['nChild'] > 1
        for name in ('area', 'flux_g', 'flux_i'):
            assert_allclose(row[name].value, children[name].value.sum(),
                            rtol=1e-4)
        assert row['class'] == ''
    # touching labels alone are a blend
    apart = result.edit(delete=result.table['label'][2:].tolist())
    labels = apart.segmentation_image.data
    touch = (ndimage.grey_dilation(labels, (3, 3)) > labels) & (labels > 0)
    assert (len(lsst_table(apart)) == 3) == bool(touch.any())


@pytest.mark.parametrize('form', [lambda one: one.table, sextractor_table,
                                  lsst_table])
def test_votable(result, tmp_path, form):
    """Valid, and read as it was."""
    path = str(tmp_path / 'catalog.vot')
    table = form(result)
    to_votable(table).to_xml(path)
    with open(tmp_path / 'report.txt', 'w') as report:
        assert validate(path, report), (
            tmp_path / 'report.txt').read_text()
    if shutil.which('xmllint'):
        assert validate_schema(path, '1.4')[0] == 0
    file = parse(path, verify='exception')
    fields = file.get_first_table().fields
    for field in fields:
        check_ucd(field.ucd, check_controlled_vocabulary=True)
    assert {one.name for one in fields if one.ref == 'sky'} == {
        one.name for one in fields if one.ucd and 'pos.eq' in one.ucd} != set()
    system, = file.resources[0].coordinate_systems
    assert (system.ID, system.system) == ('sky', 'ICRS')
    again = Table.read(path)
    assert len(again) == len(table)
    for name in set(table.colnames) - {'sky_centroid', 'class'}:
        assert_array_equal(np.ma.filled(again[name], np.nan)
                           if again[name].dtype.kind == 'f' else again[name],
                           u.Quantity(table[name]).value
                           if table[name].dtype.kind == 'f' else table[name])
    if 'sky_centroid' in table.colnames:
        assert_allclose(again['ra'], table['sky_centroid'].icrs.ra.deg)
        assert again['ra'].meta['ucd'] == 'pos.eq.ra;meta.main'
        assert again['flux_r'].unit == u.nJy
    # a unit that is not of the standard is told in words
    table = QTable({'flux_r': [1.0] * u.Unit('nmgy')})
    to_votable(table).to_xml(path)
    parse(path, verify='exception')
    assert 'nmgy' in Table.read(path)['flux_r'].description


def test_measuring_more(result):
    """The block of the page, with sep, statmorph and photutils."""
    pytest.importorskip('statmorph')
    pytest.importorskip('sep')
    page = Path(__file__).parents[1] / 'docs' / 'using' / 'files.rst'
    block = page.read_text().split('code-block:: python\n')[-1].split(
        '    Shapes')[0]
    names = {'result': result}
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')     # statmorph, of faint labels
        exec(textwrap.dedent(block), names)
    segm, labels = names['segm'].data, names['segm'].labels
    for label, x, y, flux in zip(labels, names['x'], names['y'],
                                 names['flux']):
        circle = CircularAperture((x, y), 5)
        other = (segm > 0) & (segm != label)
        part = circle.do_photometry(
            np.ones(segm.shape), mask=other)[0][0] / circle.area
        if x + 5 < segm.shape[1] and y + 5 < segm.shape[0] and min(x, y) > 5:
            # sep scales what is left up to the whole circle
            assert_allclose(flux * part, circle.do_photometry(
                names['data'], mask=other)[0][0], rtol=0.05)
    assert [one.label for one in names['morphology']] == labels.tolist()
    one = names['morphology'][names['k']]
    catalog = SourceCatalog(names['data'], names['segm'])[names['k']]
    assert_allclose([one.xc_centroid, one.yc_centroid],
                    [catalog.x_centroid, catalog.y_centroid], atol=2)
    assert_allclose(names['petrosian_radius'], one.rpetro_circ, rtol=0.2)
