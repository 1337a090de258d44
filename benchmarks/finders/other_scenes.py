# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Scores on scenes of another generator than the one that models are trained on.

    python -m benchmarks.finders.other_scenes FOLDER [FINDER ...] [--scenes 60]

All light is GalSim's: stars; small Sersic galaxies; and large ones that are
spheroids, smooth discs with a bulge, or such discs of whose light 5% to 40% is
in GalSim's ``RandomKnots``, points that are strewn like the disc. The PSF is
Kolmogorov's, the sky is flat, the noise white, and the bands are g, r and z.
The rules of the truth are those of other benchmarks (`make_truth`).

FINDER is one of ``astrodino benchmark`` or the file of a model. FOLDER gets
the tables of that command.
"""

import argparse
from pathlib import Path

import galsim
import numpy as np

from astrodino_seg.cli.compare import choose_finders
from astrodino_seg.evaluate.benchmark import (
    benchmark_tables,
    measure_scene,
    write_rst,
)
from astrodino_seg.image import Image
from astrodino_seg.segmenter import DinoSegmenter
from astrodino_seg.simulate.scene import Canvas
from astrodino_seg.simulate.sky import Sky
from astrodino_seg.truth import make_truth

SIZE = 400
BANDS = {'g': 0.48, 'r': 0.62, 'z': 0.91}
#: Mean numbers of stars and small galaxies in a scene.
N_STARS, N_SMALL = 15, 40
KINDS = ('spheroid', 'smooth', 'knotty')


def large(rng, deviate, kind, re):
    """Profiles of a large galaxy: each with its share and its colour."""
    shape = galsim.Shear(q=rng.uniform(.3, 1),
                         beta=rng.uniform(0, 180) * galsim.degrees)
    if kind == 'spheroid':
        return [(galsim.Sersic(rng.uniform(2, 4), half_light_radius=re)
                 .shear(q=rng.uniform(.5, 1), beta=shape.beta), 1.0, .4)]
    disc = galsim.Exponential(half_light_radius=re)
    bulge = galsim.DeVaucouleurs(half_light_radius=.2 * re)
    in_bulge = rng.uniform(0, .3)
    in_knots = rng.uniform(.05, .4) if kind == 'knotty' else 0.0
    parts = [(disc, 1 - in_bulge - in_knots, .1), (bulge, in_bulge, .4)]
    if in_knots:
        knots = galsim.RandomKnots(int(rng.integers(10, 80)), profile=disc,
                                   rng=deviate)
        parts.append((knots, in_knots, -.4))
    return [(profile.shear(shape), share, colour)
            for profile, share, colour in parts]


def add(canvas, psf, parts, flux, colour, x, y, reach, **row):
    """Draw an object on the canvas; ``flux`` is the mean of the bands'."""
    half = int(reach)
    ix, iy = round(x), round(y)
    offset = galsim.PositionD(x - ix, y - iy)
    cube = np.zeros((len(BANDS), 2 * half + 1, 2 * half + 1), np.float32)
    for profile, share, own in parts:
        light = psf if profile is None else galsim.Convolve(profile, psf)
        image = light.drawImage(nx=2 * half + 1, ny=2 * half + 1, scale=1,
                                offset=offset, method='no_pixel').array
        tilt = 10**(.4 * (colour + own) * np.linspace(-1, 1, len(BANDS)))
        cube += (share * tilt / tilt.mean())[:, None, None] * image
    canvas.add(flux * cube, ix - half, iy - half, x=x, y=y, **row)


def other_scene(seed):
    """
    An image and its truth.

    Parameters
    ----------
    seed : int
        The same seed gives the same scene.

    Returns
    -------
    image : `~astrodino_seg.image.Image`
        The image, with noise of 1.
    truth : `~astrodino_seg.truth.Truth`
        What is in it.
    """
    rng = np.random.default_rng([seed, 31])
    deviate = galsim.BaseDeviate(int(rng.integers(1, 2**31)))
    fwhm = rng.uniform(2.5, 5)
    psf = galsim.Kolmogorov(fwhm=fwhm)
    sky = Sky(BANDS, np.full(len(BANDS), fwhm), 3.0, np.ones(len(BANDS)), {})
    canvas = Canvas((SIZE, SIZE), sky)

    def place():
        return dict(zip('xy', rng.uniform(0, SIZE, 2)))

    for _ in range(rng.integers(2, 5)):
        kind, re = KINDS[rng.integers(3)], np.exp(rng.uniform(2.1, 3.5))
        flux = 10**rng.uniform(-.1, 1.2) * 2 * np.pi * re**2 / 3**.5
        add(canvas, psf, large(rng, deviate, kind, re), flux,
            rng.normal(.1, .2), **place(), reach=6 * re + 5 * fwhm, cls=2,
            kind=kind, re=re, primary=True)
    for _ in range(rng.poisson(N_SMALL)):
        re = np.exp(rng.uniform(0, 1.6))
        profile = galsim.Sersic(
            rng.uniform(.7, 3), half_light_radius=re).shear(
            q=rng.uniform(.3, 1), beta=rng.uniform(0, 180) * galsim.degrees)
        add(canvas, psf, [(profile, 1.0, .2)], 10**rng.uniform(2, 3.8),
            rng.normal(0, .3), **place(), reach=8 * re + 5 * fwhm, cls=2,
            kind='field', re=re, primary=False)
    for _ in range(rng.poisson(N_STARS)):
        add(canvas, psf, [(None, 1.0, 0.0)], 10**rng.uniform(2, 5),
            rng.normal(0, .4), **place(), reach=20 * fwhm, cls=1, kind='star',
            re=fwhm / 2, primary=False)
    scene = canvas.scene()
    truth = make_truth(scene.cube, scene.owner, scene.own_sn,
                       np.zeros((SIZE, SIZE), bool), scene.objects)
    cube = scene.cube + rng.normal(100, 1, scene.cube.shape)
    return Image(cube.astype(np.float32), np.zeros(cube.shape, bool), None,
                 bands=list(BANDS)), truth


def make_finder(name):
    """A segmenter with the model of a file, or what has the name."""
    if Path(name).is_file():
        return DinoSegmenter(model=name)
    return choose_finders(name)[name]


def main():
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('folder', type=Path)
    parser.add_argument('finders', nargs='*', metavar='FINDER')
    parser.add_argument('--scenes', type=int, default=60)
    args = parser.parse_args()
    names = args.finders or ['dino', 'photutils', 'photutils-tuned',
                             'sep-tuned']
    args.folder.mkdir(parents=True, exist_ok=True)
    finders = {Path(name).stem: make_finder(name) for name in names}
    results = {name: [] for name in finders}
    for seed in range(args.scenes):
        image, truth = other_scene(seed)
        for name, finder in finders.items():
            results[name].append(measure_scene(finder, image, truth))
    tables = benchmark_tables(results)
    for name, table in tables.items():
        table.write(args.folder / f'{name}.csv', overwrite=True)
    write_rst(tables, args.folder / 'scores.rst')
    print((args.folder / 'scores.rst').read_text())


if __name__ == '__main__':
    main()
