# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Which patches are hidden from the student: blocks, as in BEiT and DINOv2.
"""

import math

import numpy as np

__all__ = ['block_mask', 'draw_masks']

N_TRIES = 10    # to place a block before the rest is drawn patch by patch


def block_mask(rng, grid, n_masked, *, min_block=4, min_aspect=0.3):
    """
    Hide an exact number of patches, in blocks.

    Rectangles of random area and aspect are added while they fit into what is
    left to be hidden (Bao et al. 2022, `arXiv:2106.08254
    <https://arxiv.org/abs/2106.08254>`_, Algorithm 1); what then remains is
    drawn patch by patch. All is shifted by a random number of rows and
    columns, around the borders, so that all patches are hidden alike.

    Parameters
    ----------
    rng : `~numpy.random.Generator`
        Random numbers.
    grid : tuple of int
        Rows and columns of patches.
    n_masked : int
        How many to hide.
    min_block : int, optional
        The least area of a block.
    min_aspect : float, optional
        The least ratio of its sides; the largest is its inverse.

    Returns
    -------
    mask : `~numpy.ndarray`
        Bool array of shape ``grid``, `True` where hidden.
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

    Parameters
    ----------
    rng : `~numpy.random.Generator`
        Random numbers.
    n_images : int
        How many masks to draw.
    grid : tuple of int
        Rows and columns of patches.
    share : float, optional
        The share of the images that have a mask.
    ratio : tuple of float, optional
        The least and the largest share of the patches that are hidden.

    Returns
    -------
    masks : `~numpy.ndarray`
        (n_images, rows, columns) bool, `True` where hidden.
    """
    masks = np.zeros((n_images, *grid), bool)
    chosen = rng.permutation(n_images)[:round(share * n_images)]
    edges = np.linspace(*ratio, len(chosen) + 1)
    for i, low, high in zip(chosen, edges, edges[1:]):
        n_masked = round(rng.uniform(low, high) * masks[i].size)
        masks[i] = block_mask(rng, grid, n_masked)
    return masks
