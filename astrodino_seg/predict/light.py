# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What the image itself shows at seeds and between them.

How deep the valley between two is tells touching objects; how the colours and
the concentration of each differ from its surroundings and from the other's
tells a star from a knot. Shapes in comments: ``S`` seeds, ``P`` pairs.
"""

import torch
from torch.nn import functional as F

#: Sides in pixels of the means that a seed's looks are made of.
SCALES = (3, 5, 9, 17)
#: Samples of the line between two seeds.
N_SAMPLES = 17
#: Seeds whose surroundings are in memory at a time.
CHUNK = 20_000


def _sample(maps, x, y):
    """Bilinear values of (C, H, W) maps at positions of any shape."""
    h, w = maps.shape[-2:]
    grid = torch.stack([(2 * x + 1) / w - 1, (2 * y + 1) / h - 1], dim=-1)
    return F.grid_sample(maps[None], grid.reshape(1, 1, -1, 2),
                         padding_mode='border',
                         align_corners=False)[0, :, 0].reshape(
                             len(maps), *x.shape)


def seed_looks(channels, x, y):
    """
    Means of the channels of S/N about each seed, on several scales.

    Takes ``channels`` (C, H, W), x, y (S,).
    """
    reach = max(SCALES) // 2
    step = torch.arange(-reach, reach + 1)
    ny, nx = channels.shape[1:]
    out = []
    for xs, ys in zip(x.round().long().split(CHUNK),
                      y.round().long().split(CHUNK)):
        rows = (ys[:, None] + step).clamp(0, ny - 1)
        columns = (xs[:, None] + step).clamp(0, nx - 1)
        patch = channels[:-1, rows[:, :, None], columns[:, None]]
        means = []
        for side in SCALES:
            cut = slice(reach - side // 2, reach + side // 2 + 1)
            means.append(patch[..., cut, cut].mean(dim=(-2, -1)))  # (C-1, S)
        means = [means[0], *(b - a for a, b in zip(means, means[1:]))]
        out.append(torch.cat(means).T)
    return torch.cat(out)


def valleys(channels, x, y, i, j):
    """
    The light along the straight lines between seeds.

    ``channels`` (C, H, W), x, y (S,), i, j (P,) -> ``valleys`` (P, 3).
    """
    smooth = F.avg_pool2d(channels[None, :1], 3, 1, 1,
                          count_include_pad=False)[0]
    t = torch.linspace(0, 1, N_SAMPLES)[:, None]
    line = _sample(smooth, x[i] * (1 - t) + x[j] * t,
                   y[i] * (1 - t) + y[j] * t)[0]              # (17, P)
    low, high = torch.minimum(line[0], line[-1]), torch.maximum(
        line[0], line[-1])
    return torch.stack([line.amin(dim=0) - low, line.mean(dim=0) - low,
                        high - low], dim=-1)
