# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the preprocess module.
"""

from dataclasses import asdict

import numpy as np
import pytest
from astropy.stats import SigmaClip
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from photutils.background import (
    Background2D,
    MedianBackground,
    SExtractorBackground,
    StdBackgroundRMS,
)
from scipy.signal import fftconvolve
from skimage.measure import block_reduce

from astrodino_seg.image import Image
from astrodino_seg.inputs.background import (
    SIDES,
    _boxes,
    background_mesh,
    correlation,
    correlation_of_area,
    sums_of_blocks,
)
from astrodino_seg.inputs.channels import (
    Normalised,
    PreprocessSpec,
    band_weights,
    fold,
    normalise,
)

FEW = settings(deadline=None, max_examples=15)
SPEC = PreprocessSpec()


def sky(shape, level=10.0, sigma=1.0, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(level, sigma, shape).astype(np.float32)


def make_image(cube, mask=None, noise=None):
    cube = np.array(cube, np.float32)
    mask = np.zeros(cube.shape, bool) if mask is None else mask
    cube[mask] = 0
    if noise is not None:
        noise = np.broadcast_to(np.float32(noise), cube.shape)
    return Image(cube=cube, mask=mask, noise=noise)


def stars(shape, n, seed=1, sigma=1.5):
    """Gaussians with a total S/N of hundreds."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:shape[0], :shape[1]]
    out = np.zeros(shape)
    for _ in range(n):
        x0, y0 = rng.uniform(0, shape[1]), rng.uniform(0, shape[0])
        out += rng.uniform(5, 50) * np.exp(
            -((x - x0)**2 + (y - y0)**2) / (2 * sigma**2))
    return out


# ------------------------------------------------------------- background

@pytest.mark.parametrize(('n_stars', 'tolerance'), [(0, 0.02), (60, 0.06)])
def test_flat_sky(n_stars, tolerance):
    shape = 320, 384
    data = sky(shape, 250, 3) + 3 * stars(shape, n_stars)
    background, rms = background_mesh(data, np.zeros(shape, bool), 64)
    assert background.shape == rms.shape == (5, 6)
    assert background.dtype == rms.dtype == np.float64
    assert abs(background.mean() - 250) < 3 * tolerance
    assert np.abs(background - 250).max() < 3 * (0.1 + tolerance)
    # clipping 3 sigma of a Gaussian leaves 98.7% of its sigma
    assert_allclose(rms, 3, rtol=0.08)


def test_photutils():
    """Within a fraction of the noise of photutils on a clean field."""
    shape = 320, 320
    y, x = np.mgrid[:320, :320]
    data = sky(shape) + 0.003 * x - 0.002 * y + stars(shape, 40)
    background, rms = background_mesh(data, np.zeros(shape, bool), 64)
    oracle = Background2D(data, 64, filter_size=3,
                          sigma_clip=SigmaClip(3, maxiters=10),
                          bkg_estimator=SExtractorBackground(),
                          bkg_rms_estimator=StdBackgroundRMS())
    centres = np.s_[32::64, 32::64]
    assert_allclose(background, oracle.background[centres], atol=0.2)
    assert abs((background - oracle.background[centres]).mean()) < 0.05
    assert_allclose(rms, oracle.background_rms[centres], rtol=0.08)


def galaxy(shape, re, peak):
    y, x = np.mgrid[:shape[0], :shape[1]]
    r = np.hypot(x - shape[1] / 2, (y - shape[0] / 2) / 0.7)
    return peak * np.exp(-1.68 * r / re)


def test_large_galaxy():
    """A galaxy larger than a box stays out of the background."""
    shape, edge = (512, 512), (slice(0, 64), slice(0, 64))
    light = galaxy(shape, 60, 30)
    data = sky(shape) + light
    background = normalise(make_image(data[None]), SPEC).background[0]
    assert light[200:312, 200:312].min() > 1.5
    assert np.abs(background - 10).max() < 1
    assert np.abs(background[edge] - 10).max() < 0.3
    # the same boxes with photutils
    oracle = Background2D(data, 64, filter_size=3,
                          bkg_estimator=MedianBackground()).background
    assert (oracle - 10).max() > 1.4


