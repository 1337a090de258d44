# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The batches of a pretraining, with the masks of their patches.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from astrodino_seg.pretrain.masking import draw_masks

__all__ = ['Batch', 'Batches']


class Batch(NamedTuple):
    """
    Views of B items.

    Attributes
    ----------
    global_views : `~torch.Tensor`
        (2, B, C, G, G) float32.
    local_views : `~torch.Tensor`
        (n_local, B, C, L, L) float32.
    mask : `~torch.Tensor` or `None`
        (2, B, gh, gw) bool: the patches that are hidden.
    """

    global_views: torch.Tensor
    local_views: torch.Tensor
    mask: torch.Tensor | None


class Batches(Dataset):
    """
    What each step is done with: item ``step * n_parts + part``.

    It depends on the step and the seed alone. The items and masks of a step
    are the same for any number of processes and parts, which only share them
    out.

    Parameters
    ----------
    views : `~torch.utils.data.Dataset`
        `~astrodino_seg.pretrain.data.Views`, one after the other.
    batch_size : int
        Items a step, of all processes and parts.
    patch_size : int
        Side of the patches that are masked.
    n_parts : int, optional
        Parts that the step of one process is done in.
    mask_share : float, optional
        Share of the global views with a mask; none is drawn if 0.
    mask_ratio : tuple of float, optional
        Range of the share of patches that are hidden in these.
    rank, n_processes : int, optional
        Which of how many processes this is.
    seed : int, optional
        Seed of the masks.
    """

    def __init__(self, views, batch_size, patch_size, *, n_parts=1,
                 mask_share=0.5, mask_ratio=(0.1, 0.5), rank=0,
                 n_processes=1, seed=0):
        self.views = views
        self.batch_size = batch_size
        self.patch_size = patch_size
        self.n_parts = n_parts
        self.mask_share, self.mask_ratio = mask_share, mask_ratio
        self.rank, self.n_processes = rank, n_processes
        self.seed = seed

    def __len__(self):
        return len(self.views) // self.batch_size * self.n_parts

    def __getitem__(self, index):
        step, part = divmod(index, self.n_parts)
        size = self.batch_size // (self.n_parts * self.n_processes)
        first = (part * self.n_processes + self.rank) * size
        items = [self.views[step * self.batch_size + i]
                 for i in range(first, first + size)]
        both, local = (torch.stack(views, dim=1) for views in zip(*items))
        mask = None
        if self.mask_share:
            rng = np.random.default_rng([self.seed, 2, step])
            grid = [n // self.patch_size for n in both.shape[-2:]]
            masks = draw_masks(rng, 2 * self.batch_size, grid,
                               share=self.mask_share, ratio=self.mask_ratio)
            masks = masks.reshape(2, self.batch_size, *grid)
            mask = torch.from_numpy(masks[:, first:first + size].copy())
        return Batch(both, local, mask)
