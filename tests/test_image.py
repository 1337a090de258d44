# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the image package: arrays, NDData and reprojection.

Files and real images are in ``test_image_files.py``.
"""

import copy

import astropy.units as u
import numpy as np
import pytest
from astropy.nddata import (
    CCDData,
    InverseVariance,
    NDData,
    NDDataRef,
    StdDevUncertainty,
    UnknownUncertainty,
    VarianceUncertainty,
)
from astropy.utils.masked import Masked
from astropy.wcs import WCS
from helpers import check_promises, cube_wcs, make_wcs
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.testing import assert_allclose, assert_array_equal
from reproject import reproject_adaptive

from astrodino_seg.errors import AstroDinoUserWarning, BandWarning
from astrodino_seg.image import Image, as_image

RNG = np.random.default_rng(1)


def source(scale, shape, angle=0.0, x0=0.0, sigma=4.0):
    """A Gaussian on the sky, flux per pixel with total 1000."""
    y, x = np.indices(shape)
    x, y = (x - (shape[1] - 1) / 2) * scale, (y - (shape[0] - 1) / 2) * scale
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    east, north = -cos * x + sin * y, sin * x + cos * y
    r2 = (east - x0)**2 + north**2
    return (1000 * scale**2 / (2 * np.pi * sigma**2)
            * np.exp(-r2 / (2 * sigma**2)))


# -------------------------------------------------------------- arrays
@pytest.mark.parametrize('dtype', [
    'f4', '>f4', 'f8', '>f8', 'f2', 'i2', '>i2', 'u1', 'u2', '>u4', 'i8',
    'longdouble'])
def test_dtypes(dtype):
    data = np.arange(20).reshape(4, 5).astype(dtype)
    image = as_image(data)
    check_promises(image)
    assert_array_equal(image.cube, [np.arange(20).reshape(4, 5)])
    assert image.bands == ('band0',)
    assert image.noise is image.wcs is image.unit is None
    assert not image.mask.any()


def test_shapes():
    data = RNG.normal(size=(3, 4, 5))
    assert as_image(data).cube.shape == (3, 4, 5)
    assert as_image(data).bands == ('band0', 'band1', 'band2')
    assert as_image(data[None, None]).cube.shape == (3, 4, 5)
    assert as_image(data[:1, None]).cube.shape == (1, 4, 5)
    assert as_image(data[0, :1, :1]).cube.shape == (1, 1, 1)
    # strides, read-only and Fortran order
    odd = np.asfortranarray(data)[:, ::-1, ::2]
    odd.flags.writeable = False
    assert_array_equal(as_image(odd).cube, odd.astype(np.float32))


def test_not_finite_is_masked():
    data = np.ones((2, 4, 5))
    data[0, 1, 2], data[1, 0, 0], data[1, 3, 4] = np.nan, np.inf, -np.inf
    data[0, 0, 0] = 1e300  # finite, but not in float32
    data[0, 0, 1] = -3.4e38     # a fill value, whose square is not either
    expected = np.zeros((2, 4, 5), dtype=bool)
    expected[[0, 1, 1, 0, 0], [1, 0, 3, 0, 0], [2, 0, 4, 0, 1]] = True
    with np.errstate(over='ignore'):
        single = data.astype('f4')
    for one in (data, single):
        image = as_image(one)
        check_promises(image)
        assert_array_equal(image.mask, expected)


def test_masked_array_and_quantity():
    data = np.ma.MaskedArray(np.full((4, 5), 7), mask=np.eye(4, 5))
    image = as_image(data)
    check_promises(image)
    assert_array_equal(image.mask[0], np.eye(4, 5, dtype=bool))
    assert_array_equal(image.cube[0], 7 * (1 - np.eye(4, 5)))
    assert not as_image(np.ma.MaskedArray(np.ones((4, 5)))).mask.any()

    image = as_image(np.ones((4, 5)) * u.nJy)
    assert image.unit == u.nJy
    image = as_image(Masked(np.ones((4, 5)) * u.mJy, mask=np.eye(4, 5) > 0))
    assert image.unit == u.mJy
    assert_array_equal(image.mask[0], np.eye(4, 5, dtype=bool))


def test_order_of_bands():
    data = np.arange(3)[:, None, None] * np.ones((3, 4, 5)) + 1
    mask = np.zeros((3, 4, 5), dtype=bool)
    mask[0, 0] = True
    image = as_image(data, bands=['z', 'g', 'r'], mask=mask,
                     error=[30, 10, 20])
    check_promises(image)
    assert image.bands == ('g', 'r', 'z')
    assert_array_equal(image.cube[:, 1, 0], [2, 3, 1])
    assert_array_equal(image.noise[:, 1, 0], [10, 20, 30])
    assert_array_equal(image.mask[:, 0, 0], [False, False, True])
    with pytest.warns(BandWarning, match='other'):
        image = as_image(data, bands=['z', 'other', 'r'])
    assert image.bands == ('z', 'other', 'r')
    assert as_image(data, bands='zgr').bands == ('g', 'r', 'z')
    assert as_image(data[0], bands='F444W').bands == ('F444W',)


@settings(deadline=None, max_examples=30)
@given(st.permutations(['u', 'g', 'r', 'F444W']))
def test_any_order_of_bands(names):
    values = {'u': 1, 'g': 2, 'r': 3, 'F444W': 4}
    image = as_image({name: np.full((2, 3), values[name]) for name in names})
    assert image.bands == ('u', 'g', 'r', 'F444W')
    assert_array_equal(image.cube[:, 0, 0], [1, 2, 3, 4])


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_any_array(data):
    shape = data.draw(array_shapes(min_dims=2, max_dims=3, max_side=4))
    dtype = data.draw(st.sampled_from(['f4', '>f4', '>f8', 'i4', '>u2']))
    numbers = (st.sampled_from([0, 1, -1.5, 3e6, np.nan, np.inf, -np.inf])
               if 'f' in dtype else None)
    array = data.draw(arrays(dtype, shape, elements=numbers))
    mask = data.draw(arrays(bool, shape[-2:]))
    bad = ~np.isfinite(array.astype(np.float64)) | mask
    if bad.all():
        with pytest.raises(ValueError, match='no valid pixels'):
            as_image(array, mask=mask)
        return
    before = array.copy()
    if array.ndim == 3 and any(one.all() for one in bad):
        with pytest.warns(AstroDinoUserWarning, match='no valid pixels'):
            image = as_image(array, mask=mask)
    else:
        image = as_image(array, mask=mask)
    check_promises(image)
    assert_array_equal(image.mask, bad.reshape(image.mask.shape))
    good = np.where(bad, 0, array).astype(np.float32)
    assert_array_equal(image.cube, good.reshape(image.cube.shape))
    assert_array_equal(array, before)


# ------------------------------------------------------- mask and error
def test_mask_argument():
    data = np.ones((2, 4, 5))
    data[1, 0, 0] = np.nan
    mask = np.eye(4, 5, dtype=int)
    image = as_image(data, mask=mask)
    check_promises(image)
    assert_array_equal(image.mask[0], mask)
    mask[0, 0] = 1
    assert_array_equal(image.mask[1], mask)
    by_band = {'r': np.zeros((4, 5), bool), 'g': np.ones((4, 5), bool)}
    by_band['g'][2:] = False
    image = as_image(data, bands=['r', 'g'], mask=by_band)
    assert image.mask[0, :2].all()
    assert not image.mask[:, 2:].any()
    assert not image.mask[1].any()
    assert not as_image(np.ones((4, 5)), mask=False).mask.any()


@pytest.mark.parametrize('error', [
    2, 2.0, [2, 2], np.full((4, 5), 2.0), np.full((2, 4, 5), 2, '>f4'),
    np.full((1, 2, 4, 5), 2), 2 * u.nJy, 0.002 * u.uJy,
    np.full((4, 5), 2e-9) * u.Jy,
    {'g': 2, 'r': 2}, {'r': 2 * u.nJy, 'g': 0.002 * u.uJy}])
def test_error_argument(error):
    data = np.ones((2, 4, 5)) * u.nJy
    before = copy.deepcopy(error)
    image = as_image(data, error=error, bands=['g', 'r'])
    check_promises(image)
    assert_allclose(image.noise, 2)
    if isinstance(error, np.ndarray):
        assert_array_equal(error, before)


def test_error_not_finite():
    error = np.full((4, 5), 3.0)
    error[0, 0], error[1, 1] = np.nan, 1e300
    error[2, 2] = -1  # masked below
    mask = np.zeros((4, 5), dtype=bool)
    mask[2, 2] = True
    image = as_image(np.ones((4, 5)), error=error, mask=mask)
    check_promises(image)
    assert_array_equal(np.argwhere(image.mask[0]), [[0, 0], [1, 1], [2, 2]])
    assert_array_equal(image.noise, np.full((1, 4, 5), 3))


# --------------------------------------------------------------- NDData
@pytest.mark.parametrize(('cls', 'value'), [
    (StdDevUncertainty, 4.0), (VarianceUncertainty, 16.0),
    (InverseVariance, 1 / 16)])
def test_uncertainty(cls, value):
    array = np.full((2, 4, 5), value)
    array[1, 0, 0] = 0 if cls is InverseVariance else np.nan
    data = NDData(np.ones((2, 4, 5)), uncertainty=cls(array), unit='Jy')
    image = as_image(data)
    check_promises(image)
    assert_allclose(image.noise, 4)
    assert image.mask.sum() == 1
    assert image.mask[1, 0, 0]
    assert_array_equal(data.uncertainty.array, array)


def test_uncertainty_unit():
    for uncertainty in (StdDevUncertainty(np.full((4, 5), 2.0), unit='mJy'),
                        VarianceUncertainty(np.full((4, 5), 4.0),
                                            unit='mJy2'),
                        InverseVariance(np.full((4, 5), 0.25),
                                        unit='mJy-2')):
        data = CCDData(np.ones((4, 5)), unit='Jy', uncertainty=uncertainty)
        assert_allclose(as_image(data).noise, 0.002)
    # 2-D for a cube, and a type that means nothing
    data = NDData(np.ones((2, 4, 5)))
    data.uncertainty = StdDevUncertainty(np.full((4, 5), 2.0))
    assert_allclose(as_image(data).noise, 2)
    data = NDData(np.ones((4, 5)), uncertainty=UnknownUncertainty([[1]]))
    with pytest.warns(AstroDinoUserWarning, match="unknown type 'unknown'"):
        assert as_image(data).noise is None


def test_uncertainty_of_some_bands():
    good = CCDData(np.ones((4, 5)), unit='Jy',
                   uncertainty=StdDevUncertainty(np.ones((4, 5))))
    with pytest.warns(AstroDinoUserWarning, match=r"\['r'\] have no unc"):
        image = as_image({'g': good, 'r': np.ones((4, 5)) * u.Jy})
    assert image.noise is None


def test_nddata():
    wcs = make_wcs(shape=(4, 5))
    mask = np.eye(4, 5, dtype=bool)
    data = CCDData(np.ones((4, 5)), unit='adu', wcs=wcs, mask=mask,
                   meta={'FILTER': 'HSC-G'})
    header = wcs.to_header_string()
    image = as_image(data)
    check_promises(image)
    assert image.bands == ('g',)
    assert image.unit == u.adu
    assert_array_equal(image.mask[0], mask)
    assert image.wcs is not wcs
    assert image.wcs.to_header_string() == header
    # nothing is shared or changed
    image.cube[:] = 9
    image.mask[:] = True
    image.wcs.wcs.crval = 1, 1
    assert (data.data == 1).all()
    assert data.mask.sum() == 4
    assert wcs.to_header_string() == header

    cube = CCDData(np.ones((3, 40, 50)), unit='adu', wcs=cube_wcs(),
                   meta={'BANDS': 'grz'})
    image = as_image(cube)
    check_promises(image)
    assert image.bands == ('g', 'r', 'z')
    assert_allclose(image.wcs.pixel_to_world_values(3, 4),
                    cube_wcs().pixel_to_world_values(3, 4, 0)[:2])


def test_sliced_nddata():
    wcs = make_wcs()
    image = as_image(NDDataRef(np.ones((40, 50)), wcs=wcs)[5:30, 7:40])
    check_promises(image)
    assert image.shape == (25, 33)
    assert_allclose(image.wcs.pixel_to_world_values(0, 0),
                    wcs.pixel_to_world_values(7, 5))
    image = as_image(NDDataRef(np.ones((3, 40, 50)), wcs=cube_wcs())[1])
    check_promises(image)
    assert_allclose(image.wcs.pixel_to_world_values(3, 4),
                    cube_wcs().pixel_to_world_values(3, 4, 0)[:2])
    linear = WCS(naxis=2)
    assert as_image(NDDataRef(np.ones((40, 50)), wcs=linear)).wcs is None
    assert as_image(NDDataRef(np.ones((40, 50)),
                              wcs=linear)[:9, :9]).wcs is None


# ------------------------------------------------------------ overrides
def test_image_is_returned():
    image = as_image(np.ones((2, 4, 5)), bands=['g', 'r'])
    assert as_image(image) is image
    check_promises(Image(image.cube, image.mask))
    assert Image(image.cube, image.mask).bands == ('band0', 'band1')
    assert repr(image) == ('<Image g, r; 4 x 5 pixels; 0.00% masked; '
                           'no noise, no WCS>')
    with pytest.raises(AttributeError):
        image.cube = None


def test_overrides():
    first = as_image(np.ones((2, 40, 50)) * u.Jy, bands=['g', 'r'],
                     error=3, wcs=make_wcs())
    mask = np.zeros((40, 50), dtype=bool)
    mask[0] = True
    image = as_image(first, mask=mask, error=[5, 4], bands=['r', 'g'],
                     wcs=make_wcs(2))
    check_promises(image)
    assert image.bands == ('g', 'r')
    assert_allclose(image.noise[:, 1, 1], [4, 5])
    assert image.mask[:, 0].all()
    assert image.unit == u.Jy
    assert_allclose(image.wcs.wcs.cd, make_wcs(2).wcs.cd)
    assert not first.mask.any()
    assert_allclose(first.noise, 3)
    assert first.bands == ('g', 'r')


def test_wcs_argument():
    wcs = make_wcs()
    image = as_image(np.ones((2, 40, 50)), wcs=wcs)
    check_promises(image)
    assert image.wcs is not wcs
    image = as_image({'g': np.ones((40, 50)), 'r': np.ones((40, 50))},
                     wcs=wcs)
    check_promises(image)
    check_promises(as_image(np.ones((3, 40, 50)), wcs=cube_wcs()))


# ---------------------------------------------------------------- units
def test_units_are_converted():
    image = as_image({'r': np.full((4, 5), 3.0) * u.uJy,
                      'g': np.full((4, 5), 2000) * u.nJy})
    assert image.unit == u.uJy
    assert_allclose(image.cube[:, 0, 0], [2, 3])
    g = CCDData(np.ones((4, 5)), unit='nJy',
                uncertainty=StdDevUncertainty(np.full((4, 5), 100.0)))
    r = CCDData(np.ones((4, 5)), unit='uJy',
                uncertainty=StdDevUncertainty(np.full((4, 5), 1.0)))
    assert_allclose(as_image({'r': r, 'g': g}).noise[:, 0, 0], [0.1, 1])


def test_some_units_are_missing():
    with pytest.warns(AstroDinoUserWarning, match=r"\['r'\] have no unit"):
        image = as_image({'g': np.full((4, 5), 2.0) * u.Jy,
                          'r': np.full((4, 5), 3.0)})
    assert image.unit is None
    assert_allclose(image.cube[:, 0, 0], [2, 3])


# --------------------------------------------------------- reprojection
def ccd(data, wcs, unit='nJy', sigma=None, **kwargs):
    if sigma is not None:
        kwargs['uncertainty'] = StdDevUncertainty(
            np.broadcast_to(sigma, data.shape).copy())
    return CCDData(data, wcs=wcs, unit=unit, **kwargs)


def test_same_grid_is_not_reprojected():
    data = RNG.normal(size=(2, 40, 50)).astype(np.float32)
    shifted = make_wcs()
    shifted.wcs.crpix += 5e-4
    image = as_image({'g': ccd(data[0], make_wcs()),
                      'r': ccd(data[1], shifted)})
    assert_array_equal(image.cube, data)
    # without a WCS, equal shapes are the same grid
    image = as_image({'g': ccd(data[0], None), 'r': ccd(data[1], shifted)})
    assert_array_equal(image.cube, data)
    check_promises(image)


@pytest.mark.parametrize(('scale', 'shape', 'angle'), [
    (2.0, (40, 50), 0), (1.0, (80, 100), 33), (0.5, (160, 200), 120),
    (1.7, (50, 60), 45)])
def test_flux_is_kept(scale, shape, angle):
    """Against the same source drawn on the other grid."""
    grid = make_wcs(1.0, (80, 100))
    g = ccd(source(1.0, (80, 100), x0=3), grid)
    r = ccd(source(scale, shape, angle, x0=3),
            make_wcs(scale, shape, angle))
    before = r.wcs.to_header_string()
    image = as_image({'r': r, 'g': g}, reference='g')
    check_promises(image)
    assert image.shape == (80, 100)
    assert_allclose(image.wcs.wcs.cd, grid.wcs.cd)
    assert_array_equal(image.cube[0], g.data.astype(np.float32))
    assert image.cube[1].sum() == pytest.approx(1000, rel=0.01)
    # the kernel of reproject blurs by 0.65 pixels
    blur = (0.65 * max(scale, 1))**2
    expected = source(1.0, (80, 100), x0=3, sigma=np.sqrt(16 + blur))
    valid = ~image.mask[1]
    assert_allclose(image.cube[1][valid], expected[valid],
                    atol=0.01 * g.data.max())
    assert r.wcs.to_header_string() == before


def test_brightness_is_kept():
    coarse = make_wcs(2.0, (20, 25))
    for unit, factor in (('MJy/sr', 1), ('Jy/beam', 1), ('nmgy/arcsec2', 1),
                         ('nJy', 1 / 4), ('electron/s', 1 / 4),
                         ('nJy/pix', 1 / 4)):
        image = as_image([ccd(np.full((40, 50), 8.0), make_wcs(), unit),
                          ccd(np.full((20, 25), 8.0), coarse, unit)])
        assert image.shape == (40, 50)
        inside = ~image.mask[1]
        assert inside[2:-2, 2:-2].all()
        assert_allclose(image.cube[1][inside], 8 * factor, rtol=1e-4)


def test_against_reproject():
    data = RNG.normal(size=(30, 30))
    old, new = make_wcs(1.3, (30, 30), 20), make_wcs(1.0, (40, 50))
    expected, _ = reproject_adaptive((data, old), new, shape_out=(40, 50),
                                     conserve_flux=True)
    image = as_image({'g': ccd(data, old)}, reference=new)
    valid = np.isfinite(expected)
    assert valid.sum() > 500
    assert not image.mask[0][valid].any()
    assert_allclose(image.cube[0][valid], expected[valid], atol=1e-4)


def test_default_reference_is_the_finest():
    fine, coarse = make_wcs(0.5, (60, 60)), make_wcs(1.0, (40, 50))
    bands = {'g': ccd(np.ones((40, 50)), coarse),
             'r': ccd(np.ones((60, 60)), fine)}
    image = as_image(bands)
    assert image.shape == (60, 60)
    assert_allclose(image.cube[0][~image.mask[0]], 0.25, rtol=1e-4)
    image = as_image(bands, reference='sdss_g')
    assert image.shape == (40, 50)
    assert_allclose(image.cube[1, 6:-6, 11:-11], 4, rtol=1e-4)
    assert image.mask[1, :4].all()
    # of equal ones the first
    rotated = make_wcs(1.0, (44, 44), angle=10)
    bands = {'r': ccd(np.ones((44, 44)), rotated),
             'g': ccd(np.ones((40, 50)), coarse)}
    assert as_image(bands).shape == (44, 44)


def test_outside_is_masked():
    wide = make_wcs(1.0, (60, 60))
    image = as_image({'g': ccd(np.ones((60, 60)), wide),
                      'r': ccd(np.ones((20, 30)), make_wcs(1.0, (20, 30)))})
    assert image.shape == (60, 60)
    expected = np.ones((60, 60), dtype=bool)
    expected[20:40, 15:45] = False
    assert_array_equal(image.mask[1], expected)
    assert not image.mask[0].any()
    far = make_wcs(1.0, (20, 30))
    far.wcs.crval = 150, -88
    with pytest.warns(AstroDinoUserWarning, match=r"\['r'\] have no valid"):
        image = as_image({'g': ccd(np.ones((60, 60)), wide),
                          'r': ccd(np.ones((20, 30)), far)})
    assert image.mask[1].all()
    check_promises(image)


def test_masked_pixels_do_not_spread():
    data = np.ones((20, 20))
    data[10, 10] = np.nan
    data[5, 5] = 1e6
    mask = np.zeros((20, 20), dtype=bool)
    mask[5, 5] = True
    image = as_image({'r': ccd(data, make_wcs(1.0, (20, 20)), mask=mask)},
                     reference=make_wcs(0.5, (40, 40)))
    check_promises(image)
    assert_allclose(image.cube[0][~image.mask[0]], 0.25, rtol=1e-4)
    assert_array_equal(image.mask[0][10:12, 10:12], True)
    assert_array_equal(image.mask[0][20:22, 20:22], True)
    # two old pixels are eight new ones and some at their edges
    assert image.mask.sum() <= 24


@pytest.mark.parametrize('unit', ['nJy', 'MJy/sr'])
@pytest.mark.parametrize('scale', [0.6, 1.0, 1.7])
def test_noise_of_sums(unit, scale):
    """The noise of sums over large apertures, against a simulation."""
    shape = (40, 40)
    grid = make_wcs(1.0, (40, 40), 30)
    old = tuple(int(60 / scale) for _ in shape)
    sums = []
    for _ in range(60):
        data = RNG.normal(scale=3, size=old)
        image = as_image({'g': ccd(data, make_wcs(scale, old), unit, 3.0)},
                         reference=grid)
        sums.append(image.cube[0, 5:35, 5:35].sum())
    check_promises(image)
    claimed = np.sqrt((image.noise[0, 5:35, 5:35].astype(float)**2).sum())
    # 60 sums give their scatter to 9 per cent; the edges of the aperture
    # are soft
    assert claimed == pytest.approx(np.std(sums), rel=0.35)
    area = scale**-2  # of a new pixel in old ones
    expected = 3 * np.sqrt(area if unit == 'nJy' else 1 / area)
    assert_allclose(image.noise[0, 5:35, 5:35], expected, rtol=1e-3)


def test_sip_reference():
    """Distortion is part of the grid."""
    sip = make_wcs(1.0, (40, 50), ctype='TAN-SIP')
    header = sip.to_header(relax=True)
    header.update(A_ORDER=2, B_ORDER=2, A_2_0=2e-3, B_0_2=2e-3, AP_ORDER=0,
                  BP_ORDER=0)
    del header['AP_ORDER'], header['BP_ORDER']
    sip = WCS(header)
    sip.array_shape = 40, 50
    flat = ccd(np.ones((40, 50)), make_wcs(), 'MJy/sr')
    assert sip.sip is not None
    image = as_image([flat, ccd(np.ones((40, 50)), sip, 'MJy/sr')],
                     reference='band0')
    assert image.mask[1].any()
    # at the left edge, the distortion is 24.5**2 * 2e-3 = 1.2 pixels
    assert_array_equal(image.mask[1, 20, :4], [True, False, False, False])


def test_unit_of_reprojected_bands():
    image = as_image({'g': ccd(np.full((40, 50), 5.0), make_wcs(), 'nJy',
                               0.1),
                      'r': ccd(np.full((20, 25), 0.02),
                               make_wcs(2.0, (20, 25)), 'uJy', 0.002)})
    assert image.unit == u.nJy
    assert_allclose(image.cube[:, 20, 25], [5, 5], rtol=1e-4)
    assert_allclose(image.noise[:, 20, 25], [0.1, 1], rtol=1e-4)


# --------------------------------------------------------------- errors
ONE = np.ones((4, 5))
CUBE = np.ones((2, 4, 5))


@pytest.mark.parametrize(('data', 'match'), [
    (np.ones(5), r'data must be a 2-D .* got shape \(5,\)'),
    (np.float64(3), r'got shape \(\)'),
    (np.ones((2, 3, 4, 5)), r'got shape \(2, 3, 4, 5\)'),
    (np.ones((0, 5)), r'data is empty, its shape is \(0, 5\)'),
    (np.ones((32, 32, 3)), r'\(32, 32, 3\), which looks like \(y, x, band\)'),
    (np.full((4, 5), np.nan), 'data has no valid pixels'),
    (np.ma.masked_all((4, 5)), 'data has no valid pixels'),
    (np.full((4, 5), 1e-40), r'too small .* largest is 1e-40'),
    ({}, 'data is an empty dict'),
    ([], 'data is an empty list'),
    ([ONE, np.ones((4, 6))], r"band 'band1' has shape \(4, 6\), not \(4, 5"),
    ({'g': ONE, 'r': CUBE}, r"data\['r'\] must hold one band, it has 2"),
    ({'g': ONE * u.Jy, 'r': ONE * u.s},
     "unit of band 'r', s, cannot be converted to that of band 'g', Jy"),
    (ONE * u.mag, "unit of band 'band0' is mag; a linear unit"),
    (ONE * u.ABmag, r'is mag\(AB\); a linear unit'),
])
def test_bad_data(data, match):
    with pytest.raises(ValueError, match=match):
        as_image(data)


@pytest.mark.parametrize(('data', 'match'), [
    (ONE.astype(complex), 'data must be .* real numbers, got .* complex128'),
    (ONE.astype(bool), 'got dtype bool'),
    (ONE.astype(str), 'got dtype <U'),
    (ONE.astype(object), 'got dtype object'),
    (np.zeros((4, 5), dtype='f4,f4'), 'got dtype'),
    (None, 'data must be an array, .* got NoneType'),
    (3.0, 'got float'),
    (iter([ONE]), 'got list_iterator'),
    ([[1, 2], [3, 4]], r'data\[0\] is a list; bands must be'),
    ({'g': None}, r"data\['g'\] must be .* got NoneType"),
    ({1: ONE}, 'name of a band must be a str, got 1'),
    (NDData(ONE.astype(complex)), 'got dtype complex128'),
])
def test_bad_type(data, match):
    with pytest.raises(TypeError, match=match):
        as_image(data)


@pytest.mark.parametrize(('kwargs', 'match'), [
    ({'mask': np.zeros((4, 6), bool)}, r'mask has shape \(4, 6\), but'),
    ({'mask': np.zeros((3, 4, 5), bool)}, r'mask has shape \(3, 4, 5\)'),
    ({'mask': np.ones((4, 5), bool)}, 'data has no valid pixels'),
    ({'mask': {'g': ONE > 2}}, r"mask is for the bands \['g'\], data has"),
    ({'mask': {'band0': ONE > 2, 'band1': True}}, 'different shapes in'),
    ({'error': np.ones((4, 6))}, r'error has shape \(4, 6\), but'),
    ({'error': [1, 2, 3]}, r'error has shape \(3,\), but'),
    ({'error': 0}, 'error must be positive .* got 0.0 at 40 pixels'),
    ({'error': -ONE}, 'error must be positive .* got -1.0 at 40 pixels'),
    ({'error': np.nan}, 'data has no valid pixels'),
    ({'error': 1 * u.s}, 'error is in s, which cannot .* image, Jy'),
    ({'error': {'g': 1}}, 'error is for the bands'),
    ({'bands': ['g']}, r"bands must be 2 different names, .* got \['g'\]"),
    ({'bands': ['g', 'g']}, r'bands must be 2 different names'),
    ({'bands': 'grz'}, "bands must be 2 different names, .* got 'grz'"),
    ({'reference': 'z'}, r"reference 'z' is none of the bands \['band0'"),
    ({'reference': WCS(naxis=2)}, 'reference must be a celestial 2-D WCS'),
    ({'wcs': WCS(naxis=1)}, 'wcs has 1 axes; it must have 2'),
    ({'wcs': WCS(naxis=4)}, 'wcs has 4 axes; it must have 2'),
    ({'wcs': WCS(naxis=2)}, 'wcs is not celestial'),
])
def test_bad_arguments(kwargs, match):
    with pytest.raises(ValueError, match=match):
        as_image(CUBE * u.Jy, **kwargs)


@pytest.mark.parametrize(('kwargs', 'match'), [
    ({'mask': np.zeros((4, 5))}, 'mask must be .* bool, got dtype float64'),
    ({'mask': 'all'}, 'mask must be an array of bool, got dtype <U3'),
    ({'error': 'poisson'}, 'error must be .* numbers, got dtype <U7'),
    ({'error': ONE * 1j}, 'got dtype complex128'),
    ({'bands': 3}, 'bands must be a sequence of str, got 3'),
    ({'bands': [1, 2]}, 'name of a band must be a str, got 1'),
    ({'reference': 2}, 'reference must be the name .* got int'),
    ({'wcs': 'TAN'}, 'wcs must be an astropy.wcs.WCS, got str'),
])
def test_bad_argument_types(kwargs, match):
    with pytest.raises(TypeError, match=match):
        as_image(CUBE * u.Jy, **kwargs)


def test_bad_wcs():
    no_shape = make_wcs()
    no_shape.array_shape = None
    with pytest.raises(ValueError, match='set its array_shape'):
        as_image({'g': ccd(np.ones((40, 50)), make_wcs())},
                 reference=no_shape)
    with pytest.raises(ValueError, match=r'wcs is one for all bands, but'):
        as_image([ONE, np.ones((4, 6))], wcs=make_wcs())
    with pytest.raises(ValueError, match='without a WCS for both'):
        as_image({'g': ccd(np.ones((40, 50)), make_wcs()),
                  'r': np.ones((20, 25)) * u.nJy})
    with pytest.raises(ValueError, match='last two of the array'):
        as_image(np.ones((3, 40, 50)), wcs=cube_wcs().sub([3, 1, 2]))


def test_bad_uncertainty():
    bad = np.full((4, 5), 1.0)
    bad[1, 1] = 0
    with pytest.raises(ValueError, match='uncertainty of data must be pos'):
        as_image(NDData(ONE, uncertainty=StdDevUncertainty(bad)))
    with pytest.raises(ValueError, match='negative values, down to -1.0'):
        as_image(NDData(ONE, uncertainty=InverseVariance(-ONE)))
    data = NDData(ONE)
    data.uncertainty = StdDevUncertainty(np.ones((4, 6)))
    with pytest.raises(ValueError, match=r'uncertainty of data has shape'):
        as_image(data)


def test_bad_image():
    with pytest.raises(ValueError, match=r'mask has shape \(4, 5\), cube'):
        Image(CUBE, ONE > 2)
    with pytest.raises(ValueError, match=r"the 1 bands \('g',\), got"):
        Image(CUBE, CUBE > 2, bands=('g',))
