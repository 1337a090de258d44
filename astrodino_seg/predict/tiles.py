# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Overlapping tiles of an image, and its flips; and what a network says of these,
put together.
"""

from typing import NamedTuple

import numpy as np
import torch

from astrodino_seg.models.head import STRIDES, Seeds

STEP = max(STRIDES)
#: Half the overlap of the tiles that a transformer runs on, pixels.
CONTEXT = 48
#: Side of the tiles: that of the crops of training, since a transformer that
#: sees more than it ever has finds less.
TILE_SIZE = 256
#: Axes of (..., y, x) that are flipped; the first is the image as it is.
FLIPS = (), (-1,), (-2,), (-2, -1)


class Tile(NamedTuple):
    """One tile, as slices (y, x)."""

    #: What is read, in the image.
    outer: tuple
    #: What is kept, in the image; the cores cover it once.
    core: tuple
    #: The core, in the tile.
    inner: tuple


def _cuts(n, size, margin, step):
    """(start, stop, core start, core stop) along one axis, evenly spread."""
    n_tiles = 1 if n <= size else -(-n // (size - 2 * margin))
    length = -(-n // n_tiles // step) * step
    starts = range(0, n, length)
    return [(max(start - margin, 0), min(start + length + margin, n),
             start, min(start + length, n)) for start in starts]


def tiles(shape, *, size=TILE_SIZE, margin=CONTEXT, step=16):
    """Cut an image into overlapping tiles whose cores cover it once."""
    if size < 2 * margin + step or size % step or margin % step:
        msg = (f'size and margin must be multiples of {step}, and size at '
               f'least 2 * margin + {step} = {2 * margin + step}, got '
               f'size={size!r}, margin={margin!r}')
        raise ValueError(msg)
    out = []
    for ys in _cuts(shape[0], size, margin, step):
        for xs in _cuts(shape[1], size, margin, step):
            out.append(Tile(
                tuple(slice(c[0], c[1]) for c in (ys, xs)),
                tuple(slice(c[2], c[3]) for c in (ys, xs)),
                tuple(slice(c[2] - c[0], c[3] - c[0]) for c in (ys, xs))))
    return out


def taper(tile, shape, *, step=16):
    """
    Weight (rows, columns) float32 of each cell of a tile in the average with
    its neighbours.

    The weight falls linearly to the tile's edge over twice its margin, but not
    at the image's own edge, so that maps which depend on the whole tile pass
    smoothly from one to the next.
    """
    axes = []
    for outer, core, n in zip(tile.outer, tile.core, shape):
        n_cells = (outer.stop - outer.start) // step
        cell = np.arange(n_cells) + 0.5
        weight = np.ones(n_cells)
        if outer.start > 0:
            ramp = 2 * (core.start - outer.start) // step
            weight = np.minimum(weight, cell / max(ramp, 1))
        if outer.stop < n:
            ramp = 2 * (outer.stop - core.stop) // step
            weight = np.minimum(weight, (n_cells - cell) / max(ramp, 1))
        axes.append(weight)
    return np.outer(*axes).astype(np.float32)


def blend(parts, shape, step):
    """
    Maps (..., rows, columns) of cells of ``step`` pixels, of an image of a
    shape, from pairs of a tile and its map, averaged where tiles overlap.
    """
    cells = [n // step for n in shape]
    total, weights = 0, torch.zeros(cells)
    for tile, part in parts:
        if isinstance(total, int):
            total = torch.zeros(*part.shape[:-2], *cells)
        weight = torch.from_numpy(taper(tile, shape, step=step))
        where = cells_of(tile.outer, step)
        total[..., *where] += weight * part
        weights[where] += weight
    return total / weights


def cells_of(slices, step=STEP):
    """Slices of pixels as slices of cells."""
    return tuple(slice(c.start // step, c.stop // step) for c in slices)


class Maps(NamedTuple):
    """
    What the network says of the pixels of images, as of
    `~astrodino_seg.models.head.InstanceHead.split_pixels`; `None` are those
    that were not asked for.
    """

    #: (image, y, x).
    heat: torch.Tensor | None
    rest: torch.Tensor | None
    #: (image, y, x, n).
    embedding: torch.Tensor | None
    vote: torch.Tensor | None
    #: (image, y, x, class), in memory as (image, class, y, x).
    classes: torch.Tensor | None


def average_maps(maps):
    """`Maps`, flipped back, of those of the first of `FLIPS`."""
    if len(maps) == 1:
        return maps[0]
    total = [0] * len(Maps._fields)
    for axes, one in zip(FLIPS, maps):
        axes_of = [axes] * 2 + [[axis - 1 for axis in axes]] * 3
        flipped = Maps(*(None if part is None else part.flip(where)
                         for part, where in zip(one, axes_of)))
        if flipped.vote is not None:
            flipped.vote.mul_(_signs(axes))
        total = [part if part is None else so_far + part
                 for so_far, part in zip(total, flipped)]
    return Maps(*(part if part is None else part / len(maps)
                  for part in total))


def average_seeds(head, pyramids, x, y):
    """`Seeds` on the CPU at (S,) pixels, of the pyramids of the flips."""
    last = STRIDES[0] * torch.tensor(pyramids[0][0].shape[:0:-1],
                                     device=x.device) - 1
    place, seeds = torch.stack([x, y], dim=-1), []
    for axes, pyramid in zip(FLIPS, pyramids):
        sign = _signs(axes).to(x.device)
        offset = (sign < 0) * last          # flips are their own inverse
        one = head.read_seeds(pyramid, *(sign * place + offset).unbind(-1))
        seeds.append(one._replace(
            centre=sign * one.centre + offset,
            matrix=one.matrix * torch.stack([sign[0]**2, sign.prod(),
                                             sign[1]**2])))
    return Seeds(*((sum(parts) / len(parts)).cpu() for parts in zip(*seeds)))


def _signs(axes):
    """-1 where an axis is flipped, in x and in y."""
    return torch.tensor([-1.0 if axis in axes else 1.0 for axis in (-1, -2)])
