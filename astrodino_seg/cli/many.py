# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
``astrodino segment --each`` and ``--positions``: many images, of which what is
done already is left.
"""

import sys
from pathlib import Path

from astrodino_seg.cli.products import as_prefix, product_paths


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
    from astrodino_seg.result import fits_files

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
