# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
From seeds and dense maps to the pixels of each seed.
"""

import numpy as np

__all__ = ['paint', 'reach_of', 'seed_score', 'seed_window']

#: A seed below ``min_seed`` is used where no other claims its pixel and the
#: probability of the sky there is less than this,
MAX_SKY = 0.1
#: and where its object has a radius of so many pixels of the prediction, and
#: its score, at its own pixel, is so much above that of the sky and of all
#: stronger seeds: the centres of large faint galaxies are told badly, their
#: extent well.
LARGE = 20
CLEAR = 2.0


def seed_window(prediction, k, shape, factor=1.0):
    """
    A box about the ellipse of a seed.

    Parameters
    ----------
    prediction : `~astrodino_seg.prediction.Prediction`
        The network's output.
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
    xx, xy, yy = prediction.matrix[k].astype(float)
    det = max(xx * yy - xy**2, 1e-12)
    reach = 2.5 * np.sqrt(np.array([xx, yy]) / det) + 4      # y, x
    reach = factor * np.stack([reach, reach], axis=1)
    centre = prediction.centre[k][::-1].astype(float)
    seed = np.array([prediction.y[k], prediction.x[k]])
    low = np.minimum(centre - reach[:, 0], seed - 4)
    high = np.maximum(centre + reach[:, 1], seed + 5)
    return tuple(slice(int(max(a, 0)), int(min(b, n)))
                 for a, b, n in zip(low, high, shape))


def reach_of(prediction, k, belongs):
    """
    The box that holds all pixels that matter to a seed.

    Parameters
    ----------
    prediction : `~astrodino_seg.prediction.Prediction`
        The network's output.
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
    (ny, nx), factor = prediction.sky.shape, np.ones((2, 2))
    while True:
        window = ys, xs = seed_window(prediction, k, (ny, nx), factor)
        score = seed_score(prediction, k, window)
        some = belongs(window, score)
        cut_off = np.array([
            [ys.start > 0 and some[0].any(), ys.stop < ny and some[-1].any()],
            [xs.start > 0 and some[:, 0].any(),
             xs.stop < nx and some[:, -1].any()]])
        if not cut_off.any():
            return window, score, some
        factor[cut_off] *= 2


def seed_score(prediction, k, window):
    """
    Score of a seed in a window; see `~astrodino_seg.heads`.

    Parameters
    ----------
    prediction : `~astrodino_seg.prediction.Prediction`
        The network's output.
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
    kernel = prediction.kernel[k]
    match = prediction.embedding[ys, xs] @ kernel[:-1] + kernel[-1]
    x0, y0 = prediction.centre[k]
    vote = prediction.vote[ys, xs]
    dx = vote[..., 0] + (np.arange(xs.start, xs.stop, dtype=np.float32) - x0)
    dy = vote[..., 1] + (np.arange(ys.start, ys.stop, dtype=np.float32)
                         - y0)[:, None]
    xx, xy, yy = prediction.matrix[k]
    q = np.clip(xx * dx**2 + 2 * xy * dx * dy + yy * dy**2, 0, 1e4)
    u, v = prediction.falloff[k]
    # log(1 + q) is many times faster than log1p, and q near 0 is 0 here
    return match - u * np.sqrt(q + 1e-4) - v * np.log(1 + q)


def paint(prediction, mask=None, min_seed=0.0):
    """
    Give each pixel to the seed with the largest score, or to the sky.

    Parameters
    ----------
    prediction : `~astrodino_seg.prediction.Prediction`
        The network's output.
    mask : `~numpy.ndarray`, optional
        (y, x) bool; these pixels stay 0.
    min_seed : float, optional
        Seeds below this probability are used only where there is light that
        no other seed claims (see `MAX_SKY`), or where their object is large
        and its claim much above all others' (see `LARGE`).

    Returns
    -------
    owner : `~numpy.ndarray`
        (y, x) int32: seed index plus one, 0 for the sky.
    """
    best = prediction.sky.copy()
    owner = np.zeros(best.shape, np.int32)
    for k in range(len(prediction.x)):
        if prediction.heat[k] < min_seed and not _is_needed(
                prediction, k, best, owner):
            continue
        window, score, won = reach_of(
            prediction, k, lambda there, score: score > best[there])
        np.copyto(best[window], score, where=won)
        np.copyto(owner[window], k + 1, where=won)
    if mask is not None:
        owner[mask] = 0
    return owner


def _is_needed(prediction, k, best, owner):
    """Whether there is light that would be another's, or nobody's, wrongly."""
    y, x = here = int(prediction.y[k]), int(prediction.x[k])
    if not owner[here] and prediction.probabilities[0][here] <= MAX_SKY:
        return True
    return bool(prediction.radius[k] >= LARGE and seed_score(
        prediction, k, (slice(y, y + 1), slice(x, x + 1)))[0, 0]
        >= best[here] + CLEAR)
