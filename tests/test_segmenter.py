# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the segmenter: what goes in, what comes out, what is refused.

Nothing here depends on the exact masks that the bundled model draws.
"""

import copy
import hashlib
import inspect
import pickle
import warnings
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
import torch
from astropy import units as u
from astropy.io import fits
from astropy.nddata import CCDData, NDData, StdDevUncertainty
from astropy.table import QTable
from helpers import cube_wcs, make_wcs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from photutils.segmentation import (
    SegmentationImage,
    SourceCatalog,
    SourceFinder,
    detect_sources,
)
from photutils.utils.exceptions import NoDetectionsWarning
from safetensors import safe_open
from safetensors.torch import save_file
from scipy import ndimage

import astrodino_seg
from astrodino_seg import (
    DinoSegmenter,
    ModelFileError,
    SegmentationResult,
    as_image,
    load_model,
    segmenter,
)
from astrodino_seg.catalog import CLASS_NAMES, FLAGS
from astrodino_seg.errors import AstroDinoUserWarning
from astrodino_seg.evaluate.finders import PhotutilsFinder, detection_image
from astrodino_seg.evaluate.matching import match_labels
from astrodino_seg.inputs.background import SIDES
from astrodino_seg.inputs.channels import PreprocessSpec
from astrodino_seg.inputs.rules import NoiseUnits
from astrodino_seg.predict.decode import Grouping
from astrodino_seg.predict.instances import Instances, input_of

SAMPLE = Path(astrodino_seg.__file__).parent / 'data' / 'demo_griz.fits.fz'
PARAMETERS = ('n_pixels', 'connectivity', 'n_sigma', 'merge', 'min_seed',
              'bin_factor', 'model', 'device', 'bfloat16', 'tile_size',
              'symmetric', 'progress_bar')
ALL_PIXELS = {4: ndimage.generate_binary_structure(2, 1),
              8: np.ones((3, 3), int)}
SLOW = settings(max_examples=15, deadline=None,
                suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope='module')
def demo():
    return as_image(SAMPLE)


@pytest.fixture(scope='module')
def image(demo):
    """A crowded part of the sample: a large galaxy and neighbours."""
    ys, xs = slice(90, 218), slice(260, 388)
    return as_image(demo.cube[:, ys, xs], wcs=demo.wcs[ys, xs],
                    bands=demo.bands)


@pytest.fixture
def cube(image):
    return image.cube.copy()


@pytest.fixture(scope='module')
def finder():
    return DinoSegmenter()


@pytest.fixture(scope='module')
def result(finder, image):
    return finder.segment(image)


@pytest.fixture(scope='module')
def model():
    return load_model()


@pytest.fixture(scope='module')
def model_file(model, tmp_path_factory):
    path = tmp_path_factory.mktemp('model') / 'own.safetensors'
    model.save(path)
    return path


def find(finder, *args, **kwargs):
    """Call a finder; to find nothing is no news."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', NoDetectionsWarning)
        return finder(*args, **kwargs)


def masks(segm):
    """The labels as a set of masks."""
    if segm is None:
        return set()
    return {np.flatnonzero(segm.data == label).tobytes()
            for label in segm.labels}


def detected(segm, above, n_pixels=5, connectivity=8):
    """The masks with enough connected pixels where ``above`` is True."""
    kept = set()
    for label in segm.labels:
        own = segm.data == label
        pieces, n = ndimage.label(own & above, ALL_PIXELS[connectivity])
        if n and np.bincount(pieces.ravel())[1:].max() >= n_pixels:
            kept.add(np.flatnonzero(own).tobytes())
    return kept


def level(segm, data):
    """A threshold that about half of the labels exceed."""
    return float(np.median([np.sort(data[..., segm.data == label].ravel())[-8]
                            for label in segm.labels]))


def check_labels(segm, shape):
    assert isinstance(segm, SegmentationImage)
    assert segm.data.dtype == np.int32
    assert segm.shape == shape
    assert_array_equal(segm.labels, np.arange(1, segm.n_labels + 1))


# ---------------------------------------------------------- constructor

def test_constructor():
    """As that of SourceFinder: ``n_pixels`` may be positional."""
    parameters = inspect.signature(DinoSegmenter).parameters
    assert tuple(parameters) == (*PARAMETERS, 'others')
    assert {p.kind for p in list(parameters.values())[1:-1]} == {
        inspect.Parameter.KEYWORD_ONLY}
    assert DinoSegmenter(7).n_pixels == DinoSegmenter(npixels=7).n_pixels == 7
    with pytest.raises(TypeError, match='positional'):
        DinoSegmenter(5, 8)
    with pytest.raises(TypeError, match="no argument 'n_pixel'"):
        DinoSegmenter(n_pixel=5)


def test_arguments_of_source_finder():
    """What has no meaning here is said in one sentence, which has the cure."""
    for cls in (SourceFinder, DinoSegmenter):   # nothing asked for that is not
        cls(10, deblend=True, relabel=True)
    SourceFinder(10, contrast=.01, n_levels=16, mode='linear', n_processes=2)
    with pytest.warns(AstroDinoUserWarning, match=(
            '^contrast, n_levels, mode, n_processes of SourceFinder is not '
            'used: .* merge, from 0 .splits. to 1')) as said:
        DinoSegmenter(10, contrast=.01, n_levels=16, mode='linear',
                      n_processes=2)
    assert len(said) == 1
    with pytest.warns(AstroDinoUserWarning, match='^deblend of SourceFinder'):
        DinoSegmenter(deblend=False)


def test_constructor_only_stores():
    # whatever it is; it is looked at when it is used
    values = {name: object() for name in PARAMETERS}
    assert vars(DinoSegmenter(**values)) == values


def test_repr(cube):
    finder = DinoSegmenter(n_pixels=7, merge=0.25)
    before = repr(finder)
    assert before.startswith('DinoSegmenter(n_pixels=7, connectivity=8')
    assert 'merge=0.25' in before
    assert repr(eval(before)) == before
    find(finder, cube)
    assert repr(finder) == before


# -------------------------------------------------------- what is found

def test_call_and_segment(finder, image, result):
    assert isinstance(result, SegmentationResult)
    check_labels(result.segmentation_image, image.shape)
    assert result.segmentation_image.n_labels > 1
    assert_array_equal(finder(image).data, result.segmentation_image.data)


def test_deterministic(image, result):
    again = DinoSegmenter().segment(image)
    assert_array_equal(again.segmentation_image.data,
                       result.segmentation_image.data)
    assert_array_equal(again.fragments.data, result.fragments.data)
    assert_array_equal(again.probabilities, result.probabilities)
    for name in result.table.colnames:
        if name != 'sky_centroid':
            assert_array_equal(again.table[name], result.table[name])