def test_gradient():
    """A tilted sky is followed, not taken for objects."""
    y, x = np.mgrid[:384, :384]
    true = 20 + 0.005 * x - 0.006 * y
    data = sky(true.shape, 0) + true
    background = normalise(make_image(data[None]), SPEC).background[0]
    inner = np.s_[32:-32, 32:-32]
    assert np.abs(background - true)[inner].max() < 0.4
    slopes = [np.diff(background[inner], axis=k).mean() for k in (1, 0)]
    assert_allclose(slopes, [0.005, -0.006], rtol=0.3)


def test_masked_boxes():
    """Boxes without data take the value of their neighbours."""
    shape = 256, 256
    mask = np.zeros(shape, bool)
    mask[:128, :128] = True
    data = np.where(mask, 1e6, sky(shape))
    background, rms = background_mesh(data, mask, 64)
    assert_allclose(background, 10, atol=0.25)
    assert_allclose(rms, 1, rtol=0.08)
    nothing = background_mesh(data, np.ones(shape, bool), 64)
    assert_array_equal(nothing, np.zeros((2, 4, 4)))


@pytest.mark.parametrize('box_size', [16, 20, 32, 64])
def test_boxes_use_own_pixels(box_size):
    """Each box is measured in its own place, also at ragged edges."""
    n = 3 * box_size - 5, 4 * box_size + 9
    number = np.add.outer(10 * (np.arange(n[0]) // box_size),
                          np.arange(n[1]) // box_size)
    values = _boxes(number, np.zeros(n, bool), box_size)
    assert values.shape[:2] == (3, 5)
    for y, x in np.ndindex(3, 5):
        found = values[y, x][np.isfinite(values[y, x])]
        assert len(found) >= 0.2 * (number == 10 * y + x).sum()
        assert (found == 10 * y + x).all()


@pytest.mark.parametrize('axis', [0, 1])
def test_boxes_are_fair(axis):
    """Odd and even columns, and the rows that are read, count alike."""
    stripes = np.indices((128, 192))[axis] // (2 if axis == 0 else 1) % 2
    values = _boxes(stripes, np.zeros(stripes.shape, bool), 64)
    assert values.shape == (2, 3, 1024)
    assert_array_equal(values.mean(axis=-1), 0.5)


@pytest.mark.parametrize('shape', [1.0, 9.0, 100.0])
def test_mode(shape):
    """One box against photutils, for skewed pixels."""
    rng = np.random.default_rng(2)
    data = 5 + rng.gamma(shape, 1 / np.sqrt(shape), (16, 16))
    mask = np.zeros((16, 16), bool)
    mask[3, 4] = True                      # an odd number has one median
    background, rms = background_mesh(data, mask, 16)
    clip = SigmaClip(3, maxiters=8)
    oracle = SExtractorBackground(sigma_clip=clip)
    assert_allclose(background, [[oracle(data[~mask])]], atol=0.03)
    assert_allclose(rms, [[clip(data[~mask]).std()]], rtol=0.01)



# ------------------------------------------------------------ correlation

def of_sum(side, kernel):
    """
    What smoothing white noise by a kernel does to sums over squares, in units
    of the smoothed pixels' own scatter: by the covariance of the pixels.
    """
    covariance = fftconvolve(kernel, kernel[::-1, ::-1])
    far = len(kernel) - 1
    lag = np.arange(-far, far + 1)
    pairs = np.maximum(side - np.abs(lag), 0)
    variance = (covariance * pairs[:, None] * pairs).sum()
    return np.sqrt(variance / covariance[far, far]) / side


KERNELS = [np.ones((1, 1)), np.ones((3, 3)), np.outer([1, 2, 1], [1, 2, 1]),
           np.ones((2, 2))]


@pytest.mark.parametrize('kernel', KERNELS, ids=lambda k: f'{k.ravel()[:3]}')
def test_correlation_of_smoothed_noise(kernel):
    noise = fftconvolve(np.random.default_rng(0).normal(size=(900, 900)),
                        kernel, mode='valid')
    sigma = np.full(noise.shape, np.sqrt((kernel**2).sum()))
    sky = np.ones(noise.shape, bool)
    sky[200:300, 100:500] = False
    factors = correlation(np.where(sky, noise, 1e3) / sigma, sky)
    wanted = [of_sum(side, kernel) for side in SIDES]
    assert_allclose(factors[:4], wanted[:4], rtol=0.03)
    assert_allclose(factors[4], wanted[4], rtol=0.06)
    # between the squares it is between their factors
    area = np.array([1, 4, 30, 256, 10**6])
    found = correlation_of_area(factors, area)
    assert_allclose(found[[0, 1, 3, 4]], factors[[0, 1, 4, 4]])
    assert min(factors[2:4]) <= found[2] <= max(factors[2:4])


@pytest.mark.parametrize('side', [2, 4, 8])
def test_sums_of_blocks(side):
    values = np.random.default_rng(0).normal(size=(37, 50))
    whole = values[:37 // side * side, :50 // side * side]
    assert_allclose(sums_of_blocks(values, side),
                    block_reduce(whole, side, np.sum))


def test_fold_row_by_row():
    """It makes no difference that an image is folded a part at a time."""
    rng = np.random.default_rng(0)
    sn = rng.normal(size=(4, 700, 60)).astype(np.float32)
    valid = rng.random(sn.shape) > 0.1
    valid[:, :300] = True
    sn[~valid] = 0
    parts = [fold(zip(sn[:, k:k + 100], valid[:, k:k + 100]), 4, SPEC)
             for k in range(0, 700, 100)]
    assert_array_equal(fold(zip(sn, valid), 4, SPEC),
                       np.concatenate(parts, axis=1))


def test_correlation_of_few_pixels():
    """Where squares are too few, that of smaller ones; none is less than 1."""
    one = np.ones((8, 8))
    assert_array_equal(correlation(one, one > 2), np.ones(len(SIDES)))
    alternating = np.indices((64, 64)).sum(axis=0) % 2 - 0.5
    assert_array_equal(correlation(alternating, np.ones((64, 64), bool)),
                       np.ones(len(SIDES)))


def test_sums_of_smooth_noise_are_in_noise_units():
    """A smooth band weighs what its sums are worth, not its pixels."""
    white, other = np.random.default_rng(1).normal(size=(2, 512, 512))
    smooth = fftconvolve(np.pad(other, 1), np.ones((3, 3)) / 3, mode='valid')
    normalised = normalise(make_image([white, smooth]), SPEC)
    assert_allclose(normalised.noise, 1, rtol=0.1)      # of pixels
    blue, red = np.sinh(normalised.channels[[1, 3]])
    assert_allclose([part.reshape(64, 8, 64, 8).sum(axis=(1, 3)).std()
                     for part in (blue, red)], 8, rtol=0.15)


# ------------------------------------------------------------------ bands

def test_band_weights_hand():
    sixth = 1 - 0.5 / 0.6
    assert_allclose(band_weights(3), [[1, sixth, 0], [sixth, 1, sixth],
                                      [0, sixth, 1]], atol=1e-6)
    assert_allclose(band_weights(2), [[1, 0], [sixth, sixth], [0, 1]],
                    atol=1e-6)
    assert_array_equal(band_weights(1), np.ones((3, 1)))
    assert_allclose(band_weights(3, 1), [[sixth, 1, sixth]], atol=1e-6)


@pytest.mark.parametrize('n_slots', [1, 2, 3, 5])
@pytest.mark.parametrize('n_bands', range(1, 12))
def test_band_weights(n_bands, n_slots):
    weights = band_weights(n_bands, n_slots)
    assert weights.shape == (n_slots, n_bands)
    assert weights.dtype == np.float32
    assert (weights >= 0).all()
    assert (weights.max(axis=1) > 0).all()
    # red is to blue as blue to red
    assert_allclose(weights, weights[::-1, ::-1], atol=1e-6)
    if n_bands == n_slots:
        assert_array_equal(weights.argmax(axis=1), np.arange(n_bands))
    # each slot prefers redder bands than the one before
    assert (np.diff(weights.argmax(axis=1)) >= 0).all()


# -------------------------------------------------------------- normalise

def slots_of(normalised):
    """The slots in S/N: the stretch undone."""
    return np.sinh(normalised.channels[:-1].astype(float))


@pytest.mark.parametrize('n_bands', range(1, 10))
def test_unit_noise(n_bands):
    """Pure noise has unit standard deviation in every slot."""
    cube = np.stack([sky((160, 160), 5 * b, 1 + b, seed=b)
                     for b in range(n_bands)])
    found = normalise(make_image(cube), SPEC)
    assert found.channels.shape == (SPEC.n_channels, 160, 160)
    assert found.channels.dtype == np.float32
    assert found.background.dtype == found.noise.dtype == np.float32
    slots = slots_of(found)
    assert_allclose(slots.std(axis=(1, 2)), 1, atol=0.06)
    assert_allclose(slots.mean(axis=(1, 2)), 0, atol=0.1)
    assert (found.channels[-1] == 1).all()


def reference(image, found, spec=SPEC):
    """Channels pixel by pixel, from the background and noise found."""
    n_bands, ny, nx = image.cube.shape
    weights = [np.ones(n_bands), *band_weights(n_bands, spec.n_slots)]
    out = np.zeros((len(weights) + 1, ny, nx))
    for y, x in np.ndindex(ny, nx):
        good = [b for b in range(n_bands) if not image.mask[b, y, x]]
        out[-1, y, x] = len(good) / n_bands
        for k, w in enumerate(weights):
            used = [b for b in good if w[b] > 0]
            if not used:       # the combination's value, which comes first
                out[k, y, x] = out[0, y, x] if k else 0
                continue
            value = sum(w[b] * (image.cube[b, y, x]
                                - float(found.background[b, y, x]))
                        / image.noise[b, y, x] for b in used)
            value /= np.sqrt(sum(w[b]**2 for b in used))
            out[k, y, x] = np.arcsinh(value / spec.softening)
    return out


@pytest.mark.parametrize('n_bands', [1, 2, 3, 5])
def test_missing_bands(n_bands):
    """Every pixel uses the bands that it has."""
    rng = np.random.default_rng(3)
    cube = rng.normal(3, 4, (n_bands, 24, 30))
    mask = rng.random(cube.shape) < 0.4
    mask[:, 5, 5] = True
    noise = rng.uniform(1, 5, cube.shape)
    image = make_image(cube, mask, noise)
    spec = PreprocessSpec(softening=2.5)
    found = normalise(image, spec)
    assert_allclose(found.channels, reference(image, found, spec),
                    atol=2e-5)
    assert_array_equal(np.isinf(found.noise), mask)
    assert_array_equal(found.noise[~mask], image.noise[~mask])
    assert (found.channels[:, 5, 5] == 0).all()
    assert np.isfinite(found.channels).all()


def test_given_noise():
    """The noise of the image is used and not the one measured."""
    cube = sky((2, 96, 96), 10, 3)
    one = slots_of(normalise(make_image(cube, noise=3), SPEC))
    two = slots_of(normalise(make_image(cube, noise=6), SPEC))
    assert_allclose(one, 2 * two, rtol=1e-4, atol=1e-4)
    assert_allclose(one.std(axis=(1, 2)), 1, atol=0.04)


def test_optimal():
    """A flat spectrum in S/N gains the root of the number of bands."""
    cube = np.zeros((4, 64, 64))
    cube[:, 32, 32] = 3
    cube += 1e-3 * sky((4, 64, 64), 0)
    found = slots_of(normalise(make_image(cube, noise=1), SPEC))
    assert_allclose(found[0, 32, 32], 3 * np.sqrt(4), rtol=0.01)


def test_nothing_valid():
    image = make_image(np.ones((2, 40, 40)), np.ones((2, 40, 40), bool))
    found = normalise(image, SPEC)
    assert (found.channels == 0).all()
    assert np.isinf(found.noise).all()


def test_empty_band():
    """A band without data changes nothing but the valid fraction."""
    cube = sky((1, 96, 96))
    mask = np.zeros((2, 96, 96), bool)
    mask[1] = True
    two = normalise(make_image(np.concatenate([cube, cube]), mask), SPEC)
    one = normalise(make_image(cube), SPEC)
    assert_allclose(two.channels[:-1], one.channels[:-1], atol=1e-5)
    assert (two.channels[-1] == 0.5).all()


def test_constant_image():
    """Without noise there is nothing to measure."""
    found = normalise(make_image(np.full((1, 64, 64), 7.0)), SPEC)
    assert (found.channels == 0).all()


def test_image_unchanged():
    cube = sky((2, 70, 80))
    mask = np.zeros(cube.shape, bool)
    mask[0, :9] = True
    image = make_image(cube, mask, 1.5)
    before = [a.copy() for a in (image.cube, image.mask, image.noise)]
    for array in (image.cube, image.mask):
        array.flags.writeable = False
    assert isinstance(normalise(image, SPEC), Normalised)
    for a, b in zip(before, (image.cube, image.mask, image.noise)):
        assert_array_equal(a, b)


@FEW
@given(st.floats(-3, 3), st.floats(-100, 100), st.booleans())
def test_scale_and_offset(exponent, offset, with_noise):
    """Units and the level of the sky do not matter."""
    scale = 10.0**exponent
    cube = sky((3, 96, 80), 0, 2) + stars((96, 80), 10)
    noise = 2.0 if with_noise else None
    image = make_image(cube, noise=noise)
    other = make_image(scale * (cube + offset),
                       noise=scale * noise if with_noise else None)
    assert_allclose(normalise(other, SPEC).channels,
                    normalise(image, SPEC).channels, atol=2e-3)


@pytest.mark.parametrize('shape', [
    (5, 7), (16, 16), (17, 31), (63, 64), (65, 200), (8, 300), (299, 130)])
def test_shapes(shape):
    cube = sky((2, *shape), 30, 2)
    found = normalise(make_image(cube), SPEC)
    assert found.channels.shape == (5, *shape)
    assert_allclose(found.noise, 2, rtol=0.5)
    assert_allclose(found.background, 30, atol=2)
    assert_allclose(np.median(found.background), 30, atol=0.7)


@pytest.mark.parametrize('shape', [(1, 1), (1, 40), (3, 4)])
def test_too_small_for_noise(shape):
    """Noise that is not given cannot be measured in a few pixels."""
    cube = sky((1, *shape))
    assert (normalise(make_image(cube), SPEC).channels == 0).all()
    assert (normalise(make_image(cube, noise=1), SPEC).channels[-1]
            == 1).all()


@pytest.mark.parametrize('n_slots', [1, 2, 4])
def test_spec(n_slots):
    spec = PreprocessSpec(n_slots=n_slots, box_size=32, softening=2.0)
    assert PreprocessSpec(**asdict(spec)) == spec
    found = normalise(make_image(sky((2, 64, 64))), spec)
    assert len(found.channels) == spec.n_channels == n_slots + 2


@pytest.mark.parametrize(('name', 'value', 'match'), [
    ('box_size', 8, 'box_size must be a multiple of 4, 16 or more, got 8'),
    ('n_slots', 0, 'n_slots must be positive, got 0'),
    ('softening', -1.0, r'softening must be positive, got -1\.0')])
def test_impossible_spec(name, value, match):
    with pytest.raises(ValueError, match=match):
        PreprocessSpec(**{name: value})
