# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
``astrodino search``.
"""

from astrodino_seg.cli.products import (
    all_or_none,
    as_prefix,
    refuse_existing,
)
from astrodino_seg.cli.sources import open_images

__all__ = ['add_parser', 'run']


def add_parser(commands):
    """Add the subcommand."""
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
    search.set_defaults(run=run)


def run(args):
    """Run the subcommand."""
    from astrodino_seg.embed import anomaly_scores, read_embeddings, similar

    if args.images and not args.rows:
        msg = 'images: only what is found for --rows can be drawn'
        raise ValueError(msg)
    prefix = as_prefix(args.output, args.table)
    asked = args.rows or args.like
    ends = {'table': '_similar.ecsv' if asked else '_anomalies.ecsv'}
    if args.images:
        ends['picture'] = '_similar.png'
    paths = {kind: prefix.with_name(prefix.name + end)
             for kind, end in ends.items()}
    refuse_existing(paths.values(), args.overwrite)
    table = read_embeddings(args.table)
    if args.rows:
        found = similar(table, _rows(args.rows), n=args.n)
    elif args.like:
        found = similar(table, read_embeddings(args.like), n=args.n)
    else:
        found = anomaly_scores(table, k=args.n)
    images = _images(args, len(table)) if args.images else None
    _write(found, images, paths)
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


def _write(found, images, paths):
    from astrodino_seg.embed import plot_neighbours
    from astrodino_seg.plotting import save_figure

    with all_or_none(paths) as parts:
        found.write(parts['table'])
        if images is not None:
            save_figure(plot_neighbours(images, found), parts['picture'])
