# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
``astrodino demo``, ``astrodino fetch`` and ``astrodino info``.
"""

from pathlib import Path

from astrodino_seg.cli.products import (
    product_paths,
    reserve,
    summarise,
    write_products,
    written,
)
from astrodino_seg.errors import require


def add_demo(commands):
    """Add the subcommand."""
    demo = commands.add_parser(
        'demo', help='segment a bundled scene, with photutils beside it')
    demo.add_argument('-o', '--output', default='astrodino_demo',
                      help='folder for the products (default: %(default)s)')
    demo.add_argument('--device', default='cpu')
    demo.set_defaults(run=run_demo)


def run_demo(args):
    """Run the subcommand."""
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


def add_fetch(commands):
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
    add('--no-ivar', action='store_true',
        help='do not ask for the inverse variance')
    add('--service', metavar='URL',
        help='address of the service, if it is another')
    add('--connections', type=int, default=4, metavar='N',
        help='downloads at a time (%(default)s)')
    add('-q', '--quiet', action='store_true', help='no progress bar')
    fetch.set_defaults(run=run_fetch)


def run_fetch(args):
    """Run the subcommand."""
    from astrodino_seg.datasets import LegacyCutouts

    folder = Path(args.output)
    cutouts = LegacyCutouts(
        _positions(args.position), size=args.size,
        bands=args.bands.replace(',', ''), pixel_scale=args.pixel_scale,
        layer=args.layer, ivar=not args.no_ivar, cache=folder,
        n_connections=args.connections,
        **({'service': args.service} if args.service else {}))
    folder.mkdir(parents=True, exist_ok=True)
    reserve(args, folder / 'cutouts', {}, overwrite=True)
    table = cutouts.fetch(progress_bar=not args.quiet)
    table['path'] = [Path(path).name for path in table['path']]
    with written(folder / 'cutouts', {
            'list': folder / 'cutouts.ecsv'}) as parts:
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


def add_info(commands):
    """Add the subcommand."""
    info = commands.add_parser('info', help='model, versions and devices')
    info.add_argument('--model', help='a weights file of a model or backbone, '
                                      'or the name of a bundled one')
    info.add_argument('--json', action='store_true',
                      help='all that the weights file tells, as JSON')
    info.set_defaults(run=run_info)


def describe(model, name):
    """What a model or a backbone is, in lines for people."""
    classes = getattr(model, 'classes', ())[1:]
    if not classes:
        yield f'{name}: a backbone without a head'
    elif hasattr(model, 'decision'):
        yield f'{name}: tells objects apart, and each is {_or(classes)}'
    else:
        yield f'{name}: tells which pixels are sky, {_or(classes)}'
    vit = model.vit.spec
    n_parameters = sum(p.numel() for p in model.parameters())
    yield (f'network: {n_parameters / 1e6:.2f} million parameters; a Vision '
           f'Transformer of {vit["depth"]} layers of {vit["dim"]} on patches '
           f'of {vit["patch_size"]} pixels')
    yield (f'input: any number of bands, as {model.planes.n_planes} planes by '
           f'the rule {type(model.planes).__name__}')
    told = model.provenance
    steps = told.get('steps', told.get('n_steps'))
    if steps is not None:
        hours = f' in {told["hours"]:.1f} hours' if 'hours' in told else ''
        yield f'training: {steps:,} steps{hours}'
    fit = (model.spec.get('calibration') or {}).get('fit')
    if fit:
        yield f'calibration: on {fit["n_scenes"]} simulated scenes'


def _or(words):
    *most, last = words
    return f'{", ".join(most)} or {last}' if most else last


def run_info(args):
    """Run the subcommand."""
    import json
    import platform
    from importlib.metadata import version

    import torch

    from astrodino_seg.models.load import DEFAULT_MODEL, load_any

    model = load_any(args.model)
    if args.json:
        print(json.dumps({**model.spec, 'provenance': model.provenance},
                         indent=2))
        return 0
    for line in describe(model, str(args.model or DEFAULT_MODEL)):
        print(line)
    packages = ('astrodino_seg', 'torch', 'photutils', 'astropy', 'numpy')
    print('versions: python ' + platform.python_version() + ', '
          + ', '.join(f'{name} {version(name)}' for name in packages))
    devices = ['cpu'] + [f'cuda:{k} ({torch.cuda.get_device_name(k)})'
                         for k in range(torch.cuda.device_count())]
    print(f'devices: {", ".join(devices)}; '
          f'{torch.get_num_threads()} CPU threads')
    return 0
