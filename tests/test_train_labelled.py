# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for a user's labels as the truth of an image.
"""

import numpy as np
import pytest
from astropy.table import Table
from numpy.testing import assert_allclose, assert_array_equal
from photutils.segmentation import SegmentationImage
from test_train import make_scene

from astrodino_seg.image import Image, as_image, write_label_map
from astrodino_seg.simulate import observe
from astrodino_seg.train import LabelledImage, as_labelled


def drawn():
    """An image of three Gaussians, and labels that are not consecutive."""
    y, x = np.mgrid[:64, :80]
    labels = np.zeros((64, 80), np.int32)
    image = np.random.default_rng(0).normal(size=(2, 64, 80))
    for label, (cx, cy) in {7: (20, 30), 3: (60.5, 15), 900: (50, 50)}.items():
        r2 = (x - cx)**2 + (y - cy)**2
        image += 40 * np.exp(-r2 / 18)
        labels[r2 < 81] = label
    return image, labels


def test_objects():
    image, labels = drawn()
    one = as_labelled(image, labels, classes={3: 'star', 900: 'galaxy'})
    truth = one.truth
    assert isinstance(one, LabelledImage)
    assert isinstance(one.image, Image)
    assert truth.labels.dtype == np.int32
    for new, old in ((1, 3), (2, 7), (3, 900)):
        assert_array_equal(truth.labels == new, labels == old)
    assert_array_equal(truth.objects['id'], [1, 2, 3])
    assert_array_equal(truth.objects['cls'], [1, 4, 2])
    assert_allclose(truth.objects['x'], [60.5, 20, 50], atol=0.1)
    assert_allclose(truth.objects['y'], [15, 30, 50], atol=0.1)
    assert_array_equal(truth.objects['n_pixels'],
                       [(labels == k).sum() for k in (3, 7, 900)])
    assert not truth.objects['primary'].any()
    assert truth.own_sn[30, 20] > 10 * truth.own_sn[30, 28]
    assert not truth.own_sn[labels == 0].any()


@pytest.mark.parametrize('form', ['array', 'photutils', 'file', 'big-endian'])
def test_forms_of_labels(tmp_path, form):
    image, labels = drawn()
    given = {'array': labels, 'photutils': SegmentationImage(labels),
             'file': tmp_path / 'labels.fits',
             'big-endian': labels.astype('>i8')}[form]
    write_label_map(tmp_path / 'labels.fits', labels, as_image(image))
    assert_array_equal(as_labelled(image, given).truth.labels,
                       as_labelled(image, labels).truth.labels)


def test_forms_of_classes():
    image, labels = drawn()
    table = Table({'label': [7, 3], 'class': ['artifact', 'star']})
    for classes, wanted in (
            (None, [4, 4, 4]), ('galaxy', [2, 2, 2]), (table, [1, 3, 4]),
            ({900: 'star'}, [4, 4, 1])):
        truth = as_labelled(image, labels, classes=classes).truth
        assert_array_equal(truth.objects['cls'], wanted)


def test_void():
    image, labels = drawn()
    image[:, 60:] = np.nan              # no band has these
    image[0, :5] = np.nan
    labels[10, 70:] = -3
    void = np.zeros(labels.shape, bool)
    void[:, :3] = True
    truth = as_labelled(image, labels, void=void).truth
    wanted = void | (labels < 0)
    wanted[60:] = True
    assert_array_equal(truth.labels < 0, wanted)
    truth = as_labelled(image, labels, void=void, partial=True).truth
    assert_array_equal(truth.labels < 0, wanted | (labels == 0))
    assert (truth.labels > 0).any()


@pytest.mark.parametrize(('change', 'error', 'match'), [
    ({'labels': np.zeros((64, 81), int)}, ValueError,
     r'labels must have the shape \(64, 80\), got \(64, 81\)'),
    ({'labels': np.zeros((64, 80))}, TypeError, 'labels must be int'),
    ({'classes': 'planet'}, ValueError, r"classes\['all'\] .*got 'planet'"),
    ({'classes': {3: 'sky'}}, ValueError, r'classes\[3\] must be one of'),
    ({'void': np.zeros((64, 80))}, ValueError, 'void must be bool'),
    ({'image': 3 * [None]}, TypeError, 'data')])
def test_bad_labels(change, error, match):
    image, labels = drawn()
    with pytest.raises(error, match=match):
        as_labelled(**{'image': image, 'labels': labels, **change})


def test_no_labels():
    truth = as_labelled(drawn()[0], np.zeros((64, 80), int)).truth
    assert all(len(column) == 0 for column in truth.objects.values())
    assert (truth.labels == 0).all()


def test_close_to_the_truth_of_a_simulation():
    """Centres and sizes as the simulation knows them."""
    quiet = dict.fromkeys(['trail', 'cosmic_ray', 'gap', 'stripes',
                           'correlated_noise'], 0)
    off, n = [], 0
    for k in range(6):
        image, truth = observe(make_scene(k), k, depth=3, rates=quiet)
        found = as_labelled(image, truth.labels).truth
        assert_array_equal(found.labels > 0, truth.labels > 0)
        assert_array_equal(found.labels < 0, truth.labels < 0)
        for i, x, y in zip(*(truth.objects[c] for c in ['id', 'x', 'y'])):
            here = truth.labels == i
            if here.sum() < 12:
                continue
            new = found.labels[here][0] - 1
            radius = np.sqrt(here.sum() / np.pi)
            off.append(np.hypot(found.objects['x'][new] - x,
                                found.objects['y'][new] - y) / radius)
            assert found.objects['n_pixels'][new] == here.sum()
            n += 1
    assert n > 20
    assert np.median(off) < 0.2