@pytest.mark.parametrize('method', ['__call__', 'segment'])
@pytest.mark.parametrize('data', [
    np.zeros((40, 50)), np.full((3, 40, 50), 7.5),
    np.random.default_rng(1).normal(size=(2, 64, 64))],
    ids=['zeros', 'constant', 'noise'])
def test_nothing_found(data, method):
    finder = DinoSegmenter(n_sigma=30)
    with pytest.warns(NoDetectionsWarning, match='No sources were found'):
        assert getattr(finder, method)(data) is None
    with pytest.warns(NoDetectionsWarning):
        assert getattr(DinoSegmenter(), method)(data, 1e6) is None


@pytest.mark.parametrize('cls', [SourceFinder, DinoSegmenter])
def test_in_place_of_source_finder(cls, cube):
    # the lines of the README; nothing but the name of the class differs
    data = cube[1]
    threshold = np.full(data.shape, 3.0)
    finder = cls(n_pixels=5, progress_bar=False)
    segm = finder(data, threshold)
    check_labels(segm, data.shape)
    table = SourceCatalog(data, segm).to_table()
    assert len(table) == segm.n_labels > 1
    with pytest.warns(NoDetectionsWarning):
        assert finder(data, 1e9) is None


def test_isolated_objects_of_the_sample(demo):
    # bright, alone and roundish: whatever the model, they are to be found
    segm = DinoSegmenter()(demo)
    sn, _ = detection_image(demo)
    smooth = ndimage.gaussian_filter(sn, 1)
    peaks = (smooth == ndimage.maximum_filter(smooth, 5)) & (smooth > 3)
    found = []
    whole = detect_sources(sn, 3, n_pixels=8)
    for one in whole.segments:
        own = whole.data == one.label
        if one.area > 400 or sn[own].max() < 12 or peaks[own].sum() != 1:
            continue
        labels, counts = np.unique(segm.data[own], return_counts=True)
        found.append(max(counts[labels > 0], default=0) > 0.6 * own.sum())
    assert len(found) >= 10
    assert np.mean(found) >= 0.8


def test_large_galaxy_of_the_sample_is_not_shredded(demo):
    # the light of the largest galaxy is in fewer labels than photutils has
    ours = DinoSegmenter()(demo)
    theirs = PhotutilsFinder()(demo)
    sn, _ = detection_image(demo)
    whole = detect_sources(ndimage.gaussian_filter(sn, 2), 2, n_pixels=500)
    largest = whole.data == whole.labels[np.argmax(whole.areas)]
    flux = {}
    for name, segm in (('ours', ours), ('theirs', theirs)):
        light = np.bincount(segm.data[largest], sn[largest])[1:]
        flux[name] = light.max() / light.sum()
    assert flux['ours'] > 0.5
    assert flux['ours'] >= 0.9 * flux['theirs']


# ------------------------------------------------------------ threshold

@pytest.mark.parametrize(('n_pixels', 'connectivity'),
                         [(1, 8), (5, 8), (20, 4)])
def test_threshold_keeps_what_exceeds_it(cube, n_pixels, connectivity):
    finder = DinoSegmenter(n_pixels=n_pixels, connectivity=connectivity)
    everything = finder(cube)
    middle = level(everything, cube)
    for threshold in (0, 2 * middle, middle):
        kept = detected(everything, (cube > threshold).any(axis=0),
                        n_pixels, connectivity)
        assert masks(find(finder, cube, threshold)) == kept
    assert 0 < len(kept) < everything.n_labels


def test_threshold_includes_the_background(finder, cube):
    cube += 64
    everything = finder(cube)
    threshold = level(everything, cube)
    assert threshold > 64
    kept = detected(everything, (cube > threshold).any(axis=0))
    assert masks(finder(cube, threshold)) == kept
    assert len(kept) < everything.n_labels
    assert masks(finder(cube, 10)) == masks(everything)


def test_forms_of_one_threshold(finder, image, result):
    value = round(level(result.segmentation_image, image.cube))
    expected = masks(finder(image, value))
    assert 0 < len(expected) < finder(image).n_labels
    full = np.full(image.shape, value)
    for threshold in (float(value), np.float32(value), [value] * 4, full,
                      [full] * 4, [full], np.stack([full] * 4),
                      MappingProxyType(dict.fromkeys(image.bands, value)),
                      {'g': full, 'r': value, 'i': value, 'z': full}):
        assert masks(finder(image, threshold)) == expected


@pytest.mark.parametrize('band', ['g', 'r', 'i', 'z'])
def test_threshold_of_bands_is_in_the_order_of_the_input(finder, image, band):
    # the bands come unordered and get sorted by wavelength
    bands = ['z', 'g', 'i', 'r']
    cube = np.stack([image.cube[image.bands.index(b)] for b in bands])
    one = bands.index(band)
    everything = finder(cube, bands=bands)
    value = level(everything, cube[one])
    threshold = [np.inf] * 4
    threshold[one] = value
    result = finder.segment(cube, threshold, bands=bands)
    assert result.image.bands == image.bands
    expected = detected(everything, cube[one] > value)
    assert masks(result.segmentation_image) == expected
    assert 0 < len(expected) < everything.n_labels
    by_name = {b: value if b == band else np.inf for b in image.bands}
    assert masks(finder(cube, by_name, bands=bands)) == expected
    by_pixel = np.stack([np.full(image.shape, t) for t in threshold])
    assert masks(finder(cube, by_pixel, bands=bands)) == expected
    items = dict(zip(bands, cube))
    assert masks(finder(items, threshold)) == expected


def test_threshold_of_an_image_is_in_its_order(finder, image, result):
    # an Image made of unordered bands is sorted, and is now the input
    other = as_image(image.cube[::-1], bands=image.bands[::-1])
    assert other.bands == image.bands
    assert other.order == (3, 2, 1, 0)
    threshold = [np.inf, level(result.segmentation_image, image.cube[1]),
                 np.inf, np.inf]
    expected = masks(finder(image, threshold))
    assert masks(finder(other, threshold)) == expected
    assert masks(finder(other, threshold, mask=False)) == expected
    assert expected != masks(finder(image, threshold[::-1]))


def test_threshold_with_units(finder, image):
    expected = masks(finder(image, 20))
    data = image.cube * u.mJy
    for threshold in (20 * u.mJy, 0.02 * u.Jy, [20] * 4 * u.mJy,
                      dict.fromkeys(['band0', 'band1', 'band2', 'band3'],
                                    0.02 * u.Jy)):
        assert masks(finder(data, threshold)) == expected
    ccd = CCDData(image.cube, unit='mJy')
    assert masks(finder(ccd, 0.02 * u.Jy)) == expected


