# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
FITS files: open them, and read keywords, pixels and the celestial WCS of an
HDU; and positions on the sky in the frame that a WCS has.

Astropy takes some corrupt files for shorter ones; here each is one clear
`ValueError`.
"""

import math
import re
import warnings
from contextlib import ExitStack, contextmanager
from importlib import import_module
from io import BytesIO
from pathlib import Path

import numpy as np
from astropy.coordinates import (
    FK4,
    FK5,
    ICRS,
    BarycentricMeanEcliptic,
    ConvertError,
    FK4NoETerms,
    Galactic,
    SkyCoord,
    Supergalactic,
)
from astropy.io import fits
from astropy.time import Time
from astropy.utils.exceptions import AstropyWarning
from astropy.wcs import WCS
from astropy.wcs.utils import (
    proj_plane_pixel_area,
    proj_plane_pixel_scales,
    wcs_to_celestial_frame,
)
from astropy.wcs.wcsapi import BaseHighLevelWCS, SlicedLowLevelWCS

from astrodino_seg.errors import AstroDinoUserWarning
from astrodino_seg.files import check_bytes, one_error, read_all

IMAGE_HDUS = (fits.PrimaryHDU, fits.ImageHDU, fits.CompImageHDU)
_COMPRESSED = {b'\x1f\x8b': 'gzip', b'BZh': 'bz2', b'\xfd7zXZ': 'lzma'}
_OTHER_FILES = {
    b'\x89PNG\r\n': 'a PNG picture; bands are read with Pillow, as in '
                    "{'r': numpy.asarray(picture)[..., 0]}",
    **dict.fromkeys(
        [b'\xff\xd8\xff', b'GIF8', b'II*\x00', b'MM\x00*'],
        "a JPEG, GIF or TIFF picture; bands are read with Pillow, as in {'r': "
        "numpy.asarray(picture)[..., 0]}"),
    **dict.fromkeys([b'<html', b'<HTML', b'<!DOC', b'<!doc'],
                    'a web page, as in place of a file that failed to '
                    'download'),
    b'\x89HDF': 'an HDF5 file; hand in its arrays',
    b'#ASDF ': 'an ASDF file; hand in its arrays, as in as_image(tree["roman"]'
               '["data"], error=..., mask=..., bands=...)'}
_TABLE_KEYS = r'(C[PQ](DIS|ERR)\d|D[PQ]\d|D2IM|AXISCORR)'


@contextmanager
def quiet_headers():
    """
    Keep warnings about headers that are odd but can be read from users; yields
    a list, which has them after the end of the ``with`` block.
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
    if re.match(r'\w{2,}:/', str(path)):      # pathlib takes one / away
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
    A file, which is closed with the stack, and how it begins. Compressed ones
    are read here: astropy takes a truncated one for a shorter one.
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
    Raise for a table that other readers would take without end: a compressed
    one that becomes too large, or FITS whose headers lead nowhere.
    """
    with ExitStack() as stack:
        file, magic = _whole_file(path, stack)
        if magic == b'SIMPLE':
            _read_headers(stack.enter_context(fits.open(file)))


def _read_headers(hdus):
    """
    Read all headers; gives their number. Astropy would go on forever where the
    data of one has less than no bytes.
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
    The scaled pixels of an image HDU, or of a window (y, x) of slices. One
    that was not yet read stays so, as reading can change its header.
    """
    if isinstance(hdu, fits.CompImageHDU):
        check_bytes(math.prod(hdu.shape) * abs(hdu._bitpix) // 8,
                    f'the image in {str(label)!r}')
    with _readable(label):
        at = (..., *window) if window else ...
        if 'data' in vars(hdu) or hdu.fileinfo() is None:
            return np.asarray(hdu.data)[at]
        return np.asarray(hdu.section[at])


def celestial_wcs(header, hdus=None):
    """
    The celestial WCS of the first two axes of a header, or None; ``hdus`` is
    the file, for distortions that are tables.
    """
    header = header.copy()
    if hdus is None and _has_tables(header):
        msg = ('the distortion tables of the WCS are in other HDUs and are '
               'ignored; hand in the file or the HDUList')
        warnings.warn(msg, AstroDinoUserWarning, stacklevel=2)
        header = fits.Header([card for card in header.cards if not
                              re.match(_TABLE_KEYS, card.keyword)])
    try:
        with quiet_headers(), np.errstate(all='ignore'):
            wcs = WCS(header, fobj=hdus)
            wcs = image_plane(wcs)
            area = 0 if wcs is None else proj_plane_pixel_area(wcs)
    except WrongAxesError:
        raise
    except Exception as err:  # noqa: BLE001  wcslib and astropy raise many
        msg = f'the WCS of the header cannot be used: {err}'.split('\n')[0]
        warnings.warn(msg, AstroDinoUserWarning, stacklevel=2)
        return None
    return wcs if np.isfinite(area) and area > 0 else None


def _has_tables(header):
    """Whether a header has distortions by lookup table."""
    return any(str(card.value).upper() == 'LOOKUP'
               or card.keyword.startswith(('D2IM', 'AXISCORR'))
               for card in header.cards
               if re.match(_TABLE_KEYS, card.keyword))


class WrongAxesError(ValueError):
    """The sky is not on the axes on which it has to be."""


def image_plane(wcs):
    """
    A 2-D copy of the celestial part of a WCS, which has to be the first two
    axes; or None if there is none.
    """
    if not wcs.has_celestial:
        return None
    if {wcs.wcs.lng, wcs.wcs.lat} != {0, 1}:
        msg = (f'the WCS axes are {list(wcs.wcs.ctype)}; the first two (the '
               f'last two of the array) must be the celestial ones')
        raise WrongAxesError(msg)
    return wcs.celestial if wcs.naxis > 2 else wcs.deepcopy()


def fits_wcs(wcs, ndim, name):
    """
    The `image_plane` of a WCS of 2 or ``ndim`` axes that a user gave, be it
    wrapped by an `~astropy.nddata.NDData` that was sliced.
    """
    if not isinstance(wcs, WCS) and isinstance(wcs, BaseHighLevelWCS):
        wcs = wcs.low_level_wcs
    if isinstance(wcs, SlicedLowLevelWCS) and isinstance(wcs._wcs, WCS):
        # there is no public way back to the WCS
        slices = [one for one in wcs._slices_array if isinstance(one, slice)]
        wcs = image_plane(wcs._wcs)
        return None if wcs is None else wcs.slice(slices[-2:])
    if not isinstance(wcs, WCS):
        cure = ('; astropy.wcs.WCS(header) makes one'
                if isinstance(wcs, fits.Header) else '')
        msg = (f'{name} must be an astropy.wcs.WCS, got '
               f'{type(wcs).__name__}{cure}')
        raise TypeError(msg)
    if wcs.naxis not in (2, ndim):
        msg = (f'{name} has {wcs.naxis} axes; it must have 2, or as many as '
               f'the array, {ndim}')
        raise ValueError(msg)
    return image_plane(wcs)


def sky_frame(wcs):
    """
    The frame that a celestial WCS is in, or None if astropy has none for it.
    The axes tell it first and RADESYS and EQUINOX then (Calabretta & Greisen
    2002, A&A 395, 1077, sections 3.1 and 7.2); astropy takes ecliptic
    longitudes and latitudes for right ascensions and declinations.
    """
    axis = wcs.wcs.ctype[wcs.wcs.lng][:4]
    equinox = wcs.wcs.equinox
    if axis == 'GLON':
        return Galactic()
    if axis == 'SLON':
        return Supergalactic()
    if axis == 'ELON':
        year = 2000.0 if np.isnan(equinox) else equinox
        style = 'byear' if wcs.wcs.radesys.startswith('FK4') else 'jyear'
        return BarycentricMeanEcliptic(equinox=Time(year, format=style))
    if axis == 'TLON':      # on the ground
        return None
    try:        # those of the Sun, once sunpy was imported, and of planets
        return wcs_to_celestial_frame(wcs)
    except (ValueError, TypeError, NotImplementedError):
        return None


def sky_coordinates(wcs, x, y):
    """Positions of pixels, in the frame of the WCS; ecliptic ones in ICRS."""
    frame = sky_frame(wcs)
    first, second = wcs.pixel_to_world_values(x, y)
    if wcs.wcs.lng == 1:
        first, second = second, first
    if frame is None:
        return None
    try:
        sky = SkyCoord(first, second, unit='deg', frame=frame)
    except (TypeError, ValueError):    # geodetic and the like
        return None
    # few programs know ecliptic coordinates
    return (sky.icrs if isinstance(frame, BarycentricMeanEcliptic) else sky)


def in_icrs(sky):
    """
    Coordinates in ICRS; `None` of `None`, and of frames that astropy knows no
    way from, as those of the Sun whose observer is not known.
    """
    try:
        return None if sky is None else sky.transform_to(ICRS())
    except ConvertError:
        return None


def sky_to_pixels(image, positions):
    """Pixels of positions on the sky, the inverse of `Image.sky`."""
    wcs = image.wcs
    frame = wcs and sky_frame(wcs)
    if frame is None:
        msg = 'positions are on the sky, and the image has no WCS' + (
            f' that astropy knows, but {list(wcs.wcs.ctype)}' if wcs else '')
        raise ValueError(msg)
    sky = positions.transform_to(frame).spherical
    both = sky.lon.deg, sky.lat.deg
    with warnings.catch_warnings():
        # distortions do not converge far off the image
        warnings.simplefilter('ignore')
        x, y = wcs.world_to_pixel_values(
            *(both if wcs.wcs.lng == 0 else both[::-1]))
        back = image.sky(x, y)
    good = (back.separation(positions.transform_to(back.frame)).deg
            < proj_plane_pixel_scales(wcs).min())
    return np.where(good, x, np.nan), np.where(good, y, np.nan)


def ds9_positions(image, x, y):
    """Positions of pixels in a frame that DS9 has."""
    sky = image.sky(x, y)
    if sky is None:
        return None
    frame = sky.frame
    if (isinstance(frame, (ICRS, Galactic))
            or isinstance(frame, FK5) and frame.equinox == Time('J2000')
            or isinstance(frame, FK4) and frame.equinox == Time('B1950')):
        return sky
    if isinstance(frame, (FK4, FK5, FK4NoETerms, Supergalactic)):
        return sky.icrs
    return None
