# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the module dense of the probe package.
"""


import numpy as np
import pytest
import torch
from embed_toys import Same, make_backbone, make_images
from numpy.testing import assert_allclose, assert_array_equal

from astrodino_seg.embed import linear_segmentation
from astrodino_seg.embed.dense import SegmentationScore, patch_maps, pca_rgb
from astrodino_seg.truth import pixel_classes


def test_iou_by_hand():
    # 4 of class 0, one called 1; 3 of class 1, one called 0; none of 2; one
    # of 3, called 1
    confusion = [[3, 1, 0, 0], [1, 2, 0, 0], [0, 0, 0, 0], [0, 1, 0, 0]]
    score = SegmentationScore(tuple('abcd'), np.array(confusion))
    assert_allclose(score.iou, [3 / 5, 2 / 5, np.nan, 0])
    assert_allclose(score.miou, 1 / 3)
    assert repr(score).startswith('<SegmentationScore: mIoU 0.333; a 0.600')


def test_iou_as_of_masks():
    rng = np.random.default_rng(0)
    true, called = rng.integers(0, 3, (2, 500))
    confusion = np.bincount(3 * true + called, minlength=9).reshape(3, 3)
    score = SegmentationScore(tuple('abc'), confusion)
    for k, value in enumerate(score.iou):
        a, b = true == k, called == k
        assert_allclose(value, (a & b).sum() / (a | b).sum())


def test_pixel_classes():
    labels = np.array([[0, 2, -1], [7, 7, 2]])
    wanted = [[0, 3, -1], [1, 1, 3]]
    objects = {'id': np.array([2, 7]), 'cls': np.array([3, 1])}
    assert_array_equal(pixel_classes(labels, objects), wanted)
    objects = {'id': np.array([2, 7, 9]),       # 9 owns no pixel
               'cls': np.array([3, 1, 2])}
    assert_array_equal(pixel_classes(labels, objects), wanted)
    nothing = dict.fromkeys(('id', 'cls'), np.zeros(0, int))
    assert not pixel_classes(np.zeros((2, 2), int), nothing).any()


def squares(n, seed):
    """Bright squares on whole patches, and what is where."""
    rng = np.random.default_rng(seed)
    for _ in range(n):
        coarse = rng.integers(0, 2, (2, 2))
        classes = np.kron(coarse, np.ones((32, 32), int))
        noise = 0.3 * rng.normal(size=(64, 64))
        yield (3 * classes - 1 + noise)[None], classes


def test_linear_segmentation():
    backbone = make_backbone(Same())
    before = [p.clone() for p in backbone.vit.parameters()]
    train, test = list(squares(12, 0)), list(squares(5, 1))
    score = linear_segmentation(train, test, backbone, classes=('a', 'b'),
                                n_epochs=30)
    assert score.confusion.sum() == 5 * 64**2
    # all but pixels where neighbouring patches are interpolated
    assert (score.iou > 0.85).all()
    assert all(map(torch.equal, before, backbone.vit.parameters()))
    again = linear_segmentation(iter(train), iter(test), backbone,
                                classes=('a', 'b'), n_epochs=30)
    assert_array_equal(again.confusion, score.confusion)
    # void pixels are neither learned from nor counted
    half = np.zeros((64, 64), bool)
    half[:, 20:] = True
    hidden = [(image, np.where(half, -1, classes)) for image, classes in test]
    few = linear_segmentation(train, hidden, backbone, classes=('a', 'b'),
                              n_epochs=30)
    assert few.confusion.sum() == 5 * 64 * 20
    assert (few.confusion <= score.confusion).all()


def halves(n, seed):
    """Patches with two halves; the class is whether they are alike."""
    rng = np.random.default_rng(seed)
    for _ in range(n):
        left, right = rng.choice([-2, 2], (2, 4, 4))
        pattern = np.repeat(np.stack([left, right], axis=-1).reshape(4, 8),
                            4, axis=1)
        yield (np.repeat(pattern, 8, axis=0)[None].astype(np.float32),
               np.kron(left == right, np.ones((8, 8), int)))


def test_backbone_is_trained():
    """What no linear layer can tell is told if the backbone is trained."""
    backbone = make_backbone(Same())
    before = [p.clone() for p in backbone.vit.parameters()]
    frozen, trained = (linear_segmentation(
        halves(40, 0), halves(20, 1), backbone, classes=('a', 'b'),
        n_epochs=60, rate=5e-3, frozen=value).miou for value in (True, False))
    assert trained > max(0.75, frozen)
    assert all(map(torch.equal, before, backbone.vit.parameters()))


def test_void_is_not_learned_from():
    backbone = make_backbone(Same())
    train = list(squares(6, 0))
    void = [(image, np.where(np.arange(64) < 32, classes, -1))
            for image, classes in train]
    wrong = [(image, np.where(np.arange(64) < 32, classes, 1 - classes))
             for image, classes in train]
    a, b = (linear_segmentation(one, squares(3, 1), backbone, n_epochs=10,
                                classes=('a', 'b')).miou
            for one in (void, wrong))
    assert a > 0.8
    assert b < a


def test_bad_input():
    backbone = make_backbone(Same())
    train = list(squares(2, 0))
    image, classes = train[0]
    with pytest.raises(ValueError, match=r'test\[1\]: classes must be from'):
        linear_segmentation(train, [train[0], (image, classes + 1)], backbone,
                            classes=('a', 'b'), n_epochs=1)
    with pytest.raises(ValueError, match='train must be images of one shape'):
        linear_segmentation([(image, classes), (image[:, :32], classes[:32])],
                            train, backbone)
    wrong = r'train\[0\]: classes have the shape \(32, 64\), the image has'
    with pytest.raises(ValueError, match=wrong):
        linear_segmentation([(image, classes[:32])] * 2, train, backbone)
    with pytest.raises(ValueError, match='got 0 shapes'):
        linear_segmentation([], train, backbone)
    with pytest.raises(ValueError, match=r'images\[0\]: all pixels are'):
        list(patch_maps([np.zeros((1, 16, 16))], backbone))


def test_patch_maps():
    backbone, images = make_backbone(), make_images(2)
    maps = list(patch_maps(images, backbone, size=(16, 24)))
    assert [one.shape for one in maps] == [(16, 2, 3), (16, 2, 3)]
    x = backbone.input(images[1], size=(16, 24))
    assert_allclose(maps[1], backbone.vit.forward_features(
        x).patches[-1][0].detach(), atol=1e-5)


def test_colours():
    decomposition = pytest.importorskip('sklearn.decomposition')
    rng = np.random.default_rng(0)
    scale = np.array([9, 5, 2, 1, .5])[:, None, None]
    maps = [scale * rng.normal(size=(5, 6, 7)) + 3,
            scale * rng.normal(size=(5, 4, 4)) + 3]
    pictures = pca_rgb(maps)
    assert [one.shape for one in pictures] == [(6, 7, 3), (4, 4, 3)]
    tokens = np.concatenate([one.reshape(5, -1).T for one in maps])
    wanted = decomposition.PCA(3).fit_transform(tokens)
    got = np.concatenate([one.reshape(-1, 3) for one in pictures])
    for k in range(3):
        inside = (got[:, k] > 0) & (got[:, k] < 255)
        assert inside.mean() > 0.9
        r = np.corrcoef(got[inside, k], wanted[inside, k])[0, 1]
        assert abs(r) > 0.9999
