# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
From images, and pictures that are none, to the input of a network.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from astrodino_seg.datasets.folder import picture_image
from astrodino_seg.errors import EmptyImageError
from astrodino_seg.image import as_image
from astrodino_seg.models.backbone import check_size, to_patches


class NetworkInput(NamedTuple):
    """
    The input of a network, (plane, y, x) float32, or `None` of nothing; its
    centre in degrees (ICRS), its name, and whether there is no image at all.
    """

    x: torch.Tensor | None
    ra: float = np.nan
    dec: float = np.nan
    name: str = ''
    missing: bool = False
    error: Exception | None = None


def prepare(item, planes, *, size=None, patch_size=1):
    """
    One item of `embed` as `NetworkInput`, by the rule for the planes,
    resampled to ``size`` in whole patches.
    """
    known = {}
    if (isinstance(item, tuple) and len(item) == 2
            and isinstance(item[1], Mapping)):
        item, known = item
    if item is None:
        return NetworkInput(None, missing=True)
    x, ra, dec = None, np.nan, np.nan
    if is_picture(item) and hasattr(planes, 'standardise'):
        x = planes.standardise(item)
    else:
        try:
            image = (picture_image(item) if is_picture(item)
                     else as_image(item))
        except EmptyImageError:
            pass
        else:
            x, (ra, dec) = planes(image), _centre(image)
    ra, dec = (float(known.get(name, value)) for name, value in
               (('ra', ra), ('dec', dec)))
    return NetworkInput(_fit(x, size, patch_size), ra, dec,
                        str(known.get('object_id', '')))


def is_picture(item):
    """Whether this is a picture: uint8 of shape (y, x, 3)."""
    return (isinstance(item, np.ndarray) and item.dtype == np.uint8
            and item.ndim == 3 and item.shape[2] == 3)


class Inputs(Dataset):
    """
    The items of a sequence, as `prepare` makes them when they are asked for;
    of ``rgb`` where weights were trained on photographs. Of `Cutouts` the
    planes are made once, of the whole image, if the rule says what is
    ``blank``.
    """

    def __init__(self, images, planes, *, size=None, patch_size=1):
        self.images, self.planes = images, planes
        self.size, self.patch_size = check_size(size), patch_size
        self.whole = None
        if hasattr(images, 'cut') and hasattr(planes, 'blank'):
            self.whole = planes(images.image)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        """One `NetworkInput`; its error says which item it is of."""
        if self.whole is not None:
            x = self.images.cut(i, self.whole, self.planes.blank)
            if x is None:
                return NetworkInput(None, missing=True)
            return NetworkInput(_fit(x, self.size, self.patch_size))
        pictures = hasattr(self.images, 'rgb') and hasattr(self.planes,
                                                           'standardise')
        try:
            item = self.images.rgb(i) if pictures else self.images[i]
        except (TypeError, ValueError, OSError) as err:
            return NetworkInput(None, error=err)
        return self.prepare(i, item)

    def prepare(self, i, item):
        """Prepare an item, or say of which it is that it cannot be."""
        try:
            return prepare(item, self.planes, size=self.size,
                           patch_size=self.patch_size)
        except OSError as err:
            return NetworkInput(None, error=err)
        except (TypeError, ValueError) as err:
            return NetworkInput(None, error=ValueError(f'images[{i}]: {err}'))


def _centre(image):
    """Right ascension and declination in degrees, NaN if not known."""
    ny, nx = image.shape
    centre = image.sky((nx - 1) / 2, (ny - 1) / 2)
    if centre is None:
        return np.nan, np.nan
    return centre.icrs.ra.deg, centre.icrs.dec.deg


def _fit(x, size, patch_size):
    """Resampled (plane, y, x) of whole patches; `None` of nothing."""
    if x is None or (x == x[:, :1, :1]).all():
        return None
    return to_patches(torch.from_numpy(x)[None], size, patch_size)[0]
