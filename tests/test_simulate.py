# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the simulate package.
"""

import hashlib
import os
import subprocess
import sys
from importlib import import_module

import numpy as np
import pytest
from astropy.modeling.models import Moffat2D
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.integrate import quad
from scipy.ndimage import center_of_mass
from scipy.signal import fftconvolve
from scipy.special import gammaincinv

from astrodino_seg.bands import order_bands, wavelength
from astrodino_seg.preprocess import PreprocessSpec, normalise
from astrodino_seg.simulate import (
    BAND_SETS,
    ISOPHOTE,
    KINDS,
    SPLITS,
    Scene,
    SceneLibrary,
    galaxies,
    make_scene,
    observe,
    resolved_galaxy,
)
from astrodino_seg.simulate import scene as scenes
from astrodino_seg.simulate.galaxies import sed, sersic_bn

pytest.importorskip('galsim')

# the function of this name hides the module
observing = import_module('astrodino_seg.simulate.observe')
library = import_module('astrodino_seg.simulate.scene_library')
PRIMARY_SN, PRIMARY_PIXELS = observing.PRIMARY_SN, observing.PRIMARY_PIXELS

FEW = settings(deadline=None, max_examples=20)
SIZE = 96


@pytest.fixture(scope='module')
def scene():
    return make_scene(3, size=SIZE, band_set='grz', density=1.0)


def digest(scene):
    code = hashlib.sha256()
    for array in (scene.cube, scene.owner, scene.own_sn, scene.psf_fwhm,
                  *(scene.objects[k] for k in sorted(scene.objects))):
        code.update(np.ascontiguousarray(array).tobytes())
    return code.hexdigest()


# ------------------------------------------------------------- randomness

def test_same_in_any_process(scene):
    """Seeds fix scenes, and observations, in other processes too."""
    image, truth = observe(scene, [5, 6])
    mine = (digest(scene), float(image.cube.sum()), int(truth.labels.sum()))
    code = (
        'from tests.test_simulate import *\n'
        f's = make_scene(3, size={SIZE}, band_set="grz", density=1.0)\n'
        'i, t = observe(s, [5, 6])\n'
        'print((digest(s), float(i.cube.sum()), int(t.labels.sum())))')
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    result = subprocess.run(
        [sys.executable, '-c', code], cwd=root, capture_output=True,
        text=True, check=True, env={**os.environ, 'PYTHONHASHSEED': '99'})
    assert result.stdout.strip() == str(mine)


def test_seeds(scene):
    again = make_scene(3, size=SIZE, band_set='grz', density=1.0)
    other = make_scene(4, size=SIZE, band_set='grz', density=1.0)
    assert digest(again) == digest(scene)
    assert digest(other) != digest(scene)
    one, two = observe(scene, 1), observe(scene, 1)
    assert_array_equal(one[0].cube, two[0].cube)
    assert_array_equal(one[1].labels, two[1].labels)
    three = observe(scene, 2, bands=[0, 1, 2])[0]
    assert not np.array_equal(observe(scene, 1, bands=[0, 1, 2])[0].cube,
                              three.cube)


def test_global_random_state(scene):
    """Nothing is drawn from, or left in, NumPy's global generator."""
    np.random.seed(0)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    make_scene(4, size=64, density=0.2)
    observe(scene, 1)
    after = np.random.get_state()[1]  # noqa: NPY002
    assert_array_equal(before, after)


def test_splits_are_disjoint():
    ranges = sorted(SPLITS.values())
    assert all(first < last for first, last in ranges)
    for (_, last), (first, _) in zip(ranges, ranges[1:]):
        assert last <= first
    seeds = [SceneLibrary(name, 3).seed(k) for name in SPLITS
             for k in range(3)]
    assert len(set(seeds)) == 9
    for name, (first, last) in SPLITS.items():
        every = SceneLibrary(name, last - first)
        assert every.seed(0) == first
        assert every.seed(len(every) - 1) == last - 1


# --------------------------------------------------------------- formulae

def test_sersic_bn():
    """Half of the light is within the half-light radius."""
    n = np.array([0.5, 1, 2, 4, 8])
    error = np.abs(sersic_bn(n) / gammaincinv(2 * n, 0.5) - 1)
    assert (error < [1e-3, 1e-4, 1e-5, 1e-6, 1e-6]).all()


