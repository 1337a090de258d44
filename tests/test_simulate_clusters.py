# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests of star clusters.
"""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.ndimage import maximum_filter
from scipy.stats import kstest
from simulate_helpers import EMPTY, make_sky

from astrodino_seg.simulate import compose, make_scene
from astrodino_seg.simulate.render import Large
from astrodino_seg.simulate.sky import Sky
from astrodino_seg.simulate.stars import bright_knots, moffat, nucleus, strew


def disc(n_bands=2, side=201):
    """A flat disc with a radius of 50 pixels."""
    y, x = np.mgrid[:side, :side] - side // 2
    light = (np.hypot(x, y) < 50) * np.ones((n_bands, 1, 1))
    return Large((light / light[0].sum() * 8).astype(np.float16), 1 / 8, 30.0,
                 1.0)


@pytest.mark.parametrize('seed', range(6))
def test_light_and_place(seed):
    rng = np.random.default_rng(seed)
    sky = Sky({'g': 0.48, 'Ks': 2.1, 'F444W': 4.4}, np.full(3, 2.0), 3.0,
              np.ones(3), {})
    galaxy = strew(rng, disc(3), sky)
    assert galaxy.scale == 1
    assert (galaxy.re, galaxy.q) == (30.0, 1.0)
    # no light is lost but the far wings of clusters
    assert_allclose(galaxy.cube.sum(axis=(1, 2)).mean(), 1, rtol=0.03)
    smooth = disc(3).cube.astype(float) / 8
    inside = smooth[0] > 0
    share = 1 - np.median(galaxy.cube[0][inside]) / np.median(
        smooth[0][inside])
    assert 0 < share < 0.41
    points = galaxy.cube - (1 - share) * smooth
    peaks = ((points[0] == maximum_filter(points[0], 5))
             & (points[0] > 1e-3 * points[0].max()))
    # fewer than there are clusters, for some lie on others
    assert 3 <= peaks.sum() <= 100
    far = np.hypot(*(np.argwhere(peaks) - 100).T)
    assert far.max() < 52


def test_they_are_points():
    """As wide as the PSF, or a little wider."""
    widths = []
    for seed in range(40):
        sky = make_sky(fwhm=4.0, beta=2.5)
        cube = strew(np.random.default_rng(seed), disc(), sky).cube[0]
        y, x = np.unravel_index(cube.argmax(), cube.shape)
        base = np.median(cube[cube > 0])
        line = cube[y, x - 15:x + 16] - base
        if line[[3, -4]].max() < 0.05 * line.max():       # alone
            above = np.flatnonzero(line > line.max() / 2)
            widths.append(np.ptp(above) + 1)
    assert len(widths) > 5
    assert min(widths) >= 3
    assert max(widths) <= 7


@pytest.mark.parametrize(('kind', 'rate', 'n'), [
    ('irregular', 1, 1), ('irregular', 0, 0), ('elliptical', 1, 0)])
def test_scenes(monkeypatch, kind, rate, n):
    """Part of the galaxies that form stars, and absent by default."""
    pytest.importorskip('galsim')
    calls = []

    def one_point(rng, galaxy, sky):
        calls.append(galaxy)
        cube = np.zeros_like(galaxy.cube, dtype=np.float32)
        middle = cube.shape[1] // 2
        cube[:, middle + 9, middle - 7] = 1e9
        return galaxy._replace(cube=cube, scale=1.0)

    monkeypatch.setattr(compose, 'strew', one_point)
    rates = {**EMPTY, 'large': 2, kind: 1, 'clusters': rate}
    scene = make_scene(3, size=128, rates=rates)
    objects = scene.objects
    inside = ((objects['x'] > 10) & (objects['x'] < 120)
              & (objects['y'] > 10) & (objects['y'] < 115))
    assert len(inside) > 0
    assert (len(calls) > 0) == n
    for k in np.flatnonzero(inside) if n else ():
        x, y = int(objects['x'][k]) - 7, int(objects['y'][k]) + 9
        assert scene.owner[0, y, x] == k + 1


def total_light(stamps, shape, sky):
    """(y, x) the S/N of stamps that lie in a scene."""
    whole = np.zeros((len(sky.bands), *shape))
    for stamp, x0, y0 in stamps:
        whole[:, y0:y0 + stamp.shape[1], x0:x0 + stamp.shape[2]] += stamp
    return np.sqrt(((whole * sky.depth[:, None, None])**2).sum(axis=0))


def test_nucleus():
    """Peaks between 30 and 5000 sigma, log-uniform, shaped as a star."""
    sky = Sky({'g': .48, 'Ks': 2.1}, np.array([2.0, 3.0]), 3.0,
              np.array([1.3, .5]), make_sky().optics)
    peaks = []
    for seed in range(150):
        stamps = nucleus(np.random.default_rng(seed), sky, 1e9, 60, 50,
                         (100, 120))
        sn = total_light(stamps, (100, 120), sky)
        assert np.unravel_index(sn.argmax(), sn.shape) == (50, 60)
        peaks.append(sn.max())
    assert min(peaks) > 29.9
    assert max(peaks) < 5001
    away = (np.log(np.array(peaks) / 30) / np.log(5000 / 30)).clip(0, 1)
    assert kstest(away, 'uniform').pvalue > 1e-3
    ratio = stamps[0][0][0, :, 60 - stamps[0][1]]
    wanted = moffat((np.arange(len(ratio)) + stamps[0][2] - 50.)**2, 2, 3)
    near = wanted > 1e-4 * wanted.max()
    assert_allclose(ratio[near] / ratio.max(), (wanted / wanted.max())[near],
                    rtol=1e-2)


def test_points_of_faint_galaxies():
    """None outshines its galaxy."""
    sky, rng = make_sky(), np.random.default_rng(0)
    assert nucleus(rng, sky, 1, 50, 50, (100, 100)) == []
    light = np.ones((100, 100))
    assert bright_knots(rng, sky, light, 1, 20, 50, 50) == []
    for _ in range(30):
        for stamp, _, _ in nucleus(rng, sky, 100, 50, 50, (100, 100)):
            assert stamp.sum(axis=(1, 2)).mean() < 310


def test_knots():
    sky, rng = make_sky(fwhm=3.0), np.random.default_rng(0)
    light = np.ones((200, 200))
    light[:, :100] = 0
    numbers = set()
    for _ in range(60):
        knots = bright_knots(rng, sky, light, 1e9, 20, 100, 100)
        numbers.add(len(knots))
        for knot in knots:
            sn = total_light([knot], (200, 200), sky)
            y, x = np.unravel_index(sn.argmax(), sn.shape)
            assert 99 <= x <= 131
            assert abs(y - 100) <= 31
            # less if the peak is not in the middle of a pixel
            assert 20 < sn.max() < 1001
            width = 2 * np.sqrt((sn > sn.max() / 2).sum() / np.pi)
            assert 2.5 < width < 6
    assert numbers == set(range(1, 9))


@pytest.mark.parametrize(('name', 'kind', 'n'), [
    ('nucleus', 'elliptical', 1), ('bright_knots', 'spiral', 1),
    ('bright_knots', 'elliptical', 0)])
def test_points_of_scenes(name, kind, n):
    """They are part of the galaxy: no objects, but light."""
    pytest.importorskip('galsim')
    rates = {**EMPTY, 'large': 2, kind: 1}
    changed = 0
    for seed in range(4):
        without = make_scene(seed, size=96, rates=rates)
        scene = make_scene(seed, size=96, rates={**rates, name: 1})
        if len(without.objects['x']) == 1:
            assert len(scene.objects['x']) == 1
            assert set(np.unique(scene.owner[0])) <= {0, 1}
        changed += scene.cube.max() > 1.01 * without.cube.max(initial=1e-9)
    assert (changed > 0) == n