def test_masked_pixels_do_not_exceed_it(finder, image, result):
    # all of one object's bright pixels are masked in the only band asked
    brightest = int(np.argmax(result.table['flux_g'])) + 1
    own = result.segmentation_image.data == brightest
    mask = np.zeros((4, *image.shape), bool)
    mask[0] = own
    threshold = [20, np.inf, np.inf, np.inf]
    segm = find(finder, image, threshold, mask=mask)
    if segm is not None:
        everything = finder(image, mask=mask)
        above = (image.cube[0] > 20) & ~own
        assert masks(segm) == detected(everything, above)


@SLOW
@given(st.floats(0, 300), st.floats(0, 300))
def test_raising_the_threshold_only_removes(finder, image, one, other):
    low, high = sorted([one, other])
    assert masks(find(finder, image, high)) <= masks(
        find(finder, image, low))


@pytest.mark.parametrize(('threshold', 'match'), [
    (np.nan, 'threshold must not be NaN'),
    ([1, 2, 3, np.nan], 'threshold must not be NaN'),
    ('high', "threshold must be numbers .*got 'high'"),
    ([[1, 2], [3]], 'threshold must be numbers'),
    (1j, 'threshold must be numbers'),
    ([1, 2, 3], r'threshold .* 4 bands, got the shapes \[\(\), \(\), \(\)\]'),
    (np.ones((5, 5)), r'threshold .*\(128, 128\).*got .*\(5, 5\)'),
    (np.ones((2, 128, 128)), 'threshold must be one value'),
    (np.ones((4, 5, 5)), 'threshold must be one value'),
    ({'g': 1}, r"threshold is for the bands \['g'\], data has \['g', 'r'"),
    ({'g': 1, 'r': 1, 'i': 1, 'z': 1, 'Y': 1}, 'threshold is for the bands'),
    ({'g': [1, 2], 'r': 1, 'i': 1, 'z': 1}, 'threshold must be one value'),
    (5 * u.Jy, 'threshold has unit Jy but data has unit None')])
def test_bad_threshold(finder, image, threshold, match):
    with pytest.raises(ValueError, match=match):
        finder(image, threshold)


def test_unit_of_threshold_and_data(finder, cube):
    with pytest.raises(ValueError, match='threshold has unit None but data '
                       'has unit mJy'):
        finder(cube * u.mJy, 5)
    with pytest.raises(ValueError, match=r'threshold .*unit of data \(mJy\)'):
        finder(cube * u.mJy, 5 * u.s)


# --------------------------------------------- n_sigma, n_pixels, merge

@pytest.mark.parametrize('softening', [1.0, 3.0])
def test_n_sigma(image, model, softening):
    other = copy.deepcopy(model)
    other.backbone.planes = NoiseUnits(PreprocessSpec(softening=softening))
    result = DinoSegmenter(model=other, min_seed=0.2).segment(image)
    # of all bands, in noise that counts its correlation
    found = input_of(DinoSegmenter(model=other)._fetch_model(), image)[0]
    stretched = found.channels[0]
    for n_sigma in (3, 10, 30):
        expected = detected(result.segmentation_image,
                            stretched > np.arcsinh(n_sigma / softening))
        segm = find(DinoSegmenter(model=other, min_seed=0.2,
                                  n_sigma=n_sigma), image)
        assert masks(segm) == expected


def test_n_sigma_is_ignored_with_a_threshold(finder, image):
    expected = masks(finder(image, 20))
    with pytest.warns(AstroDinoUserWarning, match='n_sigma=1000000.0 is not'):
        assert masks(DinoSegmenter(n_sigma=1e6)(image, 20)) == expected


def test_swapped_in_for_detect_sources(finder, image):
    """Called as the function of photutils, with the mask in third place."""
    mask = np.zeros(image.shape, bool)
    mask[:9] = True
    expected = finder(image, 20, mask)
    found = astrodino_seg.detect_sources(image, 20, 5, mask=mask)
    assert_array_equal(found.data, expected.data)
    assert not expected.data[:9].any()
    given = list(inspect.signature(detect_sources).parameters)
    assert list(inspect.signature(
        astrodino_seg.detect_sources).parameters)[:len(given)] == given


def test_large_constant(finder, cube):
    """A pedestal of 1e8 changes nothing, and is in no threshold."""
    whole = np.rint(cube).astype(float)
    with pytest.warns(AstroDinoUserWarning, match='which is subtracted'):
        found = finder(whole + 1e8, 1e8 + 20)
    expected = finder(whole, 20)
    assert ((found.data > 0) == (expected.data > 0)).mean() > 0.99


def test_noise_of_few_photons(finder):
    """Where the noise cannot be measured it is said, and error= helps."""
    y, x = np.mgrid[:128, :128]
    light = 60 * np.exp(-((x - 60)**2 + (y - 50)**2) / 18)
    data = np.random.default_rng(0).poisson(.02 + light)
    with pytest.warns(AstroDinoUserWarning, match='band0 is 0 .*pass error='
                      ) as told:
        assert finder(data) is None
    assert len(told) == 1       # and not that there are no sources
    assert find(finder, data, error=.15).data[50, 60] > 0


@pytest.mark.parametrize('n_pixels', [1, 30, 200])
def test_n_pixels(image, n_pixels):
    result = DinoSegmenter(n_pixels=n_pixels).segment(image)
    segm = result.segmentation_image
    assert len(detected(segm, True, n_pixels)) == segm.n_labels
    assert segm.areas.min() >= n_pixels
    with pytest.warns(NoDetectionsWarning):
        assert DinoSegmenter(n_pixels=10**6)(image) is None


def test_connectivity(finder, image, result):
    # above the threshold only on a diagonal within one object
    segm = result.segmentation_image
    label = int(segm.labels[np.argmax(segm.areas)])
    own = segm.data == label
    inside = ndimage.distance_transform_cdt(np.pad(own, 1),
                                            'chessboard')[1:-1, 1:-1]
    y, x = np.unravel_index(inside.argmax(), own.shape)
    assert inside.max() > 3
    threshold = np.full(own.shape, np.inf)
    k = np.arange(-2, 3)
    threshold[y + k, x + k] = -np.inf
    assert masks(finder(image, threshold)) == {np.flatnonzero(own).tobytes()}
    assert find(DinoSegmenter(connectivity=4), image, threshold) is None


def test_merge_of_nothing(image):
    result = DinoSegmenter(merge=0).segment(image)
    assert_array_equal(result.fragments.data, result.segmentation_image.data)
    assert result.fragments.parent_to_deblended_labels == {}
    assert (result.table['n_fragments'] == 1).all()


