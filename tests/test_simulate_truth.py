# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests of the truth of observed scenes: light, shares and blends.
"""

from importlib import import_module

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from simulate_helpers import PLAIN, check_truth, make_canvas

from astrodino_seg.simulate import make_scene, observe
from astrodino_seg.simulate.artifacts import Artifact
from astrodino_seg.simulate.scene import Scene
from astrodino_seg.truth import ISOPHOTE

# the function of this name hides the module
observing = import_module('astrodino_seg.simulate.observe')

SHAPE = 48, 48


def hand_scene():
    """
    A galaxy (1) with a star (2) on it and a knot (3) on both, and a field
    galaxy (4) alone; with them the light of each.
    """
    y, x = np.mgrid[:48, :48]
    shapes = [6 * np.exp(-np.hypot(x - 20, y - 20) / 8)
              * (np.hypot(x - 20, y - 20) < 18),
              20 * np.exp(-((x - 26)**2 + (y - 20)**2) / 6),
              15 * np.exp(-((x - 29)**2 + (y - 21)**2) / 8),
              5 * np.exp(-((x - 42)**2 + (y - 42)**2) / 9)]
    colours = np.array([[3, 4], [4, 3], [0, 5], [5, 0]]) / 5
    parts = np.stack([colour[:, None, None] * shape
                      for shape, colour in zip(shapes, colours)])
    canvas = make_canvas(SHAPE)
    for k, part in enumerate(parts.astype(np.float32)):
        canvas.add(part, 0, 0, x=20, y=20, cls=2, kind='field', re=4.0,
                   primary=k == 0)
    return canvas.scene(), parts


def see(scene, seed=0, depth=1.0, bands=(0, 1), **rates):
    """An observation with nothing but noise, sky and what is named."""
    return observe(scene, seed, depth=depth, bands=bands,
                   rates={**PLAIN, **rates})


# -------------------------------------------------------------------- flux

def test_flux_of_nothing():
    scene = Scene(np.zeros((2, *SHAPE), np.float32),
                  np.zeros((3, *SHAPE), np.int32),
                  np.zeros((3, *SHAPE), np.float32), {'g': .48, 'r': .62},
                  np.full(2, 3.0), {key: np.array([]) for key in (
                      'x', 'y', 'cls', 'kind', 're', 'primary', 'flux')})
    for seed in range(4):
        truth = observe(scene, seed, bands=[0])[1]
        assert truth.objects['flux'].shape == (len(truth.objects['id']), 1)
        assert_array_equal(truth.shares[0] > 0, truth.owners[0] > 0)


@pytest.mark.parametrize('bands', [[0, 1], [1]])
def test_light(bands):
    """Flux and light are in the unit of the image, before its defects."""
    scene, parts = hand_scene()
    image, truth = see(scene, 1, depth=2.0, bands=bands)
    light = 2 * parts.sum(axis=0)[bands]
    assert truth.light.dtype == np.float32
    assert_allclose(truth.light, light, rtol=1e-5, atol=1e-5)
    ids = truth.objects['id']
    assert set(ids) >= {1, 2, 3}
    assert_allclose(truth.objects['flux'],
                    2 * parts.sum(axis=(2, 3))[ids - 1][:, bands], rtol=1e-5)
    # the sky, the noise and a correlation of it aside
    for band, clean in zip(image.cube, light):
        assert np.corrcoef(band.ravel(), clean.ravel())[0, 1] > 0.8


def test_unknown_flux():
    """Scenes made by hand need not have it."""
    scene = hand_scene()[0]
    del scene.objects['flux']
    truth = see(scene, bands=[0])[1]
    assert np.isnan(truth.objects['flux']).all()
    assert truth.objects['flux'].shape == (len(truth.objects['id']), 1)


def test_saturated_light():
    """Saturation and masks are the image's, not the light's."""
    scene = hand_scene()[0]
    image, truth = see(scene, gap=1000)
    assert image.mask.all()
    assert not image.cube.any()
    assert_allclose(truth.light, scene.cube, rtol=1e-5)
    bright = Scene(1e5 * scene.cube, scene.owner, 1e5 * scene.own_sn,
                   scene.bands, scene.psf_fwhm, scene.objects)
    assert_allclose(see(bright)[1].light,
                    1e5 * scene.cube, rtol=1e-5)


# ------------------------------------------------------------ owners, shares

def shares_by_hand(parts, bands, depth=1.0):
    """Own S/N of all objects, and the three largest of each pixel."""
    sn = depth * np.sqrt((parts[:, bands]**2).sum(axis=1))
    order = np.argsort(-sn, axis=0, kind='stable')[:3]
    top = np.take_along_axis(sn, order, axis=0)
    return sn, order + 1, top


def test_shares():
    scene, parts = hand_scene()
    truth = see(scene)[1]
    _, order, top = shares_by_hand(parts, [0, 1])
    assert truth.owners.dtype == np.int32
    assert truth.shares.dtype == np.float32
    clear = top > 1e-6
    assert_array_equal(truth.owners[clear], order[clear])
    lit = top.sum(axis=0) > 1e-6
    assert_allclose(truth.shares[:, lit], (top / top.sum(axis=0))[:, lit],
                    atol=1e-5)
    assert_allclose(truth.shares.sum(axis=0)[lit], 1, rtol=1e-5)
    inside = truth.labels > 0
    assert_array_equal(truth.owners[0][inside], truth.labels[inside])


def test_artifact_among_the_owners(monkeypatch):
    """A cosmic ray is first or second, and its flux is in one band."""
    spot = np.zeros(SHAPE, np.float32)
    spot[18:22, 15:21] = 5.0     # above the galaxy, but not at its centre
    monkeypatch.setattr(observing, 'draw_artifacts', lambda *args: [
        Artifact('cosmic_ray', 18, 15, np.stack([0 * spot, spot])[
            :, 18:22, 15:21])])
    scene, parts = hand_scene()
    truth = see(scene)[1]
    _, order, top = shares_by_hand(
        np.concatenate([parts, np.stack([0 * spot, spot])[None]]), [0, 1])
    clear = top > 1e-6
    assert (order[0][20, 20], order[0][20, 16]) == (1, 5)
    assert_array_equal(truth.owners[clear], order[clear])
    assert_allclose(truth.light.sum(axis=(1, 2)),
                    parts.sum(axis=(0, 2, 3)) + [0, spot.sum()], rtol=1e-4)
    k = truth.objects['id'].tolist().index(5)
    assert_allclose(truth.objects['flux'][k], [0, 24 * 5])
    # its peak is on the galaxy, which shines below
    assert truth.objects['overlaps'][k] == 1
    assert truth.objects['on_primary'][k]


def test_blendedness():
    scene, parts = hand_scene()
    truth = see(scene)[1]
    sn, order, top = shares_by_hand(parts, [0, 1])
    labels = np.where(top[0] >= ISOPHOTE, order[0], 0)
    ids = truth.objects['id'].tolist()
    for k, value in zip(ids, truth.objects['blendedness']):
        here = labels == k
        assert_allclose(value, 1 - sn[k - 1][here].sum()
                        / top.sum(axis=0)[here].sum(), atol=1e-5)
    one, star, alone = (truth.objects['blendedness'][ids.index(k)]
                        for k in (1, 2, 4))
    assert 0 <= alone < 0.02 < one < star < 2 / 3


def test_overlaps():
    """The knot and the star lie on each other and on the galaxy."""
    scene, parts = hand_scene()
    truth = see(scene)[1]
    sn = shares_by_hand(parts, [0, 1])[0]
    assert sn[1, 20, 26] > sn[2, 20, 26] > sn[0, 20, 26] > ISOPHOTE
    assert sn[2, 21, 29] > sn[1, 21, 29] > sn[0, 21, 29] > ISOPHOTE
    assert_array_equal(truth.objects['id'], [1, 2, 3, 4])
    assert_array_equal(truth.objects['overlaps'][1:], [3, 2, 0])
    assert_array_equal(truth.objects['on_primary'], [0, 1, 1, 0])
    assert truth.objects['overlaps'][0] == 0     # its centre is its peak


def test_overlaps_what_is_asked_for():
    """What is too faint to be asked for is not named."""
    scene = hand_scene()[0]
    spot = np.zeros((2, *SHAPE), np.float32)
    spot[:, 42, 42] = 3.0           # under the field galaxy, one pixel
    canvas = make_canvas(SHAPE)
    canvas.cube, canvas.owner, canvas.own_sn = (
        scene.cube, scene.owner, scene.own_sn)
    canvas.rows = [{}] * 4
    canvas.add(spot, 0, 0)
    scene.objects = {key: np.append(values, values[:1], axis=0)
                     for key, values in scene.objects.items()}
    scene.objects['primary'][4] = False
    truth = see(scene)[1]
    assert truth.owners[1, 42, 42] == 5
    k = truth.objects['id'].tolist().index(4)
    assert truth.objects['overlaps'][k] == 0


@pytest.mark.parametrize('seed', range(6))
def test_any_observation(seed):
    pytest.importorskip('galsim')
    check_truth(*observe(make_scene(seed, size=96, density=1.0), seed))


def test_masked_object():
    """What is masked all over has no peak, and overlaps nothing."""
    scene, _ = hand_scene()
    n_gone = 0
    for seed in range(40):
        truth = see(scene, seed, gap=6)[1]
        gone = ~np.isin(truth.objects['id'], truth.labels)
        n_gone += gone.sum()
        assert not truth.objects['overlaps'][gone].any()
        assert not truth.objects['on_primary'][gone].any()
    assert n_gone > 10
