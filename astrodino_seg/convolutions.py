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
    Convolutions on the image at strides 1, 2, 4, 8 and 16, in three steps.

    The first two see a few pixels, so that they can be run on parts of an
    image.
    """

    def __init__(self, n_in, widths):
        super().__init__()
        self.stem = ConvBlock(n_in, widths[0])
        self.stages = nn.ModuleList(
            nn.Sequential(ConvBlock(a, b, stride=2), ConvBlock(b, b))
            for a, b in zip(widths, widths[1:]))

    def full(self, x):
        """From the image (B, C, H, W) to features at stride 1."""
        return self.stem(x)

    def half(self, full):
        """Those at stride 2, before the second convolution there."""
        return self.stages[0][0](full)

    def coarser(self, half):
        """A list of those at strides 2, 4, 8 and 16."""
        out = [self.stages[0][1](half)]
        for stage in self.stages[1:]:
            out.append(stage(out[-1]))
        return out


def sample(level, x, y):
    """
    Bilinear values (S, C) of a map (C, h, w), of any dtype, at pixels (S,);
    beyond its border they are those of the border.
    """
    out = 0
    low = [torch.floor(p) for p in (y, x)]
    part = [p - a for p, a in zip((y, x), low)]
    for dy in (0, 1):
        for dx in (0, 1):
            row, column = ((a + d).long().clamp(0, n - 1) for a, d, n in zip(
                low, (dy, dx), level.shape[1:]))
            weight = ((part[0] if dy else 1 - part[0])
                      * (part[1] if dx else 1 - part[1]))
            corner = level.permute(1, 2, 0)[row, column].float()
            out = out + weight[:, None] * corner
    return out
