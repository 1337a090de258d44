# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests of star clusters.
"""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.ndimage import maximum_filter
from simulate_helpers import EMPTY, digest, make_sky

from astrodino_seg.simulate import make_scene
from astrodino_seg.simulate.clusters import strew
from astrodino_seg.simulate.render import Large


def disc(n_bands=2, side=201):
    """A flat disc with a radius of 50 pixels."""
    y, x = np.mgrid[:side, :side] - side // 2
    light = (np.hypot(x, y) < 50) * np.ones((n_bands, 1, 1))
    return Large((light / light[0].sum() * 8).astype(np.float16), 1 / 8, 30.0,
                 1.0)


@pytest.mark.parametrize('seed', range(6))
def test_light_and_place(seed):
    rng, sky = np.random.default_rng(seed), make_sky(fwhm=2.0)
    galaxy = strew(rng, disc(), sky)
    assert galaxy.scale == 1
    assert (galaxy.re, galaxy.q) == (30.0, 1.0)
    # no light is lost but the far wings of clusters
    assert_allclose(galaxy.cube.sum(axis=(1, 2)).mean(), 1, rtol=0.03)
    smooth = disc().cube.astype(float) / 8
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


def test_scenes():
    """Part of the galaxy, and absent by default."""
    pytest.importorskip('galsim')
    rates = {**EMPTY, 'large': 2, 'irregular': 1}
    plain = make_scene(3, size=128, rates=rates)
    strewn = make_scene(3, size=128, rates={**rates, 'clusters': 1})
    assert len(plain.objects['x']) == len(strewn.objects['x']) > 0
    assert digest(plain) != digest(strewn)
    smooth = make_scene(3, size=128, rates={**EMPTY, 'large': 2,
                                            'elliptical': 1})
    same = make_scene(3, size=128, rates={**EMPTY, 'large': 2,
                                          'elliptical': 1, 'clusters': 1})
    assert digest(smooth) == digest(same)
    assert_array_equal(strewn.objects['primary'], True)
