# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Binning of oversampled images, and the way back.

The model has seen PSFs of 1.5 to 8 pixels; an image resampled to much finer
pixels is binned for the network, and its maps are interpolated back.
"""

import numpy as np
import torch
from torch.nn import functional as F

__all__ = ['bin_channels', 'oversampling', 'unbin_prediction']


def oversampling(channels):
    """
    The binning at which an image has structure from pixel to pixel.

    Parameters
    ----------
    channels : `~numpy.ndarray`
        (C, y, x) of `~astrodino_seg.preprocess.normalise`.

    Returns
    -------
    factor : int
        1 unless neighbouring pixels differ by less than 0.3 times the
        noise, which none of the simulated scenes do; else the power of 2
        that makes it more than 0.5, and leaves 64 pixels a side.
    """
    factor, limit = 1, 0.3
    while min(channels.shape[1:]) >= 128:
        sn = np.sinh(channels[0])
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

    Parameters
    ----------
    channels : `~numpy.ndarray`
        (C, y, x) of `~astrodino_seg.preprocess.normalise`, and perhaps other
        planes after these, of which the mean is taken as they are.
    factor : int
        Side of the blocks.
    n_noise : int, optional
        The number of the former; all if `None`.

    Returns
    -------
    channels : `~numpy.ndarray`
        (C, y / factor, x / factor), rounded up.
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


def unbin_prediction(prediction, factor, shape):
    """
    A binned image's prediction in the pixels of the image itself.

    Parameters
    ----------
    prediction : `~astrodino_seg.prediction.Prediction`
        Of the binned image.
    factor : int
        Side of the blocks.
    shape : tuple of int
        (ny, nx) of the image.

    Returns
    -------
    prediction : `~astrodino_seg.prediction.Prediction`
        Maps interpolated, positions and sizes scaled.
    """
    if factor == 1:
        return prediction

    def enlarge(array):                # (C, y, x)
        big = F.interpolate(torch.from_numpy(array)[None], mode='bilinear',
                            scale_factor=factor, align_corners=False)[0]
        return big[:, :shape[0], :shape[1]].numpy()

    def enlarge_last(array):           # (y, x, C)
        array = np.ascontiguousarray(np.moveaxis(array, -1, 0))
        return np.moveaxis(enlarge(array), 0, -1)

    def move(position):                # pixel centres are at integers
        return factor * (position + 0.5) - 0.5

    last = np.array(shape[::-1], np.float32) - 1
    return prediction._replace(
        embedding=enlarge_last(prediction.embedding),
        vote=enlarge_last(prediction.vote) * factor,
        sky=enlarge(prediction.sky[None])[0],
        probabilities=enlarge(prediction.probabilities),
        x=np.minimum(move(prediction.x), last[0]),
        y=np.minimum(move(prediction.y), last[1]),
        centre=move(prediction.centre),
        matrix=prediction.matrix / factor**2,
        radius=prediction.radius * factor)
