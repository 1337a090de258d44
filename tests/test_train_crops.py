# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests of the crops of the pyramid's levels.
"""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from level_toys import disc_truth
from scipy.ndimage import gaussian_filter

from astrodino_seg.image import Image
from astrodino_seg.inputs.channels import (
    PreprocessSpec,
    bin_channels,
    normalise,
)
from astrodino_seg.simulate import make_scene
from astrodino_seg.train import as_labelled
from astrodino_seg.train.crops import MAX_OBJECTS, Window, make_crop
from astrodino_seg.train.data import ClassCrops, LevelCrops, planes_of_level

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


def test_light_on_correlated_noise():
    """An object is as bright beside its sky as above a known one."""
    image = noise_image(n=256)
    smooth = gaussian_filter(image.cube, (0, 1, 1))
    y, x = np.mgrid[:256, :256]
    light = np.repeat(100 * np.exp(-(((x - 90)**2 + (y - 70)**2) / 50))[None],
                      2, axis=0).astype(np.float32)
    both = Image(smooth + light, image.mask, bands=image.bands)
    blind, known = (np.sinh(planes_of_level(both, SPEC, 1.0, one)[0, 70, 90])
                    for one in (None, light))
    assert blind == pytest.approx(known, rel=0.1)
    # sums over 4 x 4 pixels have the noise that they would have if white
    sky = np.sinh(planes_of_level(both, SPEC, 1.0, light)[0])[:, 128:]
    sums = sky.reshape(64, 4, 32, 4).sum(axis=(1, 3)) / 4
    assert sums.std() == pytest.approx(1, rel=0.1)


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


# --------------------------------------------------------------- windows

@settings(deadline=None, max_examples=30)
@given(st.integers(0, 7), st.integers(0, 8), st.integers(0, 8))
def test_points_go_with_the_pixels(turn, x, y):
    marked = np.zeros((2, 14, 12))
    marked[:, y + 4, x + 2] = 1
    window = Window((2, 4), 9, turn)
    new = window.points(x + 2, y + 4)
    found, = np.argwhere(window.cut(marked)[1])
    np.testing.assert_array_equal(found, new[::-1])


def test_eight_turns():
    image = np.arange(9).reshape(3, 3)
    assert len({Window((0, 0), 3, k).cut(image).tobytes()
                for k in range(8)}) == 8


# -------------------------------------------------------- labelled images

def labelled(discs, side=208, classes=None):
    """An image of discs, and labels that reach further than the light."""
    y, x = np.mgrid[:side, :side]
    image = np.random.default_rng(0).normal(size=(2, side, side))
    labels = np.zeros((side, side), int)
    for k, (cx, cy, radius) in enumerate(discs, start=1):
        r = np.hypot(x - cx, y - cy)
        image += 30 * np.exp(-r**2 / (2 * (radius / 3)**2))
        labels[r <= radius] = k
    return as_labelled(image, labels, classes=classes)


def test_labelled_images_are_really_binned():
    """
    What is asked is the labels to their edge: small objects in the image,
    large ones in the binned image, whose pixels are means.
    """
    one = labelled([(50, 60, 6), (130, 120, 34)], classes='galaxy')
    data = LevelCrops([one], SPEC, 30, crop_size=96)
    plain, binned = zip(*(data[k] for k in range(30)))
    assert {crop.channels.shape for crop in plain} == {(5, 96, 96)}
    assert {crop.channels.shape[1] for crop in binned} == {96, 48}
    assert {crop.binned for crop in plain} == {0}
    assert {crop.binned for crop in binned} == {1}
    seen = set()
    for crops, factors in ((plain, (1,)), (binned, (2, 4))):
        for crop in crops:
            x, y = crop.seed_xy.long().T
            assert torch.equal(crop.labels[y, x], crop.seed_object + 1)
            b = factors[0] if crop.labels.shape[0] == 96 else factors[1]
            for k in range(len(crop.cls)):
                radius = float(crop.log_size[k].exp())
                seen.add((b, round(radius * b)))
                assert crop.cls[k] == 2
                # the light is there
                cx, cy = crop.centre[k].round().long().tolist()
                if crop.asked[k] and min(cx, cy) > 3 and (
                        max(cx, cy) < len(crop.labels) - 3):
                    assert crop.channels[0, cy, cx] > 2
    assert {r for b, r in seen if b == 1} == {6}
    assert {r for b, r in seen if b == 2} == {34}
    # of pixels of the binned image, 8.5 are too few
    assert {r for b, r in seen if b == 4} == set()


def test_binned_pixels_are_means():
    """A crop as large as the binned image is the binned image, turned."""
    one = labelled([(50, 45, 32)], side=96)
    crop = LevelCrops([one], SPEC, 1, crop_size=96)[0][1]
    channels = normalise(one.image, SPEC,
                         objects=one.truth.labels > 0).channels
    wanted = bin_channels(channels, 2)
    found = crop.channels.numpy()
    assert found.shape == wanted.shape == (5, 48, 48)
    turns = [Window((0, 0), 48, k) for k in range(8)]
    turn, = (t for t in turns if np.array_equal(t.cut(wanted), found))
    labels = one.truth.labels[1::2, 1::2]
    np.testing.assert_array_equal(turn.cut(labels), crop.labels)
    o = one.truth.objects
    assert np.hypot(*(crop.centre[0].numpy() - np.ravel(turn.points(
        (o['x'] + .5) / 2 - .5, (o['y'] + .5) / 2 - .5)))) < 1e-4
    assert np.hypot(*(crop.centre[0].numpy() - np.array(np.nonzero(
        crop.labels.numpy() == 1))[::-1].mean(axis=1))) < 1


def test_small_images_are_not_binned():
    one = labelled([(30, 30, 8)], side=80)
    crop, = LevelCrops([one], SPEC, 1, crop_size=80)[0]
    assert crop.binned == 0


# -------------------------------------------------------- classes of pixels

def test_class_crops():
    """The classes of the labels, turned as the image is."""
    one = labelled([(30, 40, 12), (70, 70, 9)], side=96,
                   classes={1: 'star'})
    one.truth.labels[:, 80:] = -1
    seen = set()
    data = ClassCrops([one], lambda image: normalise(image, SPEC).channels,
                      6, crop_size=48)
    for k in range(len(data)):
        for crop, again in zip(data[k], data[k]):
            assert torch.equal(crop.classes, again.classes)
            assert crop.channels.shape == (5, 48, 48)
            assert crop.classes.shape == (48, 48)
            seen |= set(crop.classes.unique().tolist())
            bright = crop.channels[0] > 2.5
            assert (crop.classes[bright] != 0).all()
    assert seen == {-1, 0, 1, 4}


def test_semantic_cutout_has_its_truth():
    """An image that is cut about a large galaxy goes with its labels."""
    one = labelled([(60, 50, 20)], side=128, classes='galaxy')
    data = ClassCrops([one], lambda image: normalise(image, SPEC).channels,
                      40, crop_size=96)
    for k in range(40):
        for crop in data[k]:
            galaxy = crop.classes == 2
            assert crop.channels[0][galaxy].mean() > 1 + crop.channels[0][
                ~galaxy].mean()
