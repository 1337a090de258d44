# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the train.views and train.exposures modules.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.ndimage import gaussian_filter

from astrodino_seg.image import Image
from astrodino_seg.inputs.channels import (
    PreprocessSpec,
    fold,
    normalise,
    signal_to_noise,
)
from astrodino_seg.train.exposures import (
    Exposure,
    bright_blocks,
    choose_bands,
    cut_gaps,
    drop_bands,
    expose,
    extinction,
    fill_noise,
    lower_depth,
    offset_sky,
    psf_sigma,
    redden,
    resample,
    rotate,
    turn,
)
from astrodino_seg.train.views import (
    RATES,
    check_rates,
    draw_square,
    make_view,
)

FEW = settings(deadline=None, max_examples=25)
SPEC = PreprocessSpec()
GRIZ = (0.48, 0.62, 0.76, 0.9)


def rng(seed=0):
    return np.random.default_rng(seed)


def exposure(signal, valid=None, *, variance=1.0, grain=0.0, waves=None):
    signal = np.array(signal, np.float32)
    valid = np.ones(signal.shape, bool) if valid is None else valid
    signal[~valid] = 0
    return Exposure(
        signal, valid, np.full((len(signal), 1, 1), variance, np.float32),
        grain, np.array(GRIZ[:len(signal)] if waves is None else waves))


def noise(n_bands=3, n=160, *, grain=0.0, seed=0):
    values = rng(seed).standard_normal((n_bands, n, n))
    if grain:
        values = gaussian_filter(values, (0, grain, grain))
    return values / values.std()


def grain_of(values):
    """From the correlation of neighbours, exp(-1 / (4 grain^2))."""
    alike = np.corrcoef(values[..., 1:].ravel(), values[..., :-1].ravel())
    return 0.5 / np.sqrt(-np.log(alike[0, 1])) if alike[0, 1] > 0.01 else 0


def blob(n, x, y, sigma):
    yy, xx = np.mgrid[:n, :n]
    return np.exp(-((xx - x)**2 + (yy - y)**2) / (2 * sigma**2))


def moments(image):
    """Sum, centre (x, y) and mean second moment."""
    yy, xx = np.indices(image.shape)
    total = image.sum(dtype=float)
    x, y = (xx * image).sum() / total, (yy * image).sum() / total
    return total, x, y, (((xx - x)**2 + (yy - y)**2) * image).sum() / 2 / total


# ------------------------------------------------------------------ light

def test_extinction():
    """
    Schlafly & Finkbeiner 2011, Table 6, SDSS bands, R_V = 3.1.

    They give A over the E(B-V) of the map, of which stars show 0.86.
    """
    table = {.3551: 4.239, .4686: 3.303, .6166: 2.285, .7480: 1.698,
             .8932: 1.263}
    assert_allclose(extinction(list(table)),
                    np.array(list(table.values())) / 0.86, rtol=0.05)
    # what E(B-V) and R_V mean
    blue, visual = extinction([0.438, 0.545])
    assert_allclose([blue - visual, visual], [1, 3.1], rtol=0.05)
    infrared = extinction([2.2, 4.4, 20])
    assert (np.diff(infrared) < 0).all()
    assert (infrared > 0).all()
    assert extinction(0.15) == extinction(0.26) == pytest.approx(6.591)


def test_redden():
    """By hand: A_V = 3.055 E(B-V) at 0.547 micron."""
    before = exposure(np.full((2, 4, 4), 8.0), waves=(0.547, 1.22))
    after = redden(rng(), before, ebv=(0.2, 0.2))
    gain = [10**(-0.4 * 0.2 * 3.055), 10**(-0.4 * 0.2 * 0.829)]
    assert_allclose(after.signal[:, 0, 0], np.multiply(8, gain), rtol=1e-6)
    assert_allclose(after.variance[:, 0, 0], np.square(gain), rtol=1e-6)
    assert_array_equal(before.signal, 8)
    unknown = exposure(np.ones((2, 4, 4)), waves=(0.5, np.nan))
    assert redden(rng(), unknown) is unknown


def test_depth():
    """In the old unit the light stays and the noise is what was asked."""
    light = 20 * blob(200, 100, 100, 8)
    before = exposure(light + noise(2, 200))
    after = fill_noise(rng(1), lower_depth(rng(), before, factor=(2.5, 2.5),
                                           scatter=1))
    assert_allclose((2.5 * after.signal - light).std(axis=(1, 2)), 2.5,
                    rtol=0.02)
    added = 2.5 * after.signal - before.signal
    assert_allclose(added.var(axis=(1, 2)), 2.5**2 - 1, rtol=0.03)
    assert abs(np.corrcoef(added[0].ravel(), added[1].ravel())[0, 1]) < 0.02


