# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What a pretraining is fed with: images of several sources, and the batches that
are made of their views, with the masks of their patches.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from astrodino_seg.simulate import observe

N_TRIES = 10    # to place a block before the rest is drawn patch by patch


class Batch(NamedTuple):
    """
    Views of B items: (2, B, C, G, G), (n_local, B, C, L, L), and a mask (2, B,
    gh, gw).
    """

    global_views: torch.Tensor
    local_views: torch.Tensor
    mask: torch.Tensor | None


class Batches(Dataset):
    """
    What each step is done with: item ``step * n_parts + part``, which depends
    on the step and the seed alone. Processes and parts only share it out.
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


def block_mask(rng, grid, n_masked, *, min_block=4, min_aspect=0.3):
    """
    Hide an exact number of patches, in rectangles of random area and aspect as
    long as they fit (Bao et al. 2022, arXiv:2106.08254, Algorithm 1), and what
    then remains patch by patch.
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
    Masks (n_images, rows, columns) for a batch, some images being left whole;
    the others' ratios are spread evenly over an interval, as in DINOv2.
    """
    masks = np.zeros((n_images, *grid), bool)
    chosen = rng.permutation(n_images)[:round(share * n_images)]
    edges = np.linspace(*ratio, len(chosen) + 1)
    for i, low, high in zip(chosen, edges, edges[1:]):
        n_masked = round(rng.uniform(low, high) * masks[i].size)
        masks[i] = block_mask(rng, grid, n_masked)
    return masks


class ObservedScenes(Sequence):
    """Simulated scenes as images: each is observed once, always alike."""

    def __init__(self, scenes, *, seed=0):
        self.scenes = scenes
        self.seed = seed

    def __len__(self):
        return len(self.scenes)

    def __getitem__(self, index):
        if not 0 <= index < len(self):
            msg = f'index must be in [0, {len(self)}), got {index!r}'
            raise IndexError(msg)
        return observe(self.scenes[index], [self.seed, index])[0]

    @property
    def shapes(self):
        """The shape (ny, nx) of each."""
        if hasattr(self.scenes, 'size'):
            return [(self.scenes.size, self.scenes.size)] * len(self)
        return [scene.cube.shape[1:] for scene in self.scenes]


class Mixture(Sequence):
    """Several sequences of images as one, each with its share of the items."""

    def __init__(self, sources, shares=None):
        self.sources = list(sources)
        self.lengths = [len(source) for source in self.sources]
        shares = self.lengths if shares is None else list(shares)
        if not self.sources or 0 in self.lengths:
            msg = (f'sources must have one image or more each, got '
                   f'{self.lengths}')
            raise ValueError(msg)
        if len(shares) != len(self.sources) or not min(shares) > 0:
            msg = (f'shares must be {len(self.sources)} positive numbers, '
                   f'one a source, got {shares}')
            raise ValueError(msg)
        self.ends = list(accumulate(self.lengths))
        #: For each image, the share of the items that is to come from it.
        self.weights = np.repeat(np.divide(shares, self.lengths),
                                 self.lengths) / np.sum(shares)

    def __len__(self):
        return self.ends[-1]

    def __getitem__(self, index):
        if not 0 <= index < len(self):
            msg = f'index must be in [0, {len(self)}), got {index!r}'
            raise IndexError(msg)
        k = bisect_right(self.ends, index)
        return self.sources[k][index - self.ends[k] + self.lengths[k]]


def check_images(images, global_size):
    """Check that views can be made of images."""
    if not (hasattr(images, '__len__') and hasattr(images, '__getitem__')):
        msg = (f'images must be a sequence, for example a list, got '
               f'{type(images).__name__}')
        raise TypeError(msg)
    if not len(images):
        msg = 'images is empty'
        raise ValueError(msg)
    bad = [f'{name} {problem}' for name, problem in _problems(
        images, global_size, 'images')]
    if bad:
        more = f', and {len(bad) - 5} more' if len(bad) > 5 else ''
        msg = (f'{len(bad)} of {len(images)} images cannot be used: '
               + ', '.join(bad[:5]) + more)
        raise ValueError(msg)


def _problems(images, global_size, label):
    """Yield the name of each image that cannot be used, and why."""
    if isinstance(images, Mixture):
        for k, source in enumerate(images.sources):
            yield from _problems(source, global_size, f'sources[{k}]')
        return
    shapes = getattr(images, 'shapes', None)
    paths = getattr(images, 'paths', None)
    for k in range(len(images)):
        name = f'{label}[{k}]' if paths is None else str(paths[k])
        image = images[k] if shapes is None else None
        if image is not None and not hasattr(image, 'cube'):
            msg = (f'{name} must be an Image, which as_image makes, got '
                   f'{type(image).__name__}')
            raise TypeError(msg)
        shape = image.shape if shapes is None else shapes[k]
        if min(shape) < global_size:
            yield name, (f'has {shape[0]} x {shape[1]} pixels, less than '
                         f'global_size={global_size}')
        elif image is not None:
            good = [band[~bad] for band, bad in zip(image.cube, image.mask)]
            if not any(map(len, good)):
                yield name, 'has no valid pixel'
            elif not any(len(v) and np.ptp(v) > 0 for v in good):
                yield name, 'is constant'
