# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the network_input module.
"""

import numpy as np
import pytest
import torch
from astropy.coordinates import SkyCoord
from embed_toys import make_backbone, make_images
from helpers import make_wcs
from numpy.testing import assert_allclose, assert_array_equal

from astrodino_seg.embed import cutouts, label_cutouts
from astrodino_seg.embed.dense import Inputs, prepare
from astrodino_seg.image import as_image
from astrodino_seg.inputs.rules import NanomaggyRGB, NoiseUnits, Photographic
from astrodino_seg.models.backbone import check_size

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


@pytest.mark.parametrize('planes', [NoiseUnits(), NanomaggyRGB()])
def test_cutouts_are_normalised_with_their_image(planes):
    image = as_image(make_images(1, shape=(64, 80), n_bands=3)[0],
                     bands='grz')
    labels = np.zeros(image.shape, int)
    labels[10:30, 10:30], labels[20:40, 30:50] = 1, 2
    some = label_cutouts(image, labels, 40, mask_others=True)
    # what is cut off and what is masked is what a masked image has there
    padded = as_image(np.pad(image.cube, ((0, 0), (20, 20), (20, 20)),
                             mode='reflect'),
                      bands='grz', mask=np.pad(np.zeros(image.shape, bool),
                                               20, constant_values=True))
    nothing = planes(padded)[:, :20].reshape(planes.n_planes, -1)
    assert_allclose(nothing, np.broadcast_to(planes.blank[:, None],
                                             nothing.shape), atol=1e-6)
    whole = planes(image)
    # label 1 has its centre at (19.5, 19.5), label 2 at (39.5, 29.5)
    expected = whole[:, :40, :40].copy()
    expected[:, labels[:40, :40] == 2] = planes.blank[:, None]
    assert_array_equal(Inputs(some, planes)[0].x, expected)
    edge = cutouts(image, [(0, 0), (200, 0)], 8)
    got = Inputs(edge, planes)[0].x
    assert_array_equal(got[:, 4:, 4:], whole[:, :4, :4])
    assert_array_equal(got[:, :4, 0], np.repeat(planes.blank[:, None], 4, 1))
    assert Inputs(edge, planes)[1].missing


def test_a_photograph_is_one_of_the_cutout():
    some = cutouts(make_images(1, n_bands=3)[0], [(10, 12)], 16)
    assert_array_equal(Inputs(some, Photographic())[0].x,
                       Photographic()(some[0]))


def test_what_is_known():
    image = as_image(make_images(1)[0], wcs=make_wcs(shape=(32, 40)))
    got = prepare(image, NoiseUnits())
    # the WCS of the helper is centred there
    assert_allclose((got.ra, got.dec), (150, 2), atol=1e-9)
    got = prepare((image, {'object_id': 'a1', 'ra': 7.5}), NoiseUnits())
    assert (got.ra, got.name) == (7.5, 'a1')
    assert_allclose(got.dec, 2, atol=1e-9)
    assert np.isnan(prepare(make_images(1)[0], NoiseUnits()).ra)
    wcs = make_wcs(shape=(32, 40))
    wcs.wcs.ctype = 'ELON-TAN', 'ELAT-TAN'
    got = prepare(as_image(make_images(1)[0], wcs=wcs), NoiseUnits())
    there = SkyCoord(150, 2, unit='deg', frame='barycentricmeanecliptic').icrs
    assert_allclose((got.ra, got.dec), (there.ra.deg, there.dec.deg))


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
    with pytest.raises(ValueError, match=r'images\[1\]: data must be a 2-D'):
        raise Inputs(images, NoiseUnits())[1].error