def test_depth_keeps_colours():
    for seed in range(20):
        after = lower_depth(rng(seed), exposure(np.ones((4, 2, 2))))
        factor = 1 / after.signal[:, 0, 0]
        assert 1 <= factor.min() <= factor.max() <= 1.25 * 4
        assert factor.max() / factor.min() <= 1.25


# ----------------------------------------------------------------- camera

@pytest.mark.parametrize('grain', [0, 0.8])
def test_psf_of_a_gaussian(grain):
    before = exposure([100 * blob(81, 40.3, 38.6, 1.7)] * 2, grain=grain)
    after = resample(before, (0, 0), 1, 81, sigma=[0.9, 2.2])
    for image, sigma in zip(after.signal, (0.9, 2.2)):
        total, x, y, second = moments(image)
        assert_allclose(total, before.signal[0].sum(), rtol=1e-5)
        assert_allclose([x, y], [40.3, 38.6], atol=1e-4)
        assert_allclose(second, 1.7**2 + sigma**2, rtol=2e-3)


def test_psf_does_not_fill_gaps():
    valid = np.ones((1, 21, 21), bool)
    valid[0, 10] = False
    after = resample(exposure(np.full((1, 21, 21), 3.0), valid), (0, 0), 1, 21,
                   sigma=[2.0])
    assert_array_equal(after.valid, valid)
    assert_allclose(after.signal, np.where(valid, 3, 0), rtol=1e-5)


def test_psf_sigma():
    drawn = np.array([psf_sigma(rng(k), 3) for k in range(50)])
    assert drawn.shape == (50, 3)
    assert drawn.min() >= 0.5 / 1.2
    assert drawn.max() <= 2 * 1.2
    assert (drawn.max(axis=1) / drawn.min(axis=1)).max() <= 1.2**2


@pytest.mark.parametrize('scale', [2, 3])
def test_larger_pixels(scale):
    """Means of blocks, times the side of the pixels."""
    before = exposure(noise(2, 24), variance=0.5)
    after = resample(before, (0, 6), scale, 6)
    part = before.signal[:, :6 * scale, 6:6 + 6 * scale]
    blocks = part.reshape(2, 6, scale, 6, scale)
    assert_allclose(after.signal, scale * blocks.mean(axis=(2, 4)),
                    atol=1e-5)
    assert_allclose(after.variance, 0.5, rtol=1e-5)


def test_smaller_pixels():
    """Interpolated; the S/N falls with the side of the pixels."""
    ramp = np.mgrid[:16, :16][0] + 10.0
    after = resample(exposure([ramp]), (4, 4), 0.5, 12)
    # middles of the new pixels, in old ones
    where = 4 + 0.5 * (np.arange(12) + 0.5) - 0.5
    assert_allclose(after.signal[0], 0.5 * (10 + where)[:, None]
                    * np.ones(12), rtol=1e-5)
    # weights 1/4 and 3/4 along either axis
    assert_allclose(after.variance, 0.25 * (10 / 16)**2, rtol=1e-5)


def test_copied_pixels():
    """Without a change of scale pixels are copied, and may be resampled."""
    before = exposure(noise(2, 40))
    after = resample(before, (3, 7), 1, 20)
    assert_array_equal(after.signal, before.signal[:, 3:23, 7:27])
    nearly = resample(before, (3, 7), 1 + 1e-6, 20)
    assert_allclose(nearly.signal, after.signal, atol=1e-3)
    assert_allclose(nearly.variance, 1, atol=1e-3)


def test_camera_gaps():
    """A new pixel is valid if half of it is, and knows what it lost."""
    valid = np.ones((1, 8, 8), bool)
    valid[0, 0, :2] = False             # half of the first 2 x 2
    valid[0, 2:4, 2:4] = False
    valid[0, 4, 4] = False              # a quarter
    before = exposure(np.full((1, 8, 8), 5.0), valid)
    after = resample(before, (0, 0), 2, 4)
    expected = np.ones((4, 4), bool)
    expected[0, 0] = expected[1, 1] = False
    assert_array_equal(after.valid[0], expected)
    assert_allclose(after.signal[0], np.where(expected, 10, 0))
    # the mean of three pixels, times two
    assert_allclose(after.variance[0, 2, 2], 4 / 3)
    outside = resample(exposure(np.ones((2, 8, 8))), (-4, 0), 1, 8)
    assert_array_equal(outside.valid.all(axis=(0, 2)), [False] * 4
                       + [True] * 4)


