# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What a network says of an image, averaged over the image's flips.
"""

import torch

from astrodino_seg.models.head import STRIDES, Seeds

#: Axes of (..., y, x) that are flipped; the first is the image as it is.
FLIPS = (), (-1,), (-2,), (-2, -1)


def average_maps(maps):
    """
    Heat (image, y, x) and pixels (image, y, x, n), flipped back, and the
    pyramids, as they are, of the maps of the first of `FLIPS`.
    """
    heats, pixels, pyramids = zip(*maps)
    if len(maps) == 1:
        return heats[0], pixels[0], pyramids
    heat, pixel = 0, 0
    for axes, one, many in zip(FLIPS, heats, pixels):
        heat = heat + one.flip(axes)
        many = many.flip([axis - 1 for axis in axes])
        many[..., -2:] *= _signs(axes)      # of the vote
        pixel = pixel + many
    return heat / len(maps), pixel / len(maps), pyramids


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
