# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tables from files, positions on the sky from tables, and splits of samples into
one to train on and one to test on.
"""

import os
import warnings
from pathlib import Path

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.io.registry import IORegistryError
from astropy.table import QTable, Table
from astropy.utils.exceptions import AstropyWarning
from astropy_healpix import HEALPix

from astrodino_seg.files import one_error
from astrodino_seg.image.fits import check_table

#: Names of columns in lower case, in pairs: on the sky, in pixels from 0, and
#: in pixels from 1 (of SExtractor).
SKY = (('ra', 'dec'), ('alpha_j2000', 'delta_j2000'),
       ('alphawin_j2000', 'deltawin_j2000'), ('raj2000', 'dej2000'),
       ('_raj2000', '_dej2000'), ('ra_icrs', 'de_icrs'),
       ('ra_deg', 'dec_deg'), ('sky_centroid.ra', 'sky_centroid.dec'))
PIXELS = (('x', 'y'), ('x_centroid', 'y_centroid'),
          ('xcentroid', 'ycentroid'))
PIXELS_FROM_1 = (('xwin_image', 'ywin_image'), ('x_image', 'y_image'),
                 ('xpeak_image', 'ypeak_image'))
#: What names of tables of text end with, whose columns are found by guessing.
TEXT = ('.txt', '.dat', '.cat', '.asc', '.ascii')


def read_table(path, **options):
    """
    Read a table of any format that astropy recognises; with ``options``, those
    of `QTable.read`.
    """
    if not Path(path).is_file():
        msg = f'no such file: {str(path)!r}'
        raise FileNotFoundError(msg)
    with (one_error(f'{str(path)!r} cannot be read as a table'),
          warnings.catch_warnings()):       # of several tables in a file
        warnings.simplefilter('ignore', AstropyWarning)
        check_table(path)
        if options:
            return QTable.read(path, **options)
        try:                                # as SExtractor writes FITS_LDAC
            table = Table.read(os.fspath(path), hdu='LDAC_OBJECTS',
                               format='fits')
        except (OSError, KeyError, ValueError, TypeError):
            try:
                table = Table.read(os.fspath(path))
            except IORegistryError:             # of a format with no mark
                if Path(path).suffix.lower() not in TEXT:
                    raise
                table = Table.read(os.fspath(path), format='ascii')
        if 'Field Header Card' in table.colnames:   # of LDAC_IMHEAD
            msg = 'its LDAC_OBJECTS is missing or broken'
            raise ValueError(msg)
        return table


def as_table(positions):
    """A table of what holds columns with names."""
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
    """The pixels that a table has, from 0."""
    first = 0
    names = _find(table, PIXELS)
    if names is None:
        first, names = 1, _find(table, PIXELS_FROM_1)
    if names is None:
        return None
    both = []
    for name in names:
        unit = str(getattr(table[name], 'unit', None) or '')
        if unit and not unit.startswith('pix'):
            msg = f'positions: {name} must be in pixels, it is in {unit}'
            raise ValueError(msg)
        both.append(np.ma.asarray(table[name].value).astype(float).filled(
            np.nan) - first)
    return tuple(both)


def read_positions(positions):
    """Read positions from coordinates or from a table."""
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
                   f'{column.dtype}; SkyCoord(ra, dec, unit=("hourangle", '
                   f'"deg")) reads text')
            raise ValueError(msg)
        values = np.ma.asarray(column.data, dtype=float).filled(np.nan)
        both.append(values * (column.unit or 1))
        del table[name]
    try:
        return SkyCoord(*both, unit='deg')
    except ValueError as err:
        msg = f'positions: {err}'
        raise ValueError(msg) from err


def random_split(n, *, test_fraction=0.2, seed=0):
    """
    Split at random.

    Parameters
    ----------
    n : int
        The size of the sample.
    test_fraction : float, optional
        The share to test on, rounded to whole items; at least one item is in
        each part.
    seed : int, optional
        Seed of the choice.

    Returns
    -------
    train, test : int64 `~numpy.ndarray`
        The indices of each part, sorted.

    Raises
    ------
    ValueError
        If there are fewer than two items, or the share is not between 0 and
        1.
    """
    n_test = _n_test(n, test_fraction)
    order = np.random.default_rng(seed).permutation(n)
    return np.sort(order[n_test:]), np.sort(order[:n_test])


def sky_split(ra, dec, *, test_fraction=0.2, nside=16, seed=0):
    """
    Split by position: what is in one cell of the sky is in one part.

    Galaxies of one cluster, or of one exposure, look alike for reasons other
    than their class. A random split has such pairs in both parts.

    Parameters
    ----------
    ra, dec : array_like or `~astropy.units.Quantity`
        Positions (ICRS), in degrees if they have no unit.
    test_fraction : float, optional
        The share to test on. Whole cells are taken at random until taking
        one more would be further from it.
    nside : int, optional
        Of the HEALPix cells (Gorski et al. 2005, ApJ 622, 759), a power of
        two. The default, cells of 3.7 degrees, is that of the Multimodal
        Universe.
    seed : int, optional
        Seed of the choice.

    Returns
    -------
    train, test : int64 `~numpy.ndarray`
        The indices of each part, sorted.

    Raises
    ------
    ValueError
        If positions are not finite or not on the sky, if they are all in one
        cell, or if the share is not between 0 and 1.
    """
    ra, dec = (np.atleast_1d(u.Quantity(one, u.deg)) for one in (ra, dec))
    if ra.ndim > 1 or ra.shape != dec.shape:
        msg = (f'ra and dec must be of one shape (n,), got {ra.shape} and '
               f'{dec.shape}')
        raise ValueError(msg)
    on_sky = np.isfinite(ra) & (np.abs(dec) <= 90 * u.deg)
    if not on_sky.all():
        msg = (f'{(~on_sky).sum()} positions are not on the sky, the first '
               f'in row {np.flatnonzero(~on_sky)[0]}')
        raise ValueError(msg)
    n_test = _n_test(len(ra), test_fraction)
    cells = HEALPix(nside, order='nested').lonlat_to_healpix(ra, dec)
    cells, member, counts = np.unique(cells, return_inverse=True,
                                      return_counts=True)
    if len(cells) < 2:
        msg = f'all positions are in one cell of nside={nside}'
        raise ValueError(msg)
    order = np.random.default_rng(seed).permutation(len(cells))
    sizes = np.cumsum(counts[order])[:-1]  # one cell at least to train on
    n_cells = 1 + np.argmin(np.abs(sizes - n_test))
    in_test = np.isin(member, order[:n_cells])
    return np.flatnonzero(~in_test), np.flatnonzero(in_test)


def _n_test(n, test_fraction):
    """The number of items to test on."""
    if not 0 < test_fraction < 1:
        msg = f'test_fraction must be between 0 and 1, got {test_fraction}'
        raise ValueError(msg)
    if n < 2:
        msg = f'a split needs two items or more, got {n}'
        raise ValueError(msg)
    return int(np.clip(round(n * test_fraction), 1, n - 1))
