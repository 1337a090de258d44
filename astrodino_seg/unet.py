# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The control: a U-Net in the place of the ViT.

What the ViT is worth is told by a model that has convolutions in its place,
takes the same time, and is otherwise the same: head, losses, scenes, steps.
"""

import torch
from torch import nn
from torch.nn import functional as F

from astrodino_seg.convolutions import ConvBlock

__all__ = ['UNet']


class UNet(nn.Module):
    """
    Convolutions from the image down to stride 64 and back up to stride 16.

    The U-Net of `Ronneberger, Fischer & Brox (2015)
    <https://arxiv.org/abs/1505.04597>`_, with strided convolutions and batch
    norm. Where it ends, `~astrodino_seg.heads.GroupingHead` goes on up to
    full resolution.

    Parameters
    ----------
    in_channels : int
        Channels of the image.
    dim : int, optional
        Channels of the output.
    widths : sequence of int, optional
        Channels at strides 2, 4, 8, 16, 32 and 64.
    n_blocks : sequence of int, optional
        Convolutions at each of these strides on the way down. One more
        follows at strides 32 and 16 on the way up.
    """

    def __init__(self, *, in_channels, dim=192,
                 widths=(32, 64, 128, 160, 192, 224),
                 n_blocks=(2, 4, 4, 4, 2, 2)):
        super().__init__()
        self.dim = dim
        self.down = nn.ModuleList(
            nn.Sequential(ConvBlock(a, b, stride=2),
                          *(ConvBlock(b, b) for _ in range(n - 1)))
            for a, b, n in zip((in_channels, *widths), widths, n_blocks))
        self.up = nn.ModuleList(
            ConvBlock(widths[i] + widths[i + 1], widths[i]) for i in (4, 3))
        self.out = nn.Conv2d(widths[3], dim, 1)

    def forward(self, x):
        """
        From an image to features.

        Parameters
        ----------
        x : `~torch.Tensor`
            (B, in_channels, H, W), sides multiples of 16.

        Returns
        -------
        features : `~torch.Tensor`
            (B, dim, H/16, W/16).
        """
        levels = []
        for stage in self.down:
            x = stage(x)
            levels.append(x)
        for skip, block in zip((levels[4], levels[3]), self.up):
            x = F.interpolate(x, size=skip.shape[-2:], mode='bilinear',
                              align_corners=False)
            x = block(torch.cat([skip, x], dim=1))
        return self.out(x)
