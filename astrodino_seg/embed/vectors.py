# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tables of embeddings: in files, with rows that survive the process that made
them; and what in one looks alike, and what like nothing else. Vectors are
compared by brute force, a block of queries at a time: exact, and one matrix
product.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.nddata import NDData
from astropy.table import QTable

from astrodino_seg.datasets.tables import read_table
from astrodino_seg.embed.cutout import Cutouts, plain_columns
from astrodino_seg.errors import require
from astrodino_seg.files import check_new, sha256_of, whole_or_not

FORMATS = {'.fits': 'fits', '.parquet': 'parquet'}
N_VALUES = 2**24    # similarities that are held at a time


def check_path(path, *, overwrite=False):
    """Check that a table can be written under a name."""
    if Path(path).suffix not in FORMATS:
        msg = f'path must end in .fits or .parquet, got {str(path)!r}'
        raise ValueError(msg)
    if Path(path).suffix == '.parquet':
        require('pyarrow', 'survey')
    return check_new(path, overwrite=overwrite)


def write_embeddings(table, path, *, overwrite=False):
    """Write a table of embeddings; the file appears whole or not at all."""
    path = check_path(path, overwrite=overwrite)
    with whole_or_not(path) as part:
        table.write(part, format=FORMATS[path.suffix])


def read_embeddings(path):
    """
    Read a table of embeddings.

    Parameters
    ----------
    path : path-like
        A file of `~astrodino_seg.embed.embedding_table`, or any FITS or
        Parquet table with a column ``embedding`` of vectors.

    Returns
    -------
    table : `~astropy.table.QTable`
        The table; ``embedding`` is float32 of shape (n, d).

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it cannot be read, or has no such column or no rows.
    """
    path = Path(path)
    options = {'mask_invalid': False} if path.suffix == '.fits' else {}
    table = read_table(path, format=FORMATS.get(path.suffix), **options)
    if 'embedding' not in table.colnames or table['embedding'].ndim != 2 or (
            not len(table)):
        msg = (f'{str(path)!r} has no vectors in a column embedding; it has '
               f'{len(table)} rows of {table.colnames}')
        raise ValueError(msg)
    table.convert_bytestring_to_unicode()
    for name in table.colnames:
        column = table[name]
        if not column.dtype.isnative:
            table[name] = column.astype(column.dtype.newbyteorder('='))
    table['embedding'] = np.asarray(table['embedding'], np.float32)
    return table


def vectors_of(table):
    """The vectors (n, d) float32 of a table, and which (n,) rows have one."""
    column = table
    if hasattr(table, 'colnames'):
        if 'embedding' not in table.colnames:
            msg = f'table has no column embedding; it has {table.colnames}'
            raise ValueError(msg)
        column = table['embedding']
    vectors = np.asarray(column, dtype=np.float32)
    if not vectors.size:
        msg = 'there are no vectors: the table is empty'
        raise ValueError(msg)
    if vectors.ndim != 2:
        msg = f'vectors must have the shape (n, d), got {vectors.shape}'
        raise ValueError(msg)
    return vectors, np.isfinite(vectors).all(axis=1)


