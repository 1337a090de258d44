# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The one function that talks to a web service, and files of a folder, each with
its checksum beside it.

urllib3 does the work: it keeps connections open, has no more than so many at
a time, and tries again after errors, also in the middle of an answer.
"""

import os
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from astrodino_seg.errors import DownloadError, require
from astrodino_seg.files import sha256_of
from astrodino_seg.version import __version__

# too many requests, and what a proxy says of a service that is busy or down
TRY_AGAIN = (429, 502, 503, 504)


def get(url, *, n_connections=4, n_retries=5, backoff=1.0, timeout=60.0):
    """
    Get what a web service has at an address.

    May be called from several threads, which then share the connections.
    """
    urllib3 = require('urllib3', 'survey')
    errors = urllib3.exceptions
    retry = urllib3.Retry(
        n_retries, connect=min(n_retries, 2), raise_on_status=False,
        status_forcelist=TRY_AGAIN,
        backoff_factor=backoff, backoff_jitter=backoff)
    try:
        pool = _pool(_proxy(url), n_connections, os.getpid())
        answer = pool.request('GET', url, retries=retry, timeout=timeout)
    except errors.HTTPError as err:
        reason = getattr(err, 'reason', None) or err
        if isinstance(reason, (errors.NewConnectionError, errors.SSLError,
                               errors.ConnectTimeoutError,
                               errors.ProxyError)):
            msg = (f'{urlsplit(url).netloc} cannot be reached: {reason}; is '
                   f'there a network, and is a proxy set (https_proxy)?')
            raise ConnectionError(msg) from err
        msg = f'{url}: {reason}'
        raise DownloadError(msg) from err
    if answer.status != 200:
        msg = f'{url}: status {answer.status} {answer.reason or ""}'.rstrip()
        raise DownloadError(msg)
    return answer.data


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
