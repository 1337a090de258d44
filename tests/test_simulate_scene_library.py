# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests of the scenes of a split, on disk or composed.
"""

from importlib import import_module

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from simulate_helpers import EMPTY, digest, hand_scene

from astrodino_seg.simulate import SceneLibrary, make_scene, observe
from astrodino_seg.simulate.scene_library import SPLITS, build_stamps

library = import_module('astrodino_seg.simulate.scene_library')


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


def test_library(tmp_path, monkeypatch):
    pytest.importorskip('galsim')
    made = []

    def make(seed, *, size, stamps=None, rates=None):
        made.append(seed)
        return make_scene(seed, size=size, density=0.3, pixel_scale=0.2)

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
    assert first.pixel_scale == 0.2
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


def test_seeds_of_scenes():
    """Scene k of a split is that of its seed."""
    pytest.importorskip('galsim')
    scenes = SceneLibrary('benchmark', 2, size=64)
    assert digest(scenes[1]) == digest(make_scene(2_000_001, size=64))
    assert scenes[1].pixel_scale is None


def test_stamps(tmp_path):
    """Composed anew each time, and always the same; nothing is written."""
    pytest.importorskip('galsim')
    stamps = build_stamps(tmp_path, n_skies=1, n_large=1, n_small=4,
                          band_sets=['r'], rates={**EMPTY, 'elliptical': 1},
                          progress=False)
    before = sorted(tmp_path.iterdir())
    scenes = SceneLibrary('train', 3, size=96, stamps=tmp_path)
    assert digest(scenes[2]) == digest(scenes[2]) == digest(
        make_scene(2, size=96, stamps=stamps))
    assert digest(scenes[1]) != digest(scenes[2])
    assert sorted(tmp_path.iterdir()) == before


def test_rates():
    pytest.importorskip('galsim')
    scenes = SceneLibrary('train', 2, size=96, rates=EMPTY)
    assert digest(scenes[1]) == digest(make_scene(1, size=96, rates=EMPTY))
    assert len(scenes[1].objects['x']) == 0
    with pytest.raises(ValueError, match=r"rates\['star'\] must be"):
        SceneLibrary('train', 1, rates={'star': -1})
    with pytest.raises(ValueError, match='only one of path='):
        SceneLibrary('train', 1, path='x', rates=EMPTY)


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
        assert cached[0].pixel_scale is None
    assert made == [0, 0]
    assert len(list(tmp_path.iterdir())) == 2


def test_library_is_atomic(tmp_path, monkeypatch):
    """A file appears whole or not at all."""
    monkeypatch.setattr(library, 'make_scene', lambda seed, *, size:
                        hand_scene()[0])
    cached = SceneLibrary('train', 1, path=tmp_path, size=64)

    def fail(path, **arrays):
        path.write_bytes(b'half a')
        msg = 'disk full'
        raise OSError(msg)

    with monkeypatch.context() as broken:
        broken.setattr(np, 'savez', fail)
        with pytest.raises(OSError, match='disk full'):
            cached[0]
    assert list(tmp_path.iterdir()) == []
    assert cached[0].cube.shape == (2, 64, 64)
    assert len(list(tmp_path.iterdir())) == 1


def test_library_keeps_flux(tmp_path, monkeypatch):
    """Beyond what float16 can hold."""
    scene = hand_scene()[0]
    scene.objects['flux'] = np.float32([[1e5, 1e-7]] * 4)
    monkeypatch.setattr(library, 'make_scene', lambda seed, *, size: scene)
    for _ in range(2):              # made, then read
        flux = SceneLibrary('train', 1, path=tmp_path)[0].objects['flux']
        assert flux.dtype == np.float32
        assert_array_equal(flux, scene.objects['flux'])


def test_bad_library(tmp_path):
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
    with pytest.raises(ValueError, match='only one of path=.* and stamps='):
        SceneLibrary('train', 2, path=tmp_path, stamps=tmp_path)
    with pytest.raises(FileNotFoundError, match='no stamps of version'):
        SceneLibrary('train', 2, stamps=tmp_path)
