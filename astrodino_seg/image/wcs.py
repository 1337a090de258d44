# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The celestial WCS of a header, and positions on the sky in the frame it has.
"""

import re
import warnings

import numpy as np
from astropy.coordinates import (
    FK4,
    FK5,
    ICRS,
    BarycentricMeanEcliptic,
    FK4NoETerms,
    Galactic,
    SkyCoord,
    Supergalactic,
)
from astropy.io import fits
from astropy.time import Time
from astropy.wcs import WCS
from astropy.wcs.utils import (
    proj_plane_pixel_area,
    proj_plane_pixel_scales,
    wcs_to_celestial_frame,
)
from astropy.wcs.wcsapi import BaseHighLevelWCS, SlicedLowLevelWCS

from astrodino_seg.errors import AstroDinoUserWarning
from astrodino_seg.image.fits import quiet_headers

_TABLE_KEYS = r'(C[PQ](DIS|ERR)\d|D[PQ]\d|D2IM|AXISCORR)'


def celestial_wcs(header, hdus=None):
    """
    The celestial WCS of the first two axes of a header, or None.

    ``hdus`` is the file, for distortions that are tables; the header is not
    changed.
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
    A 2-D copy of the celestial part of a WCS, or None if there is none.

    It has to be the first two axes.
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
    A WCS of 2 or ``ndim`` axes out of one that a user gave.

    It may be wrapped by an `~astropy.nddata.NDData` that was sliced; None if
    it was sliced and has no celestial axes.
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
    return wcs


def sky_frame(wcs):
    """
    The frame that a celestial WCS is in, or None if astropy has none for it.

    The axes tell it first and RADESYS and EQUINOX then (Calabretta & Greisen
    2002, A&A 395, 1077, sections 3.1 and 7.2); astropy asks RADESYS first,
    and takes ecliptic longitudes and latitudes for right ascensions and
    declinations.
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
    if not axis.startswith('RA'):
        try:        # those of the Sun, once sunpy was imported, and of planets
            return wcs_to_celestial_frame(wcs)
        except (ValueError, TypeError, NotImplementedError):
            return None
    return wcs_to_celestial_frame(wcs)


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
