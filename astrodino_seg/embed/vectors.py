# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tables of embeddings in files, and rows that survive the process that made
them.
"""

import json
from pathlib import Path

import numpy as np

from astrodino_seg.datasets.tables import read_table
from astrodino_seg.errors import require
from astrodino_seg.files import whole_or_not

FORMATS = {'.fits': 'fits', '.parquet': 'parquet'}


def check_path(path, *, overwrite=False):
    """Check that a table can be written under a name."""
    path = Path(path)
    if path.suffix not in FORMATS:
        msg = f'path must end in .fits or .parquet, got {str(path)!r}'
        raise ValueError(msg)
    if path.suffix == '.parquet':
        require('pyarrow', 'survey')
    if path.exists() and not overwrite:
        msg = f'{str(path)!r} exists; overwrite=True replaces it'
        raise FileExistsError(msg)
    if not path.parent.is_dir():
        msg = f'no such directory: {str(path.parent)!r}'
        raise FileNotFoundError(msg)
    return path


def write_embeddings(table, path, *, overwrite=False):
    """
    Write a table of embeddings; the file appears whole or not at all.

    Parameters
    ----------
    table : `~astropy.table.QTable`
        Of `~astrodino_seg.embed.embedding.embedding_table`.
    path : path-like
        The file; its ending, ``.fits`` or ``.parquet``, tells the format.
        Parquet needs the extra ``survey``.
    overwrite : bool, optional
        Whether to replace a file of this name.

    Raises
    ------
    ValueError, OSError, ImportError
        As of `check_path`.
    """
    path = check_path(path, overwrite=overwrite)
    with whole_or_not(path) as part:
        table.write(part, format=FORMATS[path.suffix])


def read_embeddings(path):
    """
    Read a table of embeddings.

    Parameters
    ----------
    path : path-like
        A file that `write_embeddings` wrote, or any FITS or Parquet table
        with a column ``embedding`` of vectors.

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
    """
    The vectors of a table, and which rows have one.

    Gives ``vectors`` (n, d) float32, ``good`` (n,) bool.
    """
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


class RowStore:
    """
    Rows in a file that only grows, with what they are made of in its head.

    A process that is killed while it writes leaves a file whose last block of
    rows is cut off, or whose head is: `resume` drops these.
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
