# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The pixels of each seed, painted at its own level.
"""

import numpy as np
import torch
from torch.nn import functional as F

from astrodino_seg.painting import reach_of

__all__ = ['compose', 'enlarge', 'paint_levels']


def paint_levels(levels, used, shape):
    """
    Give each pixel, at each level, to the seed with the largest score.

    Parameters
    ----------
    levels : list of `~astrodino_seg.predict.pyramid.Level`
        The finest first.
    used : `~numpy.ndarray`
        (S,) bool, of the seeds of all levels in turn: which take part.
    shape : tuple of int
        (ny, nx) of the image.

    Yields
    ------
    owner : `~numpy.ndarray`
        (y, x) int32 of the image, of each level, the coarsest first: index
        of the seed, of all levels in turn, plus one; 0 for the rest.
    """
    first = np.cumsum([0, *(len(level.x) for level in levels)])
    for level, start in reversed(list(zip(levels, first))):
        seeds = np.flatnonzero(used[start:start + len(level.x)])
        if len(seeds):
            owner = _paint(level, seeds, shape)
            owner[owner > 0] += start
            yield owner


def compose(painted, shape):
    """
    Put the levels together: what the finer leave, the coarser have.

    Parameters
    ----------
    painted : iterable of `~numpy.ndarray`
        Of `paint_levels`.
    shape : tuple of int
        (ny, nx) of the image.

    Returns
    -------
    owner : `~numpy.ndarray`
        (y, x) int32: index of the seed plus one; 0 for the sky.
    """
    owner = np.zeros(shape, np.int32)
    for one in painted:
        np.copyto(owner, one, where=one > 0)
    return owner


def _paint(level, seeds, shape):
    """(y, x) of the image: index of the level's seed plus one, or 0."""
    best = level.sky.copy()
    second = np.full(best.shape, -np.inf, np.float32)
    owner = np.zeros(best.shape, np.int32)
    boxes = {}
    for k in seeds:
        window, score, won = reach_of(
            level, k, lambda there, score: score > best[there])
        boxes[k] = window, score
        top = best[window]
        np.maximum(second[window], np.where(won, top, score),
                   out=second[window])
        np.copyto(top, score, where=won)
        np.copyto(owner[window], k + 1, where=won)
    if level.factor == 1:
        return owner
    out = np.zeros(shape, np.int32)
    for k, (window, score) in boxes.items():
        own = owner[window] == k + 1
        if own.any():
            margin = np.where(own, best[window] - second[window],
                              score - best[window])
            ys, xs = (slice(level.factor * one.start, level.factor * one.stop)
                      for one in window)
            part = out[ys, xs]          # which ends where the image does
            big = enlarge(margin, level.factor)
            part[big[:part.shape[0], :part.shape[1]] > 0] = k + 1
    return out


def enlarge(values, factor):
    """
    Interpolate a part of a level to the pixels of the image.

    Parameters
    ----------
    values : `~numpy.ndarray`
        (y, x) float32.
    factor : int
        Pixels of the image, in x and in y.

    Returns
    -------
    values : `~numpy.ndarray`
        (factor y, factor x).
    """
    if factor == 1:
        return values
    return F.interpolate(torch.from_numpy(values)[None, None],
                         scale_factor=factor, mode='bilinear',
                         align_corners=False)[0, 0].numpy()
