# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The contract of finders: the same inputs, the same promises.

Every callable that makes a `SegmentationImage` of an `Image` is here.
"""

import copy
import inspect
import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
from astropy import units as u
from numpy.testing import assert_array_equal
from photutils.segmentation import SegmentationImage
from photutils.utils.exceptions import NoDetectionsWarning
from scipy import ndimage

import astrodino_seg
from astrodino_seg import DinoSegmenter, as_image
from astrodino_seg.errors import AstroDinoUserWarning
from astrodino_seg.evaluate import baselines

SAMPLE = Path(astrodino_seg.__file__).parent / 'data' / 'demo_griz.fits.fz'
SMALL = 'the noise of'      # of the smallest images, which is uncertain
FINDERS = [DinoSegmenter,
           *(one for name, one in vars(baselines).items()
             if name.endswith('Finder'))]


def is_here(cls):
    """Whether a finder can be run on the images below."""
    if cls is DinoSegmenter:
        return True
    if cls is baselines.NoiseChiselFinder:
        return False    # it measures the noise in tiles, which need more sky
    try:
        cls().require()
    except ImportError:     # test_baselines_programs.py says so
        return False
    return True


@pytest.fixture(params=filter(is_here, FINDERS), ids=lambda cls: cls.__name__)
def cls(request):
    return request.param


@pytest.fixture(scope='module')
def demo():
    return as_image(SAMPLE)


def cut(demo):
    return demo.cube[:, 100:196, 220:340].copy()


def stars(shape, places, n_bands=1, flux=400):
    """Stars on noise of sigma 1."""
    y, x = np.mgrid[:shape[0], :shape[1]]
    cube = np.random.default_rng(6).normal(size=(n_bands, *shape))
    for cx, cy in places:
        cube += flux / 14 * np.exp(-((x - cx)**2 + (y - cy)**2) / 4.5)
    return cube


def masked(demo):
    mask = np.zeros(cut(demo).shape, bool)
    mask[:, 20:50, 30:70] = True
    mask[1, :, :10] = True
    return as_image(cut(demo), mask=mask)


def without_a_band(demo):
    cube = cut(demo)
    cube[2] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', AstroDinoUserWarning)
        return as_image(cube)


#: name to a function of the sample that makes an image
IMAGES = {
    'four bands': lambda demo: as_image(cut(demo), bands='griz'),
    'one band': lambda demo: as_image(cut(demo)[1]),
    'nine bands': lambda demo: as_image(cut(demo)[np.arange(9) % 4]),
    'masked': masked,
    'a band missing': without_a_band,
    'with noise': lambda demo: as_image(cut(demo), error=3.0),
    'with unit': lambda demo: as_image(cut(demo) * u.nJy),
    'with background': lambda demo: as_image(cut(demo) + 500),
    'big endian': lambda demo: as_image(cut(demo).astype('>f8')),
    'stars': lambda demo: as_image(stars((61, 83), [(20, 30), (60, 25)])),
    'flat': lambda demo: as_image(np.full((40, 50), 3.0)),
    'noise': lambda demo: as_image(stars((64, 64), [], 2)),
    'strip': lambda demo: as_image(stars((9, 120), [(60, 4)])),
    'tiny': lambda demo: as_image(stars((5, 5), [(2, 2)])),
    'a pixel': lambda demo: as_image(np.ones((1, 1)))}


@pytest.fixture(params=IMAGES)
def image(request, demo):
    return IMAGES[request.param](demo)


def find(finder, image):
    """Call a finder; to find nothing is no news."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', NoDetectionsWarning)
        warnings.filterwarnings('ignore', SMALL)
        return finder(image)


@pytest.mark.parametrize('cls', FINDERS)
def test_constructor(cls):
    parameters = inspect.signature(cls).parameters
    values = {name: object() for name, one in parameters.items()
              if one.kind is not one.VAR_KEYWORD}
    assert vars(cls(**values)) == values
    for name in values:
        # SourceFinder takes this one by its place too
        assert (parameters[name].kind is inspect.Parameter.KEYWORD_ONLY
                or name == 'n_pixels')
        assert parameters[name].default is not inspect.Parameter.empty
    assert 'n_pixels' in parameters
    assert repr(cls()).startswith(f'{cls.__name__}(')


def test_labels(cls, image):
    finder = cls()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        segm = finder(image)
    kinds = {warning.category for warning in caught
             if not str(warning.message).startswith(SMALL)}
    if segm is None:
        # where no noise is known, that alone is said in its place
        blind = any('pass error=' in str(one.message) for one in caught)
        assert kinds == (set() if blind else {NoDetectionsWarning})
        return
    assert not kinds
    assert isinstance(segm, SegmentationImage)
    assert segm.data.dtype == np.int32
    assert segm.shape == image.shape
    assert_array_equal(segm.labels, np.arange(1, segm.n_labels + 1))
    assert not segm.data[image.mask.all(axis=0)].any()
    for label in segm.labels:
        pieces, _ = ndimage.label(segm.data == label, np.ones((3, 3), int))
        assert np.bincount(pieces.ravel())[1:].max() >= finder.n_pixels


def test_input_is_not_changed(cls, image):
    before = copy.deepcopy(image)
    segm = find(cls(), image)
    for name in ('cube', 'mask', 'noise'):
        assert_array_equal(getattr(image, name), getattr(before, name))
    if segm is not None:
        segm.data[:] = 0        # nor is the output a part of it
        assert_array_equal(image.cube, before.cube)


def test_deterministic(cls, image):
    finder = cls()
    first, second = find(finder, image), find(finder, image)
    other = find(pickle.loads(pickle.dumps(finder)), image)
    if first is None:
        assert second is other is None
    else:
        assert_array_equal(first.data, second.data)
        assert_array_equal(first.data, other.data)


@pytest.mark.parametrize('n_bands', [1, 4])
def test_bright_stars_are_found(cls, n_bands):
    places = [(30, 30), (90, 35), (60, 92), (20, 100), (110, 110)]
    data = stars((128, 128), places, n_bands, flux=2000)
    segm = cls(n_pixels=5)(as_image(data))
    labels = [segm.data[y, x] for x, y in places]
    assert min(labels) > 0
    assert len(set(labels)) == len(places)


@pytest.mark.parametrize('factor', [2.0**-20, 2.0**20])
def test_scale_of_the_values(cls, demo, factor):
    # powers of two, so that no digit changes
    expected = cls()(as_image(cut(demo)))
    segm = cls()(as_image(cut(demo) * np.float32(factor)))
    assert_array_equal(segm.data, expected.data)


@pytest.mark.parametrize('setting', [{'n_sigma': 1e4}, {'n_pixels': 10**6}],
                         ids=str)
def test_nothing_found(cls, demo, setting):
    if not set(setting) <= set(vars(cls())):
        pytest.skip(f'it has no {setting}')
    with pytest.warns(NoDetectionsWarning, match='No sources were found'):
        assert cls(**setting)(as_image(cut(demo))) is None


def test_higher_n_sigma_does_not_reveal_more(cls, demo):
    image = as_image(cut(demo))
    if not hasattr(cls(), 'n_sigma'):
        pytest.skip('it has no threshold')
    pixels = [(find(cls(n_sigma=n_sigma), image).data > 0).sum()
              for n_sigma in (2, 5, 15)]
    assert pixels == sorted(pixels, reverse=True)


def test_larger_n_pixels_does_not_reveal_more(cls, demo):
    image = as_image(cut(demo))
    found = [find(cls(n_pixels=n), image).n_labels for n in (5, 40, 150)]
    assert found == sorted(found, reverse=True)
