# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Cutouts of the DESI Legacy Imaging Surveys, by position.
"""

import warnings
from functools import partial
from multiprocessing.pool import ThreadPool
from operator import index
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from astropy.config import paths
from tqdm import tqdm

from astrodino_seg.datasets.folder import Images
from astrodino_seg.datasets.service import (
    NATIVE_SCALE,
    SERVICE,
    CutoutRequest,
    FileCache,
    get,
)
from astrodino_seg.datasets.tables import read_positions
from astrodino_seg.errors import DownloadError, SkippedWarning


class LegacyCutouts(Images):
    """
    Cutouts of the Legacy Surveys around many positions.

    A cutout is downloaded when it is asked for, or with all others by
    `fetch`, and comes from the cache thereafter. Needs the extra ``survey``.

    Parameters
    ----------
    positions : `~astropy.coordinates.SkyCoord`, `~astropy.table.Table` or path
        The centres. A table, or the path of one, has the columns ``ra`` and
        ``dec`` in degrees, or one of coordinates.
    size : int or angle, optional
        Side in pixels, at most 3000; or on the sky, as a
        `~astropy.units.Quantity`.
    bands : sequence of str, optional
        Bands of one letter. Those that the layer does not have at a position
        are masked, with a warning.
    pixel_scale : float or angle, optional
        Arcsec a pixel.
    layer : str, optional
        The layer of the viewer: ``'ls-dr10'``, ``'ls-dr9'``,
        ``'ls-dr10-model'``, ...
    ivar : bool, optional
        Whether to ask for the inverse variance, which becomes the noise. The
        service has it below 0.37 arcsec a pixel; beyond, images are without
        noise. Layers that have none at all need `False`.
    cache : path-like, optional
        Folder of the files. Default: a folder in that of astropy's cache.
    n_connections : int, optional
        The largest number of connections at a time.
    n_retries : int, optional
        How often to try again after an answer that was too slow or cut off,
        or said that the service is busy.
    backoff : float, optional
        The n-th retry waits this many seconds times 2**(n - 1), and up to as
        many more at random, but at most two minutes; the first does not
        wait. A Retry-After of the service goes before.
    timeout : float, optional
        Seconds without a sign of the service until an answer is too slow.
    max_seconds : float, optional
        Seconds for one cutout, with all retries; a service that asks to wait
        longer is not waited for. An answer of more than twice the bytes of
        the cutout is refused, as is one that is compressed.
    service : str, optional
        The address of the service.

    Attributes
    ----------
    table : `~astropy.table.Table`
        The table of the positions, with ``ra`` and ``dec`` in degrees.

    Raises
    ------
    ValueError, TypeError
        If an argument is impossible, or a position not on the sky.

    Notes
    -----
    Images are in nanomaggies at 0.262 arcsec a pixel. At other scales the
    service keeps the surface brightness, not the flux a pixel, and images
    are without a unit. Pixels without data are masked: those without inverse
    variance, or, where there is none at all, those that are exactly 0.

    Examples
    --------
    >>> from astropy.coordinates import SkyCoord
    >>> from astrodino_seg.datasets import LegacyCutouts
    >>> ngc_7252 = SkyCoord(335.1865, -24.6783, unit='deg')
    >>> image, = LegacyCutouts(ngc_7252, size=512)  # doctest: +SKIP
    """

    _rows = ('table',)

    def __init__(self, positions, *, size=160, bands='griz',
                 pixel_scale=NATIVE_SCALE, layer='ls-dr10', ivar=True,
                 cache=None, n_connections=4, n_retries=5, backoff=1.0,
                 timeout=60.0, max_seconds=600.0, service=SERVICE):
        self.table = read_positions(positions)
        self._request = CutoutRequest(size, bands, pixel_scale, layer,
                                      bool(ivar), service)
        if index(n_connections) < 1:
            msg = f'n_connections must be 1 or more, got {n_connections}'
            raise ValueError(msg)
        self._n_connections = n_connections
        self._get = partial(get, n_connections=n_connections,
                            n_retries=n_retries, backoff=backoff,
                            timeout=timeout, max_seconds=max_seconds,
                            max_bytes=self._request.max_bytes)
        self._folder = Path(cache or Path(
            paths.get_cache_dir('astrodino_seg'), 'legacysurvey'))

    def __repr__(self):
        ask = self._request
        return (f'<LegacyCutouts: {len(self)} of {ask.layer}, '
                f'{"".join(ask.bands)}, {ask.size} pixels of '
                f'{ask.pixel_scale:g} arcsec>')

    def _image(self, i):
        position = self._position(i)
        name = self._request.file_name(*position)
        files = FileCache(self._folder)
        path = files.find(name)
        if path is None:
            with self._hidden_folder() as folder:
                part = self._download(position, folder)[1]
                path = self._accept(part, position, files)
        if isinstance(path, DownloadError):
            raise path
        return self._request.read(path, *position)

    def fetch(self, *, progress_bar=True):
        """
        Download what is not in the cache, several at a time.

        What came before an interrupt stays, and a second call goes on from
        there.

        Parameters
        ----------
        progress_bar : bool, optional
            Whether to show one.

        Returns
        -------
        table : `~astropy.table.Table`
            A copy of ``table`` with the columns ``ok``, ``path``, ``error``
            and ``url``. ``cutouts[table['ok']]`` are the images that there
            are.

        Raises
        ------
        ConnectionError
            If the service cannot be reached.

        Warns
        -----
        SkippedWarning
            If rows are not ``ok``, with their number.
        """
        files = FileCache(self._folder)
        every = [self._position(row) for row in range(len(self))]
        found = {position: files.find(self._request.file_name(*position))
                 for position in every}
        todo = [position for position in found if found[position] is None]
        with (self._hidden_folder() as folder,
              ThreadPool(self._n_connections) as pool):
            done = pool.imap_unordered(
                partial(self._download, folder=folder), todo)
            for position, part in tqdm(done, total=len(todo), unit='cutout',
                                       disable=not progress_bar):
                found[position] = self._accept(part, position, files)
        return self._results([found[position] for position in every])

    def _results(self, paths):
        """The table of results, from a path or an error for each row."""
        failed = np.array([isinstance(one, DownloadError) for one in paths])
        table = self.table.copy()
        table['ok'] = ~failed
        table['path'] = ['' if bad else str(one)
                         for bad, one in zip(failed, paths)]
        table['error'] = [str(one) if bad else ''
                          for bad, one in zip(failed, paths)]
        table['url'] = [self._request.url(*self._position(row))
                        for row in range(len(self))]
        if failed.any():
            warnings.warn(SkippedWarning('cutouts', [
                (f'row {row}', table['error'][row])
                for row in np.flatnonzero(failed)]))
        return table

    def _position(self, row):
        # as it is asked for, so that equal requests are one
        return tuple(round(float(self.table[key][row]), 7)
                     for key in ('ra', 'dec'))

    def _hidden_folder(self):
        """A folder in the cache for files that are not whole yet."""
        return TemporaryDirectory(prefix='.part-', dir=self._folder,
                                  ignore_cleanup_errors=True)

    def _download(self, position, folder):
        """Run in a thread: position, and the answer's file or an error."""
        try:
            content = self._get(self._request.url(*position))
        except DownloadError as err:
            return position, err
        part = Path(folder, self._request.file_name(*position))
        part.write_bytes(content)
        return position, part

    def _accept(self, part, position, files):
        """Move an answer into the cache, if it is what was asked for."""
        if isinstance(part, DownloadError):
            return part
        try:
            self._request.read(part, *position)
        except DownloadError as err:
            part.unlink()
            return err
        return files.add(part, part.name)
