# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests of artifacts and of lost pixels.
"""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from simulate_helpers import PLAIN, make_canvas

from astrodino_seg.simulate import observe
from astrodino_seg.simulate.artifacts import draw_artifacts, draw_masks
from astrodino_seg.simulate.stars import star_stamp

SHAPE = 3, 90, 120


def artifacts(seed, cube=None, stars=(), saturation=1e4, **rates):
    cube = np.zeros(SHAPE, np.float32) if cube is None else cube
    return draw_artifacts(np.random.default_rng(seed), cube,
                          np.full(len(cube), 3.0), stars, saturation,
                          {**PLAIN, **rates})


def masks(seed, shape=SHAPE, **rates):
    mask = np.zeros(shape, bool)
    draw_masks(np.random.default_rng(seed), mask, {**PLAIN, **rates})
    return mask


def whole(one, shape=SHAPE):
    """Its light in the frame, in which it fits."""
    image = np.zeros(shape, np.float32)
    _, h, w = one.patch.shape
    image[:, one.y0:one.y0 + h, one.x0:one.x0 + w] += one.patch
    return image


@pytest.mark.parametrize('seed', range(5))
def test_nothing(seed):
    bright = np.full(SHAPE, 1e6, np.float32)
    assert artifacts(seed, bright, [[30, 40]]) == []
    assert not masks(seed).any()


# ------------------------------------------------------------------- lines

@pytest.mark.parametrize('seed', range(6))
def test_trail(seed):
    """A straight line across all of the image, in one band."""
    one, = artifacts(seed, trail=1)
    assert one.kind == 'trail'
    image = whole(one)
    lit = np.flatnonzero(image.any(axis=(1, 2)))
    assert len(lit) == 1
    image = image[lit[0]]
    peak = image.max()
    assert 0.5 < peak <= 10**1.5
    # all that is bright lies on one line, as wide as the PSF
    y, x = np.nonzero(image > peak / 2)
    points = np.stack([x, y]) - np.mean([x, y], axis=1, keepdims=True)
    _, (_, across), _ = np.linalg.svd(points, full_matrices=False)
    # a band of a half-width of 1.18 sigma
    assert across / np.sqrt(len(x)) < 1.18 * 3 / 2.35
    # it ends at the edges of the image
    at_edge = ((x <= 3) | (x >= SHAPE[2] - 4) | (y <= 3)
               | (y >= SHAPE[1] - 4))
    assert at_edge.sum() >= 2


def test_cosmic_rays():
    """Small, in one band each, and as many as their rate."""
    numbers = []
    for seed in range(30):
        found = artifacts(seed, cosmic_ray=4)
        numbers.append(len(found))
        for one in found:
            assert one.kind == 'cosmic_ray'
            image = whole(one)
            assert image.any(axis=(1, 2)).sum() == 1
            bright = image.max(axis=0) > 0.3 * image.max()
            y, x = np.nonzero(bright)
            assert max(np.ptp(x), np.ptp(y)) <= 18
            # thinner than any star
            assert len(x) <= 3 * max(np.ptp(x), np.ptp(y)) + 4
    assert_allclose(np.mean(numbers), 4, atol=4 * 2 / np.sqrt(30))


# -------------------------------------------------------------- of stars

def star_scene(flux, x=60, y=50, shape=(120, 110), **kwargs):
    canvas = make_canvas(shape, **kwargs)
    stamp = star_stamp(canvas.sky, np.full(2, flux), x, y, shape)
    canvas.add(*stamp, x=x, y=y, cls=1, kind='star', re=1.0, primary=False)
    return canvas.scene()


@pytest.mark.parametrize('seed', range(4))
def test_bleed(seed):
    """Along the column of a saturated star, and an object of its own."""
    scene = star_scene(5e7, fwhm=3.0)
    image, truth = observe(scene, seed, depth=1.0, bands=[0, 1],
                           rates={**PLAIN, 'bleed': 1})
    o = truth.objects
    k = o['kind'].tolist().index('bleed')
    assert o['cls'][k] == 3
    assert abs(o['x'][k] - 60) <= 3
    y, x = np.nonzero(truth.labels == o['id'][k])
    assert np.abs(x - 60).max() <= 6
    assert np.abs(y - 50).max() > 2 * np.abs(x - 60).max()
    # above and below the star
    assert y.min() < 50 < y.max()
    # charge runs only up to the limit
    limit = image.cube[:, 50, 60]
    assert (image.cube.max(axis=(1, 2)) < limit + 20).all()
    added = truth.light - scene.cube
    assert (added >= 0).all()
    assert_allclose(added.sum(axis=(1, 2)), o['flux'][k], rtol=1e-3)


def test_brighter_stars_bleed_farther():
    lengths = []
    for flux in (3e6, 3e7, 3e8):
        scene = star_scene(flux, fwhm=2.0, shape=(400, 110), y=200)
        one, = artifacts(0, scene.cube, [[60, 200]], saturation=1e4,
                         bleed=1)
        lit = one.patch[0].max(axis=1) > 5e3
        lengths.append(np.ptp(np.flatnonzero(lit)))
    assert lengths[0] < lengths[1] < lengths[2]
    # with the root of the charge
    assert_allclose(np.log10(lengths[2] / lengths[1]), 0.5, atol=0.15)


def test_no_bleed_below_saturation():
    cube = np.full(SHAPE, 1.4e4, np.float32)
    assert artifacts(0, cube, [[30, 40]], saturation=1e4, bleed=1) == []
    # nor of stars out of the frame
    cube[:] = 1e6
    assert artifacts(0, cube, [[-3, 40], [30, 95]], bleed=1) == []


def test_ghost():
    """A faint ring beside a very bright star, in all bands."""
    found = []
    for seed in range(40):
        cube = np.zeros((3, 400, 400), np.float32)
        cube[:, 200, 210] = 3000
        found += artifacts(seed, cube, [[210, 200]], ghost=1)
    assert len(found) > 35
    for one in found:
        assert one.kind == 'ghost'
        light = one.patch.sum(axis=0)
        assert one.patch.any(axis=(1, 2)).all()
        assert 0.05 < one.patch.max() < 10
        y, x = np.nonzero(light > 0.6 * light.max())
        y, x = y + one.y0, x + one.x0
        if x.min() > 0 and y.min() > 0 and max(x.max(), y.max()) < 399:
            # a disc or a ring: as high as wide, about its middle
            assert abs(np.ptp(x) - np.ptp(y)) <= 2
            outer = (np.ptp(x) + 1) / 2
            assert 13 < outer < 62
            away = np.hypot((x.max() + x.min()) / 2 - 210,
                            (y.max() + y.min()) / 2 - 200)
            assert 0.4 * outer < away < 3.2 * outer
            r = np.hypot(x - (x.max() + x.min()) / 2,
                         y - (y.max() + y.min()) / 2)
            assert r.max() < outer + 1.5
    faint = np.full((3, 400, 400), 1900, np.float32)
    assert artifacts(0, faint, [[210, 200]], ghost=1) == []


def test_ghost_in_the_truth():
    scene = star_scene(3e5, shape=(260, 260), x=130, y=130)
    seen = 0
    for seed in range(6):
        image, truth = observe(scene, seed, depth=1.0, bands=[0, 1],
                               rates={**PLAIN, 'ghost': 1})
        for k in np.flatnonzero(truth.objects['kind'] == 'ghost'):
            seen += 1
            assert truth.objects['cls'][k] == 3
            assert not truth.objects['primary'][k]
            assert (truth.objects['flux'][k] > 0).all()
    assert seen >= 3


# ------------------------------------------------------------- lost pixels

def test_gaps():
    """Bars from edge to edge, in one band or in all."""
    every = 0
    for seed in range(40):
        mask = masks(seed, gap=1)
        for band in mask:
            rows, columns = band.all(axis=1), band.all(axis=0)
            assert (band == (rows[:, None] | columns)).all()
        bands = mask.any(axis=(1, 2)).sum()
        every += bands == 3
    assert 5 < every < 30
    mask = masks(1, gap=200)
    assert mask.mean() > 0.9


def test_width_of_gaps():
    widths = set()
    for seed in range(2000):            # hardly ever two in one mask
        mask = masks(seed, shape=(1, 99, 99), gap=0.02)
        lines = mask[0].all(axis=1) if mask[0].all(axis=1).any() else (
            mask[0].all(axis=0))
        edges = np.flatnonzero(np.diff(lines.astype(int)))
        if len(edges) == 2:
            widths.add(int(edges[1] - edges[0]))
    assert widths <= set(range(2, 40))
    assert len(widths) > 10


def test_stripes():
    """A comb of rows or columns, in one band."""
    seen = set()
    for seed in range(30):
        mask = masks(seed, shape=(2, 300, 300), stripes=1)
        assert mask.any(axis=(1, 2)).sum() <= 1
        band = mask[0] | mask[1]
        if not band.any():
            continue                    # between two teeth
        rows = band.all(axis=1).any()
        assert rows != band.all(axis=0).any()
        lines = np.flatnonzero(band.all(axis=1 if rows else 0))
        assert band.sum() == 300 * len(lines)
        first = lines[np.append(True, np.diff(lines) > 1)]
        steps = set(np.diff(first[1:]).tolist())
        assert len(steps) <= 1
        assert steps <= set(range(8, 60))
        seen.add(rows)
    assert seen == {True, False}

