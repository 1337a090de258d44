# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
FITS files: open them, and read keywords and pixels of an HDU.

Astropy takes some corrupt files for shorter ones; here each is one clear
`ValueError`.
"""

import math
import warnings
from contextlib import ExitStack, contextmanager
from importlib import import_module
from io import BytesIO
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning

from astrodino_seg.errors import AstroDinoUserWarning
from astrodino_seg.files import check_bytes, one_error, read_all

IMAGE_HDUS = (fits.PrimaryHDU, fits.ImageHDU, fits.CompImageHDU)
_COMPRESSED = {b'\x1f\x8b': 'gzip', b'BZh': 'bz2', b'\xfd7zXZ': 'lzma'}
_OTHER_FILES = {
    b'\x89PNG\r\n': 'a PNG picture; bands are read with Pillow, as in '
                    "{'r': numpy.asarray(picture)[..., 0]}",
    b'\xff\xd8\xff': "a JPEG picture; bands are read with Pillow, as in "
                     "{'r': numpy.asarray(picture)[..., 0]}",
    b'#ASDF ': 'an ASDF file; hand in its arrays, as in as_image(tree["roman"]'
               '["data"], error=..., mask=..., bands=...)'}


@contextmanager
def quiet_headers():
    """
    Keep warnings about headers that are odd but can be read from users.

    Yields a list, which has the warnings after the end of the ``with``
    block; those of other packages than astropy are shown then.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always', AstropyWarning)
        yield caught
    for one in caught:
        if not issubclass(one.category, AstropyWarning):
            warnings.warn_explicit(one.message, one.category, one.filename,
                                   one.lineno)


@contextmanager
def open_fits(path):
    """The HDUs of a file, open within the ``with`` block."""
    if str(path).startswith(('http://', 'https://', 'ftp://', 's3://')):
        msg = (f'{str(path)!r} is an address; download the file first, as '
               f'with astropy.utils.data.download_file')
        raise ValueError(msg)
    path = Path(path)
    if path.is_dir():
        msg = f'{str(path)!r} is a directory, not a FITS file'
        raise ValueError(msg)
    if not path.exists():
        msg = f'no such file: {str(path)!r}'
        raise FileNotFoundError(msg)
    with ExitStack() as stack:
        with _readable(path), quiet_headers() as caught:
            file, magic = _whole_file(path, stack)
            for start, what in _OTHER_FILES.items():
                if magic.startswith(start):
                    raise ValueError(f'it is {what}')
            hdus = stack.enter_context(fits.open(file))
            last = _read_headers(hdus) - 1
        if any('Error validating header' in str(one.message)
               for one in caught):
            msg = f'{str(path)!r} is damaged after HDU {last}'
            warnings.warn(msg, AstroDinoUserWarning)
        yield hdus


def _readable(label):
    return one_error(f'{str(label)!r} cannot be read as a FITS image')


def _whole_file(path, stack):
    """
    A file, which is closed with the stack, and how it begins.

    Compressed files are read here, as astropy takes a truncated one for a
    shorter one.
    """
    file = stack.enter_context(
        Path(path).open('rb'))  # noqa: SIM115  the stack closes it
    magic = file.read(6)
    file.seek(0)
    for start, module in _COMPRESSED.items():
        if magic.startswith(start):
            with import_module(module).open(file) as stream:
                content = read_all(stream, repr(str(path)))
            return BytesIO(content), bytes(content[:6])
    return file, magic


def check_table(path):
    """
    Raise for a table that other readers would take without end: one that is
    compressed and becomes too large, or FITS whose headers lead nowhere.
    """
    with ExitStack() as stack:
        file, magic = _whole_file(path, stack)
        if magic == b'SIMPLE':
            _read_headers(stack.enter_context(fits.open(file)))


def _read_headers(hdus):
    """
    Read all headers; gives their number.

    Astropy would go back in the file, and on forever, where the data of one
    has less than no bytes.
    """
    n = 0
    while True:
        try:
            info = hdus[n].fileinfo()
        except IndexError:
            return n
        if info['datSpan'] < 0:
            msg = (f'the header of HDU {n} says that its data have '
                   f'{info["datSpan"]} bytes')
            raise ValueError(msg)
        n += 1


def is_plane(hdu):
    """Whether an HDU is an image of two or more axes."""
    return (isinstance(hdu, IMAGE_HDUS) and len(hdu.shape) >= 2
            and all(hdu.shape))  # of a broken header, None


def header_value(header, key, default=None):
    """The value of a keyword, or the default also if the card is broken."""
    try:
        return header.get(key, default)
    except fits.VerifyError:
        return default


def read_pixels(hdu, label, window=None):
    """
    The scaled pixels of an image HDU, or of a window (y, x) of slices.

    One that is of a file and not yet read stays so, as reading can change
    its header.
    """
    if isinstance(hdu, fits.CompImageHDU):
        check_bytes(math.prod(hdu.shape) * abs(hdu._bitpix) // 8,
                    f'the image in {str(label)!r}')
    with _readable(label):
        at = (..., *window) if window else ...
        if 'data' in vars(hdu) or hdu.fileinfo() is None:
            return np.asarray(hdu.data)[at]
        return np.asarray(hdu.section[at])