@pytest.mark.parametrize(('fwhm', 'beta'), [(1.7, 2.4), (4.0, 4.5)])
def test_moffat(fwhm, beta):
    gamma = fwhm / 2 / np.sqrt(2**(1 / beta) - 1)
    oracle = Moffat2D(amplitude=(beta - 1) / (np.pi * gamma**2), gamma=gamma,
                      alpha=beta)
    assert_allclose(oracle.fwhm, fwhm)
    x, y = np.linspace(-9, 9, 7), np.linspace(0, 4, 7)
    assert_allclose(scenes.moffat(x**2 + y**2, fwhm, beta), oracle(x, y))
    flux, _ = quad(lambda r: 2 * np.pi * r * scenes.moffat(r**2, fwhm, beta),
                   0, np.inf)
    assert_allclose(flux, 1, rtol=1e-6)


def test_sed():
    assert_allclose(sed([0.62], 1.7), 1)
    assert_allclose(sed([.4, .9, 2], 0.0), 1)
    red = sed(np.linspace(0.3, 5, 30), 2.0)
    assert (np.diff(red) > 0).all()
    step = 1e-5                            # the slope at 0.62 micron
    assert_allclose(np.log(sed([0.62 * np.exp(step)], 1.7)) / step, 1.7,
                    rtol=1e-4)


# --------------------------------------------------------------- galaxies

WAVES = np.array([0.48, 0.62, 0.87])


@pytest.mark.parametrize('kind', list(KINDS))
def test_resolved_galaxy(kind):
    for seed in range(3):
        cube, q = resolved_galaxy(np.random.default_rng(seed), kind, 9.0,
                                  WAVES)
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


@pytest.mark.parametrize('kind', ['elliptical', 'lenticular'])
def test_nucleus(kind):
    """Smooth galaxies are brightest, and centred, in the middle."""
    for seed in range(4):
        cube, q = resolved_galaxy(np.random.default_rng(seed), kind, 9.0,
                                  WAVES)
        middle = cube.shape[1] // 2
        image = cube[1] * (cube[1] > cube[1].max() / 200)
        assert cube[1, middle, middle] > 0.5 * cube[1].max()
        assert_allclose(center_of_mass(image), middle, atol=0.6)


def test_half_light():
    """Half of a spheroid's light is within its half-light radius."""
    frame = galaxies._frame(201, 10.0, 1.0, 0.3)
    image = galaxies._sersic(frame.r, 10.0, 1.0)
    inside = image[frame.r <= 10].sum() / image.sum()
    assert_allclose(inside, 0.5, atol=0.01)


def test_frame():
    """Axis ratio and angle: u along the major axis, v deprojected."""
    frame = galaxies._frame(21, 5.0, 0.5, np.pi / 2)
    assert_allclose(frame.r[10, 10], 0, atol=1e-5)
    assert_allclose(frame.r[13, 10], 3, rtol=1e-5)      # along y: major
    assert_allclose(frame.r[10, 13], 6, rtol=1e-5)      # along x: minor


def test_bad_kind():
    with pytest.raises(ValueError, match="kind must be one of .* 'square'"):
        resolved_galaxy(np.random.default_rng(0), 'square', 5, WAVES)


# ------------------------------------------------------------------ scene

def test_convolve():
    """Zero padded and centred, as SciPy does it; flux is conserved."""
    rng = np.random.default_rng(0)
    cube = np.zeros((2, 61, 61), np.float32)
    cube[:, 20:41, 20:41] = rng.uniform(0, 1, (2, 21, 21))
    kernels = [scenes._kernel(f, 3.0) for f in (1.7, 1.7)]
    found = scenes._convolve(cube, kernels)
    for image, kernel, before in zip(found, kernels, cube):
        assert_allclose(image, fftconvolve(before, kernel, mode='same'),
                        atol=1e-5)
        assert_allclose(image.sum(), before.sum(), rtol=1e-5)


@pytest.mark.parametrize('fwhm', [1.7, 3.3, 6.5])
def test_kernel(fwhm):
    kernel = scenes._kernel(fwhm, 3.0)
    assert_allclose(kernel.sum(), 1, rtol=1e-5)
    middle = kernel.shape[0] // 2
    assert kernel.argmax() == middle * kernel.shape[0] + middle
    assert_allclose(kernel, kernel.T, atol=1e-9)
    # its width, interpolated along the row of the peak
    row = kernel[middle, middle:] / kernel[middle, middle]
    assert_allclose(2 * np.interp(-0.5, -row, np.arange(len(row))), fwhm,
                    rtol=0.12)


