# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
``astrodino probe``.
"""

import warnings
from pathlib import Path

from astrodino_seg.cli.embed import (
    add_network_options,
    load_network,
    open_images,
)
from astrodino_seg.cli.products import (
    as_prefix,
    given,
    paths_of,
    refuse_options,
    reserve,
    written,
)
from astrodino_seg.errors import SkippedWarning, require

PROBES = ('mlp', 'knn', 'linear')
BASELINES = ('efficientnet_b0', 'convnext_nano', 'resnet18', 'densenet121')
NETWORKS = ('finetune', *BASELINES)
SIZE = 224      # of the study, for images that become vectors too


def add_probe(commands):
    probe = commands.add_parser(
        'probe', help='how well a backbone tells classes',
        description='Write PREFIX_splits.ecsv, PREFIX_classes.ecsv, '
                    'PREFIX_confusion.png and, of probes of vectors, '
                    'PREFIX_tsne.png. The defaults are the protocol of the '
                    'AstroDINO study.')
    add = probe.add_argument
    add('input', metavar='TABLE_OR_IMAGES',
        help='a table of "astrodino embed"; Galaxy10; or a folder of '
             'pictures or FITS files with one folder a class')
    add('-o', '--output', metavar='PREFIX',
        help="prefix of the products, or a folder; default: the input's "
             "name, here")
    add('--protocol', choices=(*PROBES, *NETWORKS), default='mlp',
        help='probe of frozen vectors, training of the whole backbone, or '
             'supervised baseline (%(default)s)')
    add('--class-column', metavar='COLUMN',
        help='column of a table that tells the class; default: class, or '
             'label')
    add('--size', type=int, metavar='PIXELS',
        help='side that the network sees (224)')
    add('--seeds', type=int, default=5, metavar='N',
        help='random splits into 80%% and 20%% (%(default)s)')
    add('--sky', action='store_true', help='split by position on the sky')
    add('--folds', type=int, metavar='N',
        help='stratified folds instead, for few images')
    add('--repeats', type=int, default=10, metavar='N',
        help='how often to draw folds (%(default)s)')
    add('--epochs', type=int, default=30, metavar='N',
        help='of mlp and of networks (%(default)s)')
    add('--pretrained', action='store_true',
        help='begin a baseline with weights of ImageNet')
    add('--seed', type=int, default=0, help='the first seed (%(default)s)')
    add_network_options(add)
    add('--no-png', action='store_true', help='no pictures')
    add('--overwrite', action='store_true', help='replace old products')
    probe.set_defaults(run=run_probe)


def run_probe(args):
    from astrodino_seg.embed import evaluate, evaluate_network

    if not args.no_png:
        require('matplotlib', 'plot')
        require('sklearn', 'probe')
    of_vectors = args.protocol in PROBES
    if not of_vectors:
        refuse_options(args, ['what'], f'by {args.protocol}')
    if args.protocol in BASELINES:
        refuse_options(args, ['backbone'], f'by {args.protocol}')
    else:
        refuse_options(args, ['pretrained'], f'by {args.protocol}')
    prefix = as_prefix(args.output, Path(args.input).stem)
    ends = {'splits': '_splits.ecsv', 'classes': '_classes.ecsv'}
    if not args.no_png:
        ends['confusion'] = '_confusion.png'
        if of_vectors:
            ends['tsne'] = '_tsne.png'
    paths = paths_of(prefix, ends)
    reserve(args, prefix, paths, overwrite=args.overwrite)
    table, images, labels, classes = _read(args)
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
    _write(result, vectors, prefix, paths, args.seed)
    return 0


def _read(args):
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


def _write(result, vectors, prefix, paths, seed):
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