def test_eight_turns():
    before = exposure(noise(2, 5), noise(2, 5, seed=1) > -1)
    images = set()
    for seed in range(60):
        after = turn(rng(seed), before)
        assert_array_equal(after.signal != 0, after.valid)
        images.add(after.signal.tobytes())
    expected = {np.rot90(part, k, axes=(1, 2)).tobytes() for k in range(4)
                for part in (before.signal, before.signal[:, :, ::-1])}
    assert images == expected
    assert len(expected) == 8


@pytest.mark.parametrize('angle', [0, np.pi / 2])
def test_rotate_exactly(angle):
    before = exposure(noise(2, 24), noise(2, 24, seed=1) > -1)
    after = rotate(before, angle, 16)
    turns = round(angle / (np.pi / 2))
    for name, atol in (('signal', 1e-4), ('valid', 0)):
        part = getattr(before, name)[:, 4:-4, 4:-4]
        assert_allclose(getattr(after, name),
                        np.rot90(part, -turns, axes=(1, 2)), atol=atol)


def test_rotate():
    before = exposure([blob(61, 40, 30, 3)])
    _, x, y, second = moments(rotate(before, np.radians(30), 41).signal[0])
    # ten pixels from the middle, turned from x to y
    assert_allclose([x - 20, y - 20], [10 * np.cos(np.pi / 6),
                                       10 * np.sin(np.pi / 6)], atol=0.02)
    assert_allclose(second, 9, rtol=0.05)
    corners = rotate(exposure(np.ones((1, 40, 40))), np.pi / 4, 40).valid[0]
    assert not corners[[0, 0, -1, -1], [0, -1, 0, -1]].any()
    # a square and the same one turned by 45 degrees share an octagon
    assert_allclose(corners.mean(), 2 * (np.sqrt(2) - 1), atol=0.02)


@pytest.mark.parametrize('grain', [0, 0.5, 1.2])
@pytest.mark.parametrize('scale', [0.5, 1.2, 2.3])
@pytest.mark.parametrize('how', ['plain', 'psf', 'rotate'])
def test_unit_noise(grain, scale, how):
    """Whatever happens to an image, its noise is 1 in the end."""
    values = noise(3, 300, grain=grain)
    before = exposure(values, grain=grain_of(values))
    sigma = [0.6, 1.0, 1.8] if how == 'psf' else None
    after = resample(before, (3.3, 5.8), scale, 120, sigma=sigma)
    if how == 'rotate':
        after = rotate(after, 0.5, 80)
    after = fill_noise(rng(1), after)
    assert after.signal.dtype == np.float32
    assert (after.variance == 1).all()
    tolerance = 0.13 if how == 'rotate' else 0.05
    assert_allclose(after.signal.std(axis=(1, 2)), 1, atol=tolerance)


def test_fill_noise():
    """Nothing is added to what has its noise, and nothing where invalid."""
    valid = noise(2, 50, seed=1) > 0
    full = exposure(noise(2, 50), valid)
    assert_array_equal(fill_noise(rng(), full).signal, full.signal)
    half = fill_noise(rng(), exposure(np.zeros((2, 50, 50)), valid,
                                      variance=0.19))
    assert (half.signal[~valid] == 0).all()
    assert_allclose(half.signal[valid].std(), 0.9, rtol=0.04)
    loud = fill_noise(rng(), exposure(np.full((2, 4, 4), 6.0), variance=4))
    assert_allclose(loud.signal, 3)


# ------------------------------------------------------- sky, gaps, bands

def test_offset_sky():
    """A plane for each band, and zeros stay where nothing is known."""
    valid = np.ones((3, 9, 12), bool)
    valid[1, 2] = False
    before = exposure(np.zeros((3, 9, 12)), valid)
    after = offset_sky(rng(), before, level=1)
    for axis in (1, 2):
        assert_allclose(np.diff(after.signal[[0, 2]], 2, axis=axis), 0,
                        atol=1e-5)
    assert (after.signal[1, 2] == 0).all()
    assert len(np.unique(after.signal[:, 0, 0])) == 3
    middles = [offset_sky(rng(k), exposure(np.zeros((4, 3, 3))), level=0.2
                          ).signal[:, 1, 1] for k in range(200)]
    assert_allclose(np.std(middles), 0.2, rtol=0.1)