def canvas_of(bands=2, size=SIZE, fwhm=2.0):
    names = dict(zip('grz', (0.48, 0.62, 0.9)[:bands]))
    optics = {'aureole': 0.0, 'spikes': (0, 0., 0., 1., 1.),
              'halo': (20.0, 0.0)}
    return scenes._Canvas(size, names, np.full(bands, fwhm), 3.0, optics)


def test_primary():
    """A large galaxy keeps its flux through the PSF, at its place."""
    canvas = canvas_of(size=201)
    rng = np.random.default_rng(2)
    kernels = [scenes._kernel(2.0, 3.0)] * 2
    scenes._add_primary(rng, canvas, kernels, 'elliptical', 8.0, 90.7, 70.2)
    row, = canvas.rows
    assert (row['x'], row['y'], row['primary']) == (90, 70, True)
    # the same galaxy before the PSF
    rng = np.random.default_rng(2)
    cube, q = resolved_galaxy(rng, 'elliptical', 8.0, canvas.wave)
    total = (10**rng.uniform(.05, 1.75) * np.pi * 64 * max(q, .25) * 2
             / np.sqrt(2))
    assert_allclose(canvas.cube.sum(axis=(1, 2)),
                    total * cube.sum(axis=(1, 2)), rtol=1e-3)
    y, x = center_of_mass(canvas.cube[0] * (canvas.cube[0] > 1))
    assert_allclose([x, y], [90, 70], atol=0.5)


def test_star():
    """The flux of a star, and its place between pixels."""
    canvas = canvas_of(size=121, fwhm=3.0)
    rng = np.random.default_rng(1)
    scenes._add_star(rng, canvas, 50.0, 60.3, 58.8)
    y, x = center_of_mass(canvas.cube[0])
    assert_allclose([x, y], [60.3, 58.8], atol=0.05)
    # matched-filter S/N of 50 in all bands together, for a flat spectrum
    noise_area = np.sqrt(4 * np.pi) * 3.0 / 2.35
    colour = sed(canvas.wave, np.random.default_rng(1).normal(.6, 1.0))
    assert_allclose(canvas.cube.sum(axis=(1, 2)),
                    50 * noise_area * colour / np.sqrt(2), rtol=0.05)


@FEW
@given(st.integers(0, 10**6), st.integers(1, 7))
def test_owners(seed, n):
    """The three strongest of each pixel, against a sort of all."""
    rng = np.random.default_rng(seed)
    canvas = canvas_of(size=12)
    every = np.zeros((n, 2, 12, 12))
    number = 0
    for _ in range(n):
        h, w = rng.integers(1, 15, 2)
        x0, y0 = rng.integers(-14, 14, 2)
        stamp = rng.uniform(0.1, 9, (2, h, w)).astype(np.float32)
        full = np.zeros((2, 60, 60))
        full[:, 20 + y0:20 + y0 + h, 20 + x0:20 + x0 + w] = stamp
        canvas.add(stamp, x0, y0, x=0)
        if full[:, 20:32, 20:32].any():    # else it is not in the scene
            every[number] = full[:, 20:32, 20:32]
            number += 1
    assert len(canvas.rows) == number
    assert_allclose(canvas.cube, every.sum(axis=0), rtol=1e-5)
    sn = np.concatenate([np.sqrt((every**2).sum(axis=1)),
                         np.zeros((3, 12, 12))])
    order = np.argsort(-sn, axis=0, kind='stable')[:3]
    wanted = np.take_along_axis(sn, order, axis=0)
    assert_allclose(canvas.own_sn, wanted, rtol=1e-5)
    assert_array_equal(canvas.owner, np.where(wanted > 0, order + 1, 0))


