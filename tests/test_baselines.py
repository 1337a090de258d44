# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for what the baselines share and for those of photutils. What all finders
promise is in ``test_finders.py``.
"""

import sys
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
from astrodino_seg.errors import AstroDinoUserWarning, MissingToolError
from astrodino_seg.evaluate import baselines
from astrodino_seg.evaluate.baselines import (
    FINDERS,
    TUNED,
    PhotutilsFinder,
    available_finders,
)
from astrodino_seg.evaluate.finders import detection_image, segmentation_image
from astrodino_seg.image import as_image

CLASSES = [one for name, one in vars(baselines).items()
           if name.endswith('Finder')]
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
    data[invalid] = 1e6 + np.arange(invalid.sum())
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
    {'deblend': False, 'box_size': 32}, {'fwhm': 5.0}, {'fwhm': 0}])
def test_same_as_photutils(image, kwargs):
    finder = PhotutilsFinder(**kwargs)
    sn, mask = detection_image(image, finder.box_size)
    if finder.fwhm:
        size = 9 if finder.fwhm == 5 else 5
        sn = convolve(sn, make_2dgaussian_kernel(finder.fwhm, size=size))
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


# ------------------------------------------------------- what they share

WRONG = {
    'n_sigma': (0, -1.0, float('nan'), '2', None), 'n_pixels': (0, 2.5, True),
    'connectivity': (6, '8'), 'deblend': (1, None), 'n_levels': (0, 8.5),
    'contrast': (-0.1, 1.1), 'mode': ('log', 3), 'box_size': (0, 64.0),
    'fwhm': (-1, None), 'clean': (0, 'yes'), 'detector': ('dao', None),
    'min_separation': (0, -2), 'saddle': (-0.1, 1.5), 'prominence': (-1,),
    'tile_size': (0, 30.0), 'qthresh': (0, 1), 'dthresh': (float('inf'),),
    'snquant': (0, 1.5), 'detgrowquant': (0, 1.1), 'clump_snquant': (1,),
    'gthresh': (None,), 'objbordersn': (-1,), 'move_factor': (-0.5,),
    'min_distance': (-1,), 'gain': (0, -1.0), 'timeout': (0, None)}


@pytest.mark.parametrize('cls', CLASSES)
def test_wrong_settings(cls):
    image = as_image(np.zeros((20, 20)))
    for name in vars(cls()):
        for value in WRONG[name]:
            finder = cls(**{name: value})
            with pytest.raises(ValueError, match=f'^{name} must be .*, got'):
                finder(image)
            with pytest.raises(ValueError, match=f'^{name} must be .*, got'):
                finder.find(np.ones((20, 20)), np.zeros((20, 20), bool))


def test_find_takes_a_detection_image(image):
    finder = PhotutilsFinder(n_sigma=2)
    found = finder.find(*detection_image(image))
    assert_array_equal(found.data, finder(image).data)


def test_segmentation_image():
    labels = np.array([[-1, 7, 7, 0], [3, 7, 7, 9], [3, 0, 5, 5]])
    mask = np.zeros((3, 4), bool)
    segm = segmentation_image(labels, mask, 1)
    assert segm.data.dtype == np.int32
    assert_array_equal(segm.data, [[0, 3, 3, 0], [1, 3, 3, 4], [1, 0, 2, 2]])
    mask[2, 3] = True
    segm = segmentation_image(labels, mask, 2)
    assert_array_equal(segm.data, [[0, 2, 2, 0], [1, 2, 2, 0], [1, 0, 0, 0]])
    assert segmentation_image(labels, mask, 5) is None


def test_registry():
    finders, missing = available_finders()
    assert {*finders, *missing} == set(FINDERS)
    assert not set(finders) & set(missing)
    assert {'detect', 'photutils', 'peaks', 'regions'} <= set(finders)
    assert {type(make()) for make in FINDERS.values()} == set(CLASSES)
    assert finders['detect'] == PhotutilsFinder(deblend=False)
    assert finders['photutils'] == PhotutilsFinder()
    assert all(sentence and '\n' not in sentence
               for sentence in missing.values())


@pytest.mark.parametrize('name', TUNED)
def test_tuned(name):
    tuned, default = FINDERS[f'{name}-tuned'](), FINDERS[name]()
    for key, value in vars(tuned).items():
        assert value == TUNED[name].get(key, getattr(default, key))


def test_missing_tools(monkeypatch, image):
    monkeypatch.setenv('PATH', '')
    monkeypatch.delenv('ASTRODINO_MTOBJECTS', raising=False)
    monkeypatch.setitem(sys.modules, 'sep', None)
    finders, missing = available_finders()
    base = {name.removesuffix('-tuned') for name in missing}
    assert base == {'sep', 'sextractor', 'noisechisel', 'mtobjects'}
    words = {'sep': r'astrodino_seg\[compare\]',
             'sextractor': '^source-extractor .*is not on the PATH$',
             'noisechisel': '^astnoisechisel is not on the PATH$',
             'mtobjects': '^ASTRODINO_MTOBJECTS does not name a checkout'}
    for name in base:
        error = ImportError if name == 'sep' else MissingToolError
        with pytest.raises(error, match=words[name]):
            FINDERS[name]()(image)
