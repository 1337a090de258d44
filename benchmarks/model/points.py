# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Real galaxies with what is on them, labelled by eye at points.

`points.csv` has, of pieces of the development images, the places where an
earlier model saw something on and about large galaxies, and whose they are, as
seen on pictures of two stretches: each galaxy's parts have one number, a star
or another object has its own, and what could not be told is left out.
`labelled` gives each piece
as it is, and turned: of one of its bands, and with more noise. A quarter of
the pieces is held out, by their names.
"""

import csv
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from PIL import Image as Picture

from astrodino_seg import as_image
from astrodino_seg.train.decision import Points
from benchmarks.common import fields, read_field

TABLE = Path(__file__).parent / 'points.csv'
#: The pictures of the Galaxy Zoo are taken for stretched by the arcsinh of so
#: many times the flux, and are made unlike steps of one of 256.
STRETCH = 3.5
VARIANTS = ('as it is', 'of one band', 'with more noise')


def read_piece(name, data):
    """The image of a piece, ``NAME`` or ``NAME[y0:y1,x0:x1]``."""
    name, _, window = name.rstrip(']').partition('[')
    if name.endswith('.jpg'):
        path = next((data / 'galaxy_zoo_examples').rglob(name))
        rgb = np.asarray(Picture.open(path).convert('RGB'), np.float32)[::-1]
        step = np.random.default_rng(0).uniform(-0.5, 0.5, rgb.shape)
        z, r, g = np.moveaxis(
            np.sinh(STRETCH * rgb / 255) + STRETCH * step / 255, -1, 0)
        return as_image({'g': g, 'r': r, 'z': z})
    image = read_field(fields(data)[name][0])
    if not window:
        return image
    window = tuple(slice(*map(int, side.split(':')))
                   for side in window.split(','))
    cube = np.where(image.mask, np.nan, image.cube)
    return as_image(dict(zip(image.bands, cube[:, *window])))


def is_held(name):
    """Whether a piece is held out of the fit."""
    return sum(map(ord, name)) % 4 == 0


def read_points():
    """The rows of the table, by piece."""
    rows = defaultdict(list)
    with TABLE.open() as f:
        for row in csv.DictReader(f):
            rows[row.pop('piece')].append(row)
    return {name: {key: np.array([float(row[key]) for row in some])
                   for key in some[0]} for name, some in rows.items()}


def vary(image, points, variant, rng):
    """A piece and its points, varied."""
    cube = np.where(image.mask, np.nan, image.cube)
    names = list(image.bands)
    ny, nx = image.shape
    y, x = points.pop('y'), points.pop('x')
    if variant:
        k = rng.integers(1, 8)
        if k & 1:
            cube, x = cube[:, :, ::-1], nx - 1 - x
        if k & 2:
            cube, y = cube[:, ::-1], ny - 1 - y
        if k & 4:
            cube, x, y = cube.swapaxes(1, 2), y, x
    if variant == 1:
        band = rng.integers(len(cube))
        cube, names = cube[band:band + 1], names[band:band + 1]
    elif variant == 2:
        steps = np.nanmedian(np.abs(np.diff(cube, axis=2)), axis=(1, 2))
        noise = rng.choice([0.5, 1, 2]) * 1.4826 * steps / 2**0.5
        cube = cube + noise[:, None, None] * rng.standard_normal(cube.shape)
    return SimpleNamespace(
        image=as_image(dict(zip(names, cube.astype(np.float32)))),
        truth=Points(x=x, y=y, radius=points['radius'],
                     owner=points['owner'].astype(int),
                     large=points['large'] > 0))


def labelled(data, *, held=False):
    """The pieces that are held out as they are, or the others varied."""
    return [vary(read_piece(name, data), dict(points), variant,
                 np.random.default_rng([variant, k]))
            for k, (name, points) in enumerate(read_points().items())
            if is_held(name) == held
            for variant in range(1 if held else len(VARIANTS))]
