# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Images of any size, block by block, in memory that does not grow with them.
Blocks overlap, and each is segmented by itself. An object belongs to the block
in whose core its centroid is; what is drawn first stays. Each block is a file
as soon as it is done, and a command that was stopped goes on from there.
"""

import hashlib
import json
import shutil
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
from photutils.utils.exceptions import NoDetectionsWarning

from astrodino_seg import __version__
from astrodino_seg.blocks import (
    Assembly,
    recipe_of,
    run_all,
    segment_block,
)
from astrodino_seg.errors import AstroDinoUserWarning, EmptyImageError
from astrodino_seg.files import sha256_of, whole_or_not
from astrodino_seg.image import as_image, cut_out, grid_of
from astrodino_seg.models.load import digest, weights_file
from astrodino_seg.predict.tiles import tiles
from astrodino_seg.segmenter import DinoSegmenter

__all__ = ['MosaicResult', 'segment_mosaic']

#: Side of the blocks and half their overlap, pixels.
BLOCK, MARGIN = 2560, 256
#: Blocks begin at multiples of this, so that background boxes and binned
#: pixels are those of the whole mosaic.
STEP = 64
FORMATS = ('ecsv', 'fits', 'parquet')


@dataclass(frozen=True, kw_only=True)
class MosaicResult:
    """
    What `segment_mosaic` wrote.

    Attributes
    ----------
    labels, catalog : `~pathlib.Path`
        The label map, a FITS image of int32, and the table.
    n_labels : int
        The number of objects.
    n_cut : int
        How many of them reach beyond their block, or have pixels that
        another one had first: those with the flag ``cut``.
    """

    labels: Path
    catalog: Path
    n_labels: int
    n_cut: int


def segment_mosaic(data, prefix, finder=None, *, threshold=None, mask=None,
                   error=None, weight=None, background=None, wcs=None,
                   bands=None, bad_bits=None, block=BLOCK, margin=MARGIN,
                   catalog_format='ecsv', history=(), scheduler=None,
                   retries=3, progress_bar=False):
    """
    Segment an image of any size, block by block.

    Parameters
    ----------
    data : path-like, array_like, dict or other
        What `~astrodino_seg.as_image` takes, all bands on one pixel grid; of
        files that are not compressed as a whole (those of fpack are not),
        folders of zarr, memory-mapped and Dask arrays no more is read than a
        block.
    prefix : path-like
        What the names of the label map, ``_segm.fits``, and of the table,
        ``_catalog.ecsv``, begin with. ``_parts``, a folder beside them, has
        the blocks that are done, until all are.
    finder : `~astrodino_seg.DinoSegmenter`, optional
        The segmenter; the default one if `None`.
    threshold, background : float, array_like or dict, optional
        As of `~astrodino_seg.DinoSegmenter.segment`. Background and noise
        are measured in each block by itself.
    mask, error, weight : array_like or path-like, optional
        As of `~astrodino_seg.DinoSegmenter.segment`, or the path of a FITS
        image; ``weight`` is an inverse variance, in place of ``error``.
    wcs, bands, bad_bits
        As of `~astrodino_seg.as_image`.
    block : int, optional
        The side of the blocks in pixels, a multiple of 64: with the number of
        bands it sets the memory.
    margin : int, optional
        Half the overlap of blocks in pixels, a multiple of 64. Objects whose
        radius exceeds it are cut, and flagged.
    catalog_format : {'ecsv', 'fits', 'parquet'}, optional
        Of the table. ECSV grows on disk, the others in memory.
    history : sequence of str, optional
        Lines for the headers of both files.
    scheduler : str or ``distributed.Client``, optional
        A Dask cluster that the blocks are handed to. Its workers must see
        ``prefix``, and the files of ``data``, by the same path.
    retries : int, optional
        How often a block that failed on the cluster is tried again.
    progress_bar : bool, optional
        Whether to show a progress bar.

    Returns
    -------
    result : `MosaicResult`
        Where labels and table are. Rows and labels, consecutive from 1, are
        in the order of the blocks. The table's rows are measured in their
        block, on the whole object.

    Raises
    ------
    ValueError
        If bands are on several grids, or the parts that are there were made
        of something else.

    Warns
    -----
    AstroDinoUserWarning
        If objects were cut.
    NoDetectionsWarning
        If no object is found.
    """
    if catalog_format not in FORMATS:
        msg = (f'catalog_format must be one of {", ".join(FORMATS)}, got '
               f'{catalog_format!r}')
        raise ValueError(msg)
    if block % STEP or margin % STEP or not 0 < margin <= (block - STEP) / 2:
        msg = (f'block and margin must be multiples of {STEP}, and block '
               f'more than two margins, got block={block!r}, '
               f'margin={margin!r}')
        raise ValueError(msg)
    finder = DinoSegmenter() if finder is None else finder
    grid = grid_of(data, wcs)
    cuts = tiles(grid.shape, size=block, margin=margin, step=STEP)
    prefix = Path(prefix)
    folder = prefix.with_name(prefix.name + '_parts')
    _claim(folder, _key(data, finder, grid, mask=mask, error=error,
                        weight=weight, threshold=threshold, bands=bands,
                        background=background, bad_bits=bad_bits,
                        block=block, margin=margin))
    parts = [folder / f'{k:06d}.npz' for k in range(len(cuts))]
    todo = [k for k, part in enumerate(parts) if not part.exists()]

    def jobs():
        for k in todo:
            window = cuts[k].outer
            yield {'recipe': recipe_of(finder), 'part': str(parts[k]),
                   'tile': cuts[k], 'shape': grid.shape,
                   'data': cut_out(data, window), 'bands': bands,
                   'bad_bits': bad_bits,
                   'wcs': None if wcs is None else wcs.slice(window),
                   'planes': {
                       name: cut_out(one, window)
                       if isinstance(one, (str, PathLike))
                       else _cut(one, window, grid.shape)
                       for name, one in (('mask', mask), ('error', error),
                                         ('weight', weight))},
                   'options': {name: _cut(one, window, grid.shape)
                               for name, one in (('threshold', threshold),
                                                 ('background', background))}}

    out = Assembly(grid, folder, catalog_format, history)
    ready = iter(zip(parts, cuts))
    waiting = next(ready)

    def put_together():
        nonlocal waiting
        while waiting and waiting[0].exists():
            out.add(*waiting)
            waiting = next(ready, None)

    put_together()
    for _ in run_all(segment_block, jobs(), n_jobs=len(todo),
                     scheduler=scheduler, retries=retries, unit='block',
                     progress=progress_bar):
        put_together()
    labels, catalog = out.finish(prefix)
    shutil.rmtree(folder)
    result = MosaicResult(labels=labels, catalog=catalog, n_labels=out.n,
                          n_cut=out.n_cut)
    if not result.n_labels:
        warnings.warn('No sources were found.', NoDetectionsWarning)
    if result.n_cut:
        msg = (f'{result.n_cut} of {result.n_labels} objects reach beyond '
               f'their block, or into one that was there first; they have the '
               f'flag cut, and a larger margin than {margin} leaves fewer')
        warnings.warn(msg, AstroDinoUserWarning)
    return result


def _cut(value, window, shape):
    """The window of what has the pixels of the mosaic; else, as it is."""
    if isinstance(value, Mapping):
        return {key: _cut(one, window, shape) for key, one in value.items()}
    whole = tuple(np.shape(value)[-2:]) == tuple(shape)
    return cut_out(value, window) if whole else value


def _claim(folder, key):
    """A folder for the parts of what the key says, and of nothing else."""
    folder.mkdir(exist_ok=True)
    note = folder / 'made_of.json'
    if note.exists() and json.loads(note.read_text()) != key:
        msg = (f'prefix: the blocks in {str(folder)!r} are of other data or '
               f'settings; delete it to begin again')
        raise ValueError(msg)
    with whole_or_not(note) as path:
        path.write_text(json.dumps(key, indent=1))


def _key(data, finder, grid, **settings):
    """What blocks are made of, as far as it can be told in a moment."""
    kind, dials = recipe_of(finder)
    model = finder.model
    if hasattr(model, 'state_dict'):
        code = digest(model)
    else:
        code = sha256_of(weights_file(model))
    half = [max(n // 2 - 32, 0) for n in grid.shape]
    middle = cut_out(data, tuple(slice(a, min(a + 64, n))
                                 for a, n in zip(half, grid.shape)))
    pixels = hashlib.sha256()
    with warnings.catch_warnings(), suppress(EmptyImageError):
        warnings.simplefilter('ignore')
        pixels.update(np.ascontiguousarray(as_image(middle).cube))
    told = {'version': __version__, 'weights': code, 'data': _told(data),
            'shape': grid.shape, 'pixels': pixels.hexdigest(),
            'finder': kind.__name__, **dict(dials), **settings}
    del told['model'], told['progress_bar']
    return {name: str(_told(value)) for name, value in told.items()}


def _told(value):
    """What tells it from another, without its pixels."""
    if isinstance(value, Mapping):
        return {str(key): _told(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_told(one) for one in value]
    if isinstance(value, (str, PathLike)) and Path(value).exists():
        path = Path(value)
        return [str(path.resolve()), path.stat().st_size,
                path.stat().st_mtime_ns]
    return (f'{type(value).__name__} {np.shape(value)}'
            if np.ndim(value) else str(value))
