# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
``astrodino benchmark``.
"""

from pathlib import Path

from astrodino_seg.cli.products import all_or_none, choose_finders
from astrodino_seg.errors import require

__all__ = ['add_parser', 'run']


def add_parser(commands):
    """Add the subcommand."""
    benchmark = commands.add_parser(
        'benchmark', help='finders on simulated scenes with known truth',
        description='Write scores.csv, bins.csv, curve.csv, scores.rst and '
                    'benchmark.png. The records of single scenes are kept in '
                    'records.jsonl, so that a run that was killed goes on '
                    'from there.')
    add = benchmark.add_argument
    add('-o', '--output', default='astrodino_benchmark',
        help='folder for the products (default: %(default)s)')
    add('--finders', help='names with commas between, as of compare; '
                          'default: dino and all at hand')
    add('--scenes', type=int, default=200,
        help='how many scenes of 512 x 512 pixels (%(default)s)')
    add('--quick', action='store_true', help='10 scenes only')
    add('--split', default='benchmark', choices=('validation', 'benchmark'),
        help='to tune, use validation (default: %(default)s)')
    add('--cache', help='folder for rendered scenes (about 7 MB each)')
    add('--processes', type=int, default=1,
        help='scenes that are measured at a time (%(default)s)')
    add('--model', help='a weights file; default: bundled')
    add('-q', '--quiet', action='store_true', help='no progress bar')
    benchmark.set_defaults(run=run)


def run(args):
    """Run the subcommand."""
    require('galsim', 'simulate')
    from astrodino_seg.evaluate.benchmark import (
        SHOWN,
        benchmark_tables,
        run_benchmark,
        write_rst,
    )
    from astrodino_seg.plotting import plot_benchmark, save_figure

    require('matplotlib', 'plot')
    finders = choose_finders(args.finders, args.model)
    folder = Path(args.output)
    folder.mkdir(parents=True, exist_ok=True)
    results = run_benchmark(
        finders, folder / 'records.jsonl', split=args.split,
        n_scenes=10 if args.quick else args.scenes, cache=args.cache,
        n_processes=args.processes, progress=not args.quiet)
    tables = benchmark_tables(results)
    paths = {name: folder / f'{name}.csv' for name in tables}
    paths |= {'rst': folder / 'scores.rst', 'plot': folder / 'benchmark.png'}
    with all_or_none(paths) as parts:
        for name, table in tables.items():
            table.write(parts[name], format='ascii.csv')
        write_rst(tables, parts['rst'])
        save_figure(plot_benchmark(tables), parts['plot'])
    shown = tables['scores']['finder', *SHOWN]
    print('\n'.join(shown.pformat(max_width=-1)))
    return 0
