# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
FITS files and HDUs to layers: which plane belongs to which, and what it says.
"""

import re
import warnings
from dataclasses import dataclass
from pathlib import Path

import astropy.units as u
import numpy as np
from astropy.io import fits

from astrodino_seg.errors import AstroDinoUserWarning
from astrodino_seg.image.filters import canonical
from astrodino_seg.image.fits import (
    celestial_wcs,
    header_value,
    is_plane,
    open_fits,
    quiet_headers,
    read_pixels,
)
from astrodino_seg.image.layer import POWER, split_cube
from astrodino_seg.image.layouts import (
    bad_pixels,
    filter_of,
    linear,
    names_of,
    role_of,
    unit_of,
    warn_of_bits,
)

_NOISE = ('std', 'ivar', 'var')         # the first that there is is used
_WEIGHTS = ('weight', 'good')           # bad where they are not positive
#: A larger share of bad pixels is told: some masks are 1 where all is good.
MOST_BAD = 0.95
_CHIP_KEYS = ('CCDNUM', 'CCDCHIP', 'CCDNAME', 'DETID', 'DETNAME', 'CHIP',
              'DET_ID', 'CCDID', 'DETECTOR', 'AMPNAME')


@dataclass(frozen=True, eq=False)
class Plane:
    """An image HDU, what it holds, and what tells which it belongs to."""

    hdu: object
    number: int
    role: str | None
    rest: str
    band: str | None
    chip: str | None
    window: tuple | None

    @property
    def name(self):
        """How to call it in messages."""
        hdu = self.hdu
        return f'{self.number} ({hdu.name or "no name"},{hdu.ver})'

    def pixels(self, label):
        """Its pixels in the window."""
        return read_pixels(self.hdu, label, self.window)

    def fits_on(self, science):
        """Whether it has the pixels of a science plane, or of its bands."""
        mine, its = _trim(self.hdu.shape), _trim(science.hdu.shape)
        return mine in (its, its[-2:])


def _trim(shape):
    """A shape without leading axes of length 1."""
    while len(shape) > 2 and shape[0] == 1:
        shape = shape[1:]
    return tuple(shape)


def read_path(path, bad_bits=None, window=None):
    """
    The layers of a FITS file, or of a window (y, x) of slices. Its path can
    have an HDU at the end, as ``'file.fits[1]'`` or ``'file.fits[SCI,2]'``.
    """
    key = None
    suffix = re.fullmatch(r'(.+)\[(\w+)(?:, *(\d+))?\]', str(path))
    if suffix and not Path(path).exists():
        path, name, version = suffix.groups()
        key = (int(name) if name.isdigit()
               else name if version is None else (name, int(version)))
    stem = re.sub(r'(\.fits?|\.fts|\.fz|\.gz|\.bz2|\.xz|\.Z)+$', '',
                  Path(path).name)
    with open_fits(path) as hdus:
        if key is None:
            return read_hdus(hdus, label=str(path), stem=stem,
                             bad_bits=bad_bits, window=window)
        try:
            hdu = hdus[key]
        except (KeyError, IndexError):
            names = [(i, one.name) for i, one in enumerate(hdus)]
            msg = f'{path!r} has no HDU {key!r}; it has {names}'
            raise ValueError(msg) from None
        return read_hdus(hdu, hdus=hdus, label=f'{path}[{key}]', stem=stem,
                         bad_bits=bad_bits, window=window)


def read_hdus(source, *, hdus=None, label='data', stem=None, bad_bits=None,
              window=None):
    """
    The layers of a list of HDUs, whose uncertainties and masks are found; or
    of one HDU, whatever it is called, with planes from its list ``hdus``.
    """
    single = not isinstance(source, fits.HDUList)
    if single and not is_plane(source):
        msg = f'{label!r} is not an image HDU with two or more axes'
        raise ValueError(msg)
    with quiet_headers():
        if single and hdus is None:
            hdus = [source]
        every = source if not single else hdus
        primary = every[0].header if len(every) > 1 else None
        planes = [_plane(hdu, k, primary, window)
                  for k, hdu in enumerate(every) if is_plane(hdu)]
        science, unknown = _science(planes)
        if single:
            chosen = [one for one in planes if one.hdu is source]
            if chosen[0] not in science:
                science, planes = chosen, chosen    # whatever it is called
            unknown, left = [], []
        else:
            if not science:
                names = [(i, hdu.name) for i, hdu in enumerate(source)]
                msg = (f'{label!r} has no science image; its HDUs are '
                       f'{names}')
                if planes:
                    msg += '; one is chosen by number, as in "file.fits[1]"'
                raise ValueError(msg)
            chosen = _bands(science)
            left = [one for one in science if one not in chosen]
        owners = _owners(planes, science, chosen, label, refuse=not single)
        unused = [f'{one.name}, which is of no known kind' for one in unknown]
        layers = []
        for one in chosen:
            extras = [extra for extra, its in owners.items() if one in its]
            layers += _read(one, extras, primary,
                            every if len(every) > 1 else None, label, stem,
                            bad_bits, unused)
        unused += [f'{extra.name}, which fits no image by pixels and name'
                   for extra, its in owners.items() if its == []]
    if left:
        msg = (f'{label!r} has {len(left)} further images which are not other '
               f'bands of the first and are not used: '
               f'{", ".join(one.name for one in left)}; choose one with its '
               f'number, as in "file.fits[1]"')
        warnings.warn(msg, AstroDinoUserWarning)
    if unused:
        msg = f'not used of {label!r}: HDU {"; HDU ".join(unused)}'
        warnings.warn(msg, AstroDinoUserWarning)
    return layers


def _plane(hdu, number, primary, window):
    role, rest = role_of(hdu.header)
    chip = next((str(value).strip().removesuffix('.0') for key in _CHIP_KEYS
                 if (value := header_value(hdu.header, key)) is not None),
                None)
    extname = str(header_value(hdu.header, 'EXTNAME', ''))
    band = filter_of(hdu.header, primary)
    if band is None and not re.search(r'(?<![^\W_])\d+(?![^\W_])', extname):
        band = canonical(extname)       # 'HSC-G', and no part of a detector
    return Plane(hdu, number, role, rest, band, chip, window)


def _science(planes):
    """The planes that are images of the sky, and those of no known kind."""
    named = [one for one in planes if one.role == 'science']
    free = [one for one in planes if one.role is None]
    if not named:
        return free, []
    bands = {one.band for one in named}
    others = [one for one in free if one.band and one.band not in bands]
    keep = [one for one in planes if one in named or one in others]
    return keep, [one for one in free if one not in others]


def _bands(science):
    """The science planes that are bands of one image; the first counts."""
    chosen = science[:1]
    for one in science[1:]:
        bands = [other.band for other in chosen]
        if (len(one.hdu.shape) == 2 and one.hdu.shape == chosen[0].hdu.shape
                and None not in (one.band, bands[0])
                and one.band not in bands):
            chosen.append(one)
    return chosen


def _owners(planes, science, chosen, label, *, refuse):
    """
    For each uncertainty and mask the science planes that it belongs to; what
    could be of several is an error, or left out with a warning.
    """
    extras = [one for one in planes if one.role not in (
        None, 'science', 'skip') and one not in chosen]
    owners, unclear = {}, []
    for extra in extras:
        fitting = [one for one in science if extra.fits_on(one)]
        found = fitting if len(science) == 1 else _of(extra, fitting)
        alone = sum(other.role == extra.role for other in extras) == 1
        if len(found) > 1 and not (alone and extra.band is None and len(
                {one.band for one in found}) == len(found)):
            unclear += [extra] * any(one in chosen for one in found)
            continue
        owners[extra] = found
    for one in chosen:
        mine = [extra for extra, its in owners.items() if one in its]
        for extra in mine:
            twins = [other for other in mine if other.role == extra.role
                     and other.hdu.name == extra.hdu.name]
            unclear += [extra] * (len(twins) > 1)
    if unclear:
        names = ', '.join(one.name for one in [*science, *extras])
        msg = (f'{label!r}: it cannot be told which image HDU '
               f'{", ".join(one.name for one in unclear)} belongs to; the '
               f'planes are {names}. Hand in arrays instead, as in '
               f'as_image(data, error=..., mask=...)')
        if refuse:
            raise ValueError(msg)
        warnings.warn(f'{msg}; it is not used', AstroDinoUserWarning)
    return {extra: its for extra, its in owners.items()
            if extra not in unclear}


def _of(extra, science):
    """
    The science planes that a plane can be of: by name, band, chip, EXTVER.
    """
    def same(one):
        pairs = [(extra.rest, one.rest), (extra.band, one.band),
                 (extra.chip, one.chip)]
        return [a == b for a, b in pairs if a and b]

    found = [one for one in science if all(same(one))]
    strong = [one for one in found if same(one)]
    found = strong or found
    versions = {one.hdu.ver for one in found}
    if len(found) > 1 and len(versions) == len(found):
        numbered = 'EXTVER' in extra.hdu.header or any(
            'EXTVER' in one.hdu.header for one in found)
        if numbered:
            found = [one for one in found if one.hdu.ver == extra.hdu.ver]
    return found


def _read(plane, extras, primary, hdus, label, stem, bad_bits, unused):
    """The layers of one science plane and what belongs to it."""
    hdu = plane.hdu
    header = hdu.header.copy()  # reading the data may change the header
    data = plane.pixels(label)
    mask, noise = np.zeros(data.shape, dtype=bool), None
    blank = header_value(header, 'BLANK')
    if data.dtype.kind in 'iu' and isinstance(blank, int):
        # astropy leaves it in unsigned integers
        mask |= data == blank + header.get('BZERO', 0)
    no_bits = True
    for extra in extras:
        if extra.role not in _NOISE:
            no_bits &= extra.role in _WEIGHTS
            bad = _bad(extra, (header, primary), label, bad_bits, unused)
            if bad is not None:
                mask |= bad.reshape(_trim(bad.shape))
    if no_bits:
        warn_of_bits(bad_bits, label)
    unit, unread = unit_of(header, primary)
    if unread:
        msg = (f'BUNIT = {unread!r} of {label!r} is not understood; the '
               f'values have no unit and are taken for fluxes per pixel')
        warnings.warn(msg, AstroDinoUserWarning)
    for extra in sorted((one for one in extras if one.role in _NOISE),
                        key=lambda one: _NOISE.index(one.role)):
        noise = _sigma(extra, unit, label, unused)
        if noise is not None:
            noise = np.broadcast_to(noise.reshape(_trim(noise.shape)),
                                    data.shape)
            break
    where = header
    if ('CTYPE1' not in header and primary is not None
            and 'CTYPE1' in primary and not is_plane(hdus[0])):
        where = header.copy()       # inherited
        where.update({card.keyword: card.value for card in primary.cards
                      if re.match(r'(CTYPE|CRVAL|CRPIX|CDELT|CUNIT|CROTA|CD|'
                                  r'PC|PV)\d|RADESYS|EQUINOX|(LON|LAT)POLE',
                                  card.keyword)})
    n_bands = data.size // (data.shape[-1] * data.shape[-2])
    wcs = celestial_wcs(where, hdus)
    if wcs is not None and plane.window:
        wcs = wcs.slice(plane.window)
    layers = split_cube(linear(data, header, primary), mask=mask, noise=noise,
                        label=label, stem=stem, wcs=wcs, unit=unit,
                        names=names_of(hdu.header, primary, n_bands,
                                       plane.band, stem))
    for layer in layers:
        layer.whole = tuple(hdu.shape[-2:])
    return layers


def _bad(extra, headers, label, bad_bits, unused):
    """The pixels that a mask or a weight marks as bad, or None."""
    array = extra.pixels(label)
    if extra.role in _WEIGHTS:
        bad = ~(array > 0)
    else:
        bad = bad_pixels(array, extra.hdu.header, *headers,
                         bad_bits=bad_bits)
    if isinstance(bad, str):
        unused.append(f'{extra.name}: {bad}')
        return None
    if bad.all() and not extra.window:
        unused.append(f'{extra.name}, which marks all pixels as bad')
        return None
    if bad.mean() > MOST_BAD and not extra.window:
        msg = (f'HDU {extra.name} of {label!r} marks {bad.mean():.1%} of the '
               f'pixels as bad; if those are the good ones, hand in mask= in '
               f'place of it')
        warnings.warn(msg, AstroDinoUserWarning)
    return bad


def _sigma(extra, unit, label, unused):
    """The noise in the image's unit, NaN where there is none; or None."""
    array = linear(extra.pixels(label), extra.hdu.header).astype(float)
    power = POWER[extra.role]
    own, factor = unit_of(extra.hdu.header)[0], 1
    # some pipelines copy that of the image without the square
    if own is not None and unit is not None and own != unit:
        try:
            factor = (own**power).to(unit)
        except u.UnitsError:
            unused.append(f'{extra.name}, whose unit {own} cannot be '
                          f'converted')
            return None
    with np.errstate(all='ignore'):
        noise = array**power * factor
        noise[~((noise > 0) & (noise < np.inf))] = np.nan
    if np.isnan(noise).all() and not extra.window:
        unused.append(f'{extra.name}, in which no pixel is positive')
        return None
    return noise
