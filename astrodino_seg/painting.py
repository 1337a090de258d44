# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
From seeds and dense maps to the pixels of each seed.
"""

import numpy as np

__all__ = ['WIDTHS', 'is_cut_off', 'paint', 'seed_score', 'seed_window']

#: A seed below ``min_seed`` is used where no other claims its pixel and the
#: probability of the sky there is less than this.
MAX_SKY = 0.1
#: How many times as wide windows are made until nothing is cut off.
WIDTHS = (1, 2, 4, 16, 256)


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
    factor : float, optional
        The box is so many times as wide.

    Returns
    -------
    window : tuple of slice
        (y, x).
    """
    # d^T M d <= q_max bounds x by sqrt(q_max * (M^-1)_xx)
    xx, xy, yy = prediction.matrix[k].astype(float)
    det = max(xx * yy - xy**2, 1e-12)
    reach = 2.5 * np.sqrt(np.array([xx, yy]) / det) + 4      # y, x
    reach = np.minimum(factor * reach, max(shape))
    centre = prediction.centre[k][::-1].astype(float)
    seed = np.array([prediction.y[k], prediction.x[k]])
    low = np.minimum(centre - reach, seed - 4)
    high = np.maximum(centre + reach, seed + 5)
    return tuple(slice(int(max(a, 0)), int(min(b, n)))
                 for a, b, n in zip(low, high, shape))


def is_cut_off(won, window, shape):
    """
    Whether a window is too small.

    Parameters
    ----------
    won : `~numpy.ndarray`
        (y, x) bool: pixels of the window that matter.
    window : tuple of slice
        (y, x).
    shape : tuple of int
        (ny, nx) of the image.

    Returns
    -------
    is_cut_off : bool
        Whether there are any at a side that is not the image's.
    """
    (ys, xs), (ny, nx) = window, shape
    return ((ys.start > 0 and won[0].any())
            or (ys.stop < ny and won[-1].any())
            or (xs.start > 0 and won[:, 0].any())
            or (xs.stop < nx and won[:, -1].any()))


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
    return match - u * np.sqrt(q + 1e-4) - v * np.log1p(q)


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
        no other seed claims (see `MAX_SKY`).

    Returns
    -------
    owner : `~numpy.ndarray`
        (y, x) int32: seed index plus one, 0 for the sky.
    """
    best = prediction.sky.copy()
    owner = np.zeros(best.shape, np.int32)
    for k in range(len(prediction.x)):
        if prediction.heat[k] < min_seed:
            here = int(prediction.y[k]), int(prediction.x[k])
            if owner[here] or prediction.probabilities[0][here] > MAX_SKY:
                continue
        for factor in WIDTHS:
            window = seed_window(prediction, k, best.shape, factor)
            score = seed_score(prediction, k, window)
            won = score > best[window]
            if not is_cut_off(won, window, best.shape):
                break
        best[window][won] = score[won]
        owner[window][won] = k + 1
    if mask is not None:
        owner[mask] = 0
    return owner
