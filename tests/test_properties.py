# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What must hold of every image that somebody may hand in, on images that
hypothesis draws: some in the suite, 10,000 of each property with::

    HYPOTHESIS_PROFILE=nightly pytest tests/test_properties.py \
        --hypothesis-show-statistics
"""

import warnings

import numpy as np
import torch
from astropy.nddata import (
    InverseVariance,
    NDData,
    StdDevUncertainty,
    VarianceUncertainty,
)
from helpers import make_wcs
from hypothesis import event, given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from photutils.utils.exceptions import NoDetectionsWarning

from astrodino_seg import DinoSegmenter, as_image
from astrodino_seg.errors import AstroDinoUserWarning, EmptyImageError

NAMES = 'ugrizy'
SIDES = st.one_of(st.integers(1, 40), st.integers(24, 64))
DTYPES = ('>f4', '<f4', '>f8', '<f8', '<f2', '>i2', '<i4', '<u2', '<i8', 'u1')
UNITS = (None, 'adu', 'electron / s', 'nJy', 'MJy / sr')
WCSS = (None, {}, {'angle': 30, 'scale': 0.05}, {'ctype': 'CAR'})
UNCERTAINTIES = {StdDevUncertainty: 1, VarianceUncertainty: 2,
                 InverseVariance: -2}


@st.composite
def cubes(draw):
    """
    Pixels (band, y, x) and the noise in them.

    Round objects on noise, or nothing, or one value; of any dtype and byte
    order; some pixels, or a part of the image, may be no numbers.
    """
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n_bands = draw(st.integers(1, len(NAMES)))
    ny, nx = draw(SIDES), draw(SIDES)
    scale = 10.0**draw(st.integers(-6, 6))
    noise = draw(st.sampled_from([1.0, 1.0, 1.0, 0.0]))
    cube = draw(st.sampled_from([0.0, 3.0, -50.0, 1e4])) + (
        noise * rng.normal(size=(n_bands, ny, nx)))
    y, x = np.mgrid[:ny, :nx]
    for _ in range(draw(st.integers(0, 8))):
        y0, x0 = rng.uniform(-5, ny + 5), rng.uniform(-5, nx + 5)
        shape = np.exp(-((x - x0)**2 + (y - y0)**2)
                       / (2 * rng.uniform(0.7, 12)**2))
        peaks = 10**rng.uniform(0.5, 4) * rng.uniform(0.2, 1, n_bands)
        cube += peaks[:, None, None] * shape
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    if dtype.kind in 'iu':
        info, scale = np.iinfo(dtype), 1.0
        cube = cube.round().clip(info.min, info.max)
    elif dtype.itemsize == 2:
        scale, cube = 1.0, cube.clip(-6e4, 6e4)
    cube = (cube * scale).astype(dtype)
    if dtype.kind == 'f':
        for value in draw(st.lists(st.sampled_from(
                [np.nan, np.inf, -np.inf]), max_size=2)):
            cube[rng.random(cube.shape) < rng.choice([1e-3, 0.1])] = value
        cube[..., :draw(st.sampled_from([0, 0, 0, nx // 3, nx]))] = np.nan
    return cube, max(noise, 0.1) * scale


@st.composite
def inputs(draw):
    """An `NDData`, what else is told of it, and its noise."""
    cube, noise = draw(cubes())
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = cube.shape[1:]
    mask = uncertainty = None
    if draw(st.booleans()):
        mask = rng.random(draw(st.sampled_from([shape, cube.shape]))) < draw(
            st.sampled_from([0.01, 0.3, 0.3, 1.0]))
    kind = draw(st.sampled_from([None, *UNCERTAINTIES]))
    if kind is not None:
        error = np.full(cube.shape, noise)**UNCERTAINTIES[kind]
        error[rng.random(cube.shape) < 0.01] = draw(st.sampled_from(
            [np.nan, 0 if kind is InverseVariance else np.inf]))
        uncertainty = kind(error)
    cube = laid_out(cube, draw(st.sampled_from(
        ['C', 'F', 'reversed', 'strided', 'read-only'])))
    wcs = draw(st.sampled_from(WCSS))
    options = {'wcs': None if wcs is None else make_wcs(shape=shape, **wcs),
               'bands': draw(st.permutations(NAMES))[:len(cube)]}
    data = NDData(cube, uncertainty, mask, unit=draw(st.sampled_from(UNITS)))
    return data, options, noise


def laid_out(cube, layout):
    """The same values in another layout of memory."""
    if layout == 'F':
        return np.asfortranarray(cube)
    if layout == 'reversed':
        return cube[:, ::-1, ::-1].copy()[:, ::-1, ::-1]
    if layout == 'strided':
        wide = np.zeros((*cube.shape[:2], 2 * cube.shape[2]), cube.dtype)
        wide[..., ::2] = cube
        return wide[..., ::2]
    cube = cube.copy()
    cube.flags.writeable = layout != 'read-only'
    return cube


DIALS = st.fixed_dictionaries({
    'n_pixels': st.integers(1, 60), 'connectivity': st.sampled_from([4, 8]),
    'n_sigma': st.sampled_from([None, None, 0.5, 3, 1e6]),
    'merge': st.floats(0, 1), 'min_seed': st.floats(0.01, 0.99),
    'bin_factor': st.sampled_from([None, 1, 2, 64])})
ONE = DinoSegmenter()       # reads its weights once


def segment(finder, data, threshold=None, **options):
    """The result, `None`, or the only error that may be."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', AstroDinoUserWarning)
        warnings.simplefilter('ignore', NoDetectionsWarning)
        try:
            return finder.segment(data, threshold, **options)
        except EmptyImageError as err:  # no valid pixel
            return err


