# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests of damage that no mask tells of.
"""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from simulate_helpers import PLAIN, hand_scene

from astrodino_seg.simulate import observe
from astrodino_seg.simulate.artifacts import (
    add_bad_lines,
    draw_edge,
    fill,
    odd_cores,
)


def see(scene, seed=0, **rates):
    return observe(scene, seed, depth=1.0, bands=[0, 1],
                   rates={**PLAIN, **rates})


@pytest.mark.parametrize('seed', range(30))
def test_one_bad_line(seed):
    """One to three rows or columns, 3 to 100 sigma off the sky."""
    image = np.full((3, 50, 70), 8, np.float32)
    add_bad_lines(np.random.default_rng(seed), image, image.copy(), 1)
    off = image - 8
    values = np.unique(off[off != 0])
    if len(values) == 0:                 # of no length
        return
    assert len(values) == 1
    assert 3 <= abs(values[0]) <= 100
    bands = off.any(axis=(1, 2)).sum()
    assert bands in (1, 3)
    rows, columns = off.any(axis=(0, 2)).sum(), off.any(axis=(0, 1)).sum()
    assert min(rows, columns) <= 3
    assert (off != 0).sum() == bands * rows * columns


def test_bad_lines():
    """They are no objects, and nothing is masked."""
    scene, _ = hand_scene()
    image, truth = see(scene, 3, bad_lines=6)
    plain, wanted = see(scene, 3)
    assert not image.mask.any()
    assert_array_equal(truth.labels, wanted.labels)
    assert_array_equal(truth.objects['id'], wanted.objects['id'])
    changed = np.abs(image.cube - plain.cube) > 1
    assert .001 < changed.mean() < .4


@pytest.mark.parametrize('seed', range(30))
def test_edge(seed):
    """A straight border, or two at right angles; the chip is convex."""
    beyond = draw_edge(np.random.default_rng(seed), (80, 100))
    assert 0 < beyond.mean() < .8
    y, x = np.nonzero(~beyond)
    rng = np.random.default_rng(0)
    i, j = rng.integers(0, len(x), (2, 500))
    middle = ~beyond[(y[i] + y[j]) // 2, (x[i] + x[j]) // 2]
    # but for the rounding of the middle
    assert middle.mean() > .97


def test_images_with_edges():
    """Void beyond, in all bands; filled, or masked."""
    scene, _ = hand_scene()
    masked = 0
    for seed in range(30):
        image, truth = see(scene, seed, edge=1)
        beyond = truth.labels == -1
        whole = see(scene, seed)[1].labels == -1
        extra = beyond & ~whole
        assert extra.any()
        masked += image.mask.any()
        if image.mask.any():
            assert_array_equal(image.mask[0], image.mask[1])
            assert beyond[image.mask[0]].all()
        else:
            # no noise beyond
            rough = np.abs(np.diff(image.cube[0], n=2, axis=1))
            inside = (extra[:, 2:] & extra[:, :-2] & extra[:, 1:-1])
            assert not inside.any() or np.median(rough[inside]) < .05
    assert 2 < masked < 18


def test_filled():
    """Nothing is masked; void where all bands are filled."""
    scene, _ = hand_scene()
    voids = 0
    for seed in range(30):
        image, truth = see(scene, seed, filled=1, gap=3, stripes=1)
        other = see(scene, seed, gap=3, stripes=1)[0]
        assert not image.mask.any()
        dead = other.mask.all(axis=0)
        assert (truth.labels[dead] == -1).all()
        voids += dead.any()
        for plane, lost in zip(image.cube, other.mask):
            if lost.any():
                # a number, or a plane
                assert len(np.unique(plane[lost])) == 1 or np.ptp(
                    np.diff(plane[lost])) < 90
    assert voids > 5


def test_fill():
    """Zero, near the sky, far from it, or the sky's slope."""
    ramp = np.linspace(20, 30, 80)
    rng = np.random.default_rng(0)
    noisy = (ramp + rng.normal(size=(1, 60, 80))).astype(np.float32)
    where = np.zeros(noisy.shape, bool)
    where[:, 20:30] = True
    kinds = set()
    for seed in range(40):
        image = noisy.copy()
        fill(np.random.default_rng(seed), image, where)
        assert_array_equal(image[~where], noisy[~where])
        lost = image[where]
        if np.ptp(lost) > 0:
            kinds.add('smooth')
            # the medians of blocks have errors
            assert_allclose(image[0, 25, 5:-5], ramp[5:-5], atol=2)
        elif lost[0] == 0:
            kinds.add('zero')
        else:
            kinds.add('near' if abs(lost[0] - 25) < 9 else 'far')
    assert kinds == {'smooth', 'zero', 'near', 'far'}
    gone = noisy.copy()
    for seed in range(8):
        fill(np.random.default_rng(seed), gone, np.ones_like(where))
        assert np.isfinite(gone).all()


def test_cores():
    light = np.zeros((1, 40, 40), np.float32)
    light[0, 20, 10:30] = np.linspace(0, 5000, 20)
    sky = np.full_like(light, 30)
    kinds = set()
    for seed in range(40):
        image = light + sky
        odd_cores(np.random.default_rng(seed), image, light, 1000.0, sky)
        core = light > 1000
        assert_array_equal(image[~core], (light + sky)[~core])
        line = image[core]
        if (line == 0).all():
            kinds.add('zero')
        elif (line < 0).all():
            kinds.add('negative')
            assert np.ptp(line) == 0
            assert -1001 < line[0] < -9
        elif (line == 1030).all():
            kinds.add('flat')
        else:
            kinds.add('hollow')
            assert line[0] == 1030
            assert line[-1] < 0
    assert kinds == {'zero', 'negative', 'flat', 'hollow'}


def test_odd_images():
    """The truth is that of the star; nothing is masked."""
    scene, _ = hand_scene()
    scene.cube *= 100
    for seed in range(8):
        image, truth = see(scene, seed, saturated_odd=1, saturated_mask=1)
        assert not image.mask.any()
        assert_array_equal(truth.light, scene.cube)
        assert_array_equal(truth.labels, see(scene, seed)[1].labels)
        y, x = np.unravel_index(truth.light[1].argmax(), (64, 64))
        assert image.cube[1, y, x] < .9 * truth.light[1].max()


def test_negated():
    """No objects, in the negative of the image or in noise alone."""
    scene, _ = hand_scene()
    negatives = 0
    for seed in range(30):
        image, truth = see(scene, seed, negated=1, cosmic_ray=3)
        assert len(truth.objects['id']) == 0
        assert not truth.labels.any()
        for array in (truth.own_sn, truth.owners, truth.shares):
            assert not array.any()
        rest = image.cube - truth.light
        rest -= rest.mean(axis=(1, 2), keepdims=True)
        assert abs(rest.std() - 1) < .05
        if truth.light.any():
            negatives += 1
            assert truth.light.max() <= 0
            assert (truth.light <= -scene.cube + 1e-4).all()
    assert 5 < negatives < 25