def test_merge_dial(demo):
    counts = [DinoSegmenter(merge=merge)(demo).n_labels
              for merge in (0, 0.1, 0.3, 0.5, 0.7, 0.9, 1)]
    # pieces too small to be kept may be kept if joined
    assert np.diff(counts).max() <= 0.02 * counts[0]
    assert max(counts) == counts[0] > counts[-1]


@pytest.mark.parametrize('bin_factor', [1, 2, 3])
def test_bin_factor(image, result, bin_factor):
    # the labels are on the pixels of the image, whatever the network sees
    binned = DinoSegmenter(bin_factor=bin_factor).segment(image)
    check_labels(binned.segmentation_image, image.shape)
    assert binned.probabilities.shape == (4, *image.shape)
    assert binned.background.shape == image.cube.shape
    agree = ((binned.segmentation_image.data > 0)
             == (result.segmentation_image.data > 0))
    assert agree.mean() > 0.7
    # by default, only what is oversampled is binned
    if bin_factor == 1:
        assert_array_equal(binned.fragments.data, result.fragments.data)


def test_min_seed(image):
    low, high = (find(DinoSegmenter(min_seed=p), image) for p in (0.2, 0.8))
    assert low.n_labels >= (0 if high is None else high.n_labels)


# ------------------------------------------------- mask, error, wcs, bands

def test_mask(finder, image, result):
    mask = np.zeros(image.shape, bool)
    mask[:, :60] = True
    found = finder.segment(image, mask=mask)
    assert not found.segmentation_image.data[mask].any()
    assert not found.fragments.data[mask].any()
    assert found.segmentation_image.n_labels > 0
    assert np.isinf(found.noise[:, mask]).all()
    # in one band alone a mask takes nothing away from the others
    of_one = np.zeros((4, *image.shape), bool)
    of_one[2, :, :60] = True
    segm = finder(image, mask=of_one)
    assert segm.data[:, :60].any()
    assert_array_equal(finder(image, mask=np.zeros_like(mask)).data,
                       result.segmentation_image.data)


def test_masked_array_and_nan_are_masked_alike(finder, cube):
    mask = np.zeros(cube.shape, bool)
    mask[:, 20:40, 30:60] = True
    expected = finder(cube, mask=mask).data
    assert_array_equal(finder(np.ma.array(cube, mask=mask)).data, expected)
    assert_array_equal(finder(NDData(cube, mask=mask)).data, expected)
    cube[mask] = np.nan
    assert_array_equal(finder(cube).data, expected)
    cube[mask] = np.inf
    assert_array_equal(finder(cube).data, expected)
    assert not expected[mask[0]].any()


def test_error(finder, image):
    for error in (2.0, [1, 2, 3, 4], np.full(image.shape, 2),
                  np.full(image.cube.shape, 2.0)):
        noise = finder.segment(image, error=error).noise
        wanted = np.asarray(error)
        if wanted.ndim == 1:
            wanted = wanted[:, None, None]
        assert_array_equal(noise, np.broadcast_to(wanted, noise.shape))
    # an object of no significance is none
    for error in (1e5, 1e30):
        assert find(finder, image, error=error) is None


def test_error_of_nddata(finder, image):
    error = np.full(image.cube.shape, 2.0)
    data = NDData(image.cube, uncertainty=StdDevUncertainty(error))
    result = finder.segment(data)
    assert_array_equal(result.noise, error)
    assert_array_equal(finder.segment(data, error=3).noise, error + 1)


def test_wcs(finder, image, result):
    wcs = make_wcs(shape=image.shape)
    for found, wanted in (
            (result, image.wcs),
            (finder.segment(image.cube, wcs=wcs), wcs),
            (finder.segment(NDData(image.cube, wcs=cube_wcs(
                image.cube.shape))), cube_wcs().celestial),
            (finder.segment(NDData(image.cube[0], wcs=image.wcs), wcs=wcs),
             wcs)):
        table = found.table
        sky = wanted.pixel_to_world(table['x_centroid'], table['y_centroid'])
        assert (table['sky_centroid'].separation(sky) < 1 * u.uas).all()
        assert found.image.wcs.naxis == 2
    assert 'sky_centroid' not in finder.segment(image.cube).table.colnames


def test_bands(finder, cube):
    table = finder.segment(cube, bands=['z', 'i', 'r', 'g']).table
    fluxes = [name for name in table.colnames if name.startswith('flux_')]
    assert fluxes == ['flux_g', 'flux_err_g', 'flux_r', 'flux_err_r',
                      'flux_i', 'flux_err_i', 'flux_z', 'flux_err_z']
    assert table.meta['bands'] == 'g,r,i,z'
    with_names = finder.segment(cube, bands='zirg')
    assert_array_equal(with_names.table['flux_z'], table['flux_z'])


# ---------------------------------------------------------- bad arguments

GOOD = np.random.default_rng(3).normal(size=(3, 40, 50))
HOLE = np.where(np.arange(50) < 5, -1.0, 1.0) * np.ones((40, 1))


