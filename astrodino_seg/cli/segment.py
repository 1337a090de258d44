# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
``astrodino segment`` and ``astrodino report``.
"""

import sys
from argparse import ArgumentTypeError, Namespace
from contextlib import ExitStack
from pathlib import Path

from astrodino_seg.cli.compare import choose_finders
from astrodino_seg.cli.products import (
    MAPS,
    add_image_options,
    as_prefix,
    history,
    product_paths,
    read_images,
    refuse_options,
    reserve,
    run_each,
    split_bands,
    summarise,
    write_products,
    written,
)
from astrodino_seg.errors import require

#: What one image of many may end with.
USER_ERRORS = ValueError, TypeError, OSError


def add_segment(commands):
    segment = commands.add_parser(
        'segment', help='segment one cube, or one file a band',
        description='Write PREFIX_segm.fits, PREFIX_catalog.ecsv, '
                    'PREFIX.reg and PREFIX.png.')
    add = segment.add_argument
    add_image_options(add)
    add('--each', action='store_true',
        help='each IMAGE by itself, or each FITS file of a folder: its '
             'products are put in a folder of its name in the folder of '
             '--output, what is there already is left, and one that fails '
             'does not end the others')
    add('--positions', metavar='CATALOGUE',
        help='cutouts of IMAGE around the positions of a table, as of --each')
    add('--cutout', type=int, metavar='N',
        help='side of the cutouts in pixels')
    add('--join', metavar='FILE',
        help='one catalogue, .ecsv, .fits or .parquet, of all images of '
             '--each or --positions, with the column "image"')
    add('--block', type=int, metavar='N',
        help='for images that are larger than memory: segment blocks of N x '
             'N pixels; a command that was stopped goes on')
    add('--margin', type=int, default=256, metavar='N',
        help='half the overlap of blocks; larger objects are cut '
             '(%(default)s)')
    add('--scheduler', metavar='ADDRESS',
        help='of a Dask cluster that does the work, as of "dask scheduler", '
             'for --block, --each or --positions')
    _add_dials(segment)
    add('--catalog-format', choices=('ecsv', 'fits', 'votable', 'parquet'),
        default='ecsv', help='of the catalogue (%(default)s)')
    add('--columns', choices=('own', 'sextractor', 'lsst'), default='own',
        help='names of its columns; lsst adds blends as parents (%(default)s)')
    add('--no-png', action='store_true', help='no picture')
    add('--maps', type=_names, metavar='NAMES',
        help=f'write PREFIX_maps.fits with some of {", ".join(MAPS)}, with '
             f'commas between, or all')
    add('--overwrite', action='store_true', help='replace old products')
    add('-q', '--quiet', action='store_true', help='no progress bar')
    segment.set_defaults(run=run_segment, window=None)


def add_report(commands):
    report = commands.add_parser(
        'report', help='segment, and write one HTML page to look at',
        description='Write one HTML page with the image, the labels and the '
                    'table, which needs no network.')
    add = report.add_argument
    add_image_options(add, output=False)
    add('-o', '--output', metavar='PAGE',
        help="the page, or a folder; default: the first file's name, here")
    add('--finders', default='photutils',
        help='finders to blink with, as of compare, or none (%(default)s)')
    _add_dials(report)
    add('--overwrite', action='store_true', help='replace an old page')
    add('-q', '--quiet', action='store_true', help='no progress bar')
    report.set_defaults(run=run_report, window=None)


def _add_dials(command):
    """The options of how to segment, and of what beside the images."""
    add = command.add_argument
    add('--mask', metavar='FILE',
        help='FITS image, not 0 where pixels are not to be used')
    noise = command.add_mutually_exclusive_group()
    noise.add_argument('--error', metavar='FILE',
                       help='1-sigma errors: a FITS image or a number')
    noise.add_argument('--weight', metavar='FILE',
                       help='FITS image of inverse variances')
    add('--threshold', type=float,
        help="pixel value that an object must exceed, in the image's unit")
    add('--background', type=_background, metavar='B',
        help='none (it has been subtracted), flat (one number a band), or '
             'this number; measured in boxes beside the objects if not given')
    add('--n-sigma', type=float,
        help='S/N of all bands together that an object must exceed')
    add('--n-pixels', type=int, default=5,
        help='connected pixels that an object must have (%(default)s)')
    add('--connectivity', type=int, choices=(4, 8), default=8)
    add('--merge', type=float, default=0.3,
        help='0 splits most, 1 merges most (%(default)s)')
    add('--min-seed', type=float, default=0.7,
        help='least probability that a piece is of an object (%(default)s)')
    add('--bin-factor', type=int,
        help='pixels to bin in x and y before the network looks (1)')
    add('--tile-size', type=int, default=256,
        help='side of the tiles in pixels (%(default)s)')
    add('--symmetric', action='store_true',
        help='average over the flips of the image: steadier, and slower')
    add('--edits', metavar='FILE',
        help='edits by hand to apply to the labels: a table (CSV, ECSV) or '
             'DS9 regions (.reg)')
    add('--model', help='a weights file; default: bundled')
    add('--device', default='cpu')
    add('--float32', dest='bfloat16', action='store_const', const=False,
        help='no bfloat16, where the processor has instructions for it')
    add('--threads', type=int, metavar='N',
        help='CPU threads; default: what torch takes')


def _background(text):
    """A word or a number."""
    return text if text in ('none', 'flat') else float(text)


def _names(text):
    """Names of `MAPS` with commas between."""
    names = list(MAPS) if text == 'all' else text.split(',')
    if unknown := [name for name in names if name not in MAPS]:
        msg = f'no map {unknown[0]!r}; there are {", ".join(MAPS)}'
        raise ArgumentTypeError(msg)
    return names


def run_segment(args):
    if not (args.no_png or args.block):
        require('matplotlib', 'plot')
    for name in ('each', 'positions', 'block'):
        if getattr(args, name):
            refuse_options(args, ['edits'], f'with --{name}')
    finder, dials = _finder(args)
    many = args.each or args.positions
    if not many:
        refuse_options(args, ['join'], 'without --each or --positions')
    if not args.positions:
        refuse_options(args, ['cutout'], 'without --positions')
    if args.block:
        refuse_options(args, ['each', 'positions', 'maps', 'reference'],
                       'with --block')
        if args.columns != 'own':
            refuse_options(args, ['columns'], 'with --block')
        return _mosaic(args, finder, dials)
    if many:
        return run_each(_some, args, finder, dials)
    refuse_options(args, ['scheduler'],
                   'without --block, --each or --positions')
    return _segment(args, finder, dials)


def run_report(args):
    from astrodino_seg.evaluate.compare import run_finder

    finder, dials = _finder(args)
    others = {} if args.finders == 'none' else choose_finders(
        args.finders, args.model)
    prefix = as_prefix(args.output, args.images[0])
    path = (prefix if prefix.suffix == '.html'
            else prefix.with_name(prefix.name + '.html'))
    paths = {'page': path}
    reserve(args, path, paths, overwrite=args.overwrite)
    image = _image(args)
    result = _edited(args, finder.segment(
        image, **_in_unit(args, image.unit)))
    if result is None:
        return 3
    lines = _history(args, dials)
    with written(path, paths) as parts:
        result.report(parts['page'], title=path.stem, lines=lines, others={
            name: run_finder(name, other, result.image)[0]
            for name, other in others.items()})
    return 0


def _finder(args):
    """The segmenter, and its dials by name."""
    import torch

    from astrodino_seg.segmenter import DinoSegmenter

    if args.threads is not None:
        if args.threads < 1:
            msg = f'threads: must be 1 or more, got {args.threads}'
            raise ValueError(msg)
        torch.set_num_threads(args.threads)
    dials = {name: getattr(args, name) for name in (
        'n_pixels', 'connectivity', 'n_sigma', 'merge', 'min_seed',
        'bin_factor', 'bfloat16', 'tile_size', 'symmetric')}
    return DinoSegmenter(**dials, model=args.model, device=args.device,
                         progress_bar=not args.quiet), dials


def _some(job):
    """Segment some images of many: of each its status, and what was wrong."""
    from astrodino_seg.blocks import finder_of
    from astrodino_seg.result import segment_each

    recipe, dials, jobs = job
    said = []
    with ExitStack() as until_end:
        jobs = [Namespace(**args, until_end=until_end) for args in jobs]
        for args, found in zip(jobs, segment_each(finder_of(recipe),
                                                  map(_item, jobs))):
            try:
                if isinstance(found, Exception):
                    raise found
                said.append((_write(args, found, dials), ''))
            except USER_ERRORS as err:
                said.append((1, ' '.join(str(err).split())
                             or type(err).__name__))
    return said


def _item(args):
    """An image and its options; an error in its place if there is one."""
    try:
        reserve(args, *_products(args), overwrite=args.overwrite)
        image = _image(args)
        return image, _in_unit(args, image.unit)
    except USER_ERRORS as err:
        return err, {}


def _mosaic(args, finder, dials):
    """One image of any size, block by block."""
    from astrodino_seg.image import grid_of
    from astrodino_seg.mosaic import segment_mosaic

    prefix = as_prefix(args.output, args.images[0])
    reserve(args, prefix, product_paths(prefix, args.catalog_format,
                                        png=False), overwrite=args.overwrite)
    data = args.images[0] if len(args.images) == 1 else args.images
    unit = grid_of(data).unit
    result = segment_mosaic(
        data, prefix, finder, mask=args.mask, error=_number(args.error),
        weight=args.weight, bands=split_bands(args.bands),
        bad_bits=args.bad_bits, block=args.block, margin=args.margin,
        catalog_format=args.catalog_format, scheduler=args.scheduler,
        progress_bar=not args.quiet, history=_history(
            args, {**dials, 'block': args.block, 'margin': args.margin}),
        **_in_unit(args, unit))
    print(f'{result.n_labels} objects')
    for path in (result.labels, result.catalog):
        print(f'wrote {path}')
    return 0 if result.n_labels else 3


def _number(text):
    """A number, or the name of a file."""
    try:
        return None if text is None else float(text)
    except ValueError:
        return text


def _in_unit(args, unit):
    """Threshold and background in the unit of the image."""
    return {name: value * unit if isinstance(value, float)
            and unit is not None else value
            for name in ('threshold', 'background')
            if (value := getattr(args, name)) is not None}


def _history(args, dials):
    files = [one for one in (args.mask, args.error, args.weight, args.edits)
             if one is not None and Path(one).is_file()]
    return history([*args.images, *files], args.model,
                   threshold=args.threshold, background=args.background,
                   **dials)


def _image(args):
    """The image, of one file or more."""
    from astrodino_seg.blocks import read_planes

    return read_images(
        args.images, args.bands, args.reference, args.bad_bits, args.window,
        **read_planes(args.mask, _number(args.error), args.weight,
                      window=args.window))


def _edited(args, result):
    """The result with the edits that were given; it is told what it is."""
    if result is None:
        print('no sources were found', file=sys.stderr)
        return None
    if args.edits is not None:
        result = result.edit(args.edits)
    print(summarise(result))
    return result


def _products(args):
    """What the names of the products of one image begin with, and they."""
    prefix = as_prefix(args.output, args.images[0])
    return prefix, product_paths(prefix, args.catalog_format, maps=args.maps,
                                 png=not args.no_png)


def _segment(args, finder, dials):
    """Segment one image, and write its products."""
    reserve(args, *_products(args), overwrite=args.overwrite)
    image = _image(args)
    return _write(args, finder.segment(image, **_in_unit(args, image.unit)),
                  dials)


def _write(args, result, dials):
    """Write the products of one image."""
    result = _edited(args, result)
    if result is None:
        return 3
    write_products(result, *_products(args), maps=args.maps,
                   columns=args.columns, lines=_history(args, dials))
    return 0