def told(result):
    """What came out, for the statistics."""
    event('nothing found' if result is None else 'refused'
          if isinstance(result, EmptyImageError) else 'labels')


@given(inputs(), DIALS, st.sampled_from([None, None, 0, 5, 1e3]))
def test_valid_or_refused(given, dials, threshold):
    data, options, noise = given
    if threshold is not None:
        threshold = threshold * noise * (data.unit or 1)
    before = [None if one is None else one.tobytes() for one in (
        data.data, data.mask, data.uncertainty and data.uncertainty.array)]
    finder = DinoSegmenter(**dials, model=ONE._fetch_model())
    result = segment(finder, data, threshold, **options)
    told(result)
    assert before == [None if one is None else one.tobytes() for one in (
        data.data, data.mask, data.uncertainty and data.uncertainty.array)]
    if result is None or isinstance(result, EmptyImageError):
        return
    labels, table = result.segmentation_image.data, result.table
    assert labels.dtype == np.int32
    assert labels.shape == data.data.shape[1:]
    assert_array_equal(np.unique(labels[labels > 0]), table['label'])
    assert_array_equal(table['label'], 1 + np.arange(len(table)))
    assert not labels[result.image.mask.all(axis=0)].any()
    assert_array_equal(result.fragments.data > 0, labels > 0)
    assert_array_equal(np.bincount(labels.ravel())[1:],
                       table['area'].value)
    assert (result.class_map < 4).all()
    assert np.isfinite(result.probabilities).all()
    assert np.isfinite(result.background).all()
    assert (result.noise > 0).all()
    assert ('sky_centroid' in table.colnames) == (options['wcs'] is not None)


@given(cubes(), st.permutations(NAMES), st.randoms())
def test_what_changes_nothing(given, names, random):
    cube, _ = given
    bands = names[:len(cube)]
    first = segment(ONE, cube, bands=bands)
    told(first)
    order = random.sample(range(len(cube)), len(cube))
    others = {
        'memory': (np.asfortranarray(cube), bands),
        'byte order': (cube.astype(cube.dtype.newbyteorder()), bands),
        'bands': (cube[order], [bands[k] for k in order])}
    if cube.dtype.kind == 'f' and cube.dtype.itemsize > 2:
        others['scale'] = cube * cube.dtype.type(4), bands
    if not isinstance(first, EmptyImageError):
        others['as an Image'] = quiet_image(cube, bands), None
    for what, (other, its) in others.items():
        again = segment(ONE, other, bands=its)
        assert type(again) is type(first), what
        if hasattr(first, 'table'):
            assert_array_equal(again.segmentation_image.data,
                               first.segmentation_image.data, what)


@given(cubes())
def test_threads(given):
    """Labels are the same whatever the number of threads."""
    cube, _ = given
    before, found = torch.get_num_threads(), []
    try:
        for n_threads in (1, 2):
            torch.set_num_threads(n_threads)
            found.append(segment(ONE, cube))
    finally:
        torch.set_num_threads(before)
    one, other = found
    told(one)
    assert type(one) is type(other)
    if hasattr(one, 'table'):
        assert_array_equal(one.segmentation_image.data,
                           other.segmentation_image.data)


def quiet_image(cube, bands):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', AstroDinoUserWarning)
        return as_image(cube, bands=bands)
