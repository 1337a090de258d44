# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Sequences of images: the FITS files of a folder or of a table, pictures; and
the bundled sample.
"""

import warnings
from collections.abc import Mapping, Sequence
from copy import copy
from operator import index
from pathlib import Path

import numpy as np
from astropy.table import Table
from PIL import Image as Picture
from tqdm import tqdm

from astrodino_seg.datasets.tables import read_table
from astrodino_seg.errors import SkippedWarning
from astrodino_seg.files import one_error
from astrodino_seg.image import as_image

SUFFIXES = ('.jpg', '.jpeg', '.png', '.JPG', '.JPEG', '.PNG')


def demo_image():
    """
    The bundled sample: a simulated scene in g, r, i, z, with a WCS.

    Returns
    -------
    image : `~astrodino_seg.Image`
        448 x 448 pixels: a spiral, an irregular and an edge-on galaxy that
        overlap, stars, and faint galaxies, made by
        ``benchmarks/model/make_demo.py``.
    """
    return as_image(Path(__file__).parents[1] / 'data' / 'demo_griz.fits.fz')


class Images(Sequence):
    """
    A sequence of images, each made by ``_image`` when it is asked for;
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


class FolderImages(Images):
    """
    The FITS files of a folder, or of a table, as a sequence of images.

    A file is read when its image is asked for, and forgotten then: memory
    does not grow with the number of files.

    Parameters
    ----------
    path : path-like or `~astropy.table.Table`
        A folder, which is searched with all that it contains; a file that
        `~astropy.table.Table.read` reads; or a table.
    pattern : str, optional
        The names of the files in a folder, as in `~pathlib.Path.rglob`.
        Hidden files and folders are left out.
    column : str or dict, optional
        The column of a table that holds the paths; a dict
        ``{band: column}`` if each band has a file of its own. Relative
        paths are relative to the table's file.
    bands : sequence of str, optional
        The bands of every image, if the files do not name them; see
        `~astrodino_seg.as_image`.
    check : bool, optional
        Whether to read each file once now and leave out what cannot be
        read. If not, an unreadable file raises when it is asked for.
    progress_bar : bool, optional
        Whether to show one while the files are checked.

    Attributes
    ----------
    paths : list
        The path of each image, or its ``{band: path}``.
    table : `~astropy.table.Table` or `None`
        The rows of the images, if they come from a table.

    Raises
    ------
    FileNotFoundError
        If there is no such folder or table.
    ValueError
        If there is no file, or none that can be read; if the table cannot
        be read or lacks the column.

    Warns
    -----
    SkippedWarning
        Once, with the number of files left out, and a list of them and of
        what is wrong in its ``skipped``.
    """

    _rows = 'paths', 'table'

    def __init__(self, path, *, pattern='*.fits*', column='path', bands=None,
                 check=True, progress_bar=False):
        self.bands = bands
        self.table = None
        if isinstance(path, Table) or Path(path).is_file():
            self._read_table(path, column)
        else:
            self._list_folder(Path(path), pattern)
        if check:
            self._leave_out_unreadable(progress_bar)

    def __repr__(self):
        return f'<FolderImages: {len(self)} images>'

    def _image(self, i):
        paths = self.paths[i]
        if paths is None:
            msg = f'row {i} of the table has no path'
            raise ValueError(msg)
        try:
            return as_image(paths, bands=self.bands)
        except (ValueError, TypeError) as err:
            if str(paths) in str(err):
                raise
            msg = f'{str(paths)!r}: {err}'
            raise ValueError(msg) from err

    def _list_folder(self, folder, pattern):
        if not folder.is_dir():
            msg = f'path: no folder or table {str(folder)!r}'
            raise FileNotFoundError(msg)
        self.paths = sorted(
            path for path in folder.rglob(pattern) if path.is_file()
            and not any(part.startswith('.')
                        for part in path.relative_to(folder).parts))
        if not self.paths:
            msg = f'path: no file {pattern!r} in {str(folder)!r}'
            raise ValueError(msg)

    def _read_table(self, path, column):
        if isinstance(path, Table):
            self.table, folder = path, Path()
        else:
            self.table, folder = read_table(path), Path(path).parent
        bands = column if isinstance(column, Mapping) else {None: column}
        missing = set(bands.values()) - set(self.table.colnames)
        if missing:
            msg = (f'column: the table has no column {sorted(missing)}; it '
                   f'has {self.table.colnames}')
            raise ValueError(msg)
        if not len(self.table):
            msg = 'path: the table has no rows'
            raise ValueError(msg)
        self.paths = []
        for row in self.table:
            paths = {band: _full_path(folder, row[name])
                     for band, name in bands.items()}
            if None in paths.values():
                self.paths.append(None)
            else:
                self.paths.append(paths.get(None, paths))

    def _leave_out_unreadable(self, progress_bar):
        good, skipped = [], []
        for i in tqdm(range(len(self)), disable=not progress_bar,
                      desc='check', unit='file'):
            try:
                self[i]
            except (ValueError, TypeError, OSError) as err:
                skipped.append((self.paths[i], str(err)))
            else:
                good.append(i)
        if not good:
            msg = (f'path: none of the {len(self)} files can be read; of the '
                   f'first: {skipped[0][1]}')
            raise ValueError(msg)
        if skipped:
            vars(self).update(vars(self[good]))
            warnings.warn(SkippedWarning('files', skipped))


def _full_path(folder, value):
    """A path from a cell of a table; `None` if it is empty or masked."""
    if value is np.ma.masked or not str(value):
        return None
    return folder / str(value)


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


def readable(path):
    """Whatever is wrong with a file is one `ValueError`."""
    return one_error(f'path: {str(path)!r} cannot be read')


def picture_image(picture):
    """
    A picture (y, x, 3) uint8 as an image of g, r and z, as the Legacy Surveys'
    viewer has them.
    """
    red, green, blue = np.moveaxis(picture, -1, 0)
    return as_image({'g': blue, 'r': green, 'z': red})


class PictureFolder(Images):
    """
    The pictures of a folder, and of all folders in it, as images: colours made
    for the eye, not fluxes. ``labels`` are the names of their folders.
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
