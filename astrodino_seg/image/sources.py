# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Python objects to layers: arrays, NDData, and dicts and lists of bands.
"""

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace

import astropy.units as u
import numpy as np
from astropy.io import fits
from astropy.nddata import NDData
from astropy.utils.masked import Masked

from astrodino_seg.errors import AstroDinoUserWarning, require
from astrodino_seg.files import check_bytes, one_error
from astrodino_seg.image.fits import IMAGE_HDUS, fits_wcs
from astrodino_seg.image.layer import POWER, check_shape, split_cube
from astrodino_seg.image.layouts import bands_of, warn_of_bits
from astrodino_seg.image.planes import read_hdus, read_path


@dataclass(frozen=True, eq=False)
class Cutout:
    """A window (y, x) of a file, read when it is asked for."""

    source: object
    window: tuple


def cut_out(data, window):
    """
    A window, two slices (y, x) with start and stop, of any ``data`` of
    `as_image`; no more of it is read than that.
    """
    if isinstance(data, (str, os.PathLike, fits.HDUList, *IMAGE_HDUS)):
        return Cutout(data, tuple(window))
    if isinstance(data, Mapping):
        return {key: cut_out(one, window) for key, one in data.items()}
    if isinstance(data, (list, tuple)):
        return [cut_out(one, window) for one in data]
    at = (..., *window)
    if hasattr(data, 'cube'):       # an Image
        return replace(data, cube=data.cube[at], mask=data.mask[at],
                       noise=None if data.noise is None else data.noise[at],
                       wcs=data.wcs and data.wcs.slice(window))
    if not isinstance(data, NDData):
        return data[at]
    mask, uncertainty, wcs = data.mask, data.uncertainty, data.wcs
    if np.ndim(mask):
        mask = mask[at]
    if uncertainty is not None and uncertainty.array is not None:
        uncertainty = uncertainty[at]
    if wcs is not None:
        wcs = fits_wcs(wcs, np.ndim(data.data), 'the WCS')
        wcs = None if wcs is None else wcs.slice(window)
    return NDData(data.data[at], uncertainty, mask, wcs,
                  data.meta, data.unit)


def opened(data):
    """Arrays of numpy and of zarr for the path of a file of them."""
    found = (array_file(data, mapped=True)
             if isinstance(data, (str, os.PathLike)) else None)
    return data if found is None else found


def read_input(data, label, bad_bits=None):
    """The layers of any ``data`` of `as_image` but an `Image`."""
    window = None
    if isinstance(data, Cutout):
        data, window = data.source, data.window
    if isinstance(data, (str, os.PathLike)):
        arrays = array_file(data, mapped=window is not None)
        if arrays is None:
            return read_path(data, bad_bits, window)
        data, label = arrays, str(data)
        if window:
            data = cut_out(data, window)
    if isinstance(data, (fits.HDUList, *IMAGE_HDUS)):
        return read_hdus(data, label=label, bad_bits=bad_bits, window=window)
    if isinstance(data, (Mapping, list, tuple)):
        return _many(data, label, bad_bits)
    warn_of_bits(bad_bits, label)
    if isinstance(data, NDData):
        return _nddata(data, label)
    if not hasattr(data, '__array__'):
        msg = (f'{label} must be an array, an NDData, a FITS file or HDU, or '
               f'a dict or list of these, got {type(data).__name__}')
        raise TypeError(msg)
    mask = unit = None
    if isinstance(data, Masked):
        mask, data = data.mask, data.unmasked
    elif isinstance(data, np.ma.MaskedArray):
        mask, data = np.ma.getmaskarray(data), data.data
    if isinstance(data, u.Quantity):
        unit, data = data.unit, data.value
    return split_cube(np.asarray(data), mask=mask, unit=unit, label=label)


def array_file(path, *, mapped=False):
    """
    The array of a file of numpy or a folder of zarr, or its arrays by their
    names; `None` of other files.
    """
    if str(path).rstrip('/').endswith('.zarr') and os.path.isdir(path):
        zarr = require('zarr', 'zarr')
        content = zarr.open(path, mode='r')
        return content if hasattr(content, 'shape') else dict(
            content.arrays())
    if not str(path).endswith(('.npy', '.npz')) or not os.path.isfile(path):
        return None
    with one_error(f'{str(path)!r} cannot be read as a file of numpy'):
        # mapped: what the header says is compared with the file
        content = np.load(path, mmap_mode='r')
        if isinstance(content, np.ndarray):
            return content if mapped else np.array(content)
        with content:
            check_bytes(sum(one.file_size for one in content.zip.infolist()),
                        repr(str(path)))
            arrays = dict(content)
    if len(arrays) == 1:
        return next(iter(arrays.values()))
    planes = {'mask', 'error', 'noise', 'ivar', 'weight'} & set(arrays)
    if planes or any(one.ndim != 2 for one in arrays.values()):
        msg = (f'{str(path)!r} has the arrays {list(arrays)}, which are not '
               f'all (y, x) bands; hand in those that are meant, as in '
               f'as_image(numpy.load(path)[name], mask=..., error=...)')
        raise ValueError(msg)
    return arrays


def _many(data, label, bad_bits):
    """The layers of a dict or of a list."""
    keyed = isinstance(data, Mapping)
    if len(data) == 0:
        msg = f'{label} is an empty {type(data).__name__}'
        raise ValueError(msg)
    layers = []
    for key, item in data.items() if keyed else enumerate(data):
        name = f'{label}[{key!r}]'
        if isinstance(item, (Mapping, list, tuple)):
            msg = (f'{name} is a {type(item).__name__}; bands must be '
                   f'arrays, NDData, or FITS files or HDUs')
            raise TypeError(msg)
        found = read_input(item, name, bad_bits)
        if len(found) != 1:
            msg = f'{name} must hold one band, it has {len(found)}'
            raise ValueError(msg)
        if keyed:
            found[0].name = check_name(key)
        layers += found
    return layers


def _nddata(data, label):
    """The layers of an NDData, CCDData or NDDataRef."""
    array = np.asarray(data.data)
    cube = check_shape(array, label)
    noise = _noise_of(data, array.shape, label)
    wcs = data.wcs
    if wcs is not None:
        wcs = fits_wcs(wcs, array.ndim, f'the WCS of {label}')
    return split_cube(array, mask=data.mask, noise=noise, label=label,
                      wcs=wcs, unit=data.unit,
                      names=bands_of(data.meta, len(cube)))


def _noise_of(data, shape, label):
    """The 1-sigma noise in the uncertainty of an NDData, or None."""
    uncertainty = data.uncertainty
    if uncertainty is None or uncertainty.array is None:
        return None
    label = f'the uncertainty of {label}'
    kind = uncertainty.uncertainty_type
    power = POWER.get(kind)
    if power is None:
        msg = f'{label} is of the unknown type {kind!r} and is not used'
        warnings.warn(msg, AstroDinoUserWarning)
        return None
    values = np.asarray(uncertainty.array, dtype=float)
    if (values < 0).any():
        msg = f'{label} has negative values, down to {np.nanmin(values)}'
        raise ValueError(msg)
    with np.errstate(divide='ignore'):
        noise = values**power  # no inverse variance: infinite, and masked
    if uncertainty.unit is not None:
        noise = convert_unit(noise, uncertainty.unit**power, data.unit,
                             label)
    if noise.shape == shape[-2:]:
        noise = np.broadcast_to(noise, shape)
    return noise


def convert_unit(values, unit, target, name):
    """Values in the unit of the image, or raise."""
    try:
        return values * unit.to(target or u.dimensionless_unscaled)
    except u.UnitConversionError:
        msg = (f'{name} is in {unit}, which cannot be converted to the unit '
               f'of the image, {target}')
        raise ValueError(msg) from None


def check_name(name):
    """The name of a band, if it is one."""
    if not isinstance(name, str):
        msg = f'the name of a band must be a str, got {name!r}'
        raise TypeError(msg)
    return str(name)
