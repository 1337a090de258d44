# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Names of filters: what they mean in micron, and the order that follows.
Archives write one filter as ``'g'``, ``'HSC-G'`` or ``'g DECam SDSS c0001
4720.0 1520.0'``; `canonical` has one name for it. Wavelengths serve to order
bands, and are not for photometry.
"""

import re
import warnings
from pathlib import Path

import numpy as np

from astrodino_seg.errors import BandWarning


def _read():
    """Wavelengths by name, and names by the other names in upper case."""
    path = Path(__file__).parents[1] / 'data' / 'filters.txt'
    wavelengths, names = {}, {}
    for line in path.read_text().splitlines():
        if line and not line.startswith('#'):
            name, micron, *others = line.split()
            wavelengths[name] = float(micron)
            names |= dict.fromkeys(others, name)
            if len(name) > 1:
                names[name.upper()] = name
    return wavelengths, names


_WAVELENGTHS, _UPPER = _read()

# the surveys whose filters are the lower-case ones however they write them
_SDSS_LIKE = {'sdss', 'hsc', 'des', 'decam', 'decals', 'ps1', 'panstarrs',
              'lsst', 'kids', 'omegacam', 'megacam', 'megaprime', 'cfhtls',
              'legacysurvey', 't80cam', 'skymapper'}
_GLUED = re.compile(rf'({"|".join(sorted(_SDSS_LIKE))})([ugrizy])2?', re.I)
_NARROW = re.compile(r'(?:NB|IA|IB|IBC)0*(\d{3,4})', re.I)


def canonical(name):
    """
    The short name of a filter, as ``'g'``, ``'Ks'`` or ``'F444W'``, or `None`.
    Lower and upper case of one letter are different filters where both exist
    (``'z'`` and VISTA ``'Z'``).
    """
    name = str(name).strip().replace("'", '')
    if name in _WAVELENGTHS:
        return name
    tokens = [token for token in re.split(r'[^A-Za-z0-9]+', name) if token]
    words = ['_'.join(pair) for pair in zip(tokens, tokens[1:])] + tokens
    for word in (name, *words):
        short = _known_word(word)
        if short is not None:
            return short
    sdss_like = any(token.lower() in _SDSS_LIKE for token in tokens)
    if sdss_like:       # HSC has an r2 and an i2
        tokens = [re.sub('^([RrIi])2$', r'\1', one) for one in tokens]
    letters = [token for token in tokens if len(token) == 1]
    # the filter comes first ('g.MP9401') or last ('decam_g')
    for letter in (tokens[:1] + letters[::-1] if letters else []):
        short = _known_letter(letter, sdss_like)
        if short is not None:
            return short
    return None


def _known_word(word):
    """The filter that a name of two or more characters means, or None."""
    if len(word) < 2:
        return None
    upper = word.upper()
    if upper in _UPPER:
        return _UPPER[upper]
    glued = _GLUED.fullmatch(word)
    if glued:
        return glued[2].lower()
    if _NARROW.fullmatch(word):
        return upper
    return None


def _known_letter(letter, sdss_like):
    """The filter that one letter means, or None."""
    if len(letter) != 1:
        return None
    if sdss_like and letter.lower() in 'ugrizy':
        return letter.lower()
    for case in (letter, letter.upper(), letter.lower()):
        if case in _WAVELENGTHS:
            return case
    return None


def wavelength(name):
    """The effective wavelength in micron, or `None` of an unknown name."""
    short = canonical(name)
    if short is None:
        return None
    narrow = _NARROW.fullmatch(short)
    if narrow:
        return int(narrow[1]) / 1000
    return _WAVELENGTHS[short]


def order_bands(names):
    """
    The indices, a tuple, that sort bands from blue to red. If any name is
    unknown, they keep their order, with a `BandWarning` if others are known.
    """
    known = [wavelength(name) for name in names]
    unknown = [str(name) for name, value in zip(names, known)
               if value is None]
    if unknown:
        if len(unknown) < len(known):
            msg = (f'the wavelengths of the bands {unknown} are not known; '
                   f'the bands keep the order in which they were given')
            warnings.warn(msg, BandWarning, stacklevel=2)
        return tuple(range(len(known)))
    return tuple(int(index) for index in np.argsort(known, kind='stable'))
