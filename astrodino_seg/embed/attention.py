# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What a Vision Transformer looks at: attention maps, and naive masks of the
patches that hold most of the weight (Caron et al. 2021, arXiv:2104.14294,
figures 1 and 3).
"""

from collections import deque
from dataclasses import dataclass

import numpy as np
import torch
from photutils.segmentation import SegmentationImage
from scipy.ndimage import label

from astrodino_seg.image import Image, as_image
from astrodino_seg.models.load import load_backbone
from astrodino_seg.models.vit import attention_weights

ROWS = 256      # of the attention matrix that a rollout holds at a time


@dataclass(frozen=True, eq=False)
class AttentionMaps:
    """The attention of one token to the patches of an image."""

    #: The image.
    image: Image
    #: (head, gy, gx) float32 weight of each patch. One map if this is a
    #: rollout.
    heads: np.ndarray
    #: (head, P) float32 weight of the CLS and register tokens. All weights of
    #: a head sum to 1.
    prefix: np.ndarray
    #: Whose attention this is.
    name: str

    @property
    def mean(self):
        """The mean of all heads, (gy, gx)."""
        return self.heads.mean(axis=0)

    def upsampled(self):
        """(head, y, x) float32: each pixel with the weight of its patch."""
        return _upsample(self.heads, self.image.shape)

    def masks(self, keep_mass=0.4):
        """(head, y, x) bool: pixels that hold the top share of the weight."""
        return _upsample(top_mass(self.heads, keep_mass), self.image.shape)

    def segmentations(self, keep_mass=0.4):
        """The masks as label maps."""
        return [_labelled(mask) for mask in self.masks(keep_mass)]

    def combined(self, keep_mass=0.4):
        """One label map for all heads: that of their mean."""
        mask = top_mass(self.mean, keep_mass)
        return _labelled(_upsample(mask, self.image.shape))


def attention_maps(data, backbone=None, *, size=None, at=None,
                   use_rollout=False):
    """
    The attention maps of an image.

    Parameters
    ----------
    data : image-like
        What `~astrodino_seg.as_image` takes; any size, any number of bands.
    backbone : `~astrodino_seg.models.Backbone`, str or path, optional
        A backbone, or what `~astrodino_seg.models.load_backbone` takes;
        the bundled one if `None`.
    size : int or tuple of int, optional
        Rows and columns that the network sees the image with, rounded to
        multiples of its patch size; those of the image if `None`. For 28 x 28
        patches of 8 pixels give 224.
    at : tuple of float, optional
        Pixel (x, y): the attention of its patch instead of that of the CLS
        token, which means little in a network that was not trained with one.
    use_rollout : bool, optional
        Whether to follow the attention through all layers instead of taking
        that of the last; see `rollout`.

    Returns
    -------
    maps : `AttentionMaps`
        The weight of each patch in each head.

    Raises
    ------
    ValueError
        If ``at`` is not in the image, ``size`` is not positive, or there is
        nothing in the image.
    """
    image = as_image(data)
    backbone = load_backbone(backbone)
    vit = backbone.vit
    device = vit.cls_token.device
    with torch.inference_mode():
        x = backbone.input(image, size=size).to(device)
        if torch.equal(x, x[..., :1, :1].expand_as(x)):
            msg = 'data: all pixels are masked or equal'
            raise ValueError(msg)
        grid = [n // vit.patch_size for n in x.shape[-2:]]
        token = 0 if at is None else vit.n_prefix + _patch(at, image, grid)
        if use_rollout:
            rows = rollout(vit, x, token)[:, None]              # (1, 1, T)
        else:
            (q, k), = deque(_queries_and_keys(vit, x), maxlen=1)
            rows = attention_weights(q[:, :, [token]], k)[:, :, 0]
    rows = rows[0].float().cpu().numpy()
    return AttentionMaps(
        image, rows[:, vit.n_prefix:].reshape(-1, *grid),
        rows[:, :vit.n_prefix], backbone.name)


def rollout(vit, x, token=0):
    """
    Attention rollout (Abnar & Zuidema 2020, arXiv:2005.00928, section 3): a
    row (B, T) of the product over all layers of ``(W + 1) / 2``, W being the
    mean of the heads. Multiplied from the last layer backwards, a few rows of
    W at a time.
    """
    layers = list(_queries_and_keys(vit, x))
    n_tokens = layers[0][0].shape[2]
    row = x.new_zeros(len(x), n_tokens)
    row[:, token] = 1
    for q, k in reversed(layers):
        mixed = torch.zeros_like(row)
        for start in range(0, n_tokens, ROWS):
            part = slice(start, start + ROWS)
            weights = attention_weights(q[:, :, part], k).mean(dim=1)
            mixed += (row[:, None, part] @ weights)[:, 0]
        row = (row + mixed) / 2
    return row


def top_mass(attention, keep_mass):
    """
    The fewest patches (..., gy, gx) that hold a share of the weight.
    ``keep_mass=0.4``, "the top 40%", is a threshold of 0.6 on the cumulative
    mass; ``--threshold 0.6`` of DINO's ``visualize_attention.py`` is
    ``keep_mass=0.6``.
    """
    if not 0 < keep_mass <= 1:
        msg = f'keep_mass must be above 0 and at most 1, got {keep_mass!r}'
        raise ValueError(msg)
    attention = np.asarray(attention, dtype=float)
    flat = attention.reshape(*attention.shape[:-2], -1)
    total = flat.sum(axis=-1, keepdims=True)
    if not (np.isfinite(flat).all() and (flat >= 0).all()
            and (total > 0).all()):
        msg = 'attention must be finite, not negative, and not all zero'
        raise ValueError(msg)
    order = np.argsort(-flat, axis=-1, kind='stable')
    share = np.take_along_axis(flat, order, axis=-1) / total
    before = np.cumsum(share, axis=-1) - share
    # less than the rounding of any one weight in float32
    kept = before < keep_mass - 1e-9
    mask = np.zeros(flat.shape, bool)
    np.put_along_axis(mask, order, kept, axis=-1)
    return mask.reshape(attention.shape)


def _queries_and_keys(vit, x):
    """Yield what each layer's attention is made of, each (B, h, T, D / h)."""
    tokens, grid = vit.embed(x)
    rope = vit.rotary(grid, tokens)
    for block in vit.blocks:
        q, k, _ = block.attn.split_heads(block.norm1(tokens), rope)
        yield q, k
        tokens = block(tokens, rope)


def _patch(at, image, grid):
    """The index of the patch that holds a pixel."""
    ny, nx = image.shape
    x, y = at
    if not (-0.5 <= x < nx - 0.5 and -0.5 <= y < ny - 0.5):
        msg = f'at must be a pixel (x, y) of an image of {ny} x {nx}, got {at}'
        raise ValueError(msg)
    row, col = (int((v + 0.5) * n_patches / n) for v, n, n_patches in
                ((y, ny, grid[0]), (x, nx, grid[1])))
    return row * grid[1] + col


def _upsample(maps, shape):
    """Nearest neighbours of (..., gy, gx) on (..., y, x)."""
    rows, cols = ((2 * np.arange(n) + 1) * n_patches // (2 * n)
                  for n, n_patches in zip(shape, maps.shape[-2:]))
    return maps[..., rows[:, None], cols]


def _labelled(mask):
    labels, _ = label(mask, np.ones((3, 3)))
    return SegmentationImage(labels.astype(np.int32))
