# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The convolutions that networks are made of, and reading of their maps.
"""

import torch
from torch import nn

__all__ = ['ConvBlock', 'DetailStream', 'sample']


class ConvBlock(nn.Sequential):
    """Convolution, batch norm, ReLU."""

    def __init__(self, n_in, n_out, *, kernel_size=3, stride=1):
        super().__init__(
            nn.Conv2d(n_in, n_out, kernel_size, stride, kernel_size // 2,
                      bias=False),
            nn.BatchNorm2d(n_out), nn.ReLU(inplace=True))


class DetailStream(nn.Module):
    """
    Convolutions on the image at strides 1, 2, 4, 8 and 16.

    They are called in three steps, ``stem``, `to_half` and `to_coarser`, of
    which the first two see a pixel or two and can be run on parts of an image.

    Parameters
    ----------
    n_in : int
        Channels of the image.
    widths : sequence of int
        Channels at each stride.
    """

    def __init__(self, n_in, widths):
        super().__init__()
        self.stem = ConvBlock(n_in, widths[0])
        self.stages = nn.ModuleList(
            nn.Sequential(ConvBlock(a, b, stride=2), ConvBlock(b, b))
            for a, b in zip(widths, widths[1:]))

    def to_half(self, full):
        """
        The second step.

        Parameters
        ----------
        full : `~torch.Tensor`
            (B, C, H, W) of ``stem``.

        Returns
        -------
        half : `~torch.Tensor`
            (B, C, H/2, W/2), after the first convolution at stride 2.
        """
        return self.stages[0][0](full)

    def to_coarser(self, half):
        """
        The third step.

        Parameters
        ----------
        half : `~torch.Tensor`
            Of `to_half`.

        Returns
        -------
        features : list of `~torch.Tensor`
            At strides 2, 4, 8 and 16, each (B, C, H/s, W/s).
        """
        out = [self.stages[0][1](half)]
        for stage in self.stages[1:]:
            out.append(stage(out[-1]))
        return out


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
