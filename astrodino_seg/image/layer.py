# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
One band as it comes, checked: the step between the input and the cube.

A `Layer` is one band with its own mask,
noise, WCS and unit; `split_cube` checks an array and makes layers of it.
"""

from dataclasses import dataclass

import astropy.units as u
import numpy as np
from astropy.wcs import WCS

__all__ = ['Layer', 'check_mask', 'check_noise', 'check_shape',
           'split_cube']


@dataclass
class Layer:
    """
    One band: float32 ``data``, bool ``mask`` (True is invalid), float32
    ``noise`` (1-sigma, or `None`), all 2-D; a celestial ``wcs`` or `None`;
    ``name`` or `None`; ``unit`` or `None`; and ``stem``, the name of the
    file, for when the names of several bands turn out to be the same.
    """

    data: np.ndarray
    mask: np.ndarray
    noise: np.ndarray | None = None
    wcs: WCS | None = None
    name: str | None = None
    unit: u.UnitBase | None = None
    stem: str | None = None


def check_shape(array, name):
    """
    Bring an array of real numbers to (band, y, x).

    Parameters
    ----------
    array : `~numpy.ndarray`
        The array, 2-D, 3-D, or more if the leading axes have length 1.
    name : str
        What to call it in an error message.

    Returns
    -------
    cube : 3-D `~numpy.ndarray`
        A view of the array.
    """
    if array.dtype.kind not in 'iuf':
        msg = (f'{name} must be an array of real numbers, got dtype '
               f'{array.dtype}')
        raise TypeError(msg)
    if array.ndim < 2 or any(size != 1 for size in array.shape[:-3]):
        msg = (f'{name} must be a 2-D (y, x) or a 3-D (band, y, x) array, '
               f'got shape {array.shape}')
        raise ValueError(msg)
    if array.size == 0:
        msg = f'{name} is empty, its shape is {array.shape}'
        raise ValueError(msg)
    cube = array.reshape((-1, *array.shape[-2:]))
    if cube.shape[2] <= 4 and cube.shape[0] > 16:
        msg = (f'{name} has shape {array.shape}, which looks like (y, x, '
               f'band); (band, y, x) is needed: numpy.moveaxis(data, -1, 0)')
        raise ValueError(msg)
    return cube


def check_mask(mask, shape, name='mask'):
    """
    Check a mask and bring it to the shape of a cube.

    Parameters
    ----------
    mask : array_like of bool or int, or `None`
        The mask, of ``shape``, or 2-D and then for all bands.
    shape : tuple of int
        The shape (band, y, x) of the cube.
    name : str, optional
        What to call it in an error message.

    Returns
    -------
    mask : 3-D bool `~numpy.ndarray`
        A new array; True is invalid.
    """
    if mask is None:
        return np.zeros(shape, dtype=bool)
    mask = np.asarray(mask)
    if mask.dtype.kind not in 'biu':
        msg = f'{name} must be an array of bool, got dtype {mask.dtype}'
        raise TypeError(msg)
    while mask.ndim > 3 and mask.shape[0] == 1:
        mask = mask[0]
    if mask.ndim and mask.shape not in (shape, shape[1:]):
        msg = (f'{name} has shape {mask.shape}, but the image has shape '
               f'{shape} (band, y, x)')
        raise ValueError(msg)
    return np.broadcast_to(mask.astype(bool), shape).copy()


def check_noise(noise, mask, name='error'):
    """
    Check the noise of an image.

    Parameters
    ----------
    noise : `~numpy.ndarray`
        The 1-sigma noise.
    mask : bool `~numpy.ndarray`
        The mask of the image, of the same shape. Where the noise is not
        finite it is set, in place.
    name : str, optional
        What to call the noise in an error message.
    """
    mask |= ~np.isfinite(noise)
    wrong = ~mask & ~(noise > 0)
    if wrong.any():
        msg = (f'{name} must be positive where the image is not masked, got '
               f'{noise[wrong][0]} at {wrong.sum()} pixels')
        raise ValueError(msg)


def split_cube(data, *, mask=None, noise=None, wcs=None, unit=None,
               names=None, stem=None, label='data'):
    """
    Make one layer of each plane of an array.

    Parameters
    ----------
    data : 2-D or 3-D `~numpy.ndarray`
        The pixels. Values that are not finite become masked and 0.
    mask : array_like of bool, optional
        True for invalid pixels, 2-D or 3-D.
    noise : array_like, optional
        The 1-sigma noise, of the shape of ``data``.
    wcs : `~astropy.wcs.WCS`, optional
        The celestial WCS of all planes.
    unit : `~astropy.units.UnitBase`, optional
        The unit of data and noise.
    names : sequence of str, optional
        The names of the bands.
    stem : str, optional
        The name of the file, without its ending.
    label : str, optional
        What to call the array in an error message.

    Returns
    -------
    layers : list of `Layer`
        The planes.
    """
    cube = check_shape(data, label)
    bad = check_mask(mask, cube.shape, f'the mask of {label}')
    bad |= ~np.isfinite(cube)
    with np.errstate(over='ignore', invalid='ignore'):
        values = cube.astype(np.float32)  # copies, native byte order
    bad |= ~np.isfinite(values)
    _check_range(cube, bad, label)
    if noise is not None:
        with np.errstate(over='ignore', invalid='ignore'):
            noise = np.asarray(noise).astype(np.float32)
        noise = noise.reshape((-1, *noise.shape[-2:]))
        if noise.shape != cube.shape:
            msg = (f'the uncertainty of {label} has shape {noise.shape}, '
                   f'the image {cube.shape}')
            raise ValueError(msg)
        check_noise(noise, bad, f'the uncertainty of {label}')
    values[bad] = 0
    if names is None or len(names) != len(cube):
        names = [None] * len(cube)
    return [Layer(values[i], bad[i], None if noise is None else noise[i],
                  wcs, names[i], unit, stem) for i in range(len(cube))]


def _check_range(cube, bad, label):
    """Raise if float32 cannot hold the values."""
    if cube.dtype.kind != 'f' or cube.dtype.itemsize <= 4:
        return
    largest = np.max(np.abs(cube), where=~bad, initial=0)
    if 0 < largest < 1e-34:
        msg = (f'the values of {label} are too small for single precision: '
               f'the largest is {largest:.3g}; use another unit')
        raise ValueError(msg)
