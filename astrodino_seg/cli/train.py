# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
``astrodino simulate``, ``stamps`` and ``fetch``, which make or get images;
``astrodino train`` and ``pretrain``; and ``astrodino info`` of what they make.
"""

import tomllib
from pathlib import Path

from astrodino_seg.cli.products import paths_of, reserve, written
from astrodino_seg.errors import require


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


def run_pretrain(args):
    from astrodino_seg.train import pretrain_from_config

    pretrain_from_config(_read(args.config), args.output,
                         progress=not args.quiet)
    return 0


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
