# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Names of filters: what they mean in micron, and the order that follows.

Archives write one and the same filter as ``'g'``, ``'HSC-G'``, ``'g.MP9401'``
or ``'g DECam SDSS c0001 4720.0 1520.0'``. `canonical` reduces such a name to
the one used here, `wavelength` gives its effective wavelength, and
`order_bands` sorts bands from blue to red. The wavelengths serve to order
bands and to tell a model which band is which; they are rounded, and are not
for photometry.
"""

import re
import warnings

import numpy as np

from astrodino_seg.errors import BandWarning

__all__ = ['canonical', 'wavelength', 'order_bands']

# One letter: lower case is the SDSS family (SDSS, PS1, DES, KiDS, HSC, LSST;
# the wavelengths are near the mean of these), upper case is Johnson-Cousins
# and the near infrared of VISTA, UKIDSS and 2MASS.
_LETTERS = {'u': 0.356, 'g': 0.481, 'r': 0.622, 'i': 0.764, 'z': 0.906,
            'y': 0.975,
            'U': 0.366, 'B': 0.436, 'V': 0.545, 'R': 0.641, 'I': 0.798,
            'Z': 0.878, 'Y': 1.021, 'J': 1.248, 'H': 1.646, 'K': 2.190}

_NAMED = {'Ks': 2.153, 'FUV': 0.154, 'NUV': 0.231, 'VIS': 0.715,
          'NIR_Y': 1.081, 'NIR_J': 1.367, 'NIR_H': 1.770,
          'IRAC1': 3.551, 'IRAC2': 4.490, 'IRAC3': 5.724, 'IRAC4': 7.884,
          'W1': 3.353, 'W2': 4.603, 'W3': 11.56, 'W4': 22.09}

# Space telescopes, in nanometre: HST (ACS, WFC3, WFPC2), JWST (NIRCam,
# NIRISS, MIRI) and Roman. The number in a name is not enough: it counts nm
# for HST in the optical and 10 nm otherwise. F410M is both; JWST is meant.
_HST_NM = """F218W:223 F225W:237 F255W:260 F275W:271 F300W:299 F300X:281
    F336W:335 F343N:344 F350LP:585 F390W:392 F390M:390 F435W:433 F438W:433
    F439W:431 F450W:456 F467M:468 F475W:475 F475X:494 F502N:501 F547M:545
    F550M:558 F555W:536 F600LP:747 F606W:592 F621M:622 F622W:619 F625W:631
    F656N:656 F657N:657 F658N:658 F675W:672 F689M:688 F702W:692 F763M:761
    F775W:769 F785LP:869 F791W:788 F814W:805 F845M:844 F850LP:903 F892N:892
    F098M:986 F105W:1055 F110W:1153 F125W:1249 F126N:1258 F127M:1274
    F128N:1283 F130N:1301 F132N:1319 F139M:1384 F140W:1392 F153M:1532
    F160W:1537 F164N:1640 F167N:1664"""
_JWST_NM = """F070W:704 F090W:902 F115W:1154 F140M:1405 F150W:1501
    F150W2:1659 F158M:1582 F162M:1627 F164N:1645 F182M:1845 F187N:1874
    F200W:1989 F210M:2096 F212N:2121 F250M:2503 F277W:2762 F300M:2989
    F322W2:3232 F323N:3237 F335M:3362 F356W:3568 F360M:3624 F380M:3825
    F405N:4052 F410M:4082 F430M:4281 F444W:4402 F460M:4630 F466N:4654
    F470N:4708 F480M:4817 F560W:5645 F770W:7639 F1000W:9953 F1130W:11309
    F1280W:12810 F1500W:15064 F1800W:17984 F2100W:20795 F2550W:25365"""
_ROMAN_NM = """F062:620 F087:869 F106:1060 F129:1293 F146:1464 F158:1577
    F184:1842 F213:2125"""

_SPACE = {name: float(nm) / 1000
          for table in (_HST_NM, _JWST_NM, _ROMAN_NM)
          for name, nm in (item.split(':') for item in table.split())}
_WAVELENGTHS = _LETTERS | _NAMED | _SPACE

_ALIASES = {'KS': 'Ks', 'K_S': 'Ks', 'KSHORT': 'Ks', 'KP': 'K',
            'CH1': 'IRAC1', 'CH2': 'IRAC2', 'CH3': 'IRAC3', 'CH4': 'IRAC4',
            'WISE1': 'W1', 'WISE2': 'W2', 'WISE3': 'W3', 'WISE4': 'W4',
            'NISP_Y': 'NIR_Y', 'NISP_J': 'NIR_J', 'NISP_H': 'NIR_H',
            'GP': 'g', 'RP': 'r', 'IP': 'i', 'ZS': 'z'}
_UPPER = {name.upper(): name for name in _NAMED | _SPACE} | _ALIASES

# the surveys whose filters are the lower-case ones however they write them
_SDSS_LIKE = {'sdss', 'hsc', 'des', 'decam', 'decals', 'ps1', 'panstarrs',
              'lsst', 'kids', 'omegacam', 'megacam', 'megaprime', 'cfhtls',
              'legacysurvey', 't80cam', 'skymapper'}
_GLUED = re.compile(rf'({"|".join(sorted(_SDSS_LIKE))})([ugrizy])', re.I)
_NARROW = re.compile(r'(?:NB|IA|IB|IBC)0*(\d{3,4})', re.I)


def canonical(name):
    """
    Reduce the name of a filter to the short one of this module.

    Parameters
    ----------
    name : str
        A name as users or headers write it, with or without the survey,
        instrument or catalogue number around it.

    Returns
    -------
    short : str or `None`
        For example ``'g'``, ``'Ks'`` or ``'F444W'``; `None` if no known
        filter is recognised. Lower and upper case of one letter are
        different filters where both exist (``'z'`` and VISTA ``'Z'``); where
        only one exists, the other case means that one.

    Examples
    --------
    >>> from astrodino_seg.image.filters import canonical
    >>> canonical('g DECam SDSS c0001 4720.0 1520.0'), canonical('HSC-G')
    ('g', 'g')
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
    letters = [token for token in tokens if len(token) == 1]
    sdss_like = any(token.lower() in _SDSS_LIKE for token in tokens)
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
        if case in _LETTERS:
            return case
    return None


def wavelength(name):
    """
    Effective wavelength of a filter.

    Parameters
    ----------
    name : str
        The name of the filter; see `canonical` for what is understood.

    Returns
    -------
    wavelength : float or `None`
        The wavelength in micron, or `None` for an unknown name.

    Examples
    --------
    >>> from astrodino_seg.image.filters import wavelength
    >>> wavelength('f444w')
    4.402
    >>> wavelength('band0') is None
    True
    """
    short = canonical(name)
    if short is None:
        return None
    narrow = _NARROW.fullmatch(short)
    if narrow:
        return int(narrow[1]) / 1000
    return _WAVELENGTHS[short]


def order_bands(names):
    """
    Order of the bands from the shortest to the longest wavelength.

    Parameters
    ----------
    names : sequence of str
        The names of the bands.

    Returns
    -------
    order : tuple of int
        The indices that sort ``names``. Bands of the same wavelength keep
        their order. If any name is unknown, this is ``(0, 1, 2, ...)``.

    Warns
    -----
    BandWarning
        If some names are known and others are not.

    Examples
    --------
    >>> from astrodino_seg.image.filters import order_bands
    >>> order_bands(['z', 'g', 'r'])
    (1, 2, 0)
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