@pytest.mark.parametrize(('data', 'kwargs', 'error', 'match'), [
    (np.zeros(5), {}, ValueError, r'data must be .*got shape \(5,\)'),
    (np.zeros((2, 3, 4, 5)), {}, ValueError,
     r'data must be .*got shape \(2, 3, 4, 5\)'),
    (np.zeros((40, 50, 3)), {}, ValueError, r'data .*\(40, 50, 3\)'),
    (5.0, {}, TypeError, 'data must be .*float'),
    (None, {}, TypeError, 'data must be .*NoneType'),
    (np.zeros((0, 5)), {}, ValueError, r'data is empty.*\(0, 5\)'),
    ([], {}, ValueError, 'data is an empty list'),
    ({}, {}, ValueError, 'data is an empty dict'),
    (GOOD + 1j, {}, TypeError, 'data must be .*complex128'),
    (GOOD.astype(str), {}, TypeError, 'data must be .*dtype <U'),
    (np.full((3, 40, 50), np.nan), {}, ValueError,
     'data has no valid pixels: all are masked or not finite'),
    (GOOD, {'mask': True}, ValueError, 'data has no valid pixels'),
    (np.ma.masked_all((40, 50)), {}, ValueError, 'data has no valid pixels'),
    (GOOD, {'mask': np.zeros((50, 40), bool)}, ValueError,
     r'mask has shape \(50, 40\), but the image has shape \(3, 40, 50\)'),
    (GOOD, {'mask': np.zeros((40, 50))}, TypeError, 'mask must .*float64'),
    (GOOD, {'error': np.ones((50, 40))}, ValueError,
     r'error has shape \(50, 40\), but the image has shape \(3, 40, 50\)'),
    (GOOD, {'error': 0}, ValueError, r'error must be positive .*got 0.0'),
    (GOOD, {'error': -2}, ValueError, r'error must be positive .*got -2.0'),
    (GOOD, {'error': HOLE}, ValueError,
     r'error must be positive .*got -1.0 at 600 pixels'),
    (GOOD, {'error': 'low'}, TypeError, 'error must be .*dtype <U3'),
    (GOOD, {'error': 1 * u.Jy}, ValueError, 'error is in Jy, .*image, None'),
    (GOOD * u.s, {'error': 1 * u.Jy}, ValueError, 'error is in Jy, .*, s'),
    (GOOD, {'wcs': cube_wcs((3, 40, 50)).slice([slice(None)] * 3).sub(
        [1, 2, 3, 0, 0])}, ValueError, 'wcs has 5 axes.*must have 2'),
    (GOOD, {'wcs': 'TAN'}, TypeError, 'wcs must be .*got str'),
    (NDData(GOOD[0], wcs=cube_wcs((3, 40, 50))), {}, ValueError,
     'WCS of data has 3 axes'),
    (GOOD, {'bands': ['g', 'r']}, ValueError,
     r"bands must be 3 different names, .*got \['g', 'r'\]"),
    (GOOD, {'bands': ['g', 'g', 'r']}, ValueError, 'bands must be 3 diff'),
    (GOOD, {'bands': [1, 2, 3]}, TypeError, 'band must be a str, got 1'),
    ({'g': GOOD}, {}, ValueError, r"data\['g'\] must hold one band, .*3"),
    ({'g': GOOD[0], 'r': GOOD[0, 1:]}, {}, ValueError,
     r"band 'r' has shape \(39, 50\)"),
    ('no/such/file.fits', {}, FileNotFoundError, 'no/such/file.fits'),
    (__file__, {}, ValueError, 'test_segmenter.py.* cannot be read')])
@pytest.mark.filterwarnings('ignore::astropy.wcs.FITSFixedWarning')
def test_bad_input(finder, data, kwargs, error, match):
    with pytest.raises(error, match=match):
        finder(data, **kwargs)


@pytest.mark.parametrize(('uncertainty', 'match'), [
    (-1, 'uncertainty of data has negative values, down to -1.0'),
    (0, 'uncertainty of data must be positive')])
def test_bad_uncertainty(finder, uncertainty, match):
    data = NDData(GOOD, uncertainty=StdDevUncertainty(
        np.full(GOOD.shape, float(uncertainty))))
    with pytest.raises(ValueError, match=match):
        finder(data)


def test_unknown_reference():
    with pytest.raises(ValueError, match="reference 'u' is none of the bands"
                                         r" \['g', 'r', 'z'\]"):
        as_image(GOOD, bands='grz', reference='u')


@pytest.mark.parametrize(('name', 'values', 'match'), [
    ('n_pixels', [0, -3, 2.5, 5.0, True, '5', None, (5, 5), np.nan],
     'n_pixels must be a positive integer'),
    ('connectivity', [6, 0, 8.0, '8', None], 'connectivity must be 4 or 8'),
    ('n_sigma', [0, -1, np.nan, '3', True],
     'n_sigma must be a positive number or None'),
    ('merge', [-0.1, 1.1, np.nan, 'most', None, True],
     r'merge must be a number in \[0, 1\]'),
    ('min_seed', [0, 1, -1, np.nan, '0.3', None],
     r'min_seed must be a number in \(0, 1\)'),
    ('bin_factor', [0, -2, 2.0, '2', True, np.nan], 'bin_factor must be '),
    ('tile_size', [0, -640, 16, 641, 640.0, '640', None, True],
     'tile_size must be a multiple of 16'),
    ('bfloat16', [1, 'yes', np.nan], 'bfloat16 must be a bool or None'),
    ('symmetric', [1, 'yes', None], 'symmetric must be a bool'),
    ('device', ['nonsense', 'cuda:77', 3.5], 'device .*cannot be used')])
def test_bad_parameter(name, values, match):
    for value in values:
        finder = DinoSegmenter(**{name: value})
        with pytest.raises(ValueError, match=match) as caught:
            finder(GOOD)
        assert repr(value) in str(caught.value)
        assert '\n' not in str(caught.value)


def test_good_parameters_of_numpy():
    finder = DinoSegmenter(n_pixels=np.int64(5), connectivity=np.int16(8),
                           n_sigma=np.float32(3), merge=np.float32(0.5),
                           min_seed=np.float64(0.3), tile_size=np.int64(640))
    assert find(finder, GOOD) is None


@pytest.mark.parametrize('model', [3, b'weights', ['a'], np.ones(3)])
def test_bad_model_type(model):
    with pytest.raises(TypeError, match='model must be a Model, a path or '
                       f'None, got {type(model).__name__}'):
        DinoSegmenter(model=model)(GOOD)


def test_bad_weights(tmp_path, model_file):
    missing = tmp_path / 'missing.safetensors'
    with pytest.raises(FileNotFoundError, match='missing.safetensors'):
        DinoSegmenter(model=missing)(GOOD)
    corrupt = tmp_path / 'corrupt.safetensors'
    corrupt.write_bytes(model_file.read_bytes()[:100_000])
    with pytest.raises(ModelFileError, match='corrupt.safetensors.* not a r'):
        DinoSegmenter(model=corrupt)(GOOD)
    foreign = tmp_path / 'foreign.safetensors'
    save_file({'weight': torch.ones(3)}, foreign)
    with pytest.raises(ModelFileError, match='foreign.*has format None'):
        DinoSegmenter(model=str(foreign))(GOOD)
    with safe_open(model_file, 'pt') as stream:
        metadata = stream.metadata()
        keys = stream.keys()
        tensors = {key: stream.get_tensor(key) for key in keys}
    later = tmp_path / 'later.safetensors'
    save_file(tensors, later, {**metadata, 'format': 'astrodino_seg/999'})
    with pytest.raises(ModelFileError, match="'astrodino_seg/999', this ver"):
        DinoSegmenter(model=later)(GOOD)
    tensors.popitem()
    partial = tmp_path / 'partial.safetensors'
    save_file(tensors, partial, metadata)
    with pytest.raises(ModelFileError, match='do not fit their spec'):
        DinoSegmenter(model=partial)(GOOD)


# ------------------------------------------------- what is handed in stays

def test_arrays_are_not_changed(finder, cube):
    cube[:, 3:6, 3:9] = np.nan
    given = {'data': cube, 'threshold': np.full(cube.shape, 5.0),
             'mask': np.zeros(cube.shape, bool),
             'error': np.full(cube.shape, 2.0)}
    given['mask'][:, 50:60, 50:60] = True
    given['error'][0, 0, 0] = np.nan
    before = copy.deepcopy(given)
    result = finder.segment(**given)
    for name, array in given.items():
        assert_array_equal(array, before[name])
    for out in (result.image.cube, result.image.mask, result.image.noise,
                result.background, result.noise):
        for array in given.values():
            assert not np.shares_memory(out, array)


