# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
FITS files out: label maps, images, and maps on the pixels of an image.
"""

import warnings
from collections.abc import Mapping

import numpy as np
from astropy.io import fits

from astrodino_seg.errors import AstroDinoUserWarning
from astrodino_seg.files import check_new, whole_or_not
from astrodino_seg.image.fits import (
    celestial_wcs,
    is_plane,
    open_fits,
    quiet_headers,
    read_pixels,
)
from astrodino_seg.image.grid import same_grid


def write_label_map(path, labels, image, *, meta=None, overwrite=False):
    """
    Write a label map as a FITS image of 32-bit integers.

    The file appears under its name only once it is complete.

    Parameters
    ----------
    path : str or `~pathlib.Path`
        The file. With the ending ``.gz`` or ``.bz2`` it is compressed.
    labels : 2-D array_like of int
        The labels, 0 being no object; a
        `~photutils.segmentation.SegmentationImage` can be given as it is.
    image : `Image`
        The image that the labels are for; its WCS goes into the header.
    meta : dict, optional
        Further header keywords, with values that are str, int, float, bool
        or `None`. Other values are written as str. ``HISTORY`` is a list of
        lines.
    overwrite : bool, optional
        Whether to replace a file of this name.

    Raises
    ------
    OSError
        If there is a file and ``overwrite`` is False.

    Warns
    -----
    AstroDinoUserWarning
        If the header cannot hold the WCS, as of distortions by lookup table;
        it then has the WCS without the distortion.
    """
    labels = _check_labels(labels, image)
    _write_primary(path, labels, image, meta, overwrite)


def _write_primary(path, pixels, image, meta, overwrite):
    """Write an image of one HDU; the file appears whole or not at all."""
    check_new(path, overwrite=overwrite)
    header = fits.Header() if image is None else _wcs_header(image)
    _add_meta(header, meta)
    with whole_or_not(path) as part:
        fits.PrimaryHDU(pixels, header).writeto(part)


class GrowingLabelMap:
    """
    A label map in a FITS file that is written window by window: as
    `write_label_map`, but 0 where nothing was written yet, and on disk alone.
    """

    def __init__(self, path, grid, meta=None):
        header = _wcs_header(grid)
        _add_meta(header, meta)
        header = fits.PrimaryHDU(np.zeros((1, 1), np.int32), header).header
        header['NAXIS2'], header['NAXIS1'] = grid.shape
        start = header.tostring().encode('ascii')
        self.path, self.shape, self.offset = path, grid.shape, len(start)
        size = 4 * grid.shape[0] * grid.shape[1]
        with open(path, 'wb') as stream:
            stream.write(start)
            stream.truncate(len(start) + size + -size % 2880)

    def _pixels(self):
        # mapped anew each time: what is mapped stays in memory
        return np.memmap(self.path, '>i4', 'r+', self.offset, self.shape)

    def read(self, window):
        """(y, x) int32 labels in a window of slices."""
        return self._pixels()[window].astype(np.int32)

    def write(self, window, labels):
        """Put labels in their window."""
        self._pixels()[window] = labels


def _check_labels(labels, image):
    """The labels as an int32 array, or raise."""
    labels = np.asarray(labels)
    if labels.dtype.kind not in 'iu':
        msg = f'labels must be an array of int, got dtype {labels.dtype}'
        raise TypeError(msg)
    if labels.shape != tuple(image.shape):
        msg = (f'labels has shape {labels.shape}, the image has '
               f'{tuple(image.shape)}')
        raise ValueError(msg)
    if labels.min() < 0 or labels.max() > np.iinfo(np.int32).max:
        msg = (f'labels must be from 0 to {np.iinfo(np.int32).max}, got '
               f'{labels.min()} to {labels.max()}')
        raise ValueError(msg)
    return labels.astype(np.int32)


def _wcs_header(image):
    """The header of the WCS of an image; warns if it is not the same WCS."""
    if image.wcs is None:
        return fits.Header()
    with quiet_headers():
        header = image.wcs.to_header(relax=True)
        again = celestial_wcs(header)
    if again is None or not same_grid(image.wcs, again, image.shape):
        msg = ('the header of the label map cannot hold the distortion of '
               'the WCS; it is written without')
        warnings.warn(msg, AstroDinoUserWarning)
    return header


def _add_meta(header, meta):
    """Add the keywords of the user to a header, in place."""
    if meta is None:
        return
    if not isinstance(meta, Mapping):
        msg = f'meta must be a dict, got {type(meta).__name__}'
        raise TypeError(msg)
    reserved = {'SIMPLE', 'BITPIX', 'EXTEND', 'END', *header}
    for key, value in meta.items():
        name = str(key).upper()
        if name == 'HISTORY':
            for line in value:
                header.add_history(line)
            continue
        if name in reserved or name.startswith('NAXIS'):
            msg = f'meta must not set the keyword {key!r}'
            raise ValueError(msg)
        if value is not None and not isinstance(value, (bool, int, float)):
            value = ' '.join(str(value).split())
            value = value.encode('ascii', 'replace').decode()
        try:
            short = len(name) <= 8 and ' ' not in name and '.' not in name
            header[name if short else f'HIERARCH {name}'] = value
        except ValueError as err:
            msg = f'meta[{key!r}] = {value!r} cannot be in a header: {err}'
            raise ValueError(msg) from err


def read_label_map(path, name=None):
    """
    Labels (y, x) int, blank ones 0, of the image with an EXTNAME, or else of
    the first 2-D one. Raises `ValueError` if its pixels are no integers.
    """
    labels, blank = _first_plane(path, name, (2,))
    if blank:
        labels = np.nan_to_num(labels).astype(int)
    if labels.dtype.kind not in 'iu':
        msg = (f'{str(path)!r} is not a label map: its pixels are '
               f'{labels.dtype}, not integers')
        raise ValueError(msg)
    return labels.astype(labels.dtype.newbyteorder('='))


def read_plane(path, window=None):
    """
    The pixels, (y, x) or (band, y, x), of the first image of a FITS file,
    whatever they mean, or those in a window of slices.
    """
    pixels, _ = _first_plane(path, None, (2, 3), window)
    return pixels.astype(pixels.dtype.newbyteorder('='))


def _first_plane(path, name, n_axes, window=None):
    """Pixels of the first image of some name, and whether some are BLANK."""
    with open_fits(path) as hdus:
        for hdu in hdus:
            if (is_plane(hdu) and len(hdu.shape) in n_axes
                    and name in (None, hdu.name)):
                blank = 'BLANK' in hdu.header       # of integers alone
                return read_pixels(hdu, path, window), blank
        named = '' if name is None else f' named {name!r}'
        msg = f'{str(path)!r} has no {n_axes[0]}-D image{named}'
        raise ValueError(msg)


def write_plane(path, pixels, image=None, *, meta=None):
    """
    Write (y, x) or (plane, y, x) pixels as the primary image of a new FITS
    file, with the WCS of an `Image`.
    """
    _write_primary(path, pixels, image, meta, None)


def write_image(path, image, *, meta=None):
    """
    Write an image as a FITS file, which `as_image` reads back.

    Each band is an extension ``SCI``, its noise one ``ERR`` of the same
    EXTVER. FILTER has the name of the band, as have BAND0, BAND1, ... of the
    primary header.

    Parameters
    ----------
    path : str or `~pathlib.Path`
        The file; there must be none yet.
    image : `Image`
        The image. Masked pixels are written as NaN.
    meta : dict, optional
        Keywords for the primary header, as `write_label_map` takes them.
    """
    planes = []
    for k, band in enumerate(image.bands):
        header = {'FILTER': band, 'EXTVER': k + 1}
        if image.unit is not None:
            header['BUNIT'] = _unit_name(image.unit)
        pixels = image.cube[k]
        if image.pedestal[k]:
            pixels = pixels.astype(float) + image.pedestal[k]
        planes.append(('SCI', np.where(image.mask[k], np.nan, pixels),
                       header))
        if image.noise is not None:
            planes.append(('ERR', image.noise[k], header))
    names = {f'BAND{k}': band for k, band in enumerate(image.bands)}
    _write(path, planes, image, {**names, **(meta or {})})


def write_maps(path, maps, image, *, meta=None):
    """
    Write maps, (y, x) or (plane, y, x) by their EXTNAMEs, on the pixels of an
    image as the extensions of a new FITS file.
    """
    for name, values in maps.items():
        if np.shape(values)[-2:] != tuple(image.shape):
            msg = (f'maps[{name!r}] has shape {np.shape(values)}, the image '
                   f'has {tuple(image.shape)}')
            raise ValueError(msg)
    _write(path, [(*one, {}) for one in maps.items()], image, meta)


def _unit_name(unit):
    """Its name in the FITS standard, or astropy's (nmgy) if it has none."""
    try:
        return unit.to_string('fits')
    except ValueError:
        return unit.to_string()


def _write(path, planes, image, meta):
    check_new(path, overwrite=None)
    hdus = fits.HDUList([fits.PrimaryHDU()])
    _add_meta(hdus[0].header, meta)
    wcs = _wcs_header(image)
    for name, values, more in planes:
        header = wcs.copy()
        header.update(more)
        hdus.append(fits.ImageHDU(values, header, name))
    with whole_or_not(path) as part:
        hdus.writeto(part)
