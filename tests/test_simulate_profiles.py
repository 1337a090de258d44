# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests of spectra, frames and profiles of galaxies.
"""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.special import gammaincinv

from astrodino_seg.simulate.galaxies import (
    clumps,
    make_frame,
    mix,
    noise_field,
    sed,
    sersic,
    sersic_bn,
    spots,
)

WAVES = np.array([0.48, 0.62, 0.87])


def test_sersic_bn():
    """Half of the light is within the half-light radius."""
    n = np.array([0.5, 1, 2, 4, 8])
    error = np.abs(sersic_bn(n) / gammaincinv(2 * n, 0.5) - 1)
    assert (error < [1e-3, 1e-4, 1e-5, 1e-6, 1e-6]).all()


def test_sed():
    assert_allclose(sed([0.62], 1.7), 1)
    assert_allclose(sed([.4, .9, 2], 0.0), 1)
    red = sed(np.linspace(0.3, 5, 30), 2.0)
    assert (np.diff(red) > 0).all()
    step = 1e-5                            # the slope at 0.62 micron
    assert_allclose(np.log(sed([0.62 * np.exp(step)], 1.7)) / step, 1.7,
                    rtol=1e-4)


def test_half_light():
    """Half of a spheroid's light is within its half-light radius."""
    frame = make_frame(201, 10.0, 1.0, 0.3)
    image = sersic(frame.r, 10.0, 1.0)
    inside = image[frame.r <= 10].sum() / image.sum()
    assert_allclose(inside, 0.5, atol=0.01)


def test_frame():
    """Axis ratio and angle: u along the major axis, v deprojected."""
    frame = make_frame(21, 5.0, 0.5, np.pi / 2)
    assert_allclose(frame.r[10, 10], 0, atol=1e-5)
    assert_allclose(frame.r[13, 10], 3, rtol=1e-5)      # along y: major
    assert_allclose(frame.r[10, 13], 6, rtol=1e-5)      # along x: minor
    assert_allclose(frame.theta[13, 10], 0, atol=1e-5)


def test_spots():
    """Round Gaussians; outside of the frame there is nothing to add."""
    frame = make_frame(41, 5.0, 1.0, 0.0)
    image = spots(frame, [20.3, 90, -60], [18.0, 5, 5], [2.0, 3, 3],
                  [1.5, 9, 9])
    y, x = np.mgrid[:41, :41]
    wanted = 1.5 * np.exp(-((x - 20.3)**2 + (y - 18)**2) / 8)
    # each is cut at four sigma
    assert_allclose(image, wanted, atol=1.5 * np.exp(-4**2 / 2))
    assert_allclose(image.sum(), 1.5 * 2 * np.pi * 4, rtol=1e-3)


def test_clumps_lie_where_the_density_is():
    frame = make_frame(61, 5.0, 1.0, 0.0)
    density = np.zeros((61, 61))
    density[:20] = 1
    image = clumps(np.random.default_rng(0), frame, density, 30, (.5, 1))
    assert image[:24].sum() > 0.999 * image.sum() > 0
    for n, where in ((0, density), (5, 0 * density)):
        assert not clumps(np.random.default_rng(0), frame, where, n,
                          (.5, 1)).any()


def test_noise_field():
    """Of unit variance; smooth over its scale and not beyond."""
    rng = np.random.default_rng(2)
    fields = np.stack([noise_field(rng, 128, 16) for _ in range(8)])
    assert_allclose(fields.std(), 1, atol=0.15)
    near = (fields[:, 2:] * fields[:, :-2]).mean()
    far = (fields[:, 64:] * fields[:, :-64]).mean()
    assert near > 0.9
    assert abs(far) < 0.25


def test_mix():
    """Shares of flux in the band at 0.62 micron; dust dims blue more."""
    y, x = np.mgrid[:9, :9]
    one, two = (x < 4) * 3.0, (x > 4) * 1.0
    cube = mix(WAVES, [(one, 2.0, 1.0), (two, 0.5, 0.0)])
    assert_allclose(cube[1, :, :4].sum(), 2)
    assert_allclose(cube[:, :, 5:].sum(axis=(1, 2)), 0.5)
    assert_allclose(cube[2, :, :4].sum(), 2 * sed([.87], 1.0)[0])
    dusty = mix(WAVES, [(one, 2.0, 1.0)], dust=one > 0, tau=0.5)
    assert_allclose(dusty[:, 3, 3] / cube[:, 3, 3],
                    np.exp(-0.5 * 0.62 / WAVES))


@pytest.mark.parametrize('n', [1.0, 2.5, 4.0])
def test_sersic_against_astropy(n):
    from astropy.modeling.models import Sersic2D

    frame = make_frame(81, 9.0, 0.6, 0.7)
    oracle = Sersic2D(1, 9.0, n, 40, 40, ellip=0.4, theta=0.7)
    outside = frame.r > 4       # the core is smoothed by a pixel
    assert_allclose(sersic(frame.r, 9.0, n)[outside],
                    oracle(frame.x + 40, frame.y + 40)[outside], rtol=0.02)