def test_read_only_arrays(finder, cube):
    expected = finder(cube).data
    cube.setflags(write=False)
    threshold = np.zeros(cube.shape[1:])
    threshold.setflags(write=False)
    assert_array_equal(finder(cube).data, expected)
    find(finder, cube, threshold)


def test_nddata_is_not_changed(finder, image, tmp_path):
    data = CCDData(image.cube.copy(), unit='nJy', wcs=image.wcs,
                   mask=image.cube > 300, meta={'BANDS': 'griz', 'A': 1},
                   uncertainty=StdDevUncertainty(image.cube * 0 + 2))
    before = copy.deepcopy(data)
    finder(data, 20 * u.nJy)
    assert_array_equal(data.data, before.data)
    assert_array_equal(data.mask, before.mask)
    assert_array_equal(data.uncertainty.array, before.uncertainty.array)
    assert dict(data.meta) == dict(before.meta)
    assert data.unit == before.unit
    assert data.wcs.to_header_string() == before.wcs.to_header_string()


def test_file_is_not_changed(finder, image, tmp_path):
    path = tmp_path / 'image.fits'
    header = image.wcs.to_header()
    header['BANDS'] = 'griz'
    fits.PrimaryHDU(image.cube, header).writeto(path)
    content = path.read_bytes()
    expected = masks(finder(image, 20))
    assert masks(finder(path, 20)) == expected
    assert masks(finder(str(path), 20)) == expected
    with fits.open(path) as hdus:
        before = hdus[0].header.tostring()
        assert masks(finder(hdus, 20)) == expected
        assert masks(finder(hdus[0], 20)) == expected
        assert hdus[0].header.tostring() == before
    assert path.read_bytes() == content


def test_image_is_not_changed(finder, image):
    before = copy.deepcopy(image)
    finder(image, 20)
    assert_array_equal(image.cube, before.cube)
    assert_array_equal(image.mask, before.mask)
    assert image.bands == before.bands
    assert image.order == before.order


# --------------------------------------------------------------- the model

def test_models(image, result, model, model_file, tmp_path):
    expected = result.segmentation_image.data
    for one in (None, model, model_file, str(model_file)):
        finder = DinoSegmenter(model=one)
        for _ in range(2):
            assert_array_equal(finder(image).data, expected)


def test_model_is_not_changed(image, model):
    own = copy.deepcopy(model).train()
    DinoSegmenter(model=own)(image)
    assert all(module.training for module in own.modules())
    assert all(p.requires_grad for p in own.parameters())
    before = model.state_dict()
    assert list(own.state_dict()) == list(before)
    for key, value in own.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_file_is_read_once(image, model_file, monkeypatch):
    read = []

    def counted(path=None):
        read.append(path)
        return load_model(path)

    monkeypatch.setattr(segmenter, 'load_model', counted)
    finder = DinoSegmenter(model=model_file)
    first, second = finder(image), finder(image)
    assert_array_equal(first.data, second.data)
    assert read == [model_file]
    finder.model = None
    finder(image)
    finder(image)
    assert read == [model_file, None]


def test_change_of_model(image, model):
    blind = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in blind.parameters():
            parameter.zero_()       # each pixel is a centre with p = 0.5
    finder = DinoSegmenter(min_seed=0.6)
    expected = finder(image).data
    finder.model = blind
    assert find(finder, image) is None
    finder.model = model
    assert_array_equal(finder(image).data, expected)
    # a model that is trained further is not remembered as it was
    own = finder.model = copy.deepcopy(model)
    assert_array_equal(finder(image).data, expected)
    own.load_state_dict(blind.state_dict())
    assert find(finder, image) is None


def test_bfloat16(demo):
    finder = DinoSegmenter(bfloat16=False)
    expected = finder(demo).data
    finder.bfloat16 = True
    found = finder(demo).data
    assert finder.model_.in_bfloat16
    scores = match_labels(expected, found)
    assert min(scores.precision, scores.recall, scores.sq) > 0.95
    finder.bfloat16 = None
    again = finder(demo).data
    assert_array_equal(again, found if finder.model_.in_bfloat16
                       else expected)


def test_change_of_device(image):
    finder = DinoSegmenter()
    expected = finder(image).data
    finder.device = 'nonsense'
    with pytest.raises(ValueError, match="device 'nonsense'"):
        finder(image)
    finder.device = 'cpu'
    assert_array_equal(finder(image).data, expected)


@pytest.mark.parametrize('clone', [
    copy.copy, copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))],
    ids=['copy', 'deepcopy', 'pickle'])
@pytest.mark.parametrize('own_model', [False, True])
def test_clones(image, model, clone, own_model):
    finder = DinoSegmenter(n_pixels=9, model=model if own_model else None)
    before = clone(finder)
    expected = finder(image).data
    after = clone(finder)
    for one in (before, after):
        assert repr(one) == repr(finder)
        assert_array_equal(one(image).data, expected)


# ------------------------------------------------------------- the result

def test_table_and_labels(image, result):
    table, segm = result.table, result.segmentation_image
    assert isinstance(table, QTable)
    assert_array_equal(table['label'], segm.labels)
    assert_array_equal(table['area'].value, segm.areas)
    assert table['area'].unit == u.pix**2
    assert table.colnames == [
        'label', 'class', 'p_star', 'p_galaxy', 'p_artifact',
        'group_confidence', 'n_fragments', 'area', 'x_centroid',
        'y_centroid', 'sky_centroid',
        *(f'{kind}_{band}' for band in image.bands
          for kind in ('flux', 'flux_err')),
        *(f'{kind}_{band}' for band in image.bands
          for kind in ('total_flux', 'total_flux_err')),
        'half_light_radius', 'flags']
    p = np.stack([table[f'p_{name}'] for name in CLASS_NAMES])
    assert_allclose(p.sum(axis=0), 1, rtol=1e-5)
    assert_array_equal(table['class'], np.array(CLASS_NAMES)[p.argmax(0)])
    assert (table['group_confidence'] >= 0).all()
    assert (table['group_confidence'] <= 1).all()
    assert table.meta['flags'] == ', '.join(
        f'{name}={bit}' for name, bit in FLAGS.items())
    for row, box in zip(table, segm.bbox):
        assert box.ixmin <= row['x_centroid'] <= box.ixmax - 1
        assert box.iymin <= row['y_centroid'] <= box.iymax - 1


