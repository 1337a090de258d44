# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The ``astrodino`` command.
"""

import argparse
import sys
import tempfile
import tomllib
import warnings
from pathlib import Path

from astrodino_seg.errors import AstroDinoWarning, require
from astrodino_seg.version import __version__

__all__ = ['main']

USER_ERRORS = (ValueError, TypeError, OSError, ImportError)


def main(argv=None):
    """
    Run ``astrodino``.

    Parameters
    ----------
    argv : list of str, optional
        The arguments; those of the process if `None`.

    Returns
    -------
    status : int
        0 if all went well, 1 after an error (one line on standard error),
        3 if nothing was found, 130 after an interrupt. Wrong usage exits
        with 2.
    """
    args = _parser().parse_args(argv)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        warnings.simplefilter('always', AstroDinoWarning)
        warnings.showwarning = _show_warning
        try:
            return args.run(args)
        except KeyboardInterrupt:
            print('astrodino: interrupted', file=sys.stderr)
            return 130
        except USER_ERRORS as err:
            if args.debug:
                raise
            text = ' '.join(str(err).split()) or type(err).__name__
            print(f'astrodino: error: {text}', file=sys.stderr)
            return 1


def _show_warning(message, category, *args, **kwargs):
    print(f'astrodino: warning: {message}', file=sys.stderr)


def _parser():
    parser = argparse.ArgumentParser(
        prog='astrodino',
        description='Segment astronomical images, one label an object.')
    parser.add_argument('--version', action='version',
                        version=f'%(prog)s {__version__}')
    parser.add_argument('--debug', action='store_true',
                        help='show the traceback of an error')
    commands = parser.add_subparsers(dest='command', required=True)
    _add_segment(commands)
    demo = commands.add_parser(
        'demo', help='segment a bundled scene, with photutils beside it')
    demo.add_argument('-o', '--output', default='astrodino_demo',
                      help='folder for the products (default: %(default)s)')
    demo.add_argument('--device', default='cpu')
    demo.set_defaults(run=_run_demo)
    info = commands.add_parser('info', help='model, versions and devices')
    info.add_argument('--model', help='a weights file; default: bundled')
    info.set_defaults(run=_run_info)
    train = commands.add_parser('train', help='train a model from a recipe')
    train.add_argument('config', help='TOML recipe; there are some in '
                                      'astrodino_seg/train/recipes')
    train.add_argument('-o', '--output', required=True,
                       help='folder for checkpoint, log and weights; a run '
                            'that was killed goes on from there')
    train.set_defaults(run=_run_train)
    return parser


def _add_segment(commands):
    segment = commands.add_parser(
        'segment', help='segment one cube, or one file a band',
        description='Write PREFIX_segm.fits, PREFIX_catalog.ecsv, '
                    'PREFIX.reg and PREFIX.png.')
    add = segment.add_argument
    add('images', nargs='+', metavar='IMAGE',
        help='FITS file with all bands, or one file a band')
    add('-o', '--output', metavar='PREFIX',
        help="prefix of the products, or a folder; default: the first "
             "file's name, here")
    add('--bands', help='names of the bands, for example g,r,i or gri')
    add('--reference',
        help='band whose pixel grid the others are put on')
    add('--threshold', type=float,
        help="pixel value that an object must exceed, in the image's unit")
    add('--n-sigma', type=float,
        help='S/N of all bands together that an object must exceed')
    add('--n-pixels', type=int, default=5,
        help='connected pixels that an object must have (%(default)s)')
    add('--connectivity', type=int, choices=(4, 8), default=8)
    add('--merge', type=float, default=0.35,
        help='0 splits most, 1 merges most (%(default)s)')
    add('--min-seed', type=float, default=0.3,
        help="least probability of an object's centre (%(default)s)")
    add('--bin-factor', type=int,
        help='pixels to bin in x and y for the network (only if oversampled)')
    add('--tile-size', type=int, default=768,
        help='side of the tiles in pixels (%(default)s)')
    add('--catalog-format', choices=('ecsv', 'fits'), default='ecsv')
    add('--model', help='a weights file; default: bundled')
    add('--device', default='cpu')
    add('--no-png', action='store_true', help='no picture')
    add('--overwrite', action='store_true', help='replace old products')
    add('-q', '--quiet', action='store_true', help='no progress bar')
    segment.set_defaults(run=_run_segment)


def _run_segment(args):
    from astrodino_seg.image import as_image
    from astrodino_seg.segmenter import DinoSegmenter

    prefix = _prefix(args.output, args.images[0])
    paths = _products(prefix, args.catalog_format, png=not args.no_png)
    _refuse_existing(paths.values(), args.overwrite)
    if 'picture' in paths:
        require('matplotlib', 'plot')
    bands = args.bands
    if bands and ',' in bands:
        bands = [name.strip() for name in bands.split(',')]
    source = args.images[0] if len(args.images) == 1 else args.images
    image = as_image(source, bands=bands, reference=args.reference)
    finder = DinoSegmenter(
        n_pixels=args.n_pixels, connectivity=args.connectivity,
        n_sigma=args.n_sigma, merge=args.merge, min_seed=args.min_seed,
        bin_factor=args.bin_factor, model=args.model, device=args.device,
        tile_size=args.tile_size, progress_bar=not args.quiet)
    threshold = args.threshold
    if threshold is not None and image.unit is not None:
        threshold = threshold * image.unit
    result = finder.segment(image, threshold)
    if result is None:
        print('no sources were found', file=sys.stderr)
        return 3
    print(_summary(result))
    _write(result, paths)
    return 0


def _prefix(output, image):
    """The path that the names of all products begin with."""
    name = Path(image.split('[')[0]).name
    for suffix in ('.fz', '.gz', '.bz2', '.fits', '.fit', '.fts'):
        name = name.removesuffix(suffix)
    prefix = Path(output or '.')
    if prefix.is_dir():
        prefix = prefix / (name or 'segmented')
    if not prefix.parent.is_dir():
        msg = f'output: no folder {str(prefix.parent)!r}'
        raise ValueError(msg)
    return prefix


def _products(prefix, catalog_format, *, png):
    add = {'labels': '_segm.fits', 'catalog': f'_catalog.{catalog_format}',
           'regions': '.reg'}
    if png:
        add['picture'] = '.png'
    return {kind: prefix.with_name(prefix.name + end)
            for kind, end in add.items()}


def _refuse_existing(paths, overwrite):
    existing = [str(path) for path in paths if path.exists()]
    if existing and not overwrite:
        msg = f'{", ".join(existing)} exists; give --overwrite to replace it'
        raise OSError(msg)


def _write(result, paths, other=None):
    """Write all products, or none; ``other`` labels are drawn beside."""
    from astrodino_seg.image import write_label_map
    from astrodino_seg.plotting import (
        plot_segmentations,
        rgb_image,
        save_figure,
    )

    labels = result.segmentation_image.data
    with tempfile.TemporaryDirectory(dir=paths['labels'].parent) as folder:
        parts = {kind: Path(folder) / path.name
                 for kind, path in paths.items()}
        write_label_map(parts['labels'], labels, result.image)
        result.table.write(parts['catalog'])
        _ds9_regions(result).write(parts['regions'], format='ds9')
        if 'picture' in parts:
            rgb = rgb_image(result.image, result.background, result.noise)
            both = {'DinoSegmenter': labels, **(other or {})}
            save_figure(plot_segmentations(rgb, both), parts['picture'])
        for kind, part in parts.items():
            part.replace(paths[kind])
    for path in paths.values():
        print(f'wrote {path}')


def _ds9_regions(result):
    """One polygon a label, in sky coordinates where there is a WCS."""
    from regions import Regions

    regions = []
    for region, row in zip(
            result.segmentation_image.to_regions(group=True), result.table):
        parts = region if isinstance(region, (list, Regions)) else [region]
        for part in parts:
            if result.image.wcs is not None:
                part = part.to_sky(result.image.wcs)
            part.meta['text'] = f'{row["label"]} {row["class"]}'
            regions.append(part)
    return Regions(regions)


def _summary(result):
    names, counts = [], result.table['class'].tolist()
    for name in ('star', 'galaxy', 'artifact'):
        names.append(f'{counts.count(name)} {name}')
    return f'{len(result.table)} objects: {", ".join(names)}'


def _run_demo(args):
    from astrodino_seg.baselines import PhotutilsFinder
    from astrodino_seg.datasets import demo_image
    from astrodino_seg.segmenter import DinoSegmenter

    require('matplotlib', 'plot')
    folder = Path(args.output)
    folder.mkdir(parents=True, exist_ok=True)
    image = demo_image()
    print(f'bundled simulated scene: {"".join(image.bands)}, '
          f'{image.shape[1]} x {image.shape[0]} pixels')
    result = DinoSegmenter(device=args.device).segment(image)
    peaks = PhotutilsFinder()(image)
    print(f'DinoSegmenter: {_summary(result)}')
    print(f'photutils detect + deblend: {peaks.n_labels} labels')
    _write(result, _products(folder / 'demo', 'ecsv', png=True),
           {'photutils detect + deblend': peaks.data})
    return 0


def _run_info(args):
    import platform
    from importlib.metadata import version

    import torch

    from astrodino_seg.model import BUNDLED, load_model

    model = load_model(args.model)
    n_parameters = sum(p.numel() for p in model.parameters())
    print(f'model: {args.model or BUNDLED.name}')
    print(f'parameters: {n_parameters / 1e6:.2f} million')
    for name, spec in (*model.spec.items(),
                       ('provenance', model.provenance)):
        print(f'{name}: ' + ', '.join(f'{k}={v}' for k, v in spec.items()))
    packages = ('astrodino_seg', 'torch', 'photutils', 'astropy', 'numpy')
    print('versions: python ' + platform.python_version() + ', '
          + ', '.join(f'{name} {version(name)}' for name in packages))
    devices = ['cpu'] + [f'cuda:{k} ({torch.cuda.get_device_name(k)})'
                         for k in range(torch.cuda.device_count())]
    print(f'devices: {", ".join(devices)}; '
          f'{torch.get_num_threads()} CPU threads')
    return 0


def _run_train(args):
    from astrodino_seg.train.supervised import train_from_config

    with open(args.config, 'rb') as stream:
        config = tomllib.load(stream)
    train_from_config(config, args.output)
    return 0
