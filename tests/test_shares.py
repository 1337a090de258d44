# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the shares of the light of pixels.
"""

from dataclasses import replace

import numpy as np
import pytest
from level_toys import make_level
from numpy.testing import assert_allclose, assert_array_equal
from scipy.ndimage import zoom

from astrodino_seg import DinoSegmenter
from astrodino_seg.datasets import demo_image
from astrodino_seg.image import Image
from astrodino_seg.predict.instances import decode
from astrodino_seg.predict.masks import FAINT, FluxShares, share_flux


def decoded(levels, merge=0, same=()):
    """All seeds, the pairs of ``same`` joined."""
    n = sum(len(level.x) for level in levels)
    shape = tuple(levels[0].factor * side for side in levels[0].sky.shape)
    found = decode(levels, None, shape, n_pixels=1)
    assert len(found.seed_of) == n
    label = found.seed_label.copy()
    groups = found.groups.copy()
    for a, b in same:
        groups[groups == label[b]] = label[a]
        label[b] = label[a]
    return replace(found, groups=groups, seed_label=label)


def by_hand(levels, grouping, power):
    """Shares of the objects in float64, at all levels of factor 1 and 2."""
    shape = grouping.groups.shape
    n = grouping.seed_label.max()
    out, left, first = np.zeros((n + 1, *shape)), np.ones(shape), 0
    for level in levels:
        y, x = np.mgrid[:level.sky.shape[0], :level.sky.shape[1]]
        odds = []
        for k, (cx, cy) in enumerate(level.centre):
            u, v = level.falloff[k]
            q = ((x - cx)**2 + (y - cy)**2) * level.matrix[k, 0]
            score = level.kernel[k, 2] - u * np.sqrt(q) - v * np.log1p(q)
            if level.factor > 1:
                score = zoom(score, level.factor, order=1, mode='nearest',
                             grid_mode=True)
            odds.append(np.exp(power * score))
        total = 1 + sum(odds)
        for k, one in enumerate(odds):
            out[grouping.seed_label[first + k]] += left * one / total
        left = left / total
        first += len(odds)
    out[0] = 0
    return np.where(grouping.groups > 0, out / out.sum(axis=0), 0)


LEVELS = [make_level(1, (64, 80), [(24, 24), (38, 24), (32, 38), (60, 40)],
                     [8, 6, 7, 5]),
          make_level(2, (32, 40), [(20, 16)], 12)]


@pytest.mark.parametrize('power', [1.0, 0.5])
@pytest.mark.parametrize('levels', [LEVELS[:1], LEVELS])
def test_softmax_of_the_scores(levels, power):
    """
    Brute force over all pixels, two of the objects being one. What is so
    faint beside the rest that its box may end before it is not counted, nor
    is a fourth object in a pixel.
    """
    grouping = decoded(levels, same=[(0, 2)])
    found = share_flux(levels, grouping, power=power)
    wanted = by_hand(levels, grouping, power)
    for label in range(1, len(wanted)):
        assert_allclose(found.of(label), wanted[label],
                        atol=2 * np.exp(-power * FAINT) + .01)
    assert_allclose(found.shares.sum(axis=0), grouping.groups > 0, atol=1e-5)
    assert (np.diff(found.shares, axis=0) <= 0).all()
    assert ((found.labels > 0) == (found.shares > 0)).all()


def test_symmetric_pair_shares_evenly():
    """Two equal seeds: one half each on the line between them."""
    levels = [make_level(1, (21, 31), [(11, 10), (19, 10)], 8, height=6)]
    grouping = decoded(levels)
    shares = share_flux(levels, grouping)
    left, right = (shares.of(grouping.groups[10, x]) for x in (11, 19))
    assert_allclose(left, right[:, ::-1], atol=1e-6)
    assert_allclose(left[10, 15], 0.5, atol=1e-6)
    assert left[10, 8] > 0.8


def test_star_on_a_galaxy():
    """What a finer level explains is not the coarser's."""
    levels = [make_level(1, (64, 80), [(40, 32)], 3, height=5),
              make_level(2, (32, 40), [(20, 16)], 12, height=9)]
    grouping = decoded(levels)
    star = share_flux(levels, grouping).of(grouping.groups[32, 40])
    assert star[32, 40] > 0.98
    assert star[32, 55] < 0.01


def test_pixels_that_no_score_explains():
    """What a label has beyond all scores is all its own."""
    levels = [make_level(1, (40, 60), [(20, 20), (48, 20)], [6, 4])]
    grouping = decoded(levels)
    grouping.groups[:5, :5] = grouping.groups[20, 20]
    share = share_flux(levels, grouping).of(grouping.groups[20, 20])
    assert (share[:5, :5] == 1).all()


def test_objects_without_seeds():
    levels = [make_level(1, (9, 9), [], 1)]
    grouping = decoded(levels)
    assert (share_flux(levels, grouping).shares == 0).all()
    with pytest.raises(ValueError, match='grouping: its objects have no'):
        share_flux(levels, replace(grouping, seed_label=None))
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
        # NaN in a band that never saw the object
        assert_array_equal(np.isnan(split), np.isnan(label))
        assert_allclose(np.nansum(split), np.nansum(label), rtol=1e-4)


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


def test_split_flux_must_be_bool():
    with pytest.raises(ValueError, match='split_flux must be a bool, got 1'):
        DinoSegmenter(split_flux=1).segment(np.zeros((64, 64)))
