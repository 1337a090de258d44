# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests of large, resolved galaxies.
"""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.ndimage import center_of_mass

from astrodino_seg.simulate.galaxies import KINDS, make_frame, resolved_galaxy

WAVES = np.array([0.48, 0.62, 0.87])


def draw(kind, seed, rates=None, re=9.0):
    return resolved_galaxy(np.random.default_rng(seed), kind, re, WAVES,
                           rates)


@pytest.mark.parametrize('kind', list(KINDS))
def test_resolved_galaxy(kind):
    for seed in range(3):
        cube, q = draw(kind, seed)
        assert cube.dtype == np.float32
        n = cube.shape[1]
        assert cube.shape == (3, n, n)
        assert n % 2 == 1
        assert 0 < q <= 1
        assert (cube >= 0).all()
        assert_allclose(cube.sum(axis=(1, 2), dtype=float).mean(), 1,
                        rtol=1e-5)
        # nothing is cut at the edge of the stamp
        rim = np.concatenate([cube[:, 0], cube[:, -1], cube[:, :, 0],
                              cube[:, :, -1]], axis=None)
        assert rim.max() < 1e-4 * cube.max()


@pytest.mark.parametrize('kind', ['elliptical', 'lenticular', 'central'])
def test_nucleus(kind):
    """Smooth galaxies are brightest, and centred, in the middle."""
    for seed in range(4):
        cube, _ = draw(kind, seed)
        middle = cube.shape[1] // 2
        image = cube[1] * (cube[1] > cube[1].max() / 200)
        assert cube[1, middle, middle] > 0.5 * cube[1].max()
        assert_allclose(center_of_mass(image), middle, atol=0.6)


def test_intracluster_light():
    """
    An envelope of the central galaxy, which is part of it; without it a
    central galaxy is a spheroid.
    """
    frame = make_frame(301, 10.0, 0.8, 0.4)
    rates = {'specks': 0, 'icl': 0}
    spheroid, alone = (KINDS[kind](np.random.default_rng(1), frame, WAVES,
                                   rates) for kind in ('elliptical',
                                                       'central'))
    assert_array_equal(alone, spheroid)
    whole = KINDS['central'](np.random.default_rng(1), frame, WAVES,
                             {**rates, 'icl': 1})
    envelope = whole - alone
    assert (envelope > 0).all()
    share = envelope.sum(axis=(1, 2)) / alone.sum(axis=(1, 2))
    assert ((share > 0.2) & (share < 0.8)).all()
    # half of it lies several half-light radii out
    inside = envelope[:, frame.r < 20].sum() / envelope.sum()
    assert inside < 0.5


def test_shells():
    """Arcs that end sharply on the outside, on a spheroid."""
    frame = make_frame(161, 12.0, 1.0, 0.0)
    rates = {'specks': 0}
    for seed in range(4):
        base = KINDS['elliptical'](np.random.default_rng(seed), frame, WAVES,
                                   rates)
        arcs = (KINDS['shells'](np.random.default_rng(seed), frame, WAVES,
                                rates) - base)[1]
        assert arcs.min() > -1e-9
        share = arcs.sum() / base[1].sum()
        assert 0.02 < share < 0.3
        # outwards they fall faster than they rise
        rays = np.stack([arcs[80, 80:], arcs[80, 80::-1], arcs[80:, 80],
                         arcs[80::-1, 80]])
        steps = np.diff(rays, axis=1)
        assert -steps.min() > 1.5 * steps.max()
        assert arcs[frame.r > 4.01 * 12].max() == 0


@pytest.mark.parametrize(('kind', 'name'), [
    ('spiral', 'bar'), ('spiral', 'ring'), ('spiral', 'knots'),
    ('spiral', 'dust'), ('edge_on', 'dust'), ('irregular', 'knots'),
    ('elliptical', 'specks'), ('central', 'icl')])
def test_rates(kind, name):
    """Each is in some of ten galaxies, and in none where its rate is 0."""
    others = dict.fromkeys(['bar', 'ring', 'knots', 'dust', 'specks',
                            'icl'], 0)
    changed = 0
    for seed in range(10):
        none, _ = draw(kind, seed, others)
        some, _ = draw(kind, seed, {**others, name: 1})
        changed += not np.allclose(none, some, rtol=1e-3, atol=1e-9)
    assert changed >= 8


def test_dust_reddens():
    for seed in range(6):
        clear, _ = draw('edge_on', seed, {'dust': 0}, re=15.0)
        dusty, _ = draw('edge_on', seed, {'dust': 1}, re=15.0)
        colours = [cube[0].sum() / cube[2].sum() for cube in (clear, dusty)]
        assert colours[1] < colours[0]


def test_smooth_without_knots():
    """Without knots a dwarf has no unresolved peaks."""
    for seed in range(4):
        images = [draw('irregular', seed, {'knots': k}, re=20.0)[0][0]
                  for k in (0, 1)]
        # the height of the strongest curvature, over the brightest pixel
        peaks = [-np.diff(image, 2, axis=0).min() / image.max()
                 for image in images]
        assert peaks[1] > 1.5 * peaks[0]


def test_colour_gradient():
    """Spirals are redder in the middle."""
    redder = []
    for seed in range(8):
        cube, _ = draw('spiral', seed, {'dust': 0, 'knots': 0}, re=15.0)
        middle = cube.shape[1] // 2
        core = cube[:, middle - 2:middle + 3, middle - 2:middle + 3]
        inner = core[2].sum() / core[0].sum()
        redder.append(inner / (cube[2].sum() / cube[0].sum()))
    assert np.median(redder) > 1.02


def test_bad_galaxy():
    with pytest.raises(ValueError, match="kind must be one of .* 'square'"):
        draw('square', 0)
    with pytest.raises(ValueError, match="rates must be some of .* 'arms'"):
        draw('spiral', 0, {'arms': 1})
