# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests of whole scenes.
"""

import os
import subprocess
import sys

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from simulate_helpers import EMPTY, digest

from astrodino_seg.image import as_image
from astrodino_seg.inputs.channels import PreprocessSpec, normalise
from astrodino_seg.simulate import make_scene, observe
from astrodino_seg.simulate.compose import DRAWN
from astrodino_seg.simulate.galaxies import KINDS
from astrodino_seg.simulate.sky import BAND_SETS

pytest.importorskip('galsim')

SIZE = 96
NINE = ['u', 'g', 'r', 'i', 'Z', 'Y', 'J', 'H', 'Ks']


@pytest.fixture(scope='module')
def scene():
    return make_scene(3, size=SIZE, band_set='grz', density=1.0)


# ------------------------------------------------------------- randomness

def test_same_in_any_process(scene):
    """Seeds fix scenes, and observations, in other processes too."""
    image, truth = observe(scene, [5, 6])
    mine = (digest(scene), float(image.cube.sum()), int(truth.labels.sum()))
    code = (
        'from simulate_helpers import digest\n'
        'from astrodino_seg.simulate import make_scene, observe\n'
        f's = make_scene(3, size={SIZE}, band_set="grz", density=1.0)\n'
        'i, t = observe(s, [5, 6])\n'
        'print((digest(s), float(i.cube.sum()), int(t.labels.sum())))')
    result = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True,
        check=True, cwd=os.path.dirname(os.path.abspath(__file__)),
        env={**os.environ, 'PYTHONHASHSEED': '99'})
    assert result.stdout.strip() == str(mine)


def test_seeds(scene):
    again = make_scene(3, size=SIZE, band_set='grz', density=1.0)
    other = make_scene(4, size=SIZE, band_set='grz', density=1.0)
    assert digest(again) == digest(scene)
    assert digest(other) != digest(scene)


def test_global_random_state():
    """Nothing is drawn from, or left in, NumPy's global generator."""
    np.random.seed(0)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    observe(make_scene(4, size=64, density=0.2), 1)
    after = np.random.get_state()[1]  # noqa: NPY002
    assert_array_equal(before, after)


# ------------------------------------------------------------ whole scenes

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


def test_flux(scene):
    flux = scene.objects['flux']
    assert flux.shape == (len(scene.objects['x']), 3)
    assert flux.dtype == np.float32
    assert (flux > 0).all()
    assert_allclose(flux.sum(axis=0), scene.cube.sum(axis=(1, 2)), rtol=1e-5)


@pytest.mark.parametrize('band_set', ['r', 'ugriz', 'jwst6', None])
def test_band_sets(band_set):
    scene = make_scene(1, size=64, band_set=band_set, density=0.0)
    assert len(scene.cube) == len(scene.bands) == len(scene.psf_fwhm)
    assert scene.bands in BAND_SETS.values()
    if band_set:
        assert scene.bands == BAND_SETS[band_set]


def test_nine_bands():
    """Optical and near infrared, rendered, observed and normalised."""
    scene = make_scene(2, size=64, band_set='ugriZYJHKs', density=1.0)
    assert list(scene.bands) == NINE
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
        assert set(image.bands) <= set(NINE)
        assert (truth.labels > 0).any()
        channels = normalise(image, PreprocessSpec()).channels
        assert channels.shape == (PreprocessSpec().n_channels, 64, 64)
        assert np.isfinite(channels).all()
    assert {9} < sizes
    image, _ = observe(scene, 0, bands=[8, 0])
    assert image.bands == ('Ks', 'u')


def test_own_bands():
    """Bands that no survey has, and PSFs for each."""
    scene = make_scene(0, size=(64, 96), band_set={'N1': .5, 'N2': 1.3},
                       psf_fwhm=[2, 4.5])
    assert scene.bands == {'N1': .5, 'N2': 1.3}
    assert_array_equal(scene.psf_fwhm, [2, 4.5])
    assert scene.cube.shape == (2, 64, 96)
    image, truth = observe(scene, 0, bands=[0, 1])
    assert image.cube.shape == (2, 64, 96)
    assert truth.labels.shape == (64, 96)


