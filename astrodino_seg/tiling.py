# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Where to cut a large image into overlapping tiles.
"""

from typing import NamedTuple

__all__ = ['Tile', 'tiles']


class Tile(NamedTuple):
    """
    One tile, as slices (y, x).

    Attributes
    ----------
    outer : tuple of slice
        What is read, in the image.
    core : tuple of slice
        What is kept, in the image; the cores cover it once.
    inner : tuple of slice
        The core, in the tile.
    """

    outer: tuple
    core: tuple
    inner: tuple


def _cuts(n, size, margin, step):
    """(start, stop, core start, core stop) along one axis."""
    if n <= size:
        return [(0, n, 0, n)]
    stride = (size - 2 * margin) // step * step
    n_tiles = -(-(n - 2 * margin) // stride)
    cuts = []
    for k in range(n_tiles):
        start = k * stride
        stop = min(start + size, n)
        if k == n_tiles - 1:                # the last one reaches the edge
            start = max(-(-(n - size) // step) * step, 0)
            stop = n
        cuts.append([start, stop, start + margin, stop - margin])
    cuts[0][2], cuts[-1][3] = 0, n
    for one, other in zip(cuts, cuts[1:]):
        other[2] = one[3] = min(one[3], n) // step * step
    return cuts


def tiles(shape, *, size=640, margin=48, step=16):
    """
    Cut an image into overlapping tiles whose cores cover it once.

    Parameters
    ----------
    shape : tuple of int
        (ny, nx).
    size : int, optional
        Side of a tile in pixels; an image up to this size is one tile.
    margin : int, optional
        Pixels at a tile's inner edges that are read but not kept.
    step : int, optional
        Tiles and cores start at multiples of this.

    Returns
    -------
    tiles : list of `Tile`
        Row by row.

    Raises
    ------
    ValueError
        If the margins leave no core.
    """
    if size < 2 * margin + step or size % step:
        msg = (f'size must be a multiple of {step} and at least 2 * margin '
               f'+ {step} = {2 * margin + step}, got {size!r}')
        raise ValueError(msg)
    out = []
    for ys in _cuts(shape[0], size, margin, step):
        for xs in _cuts(shape[1], size, margin, step):
            out.append(Tile(
                tuple(slice(c[0], c[1]) for c in (ys, xs)),
                tuple(slice(c[2], c[3]) for c in (ys, xs)),
                tuple(slice(c[2] - c[0], c[3] - c[0]) for c in (ys, xs))))
    return out
