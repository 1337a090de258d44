# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests of the truth of observed scenes: light, shares and blends.
"""

from importlib import import_module

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from astrodino_seg.simulate import (
    ISOPHOTE,
    Scene,
    SceneLibrary,
    make_scene,
    observe,
)
from astrodino_seg.simulate import scene as scenes

# the function of this name hides the module
observing = import_module('astrodino_seg.simulate.observe')
library = import_module('astrodino_seg.simulate.scene_library')

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
    canvas = scenes._Canvas(48, {'g': .48, 'r': .62}, np.full(2, 3.0), 3.0,
                            {})
    for k, part in enumerate(parts.astype(np.float32)):
        canvas.add(part, 0, 0, x=20, y=20, cls=2, kind='field', re=4.0,
                   primary=k == 0)
    objects = {key: np.array([row[key] for row in canvas.rows])
               for key in canvas.rows[0]}
    return Scene(canvas.cube, canvas.owner, canvas.own_sn, canvas.bands,
                 canvas.psf_fwhm, objects), parts


@pytest.fixture
def plain(monkeypatch):
    """Observations without artifacts, gaps or steps in depth."""
    monkeypatch.setattr(observing, '_artifacts', lambda *args: [])
    monkeypatch.setattr(observing, '_gaps', lambda rng, mask: None)
    monkeypatch.setattr(observing, '_depth',
                        lambda rng, shape: np.ones(shape, np.float32))


# -------------------------------------------------------------------- flux

def test_flux_in_the_frame():
    """A stamp that is cut by the edges counts as far as it is seen."""
    canvas = scenes._Canvas(10, {'g': .48, 'r': .62}, np.full(2, 3.0), 3.0,
                            {})
    stamp = np.ones((2, 6, 6), np.float32)
    stamp[1] = 3
    for x, y in ((2, 2), (-4, 2), (8, -5), (-6, 0)):
        canvas.add(stamp, x, y)
    # the last lies outside and is no object
    assert_allclose([row['flux'] for row in canvas.rows],
                    [[36, 108], [12, 36], [2, 6]])


def test_flux_of_a_scene():
    pytest.importorskip('galsim')
    scene = make_scene(3, size=96, band_set='griz', density=1.0)
    flux = scene.objects['flux']
    assert flux.shape == (len(scene.objects['x']), 4)
    assert flux.dtype == np.float32
    assert (flux > 0).all()
    assert_allclose(flux.sum(axis=0), scene.cube.sum(axis=(1, 2)), rtol=1e-5)


def test_flux_of_nothing():
    pytest.importorskip('galsim')
    scene = Scene(np.zeros((2, *SHAPE), np.float32),
                  np.zeros((3, *SHAPE), np.int16),
                  np.zeros((3, *SHAPE), np.float32), {'g': .48, 'r': .62},
                  np.full(2, 3.0), {key: np.array([]) for key in (
                      'x', 'y', 'cls', 'kind', 're', 'primary', 'flux')})
    for seed in range(4):
        truth = observe(scene, seed, bands=[0])[1]
        assert truth.objects['flux'].shape == (len(truth.objects['id']), 1)
        assert_array_equal(truth.shares[0] > 0, truth.owners[0] > 0)


@pytest.mark.parametrize('bands', [[0, 1], [1]])
def test_light(plain, bands):
    """Flux and light are in the unit of the image, before its defects."""
    scene, parts = hand_scene()
    image, truth = observe(scene, 1, depth=2.0, bands=bands)
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


def test_unknown_flux(plain):
    """Scenes made by hand need not have it."""
    scene = hand_scene()[0]
    del scene.objects['flux']
    truth = observe(scene, 0, depth=1.0, bands=[0])[1]
    assert np.isnan(truth.objects['flux']).all()
    assert truth.objects['flux'].shape == (len(truth.objects['id']), 1)


def test_saturated_light(monkeypatch, plain):
    """Saturation and masks are the image's, not the light's."""
    scene = hand_scene()[0]
    monkeypatch.setattr(observing, '_gaps',
                        lambda rng, mask: mask.fill(True))
    image, truth = observe(scene, 0, depth=1.0, bands=[0, 1])
    assert not image.cube.any()
    assert_allclose(truth.light, scene.cube, rtol=1e-5)
    bright = Scene(1e5 * scene.cube, scene.owner, 1e5 * scene.own_sn,
                   scene.bands, scene.psf_fwhm, scene.objects)
    assert_allclose(observe(bright, 0, depth=1.0, bands=[0, 1])[1].light,
                    1e5 * scene.cube, rtol=1e-5)


# ------------------------------------------------------------ owners, shares

def shares_by_hand(parts, bands, depth=1.0):
    """Own S/N of all objects, and the three largest of each pixel."""
    sn = depth * np.sqrt((parts[:, bands]**2).sum(axis=1))
    order = np.argsort(-sn, axis=0, kind='stable')[:3]
    top = np.take_along_axis(sn, order, axis=0)
    return sn, order + 1, top


def test_shares(plain):
    scene, parts = hand_scene()
    truth = observe(scene, 0, depth=1.0, bands=[0, 1])[1]
    _, order, top = shares_by_hand(parts, [0, 1])
    assert truth.owners.dtype == np.int16
    assert truth.shares.dtype == np.float32
    clear = top > 1e-6
    assert_array_equal(truth.owners[clear], order[clear])
    lit = top.sum(axis=0) > 1e-6
    assert_allclose(truth.shares[:, lit], (top / top.sum(axis=0))[:, lit],
                    atol=1e-5)
    assert_allclose(truth.shares.sum(axis=0)[lit], 1, rtol=1e-5)
    inside = truth.labels > 0
    assert_array_equal(truth.owners[0][inside], truth.labels[inside])


def test_artifact_among_the_owners(plain, monkeypatch):
    """A cosmic ray is first or second, and its flux is in one band."""
    spot = np.zeros(SHAPE, np.float32)
    spot[18:22, 15:21] = 5.0     # above the galaxy, but not at its centre
    monkeypatch.setattr(observing, '_artifacts',
                        lambda *args: [(1, spot, 'cosmic_ray')])
    scene, parts = hand_scene()
    truth = observe(scene, 0, depth=1.0, bands=[0, 1])[1]
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


def test_blendedness(plain):
    scene, parts = hand_scene()
    truth = observe(scene, 0, depth=1.0, bands=[0, 1])[1]
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


def test_overlaps(plain):
    """The knot and the star lie on each other and on the galaxy."""
    scene, parts = hand_scene()
    truth = observe(scene, 0, depth=1.0, bands=[0, 1])[1]
    sn = shares_by_hand(parts, [0, 1])[0]
    assert sn[1, 20, 26] > sn[2, 20, 26] > sn[0, 20, 26] > ISOPHOTE
    assert sn[2, 21, 29] > sn[1, 21, 29] > sn[0, 21, 29] > ISOPHOTE
    assert_array_equal(truth.objects['id'], [1, 2, 3, 4])
    assert_array_equal(truth.objects['overlaps'][1:], [3, 2, 0])
    assert_array_equal(truth.objects['on_primary'], [0, 1, 1, 0])
    assert truth.objects['overlaps'][0] == 0     # its centre is its peak


def test_overlaps_what_is_asked_for(plain):
    """What is too faint to be asked for is not named."""
    scene = hand_scene()[0]
    spot = np.zeros((2, *SHAPE), np.float32)
    spot[:, 42, 42] = 3.0           # under the field galaxy, one pixel
    canvas = scenes._Canvas(48, scene.bands, scene.psf_fwhm, 3.0, {})
    canvas.cube, canvas.owner, canvas.own_sn = (
        scene.cube, scene.owner, scene.own_sn)
    canvas.rows = [{}] * 4
    canvas.add(spot, 0, 0)
    scene.objects = {key: np.append(values, values[:1], axis=0)
                     for key, values in scene.objects.items()}
    scene.objects['primary'][4] = False
    truth = observe(scene, 0, depth=1.0, bands=[0, 1])[1]
    assert truth.owners[1, 42, 42] == 5
    k = truth.objects['id'].tolist().index(4)
    assert truth.objects['overlaps'][k] == 0


@pytest.mark.parametrize('seed', range(6))
def test_any_observation(seed):
    pytest.importorskip('galsim')
    scene = make_scene(seed, size=96, density=1.0)
    image, truth = observe(scene, seed)
    o, n = truth.objects, len(truth.objects['id'])
    assert {len(values) for values in o.values()} == {n}
    assert o['flux'].shape == (n, image.n_bands)
    assert (o['flux'].sum(axis=1) > 0).all()
    assert truth.light.shape == image.cube.shape
    assert ((o['blendedness'] >= 0) & (o['blendedness'] < 1)).all()
    assert set(o['overlaps']) <= {0, *o['id']}
    assert not (o['overlaps'] == o['id']).any()
    primary = dict(zip(o['id'], o['primary']))
    on_one = np.array([primary.get(k, False) for k in o['overlaps']], bool)
    assert (o['on_primary'] | ~on_one).all()
    assert (np.diff(truth.shares, axis=0) <= 1e-6).all()
    lit = truth.owners[0] > 0
    assert_allclose(truth.shares.sum(axis=0)[lit], 1, rtol=1e-5)


# ------------------------------------------------------- library, training

def test_library_keeps_flux(tmp_path, monkeypatch):
    """Beyond what float16 can hold."""
    scene = hand_scene()[0]
    scene.objects['flux'] = np.float32([[1e5, 1e-7]] * 4)
    monkeypatch.setattr(library, 'make_scene', lambda seed, *, size: scene)
    for _ in range(2):              # made, then read
        flux = SceneLibrary('train', 1, path=tmp_path)[0].objects['flux']
        assert flux.dtype == np.float32
        assert_array_equal(flux, scene.objects['flux'])


def test_cutout():
    """All maps of the truth are cut alike."""
    pytest.importorskip('galsim')
    targets = pytest.importorskip('astrodino_seg.train.targets')
    image, truth = observe(make_scene(3, size=96, density=1.0), 3)
    assert truth.objects['primary'].any()
    rng = np.random.default_rng(0)
    cut_image, cut = targets._cutout(rng, image, truth, 48)
    size = cut.labels.shape
    assert size != truth.labels.shape
    assert cut_image.cube.shape == cut.light.shape == (
        image.n_bands, *size)
    assert cut.owners.shape == cut.shares.shape == (3, *size)
    inside = cut.labels > 0
    assert inside.any()
    assert_array_equal(cut.owners[0][inside], cut.labels[inside])
