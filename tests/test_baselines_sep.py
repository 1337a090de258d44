# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for SEP as a baseline.
"""

from pathlib import Path

import numpy as np
import pytest
import sep
from numpy.testing import assert_allclose, assert_array_equal

import astrodino_seg
from astrodino_seg.evaluate.baselines import SEPFinder
from astrodino_seg.evaluate.finders import detection_image, detection_kernel
from astrodino_seg.image import as_image

SAMPLE = Path(astrodino_seg.__file__).parent / 'data' / 'demo_griz.fits.fz'


@pytest.fixture(scope='module')
def image():
    demo = as_image(SAMPLE)
    return as_image(demo.cube[:, 60:188, 220:348], bands=demo.bands)


def test_kernel():
    # the default filter of SEP and of Source Extractor
    assert_allclose(detection_kernel(2) * 16,
                    [[1, 2, 1], [2, 4, 2], [1, 2, 1]])
    assert detection_kernel(0) is None
    assert detection_kernel(0.5).shape == (3, 3)
    wide = detection_kernel(5.0)
    assert wide.shape == (9, 9)
    assert_allclose(wide.sum(), 1)
    assert_allclose(wide[4, 4] / wide[4, 2], 2**(16 / 25), rtol=1e-6)


@pytest.mark.parametrize(('kwargs', 'by_hand'), [
    ({}, {}),
    ({'n_sigma': 3.0, 'n_pixels': 12}, {'thresh': 3.0, 'minarea': 12}),
    ({'contrast': 0.1, 'n_levels': 16},
     {'deblend_cont': 0.1, 'deblend_nthresh': 16}),
    ({'clean': False}, {'clean': False}),
    ({'fwhm': 0}, {'filter_kernel': None})])
def test_same_as_sep(image, kwargs, by_hand):
    sn, _ = detection_image(image)
    objects, expected = sep.extract(
        sn, **{'thresh': 1.5, 'segmentation_map': True, **by_hand})
    found = SEPFinder(**kwargs)(image)
    assert found.n_labels == len(objects) > 5
    assert_array_equal(found.data, expected)


def test_small_parts_are_dropped(image):
    # what deblending leaves with fewer pixels than were asked for
    sn, _ = detection_image(image)
    _, labels = sep.extract(sn, 1.5, minarea=5, clean=False,
                            filter_kernel=None, segmentation_map=True)
    area = np.bincount(labels.ravel())
    assert area.min() < 5
    found = SEPFinder(clean=False, fwhm=0)(image)
    assert_array_equal(found.data > 0, (labels > 0) & (area[labels] >= 5))
    assert found.n_labels == (area[1:] >= 5).sum()


def test_any_layout(image):
    sn, mask = detection_image(image)
    expected = SEPFinder().find(sn, mask).data
    for other in (sn.astype('>f8'), np.asfortranarray(sn),
                  np.repeat(sn, 2, axis=1)[:, ::2]):
        assert_array_equal(SEPFinder().find(other, mask).data, expected)


def test_masked_pixels():
    sn = np.zeros((40, 60))
    sn[10:20, 10:50] = 20
    mask = np.zeros(sn.shape, bool)
    mask[:, 28:32] = True
    found = SEPFinder(fwhm=0).find(np.where(mask, 0, sn), mask)
    expected = np.zeros(sn.shape, int)
    expected[10:20, 10:28], expected[10:20, 32:50] = 1, 2
    assert_array_equal(found.data, expected)


def test_large_object():
    # more pixels than SEP has room for by default
    y, x = np.mgrid[:700, :700]
    sn = 1e3 * np.exp(-((x - 350)**2 + (y - 350)**2) / 4e5)
    assert sn.size > 300000
    found = SEPFinder().find(sn, np.zeros(sn.shape, bool))
    assert found.n_labels == 1
    assert (found.data == 1).all()
