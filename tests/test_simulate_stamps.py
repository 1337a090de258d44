# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests of the library of stamps.
"""

import json
import os
import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from safetensors.numpy import load_file, save_file
from simulate_helpers import EMPTY, check_truth, digest

from astrodino_seg.errors import ModelFileError
from astrodino_seg.simulate import StampLibrary, make_scene, observe
from astrodino_seg.simulate import scene_library as stamps
from astrodino_seg.simulate.scene import VERSION, turned
from astrodino_seg.simulate.scene_library import (
    Stamps,
    _turn_offset,
    build_stamps,
)
from astrodino_seg.simulate.sky import BAND_SETS

pytest.importorskip('galsim')

RATES = {**EMPTY, 'spiral': 1, 'elliptical': 1}
SETTINGS = {'n_large': 1, 'n_small': 24, 'rates': RATES, 'progress': False}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp('stamps')
    build_stamps(path, n_skies=2, band_sets=['r', 'grz'], **SETTINGS)
    return path


@pytest.fixture(scope='module')
def library(folder):
    return StampLibrary(folder)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# ------------------------------------------------------------------ turning

@pytest.mark.parametrize('k', range(8))
def test_turn(k):
    """Flux is kept, and a point goes where its offset goes."""
    image = np.zeros((2, 11, 11))
    image[:, 5 + 3, 5 - 1] = 7.0         # x = -1, y = 3
    image[1, 2, 2] = 1.0
    picture = turned(image, k)
    assert picture.shape == image.shape
    assert picture.sum() == image.sum()
    x, y = _turn_offset(k, -1, 3)
    assert_array_equal(picture[:, 5 + y, 5 + x], 7)


def test_turns_are_different():
    image = np.arange(9.).reshape(3, 3)
    assert len({turned(image, k).tobytes() for k in range(8)}) == 8
    assert len({_turn_offset(k, .2, .3) for k in range(8)}) == 8


# -------------------------------------------------------------------- files

def test_files(folder, library):
    assert names(folder) == [f'stamps{VERSION}-{k:06d}.safetensors'
                             for k in range(2)]
    assert [list(library.source(k).sky.bands) for k in range(2)] == [
        ['r'], ['g', 'r', 'z']]
    assert library.source(0) is library.source(0)


def test_same_seed_same_file(folder, tmp_path):
    """Stopped in between, it goes on and changes nothing that is there."""
    build_stamps(tmp_path, n_skies=1, band_sets=['r', 'grz'], **SETTINGS)
    first = tmp_path / names(tmp_path)[0]
    before = first.stat().st_mtime_ns
    again = build_stamps(tmp_path, n_skies=2, band_sets=['r', 'grz'],
                         **SETTINGS)
    assert len(again.files) == 2
    assert first.stat().st_mtime_ns == before
    for name in names(folder):
        assert ((tmp_path / name).read_bytes()
                == (folder / name).read_bytes())


def test_first_seed(tmp_path):
    small = {**SETTINGS, 'n_small': 1, 'band_sets': ['r']}
    build_stamps(tmp_path, n_skies=2, first_seed=7, **small)
    assert names(tmp_path) == [f'stamps{VERSION}-00000{k}.safetensors'
                               for k in (7, 8)]
    assert len({(tmp_path / name).read_bytes()
                for name in names(tmp_path)}) == 2


def test_atomic(tmp_path, monkeypatch):
    """A file appears whole or not at all."""
    def fail(tensors, metadata):
        msg = 'disk full'
        raise OSError(msg)

    small = {**SETTINGS, 'n_small': 1, 'n_skies': 1, 'band_sets': ['r']}
    with monkeypatch.context() as broken:
        broken.setattr(stamps, 'to_bytes', fail)
        with pytest.raises(OSError, match='disk full'):
            build_stamps(tmp_path, **small)
    with monkeypatch.context() as broken:
        broken.setattr(os, 'replace', fail)
        with pytest.raises(OSError, match='disk full'):
            build_stamps(tmp_path, **small)
    assert names(tmp_path) == []
    assert len(build_stamps(tmp_path, **small).files) == 1


# ---------------------------------------------------------- what is in them

class Recorder:
    """A source that remembers what it gave."""

    def __init__(self, source):
        self.source, self.seen = source, []
        self.sky, self.rates = source.sky, source.rates
        self.kinds = source.kinds

    def large(self, *args):
        self.seen.append(self.source.large(*args))
        return self.seen[-1]

    def small(self, *args, **kwargs):
        self.seen.append(self.source.small(*args, **kwargs))
        return self.seen[-1]


@pytest.fixture(scope='module')
def recorded(tmp_path_factory):
    """A file, and the galaxies that went into it."""
    recorders = []

    class Recording(stamps.Renderer):
        def __new__(cls, *args, **kwargs):
            recorders.append(Recorder(make(*args, **kwargs)))
            return recorders[-1]

    make, stamps.Renderer = stamps.Renderer, Recording
    try:
        path = tmp_path_factory.mktemp('recorded')
        build_stamps(path, n_skies=1, band_sets=['grz'], **{
            **SETTINGS, 'n_small': 8})
    finally:
        stamps.Renderer = make
    return StampLibrary(path).source(0), recorders[0]


def unturned(other, image):
    """The flip or turn that makes them alike."""
    gaps = [np.abs(turned(image, k) - other).max() for k in range(8)]
    return turned(image, int(np.argmin(gaps)))


def test_sky(recorded):
    source, recorder = recorded
    assert source.sky.bands == recorder.sky.bands
    assert list(source.sky.bands) == list(recorder.sky.bands)
    assert source.sky.beta == recorder.sky.beta
    for name in ('psf_fwhm', 'depth'):
        assert_array_equal(getattr(source.sky, name),
                           getattr(recorder.sky, name))
    assert list(source.sky.optics['spikes']) == list(
        recorder.sky.optics['spikes'])


@pytest.mark.parametrize(('n', 'kind'), [(0, 'spiral'), (1, 'elliptical')])
def test_large(recorded, n, kind):
    """16 bits keep the flux and the wings."""
    source, recorder = recorded
    wanted = recorder.seen[n]
    for seed in range(3):
        found = source.large(np.random.default_rng(seed), kind, 20.0)
        assert found.cube.dtype == np.float16
        cube = found.cube.astype(float) * found.scale
        assert (found.re, found.q) == (wanted.re, wanted.q)
        image = unturned(cube, wanted.cube)
        assert_allclose(cube.sum(axis=(1, 2)), image.sum(axis=(1, 2)),
                        rtol=1e-3)
        # below that there is the rounding of the convolution
        assert_allclose(cube, image, rtol=1e-3, atol=3e-7 * image.max())
        # far out, where a pixel has a millionth of the peak
        n = image.shape[1]
        away = np.hypot(*(np.mgrid[:n, :n] - n // 2)) > 0.35 * n
        assert image[0][away].max() < 1e-3 * image[0].max()
        assert_allclose(cube[:, away].sum(axis=1), image[:, away].sum(axis=1),
                        rtol=1e-2)


@pytest.mark.parametrize('bulge', [True, False])
def test_small(recorded, bulge):
    source, recorder = recorded
    sizes = {one.re: one for one in recorder.seen[4:]
             if (len(one.parts) == 2) == bulge}
    assert len(sizes) == (2 if bulge else 6)
    for seed in range(6):
        found = source.small(np.random.default_rng(seed), 2.0, 80,
                             bulge=bulge)
        wanted = sizes[found.re]
        parts = found.parts.astype(float) * found.scale
        assert len(parts) == 1 + bulge
        k = int(np.argmin([np.abs(turned(wanted.parts, k) - parts).max()
                           for k in range(8)]))
        assert_allclose(parts, turned(wanted.parts, k), rtol=1e-3,
                        atol=1e-9 * parts.max())
        # the centre is turned alike
        assert_allclose((found.x, found.y),
                        _turn_offset(k, wanted.x, wanted.y))


def test_cut(library):
    """To the half-width that is asked for, about the middle."""
    source = library.source(0)
    for seed in range(6):
        wide, narrow = (source.small(np.random.default_rng(seed), 4.0, half)
                        for half in (80, 9))
        n = narrow.parts.shape[-1]
        assert n == 2 * int(9 * max(narrow.re / 4, 1)) + 1
        cut = (wide.parts.shape[-1] - n) // 2
        assert_array_equal(wide.parts[..., cut:cut + n, cut:cut + n],
                           narrow.parts)


def test_nearest_in_size(library):
    source = library.source(0)
    sizes = sorted(row['re'] for _, part in source._small.values()
                   for row in part)
    for re in (0.5, 2.0, 9.0):
        rng = np.random.default_rng(0)
        taken = {source.small(rng, re, 20).re for _ in range(40)}
        assert taken <= set(sizes)
        assert 1 < len(taken) <= 4
        off = np.abs(np.log(np.array(sorted(taken)) / re))
        assert off.max() <= off.min() + np.log(1.5) + 1e-12
    # galaxies with a bulge are others
    rng = np.random.default_rng(0)
    assert not taken & {source.small(rng, 9.0, 20, bulge=True).re
                        for _ in range(20)}


# ------------------------------------------------------------------ scenes

def test_band_set(library):
    rng = np.random.default_rng(0)
    for name in ('r', 'grz'):
        for _ in range(4):
            assert library.draw(rng, name).sky.bands == BAND_SETS[name]
    assert {len(library.draw(rng).sky.bands) for _ in range(20)} == {1, 3}
    bands = BAND_SETS['grz']
    assert library.draw(rng, bands).sky.bands == bands
    for other in ('griz', dict(reversed(bands.items())), {'r': .7}):
        with pytest.raises(ValueError, match=(
                'the stamps have no sky with band_set=')):
            library.draw(rng, other)
    with pytest.raises(ValueError, match='band_set must be one of'):
        library.draw(rng, 'xyz')


def test_scenes(library):
    """With what the library has, and nothing else."""
    kinds = set()
    for seed in range(8):
        scene = make_scene(seed, size=128, stamps=library)
        sky = next(source.sky for source in map(library.source, range(2))
                   if source.sky.bands == scene.bands)
        assert_array_equal(scene.psf_fwhm, sky.psf_fwhm)
        assert scene.cube.dtype == np.float32
        assert np.isfinite(scene.cube).all()
        assert_allclose(scene.objects['flux'].sum(axis=0),
                        scene.cube.sum(axis=(1, 2)), rtol=1e-5)
        kinds |= set(scene.objects['kind'])
    assert {'spiral', 'elliptical', 'star', 'field'} <= kinds
    assert kinds <= {'spiral', 'elliptical', 'star', 'field', 'central'}


@pytest.mark.parametrize('seed', range(6))
def test_any_observation(library, seed):
    check_truth(*observe(make_scene(seed, size=96, stamps=library), seed))


def test_rates_of_scenes(library):
    none = make_scene(0, size=64, stamps=library, rates=EMPTY)
    assert not none.cube.any()
    scene = make_scene(0, size=96, stamps=library, rates={
        **EMPTY, 'large': 5, 'elliptical': 1, 'lsb': 1})
    assert set(scene.objects['kind']) == {'elliptical'}     # it has no 'lsb'


def digest_of(library, seed):
    return digest(make_scene(seed, size=96, stamps=library))


def test_same_in_any_process(library):
    """A library goes to worker processes, and gives the same there."""
    mine = [digest_of(library, seed) for seed in range(3)]
    assert len(set(mine)) == 3
    assert library._sources
    assert pickle.loads(pickle.dumps(library))._sources == {}
    with ProcessPoolExecutor(1, mp_context=get_context('spawn')) as pool:
        theirs = list(pool.map(digest_of, [library] * 3, range(3)))
    assert theirs == mine


# ---------------------------------------------------------------- bad input

@pytest.mark.parametrize(('kwargs', 'match'), [
    ({'n_skies': 0}, 'n_skies must be at least 1, got 0'),
    ({'n_large': 0}, 'n_large must be at least 1, got 0'),
    ({'n_small': -1}, 'n_small must be at least 1, got -1'),
    ({'band_sets': ['r', 'xyz']}, "band_set must be one of .*, got 'xyz'"),
    ({'rates': {'stars': 1}}, 'rates must be some of')])
def test_bad_build(tmp_path, kwargs, match):
    path = tmp_path / 'deep'
    with pytest.raises(ValueError, match=match):
        build_stamps(path, progress=False, **kwargs)
    assert not path.exists()


def test_bad_library(tmp_path):
    for path in (tmp_path, tmp_path / 'none'):
        with pytest.raises(FileNotFoundError, match=(
                f'path: no stamps of version {VERSION} in ')):
            StampLibrary(path)
    # those of another version are as good as none
    (tmp_path / 'stamps3-000000.safetensors').write_bytes(b'x')
    with pytest.raises(FileNotFoundError, match='no stamps of version'):
        StampLibrary(tmp_path)


def metadata(path):
    from safetensors import safe_open

    with safe_open(path, 'numpy') as file:
        return file.metadata()


@pytest.mark.parametrize('damage', ['text', 'cut', 'foreign', 'no json',
                                    'no sky', 'no rows'])
def test_bad_file(folder, tmp_path, damage):
    good = folder / names(folder)[0]
    bad = tmp_path / f'stamps{VERSION}-000000.safetensors'
    about = json.loads(metadata(good)['stamps'])
    if damage == 'text':
        bad.write_text('this is no file of stamps')
    elif damage == 'cut':
        bad.write_bytes(good.read_bytes()[:-1000])
    elif damage == 'foreign':
        save_file({'x': np.zeros(3)}, bad)
    elif damage == 'no json':
        save_file({'x': np.zeros(3)}, bad, {'stamps': '{"version": '})
    elif damage == 'no sky':
        del about['sky']['psf_fwhm']
        save_file(load_file(good), bad, {'stamps': json.dumps(about)})
    else:
        about['large'] = [{'kind': 'spiral'}]
        save_file(load_file(good), bad, {'stamps': json.dumps(about)})
    with pytest.raises(ModelFileError, match='is not a file of stamps'):
        Stamps(bad)
    with pytest.raises(ModelFileError, match='is not a file of stamps'):
        make_scene(0, size=64, stamps=StampLibrary(tmp_path))


def test_other_version(folder, tmp_path):
    good = folder / names(folder)[0]
    bad = tmp_path / 'stamps.safetensors'
    about = {**json.loads(metadata(good)['stamps']), 'version': 3}
    save_file(load_file(good), bad, {'stamps': json.dumps(about)})
    with pytest.raises(ModelFileError, match=(
            f'has stamps of version 3, this is {VERSION}')):
        Stamps(bad)
    with pytest.raises(ModelFileError, match='not a file of stamps'):
        Stamps(tmp_path / 'none.safetensors')


@pytest.mark.parametrize('kwargs', [{'psf_fwhm': 3}, {'cosmos': 'x'}])
def test_what_stamps_have(library, kwargs):
    with pytest.raises(ValueError, match='stamps have their own PSFs'):
        make_scene(0, stamps=library, **kwargs)
