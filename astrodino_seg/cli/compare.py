# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
``astrodino compare``, ``astrodino benchmark`` and ``astrodino demo``.
"""

from ast import literal_eval
from contextlib import suppress
from copy import copy
from pathlib import Path

from astrodino_seg.cli.products import (
    add_image_options,
    as_prefix,
    given,
    history,
    paths_of,
    product_paths,
    read_images,
    reserve,
    summarise,
    write_products,
    written,
)
from astrodino_seg.errors import require


def add_compare(commands):
    compare = commands.add_parser(
        'compare', help='several finders on one image, side by side',
        description='Write PREFIX_compare.html, PREFIX_compare.png, '
                    'PREFIX_closeups.png, PREFIX_compare.ecsv, '
                    'PREFIX_matched.ecsv, and PREFIX_FINDER_segm.fits for '
                    'each finder.')
    add = compare.add_argument
    add_image_options(add, '*')
    add('--finders',
        help='names from --list with commas between, the one that the others '
             'are compared with first; default: dino and all at hand. Options '
             'follow a name: dino,dino:merge=0.6,photutils:contrast=0.1')
    add('--merge', type=float, help='of dino: 0 splits most, 1 merges most')
    add('--n-sigma', type=float,
        help='S/N that objects must exceed, of all finders that have it')
    add('--n-pixels', type=int,
        help='pixels that objects must have, of all finders that have it')
    add('--list', action='store_true', help='name the finders and stop')
    add('--truth', metavar='LABELS', help='FITS file of the true labels')
    add('--closeups', type=int, default=6,
        help='how many places of the largest differences to draw')
    add('--model', help='a weights file; default: bundled')
    add('--overwrite', action='store_true', help='replace old products')
    compare.set_defaults(run=run_compare)


def run_compare(args):
    from astrodino_seg.evaluate.compare import (
        compare_finders,
        comparison_table,
    )
    from astrodino_seg.image import read_label_map

    if args.list:
        finders, missing = all_finders(args.model)
        for name, finder in finders.items():
            print(f'{name}: {finder!r}')
        for name, why in missing.items():
            print(f'{name}: not here: {why}')
        return 0
    if not args.images:
        msg = 'images: no image was named'
        raise ValueError(msg)
    finders = choose_finders(args.finders, args.model, **given(
        args, 'merge', 'n_sigma', 'n_pixels'))
    require('matplotlib', 'plot')
    prefix = as_prefix(args.output, args.images[0])
    paths = paths_of(prefix, {
        **{name: f'_{name}_segm.fits' for name in finders},
        'table': '_compare.ecsv', 'matched': '_matched.ecsv',
        'page': '_compare.html', 'map': '_compare.png',
        'closeups': '_closeups.png'})
    reserve(args, prefix, paths, overwrite=args.overwrite)
    truth = None if args.truth is None else read_label_map(args.truth)
    image = read_images(args.images, args.bands, args.reference,
                        args.bad_bits)
    comparison = compare_finders(image, finders, truth=truth)
    table = comparison_table(comparison)
    print('\n'.join(table.pformat(max_width=-1)))
    lines = {name: history(
        args.images, name.startswith('dino') and args.model,
        finder=finder) for name, finder in finders.items()}
    about = [*history(args.images, args.model), *(
        f'{name}: {finder!r}' for name, finder in finders.items())]
    _write_comparison(comparison, table, prefix, paths, args.closeups, lines,
                      about)
    return 0


def _write_comparison(comparison, table, prefix, paths, n_closeups, lines,
                      about):
    from astrodino_seg.evaluate.compare import matched_table, most_different
    from astrodino_seg.image import write_label_map
    from astrodino_seg.plotting import (
        plot_closeups,
        plot_segmentations,
        rgb_image,
        save_figure,
    )

    image, maps = comparison.image, comparison.maps
    rgb = rgb_image(image)
    zooms = most_different(comparison, n_closeups)
    if not zooms:
        del paths['closeups']
    shown = maps if comparison.truth is None else {
        'truth': comparison.truth.clip(0), **maps}
    with written(prefix, paths) as parts:
        for name, labels in maps.items():
            write_label_map(parts[name], labels, image,
                            meta={'HISTORY': lines[name]})
        table.write(parts['table'])
        matched_table(comparison).write(parts['matched'])
        comparison.report(
            parts['page'], title=paths['page'].stem,
            lines=[*table.pformat(max_width=-1), *about])
        save_figure(plot_segmentations(rgb, shown, columns=3,
                                       reference=next(iter(shown))),
                    parts['map'])
        if zooms:
            save_figure(plot_closeups(rgb, shown, zooms), parts['closeups'])


def all_finders(model=None):
    """The model and the baselines at hand, by name; and why others are not."""
    from astrodino_seg.evaluate.baselines import available_finders
    from astrodino_seg.segmenter import DinoSegmenter

    finders, missing = available_finders()
    return {'dino': DinoSegmenter(model=model), **finders}, missing


def choose_finders(names, model=None, **common):
    """
    The finders of some names with commas between. One may have options behind
    it, as ``photutils:contrast=0.1``, and is then ``photutils_contrast_0.1``;
    ``common`` are for all that have them, unless `None`.
    """
    finders, missing = all_finders(model)
    names = names.split(',') if names else finders
    chosen = {}
    for text in names:
        name, *words = text.strip().split(':')
        if name not in finders:
            why = missing.get(name, f'known are {", ".join(finders)}')
            msg = f'finders: no finder {name!r}: {why}'
            raise ValueError(msg)
        finder = copy(finders[name])
        for key, value in common.items():
            if value is not None and hasattr(finder, key):
                setattr(finder, key, value)
        for word in words:
            _set_option(finder, name, word)
        chosen['_'.join([name, *words]).replace('=', '_')] = finder
    return chosen


def _set_option(finder, name, word):
    """Set what a word like ``contrast=0.1`` says."""
    key, _, value = word.partition('=')
    if not value or key.startswith('_') or key not in vars(finder):
        known = ', '.join(key for key in vars(finder) if key[0] != '_')
        msg = f'finders: {name} has no option {word!r}; it has {known}'
        raise ValueError(msg)
    with suppress(ValueError, SyntaxError):     # of a word
        value = literal_eval(value)
    setattr(finder, key, value)


def add_benchmark(commands):
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
    benchmark.set_defaults(run=run_benchmark)


def run_benchmark(args):
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
    reserve(args, folder / 'benchmark', {}, overwrite=True)
    results = run_benchmark(
        finders, folder / 'records.jsonl', split=args.split,
        n_scenes=10 if args.quick else args.scenes, cache=args.cache,
        n_processes=args.processes, progress=not args.quiet)
    tables = benchmark_tables(results)
    paths = {name: folder / f'{name}.csv' for name in tables}
    paths |= {'rst': folder / 'scores.rst', 'plot': folder / 'benchmark.png'}
    with written(folder / 'benchmark', paths) as parts:
        for name, table in tables.items():
            table.write(parts[name], format='ascii.csv')
        write_rst(tables, parts['rst'])
        save_figure(plot_benchmark(tables), parts['plot'])
    shown = tables['scores']['finder', *SHOWN]
    print('\n'.join(shown.pformat(max_width=-1)))
    return 0


def add_demo(commands):
    demo = commands.add_parser(
        'demo', help='segment a bundled scene, with photutils beside it')
    demo.add_argument('-o', '--output', default='astrodino_demo',
                      help='folder for the products (default: %(default)s)')
    demo.add_argument('--device', default='cpu')
    demo.set_defaults(run=run_demo)


def run_demo(args):
    from astrodino_seg.datasets import demo_image
    from astrodino_seg.evaluate.baselines import PhotutilsFinder
    from astrodino_seg.segmenter import DinoSegmenter

    require('matplotlib', 'plot')
    folder = Path(args.output)
    folder.mkdir(parents=True, exist_ok=True)
    prefix = folder / 'demo'
    paths = product_paths(prefix, 'ecsv', png=True)
    reserve(args, prefix, paths, overwrite=True)
    image = demo_image()
    print(f'bundled simulated scene: {"".join(image.bands)}, '
          f'{image.shape[1]} x {image.shape[0]} pixels')
    result = DinoSegmenter(device=args.device).segment(image)
    peaks = PhotutilsFinder()(image)
    print(f'DinoSegmenter: {summarise(result)}')
    print(f'photutils detect + deblend: {peaks.n_labels} labels')
    write_products(result, prefix, paths,
                   {'photutils detect + deblend': peaks.data})
    page = folder / 'demo.html'
    result.report(page, others={'photutils': peaks}, title='astrodino demo')
    print(f'wrote {page}')
    return 0
