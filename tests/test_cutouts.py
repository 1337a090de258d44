# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the cutouts module.
"""

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import (
    BaseCoordinateFrame,
    SkyCoord,
    UnitSphericalRepresentation,
)
from astropy.nddata import Cutout2D
from astropy.table import QTable, Table
from helpers import check_promises, make_wcs
from numpy.testing import assert_allclose, assert_array_equal
from photutils.segmentation import SegmentationImage

from astrodino_seg.embed import cutouts, label_cutouts
from astrodino_seg.embed.cutout import FLAGS
from astrodino_seg.formats import to_votable
from astrodino_seg.image import as_image, in_icrs

SHAPE = (40, 50)
CUBE = np.random.default_rng(1).normal(size=(2, *SHAPE)).astype(np.float32)


@pytest.fixture
def image():
    mask = np.zeros(CUBE.shape, bool)
    mask[0, 20, 20] = True
    return as_image(CUBE, bands='gr', mask=mask, error=np.abs(CUBE) + 1,
                    wcs=make_wcs(shape=SHAPE))


@pytest.mark.parametrize('size', [1, 7, 8, (6, 11)])
@pytest.mark.parametrize('position', [(20, 20), (20.4, 19.6), (0, 0),
                                      (49.5, 39.4), (3, 38), (-0.49, 7)])
def test_pixels(image, position, size):
    # photutils and astropy users know the same cutout from Cutout2D
    one = cutouts(image, [position], size)
    got = one[0]
    check_promises(got)
    assert got.shape == tuple(np.broadcast_to(size, 2))
    assert got.bands == ('g', 'r')
    for b in range(2):
        wanted = Cutout2D(np.where(image.mask[b], np.nan, image.cube[b]),
                          position, size, mode='partial', fill_value=np.nan)
        assert_array_equal(got.mask[b], np.isnan(wanted.data))
        good = ~got.mask[b]
        assert_array_equal(got.cube[b][good], wanted.data[good])
        noise = Cutout2D(image.noise[b], position, size, mode='partial',
                         fill_value=np.nan)
        inside = np.isfinite(noise.data)
        assert_array_equal(got.noise[b][inside], noise.data[inside])
        strict = inside.all()
    assert (one.table['flags'][0] == 0) == strict
    assert one.table['flags'][0] in (0, FLAGS['edge'])


def test_off_the_image(image):
    some = cutouts(image, [(10, 10), (-0.5, 10), (10, 39.6), (np.nan, 3),
                           (49.6, 1), (1e9, -1e9)], 5)
    off = FLAGS['off_image']
    assert_array_equal(some.table['flags'], [0, off, off, off, off, off])
    assert some[0].shape == (5, 5)
    assert [one is None for one in some] == [False] + 5 * [True]


def test_sky(image):
    x, y = np.array([3.0, 30.2]), np.array([7.0, 20.4])
    coords = image.wcs.pixel_to_world(x, y)
    in_pixels = cutouts(image, np.stack([x, y], axis=-1), 9)
    table = Table({'RA': coords.ra, 'DEC': coords.dec, 'object_id': [7, 9],
                   'mag': [20.5, 21], 'flags': [55, 66]})
    for positions in (coords.galactic, table):
        on_sky = cutouts(image, positions, 9)
        assert_allclose(on_sky.table['x'], x, atol=1e-6)
        assert_allclose(on_sky.table['y'], y, atol=1e-6)
        for a, b in zip(on_sky, in_pixels):
            assert_array_equal(a.cube, b.cube)
        for name in ('ra', 'dec'):
            assert on_sky.table[name].unit == u.deg
            assert_allclose(on_sky.table[name].value,
                            in_pixels.table[name].value, atol=1e-9)
    # what the catalogue knows goes along, but not its flags
    assert on_sky.table['id'].tolist() == [7, 9]
    assert on_sky.table['mag'].tolist() == [20.5, 21]
    assert on_sky.table['flags'].tolist() == [FLAGS['edge'], 0]


@pytest.mark.parametrize(('axes', 'frame'), [
    (('ELON-TAN', 'ELAT-TAN'), 'barycentricmeanecliptic'),
    (('GLON-TAN', 'GLAT-TAN'), 'galactic'),
    (('DEC--TAN', 'RA---TAN'), 'icrs')])
def test_frames_of_the_sky(axes, frame):
    wcs = make_wcs(shape=SHAPE)
    wcs.wcs.ctype = axes
    wcs.wcs.radesys = 'FK5' if frame == 'galactic' else ''
    x, y = wcs.wcs.crpix - 1
    if axes[0].startswith('DEC'):
        wcs.wcs.crval = 2, 150
    there = SkyCoord(150, 2, unit='deg', frame=frame).icrs
    found = cutouts(as_image(CUBE, wcs=wcs), [(x, y)], 5).table
    assert_allclose((found['ra'][0].value, found['dec'][0].value),
                    (there.ra.deg, there.dec.deg), atol=1e-6)
    back = cutouts(as_image(CUBE, wcs=wcs), there, 5).table
    assert_allclose((back['x'][0], back['y'][0]), (x, y), atol=1e-6)


def test_the_sun():
    wcs = make_wcs(shape=SHAPE)
    wcs.wcs.ctype = 'HPLN-TAN', 'HPLT-TAN'
    image = as_image(CUBE, wcs=wcs)
    assert 'ra' not in cutouts(image, [(3, 4)], 5).table.colnames
    with pytest.raises(ValueError, match='no WCS that astropy knows, but'):
        cutouts(image, SkyCoord(150, 2, unit='deg'), 5)


class Rover(BaseCoordinateFrame):
    """A frame that no way leads out of, as of the Sun without observer."""

    default_representation = UnitSphericalRepresentation


def test_frame_without_a_way_to_icrs(image, monkeypatch):
    sky = SkyCoord([1, 2] * u.deg, [3, 4] * u.deg, frame=Rover())
    monkeypatch.setattr('astrodino_seg.image.fits.sky_frame',
                        lambda wcs: Rover())
    assert image.sky([3, 4], [5, 6]).frame.name == 'rover'
    assert 'ra' not in cutouts(image, [(3, 4)], 5).table.colnames
    assert in_icrs(sky) is None
    table = QTable({'label': [1, 2], 'sky_centroid': sky})
    fields = to_votable(table).get_first_table().fields
    assert [field.name for field in fields] == ['label']


def test_far_on_the_sky(image):
    # the other side of the sky, where the projection has no answer, and
    # where a distortion does not converge
    wcs = make_wcs(shape=SHAPE, ctype='TAN-SIP')
    from astropy.wcs import Sip
    a = np.zeros((3, 3))
    a[2, 0] = a[0, 2] = 1e-5
    wcs.sip = Sip(a, a, None, None, wcs.wcs.crpix)
    there = SkyCoord([150, 330, 150, 120], [2, -2, 89, 40], unit='deg')
    for one in (wcs, make_wcs(shape=SHAPE)):
        found = cutouts(as_image(CUBE, wcs=one), there, 5)
        assert_array_equal(found.table['flags'] == FLAGS['off_image'],
                           [False, True, True, True])


def test_table_of_pixels_and_sky(image):
    # the table of a segmentation has both; which counts depends on the WCS
    sky = image.wcs.pixel_to_world([10], [12])
    table = QTable({'label': [5], 'x_centroid': [30.0], 'y_centroid': [4.0],
                    'sky_centroid': sky})
    assert_allclose(cutouts(image, table, 5).table['x'], 10, atol=1e-6)
    found = cutouts(as_image(CUBE), table, 5).table
    assert found['x'][0] == 30
    assert found['id'][0] == 5
    assert 'ra' not in found.colnames


def test_slices(image):
    some = cutouts(image, [(5, 5), (25, 20), (45, 35)], 5)
    assert len(some[1:]) == 2
    assert_array_equal(some[1:][0].cube, some[1].cube)
    assert_array_equal(some[[2, 0]][0].cube, some[-1].cube)
    assert_array_equal(some[np.array([False, True, False])][0].cube,
                       some[1].cube)
    with pytest.raises(IndexError):
        some[3]


def test_labels(image):
    labels = np.zeros(SHAPE, int)
    labels[10:14, 20:30] = 4        # box 10 to 13, 20 to 29
    labels[12:20, 28:31][labels[12:20, 28:31] == 0] = 9
    for segm in (labels, SegmentationImage(labels)):
        some = label_cutouts(image, segm, 15, mask_others=True)
        assert some.table['id'].tolist() == [4, 9]
        assert_allclose(some.table['x'][0], 24.5)
        assert_allclose(some.table['y'][0], 11.5)
    wanted = Cutout2D(labels, (24.5, 11.5), 15).data == 9
    assert wanted.any()
    assert_array_equal(some[0].mask[1], wanted)
    assert not some[0].cube[:, wanted].any()
    assert not label_cutouts(image, labels, 15)[0].mask[1].any()

def test_sparse_labels():
    """Ids of a survey cost no memory, and stay the ids."""
    labels = np.zeros((40, 50), np.int64)
    labels[3:9, 4:10], labels[20:31, 20:31] = 2**32 - 1, 17
    image = np.random.default_rng(0).normal(size=labels.shape)
    some = label_cutouts(image, labels, 15, mask_others=True)
    assert some.table['id'].tolist() == [17, 2**32 - 1]
    assert_allclose(some.table['x'], [25, 6.5])
    assert not some[1].mask[0, 7, 7]
    assert len(label_cutouts(image, labels.astype(np.uint32))) == 2


def test_size_of_labels():
    labels = np.zeros((200, 300), int)
    labels[50:90, 100:130] = 1      # 40 pixels: 60
    labels[10:12, 10:12] = 2        # 2 pixels: the least
    some = label_cutouts(np.zeros(labels.shape), labels)
    assert [one.shape for one in some] == [(60, 60), (32, 32)]
    assert some.table['flags'].tolist() == [0, FLAGS['edge']]
    assert some[1:][0].shape == (32, 32)


@pytest.mark.parametrize(('positions', 'message'), [
    (np.zeros((0, 2)), 'positions are empty'),
    (Table({'ra': [], 'dec': []}), 'positions are empty'),
    (Table({'x': [], 'y': []}), 'positions are empty'),
    (np.zeros((3, 3)), r'an array \(n, 2\) of x and y'),
    ([[150, 2]] * u.deg, r'in pixels, got the shape \(1, 2\), deg'),
    ([{'x': 1}], 'in pixels, got list'),
    (Table({'ra': ['10:00:00'], 'dec': ['2:00:00']}), 'SkyCoord.*reads text'),
    (QTable({'x': [3] * u.arcsec, 'y': [4] * u.pix}), 'x must be in pixels'),
    (Table({'a': [1]}), 'no columns ra and dec'),
    (Table({'ra': [1, np.nan], 'dec': [1, 2]}), '1 of 2 are missing'),
    ('nowhere.csv', 'no such file')])
def test_bad_positions(image, positions, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        cutouts(image, positions, 5)


def test_bad_input(image):
    with pytest.raises(ValueError, match='the image has no WCS'):
        cutouts(CUBE, SkyCoord(150, 2, unit='deg'), 5)
    for size in (0, (5, 5, 5), 2.5):
        with pytest.raises(ValueError, match='size|broadcast'):
            cutouts(image, [(1, 1)], size)
    with pytest.raises(ValueError, match='segmentation has shape'):
        label_cutouts(image, np.ones((3, 3), int))
    with pytest.raises(ValueError, match='segmentation has no labels'):
        label_cutouts(image, np.zeros(SHAPE, int))
