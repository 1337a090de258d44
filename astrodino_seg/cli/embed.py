# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
``astrodino embed``.
"""

from astrodino_seg.cli.products import read_images
from astrodino_seg.cli.sources import (
    add_network_options,
    load_network,
    open_images,
)

__all__ = ['add_parser', 'run']


def add_parser(commands):
    """Add the subcommand."""
    embed = commands.add_parser(
        'embed', help='a vector for each image, cutout or label',
        description='Write a table of vectors. If the command is stopped, '
                    'the same command goes on from there.')
    add = embed.add_argument
    add('images', nargs='+', metavar='IMAGE',
        help='a folder of FITS files or of pictures, a table of paths, '
             'Galaxy10, or FITS files of an image each; with --positions or '
             '--labels one image, as one FITS file or one a band')
    add('-o', '--output', required=True, metavar='TABLE',
        help='the table, .fits or .parquet')
    of_one = embed.add_mutually_exclusive_group()
    of_one.add_argument(
        '--positions', metavar='CATALOGUE',
        help='cutouts around the positions of a table: ra and dec, or x and '
             'y in pixels from 0')
    of_one.add_argument(
        '--labels', metavar='SEGM',
        help='cutouts around the labels of a FITS image')
    of_one.add_argument(
        '--multimodal', action='store_true',
        help='IMAGE is a data set of the Multimodal Universe: a folder, or a '
             'name on the Hugging Face hub')
    add('--cutout', type=int, metavar='PIXELS',
        help='side of cutouts; default with --labels: 1.5 times that of the '
             'label')
    add('--mask-others', action='store_true',
        help='mask the pixels of other labels')
    add('--size', type=int, metavar='PIXELS',
        help='side that the network sees; default: as it is')
    add('--bands', help='names of the bands, for example g,r,i or gri')
    add('--reference',
        help='band whose pixel grid the others are put on')
    add_network_options(add)
    add('--overwrite', action='store_true', help='replace an old table')
    embed.set_defaults(run=run)


def run(args):
    """Run the subcommand."""
    from astrodino_seg.datasets import MultimodalImages
    from astrodino_seg.embed import embedding_table
    from astrodino_seg.embed.vectors import check_path

    check_path(args.output, overwrite=args.overwrite)
    backbone = load_network(args)
    if args.positions or args.labels:
        images = _cutouts(args)
    elif args.multimodal:
        images = MultimodalImages(args.images[0]).records()
    else:
        bands = args.bands.split(',') if ',' in (args.bands or '') else (
            args.bands)
        images = open_images(args.images, bands, quiet=args.quiet)
    table = embedding_table(
        images, backbone, path=args.output, overwrite=args.overwrite,
        what=args.what, size=args.size, batch_size=args.batch_size,
        n_workers=args.workers, progress_bar=not args.quiet)
    n_flagged = int((table['flags'] > 0).sum())
    print(f'{len(table)} rows of {table["embedding"].shape[1]} numbers, '
          f'{n_flagged} flagged')
    print(f'wrote {args.output}')
    return 0


def _cutouts(args):
    from astrodino_seg.embed import cutouts, label_cutouts
    from astrodino_seg.image import read_label_map

    image = read_images(args.images, args.bands, args.reference)
    if args.labels:
        return label_cutouts(image, read_label_map(args.labels), args.cutout,
                             mask_others=args.mask_others)
    if args.cutout is None:
        msg = 'cutout: --positions needs --cutout, the side in pixels'
        raise ValueError(msg)
    return cutouts(image, args.positions, args.cutout)