def test_fluxes(image, result):
    segm, table = result.segmentation_image, result.table
    for band, data, back, noise, factor in zip(
            image.bands, image.cube, result.background, result.noise,
            result.noise_correlation):
        sums = ndimage.sum_labels((data - back).astype(float), segm.data,
                                  segm.labels)
        assert_allclose(table[f'flux_{band}'], sums, rtol=1e-5, atol=1e-3)
        catalog = SourceCatalog(data - back, segm, error=noise)
        assert_allclose(table[f'flux_{band}'], catalog.segment_flux,
                        rtol=1e-4, atol=1e-2)
        # the noise of resampled pixels adds up to more
        assert (factor >= 1).all()
        assert_allclose(table[f'flux_err_{band}'], catalog.segment_flux_err
                        * np.interp(0.5 * np.log(catalog.area.value),
                                    np.log(SIDES), factor), rtol=1e-4)


def test_units(finder, image):
    data = image.cube * u.nJy
    result = finder.segment(data, 20 * u.nJy, bands=image.bands)
    plain = finder.segment(image, 20)
    assert result.image.unit == u.nJy
    for name in ('flux_g', 'flux_err_z'):
        assert result.table[name].unit == u.nJy
        assert_allclose(result.table[name].value, plain.table[name])
        assert not isinstance(plain.table[name], u.Quantity)
    assert result.table['area'].unit == u.pix**2


def test_flux_of_pixels_masked_in_one_band(finder, image):
    mask = np.zeros(image.cube.shape, bool)
    mask[1, 40:50, 40:60] = True
    result = finder.segment(image, mask=mask)
    good = ~mask[1]
    light = np.where(good, image.cube[1] - result.background[1], 0)
    noise = np.where(good, result.noise[1], 0).astype(float)
    segm = result.segmentation_image
    assert_allclose(result.table['flux_r'], ndimage.sum_labels(
        light, segm.data, segm.labels), rtol=1e-5, atol=1e-3)
    n = ndimage.sum_labels(good, segm.data, segm.labels)
    factor = np.interp(0.5 * np.log(np.maximum(n, 1)), np.log(SIDES),
                       result.noise_correlation[1])
    assert_allclose(result.table['flux_err_r'], np.sqrt(ndimage.sum_labels(
        noise**2, segm.data, segm.labels)) * factor, rtol=1e-5)


def test_fragments(demo):
    # all pieces that were compared are joined, so that there are some
    result = DinoSegmenter(merge=1).segment(demo)
    segm, fragments = result.segmentation_image, result.fragments
    parents = fragments.deblended_label_to_parent
    children = fragments.parent_to_deblended_labels
    assert fragments.data.dtype == np.int32
    assert_array_equal(fragments.data > 0, segm.data > 0)
    assert children
    for label, row in zip(segm.labels, result.table):
        inside = np.unique(fragments.data[segm.data == label])
        if label in children:
            assert_array_equal(inside, np.sort(children[label]))
            assert row['n_fragments'] == len(inside) > 1
            assert all(parents[one] == label for one in inside)
        else:
            assert_array_equal(inside, [label])
            assert row['n_fragments'] == 1
    assert len(parents) == sum(len(one) for one in children.values())
    assert fragments.n_labels == result.table['n_fragments'].sum()


def test_class_map(image, result):
    p = result.probabilities
    assert p.dtype == np.float32
    assert p.shape == (4, *image.shape)
    assert p.min() >= 0
    assert_allclose(p.sum(axis=0), 1, rtol=1e-5)
    assert result.class_map.dtype == np.uint8
    assert_array_equal(result.class_map, p.argmax(axis=0))


def test_background_and_noise(image, result):
    assert result.image is image
    for array in (result.background, result.noise):
        assert array.shape == image.cube.shape
        assert np.isfinite(array).all()
    assert (result.noise > 0).all()


def test_result_is_frozen(result):
    with pytest.raises(AttributeError, match='cannot assign'):
        result.table = None


def test_result_pickles(result):
    again = pickle.loads(pickle.dumps(result))
    assert_array_equal(again.segmentation_image.data,
                       result.segmentation_image.data)
    assert list(again.fragments.parent_to_deblended_labels) == list(
        result.fragments.parent_to_deblended_labels)


# ------------------------------------------------------- constructed cases

@pytest.fixture
def drawn(monkeypatch):
    """A segmenter whose network draws the labels that it is told to."""
    def make(groups, **kwargs):
        n = int(groups.max())
        grouping = Grouping(groups.astype(np.int32), groups.astype(np.int32),
                            {}, np.arange(n), np.ones(n), np.ones(n, int))
        found = Instances(
            grouping=grouping, classes=np.eye(3)[np.arange(n) % 3],
            probabilities=np.full((4, *groups.shape), 0.25, np.float32))
        monkeypatch.setattr('astrodino_seg.result.find_all',
                            lambda *args, **kwargs: [found])
        return DinoSegmenter(**kwargs)
    return make


def test_flags(drawn):
    rng = np.random.default_rng(5)
    y, x = np.mgrid[:96, :96]
    data = rng.normal(size=(2, 96, 96))
    groups = np.zeros((96, 96), int)
    places = {'edge': (0, 40), 'disjoint': (20, 20), 'masked': (20, 60),
              'saturated': (50, 20), 'none': (50, 60), 'corner': (95, 95),
              'diagonal': (75, 30)}
    for label, (cy, cx) in enumerate(places.values(), start=1):
        r = np.hypot(y - cy, x - cx)
        groups[r < 6] = label
        data += 2000 * np.exp(-r**2 / 8)
    labels = {name: k for k, name in enumerate(places, start=1)}
    groups[30:33, 30:33] = labels['disjoint']       # an island
    groups[81:84, 36:39] = 0
    groups[79:82, 34:37] = labels['diagonal']       # touches by a corner
    data[1] = np.where(np.hypot(y - 50, x - 20) < 3, 1500.0, data[1])
    mask = np.zeros(groups.shape, bool)
    mask[20, 67] = True             # just outside of the label
    groups[20, 66] = labels['masked']
    table = drawn(groups).segment(data, mask=mask).table
    flags = dict(zip(places, table['flags'].tolist()))
    assert flags == {
        'edge': FLAGS['edge'], 'disjoint': FLAGS['disjoint'],
        'masked': FLAGS['masked'], 'saturated': FLAGS['saturated'],
        'none': 0, 'corner': FLAGS['edge'], 'diagonal': 0}


