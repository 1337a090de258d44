# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Galaxy10 DECaLS of Leung & Bovy (https://github.com/henrysky/Galaxy10): colour
pictures of 17,736 galaxies in ten classes, as one HDF5 file,
``Galaxy10_DECals.h5``, or as ``gz10`` of the Multimodal Universe.
"""

import math
from contextlib import contextmanager
from io import BytesIO
from operator import index

import numpy as np
from astropy.table import Table, vstack

from astrodino_seg.datasets.folder import (
    Images,
    data_files,
    picture_image,
    readable,
)
from astrodino_seg.errors import require
from astrodino_seg.files import check_bytes

#: The names of the classes 0 to 9.
GALAXY10_CLASSES = (
    'disturbed', 'merging', 'round smooth', 'in-between round smooth',
    'cigar shaped smooth', 'barred spiral', 'unbarred tight spiral',
    'unbarred loose spiral', 'edge-on without bulge', 'edge-on with bulge')
# our name: those of the HDF5 and of the Parquet files
COLUMNS = {'label': ('ans', 'gz10_label'), 'ra': ('ra',), 'dec': ('dec',),
           'redshift': ('redshift',),
           'pixel_scale': ('pxscale', 'rgb_pixel_scale'),
           'object_id': ('object_id',)}
NEEDED = ('label', 'redshift', 'pixel_scale')
PIXELS = ('images', 'rgb_image')


class Galaxy10(Images):
    """
    Galaxy10 DECaLS as a sequence of images with labels.

    An image is read when it is asked for: memory does not grow with the
    number of images.

    Parameters
    ----------
    path : path-like
        ``Galaxy10_DECals.h5``; a file of the ``gz10`` layout in HDF5 or
        Parquet; or a folder of such files.

    Attributes
    ----------
    table : `~astropy.table.Table`
        ``label`` (0 to 9), ``class`` (of `GALAXY10_CLASSES`), ``pixel_scale``
        (arcsec) and ``redshift`` (NaN if there is none) of each image;
        ``ra`` and ``dec`` (degrees) and ``object_id`` if the files have
        them.

    Raises
    ------
    FileNotFoundError
        If there is no such file, or none of this kind in the folder.
    ValueError
        If a file is damaged or of another layout, or a label is none of the
        ten classes.

    Notes
    -----
    The pixels are 8-bit colours, made for the eye from the bands g, r and z;
    they are not fluxes. `rgb` returns them as they are, and an `Image` has
    the planes as the bands they were made from: blue is g, green r, red z.
    The first row is the northern one, unlike in FITS, and there is no WCS.
    """

    _rows = 'table', '_where'

    def __init__(self, path):
        self._files = [
            ParquetFile(one) if one.suffix == '.parquet' else Hdf5File(one)
            for one in data_files(path, ('.h5', '.hdf5', '.parquet'))]
        tables = [_read_columns(file) for file in self._files]
        if not sum(map(len, tables)):
            msg = f'path: {str(path)!r} has no images'
            raise ValueError(msg)
        self._where = np.array([(k, i) for k, table in enumerate(tables)
                                for i in range(len(table))])
        self.table = vstack(tables, metadata_conflicts='silent')
        names = np.array(GALAXY10_CLASSES)
        self.table.add_column(names[self.table['label']], name='class',
                              index=1)

    def __repr__(self):
        return f'<Galaxy10: {len(self)} images>'

    def _image(self, i):
        return picture_image(self.rgb(i))

    @property
    def labels(self):
        """The labels, 0 to 9: int64, of shape (image,)."""
        return np.asarray(self.table['label'])

    def rgb(self, i):
        """
        One image as it is stored.

        Parameters
        ----------
        i : int
            Its position.

        Returns
        -------
        pixels : uint8 `~numpy.ndarray`
            (y, x, 3) red, green, blue; the first row is the northern one.

        Raises
        ------
        ValueError
            If the file is damaged.
        """
        k, row = self._where[index(i)]
        return self._files[k].pixels(int(row))


def _read_columns(file):
    """The table of a file's columns but the pixels, checked."""
    table = Table()
    for name, candidates in COLUMNS.items():
        if name in NEEDED or not file.names.isdisjoint(candidates):
            table[name] = file.column(_one_of(candidates, file))
    label = np.asarray(table['label'])
    wrong = ~np.isin(label, np.arange(len(GALAXY10_CLASSES)))
    if wrong.any():
        row = np.flatnonzero(wrong)[0]
        msg = (f'path: {str(file.path)!r} has {wrong.sum()} labels that are '
               f'none of the classes 0 to {len(GALAXY10_CLASSES) - 1}, the '
               f'first, {label[row]!r}, in row {row}')
        raise ValueError(msg)
    table['label'] = label.astype(np.int64)
    return table


def _one_of(candidates, file):
    """The first of these columns that a file has; raise if it has none."""
    for one in candidates:
        if one in file.names:
            return one
    msg = (f'path: {str(file.path)!r} has no {" or ".join(candidates)}; it '
           f'has {sorted(file.names)}')
    raise ValueError(msg)


def as_text(values):
    """Make text of identifiers."""
    text = [one.decode() if isinstance(one, bytes) else str(one)
            for one in np.asarray(values).tolist()]
    return np.array([one[2:-1] if one.startswith("b'") else one
                     for one in text])


class Hdf5File:
    """
    An HDF5 file whose datasets are columns; opened for each reading, so that
    processes can share the object.
    """

    def __init__(self, path):
        self.path = path
        with self._open() as file:
            columns = {name: (one.shape, one.dtype) for name, one
                       in file.items() if hasattr(one, 'shape')}
        self.names = set(columns)
        self._pixels = _one_of(PIXELS, self)
        shape, dtype = columns[self._pixels]
        if len(shape) != 4 or shape[-1] != 3 or dtype != np.uint8:
            msg = (f'path: {self._pixels!r} of {str(path)!r} must be uint8 of '
                   f'shape (row, y, x, 3), got {dtype} of shape {shape}')
            raise ValueError(msg)
        lengths = {name: one[:1] for name, (one, _) in columns.items()}
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
    A Parquet file with a column of encoded images (PNG or JPEG), of which
    those of one row group are kept.
    """

    def __init__(self, path):
        self.path, self._kept = path, (None, None)
        with self._open() as file:
            self.names = set(file.schema_arrow.names)
            groups = [file.metadata.row_group(k).num_rows
                      for k in range(file.metadata.num_row_groups)]
        self._ends = np.cumsum(groups)
        self._pixels = _one_of(PIXELS, self)

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
