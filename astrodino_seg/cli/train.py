# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
``astrodino simulate``, ``stamps`` and ``fetch``, which make or get images;
``astrodino train`` and ``astrodino pretrain``.
"""

import tomllib
from pathlib import Path

from astrodino_seg.cli.products import paths_of, reserve, written
from astrodino_seg.errors import require


def add_simulate(commands):
    simulate = commands.add_parser(
        'simulate', help='make an image of which the truth is known',
        description='Write NAME_image.fits (an extension a band), '
                    'NAME_truth.fits (LABELS, OWNERS and SHARES) and '
                    'NAME_truth.ecsv (the catalogue).')
    add = simulate.add_argument
    add('-o', '--output', metavar='NAME', required=True,
        help='what the names of the files begin with')
    add('--seed', type=int, default=0,
        help='the same seed gives the same image (%(default)s)')
    add('--size', type=int, nargs='+', default=[512], metavar='N',
        help='side, or height and width, in pixels (512)')
    add('--bands', metavar='SET',
        help='all bands of a set, for example ugriz; default: drawn')
    add('--psf-fwhm', type=float, help='pixels; default: drawn, for each '
                                       'band')
    add('--depth', type=float, help='factor on every S/N; default: drawn')
    add('--density', type=float,
        help='small sources per 1000 pixels; default: drawn')
    add('--pixel-scale', type=float, default=0.2,
        help='arcsec, for the WCS (%(default)s)')
    add('--rate', action='append', default=[], metavar='NAME=VALUE',
        help='how much of an ingredient; 0 leaves it out; may be repeated')
    add('--stamps', metavar='FOLDER',
        help='compose the scene of the galaxies of "astrodino stamps"')
    add('--cosmos', metavar='FOLDER',
        help='COSMOS galaxies, for the ingredient "cosmos"')
    add('--overwrite', action='store_true', help='replace old files')
    simulate.set_defaults(run=run_simulate)


def run_simulate(args):
    require('galsim', 'simulate')
    from astrodino_seg.simulate import StampLibrary, make_scene, observe

    name = Path(args.output)
    if not name.parent.is_dir():
        msg = f'output: no folder {str(name.parent)!r}'
        raise ValueError(msg)
    paths = paths_of(name, {
        'image': '_image.fits', 'truth': '_truth.fits',
        'catalogue': '_truth.ecsv'})
    reserve(args, name, paths, overwrite=args.overwrite)
    content, conditions = read_rates(args.rate)
    scene = make_scene(
        args.seed, size=args.size[0] if len(args.size) == 1 else args.size,
        band_set=args.bands, psf_fwhm=args.psf_fwhm, density=args.density,
        pixel_scale=args.pixel_scale, rates=content, cosmos=args.cosmos,
        stamps=None if args.stamps is None else StampLibrary(args.stamps))
    # bands that were named are not left out, unless that was asked for
    every = args.bands is not None and 'missing_bands' not in conditions
    image, truth = observe(scene, [args.seed, 1], depth=args.depth,
                           bands=range(len(scene.bands)) if every else None,
                           rates=conditions)
    ny, nx = image.shape
    print(f'{",".join(image.bands)}: {nx} x {ny} pixels, '
          f'{len(truth.objects["id"])} objects')
    _write(image, truth, args.seed, name, paths)
    return 0


def read_rates(given):
    """Read the rates of the command line."""
    from astrodino_seg.simulate import CONDITIONS, CONTENT

    content, conditions = {}, {}
    for text in given:
        name, _, value = text.partition('=')
        if name not in CONTENT and name not in CONDITIONS:
            msg = (f'rate: must be of one of {", ".join(CONTENT)}, '
                   f'{", ".join(CONDITIONS)}; got {text!r}')
            raise ValueError(msg)
        try:
            (content if name in CONTENT else conditions)[name] = float(value)
        except ValueError:
            msg = f'rate: must be NAME=VALUE, got {text!r}'
            raise ValueError(msg) from None
    return content, conditions


def _write(image, truth, seed, prefix, paths):
    import numpy as np
    from astropy.table import QTable

    from astrodino_seg.image import write_image, write_maps
    from astrodino_seg.simulate.scene import VERSION
    from astrodino_seg.truth import CLASSES, ISOPHOTE

    meta = {'SEED': seed, 'SCENES': VERSION, 'ISOPHOTE': ISOPHOTE}
    columns = dict(truth.objects)
    table = QTable({key: columns.pop(key) for key in ('id', 'x', 'y')},
                   meta=meta)
    table['class'] = np.array(CLASSES)[columns.pop('cls').astype(int)]
    for band, flux in zip(image.bands, columns.pop('flux').T):
        table[f'flux_{band}'] = flux
    for key, values in columns.items():
        table[key] = values
    with written(prefix, paths) as parts:
        write_image(parts['image'], image, meta=meta)
        write_maps(parts['truth'], {
            'LABELS': truth.labels, 'OWNERS': truth.owners,
            'SHARES': truth.shares}, image, meta=meta)
        table.write(parts['catalogue'])


def add_stamps(commands):
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
    stamps.set_defaults(run=run_stamps)


def run_stamps(args):
    require('galsim', 'simulate')
    from astrodino_seg.simulate.scene_library import build_stamps

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


def add_fetch(commands):
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


def add_train(commands):
    train = commands.add_parser('train', help='train a model from a recipe')
    _add_recipe(train.add_argument)
    train.set_defaults(run=run_train)


def _add_recipe(add):
    """What is trained, and where to."""
    add('config', help='TOML recipe; there are some in '
                       'astrodino_seg/train/recipes')
    add('-o', '--output', required=True,
        help='folder for checkpoint, log and weights; a run that was killed '
             'goes on from there')


def _read(path):
    with open(path, 'rb') as stream:
        return tomllib.load(stream)


def run_train(args):
    from astrodino_seg.train import train_from_config

    model = train_from_config(_read(args.config), args.output)
    print(_ending(model.provenance, Path(args.output)))
    return 0


def _ending(told, folder):
    """How the training ended, in one line."""
    if not (folder / 'model.safetensors').exists():
        return (f'stopped after {told["steps"]} steps; the same command goes '
                f'on')
    end = 'the last one'
    if 'best_step' in told:
        end = (f'the best one, {told["best_step"]}, with a panoptic quality '
               f'of {told["validation_pq"]:.3f}')
    return (f'ended after {told["steps"]} steps; {folder}/model.safetensors '
            f'has the weights of {end}')


def add_pretrain(commands):
    pretrain = commands.add_parser(
        'pretrain', help='train a backbone on images without labels')
    _add_recipe(pretrain.add_argument)
    pretrain.add_argument('-q', '--quiet', action='store_true',
                          help='no progress bar')
    pretrain.set_defaults(run=run_pretrain)


def run_pretrain(args):
    from astrodino_seg.train import pretrain_from_config

    pretrain_from_config(_read(args.config), args.output,
                         progress=not args.quiet)
    return 0
