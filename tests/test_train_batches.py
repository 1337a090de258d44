# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for batches of pretraining.
"""

import pytest
import torch
from pretrain_toys import ToyViews

from astrodino_seg.train.batches import Batches

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
