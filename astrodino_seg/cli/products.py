# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What commands share: what they read, the files that they write, all of them or
none, and many images (``--each`` and ``--positions``), of which what is done
already is left.
"""

import sys
import textwrap
from argparse import ArgumentTypeError
from contextlib import contextmanager
from pathlib import Path

from astrodino_seg.files import (
    all_or_none,
    finish_set,
    fits_files,
    locked,
)

#: What can be written beside, by the names on the command line.
MAPS = {'fragments': lambda result: result.fragments.data,
        'classes': lambda result: result.class_map,
        'probabilities': lambda result: result.probabilities,
        'background': lambda result: result.background,
        'noise': lambda result: result.noise}


def map_names(text):
    """Names of `MAPS` with commas between."""
    names = list(MAPS) if text == 'all' else text.split(',')
    if unknown := [name for name in names if name not in MAPS]:
        msg = f'no map {unknown[0]!r}; there are {", ".join(MAPS)}'
        raise ArgumentTypeError(msg)
    return names


def read_images(names, bands=None, reference=None, bad_bits=None, window=None,
                **planes):
    """
    The image of one cube, or of one file a band, or a window of it; ``planes``
    are those of `as_image`.
    """
    from astrodino_seg.image import as_image, cut_out

    source = names[0] if len(names) == 1 else names
    if window is not None:
        source = cut_out(source, window)
    return as_image(source, bands=split_bands(bands), reference=reference,
                    bad_bits=bad_bits, **planes)


def split_bands(text):
    """The names of bands: with commas between, or of a letter each."""
    return ([name.strip() for name in text.split(',')]
            if ',' in (text or '') else text)


def given(args, *names):
    """Those of the options that were given, by name."""
    return {name: value for name in names
            if (value := getattr(args, name)) not in (None, False)}


def refuse_options(args, names, why):
    """Raise if one of these options was given, which would do nothing."""
    for name in given(args, *names):
        msg = f'{name}: it is not used {why}'
        raise ValueError(msg)


def as_prefix(output, image):
    """The path that the names of all products begin with."""
    name = Path(image.split('[')[0]).name
    for suffix in ('.fz', '.gz', '.bz2', '.fits', '.fit', '.fts', '.npy',
                   '.npz'):
        name = name.removesuffix(suffix)
    prefix = Path(output or '.')
    if prefix.is_dir():
        prefix = prefix / (name or 'segmented')
    if not prefix.parent.is_dir():
        msg = f'output: no folder {str(prefix.parent)!r}'
        raise ValueError(msg)
    return prefix


def product_paths(prefix, catalog_format, *, png, maps=False):
    """The paths of a segmentation's products."""
    suffix = {'votable': 'vot'}.get(catalog_format, catalog_format)
    ends = {'labels': '_segm.fits', 'catalog': f'_catalog.{suffix}',
            'regions': '.reg'}
    if png:
        ends['picture'] = '.png'
    if maps:
        ends['maps'] = '_maps.fits'
    return paths_of(prefix, ends)


def paths_of(prefix, ends):
    """Paths by kind, of what the prefix ends with."""
    return {kind: prefix.with_name(prefix.name + end)
            for kind, end in ends.items()}


def reserve(args, prefix, paths, *, overwrite):
    """
    Keep other runs from the prefix until the command ends; what exists is not
    replaced, unless told to, or a run was killed while it put it in place.
    """
    args.until_end.enter_context(locked(prefix))
    may_go = finish_set(prefix)
    existing = [str(path) for path in paths.values()
                if path.exists() and path not in may_go]
    if existing and not overwrite:
        msg = f'{", ".join(existing)} exists; give --overwrite to replace it'
        raise OSError(msg)


@contextmanager
def written(prefix, paths):
    """As `all_or_none`, and tells what was written."""
    with all_or_none(prefix, paths) as parts:
        yield parts
    for path in paths.values():
        print(f'wrote {path}')


def write_products(result, prefix, paths, other=None, *, maps=(), lines=(),
                   columns='own'):
    """
    Write all products, or none; ``other`` labels are drawn beside, ``maps``
    are names in `MAPS`, ``lines`` of `history`, ``columns`` says whose names
    are used.
    """
    from astrodino_seg.edits import describe
    from astrodino_seg.formats import (
        lsst_table,
        sextractor_table,
        to_regions,
        to_votable,
    )
    from astrodino_seg.image import write_label_map, write_maps
    from astrodino_seg.plotting import (
        plot_segmentations,
        rgb_image,
        save_figure,
    )

    labels = result.segmentation_image.data
    if result.edits is not None:
        lines = [*lines, *(part for line in describe(result.edits)
                           for part in textwrap.wrap(f'edit {line}', 70))]
    meta = {'HISTORY': list(lines)}
    table = {'own': lambda result: result.table.copy(), 'lsst': lsst_table,
             'sextractor': sextractor_table}[columns](result)
    table.meta.update(meta if lines else {})
    with written(prefix, paths) as parts:
        write_label_map(parts['labels'], labels, result.image, meta=meta)
        if paths['catalog'].suffix == '.vot':
            to_votable(table).to_xml(str(parts['catalog']))
        else:
            table.write(parts['catalog'])
        to_regions(result).write(parts['regions'], format='ds9')
        with parts['regions'].open('a') as stream:
            stream.writelines(f'# {line}\n' for line in lines)
        if maps:
            write_maps(parts['maps'], {
                name.upper(): MAPS[name](result) for name in maps},
                result.image, meta=meta)
        if 'picture' in parts:
            rgb = rgb_image(result.image, result.background, result.noise)
            both = {'DinoSegmenter': labels, **(other or {})}
            save_figure(plot_segmentations(rgb, both), parts['picture'])


