# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
``astrodino embed``, ``search`` and ``probe``: vectors of many images, what
looks alike, and how well classes are told.
"""

import warnings
from pathlib import Path

from astrodino_seg.cli.products import (
    as_prefix,
    given,
    paths_of,
    read_images,
    refuse_options,
    reserve,
    split_bands,
    written,
)
from astrodino_seg.errors import SkippedWarning, require

TABULAR = ('.h5', '.hdf5', '.parquet')
LISTS = ('.csv', '.ecsv', '.txt', '')
PROBES = ('mlp', 'knn', 'linear')
SIZE = 224      # of the study, for images that become vectors too


def load_network(args):
    """The backbone that the options ask for, on its device."""
    from astrodino_seg.models.load import load_backbone

    backbone = load_backbone(args.backbone)
    try:
        backbone.vit.to(args.device)
    except (RuntimeError, AssertionError) as err:
        msg = f'device: {args.device!r} cannot be used: {err}'
        raise ValueError(msg) from err
    return backbone


def open_images(names, bands=None, *, quiet=True):
    """
    The images of a folder of FITS files or of pictures, of a table of paths,
    of Galaxy10 in a file or a folder of files, or of some FITS files.
    """
    from astropy.table import Table

    from astrodino_seg.datasets import FolderImages, Galaxy10
    from astrodino_seg.datasets.folder import PictureFolder

    path = Path(names[0])
    alone = len(names) == 1
    found = None
    if alone and path.is_dir():
        try:
            found = PictureFolder(path)
        except FileNotFoundError:
            inside = {one.suffix for one in path.rglob('*')}
            if inside & {*TABULAR} and not inside & {'.fits', '.fz', '.gz'}:
                found = Galaxy10(path)
    elif alone and path.suffix in TABULAR:
        found = Galaxy10(path)
    if found is None:
        if not (alone and (path.is_dir() or path.suffix in LISTS)):
            path = Table({'path': names})
        return FolderImages(path, bands=split_bands(bands),
                            progress_bar=not quiet)
    if bands is not None:
        msg = f'bands: those of the pictures in {names[0]!r} are known'
        raise ValueError(msg)
    return found


def run_embed(args):
    from astrodino_seg.datasets import MultimodalImages
    from astrodino_seg.embed import embedding_table
    from astrodino_seg.embed.vectors import check_path

    check_path(args.output, overwrite=args.overwrite)
    if not (args.positions or args.labels):
        refuse_options(args, ['reference', 'bad_bits', 'cutout'],
                       'without --positions or --labels')
    if not args.labels:
        refuse_options(args, ['mask_others'], 'without --labels')
    if args.multimodal:
        refuse_options(args, ['bands'], 'with --multimodal')
        if len(args.images) > 1:
            msg = f'images: --multimodal takes one, got {len(args.images)}'
            raise ValueError(msg)
    backbone = load_network(args)
    if args.positions or args.labels:
        images = _cutouts(args)
    elif args.multimodal:
        images = MultimodalImages(args.images[0]).records()
    else:
        images = open_images(args.images, args.bands, quiet=args.quiet)
    table = embedding_table(
        images, backbone, path=args.output, overwrite=args.overwrite,
        n_workers=args.workers, progress_bar=not args.quiet,
        **given(args, 'what', 'size', 'batch_size'))
    n_flagged = int((table['flags'] > 0).sum())
    print(f'{len(table)} rows of {table["embedding"].shape[1]} numbers, '
          f'{n_flagged} flagged')
    print(f'wrote {args.output}')
    return 0


def _cutouts(args):
    from astrodino_seg.embed import cutouts, label_cutouts
    from astrodino_seg.image import read_label_map

    image = read_images(args.images, args.bands, args.reference,
                        args.bad_bits)
    if args.labels:
        return label_cutouts(image, read_label_map(args.labels), args.cutout,
                             mask_others=args.mask_others)
    if args.cutout is None:
        msg = 'cutout: --positions needs --cutout, the side in pixels'
        raise ValueError(msg)
    return cutouts(image, args.positions, args.cutout)


def run_search(args):
    from astrodino_seg.embed import anomaly_scores, read_embeddings, similar

    if args.images and not args.rows:
        msg = 'images: only what is found for --rows can be drawn'
        raise ValueError(msg)
    prefix = as_prefix(args.output, args.table)
    asked = args.rows or args.like
    ends = {'table': '_similar.ecsv' if asked else '_anomalies.ecsv'}
    if args.images:
        ends['picture'] = '_similar.png'
    paths = paths_of(prefix, ends)
    reserve(args, prefix, paths, overwrite=args.overwrite)
    table = read_embeddings(args.table)
    if args.rows:
        found = similar(table, _rows(args.rows), n=args.n)
    elif args.like:
        found = similar(table, read_embeddings(args.like), n=args.n)
    else:
        found = anomaly_scores(table, k=args.n)
    images = _images(args, len(table)) if args.images else None
    _write_found(found, images, prefix, paths)
    print('\n'.join(found[:20].pformat(max_width=-1)))
    return 0


def _rows(text):
    """Numbers with commas between."""
    try:
        return [int(row) for row in text.split(',')]
    except ValueError:
        msg = f'rows: must be integers with commas between, got {text!r}'
        raise ValueError(msg) from None


def _images(args, n_rows):
    """The images of a table, one a row."""
    images = open_images(args.images, args.bands)
    if len(images) != n_rows:
        msg = f'images: there are {len(images)}, the table has {n_rows} rows'
        raise ValueError(msg)
    return images


def _write_found(found, images, prefix, paths):
    from astrodino_seg.plotting import plot_neighbours, save_figure

    with written(prefix, paths) as parts:
        found.write(parts['table'])
        if images is not None:
            save_figure(plot_neighbours(images, found), parts['picture'])


def run_probe(args):
    from astrodino_seg.embed import evaluate, evaluate_network

    if not args.no_png:
        require('matplotlib', 'plot')
        require('sklearn', 'probe')
    of_vectors = args.protocol in PROBES
    if not of_vectors:
        refuse_options(args, ['what'], f'by {args.protocol}')
    if of_vectors or args.protocol == 'finetune':
        refuse_options(args, ['pretrained'], f'by {args.protocol}')
    else:
        refuse_options(args, ['backbone'], f'by {args.protocol}')
    prefix = as_prefix(args.output, Path(args.input).stem)
    ends = {'splits': '_splits.ecsv', 'classes': '_classes.ecsv'}
    if not args.no_png:
        ends['confusion'] = '_confusion.png'
        if of_vectors:
            ends['tsne'] = '_tsne.png'
    paths = paths_of(prefix, ends)
    reserve(args, prefix, paths, overwrite=args.overwrite)
    table, images, labels, classes = _read_probe(args)
    splits = _splits(args, table, labels)
    epochs = {} if args.protocol in ('knn', 'linear') else {
        'n_epochs': args.epochs}
    if of_vectors:
        vectors = table['embedding']
        result = evaluate(vectors, labels, protocol=args.protocol,
                          splits=splits, classes=classes, seed=args.seed,
                          **epochs)
    else:
        vectors = None
        backbone = load_network(args) if args.protocol == 'finetune' else None
        result = evaluate_network(
            images, labels, args.protocol, backbone=backbone,
            pretrained=args.pretrained, splits=splits, classes=classes,
            n_workers=args.workers, device=args.device, seed=args.seed,
            progress_bar=not args.quiet, **epochs,
            **given(args, 'size', 'batch_size'))
    _write_probe(result, vectors, prefix, paths, args.seed)
    return 0


def _read_probe(args):
    """Table, images (or None), labels and classes (or None)."""
    import numpy as np

    from astrodino_seg.datasets import Galaxy10
    from astrodino_seg.datasets.pictures import GALAXY10_CLASSES
    from astrodino_seg.embed import embedding_table, read_embeddings

    if _has_vectors(args.input):
        if args.protocol not in PROBES:
            msg = (f'protocol: {args.protocol} needs images, {args.input!r} '
                   f'is a table of vectors')
            raise ValueError(msg)
        refuse_options(args, ['what', 'size', 'backbone', 'batch_size'],
                       'with a table of vectors')
        table = read_embeddings(args.input)
        table = table[_with_vector(table)]
        return table, None, _column(table, args.class_column), None
    images = open_images([args.input], quiet=args.quiet)
    classes = GALAXY10_CLASSES if isinstance(images, Galaxy10) else None
    if args.class_column is not None:
        labels, classes = _column(images.table, args.class_column), None
    elif hasattr(images, 'labels'):
        labels = images.labels
    else:
        labels = np.array([Path(path).parent.name for path in images.paths])
    table = getattr(images, 'table', None)
    if args.protocol in PROBES:
        table = embedding_table(
            images, load_network(args), n_workers=args.workers,
            progress_bar=not args.quiet, **{'size': SIZE, **given(
                args, 'what', 'size', 'batch_size')})
        good = _with_vector(table)
        table, labels = table[good], labels[good]
    return table, images, labels, classes


def _has_vectors(path):
    """Whether a file is a table of vectors, and not one of images."""
    suffix = Path(path).suffix
    if suffix == '.parquet' and Path(path).is_file():
        parquet = require('pyarrow.parquet', 'survey')
        return 'embedding' in parquet.read_schema(path).names
    return suffix == '.fits'


def _with_vector(table):
    """Which rows of a table have a vector; tell if some have none."""
    import numpy as np

    from astrodino_seg.embed.vectors import vectors_of

    _, good = vectors_of(table)
    if not good.all():
        warnings.warn(SkippedWarning('rows', [
            (int(row), 'it has no vector') for row in np.flatnonzero(~good)]))
    return good


def _column(table, name):
    """The classes in a table."""
    names = ['class', 'label'] if name is None else [name]
    there = [] if table is None else table.colnames
    for one in names:
        if one in there:
            return table[one]
    msg = f'class_column: there is no column {names}; there are {there}'
    raise ValueError(msg)


def _splits(args, table, labels):
    from astrodino_seg.datasets import sky_split
    from astrodino_seg.embed.classifiers import fold_splits, seed_splits

    if args.folds is not None:
        return fold_splits(labels, n_folds=args.folds, n_repeats=args.repeats,
                           seed=args.seed)
    if not args.sky:
        return seed_splits(len(labels), n_seeds=args.seeds, seed=args.seed)
    if table is None or not {'ra', 'dec'} <= set(table.colnames):
        msg = 'sky: there are no positions ra and dec to split by'
        raise ValueError(msg)
    return [sky_split(table['ra'], table['dec'], seed=args.seed + k)
            for k in range(args.seeds)]


def _write_probe(result, vectors, prefix, paths, seed):
    from astrodino_seg.embed.probe import tsne
    from astrodino_seg.plotting import plot_confusion, plot_tsne, save_figure

    low, high = result.interval()
    classes = result.class_table()
    print('\n'.join(classes.pformat(max_width=-1)))
    print(f'{result.name}: top-1 {result.accuracy:.4f}, standard deviation '
          f'{result.std:.4f} between {len(result.splits)} splits, 95% '
          f'confidence {low:.4f} to {high:.4f}')
    with written(prefix, paths) as parts:
        result.split_table().write(parts['splits'])
        classes.write(parts['classes'])
        if 'confusion' in parts:
            save_figure(plot_confusion(result), parts['confusion'])
        if 'tsne' in parts:
            save_figure(plot_tsne(tsne(vectors, seed=seed), result.truth,
                                  result.classes), parts['tsne'])
