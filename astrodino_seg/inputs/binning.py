# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Binning of images in units of their noise.
"""

import numpy as np
import torch
from torch.nn import functional as F


def oversampling(channels, softening=1.0):
    """
    The binning at which an image has structure from pixel to pixel.

    Takes ``channels`` (C, y, x).
    """
    factor, limit = 1, 0.3
    while min(channels.shape[1:]) >= 128:
        sn = softening * np.sinh(channels[0])
        valid = channels[-1] > 0
        steps = [(sn[:, 1:] - sn[:, :-1])[valid[:, 1:] & valid[:, :-1]],
                 (sn[1:] - sn[:-1])[valid[1:] & valid[:-1]]]
        steps = np.abs(np.concatenate([step[::7] for step in steps]))
        if len(steps) == 0 or 1.4826 * np.median(steps) > limit * 2**0.5:
            break
        channels, factor, limit = bin_channels(channels, 2), 2 * factor, 0.5
    return factor


def bin_channels(channels, factor, n_noise=None):
    """
    Mean S/N of blocks of pixels; the far edges are padded to whole blocks.

    ``channels`` (C, y, x) -> ``channels`` (C, y / factor, x / factor).
    """
    if factor == 1:
        return channels
    n = len(channels)
    last = (n if n_noise is None else n_noise) - 1      # the valid fraction
    ny, nx = (-(-side // factor) for side in channels.shape[1:])
    binned = np.empty((n, ny, nx), np.float32)
    for k, plane in enumerate(channels):
        if k < last:            # sinh, which is made much faster of exp
            plane = np.exp(plane)
            plane = (plane - 1 / plane) / 2
        if plane.shape != (factor * ny, factor * nx):
            plane = np.pad(plane, ((0, -plane.shape[0] % factor),
                                   (0, -plane.shape[1] % factor)),
                           mode='edge')
        plane = torch.from_numpy(np.ascontiguousarray(plane))
        binned[k] = F.avg_pool2d(plane[None], factor)[0].numpy()
    binned[:last] = np.arcsinh(binned[:last])
    return binned
