# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the datasets package: asking a web service.

The service is on this machine, so that no test needs the internet.
"""

import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from cutout_service import BAD, CutoutServer

from astrodino_seg import __version__
from astrodino_seg.datasets.service import get
from astrodino_seg.errors import DownloadError

pytest.importorskip('urllib3')
QUERY = '?ra=150.1&dec=2.2&layer=ls-dr10&size=24&bands=g'


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    for name in ('http_proxy', 'HTTP_PROXY', 'all_proxy', 'ALL_PROXY'):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server():
    with CutoutServer() as server:
        yield server


@pytest.fixture
def naps(monkeypatch):
    """How long the client would have slept, which it does not."""
    naps = []
    monkeypatch.setattr(time, 'sleep', naps.append)
    return naps


def test_answer(server):
    content = get(server.url + QUERY)
    assert content.startswith(b'SIMPLE  =')
    assert len(content) % 2880 == 0
    (path, headers), = server.requests
    assert path.endswith(QUERY)
    assert headers['User-Agent'].startswith(f'astrodino_seg/{__version__} ')


def test_connection_is_used_again(server):
    for _ in range(5):
        get(server.url + QUERY)
    assert len(server.requests) == 5
    assert server.n_connections == 1


def test_connections_are_limited(server):
    server.pause = 0.02
    with ThreadPoolExecutor(12) as pool:
        list(pool.map(lambda _: get(server.url + QUERY, n_connections=3),
                      range(24)))
    assert len(server.requests) == 24
    assert 2 <= server.most_active <= 3
    assert 2 <= server.n_connections <= 3


@pytest.mark.parametrize('fault', ['busy', 'gateway', 'cut off'])
def test_tries_again(server, naps, fault):
    server.faults = [fault, fault]
    content = get(server.url + QUERY)
    assert len(server.requests) == 3
    assert content == get(server.url + QUERY)
    # the first retry does not wait; the second 2 s and up to 1 s more
    assert len(naps) == 1
    assert 2 <= naps[0] <= 3


def test_waits_as_long_as_it_is_told(server, naps):
    server.faults = ['too many', 'too many']
    get(server.url + QUERY)
    assert naps == [7, 7]
    assert len(server.requests) == 3


@pytest.mark.parametrize(('fault', 'match'), [
    ('busy', 'status 503 Service Unavailable$'),
    ('too many', 'status 429 Too Many Requests$'),
    ('cut off', 'IncompleteRead')])
def test_gives_up(server, naps, fault, match):
    server.faults = [fault] * 9
    with pytest.raises(DownloadError, match=match) as info:
        get(server.url + QUERY, n_retries=2)
    assert str(info.value).startswith(server.url + QUERY)
    assert len(server.requests) == 3


def test_error_is_not_repeated(server):
    with pytest.raises(DownloadError, match='status 500 Internal Server'):
        get(server.url + QUERY.replace('2.2', '+88'))
    server.faults = ['missing']
    with pytest.raises(DownloadError, match='status 404 Not Found$'):
        get(server.url + QUERY)
    assert len(server.requests) == 2


def test_too_slow(server, naps):
    server.faults = ['late'] * 9
    with pytest.raises(DownloadError, match='timed out') as info:
        get(server.url + QUERY, n_retries=1, timeout=0.1)
    assert str(info.value).startswith(server.url + QUERY)


def test_too_slow_at_first(server, naps):
    # so many retries that a machine that is slow itself does not matter
    server.faults = ['late']
    content = get(server.url + QUERY, n_retries=50, timeout=0.3)
    assert content.startswith(b'SIMPLE  =')
    assert len(server.requests) >= 2


def test_slow_is_not_too_slow(server):
    server.faults = ['late']
    get(server.url + QUERY, timeout=60)
    assert len(server.requests) == 1


def test_page_is_returned(server):
    # what an answer means is not for this module to say
    server.faults = ['page']
    assert get(server.url + QUERY) == BAD['page'][2]


def test_nobody_there(naps):
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    url = f'http://127.0.0.1:{port}/'
    with pytest.raises(ConnectionError,
                       match=f'^127.0.0.1:{port} cannot be reached.* proxy'):
        get(url, n_retries=1)
    naps.clear()
    with pytest.raises(ConnectionError):        # in seconds, however patient
        get(url, n_retries=50)
    assert sum(naps) < 6


def test_wrong_address():
    with pytest.raises(DownloadError, match='^no://such: '):
        get('no://such', n_retries=0)


def test_proxy_of_the_environment(server, monkeypatch):
    # the server takes the place of a proxy, which is told the whole address
    monkeypatch.setenv('http_proxy', f'http://127.0.0.1:{server.server_port}')
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    get('http://sky.example/viewer/cutout.fits' + QUERY)
    get(server.url + QUERY)
    asked = [path for path, _ in server.requests]
    assert asked[0].startswith('http://sky.example/viewer/cutout.fits?')
    assert asked[1].startswith('/viewer/cutout.fits?')


@pytest.mark.parametrize(('fault', 'match'), [
    ('endless', 'bytes or more, the limit is 1000000'),
    ('huge', '100000000000 bytes or more, the limit is 1000000'),
    ('dripping', 'takes too long'),
    ('endless error', 'status 503'),
    ('endless redirection', 'more than 3 redirections'),
    ('encoded', "encoded as 'gzip', unasked"),
    ('patience', 'to be asked again in [0-9]{5,} s'),
    ('nonsense', 'Invalid Retry-After')])
def test_hostile_service(server, naps, fault, match):
    begin = time.monotonic()
    for _ in range(3):      # each gives its connection back
        server.faults = [fault] * 9
        with pytest.raises(DownloadError, match=match):
            get(server.url + QUERY, n_retries=1, n_connections=1,
                max_bytes=10**6, max_seconds=0.5)
    assert time.monotonic() - begin < 30
    assert sum(naps) < 100
    server.faults = []
    assert get(server.url + QUERY, n_connections=1).startswith(b'SIMPLE  =')


def test_redirection(server):
    server.faults = [server.url + QUERY]
    assert get(server.url + '?no=matter').startswith(b'SIMPLE  =')
