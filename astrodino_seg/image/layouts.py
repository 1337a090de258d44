# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
FITS files and HDUs to layers: which HDU is what.

See `~astrodino_seg.image.as_image` for the rules as users need them.
"""

import re
import warnings
from pathlib import Path

import numpy as np
from astropy.io import fits

from astrodino_seg.errors import AstroDinoUserWarning
from astrodino_seg.image.filters import canonical
from astrodino_seg.image.fits import is_plane, open_fits, read_pixels
from astrodino_seg.image.header import (
    celestial_wcs,
    header_bands,
    header_filter,
    header_unit,
    header_value,
    quiet_headers,
)
from astrodino_seg.image.layer import split_cube

__all__ = ['read_hdus', 'read_path']

# what an HDU holds, by the words of its EXTNAME or, if that says nothing,
# IMAGETYP; the first that fits counts, and the first kind of noise is used
_ROLES = {
    'skip': {'psf', 'wcsdvarr', 'd2imarr', 'poisson', 'rnoise', 'flat',
             'con', 'ctx', 'seg', 'segmap', 'segm', 'labels', 'maskbits',
             'model', 'resid', 'bkg', 'background', 'samp', 'time', 'nexp',
             'exp', 'expmap', 'nimage', 'chi', 'chi2', 'psfsize', 'depth',
             'galdepth'},
    'std': {'err', 'error', 'rms', 'std', 'stddev', 'sigma', 'noise',
            'uncert'},
    'ivar': {'ivar', 'invvar', 'ivm', 'wgt'},
    'var': {'var', 'variance'},
    'weight': {'wht', 'weight'},
    'mask': {'mask', 'msk', 'dq', 'bpm', 'flag', 'flags'}}
_UTYPES = {'StdDevUncertainty': 'std', 'VarianceUncertainty': 'var',
           'InverseVariance': 'ivar', 'UnknownUncertainty': 'skip'}


def read_path(path):
    """
    Read the layers of a FITS file.

    Parameters
    ----------
    path : str or `~pathlib.Path`
        The file, with an HDU in brackets at the end if one is to be chosen:
        ``'file.fits[1]'``, ``'file.fits[SCI]'`` or ``'file.fits[SCI,2]'``.

    Returns
    -------
    layers : list of `~astrodino_seg.image.layer.Layer`
        The bands.
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
            return read_hdus(hdus, label=str(path), stem=stem)
        try:
            hdu = hdus[key]
        except (KeyError, IndexError):
            names = [(i, one.name) for i, one in enumerate(hdus)]
            msg = f'{path!r} has no HDU {key!r}; it has {names}'
            raise ValueError(msg) from None
        return read_hdus(hdu, hdus=hdus, label=f'{path}[{key}]', stem=stem)


def read_hdus(source, *, hdus=None, label='data', stem=None):
    """
    Read the layers of an HDU or of a list of HDUs.

    Parameters
    ----------
    source : `~astropy.io.fits.HDUList` or image HDU
        A list, of which the images, their uncertainties and masks are
        found; or one HDU, which then is the image whatever it is called.
    hdus : `~astropy.io.fits.HDUList`, optional
        The list that a single HDU comes from, for distortion tables.
    label : str, optional
        What to call the source in an error message.
    stem : str, optional
        The name of the file, without its ending.

    Returns
    -------
    layers : list of `~astrodino_seg.image.layer.Layer`
        The bands.
    """
    with quiet_headers():
        if not isinstance(source, fits.HDUList):
            if not is_plane(source):
                msg = f'{label!r} is not an image HDU with two or more axes'
                raise ValueError(msg)
            return _read_science(source, [], None, hdus, label, stem)
        images = [hdu for hdu in source if is_plane(hdu)]
        science = [hdu for hdu in images if _role(hdu) is None]
        if not science:
            names = [(i, hdu.name) for i, hdu in enumerate(source)]
            msg = f'{label!r} has no science image; its HDUs are {names}'
            if images:
                msg += '; one is chosen by number, as in "file.fits[1]"'
            raise ValueError(msg)
        primary = source[0].header if len(science) == 1 else None
        layers = []
        for hdu in _science_bands(science, label):
            extras = [other for other in images if _role(other) is not None
                      and _belongs(other, hdu, len(science))]
            layers += _read_science(hdu, extras, primary, source, label,
                                    stem)
        return layers


