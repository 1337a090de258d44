# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
``astrodino compare``, ``benchmark`` and ``demo``, and ``astrodino attention``:
several label maps of an image side by side.
"""

from ast import literal_eval
from contextlib import suppress
from copy import copy
from pathlib import Path

from astrodino_seg.cli.products import (
    as_prefix,
    given,
    paths_of,
    product_paths,
    read_images,
    reserve,
    summarise,
    write_products,
    written,
)
from astrodino_seg.errors import require


def run_compare(args):
    from astrodino_seg.evaluate.compare import (
        compare_finders,
        comparison_table,
    )
    from astrodino_seg.image import read_label_map
    from astrodino_seg.models.load import history

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


def run_attention(args):
    from astrodino_seg.embed import attention_maps
    from astrodino_seg.embed.attention import top_mass
    from astrodino_seg.models.load import (
        BUNDLED_BACKBONE,
        history,
        load_backbone,
    )

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
