# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
From images, and pictures that are none, to the input of a network.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional as F
from torch.utils.data import Dataset

from astrodino_seg.datasets.pictures import picture_image
from astrodino_seg.image import as_image

__all__ = ['Inputs', 'NetworkInput', 'check_size', 'is_picture', 'prepare']


class NetworkInput(NamedTuple):
    """
    The input of a network, and what else its image says.

    Attributes
    ----------
    x : `~torch.Tensor` or `None`
        (plane, y, x) float32; `None` if there is nothing in the image.
    ra, dec : float
        Of the centre, in degrees (ICRS); NaN if they are not known.
    name : str
        What its record calls it, or nothing.
    missing : bool
        Whether there is no image at all.
    """

    x: torch.Tensor | None
    ra: float = np.nan
    dec: float = np.nan
    name: str = ''
    missing: bool = False


def prepare(item, planes, *, size=None, patch_size=1):
    """
    Prepare one item.

    Parameters
    ----------
    item : image-like, `~numpy.ndarray`, tuple or `None`
        What `~astrodino_seg.as_image` takes; or a picture, uint8 of shape (y,
        x, 3) in red, green and blue; or one of these and a dict with
        ``object_id``, ``ra`` and ``dec``.
    planes : callable
        Rule for the planes; see `~astrodino_seg.models.backbone.Backbone`.
    size : int or tuple of int, optional
        Rows and columns to resample the planes to; those of the image if
        `None`.
    patch_size : int, optional
        What rows and columns are rounded to multiples of.

    Returns
    -------
    prepared : `NetworkInput`
        Without ``x`` if all pixels are masked or equal in each plane.
    """
    known = {}
    if (isinstance(item, tuple) and len(item) == 2
            and isinstance(item[1], Mapping)):
        item, known = item
    if item is None:
        return NetworkInput(None, missing=True)
    if is_picture(item) and hasattr(planes, 'standardise'):
        x, (ra, dec) = planes.standardise(item), (np.nan, np.nan)
    else:
        image = picture_image(item) if is_picture(item) else as_image(item)
        x, (ra, dec) = planes(image), _centre(image)
    ra, dec = (float(known.get(name, value)) for name, value in
               (('ra', ra), ('dec', dec)))
    return NetworkInput(_fit(x, size, patch_size), ra, dec,
                        str(known.get('object_id', '')))


def check_size(size):
    """
    Check a size of the input.

    Parameters
    ----------
    size : int, tuple of int or `None`
        Rows and columns.

    Returns
    -------
    size : tuple of int or `None`
        Both.

    Raises
    ------
    ValueError
        If it is not one or two positive int.
    """
    if size is None:
        return None
    both = np.atleast_1d(size)
    if both.shape not in ((1,), (2,)) or both.dtype.kind not in 'iu' or (
            both.min() < 1):
        msg = f'size must be one or two positive int, got {size!r}'
        raise ValueError(msg)
    return tuple(np.broadcast_to(both, 2).tolist())


def is_picture(item):
    """Whether this is a picture: uint8 of shape (y, x, 3)."""
    return (isinstance(item, np.ndarray) and item.dtype == np.uint8
            and item.ndim == 3 and item.shape[2] == 3)


class Inputs(Dataset):
    """
    The items of a sequence, prepared when they are asked for.

    Parameters
    ----------
    images : sequence
        Of items as in `prepare`. If it has a method ``rgb``, as
        `~astrodino_seg.datasets.Galaxy10` has, weights that were trained on
        photographs get those pictures. Of `~astrodino_seg.embed.cutouts.Cutouts`
        the planes are made once, of the image that they are cut out of, if
        the rule for the planes says what is ``blank``.
    planes, size, patch_size
        As in `prepare`.
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
        """
        One `NetworkInput`.

        Raises
        ------
        ValueError
            If the item cannot be used; the message has its position.
        """
        if self.whole is not None:
            x = self.images.cut(i, self.whole, self.planes.blank)
            if x is None:
                return NetworkInput(None, missing=True)
            return NetworkInput(_fit(x, self.size, self.patch_size))
        pictures = hasattr(self.images, 'rgb') and hasattr(self.planes,
                                                           'standardise')
        return self.prepare(
            i, self.images.rgb(i) if pictures else self.images[i])

    def prepare(self, i, item):
        """Prepare an item, whose position an error names."""
        try:
            return prepare(item, self.planes, size=self.size,
                           patch_size=self.patch_size)
        except (TypeError, ValueError) as err:
            msg = f'images[{i}]: {err}'
            raise ValueError(msg) from err


def _centre(image):
    """Right ascension and declination in degrees, NaN without a WCS."""
    if image.wcs is None:
        return np.nan, np.nan
    ny, nx = image.shape
    centre = image.wcs.pixel_to_world((nx - 1) / 2, (ny - 1) / 2).icrs
    return centre.ra.deg, centre.dec.deg


def _fit(x, size, patch_size):
    """
    Resample (plane, y, x), without aliasing, to whole patches; `None` if there
    is nothing in it.
    """
    x = torch.from_numpy(x)
    if torch.equal(x, x[:, :1, :1].expand_as(x)):
        return None
    size = x.shape[-2:] if size is None else size
    size = [max(round(n / patch_size), 1) * patch_size for n in size]
    if list(x.shape[-2:]) == size:
        return x
    return F.interpolate(x[None], size=size, mode='bilinear',
                         align_corners=False, antialias=True)[0]