def _role(hdu):
    """What an image HDU holds: a key of ``_ROLES``, or None for science."""
    header = hdu.header
    for key in ('EXTNAME', 'IMAGETYP'):
        text = str(header_value(header, key, '')).lower()
        words = set(re.split(r'[^a-z0-9]+', text))
        if key == 'IMAGETYP' and len(words) > 1:
            continue  # a phrase
        for role, names in _ROLES.items():
            if words & names:
                if role == 'std' and 'UTYPE' in header:
                    return _UTYPES.get(header_value(header, 'UTYPE'), 'skip')
                return role
    return None


def _science_bands(science, label):
    """The science HDUs that are bands of one image; the first counts."""
    first = science[0]
    bands = [_header_band(first)]
    chosen = [first]
    for hdu in science[1:]:
        band = _header_band(hdu)
        if (len(hdu.shape) == 2 and hdu.shape == first.shape
                and None not in (band, bands[0]) and band not in bands):
            bands.append(band)
            chosen.append(hdu)
    left = len(science) - len(chosen)
    if left:
        msg = (f'{label!r} has {left} further images which are not other '
               f'bands of the first and are not used; choose one with its '
               f'number, as in "file.fits[1]"')
        warnings.warn(msg, AstroDinoUserWarning)
    return chosen


def _belongs(extra, hdu, n_science):
    """Whether an uncertainty or mask is that of a science HDU."""
    if extra.shape != hdu.shape:
        return False
    if n_science == 1:
        return True
    bands = _header_band(extra), _header_band(hdu)
    if None in bands:
        return extra.ver == hdu.ver
    return bands[0] == bands[1]


def _read_science(hdu, extras, primary, hdus, label, stem):
    """The layers of one science HDU and what belongs to it."""
    header = hdu.header.copy()  # reading the data may change the header
    data = read_pixels(hdu, label)
    extras = [(_role(extra), extra.header, read_pixels(extra, label))
              for extra in extras]
    mask, noise = np.zeros(data.shape, dtype=bool), None
    blank = header_value(header, 'BLANK')
    if data.dtype.kind in 'iu' and isinstance(blank, int):
        # astropy leaves it in unsigned integers
        mask |= data == blank + header.get('BZERO', 0)
    order = list(_ROLES)
    for role, extra_header, array in sorted(extras,
                                            key=lambda e: order.index(e[0])):
        bad, sigma = _interpret(role, extra_header, array)
        if bad is not None:
            mask |= bad
        if noise is None and sigma is not None:
            noise = sigma
    n_bands = data.size // (data.shape[-1] * data.shape[-2])
    return split_cube(data, mask=mask, noise=noise, label=label, stem=stem,
                      wcs=celestial_wcs(header, hdus),
                      unit=header_unit(header),
                      names=_names(hdu, primary, stem, n_bands))


def _interpret(role, header, array):
    """The mask and the noise that an HDU means, each an array or None."""
    if role == 'skip':
        return None, None
    if role == 'weight':
        return ~(array > 0), None
    if role == 'mask':
        bits = _bad_bits(header, array)
        return None if bits is None else (array.astype(int) & bits) != 0, None
    array = array.astype(float)
    with np.errstate(all='ignore'):
        noise = {'ivar': lambda: array**-0.5, 'var': lambda: array**0.5,
                 'std': lambda: array.copy()}[role]()
    noise[~(noise > 0)] = np.nan
    return None, noise


def _bad_bits(header, array):
    """The bits of a mask that mean invalid, or None if not known."""
    planes = [header_value(header, key) for key in ('MP_BAD', 'MP_NO_DATA')]
    planes = [plane for plane in planes if isinstance(plane, int)]
    if planes:  # LSST and HSC, where other bits mark detections
        return sum(1 << plane for plane in planes)
    if array.dtype.kind not in 'biu':
        return None
    if array.max() <= 1:
        return 1
    if str(header_value(header, 'TELESCOP')).upper() in ('JWST', 'ROMAN'):
        return 1  # DO_NOT_USE
    return None


def _names(hdu, primary, stem, n_bands):
    """The names of the bands of a science HDU, or None."""
    if n_bands > 1:
        return header_bands(hdu.header, n_bands)
    for name in (_header_band(hdu), primary and header_filter(primary),
                 canonical(stem)):
        if name:
            return [name]
    return header_bands(hdu.header, 1)


def _header_band(hdu):
    """The known filter that the header or the EXTNAME names, or None."""
    extname = header_value(hdu.header, 'EXTNAME', '')
    return header_filter(hdu.header) or canonical(extname)
