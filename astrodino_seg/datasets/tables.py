# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tables from files, and positions on the sky from tables.
"""

import os
from pathlib import Path

import numpy as np
from astropy.coordinates import SkyCoord
from astropy.table import Table

__all__ = ['read_positions', 'read_table']


def read_table(path):
    """
    Read a table from a file of any format that astropy recognises.

    Parameters
    ----------
    path : path-like
        The file.

    Returns
    -------
    table : `~astropy.table.Table`
        The table.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it cannot be read as a table.
    """
    if not Path(path).is_file():
        msg = f'no such file: {str(path)!r}'
        raise FileNotFoundError(msg)
    try:
        return Table.read(os.fspath(path))
    except Exception as err:  # noqa: BLE001  every format raises its own
        reason = str(err).strip().split('\n')[0] or type(err).__name__
        msg = f'{str(path)!r} cannot be read as a table: {reason}'
        raise ValueError(msg) from err


def read_positions(positions):
    """
    Read positions from coordinates or from a table.

    Parameters
    ----------
    positions : `~astropy.coordinates.SkyCoord`, `~astropy.table.Table` or path
        One or more positions; a table, or the path of one, has one column
        of coordinates or the columns ``ra`` and ``dec`` (in any case), in
        degrees if they have no unit.

    Returns
    -------
    table : `~astropy.table.Table`
        A copy of the table, with ``ra`` and ``dec`` as float64 in degrees
        (ICRS) and without other columns of positions.

    Raises
    ------
    ValueError
        If there are no positions, or one is missing or not on the sky.
    TypeError
        If ``positions`` is something else.
    """
    if isinstance(positions, SkyCoord):
        table, coords = Table(), positions.reshape(-1)
    else:
        if isinstance(positions, (str, os.PathLike)):
            positions = read_table(positions)
        if not isinstance(positions, Table):
            msg = (f'positions must be a SkyCoord, a table or the path of '
                   f'one, got {type(positions).__name__}')
            raise TypeError(msg)
        table = Table(positions)  # a copy, and columns for quantities
        coords = _take_coords(table)
    if not len(coords):
        msg = 'positions are empty'
        raise ValueError(msg)
    ra, dec = coords.icrs.ra.deg, coords.icrs.dec.deg
    wrong = np.flatnonzero(~np.isfinite(ra + dec))
    if len(wrong):
        msg = (f'positions: {len(wrong)} of {len(coords)} are missing or not '
               f'finite, the first in row {wrong[0]}')
        raise ValueError(msg)
    table.add_columns([ra, dec], names=['ra', 'dec'], indexes=[0, 0])
    return table


def _take_coords(table):
    """Take the columns of positions out of a table, as coordinates."""
    for name in table.colnames:
        if isinstance(table[name], SkyCoord):
            coords = table[name]
            del table[name]
            return coords
    names = {name.lower(): name for name in table.colnames}
    if not {'ra', 'dec'} <= set(names):
        msg = (f'positions: the table has no columns ra and dec; it has '
               f'{table.colnames}')
        raise ValueError(msg)
    both = []
    for name in ('ra', 'dec'):
        column = table[names[name]]
        if column.dtype.kind not in 'iuf':
            msg = (f'positions: {names[name]} must be in degrees, got dtype '
                   f'{column.dtype}')
            raise ValueError(msg)
        values = np.ma.asarray(column.data, dtype=float).filled(np.nan)
        both.append(values * (column.unit or 1))
        del table[names[name]]
    try:
        return SkyCoord(*both, unit='deg')
    except ValueError as err:
        msg = f'positions: {err}'
        raise ValueError(msg) from err
