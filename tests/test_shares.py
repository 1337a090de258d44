# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the shares of the light of pixels.
"""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from test_grouping import all_scores, prediction

from astrodino_seg import DinoSegmenter
from astrodino_seg.datasets import demo_image
from astrodino_seg.grouping import segment_maps
from astrodino_seg.image import Image
from astrodino_seg.joining import Giants
from astrodino_seg.shares import FAINT, FluxShares, share_flux


def by_hand(pred, grouping, power):
    """(n + 1, y, x) softmax of the three best objects, in float64."""
    scores = all_scores(pred)
    n = len(grouping.seed_of)
    best = np.full((n + 1, *scores.shape[1:]), -np.inf)
    for score, label in zip(scores, grouping.seed_label):
        if label:
            best[label] = np.maximum(best[label], score)
    third = np.sort(best, axis=0)[-3:][0]
    p = np.where(best >= third, np.exp(power * (best - best.max(axis=0))), 0)
    p /= p.sum(axis=0)
    return np.where(grouping.groups > 0, p, 0)


@pytest.mark.parametrize('power', [1.0, 0.5])
def test_softmax_of_the_scores(power):
    """
    Four objects, one of two seeds: brute force over all pixels. What is so
    faint beside the sky that its box may end before it is not counted.
    """
    seeds = [{'x': 12, 'y': 12, 'radius': 5}, {'x': 20, 'y': 12, 'radius': 3},
             {'x': 16, 'y': 19, 'radius': 4}, {'x': 24, 'y': 20, 'bias': 4.},
             {'x': 27.2, 'y': 11, 'radius': 6}]
    pred = prediction((32, 40), seeds, pairs=[[0, 2]], same=[0.9])
    grouping = segment_maps(pred, merge=0.5, n_pixels=1)
    assert len(grouping.seed_of) == 4
    assert grouping.seed_label[0] == grouping.seed_label[2]
    found = share_flux(pred, grouping, power=power)
    wanted = by_hand(pred, grouping, power)
    for label in range(1, 5):
        assert_allclose(found.of(label), wanted[label],
                        atol=np.exp(-power * FAINT))
    assert_allclose(found.shares.sum(axis=0), grouping.groups > 0, atol=1e-6)
    assert (np.diff(found.shares, axis=0) <= 0).all()
    assert ((found.labels > 0) == (found.shares > 0)).all()


def test_symmetric_pair_shares_evenly():
    """Two equal seeds: one half each on the line between them."""
    pred = prediction((21, 31), [{'x': 11, 'y': 10, 'bias': 6},
                                 {'x': 19, 'y': 10, 'bias': 6}])
    grouping = segment_maps(pred, n_pixels=1)
    shares = share_flux(pred, grouping)
    left, right = (shares.of(grouping.groups[10, x]) for x in (11, 19))
    assert_allclose(left, right[:, ::-1], atol=1e-6)
    assert_allclose(left[10, 15], 0.5, atol=1e-6)
    assert left[10, 8] > 0.9


def test_wide_objects_are_not_cut_off():
    """One that reaches beyond its ellipse, over a neighbour far away."""
    wide = {'x': 20, 'y': 20, 'radius': 3.0, 'bias': 9.0,
            'falloff': (0.0, 2.0)}
    small = {'x': 52, 'y': 20, 'radius': 3.0, 'bias': 3.0}
    pred = prediction((41, 70), [wide, small], sky=-1.0)
    grouping = segment_maps(pred, n_pixels=1)
    found = share_flux(pred, grouping).of(grouping.groups[20, 20])
    wanted = by_hand(pred, grouping, 1.0)[grouping.groups[20, 20]]
    assert wanted[20, 50] > 0.05
    assert_allclose(found, wanted, atol=np.exp(-FAINT))


def test_pixels_that_no_score_explains():
    """What a label was given by filling is all its own, beside a star too."""
    pred = prediction((41, 61), [{'x': 20, 'y': 20, 'radius': 8.0},
                                 {'x': 38, 'y': 20, 'radius': 3.0}])
    giants = np.zeros((41, 61), np.int32)
    giants[5:36, 5:36] = 1
    grouping = segment_maps(pred, n_pixels=1, giants=[Giants(giants, 4)])
    own = grouping.groups == grouping.groups[20, 20]
    filled = own & (all_scores(pred)[0] < 0)
    assert filled.sum() > 500
    assert filled[20, 34]                  # where the star is nearer
    share = share_flux(pred, grouping).of(grouping.groups[20, 20])
    assert (share[filled] == 1).all()


def test_objects_without_seeds():
    pred = prediction((9, 9), [])
    grouping = segment_maps(pred)
    assert (share_flux(pred, grouping).shares == 0).all()
    with pytest.raises(ValueError, match='grouping: its objects have no'):
        share_flux(pred, replace(grouping, seed_label=None))
    with pytest.raises(ValueError, match='split_flux=True needs a model'):
        DinoSegmenter(split_flux=True, model='linear_tiny').segment(
            np.zeros((64, 64)))


@pytest.mark.parametrize('options', [{}, {'bin_factor': 2}])
def test_bands_with_gaps(options):
    """What a band does not see has no part in its fluxes."""
    image = demo_image()
    mask = image.mask.copy()
    mask[1, 60:90] = True
    image = Image(image.cube, mask, bands=image.bands, unit=image.unit)
    result = DinoSegmenter(split_flux=True, **options).segment(image)
    for band in image.bands:
        split, label = (result.table[f'{kind}_{band}'] for kind in
                        ('split_flux', 'flux'))
        assert np.isfinite(split).all()
        assert_allclose(split.sum(), label.sum(), rtol=1e-4)


def test_totals():
    labels = np.array([[[1, 2]], [[2, 0]], [[0, 0]]], np.int32)
    parts = np.array([[[.75, 1]], [[.25, 0]], [[0, 0]]], np.float32)
    shares = FluxShares(labels, parts)
    values = np.array([[8., 10.]])
    assert_allclose(shares.total(values, 3), [6, 12, 0])
    assert_allclose(shares.total(values, 3, power=2), [4.5, 10.5, 0])


def test_demo():
    """Labels do not change; nothing is lost; the table says how much."""
    image = demo_image()
    plain = DinoSegmenter().segment(image)
    result = DinoSegmenter(split_flux=True).segment(image)
    assert plain.shares is None
    assert 'split_flux_r' not in plain.table.colnames
    groups = result.segmentation_image.data
    assert_array_equal(groups, plain.segmentation_image.data)
    total = result.shares.shares.sum(axis=0)
    assert_allclose(total, groups > 0, atol=1e-5)
    for band, plane, back, noise in zip(
            image.bands, image.cube, result.background, result.noise):
        split, label = (result.table[f'{kind}_{band}']
                        for kind in ('split_flux', 'flux'))
        assert_allclose(split.sum(), label.sum(), rtol=1e-4)
        row = len(split) // 2
        share = result.shares.of(row + 1)
        good = np.isfinite(noise)
        assert_allclose(split[row], (share * (plane - back))[good].sum(),
                        rtol=1e-3)
        error = np.sqrt(((share * noise)[good]**2).sum())
        assert_allclose(result.table[f'split_flux_err_{band}'][row], error,
                        rtol=1e-3)


def test_split_flux_must_be_bool():
    with pytest.raises(ValueError, match='split_flux must be a bool, got 1'):
        DinoSegmenter(split_flux=1).segment(np.zeros((64, 64)))
