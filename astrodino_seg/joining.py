# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Objects that are joined by where they lie, whatever their seeds look like.

What a look at the binned image shows as one giant galaxy is one; and what lies
in pieces here and there in a galaxy is part of it.
"""

from typing import NamedTuple

import numpy as np
from scipy.ndimage import binary_dilation, find_objects
from scipy.ndimage import label as label_components

__all__ = ['Giants', 'fill_giants', 'join_in_giants', 'join_scattered']

#: Share of an object within a giant that makes it a piece of it, and the
#: least binned pixels of a piece.
PIECE_SHARE = 0.8
PIECE_PIXELS = 16
#: Share of a giant that the object must have which the rest of it is given to.
FILL_SHARE = 0.2
#: Pieces of an object that is part of the one they lie in, and the share of
#: its pixels that they have at most.
SCATTERED = 4
SCATTERED_SHARE = 0.2
#: Neighbours of a pixel.
EIGHT = np.ones((3, 3), int)


class Giants(NamedTuple):
    """
    Giant galaxies that a look at the binned image has shown.

    Attributes
    ----------
    labels : `~numpy.ndarray`
        (y, x) int, in pixels of the image; 0 is none.
    factor : int
        Pixels, in x and in y, that were binned.
    """

    labels: np.ndarray
    factor: int


def join_in_giants(leader, labels, giants, is_star):
    """
    Join what a look at the binned image saw as one giant galaxy.

    An object is a piece of a giant if `PIECE_SHARE` of its pixels lie in it,
    unless it is a star or so small that the binned image could not show it
    (below `PIECE_PIXELS`).

    Parameters
    ----------
    leader : `~numpy.ndarray`
        (S,) of `~astrodino_seg.grouping.group_seeds`.
    labels : `~numpy.ndarray`
        (y, x) int: leader plus one of each pixel's object, 0 for the sky.
    giants : `Giants`
        The giants.
    is_star : `~numpy.ndarray`
        (S,) bool.

    Returns
    -------
    leader : `~numpy.ndarray`
        (S,); a giant is led by its largest piece.
    """
    giant, factor = giants
    n, n_giants = len(leader), int(giant.max(initial=0))
    shared = np.bincount(labels.ravel() * (n_giants + 1) + giant.ravel(),
                         minlength=(n + 1) * (n_giants + 1))
    shared = shared.reshape(n + 1, n_giants + 1)[1:]
    area = shared.sum(axis=1)
    piece = ((shared >= PIECE_SHARE * area[:, None])
             & (area >= PIECE_PIXELS * factor**2)[:, None]
             & ~is_star[:, None])
    new = np.arange(n)
    for k in range(1, n_giants + 1):
        pieces = np.flatnonzero(piece[:, k])
        if len(pieces):
            new[pieces] = pieces[area[pieces].argmax()]
    return new[leader]


def join_scattered(leader, labels):
    """
    Join an object in many pieces to the one that all of them lie in.

    Knots of one galaxy may look so much alike that they are joined with each
    other and not with the galaxy. No object is made of what lies here and
    there in another.

    Parameters
    ----------
    leader, labels
        As of `join_in_giants`.

    Returns
    -------
    leader : `~numpy.ndarray`
        (S,); `SCATTERED` pieces or more are led by the object that most of
        the pixels next to each of them are of, if they have less than
        `SCATTERED_SHARE` of its pixels.
    """
    new = np.arange(len(leader))
    several = np.bincount(leader, minlength=len(leader)) > 1
    area = np.bincount(labels.ravel(), minlength=len(leader) + 1)
    windows = find_objects(labels, max_label=len(leader))
    wide = np.pad(labels, 1)
    for k in np.flatnonzero(several):
        if windows[k] is None:
            continue
        ys, xs = windows[k]
        box = wide[ys.start:ys.stop + 2, xs.start:xs.stop + 2]
        pieces, n = label_components(box == k + 1, EIGHT)
        hosts = {_host(box, pieces, piece, window)
                 for piece, window in enumerate(find_objects(pieces), 1)}
        host = hosts.pop()
        if (n >= SCATTERED and not hosts and host
                and area[k + 1] < SCATTERED_SHARE * area[host]):
            new[k] = host - 1
    while (new[new] != new).any():
        new = new[new]
    return new[leader]


def _host(labels, pieces, piece, window):
    """The label that most pixels next to a piece have; none is at an edge."""
    wide = tuple(slice(one.start - 1, one.stop + 1) for one in window)
    own = pieces[wide] == piece
    return np.bincount(labels[wide][binary_dilation(own, EIGHT)
                                    & ~own]).argmax()


def fill_giants(labels, giants):
    """
    Give the sky within a giant to the object that is most of it.

    Faint outskirts drown in the noise of single pixels and stand out when
    these are binned.

    Parameters
    ----------
    labels : `~numpy.ndarray`
        (y, x) int; 0 is the sky.
    giants : `Giants`
        The giants.

    Returns
    -------
    labels : `~numpy.ndarray`
        (y, x) int. Nothing is filled where no object has `FILL_SHARE` of the
        giant and more than half of its own pixels in it.
    """
    out = labels.copy()
    area = np.bincount(labels.ravel())
    for k, window in enumerate(find_objects(giants.labels), start=1):
        if window is None:
            continue
        inside, own = giants.labels[window] == k, labels[window]
        shared = np.bincount(own[inside], minlength=2)
        best = 1 + shared[1:].argmax()
        if shared[best] > max(FILL_SHARE * inside.sum(), 0.5 * area[best]):
            out[window][inside & (own == 0)] = best
    return out
