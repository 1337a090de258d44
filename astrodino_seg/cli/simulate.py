# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
``astrodino simulate``.
"""

from pathlib import Path

from astrodino_seg.cli.products import all_or_none, refuse_existing
from astrodino_seg.errors import require

__all__ = ['add_parser', 'read_rates', 'run']


def add_parser(commands):
    """Add the subcommand."""
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
    simulate.set_defaults(run=run)


def run(args):
    """Run the subcommand."""
    require('galsim', 'simulate')
    from astrodino_seg.simulate import StampLibrary, make_scene, observe

    name = Path(args.output)
    if not name.parent.is_dir():
        msg = f'output: no folder {str(name.parent)!r}'
        raise ValueError(msg)
    paths = {kind: name.with_name(f'{name.name}_{end}') for kind, end in (
        ('image', 'image.fits'), ('truth', 'truth.fits'),
        ('catalogue', 'truth.ecsv'))}
    refuse_existing(paths.values(), args.overwrite)
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
    _write(image, truth, args.seed, paths)
    return 0


def read_rates(given):
    """
    Read the rates of the command line.

    Parameters
    ----------
    given : list of str
        Each ``NAME=VALUE``.

    Returns
    -------
    content, conditions : dict of float
        Those of scenes, and of observations.

    Raises
    ------
    ValueError
        If a name is unknown, or a value is no number.
    """
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


def _write(image, truth, seed, paths):
    import numpy as np
    from astropy.table import QTable

    from astrodino_seg.image import write_image, write_maps
    from astrodino_seg.simulate.scene import CLASSES, VERSION
    from astrodino_seg.truth import ISOPHOTE

    meta = {'SEED': seed, 'SCENES': VERSION, 'ISOPHOTE': ISOPHOTE}
    columns = dict(truth.objects)
    table = QTable({key: columns.pop(key) for key in ('id', 'x', 'y')},
                   meta=meta)
    table['class'] = np.array(CLASSES)[columns.pop('cls').astype(int)]
    for band, flux in zip(image.bands, columns.pop('flux').T):
        table[f'flux_{band}'] = flux
    for key, values in columns.items():
        table[key] = values
    with all_or_none(paths) as parts:
        write_image(parts['image'], image, meta=meta)
        write_maps(parts['truth'], {
            'LABELS': truth.labels, 'OWNERS': truth.owners,
            'SHARES': truth.shares}, image, meta=meta)
        table.write(parts['catalogue'])
