# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The blocks of a mosaic: what a worker does of one, and how they are put
together; and many jobs, here or on a Dask cluster, which nothing else knows.
"""

import io
import os
import re
import warnings
from contextlib import nullcontext
from functools import lru_cache
from os import PathLike
from pathlib import Path

import numpy as np
from astropy.table import QTable, vstack
from tqdm import tqdm

from astrodino_seg import errors
from astrodino_seg.catalog import FLAGS
from astrodino_seg.errors import (
    AstroDinoUserWarning,
    EmptyImageError,
    require,
)
from astrodino_seg.files import whole_or_not
from astrodino_seg.image import GrowingLabelMap, as_image, read_plane
from astrodino_seg.image.sources import Cutout

#: An object so near to a core, in radii of it, may have been left to it by the
#: block that has it; it is taken if less than half of it has a label already.
NEAR, CLAIMED = 0.5, 0.5
#: Jobs that are handed out at a time, for each thread of the cluster: one to
#: be done and one to go on with.
IN_HAND = 2


def segment_block(job):
    """Segment a block and write what may belong to it: what a worker does."""
    tile = job['tile']
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('ignore')
        warnings.simplefilter('always', AstroDinoUserWarning)
        labels, table = _objects(job)
    off = 0         # pixels from the core
    for axis, core, outer in zip('yx', tile.core, tile.outer):
        table[f'{axis}_centroid'] += outer.start
        at = np.floor(np.asarray(table[f'{axis}_centroid']) + 0.5)
        off = np.maximum.reduce([off + 0 * at, core.start - at,
                                 at - core.stop + 1])
    size = np.bincount(labels.ravel(), minlength=len(table) + 1)[1:]
    keep = off <= NEAR * np.sqrt(size / np.pi)
    number = np.zeros(len(table) + 1, np.int32)
    number[1:][keep] = np.arange(1, keep.sum() + 1)
    labels, table = number[labels], table[keep]
    text = io.StringIO()
    if len(table):
        _flag_edges(labels, table['flags'], tile, job['shape'])
        table.write(text, format='ascii.ecsv')
    with whole_or_not(job['part']) as path:
        np.savez_compressed(
            path, labels=labels, said=np.array([
                (one.category.__name__, str(one.message)) for one in caught],
                str).reshape(-1, 2),
            table=np.frombuffer(text.getvalue().encode(), np.uint8))


def _objects(job):
    """The labels of a block, and their table."""
    try:
        image = as_image(job['data'], wcs=job['wcs'], bands=job['bands'],
                         bad_bits=job['bad_bits'],
                         **read_planes(**job['planes']))
        result = finder_of(job['recipe']).segment(image, **job['options'])
    except EmptyImageError:
        result = None
    if result is None:
        shape = [one.stop - one.start for one in job['tile'].outer]
        return np.zeros(shape, np.int32), QTable(
            {'y_centroid': np.zeros(0), 'x_centroid': np.zeros(0)})
    return result.segmentation_image.data, result.table


def read_planes(mask=None, error=None, weight=None, window=None):
    """``mask`` and ``error`` of `as_image`, of arrays or FITS images."""
    def pixels(one):
        if isinstance(one, (str, PathLike)):
            one = Cutout(one, window)
        return (read_plane(one.source, one.window)
                if isinstance(one, Cutout) else one)

    planes = {}
    if mask is not None:
        planes['mask'] = np.asarray(pixels(mask)) != 0      # NaN too
    if error is not None:
        planes['error'] = pixels(error)
    if weight is not None:
        weight = np.asarray(pixels(weight), float)
        planes['error'] = np.where(weight > 0, weight, np.nan)**-0.5
    return planes


def _flag_edges(labels, flags, tile, shape):
    """The edge of a block is that of the image, or it cuts."""
    flags &= ~FLAGS['edge']
    for side, outer, n in zip((labels, labels.T), tile.outer, shape):
        for line, is_edge in ((side[0], outer.start == 0),
                              (side[-1], outer.stop == n)):
            flags[np.unique(line[line > 0]) - 1] |= FLAGS[
                'edge' if is_edge else 'cut']


class Assembly:
    """Blocks, in their order, to one label map and one table."""

    def __init__(self, grid, folder, catalog_format, history):
        self.format, self.history = catalog_format, list(history)
        self.labels = GrowingLabelMap(folder / 'labels.fits', grid,
                                      {'HISTORY': self.history})
        self.catalog = folder / f'catalog.{catalog_format}'
        self.catalog.unlink(missing_ok=True)
        self.n = self.n_cut = 0
        self.tables, self.said = [], {}

    def add(self, part, tile):
        """Draw the objects of a block where there are none yet."""
        with np.load(part) as block:
            labels, said = block['labels'], block['said']
            text = block['table'].tobytes().decode()
        # of many blocks that say the same but for numbers, one is shown
        for kind, one in said.tolist():
            self.said.setdefault((kind, re.sub(r'[-+\d.e%]+', '', one)),
                                 []).append(one)
        if not text:
            return
        table = QTable.read(text, format='ascii.ecsv')
        there = self.labels.read(tile.outer)
        size, taken = (np.bincount(one.ravel(), minlength=len(table) + 1)[1:]
                       for one in (labels, labels[there > 0]))
        keep = taken < CLAIMED * size
        number = np.zeros(len(table) + 1, np.int32)
        number[1:][keep] = self.n + np.arange(1, keep.sum() + 1)
        np.copyto(there, number[labels], where=there == 0)
        self.labels.write(tile.outer, there)
        table['flags'][taken > 0] |= FLAGS['cut']
        table['label'] = number[1:]
        table = table[keep]
        self.n += len(table)
        self.n_cut += int((table['flags'] & FLAGS['cut'] > 0).sum())
        if len(table):
            self._append(table)

    def _append(self, table):
        first = self.n == len(table)
        if first and self.history:
            table.meta['HISTORY'] = self.history
        if self.format != 'ecsv':
            self.tables.append(table)
            return
        text = io.StringIO()
        table.write(text, format='ascii.ecsv')
        lines = text.getvalue().splitlines(keepends=True)
        names = next(k for k, line in enumerate(lines) if line[0] != '#')
        with self.catalog.open('a') as stream:
            stream.writelines(lines[0 if first else names + 1:])

    def finish(self, prefix):
        """Both files to their place."""
        if self.tables:
            vstack(self.tables, metadata_conflicts='silent').write(
                self.catalog)
        elif not self.n:
            QTable({'label': np.zeros(0, np.int32)}).write(self.catalog)
        labels, catalog = (prefix.with_name(prefix.name + end) for end in (
            '_segm.fits', f'_catalog.{self.format}'))
        Path(self.labels.path).replace(labels)
        self.catalog.replace(catalog)
        for (kind, _), said in self.said.items():
            more = f' (and in {len(said) - 1} further blocks)'
            warnings.warn(said[0] + more * (len(said) > 1),
                          getattr(errors, kind, AstroDinoUserWarning))
        return labels, catalog


def run_all(work, jobs, *, n_jobs, scheduler=None, retries=3, progress=False,
            unit='job'):
    """
    Do all jobs, each of ``jobs`` a dict or tuple, and yield ``(job number,
    result)`` as they are done: here, or on a cluster, ``scheduler`` being its
    address or a ``distributed.Client``. A job whose worker died may be done
    twice.
    """
    with tqdm(total=n_jobs, disable=not progress, desc='segmenting',
              unit=unit, leave=False) as bar:
        done = (((k, work(job)) for k, job in enumerate(jobs))
                if scheduler is None else
                _on_cluster(work, jobs, scheduler, retries))
        for one in done:
            bar.update()
            yield one


def _on_cluster(work, jobs, scheduler, retries):
    distributed = require('distributed', 'dask')
    from dask import delayed

    with (distributed.Client(scheduler, set_as_default=False)
          if isinstance(scheduler, str) else nullcontext(scheduler)) as client:
        waiting, number = enumerate(jobs), {}
        running = distributed.as_completed(loop=client.loop)

        def hand_out():
            # asked each time: workers come and go
            n = IN_HAND * max(sum(client.nthreads().values()), 1)
            while running.count() < n:
                k, job = next(waiting, (None, None))
                if k is None:
                    return
                future = client.compute(delayed(_there, pure=False)(
                    work, job, os.getcwd()), retries=retries)
                number[future.key] = k
                running.add(future)

        hand_out()
        for future in running:
            yield number.pop(future.key), future.result()
            hand_out()


def _there(work, job, folder):
    """Work in the folder of the client, for names of files are of there."""
    os.chdir(folder)
    return work(job)


def recipe_of(finder):
    """What `finder_of` makes an equal finder of, in any process."""
    return type(finder), tuple(
        (name, value) for name, value in vars(finder).items()
        if not (name.startswith('_') or name.endswith('_')))


@lru_cache(maxsize=1)
def finder_of(recipe):
    """The finder of a recipe: one, and one model, in each process."""
    kind, settings = recipe
    return kind(**{**dict(settings), 'progress_bar': False})