def test_scene(scene):
    assert scene.cube.shape == (3, SIZE, SIZE)
    assert scene.cube.dtype == scene.own_sn.dtype == np.float32
    assert scene.owner.shape == scene.own_sn.shape == (3, SIZE, SIZE)
    assert np.isfinite(scene.cube).all()
    assert (np.diff(scene.own_sn, axis=0) <= 0).all()
    assert_array_equal(scene.owner == 0, scene.own_sn == 0)
    n = len(scene.objects['x'])
    assert scene.owner.max() <= n
    assert {len(v) for v in scene.objects.values()} == {n}
    assert n > 3
    # what one object owns alone is no more than all the light there
    whole = np.sqrt((scene.cube**2).sum(axis=0))
    assert (scene.own_sn[0] <= whole * 1.01 + 1e-3).all()


@pytest.mark.parametrize('band_set', ['r', 'ugriz', 'ugriZYJHKs', None])
def test_band_sets(band_set):
    scene = make_scene(1, size=64, band_set=band_set, density=0.0)
    assert len(scene.cube) == len(scene.bands) == len(scene.psf_fwhm)
    assert scene.bands in BAND_SETS.values()
    if band_set:
        assert scene.bands == BAND_SETS[band_set]


def test_nine_bands():
    """Optical and near infrared, rendered, observed and normalised."""
    scene = make_scene(2, size=64, band_set='ugriZYJHKs', density=1.0)
    names = ['u', 'g', 'r', 'i', 'Z', 'Y', 'J', 'H', 'Ks']
    assert list(scene.bands) == names
    assert order_bands(names[::-1]) == tuple(range(8, -1, -1))
    assert_allclose([wavelength(name) for name in names],
                    list(scene.bands.values()), rtol=0.03)
    assert scene.cube.shape == (9, 64, 64)
    assert (scene.cube.max(axis=(1, 2)) > 1).all()
    # own S/N is over all nine bands: the whole light's where one is alone
    alone = 50 * scene.own_sn[1] < scene.own_sn[0]
    assert alone.sum() > 20
    assert_allclose(scene.own_sn[0][alone], np.sqrt(
        (scene.cube**2).sum(axis=0))[alone], rtol=0.06)
    sizes = set()
    for seed in range(8):
        image, truth = observe(scene, seed)
        sizes.add(image.n_bands)
        assert set(image.bands) <= set(names)
        assert (truth.labels > 0).any()
        channels = normalise(image, PreprocessSpec()).channels
        assert channels.shape == (PreprocessSpec().n_channels, 64, 64)
        assert np.isfinite(channels).all()
    assert {9} < sizes
    image, _ = observe(scene, 0, bands=[8, 0])
    assert image.bands == ('Ks', 'u')


@pytest.mark.parametrize(('kwargs', 'match'), [
    ({'size': 63}, 'size must be at least 64 pixels, got 63'),
    ({'band_set': 'xyz'}, "band_set must be one of .*, got 'xyz'"),
    ({'density': -0.1}, r'density must be in \[0, 20\) .*, got -0.1'),
    ({'density': 20}, 'density must be'),
    ({'density': float('nan')}, 'density must be')])
def test_bad_scene(kwargs, match):
    with pytest.raises(ValueError, match=match):
        make_scene(0, **kwargs)


# ---------------------------------------------------------------- observe

def hand_scene(n_bands=2):
    """A galaxy (primary), a star on it, a faint and a small object."""
    y, x = np.mgrid[:64, :64]
    parts = np.zeros((4, n_bands, 64, 64))
    colours = np.array([[2, 1], [1, 1], [1, 3], [1, 1]])[:, :n_bands]
    r = np.hypot(x - 30, y - 30)
    shapes = [8 * np.exp(-r / 6) * (r < 26),
              30 * np.exp(-((x - 38)**2 + (y - 30)**2) / 4),
              0.6 * (np.hypot(x - 10, y - 55) < 2.9),
              20. * (np.hypot(x - 55, y - 8) < 1.1)]
    for k, (shape, colour) in enumerate(zip(shapes, colours)):
        parts[k] = shape * colour[:, None, None]
    sn = np.sqrt((parts**2).sum(axis=1))
    order = np.argsort(-sn, axis=0, kind='stable')[:3]
    own_sn = np.take_along_axis(sn, order, axis=0)
    objects = {'x': np.array([30, 38, 10, 55]), 'y': np.array([30, 30, 55, 8]),
               'cls': np.array([2, 1, 2, 2]),
               'kind': np.array(['spiral', 'star', 'field', 'field']),
               're': np.ones(4), 'primary': np.array([1, 0, 0, 0], bool)}
    return Scene(parts.sum(axis=0).astype(np.float32),
                 np.where(own_sn > 0, order + 1, 0).astype(np.int16),
                 own_sn.astype(np.float32),
                 dict(list({'g': .48, 'r': .62}.items())[:n_bands]),
                 np.full(n_bands, 3.0), objects), parts


