# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Images, and maps on their pixels, as FITS files of several extensions.
"""

import numpy as np
from astropy.io import fits

from astrodino_seg.image.labels import add_meta, wcs_header

__all__ = ['write_image', 'write_maps']


def write_image(path, image, *, meta=None):
    """
    Write an image as a FITS file, an extension a band.

    `as_image` reads it back if the names of the bands are known to
    `~astrodino_seg.image.filters.canonical`.

    Parameters
    ----------
    path : str or `~pathlib.Path`
        The file; there must be none yet.
    image : `Image`
        The image. Masked pixels are written as NaN; the noise, if there is
        some, as an extension more for each band.
    meta : dict, optional
        Keywords for the primary header, as `write_label_map` takes them.
    """
    maps, headers = {}, {}
    for k, band in enumerate(image.bands):
        header = headers[band] = {'FILTER': band}
        if image.unit is not None:
            header['BUNIT'] = _unit_name(image.unit)
        maps[band] = np.where(image.mask[k], np.nan, image.cube[k])
        if image.noise is not None:
            maps[f'{band} ERR'] = image.noise[k]
            headers[f'{band} ERR'] = header
    _write(path, maps, image, headers, meta)


def write_maps(path, maps, image, *, meta=None):
    """
    Write maps on the pixels of an image as a FITS file, each an extension.

    Parameters
    ----------
    path : str or `~pathlib.Path`
        The file; there must be none yet.
    maps : dict of str to `~numpy.ndarray`
        (y, x) or (plane, y, x) each, by the EXTNAME.
    image : `Image`
        The image that they are for; its WCS goes into their headers.
    meta : dict, optional
        Keywords for the primary header, as `write_label_map` takes them.

    Raises
    ------
    ValueError
        If a map has other pixels than the image.
    """
    for name, values in maps.items():
        if np.shape(values)[-2:] != tuple(image.shape):
            msg = (f'maps[{name!r}] has shape {np.shape(values)}, the image '
                   f'has {tuple(image.shape)}')
            raise ValueError(msg)
    _write(path, maps, image, {}, meta)


def _unit_name(unit):
    """Its name in the FITS standard, or astropy's (nmgy) if it has none."""
    try:
        return unit.to_string('fits')
    except ValueError:
        return unit.to_string()


def _write(path, maps, image, headers, meta):
    hdus = fits.HDUList([fits.PrimaryHDU()])
    add_meta(hdus[0].header, meta)
    wcs = wcs_header(image)
    for name, values in maps.items():
        header = wcs.copy()
        header.update(headers.get(name, {}))
        hdus.append(fits.ImageHDU(values, header, name))
    hdus.writeto(path)
