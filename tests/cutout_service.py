# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
A server on this machine that answers as the cutout service of the Legacy
Surveys does, and badly when it is told to.
"""

import threading
from gzip import compress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from urllib.parse import parse_qs, urlsplit

import numpy as np
from astropy.io import fits

LAYERS = {'ls-dr10': 'griz', 'ls-dr9': 'grz'}
PAGE = (b'<!doctype html>\n<html><head><title>Site\n maintenance</title>'
        b'</head><body>Back soon.</body></html>')
# how to answer badly: status, headers and body
BAD = {'page': (200, {}, PAGE), 'empty': (200, {}, b''),
       'missing': (404, {}, b'Not Found'),
       'busy': (503, {}, b'busy'),
       'too many': (429, {'Retry-After': '7'}, b'slow down'),
       'patience': (429, {'Retry-After': '100000'}, b'slow down'),
       'nonsense': (503, {'Retry-After': 'soon'}, b'slow down'),
       'encoded': (200, {'Content-Encoding': 'gzip'}, compress(b'0' * 10**6)),
       'gateway': (502, {}, PAGE)}
# what a service says without end, and how fast: bytes and seconds a piece
ENDLESS = {'endless': (200, 2**16, 0), 'dripping': (200, 1, 0.05),
           'endless error': (503, 2**16, 0),
           'endless redirection': (302, 2**16, 0)}


def make_fits(ra, dec, size, scale, bands, ivar=True, *, level=None,
              no_data=()):
    """The bytes of a cutout as the service makes it."""
    rng = np.random.default_rng(int(1e4 * abs(ra)) + len(bands))
    cube = rng.normal(size=(len(bands), size, size)).astype(np.float32)
    weight = rng.uniform(1, 4, size=cube.shape).astype(np.float32)
    if level is not None:
        cube[:] = level
    for k, band in enumerate(bands):
        if band in no_data:
            cube[k] = weight[k] = 0
    cube[:, 0, 0] = weight[:, 0, 0] = 0
    header = fits.Header({'SURVEY': 'LegacySurvey', 'VERSION': 'DR10',
                          'IMAGETYP': 'IMAGE', 'BANDS': bands})
    for k, band in enumerate(bands):
        header[f'BAND{k}'] = band
    header.update({
        'CTYPE1': 'RA---TAN', 'CTYPE2': 'DEC--TAN', 'CRVAL1': ra,
        'CRVAL2': dec, 'CRPIX1': (size + 1) / 2, 'CRPIX2': (size + 1) / 2,
        'CD1_1': -scale / 3600, 'CD1_2': 0.0, 'CD2_1': 0.0,
        'CD2_2': scale / 3600, 'IMAGEW': size, 'IMAGEH': size})
    if len(bands) == 1:
        cube, weight = cube[0], weight[0]
    hdus = [fits.PrimaryHDU(cube, header)]
    if ivar and np.log2(scale / 0.262) < 0.5:
        header['IMAGETYP'] = 'INVVAR'
        hdus.append(fits.ImageHDU(weight, header))
    stream = BytesIO()
    fits.HDUList(hdus).writeto(stream)
    return stream.getvalue()


class Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'   # keeps connections open
    timeout = 5

    def setup(self):
        super().setup()
        with self.server.lock:
            self.server.n_connections += 1

    def log_message(self, *args):
        pass

    def do_GET(self):
        server = self.server
        with server.lock:
            server.requests.append((self.path, dict(self.headers)))
            server.active += 1
            server.most_active = max(server.most_active, server.active)
            fault = server.faults.pop(0) if server.faults else None
        try:
            self.answer(fault)
        except OSError:
            self.close_connection = True  # the client went away
        finally:
            with server.lock:
                server.active -= 1

    def answer(self, fault):
        if self.server.pause:
            threading.Event().wait(self.server.pause)
        if fault == 'late':
            threading.Event().wait(0.5)
        if fault in BAD:
            return self.send(*BAD[fault])
        if fault in ENDLESS:
            return self.go_on(*ENDLESS[fault])
        if fault == 'huge':         # says that it is
            return self.send(200, {}, b'SIMPLE  =', n_bytes=10**11)
        if fault and fault.startswith('http'):
            return self.send(302, {'Location': fault}, b'')
        status, body = self.cutout()
        if fault == 'cut off':      # says how long it is, and stops before
            self.send(status, {}, body[:len(body) // 2], n_bytes=len(body))
            self.close_connection = True
        elif fault == 'truncated':  # does not say how long it is
            self.send(status, {'Connection': 'close'}, body[:-4000],
                      n_bytes=None)
            self.close_connection = True
        elif fault == 'elsewhere':  # the cutout of somebody else
            self.send(200, {}, make_fits(10.0, 10.0, 24, 0.262, 'griz'))
        elif fault == 'no ivar':    # or cut off just there
            self.send(200, {}, make_fits(*self.asked(), False))
        elif fault == 'zero':
            self.send(200, {}, make_fits(*self.asked(), False, level=0))
        else:
            self.send(status, {'Content-Type': 'image/fits'}, body)

    def go_on(self, status, n_bytes, seconds):
        """Send until the client goes away."""
        self.send_response(status)
        self.send_header('Location', self.path)
        self.end_headers()
        while True:
            self.wfile.write(b'0' * n_bytes)
            threading.Event().wait(seconds)

    def asked(self):
        query = parse_qs(urlsplit(self.path).query)
        return (float(query['ra'][0]), float(query['dec'][0]),
                int(query.get('size', ['256'])[0]),
                float(query.get('pixscale', ['0.262'])[0]),
                query.get('bands', ['griz'])[0])

    def cutout(self):
        """Status and body, with all that the service leaves unsaid."""
        query = parse_qs(urlsplit(self.path).query, keep_blank_values=True)
        layer = query.get('layer', ['ls-dr9'])[0]
        if layer not in LAYERS:
            return 200, b'no such layer'
        if 'ra' not in query or 'dec' not in query:
            return 400, b'Need ra,dec keywords'
        ra, dec, size, scale, bands = self.asked()
        if dec > 84:    # off the footprint
            return 500, b'<h1>Server Error (500)</h1>'
        if set(bands) - set(LAYERS[layer]):
            bands = LAYERS[layer]
        size = min(size, self.server.max_size)
        return 200, make_fits(ra, dec, size, scale, bands, 'invvar' in query,
                              no_data='i' if dec > 32.375 else '')

    def send(self, status, headers, body, n_bytes=-1):
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        if n_bytes is not None:
            self.send_header('Content-Length',
                             len(body) if n_bytes < 0 else n_bytes)
        self.end_headers()
        self.wfile.write(body)


class CutoutServer(ThreadingHTTPServer):
    """
    The server; ``faults`` are the next bad answers, ``requests`` the paths
    and headers so far.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(('127.0.0.1', 0), Handler)
        self.lock = threading.Lock()
        self.faults, self.requests = [], []
        self.n_connections = self.active = self.most_active = 0
        self.max_size, self.pause = 3000, 0
        self.url = f'http://127.0.0.1:{self.server_port}/viewer/cutout.fits'

    def __enter__(self):
        # the default looks for the end every half second
        threading.Thread(target=self.serve_forever, args=(0.02,),
                         daemon=True).start()
        return self

    def __exit__(self, *args):
        self.shutdown()
        self.server_close()
