# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What headers say of an image: its filter, its unit, and whether it is linear.
"""

import re

import astropy.units as u
import numpy as np

from astrodino_seg.image.filters import canonical
from astrodino_seg.image.fits import header_value
from astrodino_seg.image.layouts import FILTER_KEYS, told

__all__ = ['bands_of', 'filter_of', 'linear', 'unit_of']

_UNIT_WORDS = {
    word: unit for unit, words in {
        'electron': 'electron electrons electr', 'count': 'count counts cts',
        'nmgy': 'nanomaggies nanomaggy nmgy', 'mgy': 'maggy maggies mgy',
        'adu': 'adu adus', 'DN': 'dn dns', 'photon': 'photon photons ph',
        's': 's sec secs second seconds', 'beam': 'beam beams bm',
        'pix': 'pixel pixels pix', 'sr': 'sr ster steradian',
        'Jy': 'jy jansky janskys', 'mJy': 'mjy', 'uJy': 'ujy microjy',
        'nJy': 'njy nanojansky', 'kJy': 'kjy', 'K': 'kelvin', 'Hz': 'hz',
        'erg': 'erg ergs', 'cm': 'cm', 'arcsec': 'arcsec',
        'arcsec2': 'arcsec2 sqarcsec', 'angstrom': 'angstrom angstroms ang',
    }.items() for word in words.split()}
# in capitals M is mega, and one letter is what it is
_UNIT_EXACT = {'MJY': 'MJy', 'MJy': 'MJy', 'S': 's', 'K': 'K', 'm': 'm',
               'A': 'angstrom', 'W': 'W', 'M': 'm'}


def filter_of(header, primary=None, *, known=True):
    """
    The filter that a header names, in the short form if it is known.

    With ``known=False`` also one that `canonical` does not know; else None.
    """
    name = header_value(header, 'FILTER')
    if name and primary is not None and any(        # of write_image
            re.fullmatch(r'BAND\d+', key)
            and header_value(primary, key) == name for key in primary):
        return name
    pipeline = told(header, primary)
    for key, names in (pipeline.filters if pipeline else {}).items():
        value = str(header_value(header, key, '')).strip()
        if value in names:
            return names[value]
    values = [header_value(header, key) for key in FILTER_KEYS]
    values = [value.strip() for value in values if isinstance(value, str)]
    for value in values:
        name = canonical(value)
        if name is not None:
            return name
    if known:
        return None
    return next((value for value in values
                 if value.upper() not in ('', 'CLEAR', 'NONE', 'N/A')), None)


def bands_of(header, n_bands):
    """The names of the bands that a header gives, or None."""
    if n_bands == 1:
        name = filter_of(header) or filter_of(header, known=False)
        return [name] if name else None
    names = [header_value(header, f'BAND{i}') for i in range(n_bands)]
    if None in names:
        names = header_value(header, 'BANDS') or ''
        if isinstance(names, str):
            names = names.split(',') if ',' in names else names.strip()
    names = [str(name).strip() for name in names]
    return names if len(names) == n_bands and all(names) else None


def unit_of(header, primary=None):
    """
    The unit that BUNIT names, or None; and BUNIT if it is not understood.

    Spellings of pipelines in any case, as JY/BEAM, DN/S and electrons/sec.
    """
    text = str(header_value(header, 'BUNIT') or (
        primary is not None and header_value(primary, 'BUNIT')) or '').strip()
    spelled = re.sub(r'(?<![\w.])e-(?!\d)', 'electron', text)
    spelled = re.sub(r'[A-Za-z]+', lambda word: _UNIT_EXACT.get(
        word[0], _UNIT_WORDS.get(word[0].lower(), word[0])), spelled)
    for one in (spelled, text):
        try:
            unit = u.Unit(one)
        except (ValueError, TypeError):
            continue
        return None if unit == u.dimensionless_unscaled else unit, None
    return None, text


def linear(pixels, header, primary=None):
    """
    Linear fluxes of pixels, float64 if they were not linear.

    The stacks of Pan-STARRS1 are ``alpha arsinh((flux - BOFFSET) / (2
    BSOFTEN))`` with ``alpha = 2.5 log10(e)``, see `PIPELINES`.
    """
    softening, offset = (
        next((value for one in (header, primary) if one is not None
              if isinstance(value := header_value(one, key), (int, float))),
             None) for key in ('BSOFTEN', 'BOFFSET'))
    if softening is None or offset is None:
        return pixels
    with np.errstate(over='ignore', invalid='ignore'):
        return offset + 2 * softening * np.sinh(
            pixels.astype(float) / (2.5 * np.log10(np.e)))