@pytest.fixture
def plain(monkeypatch):
    """Observations without artifacts, gaps, steps in depth, or a sky."""
    monkeypatch.setattr(observing, '_artifacts', lambda *args: [])
    monkeypatch.setattr(observing, '_gaps', lambda rng, mask: None)
    monkeypatch.setattr(observing, '_depth',
                        lambda rng, shape: np.ones(shape, np.float32))
    monkeypatch.setattr(observing, '_background',
                        lambda rng, shape: np.zeros(shape))


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
def test_truth(plain, depth):
    scene, _ = hand_scene()
    _, truth = observe(scene, 0, depth=depth, bands=[0, 1])
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


def test_truth_rules(plain):
    """The faint object is void or asked for, the small one is void."""
    scene, _ = hand_scene()
    shallow = observe(scene, 0, depth=0.7, bands=[0, 1])[1]
    deep = observe(scene, 0, depth=1.0, bands=[0, 1])[1]
    assert shallow.labels[55, 10] == -1
    assert deep.labels[55, 10] == 3
    assert deep.labels[8, 55] == -1
    assert 4 not in deep.objects['id']


def test_on_primary(plain, monkeypatch):
    scene, _ = hand_scene()
    truth = observe(scene, 0, depth=1.0, bands=[0, 1])[1]
    assert_array_equal(truth.objects['id'], [1, 2, 3])
    assert_array_equal(truth.objects['on_primary'], [False, True, False])
    # the star outshines a galaxy that is below the isophote there
    monkeypatch.setattr(observing, 'PRIMARY_SN', 0)
    monkeypatch.setattr(observing, 'PRIMARY_PIXELS', 0)
    faint = observe(scene, 0, depth=0.1, bands=[0, 1])[1]
    assert 8 * np.sqrt(5) * np.exp(-8 / 6) * 0.1 < ISOPHOTE
    ids = faint.objects['id'].tolist()
    assert faint.objects['primary'][ids.index(1)]
    assert not faint.objects['on_primary'][ids.index(2)]


def test_primary_flag(plain):
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
            [owner, 0 * owner, 0 * owner]).astype(np.int16),
        np.stack([sn, 0 * sn, 0 * sn]).astype(np.float32), {'r': .62},
        np.array([3.0]), {
            'x': np.array([9, 8, 41, 47]), 'y': np.array([8, 30, 6, 52]),
            'cls': np.full(4, 2), 'kind': np.array(['spiral'] * 4),
            're': np.ones(4), 'primary': np.array([1, 1, 1, 0], bool)})
    for depth, wanted in ((1.0, [1, 0, 0, 0]), (1.2, [1, 1, 0, 0]),
                          (0.33, [0, 0, 0, 0]), (50.0, [1, 1, 0, 0])):
        truth = observe(scene, 0, depth=depth, bands=[0])[1]
        table = truth.objects
        assert_array_equal(table['id'], [1, 2, 3, 4])
        assert table['primary'].dtype == bool
        assert_array_equal(table['primary'], wanted)
        both = (table['sn'] >= PRIMARY_SN) & (table['n_pixels']
                                              >= PRIMARY_PIXELS)
        assert_array_equal(table['primary'], both & [True, True, True,
                                                     False])
    assert_array_equal(scene.objects['primary'], [True, True, True, False])


def test_on_faint_primary(plain):
    """The light of a galaxy that is no primary makes nobody on one."""
    scene, _ = hand_scene()
    galaxy = 8 * np.sqrt(5) * np.exp(-8 / 6)       # below the star
    for depth, wanted in ((0.18, False), (0.4, True)):
        assert galaxy * depth > ISOPHOTE
        objects = observe(scene, 0, depth=depth, bands=[0, 1])[1].objects
        assert_array_equal(objects['id'][:2], [1, 2])
        assert (objects['sn'][0] >= PRIMARY_SN) == wanted
        assert objects['n_pixels'][0] >= PRIMARY_PIXELS
        assert_array_equal(objects['primary'][:2], [wanted, False])
        assert_array_equal(objects['on_primary'][:2], [False, wanted])


