# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
``astrodino segment``.
"""

import sys

from astrodino_seg.cli.products import (
    add_image_options,
    as_prefix,
    product_paths,
    read_images,
    refuse_existing,
    summarise,
    write_products,
)
from astrodino_seg.errors import require

__all__ = ['add_parser', 'run']


def add_parser(commands):
    """Add the subcommand."""
    segment = commands.add_parser(
        'segment', help='segment one cube, or one file a band',
        description='Write PREFIX_segm.fits, PREFIX_catalog.ecsv, '
                    'PREFIX.reg and PREFIX.png.')
    add = segment.add_argument
    add('images', nargs='+', metavar='IMAGE',
        help='FITS file with all bands, or one file a band')
    add_image_options(add)
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
    add('--tile-size', type=int, default=512,
        help='side of the tiles in pixels (%(default)s)')
    add('--split-flux', action='store_true',
        help='deblended fluxes, too: objects share the light of pixels')
    add('--catalog-format', choices=('ecsv', 'fits'), default='ecsv')
    add('--model', help='a weights file; default: bundled')
    add('--device', default='cpu')
    add('--float32', dest='bfloat16', action='store_const', const=False,
        help='no bfloat16, where the processor has instructions for it')
    add('--no-png', action='store_true', help='no picture')
    add('--overwrite', action='store_true', help='replace old products')
    add('-q', '--quiet', action='store_true', help='no progress bar')
    segment.set_defaults(run=run)


def _background(text):
    """A word or a number."""
    return text if text in ('none', 'flat') else float(text)


def run(args):
    """Run the subcommand."""
    from astrodino_seg.segmenter import DinoSegmenter

    prefix = as_prefix(args.output, args.images[0])
    paths = product_paths(prefix, args.catalog_format, png=not args.no_png)
    refuse_existing(paths.values(), args.overwrite)
    if 'picture' in paths:
        require('matplotlib', 'plot')
    image = read_images(args.images, args.bands, args.reference,
                        args.bad_bits)
    finder = DinoSegmenter(
        n_pixels=args.n_pixels, connectivity=args.connectivity,
        n_sigma=args.n_sigma, merge=args.merge, min_seed=args.min_seed,
        bin_factor=args.bin_factor, model=args.model, device=args.device,
        bfloat16=args.bfloat16, tile_size=args.tile_size,
        split_flux=args.split_flux, progress_bar=not args.quiet)
    threshold, background = (
        value * image.unit
        if isinstance(value, float) and image.unit is not None else value
        for value in (args.threshold, args.background))
    result = finder.segment(image, threshold, background=background)
    if result is None:
        print('no sources were found', file=sys.stderr)
        return 3
    print(summarise(result))
    write_products(result, paths)
    return 0
