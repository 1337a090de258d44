# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests of observations: noise, sky, depth, bands, and the rules of the truth.
"""

from importlib import import_module

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from simulate_helpers import PLAIN, check_truth, hand_scene

from astrodino_seg.simulate import make_scene, observe
from astrodino_seg.simulate.artifacts import Artifact
from astrodino_seg.simulate.scene import Scene
from astrodino_seg.truth import ISOPHOTE, PRIMARY_PIXELS, PRIMARY_SN

# the function of this name hides the module
observing = import_module('astrodino_seg.simulate.observe')


def see(scene, seed=0, depth=1.0, bands=(0, 1), **rates):
    """An observation with nothing but noise, sky and what is named."""
    return observe(scene, seed, depth=depth, bands=bands,
                   rates={**PLAIN, **rates})


def test_same_seed():
    scene, _ = hand_scene()
    one, two = observe(scene, 1), observe(scene, 1)
    assert_array_equal(one[0].cube, two[0].cube)
    assert_array_equal(one[1].labels, two[1].labels)
    cubes = [observe(scene, seed, bands=[0, 1])[0].cube for seed in (
        1, 2, [1, 2])]
    assert not np.array_equal(cubes[0], cubes[1])
    assert not np.array_equal(cubes[0], cubes[2])
    assert (scene.owner[0] <= 4).all()         # the scene is as it was


# ---------------------------------------------------------------- the truth

def truth_by_hand(scene, depth=1.0, dead=None):
    """The rules of the truth, object by object."""
    labels = np.zeros((64, 64), int)
    for y, x in np.ndindex(64, 64):
        if depth * scene.own_sn[0, y, x] >= ISOPHOTE:
            labels[y, x] = scene.owner[0, y, x]
    out = labels.copy()
    for k in range(1, 5):
        sn = depth * scene.own_sn[0][labels == k]
        if len(sn) < 12 or np.sqrt((sn.astype(float)**2).sum()) < 7:
            out[labels == k] = -1
    if dead is not None:
        out[dead] = -1
    return out


@pytest.mark.parametrize('depth', [0.3, 1.0, 2.0, 4.0])
def test_truth(depth):
    scene, _ = hand_scene()
    _, truth = see(scene, depth=depth)
    wanted = truth_by_hand(scene, depth)
    assert_array_equal(truth.labels, wanted)
    assert truth.labels.dtype == np.int32
    assert_allclose(truth.own_sn, depth * scene.own_sn[0], rtol=1e-5,
                    atol=1e-6)
    ids = np.unique(wanted[wanted > 0])
    assert_array_equal(truth.objects['id'], ids)
    for key, values in scene.objects.items():
        assert_array_equal(truth.objects[key], values[ids - 1])
    for k, n, sn in zip(ids, truth.objects['n_pixels'], truth.objects['sn']):
        assert n == (wanted == k).sum()
        assert_allclose(sn, depth * np.sqrt(
            (scene.own_sn[0][wanted == k]**2).sum()), rtol=1e-4)


def test_truth_rules():
    """The faint object is void or asked for, the small one is void."""
    scene, _ = hand_scene()
    shallow = see(scene, depth=0.7)[1]
    deep = see(scene)[1]
    assert shallow.labels[55, 10] == -1
    assert deep.labels[55, 10] == 3
    assert deep.labels[8, 55] == -1
    assert 4 not in deep.objects['id']


def test_on_primary(monkeypatch):
    scene, _ = hand_scene()
    truth = see(scene)[1]
    assert_array_equal(truth.objects['id'], [1, 2, 3])
    assert_array_equal(truth.objects['on_primary'], [False, True, False])
    # the star outshines a galaxy that is below the isophote there
    for name in ('PRIMARY_SN', 'PRIMARY_PIXELS'):
        monkeypatch.setattr(f'astrodino_seg.truth.{name}', 0)
    faint = see(scene, depth=0.1)[1]
    assert 8 * np.sqrt(5) * np.exp(-8 / 6) * 0.1 < ISOPHOTE
    ids = faint.objects['id'].tolist()
    assert faint.objects['primary'][ids.index(1)]
    assert not faint.objects['on_primary'][ids.index(2)]


def test_primary_flag():
    """
    A primary is resolved, as all but the last object here, and has at the
    depth of the observation both the S/N and the pixels.
    """
    parts = np.zeros((4, 64, 64))
    parts[0, :16, :20] = 5.0               # S/N 89, 320 pixels
    parts[1, 20:40, :16] = 1.6             # S/N 29, 320 pixels
    parts[2, :13, 30:53] = 5.0             # S/N 86, 299 pixels
    parts[3, 40:, 30:] = 5.0
    sn = parts.max(axis=0)
    owner = np.where(sn > 0, parts.argmax(axis=0) + 1, 0)
    scene = Scene(
        sn[None].astype(np.float32), np.stack(
            [owner, 0 * owner, 0 * owner]).astype(np.int32),
        np.stack([sn, 0 * sn, 0 * sn]).astype(np.float32), {'r': .62},
        np.array([3.0]), {
            'x': np.array([9, 8, 41, 47]), 'y': np.array([8, 30, 6, 52]),
            'cls': np.full(4, 2), 'kind': np.array(['spiral'] * 4),
            're': np.ones(4), 'primary': np.array([1, 1, 1, 0], bool)})
    for depth, wanted in ((1.0, [1, 0, 0, 0]), (1.2, [1, 1, 0, 0]),
                          (0.33, [0, 0, 0, 0]), (50.0, [1, 1, 0, 0])):
        table = see(scene, depth=depth, bands=[0])[1].objects
        assert_array_equal(table['id'], [1, 2, 3, 4])
        assert table['primary'].dtype == bool
        assert_array_equal(table['primary'], wanted)
        both = (table['sn'] >= PRIMARY_SN) & (table['n_pixels']
                                              >= PRIMARY_PIXELS)
        assert_array_equal(table['primary'], both & [True, True, True,
                                                     False])
    assert_array_equal(scene.objects['primary'], [True, True, True, False])


def test_on_faint_primary():
    """The light of a galaxy that is no primary makes nobody on one."""
    scene, _ = hand_scene()
    galaxy = 8 * np.sqrt(5) * np.exp(-8 / 6)       # below the star
    for depth, wanted in ((0.18, False), (0.4, True)):
        assert galaxy * depth > ISOPHOTE
        objects = see(scene, depth=depth)[1].objects
        assert_array_equal(objects['id'][:2], [1, 2])
        assert (objects['sn'][0] >= PRIMARY_SN) == wanted
        assert objects['n_pixels'][0] >= PRIMARY_PIXELS
        assert_array_equal(objects['primary'][:2], [wanted, False])
        assert_array_equal(objects['on_primary'][:2], [False, wanted])


def test_band_subset():
    """In one band the objects have that band's share of the S/N."""
    scene, parts = hand_scene()
    for band in (0, 1):
        image, truth = see(scene, bands=[band])
        assert image.bands == ('gr'[band],)
        assert image.cube.shape == (1, 64, 64)
        alone = truth.labels == 3
        assert_allclose(truth.own_sn[55, 10], parts[2, band, 55, 10],
                        rtol=1e-3)
        assert_allclose(truth.own_sn[30, 30], parts[0, band, 30, 30],
                        rtol=1e-2)
        assert alone.any() == (band == 1)  # 0.6 in g, 1.8 in r


