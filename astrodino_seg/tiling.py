# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Where to cut a large image into overlapping tiles.
"""

from typing import NamedTuple

import numpy as np

__all__ = ['Tile', 'taper', 'tiles']


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


def taper(tile, shape, *, step=16):
    """
    Weight of each cell of a tile in the average with its neighbours.

    The weight falls linearly to the tile's edge over twice its margin, but
    not at the image's own edge, so that maps which depend on the whole tile
    pass smoothly from one to the next.

    Parameters
    ----------
    tile : `Tile`
        The tile.
    shape : tuple of int
        (ny, nx) of the image in pixels.
    step : int, optional
        Side of a cell in pixels.

    Returns
    -------
    weight : `~numpy.ndarray`
        (rows, columns) float32, positive.
    """
    axes = []
    for outer, core, n in zip(tile.outer, tile.core, shape):
        n_cells = (outer.stop - outer.start) // step
        cell = np.arange(n_cells) + 0.5
        weight = np.ones(n_cells)
        if outer.start > 0:
            ramp = 2 * (core.start - outer.start) // step
            weight = np.minimum(weight, cell / max(ramp, 1))
        if outer.stop < n:
            ramp = 2 * (outer.stop - core.stop) // step
            weight = np.minimum(weight, (n_cells - cell) / max(ramp, 1))
        axes.append(weight)
    return np.outer(*axes).astype(np.float32)
