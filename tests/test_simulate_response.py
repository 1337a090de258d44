# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests of noise that depends on light, and of pixels not linear in it.
"""

from importlib import import_module

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import spearmanr
from simulate_helpers import PLAIN, check_truth, hand_scene

from astrodino_seg.simulate import observe
from astrodino_seg.simulate.artifacts import (
    FWHM,
    count,
    photographic,
    quantise,
    smooth_noise,
    stretch,
)
from astrodino_seg.simulate.scene import CONDITIONS, Scene

observing = import_module('astrodino_seg.simulate.observe')

NEW = sorted(name for name, rate in CONDITIONS.items() if rate.value == 0)


def see(scene, seed=0, depth=1.0, **rates):
    return observe(scene, seed, depth=depth, bands=[0, 1],
                   rates={**PLAIN, **rates})


def fifty_times():
    """Some ingredients have nothing to do with what is not bright."""
    scene, parts = hand_scene()
    scene.cube *= 50
    scene.own_sn *= 50
    scene.objects['flux'] = 50 * parts.sum(axis=(2, 3))
    return scene


def same_truth(one, two):
    for key in ('labels', 'own_sn', 'light', 'owners', 'shares'):
        assert_array_equal(getattr(one, key), getattr(two, key))
    for key, values in one.objects.items():
        assert_array_equal(two.objects[key], values)


@pytest.mark.parametrize('name', NEW)
def test_absent(name):
    """At a rate of 0 an observation is what it is without the name."""
    scene, _ = hand_scene()
    for seed in range(4):
        one = observe(scene, seed)
        two = observe(scene, seed, rates={name: 0})
        assert_array_equal(one[0].cube, two[0].cube)
        assert_array_equal(one[0].mask, two[0].mask)
        same_truth(one[1], two[1])


@pytest.mark.parametrize('name', NEW)
@pytest.mark.parametrize('seed', range(6))
def test_always(name, seed):
    """What every observation promises, and another image than without."""
    scene = fifty_times()
    rates = {'gap': 1.5, 'missing_bands': 0}
    image, truth = observe(scene, seed, rates={**rates, name: 3})
    check_truth(image, truth)
    plain = observe(scene, seed, rates=rates)[0]
    assert (image.bands != plain.bands
            or not np.array_equal(image.cube, plain.cube)
            or name in ('bad_lines', 'filled'))


def test_all_together():
    scene = fifty_times()
    for seed in range(40):
        check_truth(*observe(scene, seed, rates=dict.fromkeys(
            NEW, .5) | {'negated': .1}))


def test_single_band():
    scene, _ = hand_scene()
    bands = {observe(scene, seed, rates={'single_band': 1})[0].bands
             for seed in range(20)}
    assert bands == {('g',), ('r',)}


# ------------------------------------------------------------------- noise

@pytest.mark.parametrize('fwhm', [1.0, 2.5, 5.0])
def test_smooth_noise(fwhm):
    """One sigma a pixel, correlated as a Gaussian with itself is."""
    noise = smooth_noise(np.random.default_rng(0), (3, 300, 300),
                         fwhm / FWHM)
    error = 4 * fwhm / 300 / np.sqrt(3)
    assert_allclose(noise.std(), 1, atol=.01 + error)
    sigma = fwhm / FWHM
    for lag in range(1, 8) if fwhm > 2 else ():
        wanted = np.exp(-lag**2 / (4 * sigma**2))
        for product in (noise[:, lag:] * noise[:, :-lag],
                        noise[:, :, lag:] * noise[:, :, :-lag]):
            assert_allclose(product.mean(), wanted, atol=.02 + error)
    assert abs((noise[0] * noise[1]).mean()) < 2 * error


def test_smooth_noise_of_images():
    scene, _ = hand_scene()
    lags = []
    for seed in range(12):
        image, truth = see(scene, seed, smooth_noise=1)
        rest = image.cube - truth.light
        rest -= rest.mean(axis=(1, 2), keepdims=True)
        assert .7 < rest.std() < 1.3
        lags.append((rest[:, 1:] * rest[:, :-1]).mean())
        same_truth(truth, see(scene, seed)[1])
    assert min(lags) > 0
    assert max(lags) > .6


def bright_scene():
    """Two halves of a frame, one with 100 sigma of light in each band."""
    scene, _ = hand_scene()
    cube = np.zeros((2, 400, 400), np.float32)
    cube[:, :, 200:] = 100
    sn = np.sqrt((cube**2).sum(axis=0))
    zero = np.zeros_like(sn)
    return Scene(cube, np.stack([sn > 0, zero, zero]).astype(np.int32),
                 np.stack([sn, zero, zero]), scene.bands, scene.psf_fwhm,
                 {k: v[:1] for k, v in scene.objects.items()})


def test_source_noise():
    """Variance goes with light, and own S/N is light over that noise."""
    gains = []
    for seed in range(12):
        image, truth = see(bright_scene(), seed, source_noise=1)
        dark, lit = image.cube[:, :, :200], image.cube[:, :, 200:]
        assert_allclose(dark.std(axis=(1, 2)), 1, rtol=.03)
        gain = (lit.var(axis=(1, 2)).mean() - 1) / 100
        gains.append(gain)
        assert_allclose(truth.own_sn[5, 300], 100 * np.sqrt(
            2 / (1 + 100 * gain)), rtol=.03)
        assert_array_equal(truth.light, bright_scene().cube)
    assert .015 < min(gains) < .1
    assert .3 < max(gains) < 1.05


def test_counts():
    """Integers but for one factor, with Poisson's variance."""
    skies = []
    for seed in range(12):
        image, truth = see(bright_scene(), seed, counts=1)
        dark, lit = image.cube[:, :, :200], image.cube[:, :, 200:]
        step = np.diff(np.unique(lit)).min()
        multiples = image.cube / step
        assert_allclose(multiples, np.rint(multiples), atol=.03)
        assert image.cube.min() >= 0
        # one sigma of sky noise is the unit; its mean is its variance
        skies.append(step**-2)
        assert_allclose(dark.std(axis=(1, 2)), 1, rtol=.05)
        assert_allclose(dark.mean(axis=(1, 2)), 1 / step, rtol=.05)
        assert_allclose(lit.mean() - dark.mean(), 100, rtol=.01)
        assert_allclose(lit.var(axis=(1, 2)), 1 + 100 * step, rtol=.05)
        assert_allclose(truth.own_sn[5, 300], 100 * np.sqrt(
            2 / (1 + 100 * step)), rtol=1e-3)
    assert .04 < min(skies) < .5
    assert 2 < max(skies) < 21


