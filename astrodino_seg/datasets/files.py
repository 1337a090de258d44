# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Sequences of images, and HDF5 and Parquet files whose rows are images, read
row by row.
"""

import math
from collections.abc import Sequence
from contextlib import contextmanager
from copy import copy
from io import BytesIO
from operator import index
from pathlib import Path

import numpy as np

from astrodino_seg.errors import require
from astrodino_seg.files import check_bytes, one_error


class Images(Sequence):
    """
    A sequence of images, each made by ``_image`` when it is asked for.

    ``_rows`` names the attributes that have an entry an image.
    """

    _rows = ()

    def __len__(self):
        return len(getattr(self, self._rows[0]))

    def __getitem__(self, i):
        """
        One image; for a slice, a mask or an array, the sequence of those.
        """
        if not isinstance(i, (slice, list, np.ndarray)):
            return self._image(range(len(self))[index(i)])
        part = copy(self)
        for name in self._rows:
            values = getattr(self, name)
            if isinstance(values, list):
                values = [values[k] for k in np.arange(len(self))[i]]
            elif values is not None:
                values = values[i]
            setattr(part, name, values)
        return part


def data_files(path, suffixes):
    """The data files of a folder."""
    path = Path(path)
    if path.is_dir():
        found = sorted(one for one in path.rglob('*')
                       if one.suffix in suffixes and one.is_file())
        if not found:
            msg = f'path: no file {", ".join(suffixes)} in {str(path)!r}'
            raise FileNotFoundError(msg)
        return found
    if not path.is_file():
        msg = f'path: no such file or folder: {str(path)!r}'
        raise FileNotFoundError(msg)
    if path.suffix not in suffixes:
        msg = f'path: {str(path)!r} is none of {", ".join(suffixes)}'
        raise ValueError(msg)
    return [path]


def as_text(values):
    """Make text of identifiers."""
    text = [one.decode() if isinstance(one, bytes) else str(one)
            for one in np.asarray(values).tolist()]
    return np.array([one[2:-1] if one.startswith("b'") else one
                     for one in text])


def readable(path):
    """Whatever is wrong with a file is one `ValueError`."""
    return one_error(f'path: {str(path)!r} cannot be read')


class Hdf5File:
    """
    An HDF5 file whose datasets are columns.

    It is opened for each reading, so that processes can share the object.
    """

    def __init__(self, path, pixels):
        self.path = path
        with self._open() as file:
            shapes = {name: one.shape for name, one in file.items()
                      if hasattr(one, 'shape')}
            self.names = set(shapes)
            name = [one for one in pixels if one in shapes]
            dtype = file[name[0]].dtype if name else None
        if not name:
            msg = (f'path: {str(path)!r} has no {" or ".join(pixels)}; it '
                   f'has {sorted(shapes)}')
            raise ValueError(msg)
        self._pixels = name[0]
        shape = shapes[name[0]]
        if len(shape) != 4 or shape[-1] != 3 or dtype != np.uint8:
            msg = (f'path: {name[0]!r} of {str(path)!r} must be uint8 of '
                   f'shape (row, y, x, 3), got {dtype} of shape {shape}')
            raise ValueError(msg)
        lengths = {name: one[:1] for name, one in shapes.items()}
        if set(lengths.values()) != {shape[:1]}:
            msg = f'path: columns of {str(path)!r} differ in length: {lengths}'
            raise ValueError(msg)

    def column(self, name):
        """All values of a column, as `~numpy.ndarray`."""
        with self._open() as file:
            check_bytes(file[name].nbytes, f'{name!r} of {str(self.path)!r}')
            values = file[name][:]
        return as_text(values) if name == 'object_id' else values

    def pixels(self, row):
        """The image of a row: uint8 of shape (y, x, 3)."""
        with self._open() as file:
            column = file[self._pixels]
            check_bytes(math.prod(column.shape[1:]),
                        f'an image of {str(self.path)!r}')
            return column[row]

    @contextmanager
    def _open(self):
        h5py = require('h5py', 'survey')
        with readable(self.path), h5py.File(self.path, 'r') as file:
            yield file


class ParquetFile:
    """
    A Parquet file with a column of encoded images (PNG or JPEG).

    The encoded images of one row group are kept, so that reading in order is
    fast.
    """

    def __init__(self, path, pixels):
        self.path, self._kept = path, (None, None)
        with self._open() as file:
            self.names = set(file.schema_arrow.names)
            groups = [file.metadata.row_group(k).num_rows
                      for k in range(file.metadata.num_row_groups)]
        self._ends = np.cumsum(groups)
        name = [one for one in pixels if one in self.names]
        if not name:
            msg = (f'path: {str(path)!r} has no {" or ".join(pixels)}; it '
                   f'has {sorted(self.names)}')
            raise ValueError(msg)
        self._pixels = name[0]

    def column(self, name):
        """All values of a column, as `~numpy.ndarray`."""
        with self._open() as file:
            column = file.read([name]).column(name)
            if column.null_count and name != 'redshift':
                msg = f'{column.null_count} values of {name!r} are missing'
                raise ValueError(msg)
            values = column.to_numpy()
        return as_text(values) if name == 'object_id' else values

    def pixels(self, row):
        """The image of a row: uint8 of shape (y, x, 3)."""
        from PIL import Image

        group = int(np.searchsorted(self._ends, row, side='right'))
        if self._kept[0] != group:
            with self._open() as file:
                check_bytes(file.metadata.row_group(group).total_byte_size,
                            f'a group of rows of {str(self.path)!r}')
                self._kept = group, file.read_row_group(
                    group, [self._pixels]).column(0)
        start = self._ends[group - 1] if group else 0
        with readable(self.path):
            item = self._kept[1][int(row - start)].as_py()
            content = item['bytes'] if isinstance(item, dict) else item
            return np.array(Image.open(BytesIO(content)).convert('RGB'))

    @contextmanager
    def _open(self):
        parquet = require('pyarrow.parquet', 'survey')
        with readable(self.path), parquet.ParquetFile(self.path) as file:
            yield file
