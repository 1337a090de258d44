# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What to ask the cutout service of the Legacy Surveys, and what it answers.

The service does not say what it cannot do: it makes a cutout smaller that is
too large, takes other bands where it does not know one, and answers with a
line of text where it knows no such layer. All answers are therefore compared
with what was asked for.
"""

import re
from dataclasses import dataclass, replace
from operator import index
from urllib.parse import urlencode

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord

from astrodino_seg.errors import DownloadError
from astrodino_seg.image import as_image, sky_to_pixels

SERVICE = 'https://www.legacysurvey.org/viewer/cutout.fits'
MAX_SIZE = 3000         # pixels; the service cuts larger ones down
NATIVE_SCALE = 0.262    # arcsec
MAX_IVAR_SCALE = NATIVE_SCALE * 2**0.5  # from there, it bins and has none
SURVEYS = ('ls-', 'decals-', 'mzls+bass-')  # layers in nanomaggies


@dataclass(frozen=True)
class CutoutRequest:
    """A cutout, but for its position."""

    #: Side in pixels, or on the sky; becomes pixels.
    size: int
    #: Of one letter each; becomes a tuple.
    bands: tuple
    #: Becomes arcsec.
    pixel_scale: float = NATIVE_SCALE
    #: The layer of the viewer.
    layer: str = 'ls-dr10'
    #: Whether to ask for the inverse variance.
    ivar: bool = True
    #: The address of the service.
    service: str = SERVICE

    def __post_init__(self):
        scale = _arcsec(self.pixel_scale, 'pixel_scale')
        object.__setattr__(self, 'pixel_scale', scale)
        object.__setattr__(self, 'size', _pixels(self.size, scale))
        bands = tuple(self.bands)
        object.__setattr__(self, 'bands', bands)
        if not bands or any(not re.fullmatch('[A-Za-z]', str(band))
                            for band in bands):
            msg = f'bands must be names of one letter, got {bands}'
            raise ValueError(msg)
        if len(set(bands)) < len(bands):
            msg = f'bands must be different, got {bands}'
            raise ValueError(msg)
        if not re.fullmatch(r'[\w.+-]+', str(self.layer)):
            msg = f'layer must be a name, got {self.layer!r}'
            raise ValueError(msg)

    @property
    def max_bytes(self):
        """The most bytes of an answer: twice the pixels, and headers."""
        n_planes = len(self.bands) * (2 if self.ivar else 1)
        return 2 * 4 * self.size**2 * n_planes + 2**20

    def url(self, ra, dec):
        """The address of the cutout at a position in degrees."""
        ra, dec = _text(ra, dec)
        query = {'ra': ra, 'dec': dec, 'layer': self.layer,
                 'pixscale': f'{self.pixel_scale:.9g}', 'size': self.size,
                 'bands': ''.join(self.bands)}
        if self.ivar:
            query['invvar'] = ''
        return f'{self.service}?{urlencode(query)}'

    def file_name(self, ra, dec):
        """The name of the file for it, which tells all that is asked."""
        ra, dec = _text(ra, dec)
        ivar = '_ivar' if self.ivar else ''
        return (f'{self.layer}_{ra}{dec}_{self.size}x'
                f'{self.pixel_scale:.9g}_{"".join(self.bands)}{ivar}.fits')

    def read(self, path, ra, dec):
        """Read the file that the service answered with."""
        try:
            _check_fits(path)
            image = as_image(path)
            if image.n_bands == len(self.bands) == 1:  # the file does not say
                image = replace(image, bands=self.bands)
            self._check(image, SkyCoord(ra, dec, unit='deg'))
            return self._complete(image)
        except (ValueError, TypeError) as err:
            reason = str(err).replace(str(path), path.name)
            msg = f'{self.url(ra, dec)}: {reason}'
            raise DownloadError(msg) from err

    def _check(self, image, position):
        """Raise if an image is not the one that was asked for."""
        if image.shape != (self.size, self.size):
            msg = f'the answer has shape {image.shape}, not size {self.size}'
            raise ValueError(msg)
        if set(image.bands) != set(self.bands):
            msg = f'the answer has bands {image.bands}, not {self.bands}'
            raise ValueError(msg)
        if image.wcs is None:
            msg = 'the answer has no WCS'
            raise ValueError(msg)
        x, y = sky_to_pixels(image, position)
        middle = (self.size - 1) / 2
        if not np.hypot(x - middle, y - middle) < 1:
            msg = (f'the answer has the position at ({x:.1f}, {y:.1f}), not '
                   f'in its middle')
            raise ValueError(msg)

    def _complete(self, image):
        """Add what the file does not say: the unit, and missing pixels."""
        of_survey = self.layer.startswith(SURVEYS)
        if image.noise is None:
            if self.ivar and of_survey and self.pixel_scale < MAX_IVAR_SCALE:
                msg = 'the answer has no inverse variance; is it all there?'
                raise ValueError(msg)
            missing = image.cube == 0
            if missing.all():
                msg = 'the answer has no data: all pixels are 0'
                raise ValueError(msg)
            image = replace(image, mask=image.mask | missing)
        if of_survey and np.isclose(self.pixel_scale, NATIVE_SCALE):
            image = replace(image, unit=u.Unit('nmgy'))
        return image


def _check_fits(path):
    """Raise if a file is not FITS, and say what it is."""
    with path.open('rb') as file:
        content = file.read(2000)
    if content.startswith(b'SIMPLE  ='):
        return
    text = content.decode('utf-8', 'replace')
    title = re.search(r'<title>(.*?)</title>', text, re.I | re.S)
    what = (f'a page, {" ".join(title[1].split())!r}' if title else
            repr(' '.join(text.split())[:80]) if content else 'empty')
    msg = f'the answer is no FITS file but {what}'
    raise ValueError(msg)


def _text(ra, dec):
    """A position as it is asked for, to 0.4 milliarcsec."""
    return f'{ra:.7f}', f'{dec:+.7f}'


def _arcsec(value, name):
    """An angle in arcsec from a number of them or a quantity."""
    try:
        value = float(u.Quantity(value, u.arcsec).value)
    except (TypeError, ValueError, u.UnitConversionError):
        msg = f'{name} must be a number or an angle, got {value!r}'
        raise TypeError(msg) from None
    if not 0 < value < np.inf:
        msg = f'{name} must be positive, got {value}'
        raise ValueError(msg)
    return value


def _pixels(size, pixel_scale):
    """A size in pixels from a number of them or an angle."""
    if isinstance(size, u.Quantity):
        n_pixels = int(np.ceil(_arcsec(size, 'size') / pixel_scale - 1e-6))
    else:
        n_pixels = index(size)
    if not 1 < n_pixels <= MAX_SIZE:
        msg = f'size must be 2 to {MAX_SIZE} pixels, got {n_pixels}'
        raise ValueError(msg)
    return n_pixels