@FEW
@given(st.integers(0, 2**32), st.integers(1, 4))
def test_gaps(seed, n_bands):
    before = exposure(np.full((n_bands, 30, 40), 2.0))
    after = cut_gaps(rng(seed), before, n_gaps=(1, 1), width=(0.1, 0.1))
    assert before.valid.all()
    assert_array_equal(after.signal, np.where(after.valid, 2, 0))
    lost = ~after.valid
    changed = lost.any(axis=(1, 2))
    assert changed.sum() in (1, n_bands)
    one = lost[changed][0]
    assert (lost[changed] == one).all()
    lines = [one.all(axis=1).sum(), one.all(axis=0).sum()]
    # whole rows or columns, a tenth of the side or what is left at an edge
    assert (1 <= lines[0] <= 3 and lost[changed][0].sum() == 40 * lines[0]
            ) or (1 <= lines[1] <= 4 and one.sum() == 30 * lines[1])


@FEW
@given(st.integers(0, 2**32), st.integers(1, 9))
def test_bands(seed, n_bands):
    """What is lost is invalid; what was never taken is not there."""
    before = exposure(np.arange(1, n_bands + 1)[:, None, None]
                      * np.ones((1, 3, 3)), waves=np.arange(n_bands) + 0.5)
    lost = drop_bands(rng(seed), before)
    kept = lost.valid.all(axis=(1, 2))
    assert kept.any()
    assert_array_equal(lost.valid.any(axis=(1, 2)), kept)
    assert_array_equal(lost.signal[:, 0, 0],
                       np.where(kept, np.arange(n_bands) + 1, 0))
    channels = fold(zip(lost.signal, lost.valid), n_bands, SPEC)
    assert_allclose(channels[-1], kept.mean(), rtol=1e-6)
    fewer = choose_bands(rng(seed), before)
    assert_array_equal(fewer.signal[:, 0, 0], fewer.wavelengths + 0.5)
    assert (np.diff(fewer.wavelengths) > 0).all()
    channels = fold(zip(fewer.signal, fewer.valid), len(fewer.signal), SPEC)
    assert (channels[-1] == 1).all()
    for after in (kept.sum(), len(fewer.signal)):
        assert after == 1 if n_bands == 1 else 1 <= after < n_bands


# ------------------------------------------------------------------ views

def make_image(n_bands=4, shape=(96, 110), seed=0, grain=0.0):
    values = np.stack([noise(1, max(shape), grain=grain, seed=[seed, b])[0]
                       for b in range(n_bands)])[:, :shape[0], :shape[1]]
    light = 30 * blob(max(shape), 60, 40, 3)[:shape[0], :shape[1]]
    mask = np.zeros(values.shape, bool)
    mask[0, 50:53] = True
    cube = np.where(mask, 0, 5 + 2 * (values + light)).astype(np.float32)
    return Image(cube, mask, bands=tuple('griz'[:n_bands]))


def test_folding_is_that_of_use():
    image = make_image()
    for spec in (SPEC, PreprocessSpec(n_slots=2, softening=3.0)):
        sn, valid, _ = signal_to_noise(image, spec)
        known = normalise(image, spec)
        assert_array_equal(fold(zip(sn, valid), 4, spec), known.channels)
        assert_array_equal(valid, np.isfinite(known.noise))
        assert_array_equal(sn == 0, ~valid)


def test_expose():
    found = expose(make_image(3), SPEC)
    assert_allclose(found.wavelengths, [0.481, 0.622, 0.764])
    assert_array_equal(found.variance, np.ones((3, 1, 1)))
    image = make_image(2, grain=1.5)
    found = expose(image, SPEC)         # the noise of pixels is below 1 here
    assert (found.variance < 0.2).all()
    for signal, valid, variance in zip(found.signal, found.valid,
                                       found.variance):
        spread = 1.4826 * np.median(np.abs(signal[valid]))
        assert_allclose(spread**2, variance.item(), rtol=0.25)
    image = make_image(2)
    image = Image(image.cube, image.mask, bands=('g', 'mine'))
    assert_array_equal(np.isnan(expose(image, SPEC).wavelengths),
                       [False, True])


@pytest.mark.parametrize('grain', [0.6, 1.0, 1.4])
def test_grain(grain):
    """The width that white noise was smoothed with is found again."""
    image = make_image(3, (300, 300), grain=grain)
    expected = grain_of(noise(3, 300, grain=grain))
    assert_allclose(expose(image, SPEC).grain, expected, rtol=0.04)


