# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
FITS files: open them, and read the pixels of an HDU.

Astropy raises many kinds of errors for a corrupt file, and takes some for
shorter ones; here each is one clear `ValueError`.
"""

import warnings
from contextlib import ExitStack, contextmanager
from importlib import import_module
from io import BytesIO
from pathlib import Path

import numpy as np
from astropy.io import fits

from astrodino_seg.errors import AstroDinoUserWarning
from astrodino_seg.image.header import quiet_headers

__all__ = ['IMAGE_HDUS', 'is_plane', 'open_fits', 'read_pixels',
           'write_plane']

IMAGE_HDUS = (fits.PrimaryHDU, fits.ImageHDU, fits.CompImageHDU)
_COMPRESSED = {b'\x1f\x8b': 'gzip', b'BZh': 'bz2', b'\xfd7zXZ': 'lzma'}


@contextmanager
def open_fits(path):
    """
    Open a FITS file; whatever is wrong with it is one clear error.

    Parameters
    ----------
    path : str or `~pathlib.Path`
        The file.

    Yields
    ------
    hdus : `~astropy.io.fits.HDUList`
        The HDUs, open within the ``with`` block.
    """
    path = Path(path)
    if path.is_dir():
        msg = f'{str(path)!r} is a directory, not a FITS file'
        raise ValueError(msg)
    if not path.exists():
        msg = f'no such file: {str(path)!r}'
        raise FileNotFoundError(msg)
    with ExitStack() as stack:
        try:
            with quiet_headers() as caught:
                hdus = stack.enter_context(_open(path, stack))
                last = len(hdus) - 1  # reads all headers
        except PermissionError:
            raise
        except Exception as err:  # noqa: BLE001  anything, if it is corrupt
            raise _corrupt(path, err) from err
        if any('Error validating header' in str(one.message)
               for one in caught):
            msg = f'{str(path)!r} is damaged after HDU {last}'
            warnings.warn(msg, AstroDinoUserWarning)
        yield hdus


def _open(path, stack):
    """
    The HDUs of a file, which is closed with the stack.

    Compressed files are read here, as astropy takes a truncated one for a
    shorter one.
    """
    file = stack.enter_context(path.open('rb'))
    magic = file.read(6)
    file.seek(0)
    for start, module in _COMPRESSED.items():
        if magic.startswith(start):
            with import_module(module).open(file) as content:
                return fits.open(BytesIO(content.read()))
    return fits.open(file)


def _corrupt(label, err):
    """The error for a file that cannot be read."""
    reason = str(err).strip().split('\n')[0] or type(err).__name__
    return ValueError(f'{str(label)!r} cannot be read as a FITS image: '
                      f'{reason}')


def is_plane(hdu):
    """
    Whether an HDU is an image of two or more axes.

    Parameters
    ----------
    hdu : HDU
        Any HDU of astropy.

    Returns
    -------
    plane : bool
        True if it is.
    """
    return (isinstance(hdu, IMAGE_HDUS) and len(hdu.shape) >= 2
            and all(hdu.shape))  # of a broken header, None


def read_pixels(hdu, label):
    """
    Read the pixels of an image HDU.

    Parameters
    ----------
    hdu : image HDU
        The HDU. If it is of a file and not yet read it stays so, as reading
        can change its header.
    label : str
        What to call it in an error message.

    Returns
    -------
    pixels : `~numpy.ndarray`
        The scaled pixels.
    """
    try:
        if 'data' in vars(hdu) or hdu.fileinfo() is None:
            return np.asarray(hdu.data)
        return np.asarray(hdu.section[...])
    except Exception as err:  # noqa: BLE001  anything, if it is corrupt
        raise _corrupt(label, err) from err


def write_plane(path, pixels):
    """
    Write pixels and nothing else, for a program that reads FITS.

    Parameters
    ----------
    path : str or `~pathlib.Path`
        The file; there must be none yet.
    pixels : `~numpy.ndarray`
        (y, x) values.
    """
    fits.PrimaryHDU(pixels).writeto(path)
