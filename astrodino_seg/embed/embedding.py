# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Embeddings: one vector an image, a cutout or a label. Images are read, prepared
and forgotten batch by batch.
"""

import os
import warnings
from collections.abc import Mapping
from itertools import islice

import astropy.units as u
import numpy as np
import torch
from astropy.nddata import NDData
from astropy.table import QTable
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from astrodino_seg import __version__
from astrodino_seg.embed.cutout import FLAGS, Cutouts, plain_columns
from astrodino_seg.embed.dense import Inputs
from astrodino_seg.embed.vectors import (
    RowStore,
    check_path,
    describe_images,
    write_embeddings,
)
from astrodino_seg.errors import SkippedWarning
from astrodino_seg.files import locked
from astrodino_seg.image import Image
from astrodino_seg.models.backbone import check_size
from astrodino_seg.models.load import digest, load_backbone

#: What can be taken as the vector of an image, and its length in units of
#: that of a token.
WHAT = {'cls': 1, 'patch': 1, 'both': 2}


def embed(images, backbone=None, *, what='cls', size=None, batch_size=32,
          n_workers=0, progress_bar=False):
    """
    Embed images.

    Parameters
    ----------
    images : iterable
        Images or cutouts, as `cutouts`, `label_cutouts` and
        `~astrodino_seg.datasets` have them. Each is what
        `~astrodino_seg.as_image` takes; or a picture, uint8 of shape (y, x,
        3) in red, green and blue; or a tuple of one of these and a dict with
        ``object_id``, ``ra`` and ``dec``. A path, a dict, an `Image` or an
        `~astropy.nddata.NDData` is one image. Cutouts are normalised with the
        image that they are cut out of if the rule for the planes says what is
        ``blank``, others by themselves.
    backbone : `~astrodino_seg.models.Backbone`, str or path, optional
        A backbone, or what `~astrodino_seg.models.load_backbone`
        takes; the bundled one if `None`. The device of its ``vit`` is used.
    what : {'cls', 'patch', 'both'}, optional
        The CLS token, the mean of the patch tokens, or the one followed by
        the other; of the last layer, after its norm.
    size : int or tuple of int, optional
        Rows and columns that images are resampled to, rounded to multiples
        of the patch size; those of each image if `None`.
    batch_size : int, optional
        Images at a time.
    n_workers : int, optional
        Processes that read and prepare images; 0 is this one. Ignored for
        what can be gone through only once.
    progress_bar : bool, optional
        Whether to show one.

    Returns
    -------
    vectors : `~numpy.ndarray`
        (n, d) float32; NaN for what has no vector.

    Raises
    ------
    ValueError
        If there are no images, none is usable, or an argument is wrong.

    Warns
    -----
    SkippedWarning
        If images have no vector, because there is nothing in them (all pixels
        are masked or equal), or they cannot be read or used.

    Examples
    --------
    >>> import numpy as np
    >>> from astrodino_seg.embed import embed
    >>> rng = np.random.default_rng(0)
    >>> embed(rng.normal(size=(3, 1, 64, 64)), what='both').shape
    (3, 384)
    """
    _check(what, batch_size, n_workers)
    images = _many(images)
    backbone = load_backbone(backbone)
    rows = _all_rows(_embed(
        images, backbone, what=what, size=size, batch_size=batch_size,
        n_workers=n_workers, progress_bar=progress_bar, errors=(errors := {})))
    _tell_skipped(rows['flags'], errors)
    return rows['vector']


def embedding_table(images, backbone=None, *, path=None, overwrite=False,
                    what='cls', size=None, batch_size=32, n_workers=0,
                    progress_bar=False):
    """
    Embed images into a table.

    Parameters
    ----------
    images, backbone, what, size, batch_size, n_workers, progress_bar
        As of `embed`.
    path : path-like, optional
        A file to write the table to, ``.fits`` or ``.parquet``. Until it is
        complete, its rows are kept beside in a file of the same name and
        ``.part``: if the process is killed, the same call goes on from there
        to the same table.
    overwrite : bool, optional
        Whether to replace a file of this name.

    Returns
    -------
    table : `~astropy.table.QTable`
        What ``images.table`` or ``images.paths`` tell of each image, and
        ``id``; ``ra`` and ``dec`` (degrees, ICRS), those of the image's
        centre if nothing else tells them, where there is a WCS; ``flags``,
        bits of `~astrodino_seg.embed.cutout.FLAGS`; ``embedding``, (n, d)
        float32. Its ``meta`` tells the backbone, the sha256 of its weights,
        the rule for its input, and the arguments.

    Raises
    ------
    ValueError
        As of `embed`; or if the rows that are kept are those of another run.
    OSError
        If the file exists, or cannot be written.

    Warns
    -----
    SkippedWarning
        As of `embed`.
    """
    _check(what, batch_size, n_workers)
    images = _many(images)
    backbone = load_backbone(backbone)
    provenance = _provenance(backbone, what, size)
    errors = {}
    options = {'what': what, 'size': size, 'batch_size': batch_size,
               'n_workers': n_workers, 'progress_bar': progress_bar,
               'errors': errors}
    if path is None:
        rows = _all_rows(_embed(images, backbone, **options))
        return _table(images, rows, provenance, errors)
    path = check_path(path, overwrite=overwrite)
    store = RowStore(
        path.with_name(path.name + '.part'),
        _row_type(backbone.vit.dim * WHAT[what]),
        {**provenance, 'batch_size': batch_size, **describe_images(images)})
    with locked(store.path):
        start = store.resume(batch_size)
        for part in _embed(images, backbone, start=start, **options):
            store.append(part)
        rows = store.read()
        if not len(rows):
            store.remove()
        table = _table(images, _all_rows([rows]), provenance, errors)
        write_embeddings(table, path, overwrite=overwrite)
        store.remove()
    return table


def _many(images):
    """The images, also if it is one alone."""
    one = isinstance(images, (str, os.PathLike, Mapping, NDData, Image))
    if one and isinstance(images, (str, os.PathLike)) and os.path.isdir(
            images):
        msg = (f'images: {str(images)!r} is a folder; astrodino_seg.datasets'
               '.FolderImages reads the images in it')
        raise ValueError(msg)
    return [images] if one else images


def _row_type(dim):
    return np.dtype([('vector', '<f4', (dim,)), ('ra', '<f8'),
                     ('dec', '<f8'), ('name', 'S64'), ('flags', '<i4')])


def _all_rows(parts):
    parts = list(parts)
    if not sum(map(len, parts)):
        msg = 'images are empty'
        raise ValueError(msg)
    return np.concatenate(parts)


def _embed(images, backbone, *, what, size, batch_size, n_workers,
           progress_bar, errors, start=0):
    """Yield the rows of each batch, from an image on; ``errors`` grow."""
    vit = backbone.vit
    inputs = Inputs(images, backbone.planes, size=size,
                    patch_size=vit.patch_size)
    n = len(images) if hasattr(images, '__len__') else None
    with tqdm(total=n, initial=start, unit='image', desc='embed',
              disable=not progress_bar) as bar:
        for batch in _batches(inputs, start, batch_size, n_workers):
            rows = np.zeros(len(batch), _row_type(vit.dim * WHAT[what]))
            rows['vector'] = _vectors(vit, [one.x for one in batch], what)
            for k, (row, one) in enumerate(zip(rows, batch), start):
                row['ra'], row['dec'] = one.ra, one.dec
                row['name'] = _as_bytes(one.name)
                error = one.error
                if one.x is not None and not np.isfinite(row['vector']).all():
                    row['vector'] = np.nan
                    error = ValueError(f'images[{k}]: vector not finite')
                if error is not None:
                    errors[k], row['flags'] = error, FLAGS['failed']
                elif one.x is None:
                    row['flags'] = FLAGS['off_image' if one.missing
                                         else 'empty']
            start += len(batch)
            if len(errors) == start and (start == n or start >= 16):
                raise next(iter(errors.values()))   # nothing is right
            bar.update(len(batch))
            yield rows


def _batches(inputs, start, batch_size, n_workers):
    """Yield lists of `NetworkInput`, from an item on."""
    if hasattr(inputs.images, '__len__'):
        yield from DataLoader(Subset(inputs, range(start, len(inputs))),
                              batch_size, num_workers=n_workers,
                              collate_fn=list)
        return
    items = (inputs.prepare(i, item) for i, item in
             islice(enumerate(inputs.images), start, None))
    while batch := list(islice(items, batch_size)):
        yield batch


@torch.inference_mode()
def _vectors(vit, planes, what):
    """(n, d) float32, NaN where there are no planes."""
    out = np.full((len(planes), vit.dim * WHAT[what]), np.nan, np.float32)
    of_shape = {}
    for k, x in enumerate(planes):
        if x is not None:
            of_shape.setdefault(tuple(x.shape), []).append(k)
    for rows in of_shape.values():
        x = torch.stack([planes[k] for k in rows]).to(vit.cls_token.device)
        features = vit.forward_features(x)
        patch = features.patches[-1].mean(dim=(2, 3))
        parts = {'cls': [features.cls], 'patch': [patch],
                 'both': [features.cls, patch]}[what]
        out[rows] = torch.cat(parts, dim=1).float().cpu().numpy()
    return out


def _as_bytes(name):
    code = name.encode()
    if len(code) > 64:
        msg = f'object_id must have 64 bytes or fewer, got {name!r}'
        raise ValueError(msg)
    return code


def _check(what, batch_size, n_workers):
    if what not in WHAT:
        msg = f'what must be one of {list(WHAT)}, got {what!r}'
        raise ValueError(msg)
    for name, value, least in (('batch_size', batch_size, 1),
                               ('n_workers', n_workers, 0)):
        if not (isinstance(value, int) and value >= least):
            msg = f'{name} must be an int of {least} or more, got {value!r}'
            raise ValueError(msg)


def _provenance(backbone, what, size):
    """Names of 8 letters or fewer, as FITS headers have them."""
    size = check_size(size)
    return {'BACKBONE': str(backbone.name),
            'WEIGHTS': digest(backbone.vit),
            'PLANES': repr(backbone.planes), 'WHAT': what,
            'IMGSIZE': 'own' if size is None else '{} x {}'.format(*size),
            'CREATOR': f'astrodino_seg {__version__}'}


def _table(images, rows, provenance, errors):
    known = getattr(images, 'table', None)
    table = QTable()
    flags = rows['flags'].copy()
    if known is not None:
        names = plain_columns(known, {'flags', 'embedding'})
        table = QTable({name: known[name] for name in names})
        if isinstance(images, Cutouts):
            flags |= known['flags']
    elif hasattr(images, 'paths'):
        table['path'] = [str(path) for path in images.paths]
    if 'id' not in table.colnames:
        ids = np.arange(len(rows))
        if 'object_id' in table.colnames:
            ids = table['object_id']
        elif (rows['name'] != b'').any():
            ids = np.char.decode(rows['name'])
        table.add_column(ids, name='id', index=0)
    for name in ('ra', 'dec'):
        values = table[name] if name in table.colnames else rows[name]
        if name in table.colnames or np.isfinite(values).any():
            table[name] = _degrees(values)
    table['flags'] = flags
    table['embedding'] = rows['vector']
    table.meta.update(provenance, FLAGS=', '.join(
        f'{name}={bit}' for name, bit in FLAGS.items()))
    _tell_skipped(flags, errors)
    return table


def _degrees(values):
    if isinstance(values, u.Quantity):
        return values.to(u.deg)
    return np.ma.filled(np.ma.asarray(values, dtype=float), np.nan) * u.deg


def _tell_skipped(flags, errors):
    skipped = []
    for name, reason in (('empty', 'all pixels are masked or equal'),
                         ('off_image', 'its position is not on the image'),
                         ('failed', 'it could not be used')):
        skipped += [(int(k), str(errors.get(int(k), reason)))
                    for k in np.flatnonzero(flags & FLAGS[name])]
    if skipped:
        warnings.warn(SkippedWarning('images without a vector', skipped))
