# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Binning of oversampled images: when, how, and the way back.
"""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.ndimage import gaussian_filter
from skimage.measure import block_reduce

from astrodino_seg.binning import bin_channels, oversampling, unbin_prediction
from astrodino_seg.prediction import Prediction


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
    assert oversampling(noise_channels(sigma, (1024, 768))) == factor


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


def test_unbin_constant_vote():
    """A vote is a length: constant, it is scaled by the factor."""
    none = np.zeros((0, 3), np.float32)
    prediction = Prediction(
        embedding=np.zeros((5, 6, 2), np.float32),
        sky=np.zeros((5, 6), np.float32),
        probabilities=np.full((4, 5, 6), 0.25, np.float32),
        vote=np.full((5, 6, 2), [1.5, -2.0], np.float32),
        x=none[:, 0], y=none[:, 0], heat=none[:, 0], kernel=none,
        centre=none[:, :2], matrix=none, falloff=none[:, :2],
        radius=none[:, 0], classes=none, pairs=none[:, :2].astype(int),
        same=none[:, 0])
    for factor in (2, 4):
        shape = 5 * factor - 1, 6 * factor
        vote = unbin_prediction(prediction, factor, shape).vote
        assert vote.dtype == np.float32
        assert_allclose(vote, np.full((*shape, 2), [1.5 * factor,
                                                    -2.0 * factor]))
    assert (prediction.vote[..., 0] == 1.5).all()


def test_unbin():
    """A plane stays one, and a seed stays on its spot in the sky."""
    y, x = np.mgrid[:20, :16].astype(np.float32)
    one = np.ones(1, np.float32)
    prediction = Prediction(
        embedding=np.stack([x, y], axis=-1), sky=x, probabilities=np.stack(
            [np.full_like(x, 0.25)] * 4),
        vote=np.stack([5 - x, 7 - y], axis=-1),    # for the seed's centre
        x=5 * one, y=7 * one, heat=one, kernel=np.ones((1, 3), np.float32),
        centre=np.array([[5., 7.]]), matrix=np.array([[.25, 0., .04]]),
        falloff=np.ones((1, 2)), radius=2 * one, classes=np.ones((1, 3)) / 3,
        pairs=np.zeros((0, 2), int), same=np.zeros(0))
    big = unbin_prediction(prediction, 4, (78, 61))
    assert big.sky.shape == (78, 61)
    assert big.embedding.shape == (78, 61, 2)
    assert_allclose(big.probabilities.sum(axis=0), 1)
    # the middle of the block of pixels 20 to 23 is 21.5
    assert_allclose([big.x[0], big.y[0]], [21.5, 29.5])
    assert_allclose(big.centre[0], [21.5, 29.5])
    # the map at that spot is what it was at the binned pixel
    assert_allclose(big.sky[29:31, 21:23].mean(), 5, atol=1e-5)
    assert_allclose(big.embedding[29:31, 21:23, 1].mean(), 7, atol=1e-5)
    # q = d M d is the same four times as far
    assert_allclose(16 * big.matrix, prediction.matrix)
    assert_allclose(big.radius, 8)
    # a step of one binned pixel is one of four, and a vote for the centre
    # is one still; beyond the middles of the outermost blocks it is clipped
    assert big.vote.shape == (78, 61, 2)
    assert_allclose(np.diff(big.vote[..., 0], axis=1)[:, 2:-3], -1,
                    atol=1e-5)
    rows, columns = np.mgrid[:78, :61]
    inside = np.s_[2:78, 2:61]
    assert_allclose((columns + big.vote[..., 0])[inside], 21.5, atol=1e-4)
    assert_allclose((rows + big.vote[..., 1])[inside], 29.5, atol=1e-4)
    assert_allclose(big.vote[0, 0], 4 * prediction.vote[0, 0])
    assert unbin_prediction(prediction, 1, (20, 16)) is prediction
