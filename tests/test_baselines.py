# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the baselines. What all finders promise is in ``test_finders.py``.
"""

import warnings
from pathlib import Path

import numpy as np
import pytest
from astropy.convolution import convolve
from numpy.testing import assert_allclose, assert_array_equal
from photutils.segmentation import (
    SourceFinder,
    detect_sources,
    make_2dgaussian_kernel,
)
from photutils.utils.exceptions import NoDetectionsWarning

import astrodino_seg
from astrodino_seg.baselines import PhotutilsFinder, detection_image
from astrodino_seg.errors import AstroDinoUserWarning
from astrodino_seg.image import as_image

SAMPLE = Path(astrodino_seg.__file__).parent / 'data' / 'demo_griz.fits.fz'


@pytest.fixture(scope='module')
def image():
    demo = as_image(SAMPLE)
    return as_image(demo.cube[:, 60:188, 220:348], bands=demo.bands)


def noise(n_bands=3, shape=(200, 180), sigma=1.0, level=0.0):
    rng = np.random.default_rng(8)
    return rng.normal(level, sigma, size=(n_bands, *shape))


@pytest.mark.parametrize(('n_bands', 'sigma', 'level'),
                         [(1, 1, 0), (3, 7, 100), (9, 1e-12, -1e-10)])
def test_noise_of_the_detection_image(n_bands, sigma, level):
    sn, mask = detection_image(as_image(noise(n_bands, sigma=sigma,
                                              level=level)))
    assert not mask.any()
    assert_allclose(sn.std(), 1, rtol=0.05)
    assert_allclose(np.median(sn), 0, atol=0.1)


def test_detection_image_adds_bands():
    data = noise(4)
    data[:, 100, 90] += 10
    sn, _ = detection_image(as_image(data))
    single = [detection_image(as_image(band))[0] for band in data]
    assert_allclose(sn, np.sum(single, axis=0) / 2, atol=1e-4)
    assert_allclose(sn[100, 90], 20, atol=5)


def test_given_noise_is_used():
    data = noise(2)
    error = np.array([2.0, 4.0])
    sn, _ = detection_image(as_image(data, error=error))
    expected = np.sqrt((1 / error**2).sum() / 2)
    assert_allclose(sn.std(), expected, rtol=0.05)


def test_masked_pixels():
    data = noise(2)
    invalid = np.zeros(data.shape, bool)
    invalid[:, 20:60, 30:50] = True
    invalid[0, :10] = True
    data[invalid] = 1e6
    sn, mask = detection_image(as_image(data, mask=invalid))
    assert_array_equal(mask, invalid.all(axis=0))
    assert_array_equal(sn[mask], 0)
    assert np.abs(sn).max() < 8
    # where one band is left it has its own weight
    assert_allclose(sn[:10].std(), 1, rtol=0.1)


def test_band_without_pixels():
    data = noise(2)
    data[1] = np.nan
    with pytest.warns(AstroDinoUserWarning, match='no valid pixels'):
        image = as_image(data)
    sn, mask = detection_image(image)
    assert not mask.any()
    assert_allclose(sn, detection_image(as_image(data[0]))[0], atol=1e-6)


def test_box_larger_than_the_image():
    sn, mask = detection_image(as_image(noise(1, shape=(20, 30))),
                               box_size=64)
    assert sn.shape == mask.shape == (20, 30)
    assert_allclose(sn.std(), 1, rtol=0.2)


@pytest.mark.parametrize('kwargs', [
    {}, {'n_sigma': 4, 'n_pixels': 20, 'fwhm': 2.0},
    {'connectivity': 4, 'contrast': 0.05, 'n_levels': 8, 'mode': 'linear'},
    {'deblend': False, 'box_size': 32}])
def test_same_as_photutils(image, kwargs):
    finder = PhotutilsFinder(**kwargs)
    sn, mask = detection_image(image, finder.box_size)
    sn = convolve(sn, make_2dgaussian_kernel(finder.fwhm, size=5))
    other = SourceFinder(finder.n_pixels, connectivity=finder.connectivity,
                         deblend=finder.deblend, n_levels=finder.n_levels,
                         contrast=finder.contrast, mode=finder.mode,
                         progress_bar=False)
    assert_array_equal(finder(image).data,
                       other(sn, finder.n_sigma, mask=mask).data)


def test_deblending(image):
    whole = PhotutilsFinder(deblend=False)(image)
    parts = PhotutilsFinder()(image)
    assert parts.n_labels > whole.n_labels
    assert_array_equal(parts.data > 0, whole.data > 0)
    sn, _ = detection_image(image)
    sn = convolve(sn, make_2dgaussian_kernel(3.0, size=5))
    assert_array_equal(whole.data, detect_sources(sn, 1.5, 10).data)


def test_nothing_to_look_at():
    # no noise, no detection: no pixel has a S/N
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        assert PhotutilsFinder()(as_image(np.ones((40, 50)))) is None
    assert [one.category for one in caught] == [NoDetectionsWarning]