def nearest(vectors, queries, n, *, exclude=None):
    """
    Rows (q, n) of the largest cosine similarity to queries (q, d), and that;
    ``exclude`` (q,) are rows of (m, d) vectors that are not found.
    """
    unit, good = _unit(vectors)
    queries, fine = _unit(queries)
    if not fine.all():
        msg = (f'queries: {(~fine).sum()} of {len(fine)} have no vector, the '
               f'first is {np.flatnonzero(~fine)[0]}')
        raise ValueError(msg)
    n_others = int(good.sum()) - (exclude is not None)
    if n < 1 or n_others < 1:
        msg = f'n must be 1 or more, of {n_others} others, got {n!r}'
        raise ValueError(msg)
    n = min(n, n_others)
    rows = np.empty((len(queries), n), np.int64)
    similarity = np.empty(rows.shape, np.float32)
    block = max(N_VALUES // len(unit), 1)
    for start in range(0, len(queries), block):
        values = (queries[start:start + block] @ unit.T).clip(-1, 1)
        values[:, ~good] = -2
        if exclude is not None:
            own = exclude[start:start + block]
            values[np.arange(len(own)), own] = -2
        least = np.partition(values, -n, axis=1)[:, -n]
        for k, (line, limit) in enumerate(zip(values, least), start=start):
            found = np.flatnonzero(line >= limit)       # ties too, in order
            found = found[np.argsort(-line[found], kind='stable')[:n]]
            rows[k], similarity[k] = found, line[found]
    return rows, similarity


def similar(table, queries, *, n=10):
    """
    What in a table looks most like some of its rows, or like other vectors.

    Parameters
    ----------
    table : `~astropy.table.Table`
        Of `~astrodino_seg.embed.embedding_table`.
    queries : int, array_like or `~astropy.table.Table`
        Rows of the table, which are not found themselves; or other
        embeddings: (q, d) or (d,) float, or a table of them.
    n : int, optional
        How many for each query.

    Returns
    -------
    found : `~astropy.table.QTable`
        ``query`` (the row, or the position among the others), ``rank`` from
        1, ``row`` and ``id`` of what was found, its ``similarity`` (cosine
        of the angle between the vectors), and where the table has them
        ``ra``, ``dec`` and the ``separation`` on the sky (arcsec), if it is
        known where the query is.

    Raises
    ------
    ValueError
        If a query is not in the table, has no vector or one of another
        length, or ``n`` is not positive.
    """
    vectors, _ = vectors_of(table)
    other = queries if hasattr(queries, 'colnames') else table
    asked = np.atleast_1d(np.asarray(queries['embedding'] if other is queries
                                     else queries))
    if not asked.size:
        msg = 'queries are empty'
        raise ValueError(msg)
    if asked.dtype.kind in 'iu' and asked.ndim == 1:
        if asked.min() < -len(vectors) or asked.max() >= len(vectors):
            msg = (f'queries must be rows of a table of {len(vectors)}, got '
                   f'{asked.min()} to {asked.max()}')
            raise ValueError(msg)
        asked = asked % len(vectors)
        names, exclude, asked = asked, asked, vectors[asked]
        coords = _coordinates(table)
        where = None if coords is None else coords[exclude]
    else:
        asked = np.atleast_2d(asked.astype(np.float32))
        if asked.ndim != 2 or asked.shape[1] != vectors.shape[1]:
            msg = (f'queries must have {vectors.shape[1]} numbers each, got '
                   f'the shape {asked.shape}')
            raise ValueError(msg)
        names, exclude = np.arange(len(asked)), None
        where = None if other is table else _coordinates(other)
    rows, values = nearest(vectors, asked, n, exclude=exclude)
    n = rows.shape[1]
    found = QTable({'query': np.repeat(names, n),
                    'rank': np.tile(np.arange(1, n + 1), len(names)),
                    'row': rows.ravel()})
    _add_columns(found, table)
    found['similarity'] = values.ravel()
    if where is not None and 'ra' in found.colnames:
        where = where[np.repeat(np.arange(len(names)), n)]
        found['separation'] = u.Quantity(
            where.separation(_coordinates(found)), u.arcsec)
    return found


def anomaly_scores(table, *, k=10):
    """
    How unlike all others each row is: the distance to its k-th neighbour.

    The distance is 1 less the cosine similarity (Ramaswamy, Rastogi & Shim
    2000, SIGMOD, 427; for embeddings Sun et al. 2022, arXiv:2204.06507). It
    has one parameter, and no model of what is normal. Its cost grows with the
    square of the number of rows.

    Parameters
    ----------
    table : `~astropy.table.Table`
        Of `~astrodino_seg.embed.embedding_table`.
    k : int, optional
        The neighbour; groups of up to ``k`` that look alike are anomalies
        too. The last if there are fewer.

    Returns
    -------
    scores : `~astropy.table.QTable`
        ``row``, ``id``, ``ra`` and ``dec`` where the table has them, and
        ``score`` between 0 and 2; the largest first. Rows without a vector
        are left out.

    Raises
    ------
    ValueError
        If fewer than two rows have a vector, or ``k`` is not positive.
    """
    vectors, _ = vectors_of(table)
    rows = np.flatnonzero(_unit(vectors)[1])
    _, values = nearest(vectors, vectors[rows], k, exclude=rows)
    score = 1 - values[:, -1]
    order = np.argsort(-score, kind='stable')
    out = QTable({'row': rows[order]})
    _add_columns(out, table)
    out['score'] = score[order]
    return out


def _unit(vectors):
    """Vectors of unit length, and which have one; the others are 0."""
    vectors = np.asarray(vectors, np.float32)
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    good = np.isfinite(length) & (length > 0)
    return np.divide(vectors, length, where=good,
                     out=np.zeros_like(vectors)), good[:, 0]


def _add_columns(found, table):
    """What the table tells of the rows that were found."""
    for name in ('id', 'ra', 'dec'):
        if name in table.colnames:
            found[name] = table[name][found['row']]


def _coordinates(table):
    if not {'ra', 'dec'} <= set(table.colnames):
        return None
    return SkyCoord(table['ra'], table['dec'], unit='deg')


def describe_images(images):
    """
    What tells these images from others: the content of files and arrays, and
    what a table says of them; of what comes one by one, nothing but that.
    """
    code = hashlib.sha256(str(getattr(images, 'bands', None)).encode())
    one_by_one = images if isinstance(images, (list, tuple)) else ()
    for item in getattr(images, 'paths', None) or one_by_one:
        for one in item.values() if isinstance(item, Mapping) else [item]:
            if isinstance(one, (str, os.PathLike)):
                code.update(os.fsencode(one))
                if os.path.isfile(one):
                    code.update(sha256_of(one).encode())
            elif one is not None:
                pixels = getattr(one, 'cube', one)      # of an Image
                code.update(np.ascontiguousarray(
                    pixels.data if isinstance(pixels, NDData) else pixels))
    table = getattr(images, 'table', None)
    for name in () if table is None else plain_columns(table):
        code.update(np.ascontiguousarray(table[name]).tobytes())
    if isinstance(images, Cutouts):
        image = images.image
        for array in (images.shapes, image.cube, image.mask, image.noise,
                      images.labels):
            code.update(b'' if array is None else np.ascontiguousarray(array))
    return {'n': len(images) if hasattr(images, '__len__') else None,
            'sha256': code.hexdigest()}


class RowStore:
    """
    Rows in a file that only grows, with what they are made of in its head. Of
    what a killed process left, `resume` drops a block or a head that is cut
    off.
    """

    def __init__(self, path, dtype, settings):
        self.path, self.dtype = Path(path), np.dtype(dtype)
        settings = {**settings, 'row': str(self.dtype)}
        self._head = json.dumps(settings, sort_keys=True).encode() + b'\n'

    def resume(self, n_block=1):
        """Go on with the file, or begin it."""
        if self.path.exists():
            with open(self.path, 'r+b') as file:
                found = file.readline()
                if found == self._head:
                    n_bytes = self.path.stat().st_size - len(found)
                    n_rows = n_bytes // self.dtype.itemsize
                    n_rows -= n_rows % n_block
                    file.truncate(len(found) + n_rows * self.dtype.itemsize)
                    return n_rows
            if not self._head.startswith(found):
                msg = (f'{str(self.path)!r} is of another run; delete it, or '
                       f'give another path. {self._differences(found)}')
                raise ValueError(msg)
        self.path.write_bytes(self._head)
        return 0

    def append(self, rows):
        """Write rows of ``dtype`` behind the others."""
        with open(self.path, 'ab') as file:
            file.write(np.ascontiguousarray(rows, self.dtype).tobytes())

    def read(self):
        """All rows."""
        return np.fromfile(self.path, self.dtype, offset=len(self._head))

    def remove(self):
        """Delete the file."""
        self.path.unlink(missing_ok=True)

    def _differences(self, found):
        try:
            old, new = json.loads(found), json.loads(self._head)
            keys = [key for key in new if old.get(key) != new[key]]
        except (ValueError, AttributeError):
            return 'It is not a file of rows'
        return '; '.join(f'{key} was {old.get(key)}, is {new[key]}'
                         for key in keys)
