# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What a network says of an image, averaged over the image's flips.
"""

from typing import NamedTuple

import torch

from astrodino_seg.models.head import STRIDES, Seeds

#: Axes of (..., y, x) that are flipped; the first is the image as it is.
FLIPS = (), (-1,), (-2,), (-2, -1)


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
