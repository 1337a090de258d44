# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What a FITS header says about an image: its WCS, its unit, its filter.
"""

import re
import warnings
from contextlib import contextmanager

import astropy.units as u
import numpy as np
from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning
from astropy.wcs import WCS
from astropy.wcs.utils import proj_plane_pixel_area

from astrodino_seg.errors import AstroDinoUserWarning
from astrodino_seg.image.filters import canonical

__all__ = ['celestial_wcs', 'header_bands', 'header_filter', 'header_unit',
           'header_value', 'image_plane', 'quiet_headers']

_FILTER_KEYS = ('BAND', 'PUPIL', 'FILTER', 'FILTER1', 'FILTER2', 'FILTER3',
                'FILTNAM1', 'FILTNAM2', 'FPA.FILTERID', 'FPA.FILTER',
                'ESO INS FILT1 NAME')
_UNITS = {'electrons': 'electron', 'counts': 'count', 'nanomaggies': 'nmgy',
          'adu': 'adu', 'dn': 'DN', 'e-': 'electron', 'e-/s': 'electron/s',
          'electrons/s': 'electron/s', 'counts/s': 'count/s'}
_TABLE_KEYS = r'(C[PQ](DIS|ERR)\d|D[PQ]\d|D2IM|AXISCORR)'


@contextmanager
def quiet_headers():
    """
    Keep warnings about headers that are odd but can be read from users.

    Yields
    ------
    caught : list of `~warnings.WarningMessage`
        The warnings within the ``with`` block, after its end. Those of other
        packages than astropy are shown then.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always', AstropyWarning)
        yield caught
    for one in caught:
        if not issubclass(one.category, AstropyWarning):
            warnings.warn_explicit(one.message, one.category, one.filename,
                                   one.lineno)


def header_value(header, key, default=None):
    """
    The value of a keyword, or the default also if the card is broken.

    Parameters
    ----------
    header : `~astropy.io.fits.Header` or dict
        The header.
    key : str
        The keyword.
    default : object, optional
        The value if there is no other.

    Returns
    -------
    value : object
        The value.
    """
    try:
        return header.get(key, default)
    except fits.VerifyError:
        return default


def header_bands(header, n_bands):
    """
    The names of the bands that a header gives.

    Parameters
    ----------
    header : `~astropy.io.fits.Header` or dict
        The header, with the keyword BAND or FILTER or the like for one band,
        and BANDS or BAND0, BAND1, ... for several.
    n_bands : int
        The number of bands.

    Returns
    -------
    names : list of str, or `None`
        The names, if there is one for each band.
    """
    if n_bands == 1:
        name = header_filter(header) or header_filter(header, known=False)
        return [name] if name else None
    names = [header_value(header, f'BAND{i}') for i in range(n_bands)]
    if None in names:
        names = header_value(header, 'BANDS') or ''
        if isinstance(names, str):
            names = names.split(',') if ',' in names else names.strip()
    names = [str(name).strip() for name in names]
    return names if len(names) == n_bands and all(names) else None


def header_filter(header, *, known=True):
    """
    The filter that a header names.

    Parameters
    ----------
    header : `~astropy.io.fits.Header` or dict
        The header.
    known : bool, optional
        Whether only a filter counts that is known by
        `~astrodino_seg.image.filters.canonical`.

    Returns
    -------
    name : str or `None`
        The name, in the short form if it is known.
    """
    values = [header_value(header, key) for key in _FILTER_KEYS]
    values = [value.strip() for value in values if isinstance(value, str)]
    for value in values:
        name = canonical(value)
        if name is not None:
            return name
    if known:
        return None
    return next((value for value in values
                 if value.upper() not in ('', 'CLEAR', 'NONE', 'N/A')), None)


def header_unit(header):
    """
    The unit that BUNIT names.

    Parameters
    ----------
    header : `~astropy.io.fits.Header`
        The header.

    Returns
    -------
    unit : `~astropy.units.UnitBase` or `None`
        The unit; `None` if it is missing, empty or not understood.
    """
    text = str(header_value(header, 'BUNIT') or '').strip()
    try:
        unit = u.Unit(_UNITS.get(text.lower(), text))
    except (ValueError, TypeError):
        return None
    return None if unit == u.dimensionless_unscaled else unit


def celestial_wcs(header, hdus=None):
    """
    Read the celestial WCS of the first two axes of a header.

    Parameters
    ----------
    header : `~astropy.io.fits.Header`
        The header; it is not changed.
    hdus : `~astropy.io.fits.HDUList`, optional
        The file, for distortions that are tables.

    Returns
    -------
    wcs : `~astropy.wcs.WCS` or `None`
        A 2-D WCS, or `None` if the header has none that is celestial.
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


class WrongAxesError(ValueError):
    """The sky is not on the axes on which it has to be."""


def image_plane(wcs):
    """
    The celestial part of a WCS, which has to be its first two axes.

    Parameters
    ----------
    wcs : `~astropy.wcs.WCS`
        A WCS of two or more axes; it is not changed.

    Returns
    -------
    wcs : `~astropy.wcs.WCS` or `None`
        A 2-D copy, or `None` if there is no celestial part.
    """
    if not wcs.has_celestial:
        return None
    if {wcs.wcs.lng, wcs.wcs.lat} != {0, 1}:
        msg = (f'the WCS axes are {list(wcs.wcs.ctype)}; the first two (the '
               f'last two of the array) must be the celestial ones')
        raise WrongAxesError(msg)
    return wcs.celestial if wcs.naxis > 2 else wcs.deepcopy()


def _has_tables(header):
    """Whether a header has distortions by lookup table."""
    return any(str(card.value).upper() == 'LOOKUP'
               or card.keyword.startswith(('D2IM', 'AXISCORR'))
               for card in header.cards
               if re.match(_TABLE_KEYS, card.keyword))
