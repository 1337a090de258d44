# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests of the crops of the pyramid's levels.
"""

import numpy as np
import pytest
import torch
from level_toys import disc_truth

from astrodino_seg.image import Image
from astrodino_seg.preprocess import PreprocessSpec, normalise
from astrodino_seg.simulate import make_scene
from astrodino_seg.train.crops import (
    MAX_OBJECTS,
    LevelCrops,
    make_crop,
    planes_of_level,
)

SPEC = PreprocessSpec()


@pytest.fixture(scope='module')
def scenes():
    pytest.importorskip('galsim')
    return [make_scene(k, size=112, psf_fwhm=2.5, band_set='grz')
            for k in (3, 4)]


def noise_image(seed=0, n=128):
    rng = np.random.default_rng(seed)
    cube = rng.normal(50, 2, (2, n, n)).astype(np.float32)
    return Image(cube, np.zeros(cube.shape, bool), bands=('g', 'r'))


def test_planes_are_the_models():
    image = noise_image()
    np.testing.assert_allclose(planes_of_level(image, SPEC),
                               normalise(image, SPEC).channels, atol=1e-5)


@pytest.mark.parametrize('b', [1.0, 2.0, 8.0])
def test_noise_of_a_binned_image(b):
    """White noise, binned, is 1 / b of what it was."""
    channels = planes_of_level(noise_image(), SPEC, b)
    for plane in channels[:-1]:
        assert np.sinh(plane).std() == pytest.approx(1 / b, rel=0.04)
    assert (channels[-1] == 1).all()


def test_sky_beneath_the_light():
    """A frame that is full of light: its sky is found without it."""
    image = noise_image()
    light = np.full(image.cube.shape, 30, np.float32)
    full = Image(image.cube + light, image.mask, bands=image.bands)
    blind = planes_of_level(full, SPEC)
    known = planes_of_level(full, SPEC, 1.0, light)
    assert abs(np.sinh(blind[0]).mean()) < 0.1
    # both bands at a S/N of 15
    assert np.sinh(known[0]).mean() == pytest.approx(15 * 2**0.5, rel=0.05)


def test_items(scenes):
    data = LevelCrops(scenes, SPEC, 40, crop_size=96, seed=1)
    again = LevelCrops(scenes, SPEC, 40, crop_size=96, seed=1)
    assert len(data) == 40
    crops, others = ([one for k in range(6) for one in part[k]]
                     for part in (data, again))
    assert [crop.binned for crop in crops] == [0, 1] * 6
    for crop, other in zip(crops, others):
        assert crop.channels.shape == (SPEC.n_channels, 96, 96)
        assert torch.equal(crop.channels, other.channels)
        assert torch.equal(crop.labels, other.labels)
        x, y = crop.seed_xy.long().T
        # each seed lies on its object, the objects' centres come first
        assert torch.equal(crop.labels[y, x], crop.seed_object + 1)
        n = len(crop.cls)
        assert torch.equal(crop.seed_object[:n], torch.arange(n))
        assert crop.labels.max() <= n
        assert set(crop.cls.tolist()) <= {1, 2, 3}
        assert (crop.shares >= 0).all()
        assert (crop.shares.sum(dim=0) <= 1 + 1e-5).all()
        # no pixel is an object's and the sky's
        assert (crop.classes[crop.labels > 0] > 0).float().mean() > 0.5 or (
            n == 0)


def test_another_seed_is_another_crop(scenes):
    one, two = (LevelCrops(scenes, SPEC, 4, crop_size=64, seed=s)[0][0]
                for s in (0, 1))
    assert not torch.equal(one.channels, two.channels)


def test_many_objects():
    """No more than fit; the others are void, and not the sky."""
    side = 200
    grid = np.arange(5, side, 10)
    truth = disc_truth((side, side), [(x, y, 3, 20, 1) for x in grid
                                      for y in grid])
    o = truth.objects
    table = {'id': o['id'], 'cls': o['cls'], 'x': o['x'], 'y': o['y'],
             'radius': np.full(len(o['id']), 3.0),
             'asked': np.ones(len(o['id']), bool)}
    parts = {name: getattr(truth, name)
             for name in ('labels', 'own_sn', 'owners', 'shares')}
    crop = make_crop(np.random.default_rng(0),
                     np.zeros((5, side, side), np.float32), False,
                     truth.labels, parts, table)
    assert len(o['id']) == 400
    assert len(crop.cls) == MAX_OBJECTS == 300
    n_void = np.count_nonzero(crop.labels.numpy() == -1)
    assert n_void == pytest.approx(100 * 29, rel=0.02)


def test_size(scenes):
    with pytest.raises(ValueError, match='crop_size must be at most the side '
                                         'of the scenes, 112, got 128'):
        LevelCrops(scenes, SPEC, 4, crop_size=128)[0]
