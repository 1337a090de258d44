# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Simulated scenes beside cutouts of real images, at the same stretch.

    python -m benchmarks.realism.contact_sheet OUTPUT.png [--data FOLDER]

Six columns of random simulated cutouts (of the validation split), then six of
random real ones. The folder of the images is ``--data``, or the environment
variable ASTRODINO_DATA.
"""

import argparse
import warnings
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from astrodino_seg.image import Image, as_image
from astrodino_seg.inputs.channels import PreprocessSpec, normalise
from astrodino_seg.plotting import rgb_image, save_figure
from astrodino_seg.simulate import SceneLibrary, observe
from benchmarks.common import fields, parse_with_data

REAL = ('kids_griZ', 'spiral_DES', 'spiral_PS1', 'jwst_three',
        'legacy_cluster_ring_grz', 'legacy_cutout_59.1067_-30.4848_grz_invvar'
        '_psf', 'legacy_decals_dr5_example_a', 'legacy_decals_dr5_example_b')
ROWS, COLUMNS, STRETCH = 4, 6, 15


def picture(image):
    """The colour picture in units of the noise."""
    known = normalise(image, PreprocessSpec())
    return rgb_image(image, known.background, known.noise, stretch=STRETCH)


def cutouts(rng, rgb, n, size):
    """``n`` random square pieces."""
    for _ in range(n):
        side = min(size, *rgb.shape[:2])
        y, x = (rng.integers(0, k - side + 1) for k in rgb.shape[:2])
        yield rgb[y:y + side, x:x + side]


def simulated(rng, n, size, cache):
    """Pieces of ``n`` scenes at survey depth."""
    library = SceneLibrary('validation', n, path=cache)
    for k in range(n):
        scene = library[k]
        depth = np.exp(rng.uniform(np.log(.5), np.log(3)))
        image, _ = observe(scene, [library.seed(k), 1], depth=depth,
                           bands=range(len(scene.cube)))
        yield from cutouts(rng, picture(image), 1, size)


def real(rng, n, size, folder):
    """Pieces of the real images, as many of each field as it is large."""
    sources = fields(folder)
    images = [as_image(sources[name][0]) for name in REAL]
    area = np.array([np.prod(image.shape) for image in images]) ** 0.5
    counts = rng.multinomial(n - len(images), area / area.sum()) + 1
    for image, count in zip(images, counts):
        bad = image.mask.all(axis=0)
        image = Image(image.cube, image.mask | bad, noise=image.noise,
                      bands=image.bands)
        yield from cutouts(rng, picture(image), count, size)


def main():
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('output', type=Path)
    parser.add_argument('--size', type=int, default=200)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--cache', help='folder for rendered scenes')
    args = parse_with_data(parser)
    warnings.simplefilter('ignore')
    rng = np.random.default_rng(args.seed)
    n = ROWS * COLUMNS
    left = list(simulated(rng, n, args.size, args.cache))
    right = list(real(rng, n, args.size, args.data))
    figure = Figure(figsize=(4 * COLUMNS + 1, 2 * ROWS), layout='constrained')
    halves = figure.subfigures(1, 2, wspace=0.03)
    for half, title, pieces in zip(halves, ('simulated', 'real'),
                                   (left, right)):
        half.suptitle(title)
        axes = half.subplots(ROWS, COLUMNS).ravel()
        for axis, k in zip(axes, rng.permutation(n)):
            axis.imshow(pieces[k], origin='lower', interpolation='nearest')
            axis.axis('off')
    save_figure(figure, args.output, dpi=75)


if __name__ == '__main__':
    main()
