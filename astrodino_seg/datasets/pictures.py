# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Colour pictures with labels: folders of JPEG or PNG, one folder a class, and
Galaxy10 DECaLS, 17,736 galaxies in ten classes of morphology.

Leung & Bovy made Galaxy10 from the votes of Galaxy Zoo and images of the DESI
Legacy Imaging Surveys; see https://github.com/henrysky/Galaxy10. It comes as
one HDF5 file, ``Galaxy10_DECals.h5``, and as ``gz10`` of the Multimodal
Universe in HDF5 or Parquet.
"""

from operator import index
from pathlib import Path

import numpy as np
from astropy.table import Table, vstack
from PIL import Image as Picture

from astrodino_seg.datasets.files import (
    Hdf5File,
    Images,
    ParquetFile,
    data_files,
    readable,
)
from astrodino_seg.image import as_image

SUFFIXES = ('.jpg', '.jpeg', '.png', '.JPG', '.JPEG', '.PNG')
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
PIXELS = ('images', 'rgb_image')


def picture_image(picture):
    """
    A picture as an image of three bands, as the Legacy Surveys' viewer has
    them.

    Takes ``picture`` (y, x, 3) uint8.
    """
    red, green, blue = np.moveaxis(picture, -1, 0)
    return as_image({'g': blue, 'r': green, 'z': red})


class PictureFolder(Images):
    """
    The pictures of a folder, and of all folders in it, as images.

    ``paths`` are the files, sorted, and ``labels`` the names, str of shape
    (picture,), of the folders that they are in. The pixels are colours made
    for the eye, not fluxes; `rgb` returns them as they are.
    """

    _rows = 'paths', 'labels'

    def __init__(self, path):
        self.paths = data_files(path, SUFFIXES)
        self.labels = np.array([one.parent.name for one in self.paths])

    def __repr__(self):
        return f'<PictureFolder: {len(self)} pictures>'

    def _image(self, i):
        return picture_image(self.rgb(i))

    def rgb(self, i):
        """(y, x, 3) uint8 as it is stored, from the top row down."""
        path = Path(self.paths[index(i)])
        with readable(path), Picture.open(path) as opened:
            return np.array(opened.convert('RGB'))


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
            Hdf5File(one, PIXELS) if one.suffix in ('.h5', '.hdf5')
            else ParquetFile(one, PIXELS)
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
        there = [one for one in candidates if one in file.names]
        if there:
            table[name] = file.column(there[0])
        elif name in ('label', 'redshift', 'pixel_scale'):
            msg = (f'path: {str(file.path)!r} has no {" or ".join(candidates)}'
                   f'; it has {sorted(file.names)}')
            raise ValueError(msg)
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