@pytest.mark.parametrize('size', [(40, 128), (128, 40)])
def test_not_square(size):
    """Objects are spread over all of a frame of any shape."""
    scene = make_scene(1, size=size, band_set='r', psf_fwhm=2.0, density=5.0,
                       rates={'large': 0})
    x, y = scene.objects['x'], scene.objects['y']
    for at, n in ((x, size[1]), (y, size[0])):
        assert at.min() < 0.2 * n
        assert 0.8 * n < at.max() < n + 4
    # the brightest pixel of what is alone is where its catalogue says
    for k in np.flatnonzero((x > 1) & (x < size[1] - 2) & (y > 1)
                            & (y < size[0] - 2)):
        own = np.where(scene.owner[0] == k + 1, scene.own_sn[0], 0)
        if own.max() > 0:
            top = np.unravel_index(own.argmax(), own.shape)
            assert np.hypot(top[0] - y[k], top[1] - x[k]) < 3


def test_pixel_scale():
    """The WCS of an observation has it, about the centre of the scene."""
    from astropy.wcs.utils import proj_plane_pixel_scales

    scene = make_scene(0, size=(64, 80), band_set='r', rates=EMPTY,
                       pixel_scale=0.27)
    assert scene.pixel_scale == 0.27
    image, _ = observe(scene, 0)
    assert_allclose(proj_plane_pixel_scales(image.wcs) * 3600, 0.27)
    centre = image.wcs.pixel_to_world((80 - 1) / 2, (64 - 1) / 2)
    assert_allclose([centre.ra.deg, centre.dec.deg], [180, 0], atol=1e-9)
    up = image.wcs.pixel_to_world(79 / 2, 63 / 2 + 100)
    assert_allclose((up.dec - centre.dec).arcsec, 27, rtol=1e-6)
    assert image.wcs.array_shape == (64, 80)
    assert as_image(image).wcs is image.wcs
    assert observe(make_scene(0, size=64, rates=EMPTY), 0)[0].wcs is None


# ------------------------------------------------------------------- rates

def kinds(seed=0, size=128, **rates):
    scene = make_scene(seed, size=size, band_set='r', psf_fwhm=2.0,
                       density=2.0, rates={**EMPTY, **rates})
    return scene.objects['kind'].tolist()


def test_nothing():
    scene = make_scene(0, size=64, rates=EMPTY)
    assert not scene.cube.any()
    assert {len(v) for v in scene.objects.values()} == {0}
    image, truth = observe(scene, 0)
    assert set(truth.objects['cls']) <= {3}


@pytest.mark.parametrize(('rates', 'wanted'), [
    ({'star': 1}, {'star'}), ({'field': 1}, {'field'}),
    ({'bright_star': 4}, {'star'}),
    ({'large': 4, 'ring': 1, 'elliptical': 1}, {'elliptical'}),
    ({'large': 4}, set()), ({'spiral': 1, 'group': 1}, set()),
    ({'large': 4, 'edge_on': 1, 'star_on_galaxy': 2}, {'edge_on', 'star'}),
    ({'large': 4, 'lsb': 1, 'background': 2}, {'lsb', 'field'})])
def test_only(rates, wanted):
    """What has a rate comes, and nothing else."""
    found = set()
    for seed in range(3):
        found |= set(kinds(seed, **rates))
    assert found == wanted


@pytest.mark.parametrize('kind', [kind for kind in DRAWN if kind != 'cosmos'])
def test_each_kind(kind):
    assert set(kinds(1, size=64, large=5, **{kind: 1})) == {kind}


def test_counts():
    """Rates are factors and mean numbers."""
    stars = [len(kinds(seed, size=64, star=1)) for seed in range(40)]
    more = [len(kinds(seed, size=64, star=4)) for seed in range(40)]
    assert_allclose(np.mean(more) / np.mean(stars), 4, rtol=0.3)
    bright = [len(kinds(seed, size=64, bright_star=3)) for seed in range(40)]
    assert_allclose(np.mean(bright), 3, atol=3 * np.sqrt(3 / 40))


def test_density():
    """Small sources per 1000 pixels, stars and galaxies together."""
    number = [len(make_scene(seed, size=100, band_set='r', psf_fwhm=2.0,
                             density=3.0, rates={**EMPTY, 'star': 1,
                                                 'field': 1}).objects['x'])
              for seed in range(4)]
    # those beyond the edges are no objects; four sigma
    assert_allclose(np.mean(number), 30, atol=4 * np.sqrt(30 / 4))


