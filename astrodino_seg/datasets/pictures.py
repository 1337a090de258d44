# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Folders of pictures (JPEG, PNG), one folder a class.
"""

from collections.abc import Sequence
from copy import copy
from operator import index
from pathlib import Path

import numpy as np

from astrodino_seg.datasets.files import data_files, one_error
from astrodino_seg.errors import require
from astrodino_seg.image import as_image

__all__ = ['PictureFolder', 'picture_image']

SUFFIXES = ('.jpg', '.jpeg', '.png', '.JPG', '.JPEG', '.PNG')


def picture_image(picture):
    """
    A picture as an image of three bands, as the Legacy Surveys' viewer has
    them.

    Parameters
    ----------
    picture : `~numpy.ndarray`
        (y, x, 3) uint8: red, green, blue.

    Returns
    -------
    image : `~astrodino_seg.Image`
        Of the bands g (blue), r (green) and z (red).
    """
    red, green, blue = np.moveaxis(picture, -1, 0)
    return as_image({'g': blue, 'r': green, 'z': red})


class PictureFolder(Sequence):
    """
    The pictures of a folder, and of all folders in it, as images.

    A file is read when its picture is asked for, and forgotten then. Needs
    pillow (extra ``survey``).

    Parameters
    ----------
    path : path-like
        The folder.

    Attributes
    ----------
    paths : list of `~pathlib.Path`
        The files, sorted.
    labels : `~numpy.ndarray`
        The name of the folder that each file is in, its class if there is
        a folder a class: str, of shape (picture,).

    Raises
    ------
    FileNotFoundError
        If there is no such folder, or no picture in it.

    Notes
    -----
    The pixels are colours made for the eye, not fluxes. `rgb` returns them
    as they are; for an `Image` of them see `picture_image`.
    """

    def __init__(self, path):
        self.paths = data_files(path, SUFFIXES)
        self.labels = np.array([one.parent.name for one in self.paths])

    def __repr__(self):
        return f'<PictureFolder: {len(self)} pictures>'

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, i):
        """
        One image; for a slice, a mask or an array, the sequence of those.

        Raises
        ------
        ValueError
            If the file is damaged.
        """
        if isinstance(i, (slice, list, np.ndarray)):
            part = copy(self)
            rows = np.arange(len(self))[i]
            part.paths = [self.paths[row] for row in rows]
            part.labels = self.labels[rows]
            return part
        return picture_image(self.rgb(i))

    def rgb(self, i):
        """
        One picture as it is stored.

        Parameters
        ----------
        i : int
            Its position.

        Returns
        -------
        pixels : uint8 `~numpy.ndarray`
            (y, x, 3) red, green, blue, from the top row down.

        Raises
        ------
        ValueError
            If the file is damaged.
        """
        picture = require('PIL.Image', 'survey')
        path = Path(self.paths[index(i)])
        with one_error(path), picture.open(path) as opened:
            return np.array(opened.convert('RGB'))
