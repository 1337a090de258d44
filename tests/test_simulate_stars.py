# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests of stars.
"""

import numpy as np
import pytest
from astropy.modeling.models import Moffat2D
from numpy.testing import assert_allclose
from scipy.integrate import quad
from scipy.ndimage import center_of_mass
from simulate_helpers import make_sky

from astrodino_seg.simulate.stars import moffat, star_stamp


@pytest.mark.parametrize(('fwhm', 'beta'), [(1.7, 2.4), (4.0, 4.5)])
def test_moffat(fwhm, beta):
    gamma = fwhm / 2 / np.sqrt(2**(1 / beta) - 1)
    oracle = Moffat2D(amplitude=(beta - 1) / (np.pi * gamma**2), gamma=gamma,
                      alpha=beta)
    assert_allclose(oracle.fwhm, fwhm)
    x, y = np.linspace(-9, 9, 7), np.linspace(0, 4, 7)
    assert_allclose(moffat(x**2 + y**2, fwhm, beta), oracle(x, y))
    flux, _ = quad(lambda r: 2 * np.pi * r * moffat(r**2, fwhm, beta),
                   0, np.inf)
    assert_allclose(flux, 1, rtol=1e-6)


def stamp_in(sky, flux, x, y, shape):
    """The stamp put into its scene."""
    stamp, x0, y0 = star_stamp(sky, np.array(flux, float), x, y, shape)
    assert stamp.dtype == np.float32
    scene = np.zeros((len(flux), *shape), np.float32)
    scene[:, y0:y0 + stamp.shape[1], x0:x0 + stamp.shape[2]] = stamp
    return scene


def test_flux_and_place():
    """Between pixels, and in each band its own flux."""
    scene = stamp_in(make_sky(2, fwhm=3.0), [500, 200], 60.3, 58.8,
                     (121, 131))
    assert_allclose(scene.sum(axis=(1, 2)), [500, 200], rtol=0.04)
    for band in scene:
        y, x = center_of_mass(band)
        assert_allclose([x, y], [60.3, 58.8], atol=0.05)


def test_profile():
    """Near its centre a faint star is a Moffat of the band's width."""
    sky = make_sky(2, beta=2.8)
    sky = type(sky)(sky.bands, np.array([2.5, 4.0]), 2.8, sky.depth,
                    sky.optics)
    scene = stamp_in(sky, [50, 80], 20.0, 20.4, (41, 41))
    y, x = np.mgrid[:41, :41]
    for band, flux, fwhm in zip(scene, (50, 80), (2.5, 4.0)):
        gamma = fwhm / 2 / np.sqrt(2**(1 / 2.8) - 1)
        oracle = Moffat2D(flux * 1.8 / (np.pi * gamma**2), 20.0, 20.4, gamma,
                          2.8)(x, y)
        near = np.hypot(x - 20, y - 20.4) < 10
        assert_allclose(band[near], oracle[near], rtol=1e-4)


@pytest.mark.parametrize('flux', [30, 1e3, 1e6])
@pytest.mark.parametrize(('x', 'y'), [(30.2, 40.9), (-8.4, 20.0),
                                      (61.0, 70.6), (3.3, -12.0)])
def test_frame(flux, x, y):
    """What lies in the frame is as it would be in a larger one."""
    sky = make_sky(1, fwhm=2.5, aureole=.02, halo=(25.0, .01),
                   spikes=(2, .4, .01, 20.0, 1.0))
    small = stamp_in(sky, [flux], x, y, (70, 60))
    large = stamp_in(sky, [flux], x + 40, y + 40, (150, 140))
    # the two are rounded to other pixels of 32 bit
    assert_allclose(small, large[:, 40:110, 40:100], rtol=1e-3, atol=1e-8)


def test_outside():
    stamp, _, _ = star_stamp(make_sky(2), np.array([5.0, 5]), -300.0, 20,
                             (64, 64))
    assert stamp.shape[0] == 2
    assert stamp.size == 0


def test_bright_stars_reach_farther():
    sky = make_sky(1, fwhm=7.5, aureole=.03)
    extents = [(stamp_in(sky, [flux], 300, 300, (601, 601)) > 0).sum()
               for flux in (20, 1e4, 1e5, 1e9)]
    assert extents == sorted(set(extents))
    # a disc that fades, and is cut at its largest radius
    image = stamp_in(sky, [1e9], 300, 300, (601, 601))[0]
    assert image[300, 300 + 257:].max() == 0
    assert 0 < image[300, 300 + 255] < 0.05 * image[300, 300 + 210]


def test_spikes_and_halo():
    """Four arms at the angle given, and a disc of the radius given."""
    flux = [1e5]
    plain = stamp_in(make_sky(1), flux, 100, 100, (201, 201))[0]
    spiky = stamp_in(make_sky(1, spikes=(2, 0., .02, 20.0, 1.0)), flux, 100,
                     100, (201, 201))[0]
    rays = spiky - plain
    assert_allclose(rays[100, 100 - 30], rays[100, 130], rtol=1e-3)
    assert_allclose(rays[70, 100], rays[130, 100], rtol=1e-3)
    assert rays[100, 130] > 100 * abs(rays[121, 121])
    turned = stamp_in(make_sky(1, spikes=(2, np.pi / 4, .02, 20.0, 1.0)),
                      flux, 100, 100, (201, 201))[0] - plain
    assert turned[121, 121] > 100 * abs(turned[100, 130])
    disc = stamp_in(make_sky(1, halo=(40.0, .01)), flux, 100, 100,
                    (201, 201))[0] - plain
    r = np.hypot(*(np.mgrid[:201, :201] - 100))
    level = 1e5 * .01 / (np.pi * 40**2)
    assert_allclose(disc[(r > 5) & (r < 30)], level, rtol=0.05)
    assert disc[r > 50].max() < 0.02 * level
