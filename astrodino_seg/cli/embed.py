# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
``astrodino embed``, ``astrodino search`` and ``astrodino attention``; and what
commands on many images share: where these come from, and the options of the
network that sees them.
"""

from pathlib import Path

from astrodino_seg.cli.products import (
    add_image_options,
    as_prefix,
    given,
    history,
    paths_of,
    read_images,
    refuse_options,
    reserve,
    split_bands,
    written,
)
from astrodino_seg.errors import require

TABULAR = ('.h5', '.hdf5', '.parquet')
LISTS = ('.csv', '.ecsv', '.txt', '')


def add_network_options(add):
    """The options of commands that embed images."""
    add('--backbone', metavar='NAME',
        help='a weights file, or a name of timm; default: bundled')
    add('--what', choices=('cls', 'patch', 'both'),
        help='the CLS token, which is the default, the mean of the patch '
             'tokens, or both')
    add('--batch-size', type=int, metavar='N',
        help='images at a time (32, or 64 where a network is trained)')
    add('--workers', type=int, default=0, metavar='N',
        help='processes that read images (%(default)s: this one)')
    add('--device', default='cpu', help='for example cuda (%(default)s)')
    add('-q', '--quiet', action='store_true', help='no progress bar')


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


def add_embed(commands):
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
    add_image_options(add, None, output=False)
    add_network_options(add)
    add('--overwrite', action='store_true', help='replace an old table')
    embed.set_defaults(run=run_embed)


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


def add_search(commands):
    search = commands.add_parser(
        'search', help='what looks alike, and what like nothing else',
        description='Write PREFIX_similar.ecsv, what is most like each query, '
                    'and with --images PREFIX_similar.png; or, without a '
                    'query, PREFIX_anomalies.ecsv, how unlike the others '
                    'each row is.')
    add = search.add_argument
    add('table', metavar='TABLE', help='of "astrodino embed"')
    query = search.add_mutually_exclusive_group()
    query.add_argument('--rows', metavar='ROW[,ROW]',
                       help='queries: rows of the table, from 0')
    query.add_argument('--like', metavar='TABLE',
                       help='queries: the rows of another such table')
    add('-n', type=int, default=10, metavar='N',
        help='how many for each query; without one, which neighbour is to '
             'be far (%(default)s)')
    add('--images', nargs='+', metavar='IMAGE',
        help='what the table was made of, as of "astrodino embed", to draw '
             'what is found for --rows')
    add('--bands', help='names of the bands of --images')
    add('-o', '--output', metavar='PREFIX',
        help="prefix of the products, or a folder; default: the table's "
             "name, here")
    add('--overwrite', action='store_true', help='replace old products')
    search.set_defaults(run=run_search)


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


def add_attention(commands):
    attention = commands.add_parser(
        'attention', help='what a backbone looks at, and masks from it',
        description='Write PREFIX_attention.fits (a plane a head), '
                    'PREFIX_headN_segm.fits, PREFIX_mean_segm.fits, and '
                    'PREFIX_attention.png.')
    add = attention.add_argument
    add_image_options(add)
    add('--backbone', metavar='NAME',
        help='a weights file, or a name of timm; default: bundled')
    add('--size', type=int,
        help='pixels a side that the network sees; default: as it is')
    add('--keep-mass', type=float, default=0.4,
        help='share of the attention that a mask holds (%(default)s); 0.6 '
             'for what DINO calls a threshold of 0.6')
    add('--at', metavar='X,Y',
        help='pixel whose attention to take, from 0; default: the CLS token')
    add('--rollout', action='store_true',
        help='follow the attention through all layers')
    add('--no-png', action='store_true', help='no picture')
    add('--overwrite', action='store_true', help='replace old products')
    attention.set_defaults(run=run_attention)


def run_attention(args):
    from astrodino_seg.embed import attention_maps
    from astrodino_seg.embed.attention import top_mass
    from astrodino_seg.models.load import BUNDLED_BACKBONE, load_backbone

    if not args.no_png:
        require('matplotlib', 'plot')
    prefix = as_prefix(args.output, args.images[0])
    top_mass([[1.0]], args.keep_mass)      # a bad value is told first
    at = None if args.at is None else _position(args.at)
    backbone = load_backbone(args.backbone)
    vit = backbone.vit
    n_maps = 1 if args.rollout else vit.dim // vit.head_dim
    ends = {'maps': '_attention.fits', 'mean': '_mean_segm.fits',
            **{k: f'_head{k + 1}_segm.fits' for k in range(n_maps)}}
    if not args.no_png:
        ends['picture'] = '_attention.png'
    paths = paths_of(prefix, ends)
    reserve(args, prefix, paths, overwrite=args.overwrite)
    image = read_images(args.images, args.bands, args.reference,
                        args.bad_bits)
    maps = attention_maps(image, backbone, size=args.size, at=at,
                          use_rollout=args.rollout)
    for k, head in enumerate(maps.segmentations(args.keep_mass)):
        print(f'head {k + 1}: {(head.data > 0).mean():.1%} of the pixels')
    _write_attention(maps, args.keep_mass, prefix, paths, history(
        args.images, args.backbone or BUNDLED_BACKBONE, size=args.size,
        keep_mass=args.keep_mass, at=args.at, rollout=args.rollout))
    return 0


def _position(text):
    """A pixel given as ``x,y``."""
    try:
        x, y = (float(word) for word in text.split(','))
    except ValueError:
        msg = f'at: must be two numbers with a comma between, got {text!r}'
        raise ValueError(msg) from None
    return x, y


def _write_attention(maps, keep_mass, prefix, paths, lines):
    from astrodino_seg.image import write_label_map, write_plane
    from astrodino_seg.plotting import plot_attention, rgb_image, save_figure

    image, upsampled = maps.image, maps.upsampled()
    combined = maps.combined(keep_mass)
    meta = {'HISTORY': lines}
    with written(prefix, paths) as parts:
        write_plane(parts['maps'], upsampled, image, meta=meta)
        write_label_map(parts['mean'], combined, image, meta=meta)
        for k, head in enumerate(maps.segmentations(keep_mass)):
            write_label_map(parts[k], head, image, meta=meta)
        if 'picture' in parts:
            figure = plot_attention(rgb_image(image), upsampled,
                                    maps.masks(keep_mass), combined)
            save_figure(figure, parts['picture'])
