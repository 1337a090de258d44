# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests of star clusters.
"""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.ndimage import maximum_filter
from simulate_helpers import EMPTY, make_sky

from astrodino_seg.simulate import compose, make_scene
from astrodino_seg.simulate.clusters import strew
from astrodino_seg.simulate.render import Large
from astrodino_seg.simulate.surveys import Sky


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
