# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The one function that talks to a web service, and files of a folder, each with
its checksum beside it.

urllib3 does the work: it keeps connections open, has no more than so many at
a time, and checks certificates. An answer is read in pieces, so that neither
its length nor its time is for the service to say.
"""

import os
import time
from functools import lru_cache
from pathlib import Path
from shutil import rmtree
from urllib.parse import urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

from astrodino_seg import __version__
from astrodino_seg.errors import DownloadError, require
from astrodino_seg.files import sha256_of

# too many requests, and what a proxy says of a service that is busy or down
TRY_AGAIN = (429, 502, 503, 504)
N_REDIRECTS = 3
PIECE = 2**16       # bytes
OLD = 24 * 3600     # seconds; nobody downloads a cutout for so long


def get(url, *, n_connections=4, n_retries=5, backoff=1.0, timeout=60.0,
        max_bytes=2**30, max_seconds=600.0):
    """
    Get what a web service has at an address.

    May be called from several threads, which then share the connections.
    ``timeout`` is for one sign of the service, ``max_seconds`` for all tries
    together. Longer answers than ``max_bytes`` and those in a
    Content-Encoding, which was not asked for, are refused.
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
    Files that were downloaded once.

    Beside ``name.fits`` lies ``name.sha256``, which ``sha256sum --check``
    reads. A file without it, or that does not agree with it, does not count.
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
