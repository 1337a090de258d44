# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Python objects to layers: arrays, NDData, and dicts and lists of bands.
"""

import os
import warnings
from collections.abc import Mapping

import astropy.units as u
import numpy as np
from astropy.io import fits
from astropy.nddata import NDData
from astropy.wcs import WCS
from astropy.wcs.wcsapi import BaseHighLevelWCS, SlicedLowLevelWCS

from astrodino_seg.bands import canonical
from astrodino_seg.errors import AstroDinoUserWarning
from astrodino_seg.image.hdus import read_hdus, read_path
from astrodino_seg.image.header import image_plane
from astrodino_seg.image.layer import split_cube

__all__ = ['check_name', 'convert_unit', 'fits_wcs', 'read_input']

_HDUS = (fits.PrimaryHDU, fits.ImageHDU, fits.CompImageHDU)


def read_input(data, label):
    """The layers of any input; not yet all with names."""
    if isinstance(data, (str, os.PathLike)):
        return read_path(data)
    if isinstance(data, fits.HDUList) or isinstance(data, _HDUS):
        return read_hdus(data, label=label)
    if isinstance(data, (Mapping, list, tuple)):
        return _many(data, label)
    if isinstance(data, NDData):
        return _nddata(data, label)
    if not hasattr(data, '__array__'):
        msg = (f'{label} must be an array, an NDData, a FITS file or HDU, or '
               f'a dict or list of these, got {type(data).__name__}')
        raise TypeError(msg)
    mask = getattr(data, 'mask', None)
    unit = getattr(data, 'unit', None)
    # Masked of astropy, then Quantity; plain and masked arrays
    array = getattr(data, 'unmasked', data)
    array = np.asarray(array if unit is None else array.value)
    return split_cube(array, mask=mask, unit=unit, label=label)


def _many(data, label):
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
        found = read_input(item, name)
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
    noise = _noise_of(data, array, label)
    wcs = data.wcs
    if wcs is not None:
        wcs = image_plane(fits_wcs(wcs, array.ndim, f'the WCS of {label}'))
    names = [data.meta.get(key) for key in ('BAND', 'FILTER')
             if isinstance(data.meta, Mapping)]
    names = [canonical(name) for name in names if isinstance(name, str)]
    names = [name for name in names if name is not None] + [None]
    return split_cube(array, mask=data.mask, noise=noise, wcs=wcs,
                      unit=data.unit, names=names[:1], label=label)


def _noise_of(data, array, label):
    """The 1-sigma noise in the uncertainty of an NDData, or None."""
    uncertainty = data.uncertainty
    if uncertainty is None or uncertainty.array is None:
        return None
    kind = uncertainty.uncertainty_type
    power = {'std': 1, 'var': 0.5, 'ivar': -0.5}.get(kind)
    if power is None:
        msg = (f'the uncertainty of {label} is of the unknown type {kind!r} '
               f'and is not used')
        warnings.warn(msg, AstroDinoUserWarning, stacklevel=2)
        return None
    values = np.asarray(uncertainty.array, dtype=float)
    if (kind != 'std' and (values < 0).any()):
        msg = (f'the uncertainty of {label} has negative values, the lowest '
               f'is {np.nanmin(values)}')
        raise ValueError(msg)
    with np.errstate(divide='ignore'):
        noise = values**power
    if uncertainty.unit is not None and data.unit is not None:
        noise = convert_unit(noise, uncertainty.unit**power, data.unit,
                         f'the uncertainty of {label}')
    return np.broadcast_to(noise, array.shape)


def convert_unit(values, unit, target, name):
    """Convert values between units, or raise."""
    try:
        return values * unit.to(target)
    except u.UnitConversionError:
        msg = f'{name} is in {unit}, the image in {target or "no unit"}'
        raise ValueError(msg) from None


def fits_wcs(wcs, ndim, name):
    """An astropy WCS of two axes or as many as the array, or raise."""
    if not isinstance(wcs, WCS) and isinstance(wcs, BaseHighLevelWCS):
        wcs = wcs.low_level_wcs
    if isinstance(wcs, SlicedLowLevelWCS):  # of an NDData that was sliced
        slices = [one for one in wcs._slices_array if isinstance(one, slice)]
        wcs = wcs._wcs
        if isinstance(wcs, WCS) and wcs.has_celestial:
            wcs = image_plane(wcs).slice(slices[-2:])
    if not isinstance(wcs, WCS):
        msg = (f'{name} must be an astropy.wcs.WCS, got '
               f'{type(wcs).__name__}')
        raise TypeError(msg)
    if wcs.naxis not in (2, ndim):
        msg = (f'{name} has {wcs.naxis} axes; it must have 2, or as many as '
               f'the array, {ndim}')
        raise ValueError(msg)
    return wcs


def check_name(name):
    """A band name, or raise."""
    if not isinstance(name, str):
        msg = f'the name of a band must be a str, got {name!r}'
        raise TypeError(msg)
    return str(name)
