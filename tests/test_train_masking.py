# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for masking of pretraining.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import label

from astrodino_seg.train.batches import block_mask, draw_masks


@given(st.integers(1, 12), st.integers(1, 12), st.floats(0, 1),
       st.integers(0, 999))
def test_block_mask_has_the_number(rows, columns, share, seed):
    n_masked = int(share * rows * columns)
    mask = block_mask(np.random.default_rng(seed), (rows, columns), n_masked)
    assert mask.shape == (rows, columns)
    assert mask.dtype == bool
    assert mask.sum() == n_masked


def test_block_mask_is_in_blocks():
    # far fewer pieces than patches drawn one by one would make
    pieces, scattered = [], []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        pieces.append(label(block_mask(rng, (14, 14), 60))[1])
        alone = np.zeros(14 * 14, bool)
        alone[rng.permutation(14 * 14)[:60]] = True
        scattered.append(label(alone.reshape(14, 14))[1])
    assert np.mean(pieces) < 0.5 * np.mean(scattered)


def test_block_mask_hides_all_patches_alike():
    total = sum(block_mask(np.random.default_rng(seed), (6, 8), 12)
                for seed in range(400))
    assert total.mean() == 100
    assert np.abs(total - 100).max() < 40           # 4.6 sigma


def test_draw_masks():
    masks = draw_masks(np.random.default_rng(0), 40, (10, 10), share=0.5,
                       ratio=(0.1, 0.5))
    ratios = np.sort(masks.mean(axis=(1, 2)))
    assert masks.shape == (40, 10, 10)
    assert (ratios[:20] == 0).all()
    # the k-th of 20 has a ratio from the k-th part of the interval
    edges = np.linspace(0.1, 0.5, 21)
    assert (ratios[20:] >= edges[:-1] - 0.005).all()
    assert (ratios[20:] <= edges[1:] + 0.005).all()


def test_draw_masks_by_seed():
    one, two, other = (draw_masks(np.random.default_rng(seed), 8, (4, 6))
                       for seed in (1, 1, 2))
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize(('share', 'n_masked'), [(0, 0), (0.25, 2), (1, 8)])
def test_share(share, n_masked):
    masks = draw_masks(np.random.default_rng(0), 8, (4, 4), share=share)
    assert masks.any(axis=(1, 2)).sum() == n_masked
