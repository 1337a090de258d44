# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
``astrodino stamps``.
"""

from astrodino_seg.cli.simulate import read_rates
from astrodino_seg.errors import require

__all__ = ['add_parser', 'run']


def add_parser(commands):
    """Add the subcommand."""
    stamps = commands.add_parser(
        'stamps', help='draw galaxies to compose simulated scenes of',
        description='Fill a folder with one file for each sky (bands and '
                    'PSFs). Files that exist are kept, so that a run that '
                    'was stopped goes on from there.')
    add = stamps.add_argument
    add('folder')
    add('--skies', type=int, default=32, help='how many files (%(default)s)')
    add('--large', type=int, default=40,
        help='large galaxies of each sky (%(default)s)')
    add('--small', type=int, default=160,
        help='small galaxies of each sky (%(default)s)')
    add('--first-seed', type=int, default=0,
        help='seed of the first sky (%(default)s)')
    add('--bands', nargs='+', metavar='SET',
        help='sets of bands that the skies have in turn, for example ugriz; '
             'default: drawn')
    add('--rate', action='append', default=[], metavar='NAME=VALUE',
        help='how much of an ingredient of a scene; may be repeated')
    add('--cosmos', metavar='FOLDER',
        help='COSMOS galaxies, as one of the kinds')
    add('-q', '--quiet', action='store_true', help='no progress bar')
    stamps.set_defaults(run=run)


def run(args):
    """Run the subcommand."""
    require('galsim', 'simulate')
    from astrodino_seg.simulate import build_stamps

    rates, others = read_rates(args.rate)
    if others:
        msg = f'rate: {", ".join(others)} are no ingredients of a scene'
        raise ValueError(msg)
    library = build_stamps(
        args.folder, n_skies=args.skies, n_large=args.large,
        n_small=args.small, first_seed=args.first_seed,
        band_sets=args.bands, rates=rates,
        cosmos=args.cosmos, progress=not args.quiet)
    print(f'{args.folder}: {len(library.files)} skies')
    return 0