def test_dead_pixels(monkeypatch):
    """What no band sees is void; what one band sees is not."""
    def gaps(rng, mask, rates):
        mask[:, 26:29] = True
        mask[0, 40:50] = True

    monkeypatch.setattr(observing, 'draw_masks', gaps)
    scene, _ = hand_scene()
    image, truth = see(scene)
    dead = np.zeros((64, 64), bool)
    dead[26:29] = True
    assert_array_equal(truth.labels, truth_by_hand(scene, dead=dead))
    assert image.mask[:, 26:29].all()
    assert image.mask[0, 40:50].all()
    assert not image.cube[image.mask].any()


def test_artifact(monkeypatch):
    """An artifact is an object of its own where it is the strongest."""
    patch = np.zeros((2, 7, 5), np.float32)
    patch[1, :6, :4] = 5
    patch[1, 6, 4] = 0.1
    spot = np.zeros((64, 64), bool)
    spot[28:34, 50:54] = True
    monkeypatch.setattr(observing, 'draw_artifacts', lambda *args: [
        Artifact('cosmic_ray', 28, 50, patch)])
    scene, _ = hand_scene()
    image, truth = see(scene)
    assert_array_equal(truth.labels == 5, spot)
    k = truth.objects['id'].tolist().index(5)
    assert truth.objects['kind'][k] == 'cosmic_ray'
    assert truth.objects['cls'][k] == 3
    assert truth.objects['n_pixels'][k] == 24
    assert (truth.objects['x'][k], truth.objects['y'][k]) == (50, 28)
    assert_allclose((truth.light - scene.cube)[1][spot], 5, rtol=1e-5)
    assert_allclose(truth.light[0], scene.cube[0], rtol=1e-6)