def test_measures_of_a_drawn_label(drawn):
    data = np.random.default_rng(5).normal(size=(1, 64, 64))
    groups = np.zeros((64, 64), int)
    groups[20:25, 30:41] = 1
    data[0, 20:25, 30:41] += 100
    result = drawn(groups).segment(data, error=1.0)
    row = result.table[0]
    assert row['area'] == 55 * u.pix**2
    assert_allclose([row['x_centroid'], row['y_centroid']], [35, 22],
                    atol=0.05)
    assert_allclose(row['flux_band0'], 5500, rtol=0.01)
    assert_allclose(row['flux_err_band0'], np.sqrt(55))
    assert row['class'] == 'star'


# ------------------------------------------------- sizes, bands and numbers

def test_tiled_is_close_to_whole(demo):
    whole = DinoSegmenter()(demo)
    tiled = DinoSegmenter(tile_size=192)(demo)
    for one, other in ((whole, tiled), (tiled, whole)):
        same = 0
        for label in one.labels:
            own = one.data == label
            ids, shared = np.unique(other.data[own], return_counts=True)
            best = ids[shared.argmax()]
            union = own.sum() + (other.data == best).sum() - shared.max()
            same += best > 0 and shared.max() > 0.5 * union
        assert same > 0.9 * one.n_labels


def test_tiles_of_a_small_image(image, result):
    # an image that fits into one tile is not cut, whatever the tile's size
    segm = DinoSegmenter(tile_size=1024)(image)
    assert_array_equal(segm.data, result.segmentation_image.data)


@pytest.mark.parametrize('n_bands', [1, 2, 3, 4, 5, 9])
def test_any_number_of_bands(finder, image, n_bands):
    cube = image.cube[np.arange(n_bands) % 4]
    result = finder.segment(cube)
    check_labels(result.segmentation_image, image.shape)
    assert result.segmentation_image.n_labels > 3
    assert f'flux_band{n_bands - 1}' in result.table.colnames
    assert f'flux_band{n_bands}' not in result.table.colnames


def test_one_band_is_two_dimensional(finder, image):
    plane = image.cube[1]
    expected = finder(plane).data
    assert expected.any()
    for same in (plane[None], [plane], {'r': plane}, plane[None, None]):
        assert_array_equal(finder(same).data, expected)


def test_band_without_pixels(finder, image):
    cube = image.cube.copy()
    cube[3] = np.nan
    with pytest.warns(AstroDinoUserWarning, match='no valid pixels'):
        result = finder.segment(cube)
    assert result.segmentation_image.n_labels > 3
    assert np.isnan(result.table['flux_band3']).all()
    assert np.isnan(result.table['flux_err_band3']).all()


def test_one_row(finder):
    """Its noise cannot be measured, and what to do is said."""
    with pytest.warns(AstroDinoUserWarning, match=(
            'cannot be measured in 1 x 40 pixels: pass error=, or reshape')):
        assert find(finder, np.random.default_rng(4).normal(
            size=(1, 40))) is None


def test_table_tells_what_it_is_of(tmp_path):
    """Version, weights, dials and input, as the products of a command."""
    path = tmp_path / 'field.fits'
    fits.writeto(path, as_image(SAMPLE).cube[:, :96, :96])
    model = load_model()
    tables = [DinoSegmenter(merge=0.4).segment(path, 0.5).table,
              next(DinoSegmenter(merge=0.4, model=model).segment_many(
                  [path], 0.5)).table]
    with path.open('rb') as stream:
        code = hashlib.file_digest(stream, 'sha256').hexdigest()
    for table, weights in zip(tables, ('grouping_tiny.safetensors ', '')):
        text = ' '.join(table.meta['HISTORY'])
        for word in (f'astrodino_seg {astrodino_seg.__version__}',
                     f'weights {weights}sha256', 'merge=0.4',
                     'threshold=0.5', f'field.fits sha256 {code[:16]}'):
            assert word in text
    table.write(tmp_path / 'table.fits')
    again = QTable.read(tmp_path / 'table.fits')
    assert again.meta['HISTORY'] == table.meta['HISTORY']


def test_repr_of_a_result(result):
    """One line, whatever is in it."""
    n = result.segmentation_image.n_labels
    assert repr(result).startswith(f'<SegmentationResult: {n} objects; <Image')
    assert '\n' not in repr(result)
    assert len(repr(result)) < 200


@pytest.mark.filterwarnings('ignore:the noise of')
@pytest.mark.parametrize('shape', [(5, 5), (1, 1), (1, 40), (40, 1), (2, 3),
                                   (16, 16), (17, 33), (31, 15)])
def test_tiny_images(finder, image, shape):
    cut = image.cube[:, 60:60 + shape[0], 60:60 + shape[1]]
    noise = np.random.default_rng(4).normal(size=shape)
    for data in (cut, noise):
        segm = find(finder, data)
        if segm is not None:
            check_labels(segm, shape)


def test_sides_that_no_patch_fits(finder, image, result):
    # the same objects where the image ends elsewhere
    for ny, nx in ((127, 125), (115, 128)):
        # not much less of it, so that the background is nearly the same
        segm = finder(image.cube[:, :ny, :nx])
        check_labels(segm, (ny, nx))
        whole = result.segmentation_image.data[:ny, :nx]
        agree = (segm.data > 0) == (whole > 0)
        assert agree.mean() > 0.8


@pytest.mark.parametrize('dtype', ['f8', '>f8', '>f4', 'i2', '>i2', 'u2',
                                   '>u2', 'i4', 'i8', 'f2'])
def test_numbers_of_any_type(finder, image, dtype):
    # whole numbers that all of these hold exactly
    cube = np.round(np.clip(4 * image.cube, -500, 1500)) + 500
    expected = finder(cube.astype('f4')).data
    assert expected.max() > 3
    assert_array_equal(finder(cube.astype(dtype)).data, expected)


@pytest.mark.parametrize('scale', [1e-20, 1e20])
def test_scale_of_the_values(finder, image, scale):
    result = finder.segment(image.cube * np.float32(scale))
    assert result.segmentation_image.n_labels > 3
    assert np.isfinite(result.table['flux_band0']).all()
    assert np.isfinite(result.table['flux_err_band0']).all()


def test_memory_layout(finder, image):
    expected = finder(image.cube).data
    assert_array_equal(finder(np.asfortranarray(image.cube)).data, expected)
    wide = np.zeros((4, *(2 * n for n in image.shape)), np.float32)
    wide[:, ::2, ::2] = image.cube
    assert_array_equal(finder(wide[:, ::2, ::2]).data, expected)
    turned = np.ascontiguousarray(image.cube[:, ::-1])
    assert_array_equal(finder(turned[:, ::-1]).data, expected)


def test_progress_bar(image, capsys):
    DinoSegmenter(progress_bar=True)(image)
    assert 'segmenting' in capsys.readouterr().err
    DinoSegmenter()(image)
    assert capsys.readouterr() == ('', '')
