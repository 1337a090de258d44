# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The cutout service of the Legacy Surveys: what to ask it, how, and what it
answers; and files of a folder, each with its checksum beside it.

The service does not say what it cannot do: it makes a cutout smaller that is
too large, takes other bands where it does not know one, and answers with a
line of text where it knows no such layer. All answers are therefore compared
with what was asked for, and read in pieces, so that neither their length nor
their time is for the service to say.
"""

import os
import re
import time
from dataclasses import dataclass, replace
from functools import lru_cache
from operator import index
from pathlib import Path
from shutil import rmtree
from urllib.parse import urlencode, urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord

from astrodino_seg import __version__
from astrodino_seg.errors import DownloadError, require
from astrodino_seg.files import sha256_of
from astrodino_seg.image import as_image, sky_to_pixels

SERVICE = 'https://www.legacysurvey.org/viewer/cutout.fits'
MAX_SIZE = 3000         # pixels; the service cuts larger ones down
NATIVE_SCALE = 0.262    # arcsec
MAX_IVAR_SCALE = NATIVE_SCALE * 2**0.5  # from there, it bins and has none
SURVEYS = ('ls-', 'decals-', 'mzls+bass-')  # layers in nanomaggies
# too many requests, and what a proxy says of a service that is busy or down
TRY_AGAIN = (429, 502, 503, 504)
N_REDIRECTS = 3
PIECE = 2**16       # bytes
OLD = 24 * 3600     # seconds; nobody downloads a cutout for so long


@dataclass(frozen=True)
class CutoutRequest:
    """A cutout, but for its position; angles become pixels and arcsec."""

    size: int
    bands: tuple
    pixel_scale: float = NATIVE_SCALE
    layer: str = 'ls-dr10'
    ivar: bool = True
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


def get(url, *, n_connections=4, n_retries=5, backoff=1.0, timeout=60.0,
        max_bytes=2**30, max_seconds=600.0):
    """
    Get what is at an address; threads share the connections. ``timeout`` is
    for one sign of the service, ``max_seconds`` for all tries together.
    """
    urllib3 = require('urllib3', 'survey')
    errors = urllib3.exceptions
    retry = urllib3.Retry(n_retries, connect=min(n_retries, 2),
                          backoff_factor=backoff, backoff_jitter=backoff)
    end = time.monotonic() + max_seconds
    while True:
        answer = None
        try:
            pool = _pool(_proxy(url), n_connections, os.getpid())
            answer = _ask(pool, url, timeout)
            if answer.status not in TRY_AGAIN:
                return _content(answer, url, max_bytes, end)
            wait = retry.get_retry_after(answer) or 0
            retry = retry.increment('GET', url, answer)
        except (errors.ReadTimeoutError, errors.ProtocolError,
                errors.ConnectTimeoutError, errors.ProxyError,
                errors.SSLError) as err:
            wait = 0
            try:
                retry = retry.increment('GET', url, error=err)
            except errors.HTTPError as last:
                raise _failed(url, getattr(last, 'reason', last)) from err
        except errors.MaxRetryError:
            raise _refused(url, answer) from None
        except errors.HTTPError as err:
            raise _failed(url, err) from err
        finally:
            if answer is not None:
                _let_go(answer)
        if time.monotonic() + wait > end:
            msg = (f'{url}: no answer in {max_seconds:g} s, and it is to be '
                   f'asked again in {wait:g} s')
            raise DownloadError(msg)
        retry.sleep(answer)


def _ask(pool, url, timeout):
    """The head of an answer, after redirections."""
    for _ in range(N_REDIRECTS + 1):
        answer = pool.request('GET', url, retries=False, redirect=False,
                              timeout=timeout, preload_content=False)
        other = answer.get_redirect_location()
        if not other:
            return answer
        _let_go(answer)
        other = urljoin(url, other)
        if url.startswith('https:') and not other.startswith('https:'):
            msg = f'{url}: it points to {other}, which is not encrypted'
            raise DownloadError(msg)
        url = other
    msg = f'{url}: more than {N_REDIRECTS} redirections'
    raise DownloadError(msg)


def _content(answer, url, max_bytes, end):
    """The bytes of an answer; raises `DownloadError` for what is too much."""
    if answer.status != 200:
        raise _refused(url, answer)
    encoding = answer.headers.get('Content-Encoding', 'identity')
    if encoding != 'identity':
        msg = f'{url}: the answer is encoded as {encoding!r}, unasked'
        raise DownloadError(msg)
    told = answer.headers.get('Content-Length', '')
    n_bytes = int(told) if told.isdigit() and len(told) < 20 else 0
    content = bytearray()
    while n_bytes <= max_bytes:
        if time.monotonic() > end:
            msg = f'{url}: the answer takes too long; {len(content)} bytes'
            raise DownloadError(msg)
        piece = answer.read1(PIECE, decode_content=False)
        if not piece:
            return bytes(content)
        content += piece
        n_bytes = max(n_bytes, len(content))
    msg = (f'{url}: the answer has {n_bytes} bytes or more, the limit is '
           f'{max_bytes}')
    raise DownloadError(msg)


def _let_go(answer):
    """Keep the connection, which is closed if not all was read."""
    if not answer.closed:
        answer.close()
    answer.release_conn()


def _refused(url, answer):
    return DownloadError(
        f'{url}: status {answer.status} {answer.reason or ""}'.rstrip())


def _failed(url, reason):
    """The error for what urllib3 says."""
    errors = require('urllib3', 'survey').exceptions
    if isinstance(reason, (errors.NewConnectionError, errors.SSLError,
                           errors.ConnectTimeoutError, errors.ProxyError)):
        return ConnectionError(
            f'{urlsplit(url).netloc} cannot be reached: {reason}; is there '
            f'a network, and is a proxy set (https_proxy)?')
    return DownloadError(f'{url}: {reason}')


def _proxy(url):
    """The proxy that the environment sets for an address, or None."""
    parts = urlsplit(url)
    if proxy_bypass(parts.netloc):
        return None
    return getproxies().get(parts.scheme)


@lru_cache(maxsize=8)
def _pool(proxy, n_connections, pid):
    """Connections, which a process does not share with those it forks."""
    urllib3 = require('urllib3', 'survey')
    options = {
        'maxsize': n_connections, 'block': True,
        'headers': {'User-Agent': f'astrodino_seg/{__version__} '
                                  f'python-urllib3/{urllib3.__version__}'}}
    if proxy:
        return urllib3.ProxyManager(proxy, **options)
    return urllib3.PoolManager(**options)


class FileCache:
    """
    Files that were downloaded once: those that agree with a ``.sha256`` beside
    them, as of ``sha256sum --check``.
    """

    def __init__(self, folder):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        for old in self.folder.glob('.part-*'):     # of killed processes
            if time.time() - old.stat().st_mtime > OLD:
                rmtree(old, ignore_errors=True)

    def find(self, name):
        """Find a file."""
        path = self.folder / name
        try:
            wanted = path.with_suffix('.sha256').read_text().split()[0]
            whole = sha256_of(path) == wanted
        except (FileNotFoundError, IndexError):
            return None
        return path if whole else None

    def add(self, part, name):
        """Move a file into the cache, in place of one of the same name."""
        digest = sha256_of(part)
        beside = part.with_suffix('.sha256')
        beside.write_text(f'{digest}  {name}\n')
        path = self.folder / name
        os.replace(part, path)
        os.replace(beside, path.with_suffix('.sha256'))
        return path
