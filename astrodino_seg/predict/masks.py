# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The pixels of each seed, painted at its own level.
"""

import numpy as np
import torch
from torch.nn import functional as F

#: Share of an object's pixels of a level that makes it whole.
COVERED = 0.6


def seed_window(level, k, shape, factor=1.0):
    """
    A box (y, x) about the ellipse of a seed, ``factor`` times as far; (2, 2)
    of the sides: below and above in y, and in x.
    """
    # d^T M d <= q_max bounds x by sqrt(q_max * (M^-1)_xx)
    xx, xy, yy = level.matrix[k].astype(float)
    det = max(xx * yy - xy**2, 1e-12)
    reach = 2.5 * np.sqrt(np.array([xx, yy]) / det) + 4      # y, x
    reach = factor * np.stack([reach, reach], axis=1)
    centre = level.centre[k][::-1].astype(float)
    seed = np.array([level.y[k], level.x[k]])
    low = np.minimum(centre - reach[:, 0], seed - 4)
    high = np.maximum(centre + reach[:, 1], seed + 5)
    return tuple(slice(int(max(a, 0)), int(min(b, n)))
                 for a, b, n in zip(low, high, shape))


def reach_of(level, k, belongs):
    """
    The box (y, x) that holds all pixels that matter to a seed, its score in
    it, and which of them do, as ``belongs(window, score)`` says.

    A side is moved out until none of its pixels matters.
    """
    (ny, nx), factor = level.sky.shape, np.ones((2, 2))
    while True:
        window = ys, xs = seed_window(level, k, (ny, nx), factor)
        score = seed_score(level, k, window)
        some = belongs(window, score)
        cut_off = np.array([
            [ys.start > 0 and some[0].any(), ys.stop < ny and some[-1].any()],
            [xs.start > 0 and some[:, 0].any(),
             xs.stop < nx and some[:, -1].any()]])
        if not cut_off.any():
            return window, score, some
        factor[cut_off] *= 2


def seed_score(level, k, window):
    """Score (y, x) of a seed in a window; see `astrodino_seg.models.head`."""
    ys, xs = window
    kernel = level.kernel[k]
    match = level.embedding[ys, xs] @ kernel[:-1] + kernel[-1]
    x0, y0 = level.centre[k]
    vote = level.vote[ys, xs]
    dx = vote[..., 0] + (np.arange(xs.start, xs.stop, dtype=np.float32) - x0)
    dy = vote[..., 1] + (np.arange(ys.start, ys.stop, dtype=np.float32)
                         - y0)[:, None]
    q = distance(level.matrix[k], dx, dy)
    u, v = level.falloff[k]
    # log(1 + q) is many times faster than log1p, and q near 0 is 0 here
    return match - u * np.sqrt(q + 1e-4) - v * np.log(1 + q)


def distance(matrix, dx, dy):
    """Elliptical distance squared of offsets, of matrices (..., 3)."""
    xx, xy, yy = matrix.T
    return np.clip(xx * dx**2 + 2 * xy * dx * dy + yy * dy**2, 0, 1e4)


def paint_levels(levels, used, shape):
    """
    Give each pixel, at each level, to the seed with the largest score.

    ``used`` (S,) bool, of the seeds of all levels in turn -> of each level
    with one ``owner`` (y, x) int32 of the image: index of the seed, of all
    levels in turn, plus one; 0 for the rest.
    """
    first = np.cumsum([0, *(len(level.x) for level in levels)])
    for level, start in zip(levels, first):
        seeds = np.flatnonzero(used[start:start + len(level.x)])
        if len(seeds):
            owner = _paint(level, seeds, shape)
            owner[owner > 0] += start
            yield owner


def compose(painted, shape, object_of=None):
    """
    Put the levels together: what the finer leave, the coarser have.

    An object that has most of its pixels of a level already, of finer ones, is
    whole, and gets none of that level and of coarser ones: a binned image
    shows the rest of a small object poorly.

    ``object_of`` (S,) int, -1 is none; each seed is its own object if `None`
    -> ``owner`` (y, x) int32: index of the seed plus one; 0 for the sky.
    """
    owner = np.zeros(shape, np.int32)
    if object_of is None:
        for one in painted:
            np.copyto(owner, one, where=owner == 0)
        return owner
    object_of = np.append(0, object_of + 1)
    whole = np.zeros(object_of.max() + 1, bool)
    for one in painted:
        here = object_of[one]
        area, had = (np.bincount(here[some], minlength=len(whole))
                     for some in (one > 0, here == object_of[owner]))
        whole |= had >= COVERED * np.maximum(area, 1)
        whole[0] = False
        np.copyto(owner, one, where=(owner == 0) & ~whole[here])
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
            wide, big = to_image(window, margin, level.factor, shape)
            out[wide][big > 0] = k + 1
    return out


def to_image(window, values, factor, shape):
    """
    A part (y, x) of a level, interpolated to pixels of an image of a shape:
    its window there, and the values.
    """
    wide = tuple(slice(factor * one.start, min(factor * one.stop, n))
                 for one, n in zip(window, shape))
    big = enlarge(values, factor)
    return wide, big[:wide[0].stop - wide[0].start,
                     :wide[1].stop - wide[1].start]


def enlarge(values, factor):
    """Values (y, x), interpolated to (factor y, factor x)."""
    if factor == 1:
        return values
    return F.interpolate(torch.from_numpy(values)[None, None],
                         scale_factor=factor, mode='bilinear',
                         align_corners=False)[0, 0].numpy()