def test_no_grain():
    assert expose(make_image(3, (300, 300)), SPEC).grain < 0.3
    constant = Image(np.ones((1, 64, 64), np.float32),
                     np.zeros((1, 64, 64), bool))
    assert expose(constant, SPEC).grain == 0


OFF = dict.fromkeys(RATES, 0)


def test_a_view_of_nothing_but_the_image():
    """With all rates 0 a view is what the model would be given."""
    image = make_image()
    view = make_view(rng(), expose(image, SPEC), np.array([40, 30]), 48, 48,
                     OFF, SPEC)
    assert_array_equal(view, normalise(image, SPEC).channels[:, 40:88, 30:78])


@pytest.mark.parametrize('name', sorted(set(RATES) - {'aim', 'rescale'}))
def test_each_rate(name):
    """Each is what it is called, and nothing else happens."""
    found = expose(make_image(seed=3), SPEC)
    views = [make_view(rng(k), found, np.array([20, 30]), 64, 64,
                       {**OFF, name: 1}, SPEC) for k in range(8)]
    plain = make_view(rng(), found, np.array([20, 30]), 64, 64, OFF, SPEC)
    assert {view.shape for view in views} == {(5, 64, 64)}
    assert sum(not np.array_equal(view, plain) for view in views) >= 6
    fraction = np.array([view[-1].mean() for view in views])
    if name in ('drop', 'gaps'):
        assert (fraction < plain[-1].mean()).any()
    elif name in ('redden', 'depth', 'offset', 'psf'):
        assert_allclose(fraction, plain[-1].mean(), atol=1e-6)
    if name in ('redden', 'depth', 'psf'):
        peaks = [view[0].max() for view in views]
        assert max(peaks) < plain[0].max() + 0.1
        assert min(peaks) < plain[0].max() - 0.1
    if name == 'turn':
        assert all(np.array_equal(np.sort(view, axis=None),
                                  np.sort(plain, axis=None))
                   for view in views)


@FEW
@given(st.integers(0, 2**32), st.integers(1, 4), st.floats(0.4, 2))
def test_views(seed, n_bands, scale):
    """All at once: finite, of unit noise or less, valid where it says."""
    spec = PreprocessSpec(n_slots=2)
    found = expose(make_image(n_bands), spec)
    view = make_view(rng(seed), found, np.array([5.2, 7.9]), 32 * scale, 32,
                     dict.fromkeys(RATES, 1), spec)
    assert view.shape == (4, 32, 32)
    assert view.dtype == np.float32
    assert np.isfinite(view).all()
    assert (view[:-1, view[-1] == 0] == 0).all()
    assert ((view[-1] >= 0) & (view[-1] <= 1)).all()


def test_bright_blocks():
    image = make_image(3, (128, 144))
    yx, weight = bright_blocks(expose(image, SPEC))
    # the source of 3 pixels lies at (40, 60)
    assert_array_equal(yx[weight.argmax()], [40, 56])
    assert np.hypot(*(yx - [40, 60]).T).max() < 24
    assert (weight > 0).all()
    empty = bright_blocks(exposure(noise(2, 64)))
    assert [len(one) for one in empty] == [0, 0]


@FEW
@given(st.integers(0, 2**32), st.floats(8, 60))
def test_draw_square(seed, side):
    """Within the rectangle, and about something bright in it."""
    low, high = np.array([10, 20]), np.array([70, 90])
    bright = (np.array([[5.0, 40], [40, 50], [60, 85]]),
              np.array([100.0, 1, 1]))
    for aim in (None, bright):
        corner = draw_square(rng(seed), low, high, side, aim)
        assert (corner >= low).all()
        assert (corner + side <= high + 1e-9).all()
    assert any(((yx >= corner) & (yx <= corner + side)).all()
               for yx in bright[0][1:])
    whole = draw_square(rng(seed), low, low + 30, 30)
    assert_array_equal(whole, low)


def test_rates():
    assert check_rates(None) == RATES
    assert check_rates({'psf': 0}) == {**RATES, 'psf': 0}
    with pytest.raises(ValueError, match=r"unknown keys \['blur'\]; known"):
        check_rates({'blur': 0.5})
    for rate in (-0.1, 1.5, np.nan):
        with pytest.raises(ValueError, match='psf must be in'):
            check_rates({'psf': rate})
