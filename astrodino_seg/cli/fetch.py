# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
``astrodino fetch``.
"""

from pathlib import Path

from astrodino_seg.cli.products import all_or_none

__all__ = ['add_parser', 'run']


def add_parser(commands):
    """Add the subcommand."""
    fetch = commands.add_parser(
        'fetch', help='download cutouts of the Legacy Surveys',
        description='Write one FITS file a position, and cutouts.ecsv, which '
                    'lists them and what went wrong. What is there already '
                    'is not downloaded again.')
    add = fetch.add_argument
    add('position', nargs='+',
        help='a table with columns ra and dec in degrees; or RA and DEC in '
             'degrees; or a position in quotes, as "10h00m28s +02d12m21s"')
    add('-o', '--output', metavar='FOLDER', default='.',
        help='folder of the files (here)')
    add('--size', type=int, default=160, help='side in pixels (%(default)s)')
    add('--bands', default='griz', help='for example grz (%(default)s)')
    add('--pixel-scale', type=float, default=0.262, metavar='ARCSEC',
        help='arcsec a pixel (%(default)s)')
    add('--layer', default='ls-dr10',
        help='layer of the sky viewer (%(default)s)')
    add('--service', metavar='URL',
        help='address of the service, if it is another')
    add('--no-ivar', action='store_true',
        help='do not ask for the inverse variance')
    add('--connections', type=int, default=4, metavar='N',
        help='downloads at a time (%(default)s)')
    add('-q', '--quiet', action='store_true', help='no progress bar')
    fetch.set_defaults(run=run)


def run(args):
    """Run the subcommand."""
    from astrodino_seg.datasets import LegacyCutouts

    folder = Path(args.output)
    cutouts = LegacyCutouts(
        _positions(args.position), size=args.size,
        bands=args.bands.replace(',', ''), pixel_scale=args.pixel_scale,
        layer=args.layer, ivar=not args.no_ivar, cache=folder,
        n_connections=args.connections,
        **({'service': args.service} if args.service else {}))
    table = cutouts.fetch(progress_bar=not args.quiet)
    table['path'] = [Path(path).name for path in table['path']]
    with all_or_none({'list': folder / 'cutouts.ecsv'}) as parts:
        table.write(parts['list'])
    n_good = int(table['ok'].sum())
    print(f'{n_good} of {len(table)} cutouts')
    return 0 if n_good == len(table) else 1


def _positions(words):
    """A table's path, or coordinates."""
    if len(words) == 1 and Path(words[0]).is_file():
        return words[0]
    from astropy.coordinates import SkyCoord

    text = ' '.join(words)
    try:
        ra, dec = map(float, text.split())
    except ValueError:
        ra = dec = None  # not two numbers
    try:
        return SkyCoord(text) if ra is None else SkyCoord(ra, dec, unit='deg')
    except ValueError as err:
        msg = f'position: {text!r} is no table and no position: {err}'
        raise ValueError(msg) from err
