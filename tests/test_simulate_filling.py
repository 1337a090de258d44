# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests of galaxies that fill the frame, and of faint discs.
"""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from simulate_helpers import EMPTY, PLAIN, check_truth, make_sky

from astrodino_seg.simulate import make_scene, observe
from astrodino_seg.simulate.render import Large, enlarge, faint_disc, roughen
from astrodino_seg.simulate.sky import Sky


def gaussian(sigma, side=121):
    """A round galaxy of two bands, the second three times the first."""
    y, x = np.mgrid[:side, :side] - side // 2
    light = np.exp(-(x**2 + y**2) / (2 * sigma**2))
    cube = np.stack([light, 3 * light])
    return Large((1000 * cube / cube.sum() * 2).astype(np.float16), 1e-3,
                 1.18 * sigma, 1.0)


@pytest.mark.parametrize(('factor', 'x', 'y'), [
    (1.0, 40, 30), (2.5, 40, 30), (4.0, -20, 70), (3.0, 200, -50)])
def test_enlarge(factor, x, y):
    """A Gaussian enlarged is a wider Gaussian of the same flux."""
    sigma = 12
    galaxy = gaussian(sigma)
    shown = enlarge(galaxy, factor * galaxy.re, x, y, (60, 80))
    assert shown.cube.shape == (2, 60, 80)
    assert_allclose(shown.re, factor * galaxy.re)
    # the spline is a blur by a third of a pixel of the stamp, squared
    s2 = factor**2 * (sigma**2 + 1 / 3)
    yy, xx = np.mgrid[:60, :80]
    wanted = np.exp(-((xx - x)**2 + (yy - y)**2) / (2 * s2)) / (
        2 * np.pi * s2)
    for plane, share in zip(shown.cube * shown.scale, (.5, 1.5)):
        assert_allclose(plane, share * wanted, rtol=0.02,
                        atol=2e-3 / (2 * np.pi * s2))


def test_no_smaller():
    galaxy = gaussian(12)
    shown = enlarge(galaxy, 3, 40, 30, (60, 80))
    assert_allclose(shown.re, galaxy.re)


def test_roughen():
    """Structure, but no other light."""
    galaxy = enlarge(gaussian(12), 60, 100, 100, (200, 200))
    rough = roughen(np.random.default_rng(0), galaxy, make_sky(fwhm=3.0))
    ratio = rough.cube / galaxy.cube
    assert_allclose(ratio[0], ratio[1], rtol=1e-5)
    assert .03 < ratio.std() < .8
    assert .9 < rough.cube.sum() / galaxy.cube.sum() < 1.3


@pytest.mark.parametrize('seed', range(3))
def test_filling(seed):
    """It is one primary galaxy over most of a frame with others in it."""
    pytest.importorskip('galsim')
    kinds = {'elliptical': 1, 'spiral': 1}
    rates = {**EMPTY, **kinds, 'filling': 1}
    scene = make_scene(seed, size=96, rates=rates)
    table = scene.objects
    assert_array_equal(table['cls'], [2])
    assert table['primary'].all()
    assert table['re'][0] >= .25 * 96 * .99
    image, truth = observe(scene, seed, depth=2, rates=PLAIN)
    assert np.mean(truth.labels == 1) > .5
    assert truth.objects['primary'].all()
    check_truth(image, truth)
    more = make_scene(seed, size=96, rates={
        **rates, 'field': 1, 'star_on_galaxy': 3}, density=3)
    assert len(more.objects['x']) > 10
    assert (more.objects['cls'] == 1).any()


def test_filling_needs_kinds():
    scene = make_scene(3, size=64, rates={**EMPTY, 'filling': 1})
    assert len(scene.objects['x']) == 0


@pytest.mark.parametrize('seed', range(20))
def test_faint_disc(seed):
    """Its S/N at the centre, its half-light radius, its shape."""
    sky = Sky({'g': .48, 'Ks': 2.1}, np.array([2.0, 3.0]), 3.0,
              np.array([1.3, .5]), {})
    stamp, row = faint_disc(np.random.default_rng(seed), sky, (500, 400))
    assert stamp.shape == (2, 500, 400)
    sn = np.sqrt(((stamp * sky.depth[:, None, None])**2).sum(axis=0))
    x, y = row['x'], row['y']
    assert 0.2 * .9 < sn[int(y), int(x)] <= sn.max() <= 1.2001
    assert 8 <= row['re'] / 1.678 <= 200
    # exponential along any line through the centre
    far = np.hypot(np.arange(400) - x, 0) > 20
    log = np.log(sn[int(y)])[far & (np.arange(400) > x)]
    if len(log) > 40:
        slopes = np.diff(log)[::10]
        assert_allclose(slopes[5:], slopes[-1], rtol=.2)
        assert slopes[-1] <= -.9 * 1.678 / row['re']


def test_discs_of_scenes():
    scene = make_scene(1, size=96, rates={**EMPTY, 'faint_disc': 5})
    assert len(scene.objects['x']) >= 2
    assert set(scene.objects['kind']) == {'lsb'}
    assert scene.objects['primary'].all()
    assert scene.objects['re'].max() <= 1.678 * 48 + 1e-6
    check_truth(*observe(scene, 3))
