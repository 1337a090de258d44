# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests of fields of stars.
"""

import time

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.stats import kstest
from simulate_helpers import EMPTY, check_truth, make_canvas, make_sky

from astrodino_seg.simulate import make_scene, observe, stars
from astrodino_seg.simulate.stars import (
    add_star_field,
    moffat,
    moffat_reach,
    star_flux,
)


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