def test_band_subset(plain):
    """In one band the objects have that band's share of the S/N."""
    scene, parts = hand_scene()
    for band in (0, 1):
        image, truth = observe(scene, 0, depth=1.0, bands=[band])
        assert image.bands == ('gr'[band],)
        assert image.cube.shape == (1, 64, 64)
        alone = truth.labels == 3
        assert_allclose(truth.own_sn[55, 10], parts[2, band, 55, 10],
                        rtol=1e-3)
        assert_allclose(truth.own_sn[30, 30], parts[0, band, 30, 30],
                        rtol=1e-2)
        assert alone.any() == (band == 1)  # 0.6 in g, 1.8 in r


def test_dead_pixels(plain, monkeypatch):
    """What no band sees is void; what one band sees is not."""
    def gaps(rng, mask):
        mask[:, 26:29] = True
        mask[0, 40:50] = True

    monkeypatch.setattr(observing, '_gaps', gaps)
    scene, _ = hand_scene()
    image, truth = observe(scene, 0, depth=1.0, bands=[0, 1])
    dead = np.zeros((64, 64), bool)
    dead[26:29] = True
    assert_array_equal(truth.labels, truth_by_hand(scene, dead=dead))
    assert image.mask[:, 26:29].all()
    assert image.mask[0, 40:50].all()
    assert not image.cube[image.mask].any()


def test_artifact(plain, monkeypatch):
    """An artifact is an object of its own where it is the strongest."""
    spot = np.zeros((64, 64), np.float32)
    spot[28:34, 50:54] = 5
    spot[0, 0] = 0.1
    monkeypatch.setattr(observing, '_artifacts',
                        lambda *args: [(1, spot, 'cosmic_ray')])
    scene, _ = hand_scene()
    _, truth = observe(scene, 0, depth=1.0, bands=[0, 1])
    assert_array_equal(truth.labels == 5, spot == 5)
    k = truth.objects['id'].tolist().index(5)
    assert truth.objects['kind'][k] == 'cosmic_ray'
    assert truth.objects['cls'][k] == 3
    assert truth.objects['n_pixels'][k] == 24


def test_noise(plain):
    """
    The image is the scene and noise, one sigma a pixel; where neighbours
    are correlated it is less, but the same in sums over many pixels.
    """
    scene, _ = hand_scene()
    pixels, sums = [], []
    for seed in range(20):
        image, _ = observe(scene, seed, depth=1.5, bands=[0, 1])
        assert image.noise is None
        rest = image.cube - 1.5 * scene.cube
        pixels.append(rest[:, 40:].std())
        blocks = rest[:, :, 40:].reshape(2, 8, 8, 3, 8).sum(axis=(2, 4))
        sums.append(blocks.std() / 8)
    pixels = np.array(pixels)
    assert (pixels < 1.03).all()
    alone = pixels > 0.97
    assert 0 < alone.sum() < 20
    assert_allclose(np.mean(sums), 1, atol=0.1)


def test_depth_of_rows(plain, monkeypatch):
    """Noisier rows have less S/N."""
    noise = np.ones((64, 64), np.float32)
    noise[32:] = 3
    monkeypatch.setattr(observing, '_depth', lambda rng, shape: noise)
    scene, _ = hand_scene()
    image, truth = observe(scene, 0, depth=1.0, bands=[0, 1])
    assert_allclose(truth.own_sn, scene.own_sn[0] / noise, rtol=1e-5,
                    atol=1e-6)
    rest = (image.cube - scene.cube)[:, :, 58:]
    assert_allclose(rest[:, 32:].std() / rest[:, :32].std(), 3, rtol=0.15)


