# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the network_input module.
"""

import numpy as np
import pytest
import torch
from embed_toys import make_backbone, make_images
from helpers import make_wcs
from numpy.testing import assert_allclose, assert_array_equal

from astrodino_seg.backbones import NoiseUnits, Photographic
from astrodino_seg.image import as_image
from astrodino_seg.network_input import Inputs, check_size, prepare

PICTURE = np.random.default_rng(0).integers(0, 256, (24, 40, 3), np.uint8)


@pytest.mark.parametrize('size', [None, 24, (17, 70)])
def test_as_the_backbone_does(size):
    backbone = make_backbone()
    image = make_images(1, shape=(30, 45))[0]
    got = prepare(image, backbone.planes, size=check_size(size),
                  patch_size=8)
    assert torch.equal(got.x, backbone.input(image, size=size)[0])


def test_photographs():
    # the study's: resized to 224, a tensor, the statistics of ImageNet
    x = prepare(PICTURE, Photographic(), size=(224, 224)).x
    plain = torch.from_numpy(PICTURE / np.float32(255)).permute(2, 0, 1)
    wanted = torch.nn.functional.interpolate(
        plain[None], (224, 224), mode='bilinear', antialias=True)[0]
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    std = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    assert_allclose(x, (wanted - mean) / std, atol=1e-5)


def test_pictures_for_our_weights():
    x = prepare(PICTURE, NoiseUnits()).x
    bands = {'g': PICTURE[..., 2], 'r': PICTURE[..., 1], 'z': PICTURE[..., 0]}
    assert_array_equal(x, NoiseUnits()(as_image(bands)))


def test_pictures_of_a_sequence():
    class Pictures(list):
        def rgb(self, i):
            return PICTURE

    images = Pictures([make_images(1)[0]])
    assert_array_equal(Inputs(images, Photographic())[0].x,
                       Photographic().standardise(PICTURE))
    assert_array_equal(Inputs(images, NoiseUnits())[0].x,
                       NoiseUnits()(as_image(images[0])))


def test_what_is_known():
    image = as_image(make_images(1)[0], wcs=make_wcs(shape=(32, 40)))
    got = prepare(image, NoiseUnits())
    # the WCS of the helper is centred there
    assert_allclose((got.ra, got.dec), (150, 2), atol=1e-9)
    got = prepare((image, {'object_id': 'a1', 'ra': 7.5}), NoiseUnits())
    assert (got.ra, got.name) == (7.5, 'a1')
    assert_allclose(got.dec, 2, atol=1e-9)
    assert np.isnan(prepare(make_images(1)[0], NoiseUnits()).ra)


def test_nothing_to_see():
    assert prepare(None, NoiseUnits()) == (None, *prepare(
        None, NoiseUnits())[1:])
    assert prepare(None, NoiseUnits()).missing
    for planes in (NoiseUnits(), Photographic()):
        got = prepare(np.full((32, 32), 7.0), planes)
        assert got.x is None
        assert not got.missing


@pytest.mark.parametrize('size', [0, (3, -1), 2.5, (1, 2, 3), 'a'])
def test_bad_size(size):
    with pytest.raises(ValueError, match='size must be one or two positive'):
        check_size(size)


def test_errors_name_the_item():
    images = [make_images(1)[0], np.zeros((2, 3, 4, 5))]
    with pytest.raises(ValueError, match=r'images\[1\]: '):
        Inputs(images, NoiseUnits())[1]