def summarise(result):
    """What was found, in one line."""
    names, counts = [], result.table['class'].tolist()
    for name in result.class_names[1:]:
        names.append(f'{counts.count(name)} {name}')
    return f'{len(result.table)} objects: {", ".join(names)}'


def run_each(work, args, finder, dials):
    """
    Every image by itself, as ``work`` does some of them; 0 if all went well.
    """
    from astrodino_seg.blocks import recipe_of, run_all
    from astrodino_seg.result import AT_ONCE

    folder = Path(args.output or '.')
    items = _cutouts(args) if args.positions else _files(args.images)
    names = [one['name'] for one in items]
    if twice := {name for name in names if names.count(name) > 1}:
        msg = f'images: {sorted(twice)[0]!r} is the name of two'
        raise ValueError(msg)
    worst, n_good, jobs, done = 0, 0, [], []
    for one in items:
        prefix = folder / one['name'] / one['name']
        paths = product_paths(prefix, args.catalog_format, maps=args.maps,
                              png=not args.no_png)
        done.append((one['name'], paths['catalog']))
        if not args.overwrite and all(p.exists() for p in paths.values()):
            print(f'{_label(one)}: is there')
            n_good += 1
            continue
        prefix.parent.mkdir(parents=True, exist_ok=True)
        job = {**vars(args), **one, 'overwrite': True, 'output': str(prefix)}
        del job['until_end']        # of this command
        jobs.append((one, job))
    recipe = recipe_of(finder)
    # files may be large: a worker is given one
    n = AT_ONCE if args.positions or args.scheduler is None else 1
    some = [jobs[k:k + n] for k in range(0, len(jobs), n)]
    for k, said in run_all(
            work, ((recipe, dials, [job for _, job in part])
                   for part in some), n_jobs=len(some),
            scheduler=args.scheduler, progress=not args.quiet,
            unit='image' if n == 1 else f'{n} images'):
        for (one, _), (status, text) in zip(some[k], said):
            if text:
                print(f'astrodino: error: {_label(one)}: {text}',
                      file=sys.stderr)
            n_good += not text
            worst = worst or status * (status != 3)
    print(f'{n_good} of {len(names)} images')
    if args.join:
        _join(args.join, done)
    return worst


def _label(one):
    """How to call an image: by its file, or a cutout by its name."""
    return one['name'] if 'window' in one else one['images'][0]


def _files(images):
    """What to segment: each file, and those of folders."""
    files = [file for one in images for file in (
        fits_files(one) if Path(one).is_dir() and not one.endswith('.zarr')
        else [one])]
    return [{'images': [one], 'name': as_prefix(None, one).name}
            for one in files]


def _cutouts(args):
    """What to segment: a window of the image at each position."""
    from astropy.nddata import overlap_slices

    from astrodino_seg.embed.cutout import IDS, pixels_of
    from astrodino_seg.image import grid_of

    if args.cutout is None:
        msg = 'cutout: --positions needs --cutout, the side in pixels'
        raise ValueError(msg)
    names = args.images
    grid = grid_of(names[0] if len(names) == 1 else names)
    known, x, y = pixels_of(grid, args.positions)
    ids = next((known[name] for name in IDS if name in known.colnames),
               range(len(x)))
    items = []
    for name, at in zip(ids, zip(y, x)):
        on = all(-0.5 <= p <= n - 0.5 for p, n in zip(at, grid.shape))
        if not on:
            print(f'astrodino: warning: {name} is not on the image',
                  file=sys.stderr)
            continue
        window, _ = overlap_slices(grid.shape, (args.cutout,) * 2, at)
        items.append({'images': names, 'name': str(name).strip(),
                      'window': window})
    return items


def _join(path, catalogs):
    """One table of those that are there, with the name of each."""
    from astropy.table import QTable, vstack

    from astrodino_seg.files import whole_or_not

    tables = []
    for name, catalog in catalogs:
        if catalog.exists():
            table = QTable.read(catalog)
            table.add_column(name, name='image', index=0)
            tables.append(table)
    if not tables:
        print('no catalogues to join', file=sys.stderr)
        return
    with whole_or_not(path) as part:
        vstack(tables, metadata_conflicts='silent').write(part)
    print(f'wrote {path}')
