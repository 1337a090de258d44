# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the image package: images and maps in several extensions.
"""

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from helpers import check_promises, make_wcs
from numpy.testing import assert_allclose, assert_array_equal

from astrodino_seg.image import (
    as_image,
    read_label_map,
    write_image,
    write_maps,
)

DATA = np.random.default_rng(3).normal(size=(3, 40, 50)).astype(np.float32)


@pytest.mark.parametrize('names', ['grz', ['Z', 'J', 'Ks'],
                                   ['z', 'y', 'Y'], ['F606W', 'F814W',
                                                     'F125W'],
                                   None, ['on', 'off', 'flat'],
                                   ['one', 'mask', 'x,x']])
def test_image(tmp_path, names):
    """What was written is what is read."""
    mask = DATA > 2
    image = as_image(DATA, mask=mask, bands=names, wcs=make_wcs(0.3),
                     error=np.abs(DATA) + 1)
    write_image(tmp_path / 'a.fits', image, meta={'SEED': 5})
    again = as_image(tmp_path / 'a.fits')
    check_promises(again)
    assert again.bands == image.bands
    assert_array_equal(again.cube, image.cube)
    assert_array_equal(again.mask, image.mask)
    assert_array_equal(again.noise[~mask], image.noise[~mask])
    assert_allclose(again.wcs.wcs.crval, image.wcs.wcs.crval)
    assert fits.getval(tmp_path / 'a.fits', 'SEED') == 5


@pytest.mark.parametrize('unit', ['nJy', 'nmgy'])   # the latter not in FITS
def test_unit(tmp_path, unit):
    image = as_image(DATA * u.Unit(unit), bands='grz')
    write_image(tmp_path / 'a.fits', image)
    again = as_image(tmp_path / 'a.fits')
    assert again.unit == u.Unit(unit)
    assert again.wcs is None
    assert again.noise is None
    assert_array_equal(again.cube, DATA)
    with pytest.raises(OSError, match='exists'):
        write_image(tmp_path / 'a.fits', image)


def test_maps(tmp_path):
    """Of any type, in planes or not, each with the WCS of the image."""
    image = as_image(DATA, wcs=make_wcs(0.3))
    labels = np.arange(-1, 1999, dtype=np.int32).reshape(40, 50)
    write_maps(tmp_path / 'a.fits', {'LABELS': labels, 'SHARES': DATA},
               image)
    assert_array_equal(read_label_map(tmp_path / 'a.fits'), labels)
    with fits.open(tmp_path / 'a.fits') as hdus:
        assert hdus['LABELS'].data.dtype.kind == 'i'
        assert_array_equal(hdus['SHARES'].data, DATA)
        for hdu in hdus[1:]:
            assert_allclose(hdu.header['CRVAL1'], 150)


def test_shape_of_maps(tmp_path):
    with pytest.raises(ValueError, match=(
            r"maps\['A'\] has shape \(50, 40\), the image has \(40, 50\)")):
        write_maps(tmp_path / 'a.fits', {'A': DATA[0].T}, as_image(DATA))
    assert not list(tmp_path.iterdir())
