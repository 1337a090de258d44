# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What headers say of an image: which plane it is, which of its pixels are bad,
its filter, its unit, and whether it is linear. Who writes what is in
``data/layouts.toml``.
"""

import re
import tomllib
import warnings
from dataclasses import dataclass, field
from numbers import Integral
from pathlib import Path

import astropy.units as u
import numpy as np

from astrodino_seg.errors import AstroDinoUserWarning
from astrodino_seg.image.filters import canonical
from astrodino_seg.image.fits import header_value


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """What one pipeline writes, as ``data/layouts.toml`` has it."""

    name: str
    planes: str
    source: str
    told_by: dict
    bits: tuple = ()
    values: tuple = ()
    names: tuple = ()
    filters: dict = field(default_factory=dict)


_TABLES = tomllib.loads(
    (Path(__file__).parents[1] / 'data' / 'layouts.toml').read_text())
FILTER_KEYS, ROLES = _TABLES['filter_keys'], _TABLES['roles']
PIPELINES = [Pipeline(**one) for one in _TABLES['pipelines']]


def _by_word(table):
    return {word: key for key, words in table.items()
            for word in words.split()}


_WORDS, _UNIT_WORDS = _by_word(ROLES), _by_word(_TABLES['units'])
# in capitals M is mega, and one letter is what it is
_UNIT_EXACT = {**dict.fromkeys(['MJY', 'MJy', 'Mjy'], 'MJy'), 'S': 's',
               'K': 'K', 'm': 'm', 'A': 'angstrom', 'W': 'W', 'M': 'm'}
_NO_UNIT = {'none', 'unitless', 'dimensionless'}
_UTYPES = {'StdDevUncertainty': 'std', 'VarianceUncertainty': 'var',
           'InverseVariance': 'ivar', 'UnknownUncertainty': 'skip'}
_ESO = {('DATA', ''): 'science', ('ERROR', 'MSE'): 'var',
        ('ERROR', 'RMSE'): 'std', ('ERROR', 'INVMSE'): 'ivar',
        ('QUALITY', ''): 'mask', ('QUALITY', 'MASKONE'): 'good'}


def told(*headers):
    """The pipeline that headers tell of, that of the plane first; or None."""
    def has(keys, pattern):
        if keys == 'MP_*':
            return any(key.startswith('MP_') for key in headers[0])
        return any(isinstance(value, (str, int, float))
                   and re.match(pattern, str(value).strip(), re.I)
                   for one in headers if one is not None
                   for key in keys.split('|')
                   if (value := header_value(one, key)) is not None)

    for pipeline in PIPELINES:
        if all(has(*rule) for rule in pipeline.told_by.items()):
            return pipeline
    return None


def role_of(header):
    """
    What a plane is by its header, a key of `ROLES` or None; and what is left
    of its EXTNAME without the words for that: a detector or a band.
    """
    name = str(header_value(header, 'EXTNAME', ''))
    role, rest = _by_words(name)
    eso = [str(header_value(header, f'HDUCLAS{k}', '')).strip() for k in '23']
    if eso[0] in ('DATA', 'ERROR', 'QUALITY'):
        role = _ESO.get(tuple(eso), _ESO.get((eso[0], ''), role))
    for key in ('EXTTYPE', 'IMAGETYP'):
        text = str(header_value(header, key, '')).strip()
        if role is None and re.fullmatch(r'\w+', text):    # no phrase
            role = _by_words(text)[0]
    if role == 'std' and 'UTYPE' in header:         # of CCDData
        role = _UTYPES.get(header_value(header, 'UTYPE'), 'skip')
    return role, rest


def _by_words(text):
    """The role that a name tells, and what else is in it."""
    words = [word for word in re.split(r'[^a-z0-9]+', text.lower()) if word]
    if words == ['compressed', 'image']:            # astropy's for no name
        return None, ''
    roles, rest = set(), []
    while words:
        for n in (3, 2, 1):
            word = ''.join(words[:n])
            number = word[len(word.rstrip('0123456789')):]
            for one in (word, word.rstrip('0123456789'), re.sub(
                    '(map|image|img|plane|array)s?$', '', word)):
                if one in _WORDS and len(words) >= n:
                    break
            else:
                continue
            roles.add(_WORDS[one])
            rest += [number] * (one != word and number != '')
            break
        else:
            n = 1
            rest.append(words[0])
        words = words[n:]
    role = next((role for role in ROLES if role in roles), None)
    return role, ' '.join(rest)


def bad_pixels(array, header, *others, bad_bits=None):
    """
    Which pixels a mask marks, (y, x) bool; or, as a str, why none is used.
    ``others`` are the headers of its image and its file. By the first that
    there is: ``bad_bits`` of the user (0 for none, 'any'), the bits that the
    header names, those of its pipeline, the one value that all marked pixels
    have, and any value if the name says bad pixels.
    """
    if bad_bits == 'any':
        return array != 0               # NaN too
    nonzero = array[array != 0]
    if nonzero.size == 0 and bad_bits is None:
        return np.zeros(array.shape, bool)
    if array.dtype.kind == 'f' and not (
            np.isfinite(nonzero) & (nonzero == np.rint(nonzero))).all():
        return 'its values are no integers'
    bits, values = bad_bits, ()
    pipeline = told(header, *others)
    if bits is None and pipeline is not None:
        bits, values = sum(pipeline.bits) or None, pipeline.values
        named = [header_value(header, f'MP_{name}')
                 for name in pipeline.names]
        if pipeline.names:
            bits = sum(1 << plane for plane in named
                       if isinstance(plane, int)) or None
        quality = header_value(header, 'QUALMASK')
        if bits == -1 and isinstance(quality, int):     # ESO
            bits = quality
    if values:
        return np.isin(array, values)
    if bits is not None:
        return (array.astype(np.int64) & bits) != 0
    name = str(header_value(header, 'EXTNAME', '')).lower()
    if (nonzero == nonzero[0]).all() or re.search('bpm|bad', name):
        return array != 0
    return ('the meaning of its bits is not known; bad_bits tells those that '
            'are bad')


def filter_of(header, primary=None, *, known=True):
    """
    The filter that a header names, in the short form if it is known; with
    ``known=False`` also one that `canonical` does not know; else None.
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


