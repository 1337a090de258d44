# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the train.views and train.batches modules.
"""

import pickle
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from torch.utils.data import DataLoader

from astrodino_seg.datasets import FolderImages
from astrodino_seg.errors import SkippedWarning
from astrodino_seg.image import Image
from astrodino_seg.inputs.channels import PreprocessSpec, normalise
from astrodino_seg.simulate import observe
from astrodino_seg.simulate.scene import Scene
from astrodino_seg.train import Mixture, ObservedScenes, ViewDataset
from astrodino_seg.train import views as data_module
from astrodino_seg.train.exposures import Exposure
from astrodino_seg.train.views import RATES, Views

FEW = settings(deadline=None, max_examples=25)
SPEC = PreprocessSpec()
OFF = dict.fromkeys(RATES, 0)
SMALL = {'global_size': 32, 'local_size': 16, 'n_local': 2}


def make_image(seed, shape=(80, 96), n_bands=2):
    rng = np.random.default_rng(seed)
    cube = rng.normal(5, 2, (n_bands, *shape)).astype(np.float32)
    y, x = rng.uniform(8, min(shape) - 8, 2)
    yy, xx = np.indices(shape)
    cube += 60 * np.exp(-((xx - x)**2 + (yy - y)**2) / 20)
    return Image(cube, np.zeros(cube.shape, bool),
                 bands=tuple('griz'[:n_bands]))


def make_images(n=5, **kwargs):
    return [make_image(k, **kwargs) for k in range(n)]


def make_scene(seed, size=64):
    light = make_image(seed, (size, size)).cube - 5
    return Scene(
        cube=light, owner=np.zeros((3, size, size), np.int16),
        own_sn=np.zeros((3, size, size), np.float32),
        bands={'g': .48, 'r': .62}, psf_fwhm=np.array([3.0, 3.0]),
        objects={'x': np.zeros(0), 'y': np.zeros(0), 'cls': np.zeros(0, int),
                 'kind': np.zeros(0, str), 're': np.zeros(0),
                 'primary': np.zeros(0, bool)})


class Counted(list):
    """A list that knows which of its items were asked for."""

    def __init__(self, *args):
        super().__init__(*args)
        self.asked = []

    def __getitem__(self, k):
        self.asked.append(k)
        return super().__getitem__(k)


def assert_same(one, two):
    for a, b in zip(one, two):
        assert_array_equal(a, b)


# ------------------------------------------------------------------- items

def test_item():
    data = ViewDataset(make_images(), SPEC, 7, **SMALL)
    assert len(data) == 7
    views = data[3]
    assert isinstance(views, Views)
    assert views.global_views.shape == (2, SPEC.n_channels, 32, 32)
    assert views.local_views.shape == (2, SPEC.n_channels, 16, 16)
    for part in views:
        assert part.dtype == torch.float32
        assert torch.isfinite(part).all()
    assert not torch.equal(views.global_views[0], views.global_views[1])
    none = ViewDataset(make_images(), SPEC, 1, **{**SMALL, 'n_local': 0})
    assert none[0].local_views.shape == (0, SPEC.n_channels, 16, 16)


def test_items_are_fixed():
    """Of seed and number alone, whatever was asked for before."""
    images = make_images(40)
    data = ViewDataset(images, SPEC, 400, n_open=4, n_reuse=5, seed=3,
                       **SMALL)
    one = [data[k] for k in (0, 250, 399)]
    other = pickle.loads(pickle.dumps(data))
    for views, k in zip(one[::-1], (399, 250, 0)):
        assert_same(views, other[k])
    changed = ViewDataset(images, SPEC, 400, n_open=4, n_reuse=5, seed=4,
                          **SMALL)
    assert not torch.equal(changed[0].global_views, one[0].global_views)
    assert not torch.equal(data[1].global_views, one[0].global_views)


def test_workers():
    """Two workers, and a process of its own, make the same batches."""
    data = ViewDataset(make_images(), SPEC, 6, seed=1, **SMALL)
    alone = list(DataLoader(data, batch_size=2))
    together = list(DataLoader(data, batch_size=2, num_workers=2))
    assert len(alone) == len(together) == 3
    for one, two in zip(alone, together):
        assert isinstance(one, Views)
        assert one.local_views.shape == (2, 2, SPEC.n_channels, 16, 16)
        assert_same(one, two)
    code = ('import sys, pickle; data = pickle.load(sys.stdin.buffer); '
            'sys.stdout.buffer.write(data[5].global_views.numpy().tobytes())')
    raw = subprocess.run([sys.executable, '-c', code], check=True,
                         input=pickle.dumps(data), capture_output=True)
    assert raw.stdout == alone[2].global_views[1].numpy().tobytes()


def test_views_of_nothing_but_the_image():
    """With all rates 0, views are pieces of what the model is given."""
    images = make_images(3)
    data = ViewDataset(images, SPEC, 12, rates=OFF, **SMALL)
    whole = [normalise(image, SPEC).channels for image in images]
    places = set()
    for k in range(12):
        parent = data.parent(k)
        # half of its area is that of a global view
        assert parent.shape[1:] == (int(32 * 2**0.5),) * 2
        for view in [*data[k].global_views, *data[k].local_views]:
            assert any(find(view.numpy(), one) for one in whole)
            place, = find(view.numpy(), parent)
            places.add(place)
    assert len(places) > 20


def find(piece, array):
    """Corners (y, x) at which a (channel, y, x) piece lies in an array."""
    side = piece.shape[1]
    return [(y, x) for y, x in np.argwhere(
        array[0, :array.shape[1] - side + 1, :array.shape[2] - side + 1]
        == piece[0, 0, 0]) if np.array_equal(
            array[:, y:y + side, x:x + side], piece)]


def ramps(n):
    """An image whose two bands are where they are, in y and in x."""
    y, x = 1e3 * np.mgrid[1:n + 1, 1:n + 1].astype(np.float32)
    return Exposure(np.stack([y, x]), np.ones((2, n, n), bool),
                    np.ones((2, 1, 1), np.float32), 0.0,
                    np.array([np.nan, np.nan]))


def test_share_of_the_parent(monkeypatch):
    """Views lie in the parent crop, and have the share that they should."""
    monkeypatch.setattr(data_module, 'expose', lambda *_: ramps(200))
    data = ViewDataset([make_image(0, (200, 200))], PreprocessSpec(n_slots=2),
                       40, global_scale=(0.6, 0.9), local_scale=(0.1, 0.3),
                       zoom=(1.2, 3), rates={**OFF, 'rescale': 1}, **SMALL)

    def ramps_of(channels):
        y, x = np.sinh(channels[1:3].astype(float)) / 1e3
        return y[:, 0], x[0]

    zooms, shares = [], {'global_views': [], 'local_views': []}
    for k in range(40):
        whole = ramps_of(data.parent(k))
        zooms.append(len(whole[0]) / 32)
        views = data[k]
        for name in shares:
            for view in getattr(views, name).numpy():
                y, x = ramps_of(view)
                # the light is times the scale, and so is the step
                scale = np.sqrt(np.diff(y).mean())
                assert_allclose(np.sqrt(np.diff(x).mean()), scale, rtol=0.01)
                shares[name].append((scale * len(y) / len(whole[0]))**2)
                for along, own in zip((y, x), whole):
                    first, last = along[[0, -1]] / scale
                    assert own[0] - 0.5 <= first < last <= own[-1] + 0.5
    assert 1.2 <= min(zooms) < 1.5 < 2.5 < max(zooms) <= 3
    for name, (low, high) in (('global_views', (0.6, 0.9)),
                              ('local_views', (0.1, 0.3))):
        found = shares[name]
        assert low - 0.02 < min(found) < low + 0.05
        assert high - 0.05 < max(found) < high + 0.02


def test_gaps_are_avoided():
    """A parent crop has data, though two thirds of the image have none."""
    image = make_image(0, (64, 200))
    image.mask[:, :, 70:] = True
    image.cube[image.mask] = 0
    data = ViewDataset([image], SPEC, 30, rates=OFF, **SMALL)
    shares = [data.parent(k)[-1].mean() for k in range(30)]
    assert np.mean(np.array(shares) >= 0.5) > 0.85
    assert min(shares) > 0


# --------------------------------------------------------- images in memory

def test_few_are_open():
    """A window of images moves on by one after the other."""
    images = Counted(make_images(60, shape=(32, 32), n_bands=1))
    data = ViewDataset(images, SPEC, 200, n_open=4, n_reuse=20, **SMALL)
    assert images.asked == list(range(60))      # the check of each
    images.asked.clear()
    seen = []
    for k in range(200):
        data[k]
        seen.append(images.asked.copy())
    assert len(seen[19]) <= 4
    # ten windows, each with one new image at most, which is kept
    assert 8 <= len(images.asked) <= 4 + 9
    assert len(set(images.asked)) == len(images.asked)
    other = ViewDataset(images, SPEC, 960, **SMALL)
    assert other.n_reuse == 16


def test_streams():
    """Two processes that take turns in runs open different images."""
    images = Counted(make_images(200, shape=(32, 32), n_bands=1))
    opened = []
    for worker in range(2):
        data = ViewDataset(images, SPEC, 120, n_open=4, n_reuse=30, run=10,
                           n_streams=2, **SMALL)
        images.asked.clear()
        for k in range(120):
            if k // 10 % 2 == worker:
                data[k]
        opened.append(set(images.asked))
    # two windows each
    assert all(3 <= len(one) <= 5 for one in opened)
    assert not opened[0] & opened[1]


def test_memory():
    """No more is kept than is allowed, and the views do not change."""
    images = Counted(make_images(4))
    one = 80 * 96 * 2 * 5       # float32 and bool
    data = ViewDataset(images, SPEC, 20, cache_bytes=2 * one, **SMALL)
    free = ViewDataset(images, SPEC, 20, **SMALL)
    for k in range(20):
        assert_same(data[k], free[k])
        held = [e for e, _ in data._open.values()]
        assert sum(e.signal.nbytes + e.valid.nbytes for e in held) <= 2 * one
        assert 1 <= len(held) <= 2
    tight = ViewDataset(images, SPEC, 20, cache_bytes=1, **SMALL)
    assert_same(tight[7], free[7])
    assert len(tight._open) == 1
    assert not pickle.loads(pickle.dumps(free))._open


# ----------------------------------------------------------------- sources

def test_observed_scenes():
    scenes = [make_scene(k) for k in range(3)]
    images = ObservedScenes(scenes, seed=5)
    assert len(images) == 3
    assert images.shapes == [(64, 64)] * 3
    expected, _ = observe(scenes[1], [5, 1])
    assert_array_equal(images[1].cube, expected.cube)
    assert not np.array_equal(images[1].cube,
                              ObservedScenes(scenes, seed=6)[1].cube)
    assert len(list(images)) == 3
    ViewDataset(images, SPEC, 1, **SMALL)[0]
    with pytest.raises(ValueError, match='64 x 64 pixels, less than global'):
        ViewDataset(images, SPEC, 1)


@FEW
@given(st.lists(st.integers(1, 6), min_size=1, max_size=4), st.data())
def test_mixture(lengths, draw):
    """One after the other; each part gets its share."""
    parts = [[f'{k}{i}' for i in range(n)] for k, n in enumerate(lengths)]
    shares = draw.draw(st.lists(st.floats(0.1, 10), min_size=len(parts),
                                max_size=len(parts)))
    mixture = Mixture(parts, shares)
    assert list(mixture) == [name for part in parts for name in part]
    of = [int(name[0]) for name in mixture]
    assert_allclose(np.bincount(of, mixture.weights),
                    np.divide(shares, np.sum(shares)))
    even = Mixture(parts)
    assert_allclose(even.weights, 1 / len(even))


def test_shares_of_items(monkeypatch):
    """Of one image among many, as often as asked for."""
    many, one = make_images(20, n_bands=1), [make_image(99, n_bands=2)]
    data = ViewDataset(Mixture([many, one], [1, 3]), SPEC, 400, n_reuse=1,
                       n_open=4, **SMALL)
    rng = np.random.default_rng(0)
    drawn = [data._image_of(rng, k) for k in range(2000)]
    assert_allclose(np.mean(np.array(drawn) == 20), 0.75, atol=0.05)
    assert set(drawn) == set(range(21))


def test_wrong_mixture():
    with pytest.raises(ValueError, match=r'one image or more each, .*\[2, 0'):
        Mixture([[1, 2], []])
    with pytest.raises(ValueError, match='sources must'):
        Mixture([])
    for shares in ([1], [1, 0], [1, -1]):
        with pytest.raises(ValueError, match='shares must be 2 positive'):
            Mixture([[1], [2]], shares)


def test_index_error():
    for images in (Mixture([[1, 2], [3]]), ObservedScenes([1, 2, 3]),
                   ViewDataset(make_images(1), SPEC, 3, **SMALL)):
        for k in (-1, 3):
            with pytest.raises(IndexError, match=f'got {k}'):
                images[k]


# --------------------------------------------------------------- bad input

def test_folder(tmp_path):
    """Of four files one cannot be read, which is told, and three are."""
    for k in range(3):
        fits.writeto(tmp_path / f'{k}.fits', make_image(k).cube)
    (tmp_path / 'broken.fits').write_bytes(b'SIMPLE  =' + b' ' * 400)
    with pytest.warns(SkippedWarning, match='left out: 1') as caught:
        images = FolderImages(tmp_path)
    (path, _), = caught[0].message.skipped
    assert path.name == 'broken.fits'
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        assert torch.isfinite(ViewDataset(images, SPEC, 3, **SMALL)
                              [1].global_views).all()


def test_unusable_images():
    """All at once, before any view is made."""
    good, small = make_image(0), make_image(1, (31, 90))
    flat = Image(np.full((2, 50, 50), 3, np.float32),
                 np.zeros((2, 50, 50), bool))
    empty = Image(np.zeros((1, 50, 50), np.float32),
                  np.ones((1, 50, 50), bool))
    match = (r'3 of 4 images cannot be used: images\[1\] has 31 x 90 pixels, '
             r'less than global_size=32, images\[2\] is constant, '
             r'images\[3\] has no valid pixel')
    with pytest.raises(ValueError, match=match):
        ViewDataset([good, small, flat, empty], SPEC, 1, **SMALL)
    with pytest.raises(ValueError, match=r'1 of 2 .*sources\[1\]\[0\] is con'):
        ViewDataset(Mixture([[good], [flat]]), SPEC, 1, **SMALL)
    with pytest.raises(ValueError, match='9 of 9 .*, and 4 more'):
        ViewDataset([flat] * 9, SPEC, 1, **SMALL)
    with pytest.raises(ValueError, match='images is empty'):
        ViewDataset([], SPEC, 1)
    with pytest.raises(TypeError, match='must be a sequence, .* got gene'):
        ViewDataset((image for image in [good]), SPEC, 1)
    with pytest.raises(TypeError, match=r'images\[1\] must be .* got ndarray'):
        ViewDataset([good, good.cube], SPEC, 1)


def test_no_noise():
    """What only shows once the noise is measured is told then."""
    cube = np.zeros((1, 64, 64), np.float32)
    cube[0, 5, 5] = 1
    data = ViewDataset([Image(cube, np.zeros(cube.shape, bool))], SPEC, 1,
                       **SMALL)
    with pytest.raises(ValueError, match=r'images\[0\] has no noise'):
        data[0]


@pytest.mark.parametrize(('name', 'value', 'match'), [
    ('global_scale', (0.4, 1), r'global_scale must be .*\(0.4, 1\)'),
    ('global_scale', (0.9, 0.6), 'global_scale must'),
    ('local_scale', (0, 0.5), 'local_scale must'),
    ('local_scale', (0.1, 1.5), 'local_scale must'),
    ('zoom', (0.5, 2), 'zoom must'),
    ('zoom', (2, 1), 'zoom must'),
    ('n_items', 0, 'n_items should be .* to 1, got 0'),
    ('n_local', -1, 'n_local should'),
    ('global_size', 8, 'global_size should'),
    ('local_size', 48, 'local_size must be at most global_size=32, got 48'),
    ('n_open', 0, 'n_open should'),
    ('n_reuse', 0, 'n_reuse should'),
    ('n_streams', 0, 'n_streams should'),
    ('run', 0, 'run should'),
    ('rates', {'jitter': 1}, 'unknown keys')])
def test_impossible_arguments(name, value, match):
    arguments = {'n_items': 1, **SMALL, name: value}
    with pytest.raises(ValueError, match=match):
        ViewDataset(make_images(1), SPEC, **arguments)
