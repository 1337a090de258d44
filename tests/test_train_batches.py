# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for batches of pretraining and their masks.
"""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pretrain_toys import ToyViews
from scipy.ndimage import label

from astrodino_seg.train.batches import Batches, block_mask, draw_masks

VIEWS = ToyViews(24)


def test_items_of_a_step():
    batch = Batches(VIEWS, 4, 8)[2]             # items 8 to 11
    assert batch.global_views.shape == (2, 4, 5, 32, 32)
    assert batch.local_views.shape == (3, 4, 5, 16, 16)
    assert torch.equal(batch.global_views[1, 3], VIEWS[11].global_views[1])
    assert torch.equal(batch.local_views[2, 0], VIEWS[8].local_views[2])
    assert len(Batches(VIEWS, 4, 8)) == 6


def test_masks():
    batches = Batches(VIEWS, 8, 4, mask_share=0.25, mask_ratio=(0.5, 0.5))
    mask = batches[1].mask
    assert mask.shape == (2, 8, 8, 8)
    assert mask.dtype == torch.bool
    n_masked = mask.sum(dim=(2, 3)).flatten()
    assert sorted(n_masked.tolist()) == [0] * 12 + [32] * 4
    assert torch.equal(batches[1].mask, mask)
    assert not torch.equal(batches[2].mask, mask)
    other = Batches(VIEWS, 8, 4, mask_share=0.25, seed=1)
    assert not torch.equal(other[1].mask, mask)
    assert Batches(VIEWS, 8, 4, mask_share=0)[1].mask is None


@pytest.mark.parametrize(('n_parts', 'n_processes'), [(2, 1), (1, 2), (2, 2)])
def test_parts_and_processes_share_a_batch(n_parts, n_processes):
    whole = Batches(VIEWS, 8, 4)[2]
    shares = [Batches(VIEWS, 8, 4, n_parts=n_parts, rank=rank,
                      n_processes=n_processes)[2 * n_parts + part]
              for part in range(n_parts) for rank in range(n_processes)]
    for name in whole._fields:
        together = torch.cat([getattr(share, name) for share in shares],
                             dim=1)
        assert torch.equal(together, getattr(whole, name))


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
