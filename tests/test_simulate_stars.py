# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests of stars and fields of stars.
"""

import time

import numpy as np
import pytest
from astropy.modeling.models import Moffat2D
from numpy.testing import assert_allclose
from scipy.integrate import quad
from scipy.ndimage import center_of_mass
from scipy.stats import kstest
from simulate_helpers import EMPTY, check_truth, make_canvas, make_sky

from astrodino_seg.simulate import make_scene, observe, stars
from astrodino_seg.simulate.stars import (
    add_star_field,
    moffat,
    moffat_reach,
    star_flux,
    star_stamp,
)


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


def field(seed, shape=(200, 300), **kwargs):
    canvas = make_canvas(shape, **kwargs)
    add_star_field(np.random.default_rng(seed), canvas)
    return canvas


def test_density():
    """Log-uniform between one in 3000 and one in 50 pixels."""
    density = np.array([len(field(seed).rows) for seed in range(60)]) / 6e4
    assert density.max() < 1.2 / 50
    assert density.min() > .4 / 3000
    away = (np.log(density * 3000) / np.log(60)).clip(0, 1)
    assert kstest(away, 'uniform').pvalue > 1e-3


def test_stars(monkeypatch):
    """Each is one object with the PSF and the flux that it should have."""
    monkeypatch.setattr(stars, 'GLOBULAR', 0)
    canvas = field(3, (400, 400), fwhm=3.0)
    rows = canvas.rows
    assert {row['kind'] for row in rows} == {'star'}
    assert {row['cls'] for row in rows} == {1}
    xy = np.array([(row['x'], row['y']) for row in rows])
    # Poisson: as many in each quarter
    counts = np.histogram2d(*xy.T, bins=2, range=[[0, 400]] * 2)[0]
    assert counts.max() - counts.min() < 6 * np.sqrt(counts.mean())
    whole = np.zeros((2, 400, 400))
    y, x = np.mgrid[:400, :400]
    for row in rows:
        whole += row['flux'][:, None, None] * moffat(
            (x - row['x'])**2 + (y - row['y'])**2, 3.0, 3.0)
    # but for the wings that are cut, and flux in pixels' middles
    off = np.abs(canvas.cube - whole)
    assert np.quantile(off, .99) < .5
    assert off.sum() < .1 * whole.sum()


def test_power_law():
    """The number above a flux goes with the flux to minus the slope."""
    values = stars._power_law(np.random.default_rng(0), 20000, 1.2, 5.,
                                   1e9)
    assert values.min() >= 5
    for factor in (2, 10, 50):
        assert_allclose((values > 5 * factor).mean(), factor**-1.2, rtol=.15)
    capped = stars._power_law(np.random.default_rng(0), 20000, .5, 5.,
                                   500.)
    assert capped.max() <= 500


def test_globular(monkeypatch):
    """Half of Plummer's cluster is within one core radius of its centre."""
    monkeypatch.setattr(stars, 'GLOBULAR', 1)
    for seed in range(4):
        x, y = stars._positions(np.random.default_rng(seed), 6000,
                                     (300, 300))
        counts, xs, ys = np.histogram2d(x, y, bins=30,
                                        range=[[0, 300]] * 2)
        assert counts.max() > 5 * np.median(counts)
        middle = np.unravel_index(counts.argmax(), counts.shape)
        r = np.hypot(x - xs[middle[0]] - 5, y - ys[middle[1]] - 5)
        assert np.sum(r < .23 * 300) > .25 * 6000


def test_reach():
    """A Moffat profile falls to the floor there."""
    sky = make_sky(fwhm=3.0)
    half = moffat_reach(sky, np.array([0., 1e4, 1e6]))
    assert half[0] == 5
    for h, flux in zip(half[1:], (1e4, 1e6)):
        assert flux * moffat(h**2, 3., 3.) <= .02
        assert flux * moffat((h - 1)**2, 3., 3.) > .02
    # the matched filter of a Gaussian of unit noise, in two bands
    assert_allclose(star_flux(sky, 10.) * np.sqrt(2),
                    10 * np.sqrt(4 * np.pi) * 3 / 2.35)


def test_scene():
    """The ordinary objects are as they are without the stars."""
    pytest.importorskip('galsim')
    rates = {**EMPTY, 'field': 1, 'star': 1}
    without = make_scene(5, size=96, rates=rates)
    scene = make_scene(5, size=96, rates={**rates, 'star_field': 1})
    n = len(without.objects['x'])
    for key in without.objects:
        assert (scene.objects[key][:n] == without.objects[key]).all()
    assert (scene.objects['kind'][n:] == 'star').all()
    assert len(scene.objects['x']) > n
    check_truth(*observe(scene, 3))


def test_fast(monkeypatch):
    """Two thousand stars are no matter of seconds."""
    monkeypatch.setattr(stars, 'DENSITY', (1 / 51, 1 / 50))
    start = time.process_time()
    canvas = field(1, (320, 320), n_bands=3)
    assert len(canvas.rows) > 1700
    assert time.process_time() - start < 2
