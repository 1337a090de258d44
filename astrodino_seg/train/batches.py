# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The batches of a pretraining, with the masks of their patches.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset


class Batch(NamedTuple):
    """
    Views of B items.

    global_views (2, B, C, G, G), local_views (n_local, B, C, L, L), mask
    (2, B, gh, gw).
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


N_TRIES = 10    # to place a block before the rest is drawn patch by patch


def block_mask(rng, grid, n_masked, *, min_block=4, min_aspect=0.3):
    """
    Hide an exact number of patches, in blocks.

    Rectangles of random area and aspect are added while they fit into what is
    left to be hidden (Bao et al. 2022, `arXiv:2106.08254
    <https://arxiv.org/abs/2106.08254>`_, Algorithm 1); what then remains is
    drawn patch by patch. All is shifted by a random number of rows and
    columns, around the borders, so that all patches are hidden alike.
    """
    mask = np.zeros(grid, bool)
    limit = math.log(1 / min_aspect)
    n_failed = 0
    while n_failed < N_TRIES and n_masked - mask.sum() >= min_block:
        n_left = n_masked - mask.sum()
        area = rng.uniform(min_block, n_left)
        aspect = math.exp(rng.uniform(-limit, limit))
        height = round(math.sqrt(area * aspect))
        width = round(math.sqrt(area / aspect))
        n_failed += 1
        if not (0 < height <= grid[0] and 0 < width <= grid[1]):
            continue
        top = rng.integers(grid[0] - height + 1)
        left = rng.integers(grid[1] - width + 1)
        block = mask[top:top + height, left:left + width]
        if 0 < (~block).sum() <= n_left:
            block[:] = True
            n_failed = 0
    free = np.flatnonzero(~mask)
    chosen = rng.choice(free, n_masked - mask.sum(), replace=False)
    mask.flat[chosen] = True
    # blocks seldom reach the border: shifted around, no patch is favoured
    return np.roll(mask, rng.integers(grid), axis=(0, 1))


def draw_masks(rng, n_images, grid, *, share=0.5, ratio=(0.1, 0.5)):
    """
    Masks for a batch, some images being left whole.

    As in DINOv2, the masked images' ratios are spread evenly over an interval,
    so that each batch has them all.

    masks (n_images, rows, columns).
    """
    masks = np.zeros((n_images, *grid), bool)
    chosen = rng.permutation(n_images)[:round(share * n_images)]
    edges = np.linspace(*ratio, len(chosen) + 1)
    for i, low, high in zip(chosen, edges, edges[1:]):
        n_masked = round(rng.uniform(low, high) * masks[i].size)
        masks[i] = block_mask(rng, grid, n_masked)
    return masks
