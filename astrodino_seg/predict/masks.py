# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The pixels of each seed, painted at its own level.
"""

import numpy as np
import torch
from torch.nn import functional as F

__all__ = ['compose', 'enlarge', 'paint_levels', 'reach_of', 'seed_score',
           'to_image']

#: Share of an object's pixels of a level that makes it whole.
COVERED = 0.6


def seed_window(level, k, shape, factor=1.0):
    """
    A box about the ellipse of a seed.

    Parameters
    ----------
    level : `~astrodino_seg.predict.pyramid.Level`
        What the network says.
    k : int
        The seed.
    shape : tuple of int
        (ny, nx) of the image.
    factor : float or `~numpy.ndarray`, optional
        The box reaches so many times as far; (2, 2) of the sides: below and
        above in y, and in x.

    Returns
    -------
    window : tuple of slice
        (y, x).
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
    The box that holds all pixels that matter to a seed.

    Parameters
    ----------
    level : `~astrodino_seg.predict.pyramid.Level`
        What the network says.
    k : int
        The seed.
    belongs : callable
        Takes a window, a tuple of slice (y, x), and the seed's score in it;
        returns (y, x) bool, the pixels that matter.

    Returns
    -------
    window : tuple of slice
        (y, x). A side is moved out until none of its pixels matters.
    score : `~numpy.ndarray`
        (y, x) float32 of the window, of `seed_score`.
    some : `~numpy.ndarray`
        (y, x) bool, what ``belongs`` says of it.
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
    """
    Score of a seed in a window; see `~astrodino_seg.models.head`.

    Parameters
    ----------
    level : `~astrodino_seg.predict.pyramid.Level`
        What the network says.
    k : int
        The seed.
    window : tuple of slice
        (y, x).

    Returns
    -------
    score : `~numpy.ndarray`
        (y, x) float32 of the window.
    """
    ys, xs = window
    kernel = level.kernel[k]
    match = level.embedding[ys, xs] @ kernel[:-1] + kernel[-1]
    x0, y0 = level.centre[k]
    vote = level.vote[ys, xs]
    dx = vote[..., 0] + (np.arange(xs.start, xs.stop, dtype=np.float32) - x0)
    dy = vote[..., 1] + (np.arange(ys.start, ys.stop, dtype=np.float32)
                         - y0)[:, None]
    xx, xy, yy = level.matrix[k]
    q = np.clip(xx * dx**2 + 2 * xy * dx * dy + yy * dy**2, 0, 1e4)
    u, v = level.falloff[k]
    # log(1 + q) is many times faster than log1p, and q near 0 is 0 here
    return match - u * np.sqrt(q + 1e-4) - v * np.log(1 + q)


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
        (y, x) int32 of the image, of each level, the finest first: index
        of the seed, of all levels in turn, plus one; 0 for the rest.
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

    An object that has most of its pixels of a level already, of finer ones,
    is whole, and gets none of that level and of coarser ones: a binned image
    shows the rest of a small object poorly.

    Parameters
    ----------
    painted : iterable of `~numpy.ndarray`
        Of `paint_levels`.
    shape : tuple of int
        (ny, nx) of the image.
    object_of : `~numpy.ndarray`, optional
        (S,) int, the object of each seed; -1 is none. Each is its own if
        `None`.

    Returns
    -------
    owner : `~numpy.ndarray`
        (y, x) int32: index of the seed plus one; 0 for the sky.
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
    A part of a level in the pixels of the image.

    Parameters
    ----------
    window : tuple of slice
        (y, x) of the level.
    values : `~numpy.ndarray`
        (y, x) float32, in it.
    factor : int
        Pixels of the image, in x and in y.
    shape : tuple of int
        (ny, nx) of the image, beyond which nothing is.

    Returns
    -------
    window : tuple of slice
        (y, x) of the image.
    values : `~numpy.ndarray`
        (y, x) float32, interpolated.
    """
    wide = tuple(slice(factor * one.start, min(factor * one.stop, n))
                 for one, n in zip(window, shape))
    big = enlarge(values, factor)
    return wide, big[:wide[0].stop - wide[0].start,
                     :wide[1].stop - wide[1].start]


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
