# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Binning of oversampled images: when, how, and the way back.
"""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.ndimage import gaussian_filter
from skimage.measure import block_reduce

from astrodino_seg.inputs.channels import bin_channels, oversampling


def noise_channels(sigma, shape=(256, 192)):
    """Channels of pure noise, smoothed, of unit variance."""
    noise = np.random.default_rng(1).normal(size=shape)
    noise = gaussian_filter(noise, sigma, mode='wrap') if sigma else noise
    channels = np.repeat(np.arcsinh(noise / noise.std())[None], 5, axis=0)
    channels[-1] = 1
    return channels.astype(np.float32)


@pytest.mark.parametrize(('sigma', 'factor'), [
    (0, 1), (1.4, 1), (2.5, 4), (6, 8)])
def test_oversampling(sigma, factor):
    """
    The rms step over sqrt(2) is sqrt(1 - exp(-d**2 / (4 sigma**2))) for
    pixels d apart, and the mean of a block is about its middle.
    """
    def step(d):
        return np.sqrt(-np.expm1(-d**2 / (4 * sigma**2))) if sigma else 1

    assert (step(1) < 0.3) == (factor > 1)
    assert factor == 1 or step(factor / 2) < 0.5 < step(factor)
    channels = noise_channels(sigma, (1024, 768))
    assert oversampling(channels) == factor
    for softening in (0.2, 5.0):
        channels[:-1] = np.arcsinh(np.sinh(channels[:-1]) / softening)
        assert oversampling(channels, softening) == factor
        channels[:-1] = np.arcsinh(np.sinh(channels[:-1]) * softening)


def test_oversampling_small_and_empty():
    assert oversampling(noise_channels(6, (100, 100))) == 1
    channels = noise_channels(6)
    channels[-1] = 0                       # no valid pixel
    assert oversampling(channels) == 1


def test_bin_channels():
    channels = noise_channels(0, (30, 24))
    binned = bin_channels(channels, 3)
    wanted = block_reduce(np.sinh(channels[:-1]), (1, 3, 3), np.mean)
    assert_allclose(np.sinh(binned[:-1]), wanted, atol=1e-5)
    assert_allclose(binned[-1], 1)
    assert bin_channels(channels, 1) is channels
    assert bin_channels(channels, 7).shape == (5, 5, 4)


def test_bin_planes_of_others():
    """The mean of what follows the noise units, which are as without it."""
    rng = np.random.default_rng(4)
    cube = rng.normal(2, 3, size=(8, 12, 15)).astype(np.float32)
    binned = bin_channels(cube, 3, 5)
    assert_array_equal(binned[:5], bin_channels(cube[:5], 3))
    wanted = block_reduce(cube[5:], (1, 3, 3), np.mean)
    assert_allclose(binned[5:], wanted, rtol=1e-5, atol=1e-5)
