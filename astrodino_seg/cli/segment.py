# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
``astrodino segment`` and ``astrodino report``.
"""

import sys
from argparse import Namespace
from contextlib import ExitStack
from pathlib import Path

from astrodino_seg.cli.compare import choose_finders
from astrodino_seg.cli.products import (
    as_prefix,
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
    from astrodino_seg.models.load import history

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
