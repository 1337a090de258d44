# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests of the sky and of light in it that is no object.
"""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from simulate_helpers import PLAIN, hand_scene

from astrodino_seg.simulate import observe, sky
from astrodino_seg.simulate.sky import draw_background


def structure(seed, shape=(2, 120, 150), **rates):
    """What is added to the level."""
    one, two = (draw_background(np.random.default_rng(seed), shape,
                                {**PLAIN, **r}) for r in (rates, {}))
    assert one.dtype == np.float32
    return one - two


@pytest.mark.parametrize('seed', range(20))
def test_pedestal(seed):
    """Flat pieces, with steps of 0.3 to 5 sigma between them."""
    image = structure(seed, pedestal=1)
    steps = []
    for axis in (1, 2):
        step = np.diff(image, axis=axis)
        step[np.abs(step) < 1e-4] = 0
        # a step runs through the whole frame
        lines = step.any(axis=(0, 3 - axis))
        assert lines.sum() <= 7
        steps.append(np.abs(step).max())
    assert .29 < max(steps) < 5.01


@pytest.mark.parametrize('draw', sky.SCATTERED)
def test_smooth(draw):
    """Broad and of some sigma; what is small is not bright."""
    heights = []
    for seed in range(30):
        image = draw(np.random.default_rng(seed), 120, 150)
        assert image.shape == (120, 150)
        assert np.isfinite(image).all()
        assert image.min() >= -1e-6
        heights.append(np.ptp(image))
        rough = image[1:, 1:] - image[:-1, 1:]
        assert np.abs(rough).max() < .75 * np.ptp(image) + 1e-9
    assert max(heights) > 3
    assert max(heights) < 80


def test_slope():
    heights = [np.ptp(sky._slope(np.random.default_rng(k), 90, 90))
               for k in range(60)]
    assert min(heights) > 2.9
    assert 15 < max(heights) < 30.1


def test_cirrus():
    """Between 0.3 and 10 sigma, with the power of the cube of scales."""
    power, sigma = 0, []
    for seed in range(40):
        image = sky._cirrus(np.random.default_rng(seed), 128, 128)
        sigma.append(image.std())
        window = np.hanning(128)[:, None] * np.hanning(128)
        waves = np.fft.fft2((image - image.mean()) / image.std() * window)
        power = power + np.abs(waves)**2
    assert min(sigma) > .29
    assert max(sigma) < 10.01
    f = np.hypot(np.fft.fftfreq(128)[:, None], np.fft.fftfreq(128))
    f *= 128
    means = [power[(f > a) & (f < 1.4 * a)].mean() for a in (5, 10, 20, 40)]
    slope = np.polyfit(np.log([5, 10, 20, 40]), np.log(means), 1)[0]
    assert_allclose(slope, -3, atol=.3)


@pytest.mark.parametrize('name', ['scattered', 'pedestal'])
def test_no_objects(name):
    scene, _ = hand_scene()
    kwargs = {'depth': 1.0, 'bands': [0, 1]}
    for seed in range(6):
        image, truth = observe(scene, seed, rates={**PLAIN, name: 1},
                               **kwargs)
        plain, wanted = observe(scene, seed, rates=PLAIN, **kwargs)
        assert_array_equal(truth.labels, wanted.labels)
        assert_array_equal(truth.light, wanted.light)
        rest = image.cube - plain.cube
        assert np.ptp(rest, axis=(1, 2)).max() > .2
