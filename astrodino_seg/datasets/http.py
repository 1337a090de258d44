# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The one function that talks to a web service.

urllib3 does the work: it keeps connections open, has no more than so many at
a time, and tries again after errors, also in the middle of an answer.
"""

import os
from functools import lru_cache
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from astrodino_seg.errors import DownloadError, require
from astrodino_seg.version import __version__

__all__ = ['get']

# too many requests, and what a proxy says of a service that is busy or down
TRY_AGAIN = (429, 502, 503, 504)


def get(url, *, n_connections=4, n_retries=5, backoff=1.0, timeout=60.0):
    """
    Get what a web service has at an address.

    May be called from several threads, which then share the connections.

    Parameters
    ----------
    url : str
        The address.
    n_connections : int, optional
        The largest number of connections at a time; further calls wait.
    n_retries : int, optional
        How often to try again: after the status codes 429, 502, 503 and 504,
        after an answer that was cut off or too slow, and without a connection
        (at most twice, which takes seconds).
    backoff : float, optional
        The n-th retry waits this many seconds times 2**(n - 1), and up to as
        many more at random, but at most two minutes; the first does not
        wait. A Retry-After of the service goes before.
    timeout : float, optional
        Seconds without a sign of the service until an answer is too slow.

    Returns
    -------
    content : bytes
        The answer.

    Raises
    ------
    ~astrodino_seg.errors.DownloadError
        If the service answers with an error, too slowly, or not to the end.
    ConnectionError
        If it cannot be reached.
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