# ----------------------------------------------------------- noise and sky

@pytest.mark.parametrize('seed', range(4))
def test_only_noise_and_sky(seed):
    """
    Without any ingredient the image is the scene at its depth, a constant
    sky, and independent noise of one sigma a pixel.
    """
    from scipy.stats import kstest

    scene, _ = hand_scene()
    image, truth = see(scene, seed, depth=1.5)
    assert_allclose(truth.light, 1.5 * scene.cube, rtol=1e-6)
    assert set(truth.objects['cls']) == {1, 2}
    assert not image.mask.any()
    assert image.noise is None
    assert image.bands == ('g', 'r')
    for rest in image.cube - truth.light:
        level = np.mean(rest)
        assert -5.1 < level < 50.1
        assert kstest(rest.ravel() - level, 'norm').pvalue > 1e-3
        rest = rest - level
        for neighbours in (rest[1:] * rest[:-1], rest[:, 1:] * rest[:, :-1]):
            assert abs(neighbours.mean()) < 4 / 64


def test_correlated_noise():
    """
    Where neighbours are correlated the noise of a pixel is less, but the
    same in sums over many pixels.
    """
    scene, _ = hand_scene()
    pixels, sums = [], []
    for seed in range(20):
        image, _ = see(scene, seed, correlated_noise=1)
        rest = image.cube - scene.cube
        rest = rest - np.median(rest, axis=(1, 2), keepdims=True)
        pixels.append(rest[:, 40:].std())
        blocks = rest[:, :, 40:].reshape(2, 8, 8, 3, 8).sum(axis=(2, 4))
        sums.append(blocks.std() / 8)
        assert (rest[:, 1:] * rest[:, :-1]).mean() > 0.01
    pixels = np.array(pixels)
    assert (pixels < 1.0).all()
    assert pixels.min() < 0.5 < pixels.max()
    # a Gaussian of sigma leaves 1 / (2 sqrt(pi) sigma) of a pixel, and takes
    # a share of 2 sigma / (sqrt(pi) n) over the edges of blocks of n pixels
    assert_allclose(np.mean(sums), np.mean(1 - 1 / (8 * np.pi * pixels)),
                    rtol=0.04)


def test_share_of_correlated_noise():
    scene, _ = hand_scene()
    wide = [see(scene, seed, correlated_noise=.5)[0].cube[:, 40:].std()
            for seed in range(60)]
    narrow = [see(scene, seed)[0].cube[:, 40:].std() for seed in range(60)]
    changed = np.mean(np.array(wide) != np.array(narrow))
    assert 0.3 < changed < 0.7


def test_gradient():
    """Slopes and waves of the sky, none of which is left without them."""
    scene, _ = hand_scene()
    ranges = []
    for gradient in (0, 1, 3):
        both = [see(scene, seed, gradient=gradient)[0].cube - scene.cube
                for seed in range(8)]
        ranges.append(np.mean([np.ptp(cube.reshape(
            2, 4, 16, 4, 16).mean(axis=(2, 4)), axis=(1, 2)).mean()
            for cube in both]))
    assert ranges[0] < 0.35                # noise of blocks of 256 pixels
    assert ranges[1] > 3 * ranges[0]
    assert ranges[2] > 2 * ranges[1]


def test_depth_of_rows(monkeypatch):
    """Noisier rows have less S/N."""
    noise = np.ones((64, 64), np.float32)
    noise[32:] = 3
    monkeypatch.setattr(observing, '_depth_map',
                        lambda rng, shape, rates: noise)
    scene, _ = hand_scene()
    image, truth = see(scene)
    assert_allclose(truth.own_sn, scene.own_sn[0] / noise, rtol=1e-5,
                    atol=1e-6)
    rest = (image.cube - scene.cube)[:, :, 58:]
    rest = rest - rest[:, :32].mean(axis=(1, 2), keepdims=True)
    assert_allclose(rest[:, 32:].std() / rest[:, :32].std(), 3, rtol=0.15)