def test_depth_of_counts():
    """Where exposures are short, S/N is less."""
    light = np.full((1, 300, 300), 3, np.float32)
    noise_map = np.ones((300, 300), np.float32)
    noise_map[150:] = 2
    image = count(np.random.default_rng(0), light, noise_map, 9.0)
    for part, wanted in ((image[0, :150], 3 + 3), (image[0, 150:],
                                                   (3 + 3) / 4)):
        assert_allclose(part.mean(), wanted, rtol=.02)
        assert_allclose(part.var(), wanted / 3, rtol=.03)


def test_quantised():
    image = np.random.default_rng(0).normal(0, 9, (50, 50)).astype(np.float32)
    before = image.copy()
    quantise(image, .7)
    assert_allclose(image / .7, np.rint(image / .7), atol=1e-4)
    assert np.abs(image - before).max() <= .3501
    steps = []
    for seed in range(12):
        cube = see(hand_scene()[0], seed, quantised=1)[0].cube
        steps.append(np.diff(np.unique(cube)).min())
    assert min(steps) > .25
    assert max(steps) < 3.01


# ------------------------------------------------------------ not linear

def test_characteristic_curve():
    """Monotonic, of unit slope at the sky, flat at its end."""
    light = np.zeros((1, 200, 200), np.float32)
    light[0, :, 100:] = np.linspace(-1, 3, 200)[:, None]
    light[0, :, 180:] = 1e6
    for seed in range(8):
        image = photographic(np.random.default_rng(seed), light,
                             np.ones((200, 200), np.float32))[0]
        assert abs(image[:, :100].mean()) < .06
        assert_allclose(image[:, :100].std(), 1, rtol=.06)
        densest = image[:, 180:].mean()
        assert 14.5 < densest < 151
        assert_allclose(image[:, 180:].std(), 1, rtol=.1)   # flat
        mean = image[:, 100:180].mean(axis=1)
        slope = np.polyfit(light[0, :, 100], mean, 1)[0]
        assert .4 < slope < 2
        # the grain is of some pixels
        rest = image[:, :100]
        assert .15 < (rest[1:] * rest[:-1]).mean() < .9


def test_flat_tops():
    """Bright stars are flat, and the order of pixels is that of light."""
    scene, _ = hand_scene()
    scene.cube *= 3000
    image, truth = see(scene, 2, photographic=1)
    for plane, light in zip(image.cube, truth.light):
        top = plane[light > .5 * light.max()]
        assert len(top) > 4
        assert np.ptp(top) < 7
        assert top.mean() < 151
        assert spearmanr(plane[::2, ::2], light[::2, ::2], axis=None)[0] > .2
    same_truth(truth, see(scene, 2)[1])


def test_stretch():
    """Values from 0 to 255, in the order that they had."""
    rng = np.random.default_rng(0)
    image = rng.normal(5, 1, (2, 64, 64)).astype(np.float32)
    image[:, 20:30, 20:30] += np.linspace(0, 500, 10)
    kinds = 0
    for seed in range(40):
        shown = stretch(np.random.default_rng(seed), image)
        assert shown.dtype == np.float32
        assert shown.min() >= 0
        assert shown.max() <= 255
        for before, after in zip(image, shown):
            order = np.argsort(before, axis=None)
            assert (np.diff(after.ravel()[order]) >= -1e-3).all()
        kinds += (shown == np.rint(shown)).all()
        # compressed: the mean is above the middle of the ends
        line = shown[0, 25, 20:30]
        assert line[5] >= (line[0] + line[9]) / 2 - 4
    assert 10 < kinds < 30


def test_truth_of_stretched():
    scene, _ = hand_scene()
    for seed in range(4):
        same_truth(see(scene, seed, stretched=1)[1], see(scene, seed)[1])
