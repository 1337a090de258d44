# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The convolutions that networks are made of, and reading of their maps.
"""

import torch
from torch import nn

__all__ = ['N_CLASSES', 'STRIDES', 'ConvBlock', 'sample']

STRIDES = (2, 4, 8, 16)     # of the maps that seeds are read from
N_CLASSES = 4               # sky, star, galaxy, artifact


class ConvBlock(nn.Sequential):
    """Convolution, batch norm, ReLU."""

    def __init__(self, n_in, n_out, *, kernel_size=3, stride=1):
        super().__init__(
            nn.Conv2d(n_in, n_out, kernel_size, stride, kernel_size // 2,
                      bias=False),
            nn.BatchNorm2d(n_out), nn.ReLU(inplace=True))


def sample(level, x, y):
    """
    Bilinear values of a map; beyond its border they are those of the border.

    Parameters
    ----------
    level : `~torch.Tensor`
        (C, h, w), of any dtype.
    x, y : `~torch.Tensor`
        (S,) positions in cells of the map.

    Returns
    -------
    values : `~torch.Tensor`
        (S, C) float32.
    """
    low = [torch.floor(p) for p in (y, x)]
    part = [p - a for p, a in zip((y, x), low)]
    weights, rows, columns = [], [], []
    for dy in (0, 1):
        for dx in (0, 1):
            row, column = ((a + d).long().clamp(0, n - 1) for a, d, n in zip(
                low, (dy, dx), level.shape[1:]))
            weights.append((part[0] if dy else 1 - part[0])
                           * (part[1] if dx else 1 - part[1]))
            rows.append(row)
            columns.append(column)
    # all corners at once: each reading has a gradient as large as the map
    corners = level.permute(1, 2, 0)[torch.stack(rows), torch.stack(columns)]
    return (torch.stack(weights)[..., None] * corners.float()).sum(dim=0)