def test_uneven_depth():
    """Steps in rows and columns, by which the S/N falls."""
    scene, _ = hand_scene()
    steps = 0
    for seed in range(10):
        ratio = see(scene, seed, uneven_depth=1)[1].own_sn[
            20:40, 20:40] / scene.own_sn[0][20:40, 20:40]
        assert ratio.max() < 1 + 1e-5
        assert ratio.min() > 1 / 1.8**2 - 1e-5
        values = np.unique(ratio.round(4))
        assert len(values) <= 4
        steps += len(values) - 1
    assert steps > 0


def test_saturation():
    """Pixels stay at the limit, fall below it, or are masked."""
    scene, _ = hand_scene()
    scene.cube *= 3e4
    levels = {}
    for name, rates in (('flat', {}), ('hole', {'saturated_hole': 1}),
                        ('mask', {'saturated_mask': 1})):
        image, truth = see(scene, 3, **rates)
        assert_allclose(truth.light, scene.cube, rtol=1e-6)
        levels[name] = image
    core = levels['flat'].cube[:, 30, 38]
    limit = core.mean()
    assert 1e3 - 10 < limit < 4.1e4
    assert_allclose(core, limit, atol=60)       # the sky
    over = scene.cube > 1.01 * limit
    assert over.any()
    assert_allclose(levels['flat'].cube[over], limit, atol=60)
    assert (levels['hole'].cube[over] < limit).all()
    assert np.ptp(levels['hole'].cube[over]) < 120
    assert levels['mask'].mask[over].all()
    assert not levels['mask'].mask[scene.cube < 0.99 * limit].any()
    for name in ('flat', 'hole'):
        assert not levels[name].mask.any()


# ------------------------------------------------------------- any of them

def test_drawn_depth():
    """From half to twice, in three of ten scenes to fifty times."""
    scene, _ = hand_scene()
    depth = np.array([observe(scene, seed, bands=[0], rates=PLAIN)[1].light[
        0, 30, 30] / scene.cube[0, 30, 30] for seed in range(150)])
    assert 0.5 <= depth.min() < 0.6
    assert 25 < depth.max() <= 50
    # above two are log(25) / log(100) of three in ten
    assert 0.1 < np.mean(depth > 2) < 0.32


def test_missing_bands():
    scene, _ = hand_scene()
    every = [observe(scene, seed, rates={'missing_bands': 0})[0].n_bands
             for seed in range(10)]
    assert set(every) == {2}
    some = [observe(scene, seed, rates={'missing_bands': 1})[0].bands
            for seed in range(30)]
    assert set(some) == {('g',), ('r',), ('g', 'r')}


@pytest.mark.parametrize('seed', range(20))
def test_any_observation(seed):
    """With all artifacts: the image's promises, and those of the truth."""
    pytest.importorskip('galsim')
    scene = make_scene(seed % 4, size=96, density=1.0)
    image, truth = observe(scene, seed)
    assert set(image.bands) <= set(scene.bands)
    check_truth(image, truth)


def test_empty_scene():
    """A sky without any object."""
    scene = hand_scene()[0]
    empty = Scene(0 * scene.cube, 0 * scene.owner, 0 * scene.own_sn,
                  scene.bands, scene.psf_fwhm,
                  {k: np.array([]) for k in scene.objects})
    for seed in range(4):
        image, truth = observe(empty, seed)
        assert image.shape == (64, 64)
        assert set(truth.objects['cls']) <= {3}
        assert truth.objects['primary'].dtype == bool
        assert not truth.objects['primary'].any()


@pytest.mark.parametrize(('kwargs', 'match'), [
    ({'depth': 0}, 'depth must be positive, got 0'),
    ({'depth': -1}, 'depth must be positive'),
    ({'depth': float('nan')}, 'depth must be positive'),
    ({'depth': float('inf')}, 'depth must be positive'),
    ({'bands': []}, r'bands must be some of 0 to 1, got \[\]'),
    ({'bands': [2]}, r'bands must be some of 0 to 1, got \[2\]'),
    ({'bands': [0, 0]}, r'bands must be some of 0 to 1, got \[0, 0\]'),
    ({'bands': [-1]}, 'bands must be some of'),
    ({'rates': {'fog': 1}}, "rates must be some of .* 'fog'"),
    ({'rates': {'star': 1}}, "rates must be some of .* 'star'"),
    ({'rates': {'gap': -1}}, r"rates\['gap'\] must be a number of 0")])
def test_bad_observation(kwargs, match):
    with pytest.raises(ValueError, match=match):
        observe(hand_scene()[0], 0, **kwargs)
