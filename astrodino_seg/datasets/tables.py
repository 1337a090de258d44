# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tables from files, and positions on the sky from tables.
"""

import os
import warnings
from pathlib import Path

import numpy as np
from astropy.coordinates import SkyCoord
from astropy.table import Table
from astropy.utils.exceptions import AstropyWarning

__all__ = ['as_table', 'pixel_positions', 'read_positions', 'read_table',
           'sky_columns']

#: Names of columns in lower case, in pairs: on the sky, in pixels from 0, and
#: in pixels from 1 (of SExtractor).
SKY = (('ra', 'dec'), ('alpha_j2000', 'delta_j2000'),
       ('alphawin_j2000', 'deltawin_j2000'), ('raj2000', 'dej2000'),
       ('_raj2000', '_dej2000'), ('ra_icrs', 'de_icrs'),
       ('ra_deg', 'dec_deg'))
PIXELS = (('x', 'y'), ('x_centroid', 'y_centroid'),
          ('xcentroid', 'ycentroid'))
PIXELS_FROM_1 = (('xwin_image', 'ywin_image'), ('x_image', 'y_image'),
                 ('xpeak_image', 'ypeak_image'))


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
        with warnings.catch_warnings():     # of several tables in a file
            warnings.simplefilter('ignore', AstropyWarning)
            try:                            # as SExtractor writes FITS_LDAC
                table = Table.read(os.fspath(path), hdu='LDAC_OBJECTS',
                                   format='fits')
            except (OSError, KeyError, ValueError, TypeError):
                table = Table.read(os.fspath(path))
        if 'Field Header Card' in table.colnames:   # of LDAC_IMHEAD
            msg = 'its LDAC_OBJECTS is missing or broken'
            raise ValueError(msg)
        return table
    except Exception as err:  # noqa: BLE001  every format raises its own
        reason = str(err).strip().split('\n')[0] or type(err).__name__
        msg = f'{str(path)!r} cannot be read as a table: {reason}'
        raise ValueError(msg) from err


def as_table(positions):
    """
    A table of what holds columns with names.

    Parameters
    ----------
    positions : object
        A table, the path of one, a `pandas.DataFrame`, an array with fields,
        or a dict of columns.

    Returns
    -------
    table : `~astropy.table.Table` or `None`
        `None` if it is something else.
    """
    if isinstance(positions, Table):
        return positions
    if isinstance(positions, (str, os.PathLike)):
        return read_table(positions)
    if hasattr(positions, 'iloc') and hasattr(positions, 'columns'):
        return Table({str(name): np.asarray(positions[name])
                      for name in positions.columns})
    fields = getattr(getattr(positions, 'dtype', None), 'names', None)
    return Table(positions) if fields or isinstance(positions, dict) else None


def _find(table, pairs):
    """The columns of the first pair of names that a table has, or None."""
    names = {name.lower(): name for name in table.colnames}
    return next(([names[one] for one in pair] for pair in pairs
                 if set(pair) <= set(names)), None)


def sky_columns(table):
    """The names of the columns of right ascension and declination, or None."""
    return _find(table, SKY)


def pixel_positions(table):
    """
    The pixels that a table has, from 0.

    Parameters
    ----------
    table : `~astropy.table.Table`
        With ``x`` and ``y``, ``x_centroid`` and ``y_centroid``, or those of
        SExtractor, ``X_IMAGE`` and ``Y_IMAGE``, which count from 1.

    Returns
    -------
    x, y : tuple of `~numpy.ndarray` or `None`
        NaN where one is missing; `None` if the table has none.
    """
    first = 0
    names = _find(table, PIXELS)
    if names is None:
        first, names = 1, _find(table, PIXELS_FROM_1)
    if names is None:
        return None
    return tuple(np.ma.asarray(table[name].value).astype(float).filled(np.nan)
                 - first for name in names)


def read_positions(positions):
    """
    Read positions from coordinates or from a table.

    Parameters
    ----------
    positions : `~astropy.coordinates.SkyCoord`, `~astropy.table.Table` or path
        One or more positions; a table, or what `as_table` takes, has one
        column of coordinates or the columns ``ra`` and ``dec`` (in any case,
        or as SExtractor and VizieR call them), in degrees if they have no
        unit.

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
        table = as_table(positions)
        if table is None:
            msg = (f'positions must be a SkyCoord, a table or the path of '
                   f'one, got {type(positions).__name__}')
            raise TypeError(msg)
        table = Table(table)  # a copy, and columns for quantities
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
    names = sky_columns(table)
    if names is None:
        msg = (f'positions: the table has no columns ra and dec; it has '
               f'{table.colnames}')
        raise ValueError(msg)
    both = []
    for name in names:
        column = table[name]
        if column.dtype.kind not in 'iuf':
            msg = (f'positions: {name} must be in degrees, got dtype '
                   f'{column.dtype}')
            raise ValueError(msg)
        values = np.ma.asarray(column.data, dtype=float).filled(np.nan)
        both.append(values * (column.unit or 1))
        del table[name]
    try:
        return SkyCoord(*both, unit='deg')
    except ValueError as err:
        msg = f'positions: {err}'
        raise ValueError(msg) from err