@pytest.mark.parametrize('seed', range(25))
def test_any_observation(scene, seed):
    """With all artifacts: the image's promises, and those of the truth."""
    image, truth = observe(scene, seed)
    assert image.cube.dtype == np.float32
    assert np.isfinite(image.cube).all()
    assert not image.cube[image.mask].any()
    assert set(image.bands) <= set(scene.bands)
    assert truth.labels.shape == image.shape
    labels = np.unique(truth.labels)
    assert labels[0] in (-1, 0)
    assert set(labels[labels > 0]) <= set(truth.objects['id'])
    assert {len(v) for v in truth.objects.values()} == {
        len(truth.objects['id'])}
    assert (truth.own_sn[truth.labels > 0] >= ISOPHOTE).all()
    assert (truth.own_sn[truth.labels == 0] < ISOPHOTE).all()
    assert (truth.objects['n_pixels'] >= 12).all()
    assert (truth.objects['sn'] >= 7).all()
    assert (truth.labels[image.mask.all(axis=0)] == -1).all()
    large = truth.objects['primary']
    assert (truth.objects['sn'][large] >= PRIMARY_SN).all()
    assert (truth.objects['n_pixels'][large] >= PRIMARY_PIXELS).all()
    assert (truth.objects['cls'][large] == 2).all()


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


# ---------------------------------------------------------------- library

def test_library(tmp_path, monkeypatch):
    made = []

    def make(seed, *, size):
        made.append(seed)
        return make_scene(seed, size=size, density=0.3)

    monkeypatch.setattr(library, 'make_scene', make)
    path = tmp_path / 'a' / 'scenes'
    cached = SceneLibrary('validation', 2, path=path, size=64)
    assert len(cached) == 2
    first, again, fresh = cached[0], cached[0], SceneLibrary(
        'validation', 2, size=64)[0]
    assert made == [1_000_000, 1_000_000]
    assert digest(first) == digest(again)
    assert [p.name for p in path.iterdir()] == [
        f'validation{library.VERSION}-64-000000.npz']
    # float16 on the disk
    assert_allclose(first.cube, fresh.cube, rtol=1e-3, atol=1e-4)
    assert_allclose(first.own_sn, fresh.own_sn, rtol=1e-3, atol=1e-4)
    assert first.cube.dtype == first.own_sn.dtype == np.float32
    assert_array_equal(first.owner, fresh.owner)
    assert first.bands == fresh.bands
    assert_array_equal(first.psf_fwhm, fresh.psf_fwhm)
    assert first.objects.keys() == fresh.objects.keys()
    for key, values in fresh.objects.items():
        assert_array_equal(first.objects[key], values)
        assert first.objects[key].dtype.kind == values.dtype.kind
    # all of it works from the cache
    one, two = observe(first, 7), observe(fresh, 7)
    assert_allclose(one[0].cube, two[0].cube, rtol=2e-3, atol=2e-2)
    assert (one[1].labels == two[1].labels).mean() > 0.99
    assert len(list(cached)) == 2


def test_library_version(tmp_path, monkeypatch):
    """Files of another version of the scenes are not read."""
    made = []

    def make(seed, *, size):
        made.append(seed)
        return hand_scene()[0]

    monkeypatch.setattr(library, 'make_scene', make)
    cached = SceneLibrary('train', 1, path=tmp_path, size=64)
    for version in (1, 1, 77):
        monkeypatch.setattr(library, 'VERSION', version)
        assert cached[0].cube.shape == (2, 64, 64)
    assert made == [0, 0]
    assert len(list(tmp_path.iterdir())) == 2


def test_library_is_atomic(tmp_path, monkeypatch):
    """A file appears whole or not at all."""
    monkeypatch.setattr(library, 'make_scene', lambda seed, *, size:
                        hand_scene()[0])
    cached = SceneLibrary('train', 1, path=tmp_path, size=64)

    def fail(stream, **arrays):
        stream.write(b'half a')
        msg = 'disk full'
        raise OSError(msg)

    with monkeypatch.context() as broken:
        broken.setattr(np, 'savez', fail)
        with pytest.raises(OSError, match='disk full'):
            cached[0]
    assert list(tmp_path.iterdir()) == []
    assert cached[0].cube.shape == (2, 64, 64)
    assert len(list(tmp_path.iterdir())) == 1


def test_bad_library():
    with pytest.raises(ValueError, match="split must be one of .* 'dev'"):
        SceneLibrary('dev', 1)
    for n in (0, 100_001):
        with pytest.raises(ValueError, match=(
                rf"n_scenes must be in \[1, 100000\] for split "
                rf"'benchmark', got {n}")):
            SceneLibrary('benchmark', n)
    for index in (-1, 2):
        with pytest.raises(IndexError, match=rf'\[0, 2\), got {index}'):
            SceneLibrary('train', 2)[index]