def names_of(header, primary, n_bands, band, stem):
    """
    The names of the bands of a science plane, or None; ``band`` is that of the
    plane, ``stem`` the name of the file.
    """
    if n_bands > 1:
        return bands_of(header, n_bands)
    for name in (filter_of(header, primary), band,
                 primary is not None and filter_of(primary),
                 canonical(stem)):
        if name:
            return [name]
    return bands_of(header, 1) or (
        primary is not None and bands_of(primary, 1) or None)


def unit_of(header, primary=None):
    """
    The unit that BUNIT names, in spellings of pipelines in any case, or None;
    and BUNIT if it is not understood.
    """
    text = str(header_value(header, 'BUNIT') or (
        primary is not None and header_value(primary, 'BUNIT')) or '').strip()
    if text.lower() in _NO_UNIT:
        return None, None
    spelled = re.sub(r'(?<![\w.])[eE]-(?!\d)', 'electron', text)
    # of an antenna or of brightness: 'K (Ta*)'
    spelled = re.sub(r'^(m?K)\s*\(.*\)$', r'\1', spelled)
    # of a line: 'Jy/beam.km/s' is a product
    spelled = re.sub(r'^(.*\S)[\s.*]+km/s$', r'km s-1 \1', spelled,
                     flags=re.I)
    # all words, but not the e of 1e-17
    spelled = re.sub(r'(?!(?<=[\d.])[eE][+-]?\d)[A-Za-z]+',
                     lambda word: _UNIT_EXACT.get(word[0], _UNIT_WORDS.get(
                         word[0].lower(), word[0])), spelled)
    for one in (spelled, text):
        try:
            unit = u.Unit(one)
        except (ValueError, TypeError):
            continue
        return None if unit == u.dimensionless_unscaled else unit, None
    return None, text


def linear(pixels, header, primary=None):
    """
    Linear fluxes of pixels, float64 if they were not linear, as the stacks of
    Pan-STARRS1: ``2.5 log10(e) arsinh((flux - BOFFSET) / (2 BSOFTEN))``.
    """
    softening, offset = (
        next((value for one in (header, primary) if one is not None
              if isinstance(value := header_value(one, key), (int, float))),
             None) for key in ('BSOFTEN', 'BOFFSET'))
    if not softening or offset is None:
        return pixels
    with np.errstate(over='ignore', invalid='ignore'):
        return offset + 2 * softening * np.sinh(
            pixels.astype(float) / (2.5 * np.log10(np.e)))


def check_bits(bad_bits):
    """Raise if these are no bits."""
    if bad_bits != 'any' and (
            isinstance(bad_bits, bool) or not isinstance(bad_bits, Integral)):
        msg = (f"bad_bits must be an int, the sum of bits, 'any' or None, "
               f'got {bad_bits!r}')
        raise ValueError(msg)


def warn_of_bits(bad_bits, label):
    """Say that bits were given for what has no mask with bits."""
    if bad_bits is not None:
        msg = f'bad_bits is not used: {label} has no mask of bits'
        warnings.warn(msg, AstroDinoUserWarning)