def test_group():
    """Four to eight galaxies close together; the first has the envelope."""
    for seed in range(3):
        scene = make_scene(seed, size=256, band_set='r', psf_fwhm=3.0,
                           rates={**EMPTY, 'large': 1, 'group': 1,
                                  'elliptical': 1, 'icl': 1})
        kind = scene.objects['kind'].tolist()
        assert kind[0] == 'central'
        assert set(kind[1:]) == {'elliptical'}
        assert 4 <= len(kind) <= 8
        assert (scene.objects['re'] <= 30).all()
        assert scene.objects['re'][0] >= 18
        spread = np.std([scene.objects['x'], scene.objects['y']], axis=1)
        assert (spread < 3 * 256 / 9).all()
        assert scene.objects['primary'].all()


def test_pairs():
    """Close pairs are two objects; without them galaxies lie anywhere."""
    def separations(**rates):
        out = []
        for seed in range(15):
            o = make_scene(seed, size=100, band_set='r', psf_fwhm=2.0,
                           rates={**EMPTY, 'elliptical': 1, 'large': 2.5,
                                  **rates}).objects
            out += (np.hypot(np.diff(o['x']), np.diff(o['y']))
                    / np.maximum(o['re'][1:], o['re'][:-1])).tolist()
        return np.array(out)

    beside = separations(pair=1)
    # pixels are whole, and six at least
    assert (beside < 3.3).all()
    assert np.median(separations(pair=0)) > 1.5 * np.median(beside)


def test_companions_are_small():
    o = make_scene(2, size=256, band_set='r', psf_fwhm=2.0, rates={
        **EMPTY, 'large': 6, 'lenticular': 1, 'companion': 1}).objects
    re = o['re']
    small = np.flatnonzero(re[1:] < 0.36 * re[:-1]) + 1
    assert len(small) >= 2
    assert (re[small] >= 0.08 * re[small - 1]).all()


def test_background_galaxies_are_red():
    """What shines through is redder than most."""
    def colour(seed, **rates):
        o = make_scene(seed, size=64, band_set='griz', psf_fwhm=2.0,
                       density=2.0, rates={**EMPTY, **rates}).objects
        flux = o['flux'][o['kind'] == 'field']
        return flux[:, 3] / flux[:, 0]

    behind = np.concatenate([colour(k, large=3, lsb=1, background=3)
                             for k in range(6)])
    others = np.concatenate([colour(k, field=1) for k in range(3)])
    assert len(behind) > 15
    assert np.median(behind) > 1.1 * np.median(others)


def test_kinds_are_known():
    assert set(DRAWN) - {'cosmos'} <= set(KINDS)


# -------------------------------------------------------------- bad input

@pytest.mark.parametrize(('kwargs', 'match'), [
    ({'size': 15}, 'size must be one or two integers of at least 16, got 15'),
    ({'size': 64.5}, 'size must be one or two integers'),
    ({'size': (64, 64, 3)}, 'size must be one or two integers'),
    ({'size': (64, 0)}, 'size must be one or two integers'),
    ({'size': 31, 'psf_fwhm': 8}, ('size must be at least four times the PSF '
                                   'of 8 pixels, got 31 x 31')),
    ({'psf_fwhm': 1e7}, 'size must be at least four times the PSF'),
    ({'psf_fwhm': 0.5}, 'psf_fwhm must be at least one pixel, got 0.5'),
    ({'band_set': 'xyz'}, "band_set must be one of .*, got 'xyz'"),
    ({'band_set': {}}, 'band_set must have at least one band'),
    ({'density': -0.1}, r'density must be in \[0, 20\) .*, got -0.1'),
    ({'density': 20}, 'density must be'),
    ({'density': float('nan')}, 'density must be'),
    ({'pixel_scale': 0}, 'pixel_scale must be positive, got 0'),
    ({'pixel_scale': -.2}, 'pixel_scale must be positive'),
    ({'pixel_scale': float('nan')}, 'pixel_scale must be positive'),
    ({'rates': {'stars': 1}}, "rates must be some of .*, got 'stars'"),
    ({'rates': {'star': -1}}, r"rates\['star'\] must be a number of 0")])
def test_bad_scene(kwargs, match):
    with pytest.raises(ValueError, match=match):
        make_scene(0, **kwargs)


def test_bad_seed():
    with pytest.raises(ValueError, match='seed must be 0 or more, got -1'):
        make_scene(-1)


def test_no_cosmos_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match='cosmos: no file .*f814w'):
        make_scene(0, size=64, cosmos=tmp_path)
