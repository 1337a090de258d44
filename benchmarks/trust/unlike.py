# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Images of many kinds, with their truth, that a model may or may not cope with:
scenes of the training, scenes of another generator and what can be done to
these, and images without any object.
"""

import io
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import skimage
from PIL import Image as Picture
from scipy.ndimage import gaussian_filter

from astrodino_seg.image import Image
from astrodino_seg.inputs.channels import rgb_image
from astrodino_seg.simulate import make_scene, observe
from astrodino_seg.simulate.scene import Canvas
from astrodino_seg.simulate.sky import Sky
from astrodino_seg.truth import make_truth
from benchmarks.finders.other_scenes import other_scene
from benchmarks.model.milestone import RECIPE

SIDE = 256
#: Seeds begin here, in the training split, whose first and last ones others
#: use.
FIRST = 900_000
RATES = tomllib.loads(RECIPE.read_text())
Y, X = np.mgrid[:SIDE, :SIDE]
#: What comes with scikit-image.
PHOTOS = sorted(Path(skimage.__file__).parent.joinpath('data').glob(
    '[a-z]*.[pj][np]g'))


def as_bands(cube):
    """The image of (band, y, x) or (y, x) values."""
    cube = np.asarray(cube, np.float32)
    cube = cube[None] if cube.ndim == 2 else cube
    return Image(cube, np.zeros(cube.shape, bool), None,
                 bands=[f'band{k}' for k in range(len(cube))])


def between(rng, low, high):
    """A number whose logarithm is uniform between two limits."""
    return float(np.exp(rng.uniform(*np.log([low, high]))))


def cut(image, truth, corner=70):
    """A part of an image and of its truth."""
    where = np.s_[..., corner:corner + SIDE, corner:corner + SIDE]
    arrays = {name: getattr(image, name)[where] for name in ('cube', 'mask')}
    return replace(image, wcs=None, **arrays), truth[where]


def training(seed):
    """A scene with the rates of the training."""
    scene = make_scene(FIRST + seed, size=SIDE, rates=RATES['scenes']['rates'])
    image, truth = observe(scene, [FIRST + seed, 1],
                           rates=RATES['fit']['rates'])
    return image, truth.labels


def plain(seed):
    """A scene with the rates of the benchmarks."""
    image, truth = observe(make_scene(FIRST + seed, size=SIDE),
                           [FIRST + seed, 1])
    return image, truth.labels


def foreign(seed):
    """A scene of another generator."""
    image, truth = other_scene(50_000 + seed)
    return cut(image, truth.labels)


def few(seed):
    """A small image with a few round objects."""
    rng = np.random.default_rng([seed, 11])
    shape = tuple(rng.integers(48, 220, 2))
    canvas = empty_canvas(shape)
    for _ in range(rng.integers(1, 8)):
        add_gaussian(canvas, *rng.uniform(8, np.array(shape[::-1]) - 8),
                     between(rng, 80, 5000), rng.uniform(1, 4))
    return finished(canvas, rng)


def smooth_noise(seed):
    """A foreign scene with strong noise that is smooth over many pixels."""
    rng = np.random.default_rng([seed, 1])
    image, truth = foreign(10_000 + seed)
    scale = rng.uniform(3, 10)
    noise = gaussian_filter(rng.normal(size=image.cube.shape),
                            (0, scale, scale), mode='wrap')
    return as_bands(image.cube + between(rng, 1.5, 6) / noise.std()
                    * noise), truth


def curved(seed):
    """A foreign scene in 8 bits, through a root, a logarithm or inverted."""
    rng = np.random.default_rng([seed, 2])
    image, truth = foreign(20_000 + seed)
    low, high = np.percentile(image.cube, [0.1, rng.choice([99.5, 99.9, 100])])
    value = ((image.cube - low) / (high - low)).clip(0, 1)
    value = (value**rng.uniform(.2, .5), np.log1p(1000 * value) / np.log(1001),
             1 - value**.4, np.arcsinh(300 * value) / np.arcsinh(300)
             )[rng.integers(4)]
    return as_bands(np.round(255 * value)), truth


def picture(seed):
    """A foreign scene as a picture for the web."""
    rng = np.random.default_rng([seed, 3])
    image, truth = foreign(30_000 + seed)
    rgb = rgb_image(image, stretch=rng.uniform(3, 20), q=rng.uniform(6, 12))
    file = io.BytesIO()
    Picture.fromarray(rgb).save(file, 'JPEG',
                                quality=int(rng.integers(40, 90)))
    return as_bands(np.moveaxis(np.asarray(Picture.open(file)), -1, 0)), truth


def crowded(seed):
    """Stars 0.8 to 3 times the width of the PSF apart."""
    rng = np.random.default_rng([seed, 4])
    fwhm = rng.uniform(2.2, 5)
    apart = rng.uniform(0.8, 3) * fwhm
    canvas = empty_canvas((SIDE, SIDE))
    n = rng.poisson((SIDE / apart)**2)
    for x, y, flux in zip(*rng.uniform(0, SIDE, (2, n)),
                          (100 * rng.pareto(1.2, n) + 40).clip(0, 1e5)):
        add_gaussian(canvas, x, y, flux, fwhm / 2.355)
    return finished(canvas, rng)


def filling(seed):
    """A galaxy with arms and knots that is larger than the frame."""
    rng = np.random.default_rng([seed, 5])
    canvas, sigma = empty_canvas((SIDE, SIDE)), rng.uniform(1.1, 2.1)
    scale, q = rng.uniform(0.24, 0.7) * SIDE, rng.uniform(0.5, 1)
    turn = np.exp(1j * rng.uniform(0, np.pi))
    middle = complex(*rng.normal(SIDE / 2, 40, 2))
    disc = (X + 1j * Y - middle) / turn
    disc = disc.real + 1j * disc.imag / q
    light = np.exp(-abs(disc) / scale) * (1 + rng.uniform(0, .6) * np.cos(
        2 * np.angle(disc) - rng.uniform(2, 5) * np.log(abs(disc) + 5)))
    n = rng.integers(200, 1500)
    knots = scale * rng.gamma(2, .5, n) * np.exp(2j * np.pi * rng.random(n))
    knots = middle + turn * (knots.real + 1j * q * knots.imag)
    light += rng.uniform(1, 8) * np.histogram2d(
        knots.imag, knots.real, SIDE, [[0, SIDE]] * 2,
        weights=rng.pareto(1.5, n) + 0.3)[0]
    light = between(rng, 5, 60) * gaussian_filter(light, sigma)
    canvas.add(light[None].astype(np.float32), 0, 0, x=middle.real,
               y=middle.imag, cls=2, kind='knotty', re=scale, primary=True)
    for _ in range(rng.poisson(6)):
        add_gaussian(canvas, *rng.uniform(0, SIDE, 2),
                     between(rng, 300, 3e4), sigma)
    return finished(canvas, rng)


def empty_canvas(shape):
    """A canvas of one band."""
    return Canvas(shape, Sky({'r': 0.62}, np.full(1, 3.0), 3.0, np.ones(1),
                             {}))


def add_gaussian(canvas, x, y, flux, sigma):
    """Add a star of a Gaussian PSF."""
    half = int(np.ceil(5 * sigma))
    at = np.arange(-half, half + 1)
    column, row = (np.exp(-(round(c) + at - c)**2 / (2 * sigma**2))
                   for c in (x, y))
    stamp = flux / (2 * np.pi * sigma**2) * np.outer(row, column)
    canvas.add(stamp[None].astype(np.float32), round(x) - half,
               round(y) - half, x=x, y=y, cls=1, kind='star', re=sigma,
               primary=False)


def finished(canvas, rng):
    """The image of a canvas, with noise of 1, and its truth."""
    scene = canvas.scene()
    truth = make_truth(scene.cube, scene.owner, scene.own_sn,
                       np.zeros(canvas.shape, bool), scene.objects)
    return as_bands(scene.cube + rng.normal(50, 1, scene.cube.shape)
                    ), truth.labels


def noise(rng):
    """Noise alone."""
    return np.zeros((SIDE, SIDE)) + rng.uniform(0, 10)


def stripes(rng):
    """Waves or bars, along the pixels or not."""
    angle = rng.choice([0, np.pi / 2, rng.uniform(0, np.pi)])
    wave = np.sin(2 * np.pi * (X * np.cos(angle) + Y * np.sin(angle))
                  / between(rng, 6, 80))
    return between(rng, 2, 60) * (np.sign(wave) if rng.random() < .5 else wave)


def board(rng):
    """A chessboard."""
    side = rng.integers(8, 60)
    return between(rng, 3, 150) * ((X // side + Y // side) % 2)


def spectra(rng):
    """Traces of spectra, and lines of the sky."""
    image = np.zeros((SIDE, SIDE))
    for _ in range(rng.integers(1, 30)):
        offset = Y - rng.uniform(0, SIDE) - rng.normal(0, .04) * (
            X - SIDE / 2) - rng.normal(0, 2e-4) * (X - SIDE / 2)**2
        light = 1 + 1.5 * gaussian_filter(rng.normal(size=SIDE), 8)
        image += between(rng, 4, 100) * light.clip(0) * np.exp(
            -offset**2 / (2 * rng.uniform(1, 4)**2))
    for _ in range(rng.poisson(8)):
        image += between(rng, 2, 100) * np.exp(
            -(X - rng.uniform(0, SIDE))**2 / (2 * rng.uniform(.8, 3)**2))
    return image.T if rng.random() < 0.3 else image


def clouds(rng):
    """Light with a power law for its spectrum."""
    wave = np.hypot(*np.meshgrid(np.fft.fftfreq(SIDE), np.fft.rfftfreq(SIDE),
                                 indexing='ij'))
    wave[0, 0] = 1
    image = np.fft.irfft2(np.fft.rfft2(rng.normal(size=(SIDE, SIDE)))
                          * wave**-rng.uniform(1.2, 2))
    return between(rng, 4, 60) * image / image.std()


def photo(seed):
    """A photograph of something else."""
    rgb = np.moveaxis(np.asarray(Picture.open(
        PHOTOS[seed % len(PHOTOS)]).convert('RGB')), -1, 0)
    y, x = (max(side - SIDE, 0) // 2 for side in rgb.shape[1:])
    rgb = rgb[:, y:y + SIDE, x:x + SIDE]
    return as_bands(rgb[:1] if (rgb == rgb[0]).all() else rgb
                    ), np.zeros(rgb.shape[1:], int)


def without_objects(draw):
    """Image and truth of a seed, of what draws the light of no object."""
    def make(seed):
        rng = np.random.default_rng([seed, len(draw.__name__)])
        return as_bands(draw(rng) + rng.normal(size=(SIDE, SIDE))
                        ), np.zeros((SIDE, SIDE), int)

    return make


#: By what it is called: from a seed to an image and its true labels.
KINDS = {
    'scenes of the training': training, 'scenes of the benchmarks': plain,
    'scenes of another generator': foreign, 'few objects': few,
    'noise alone': without_objects(noise),
    'smooth noise': smooth_noise, 'curved, 8 bits': curved,
    'pictures for the web': picture, 'crowded': crowded,
    'galaxy without sky': filling, 'stripes': without_objects(stripes),
    'chessboards': without_objects(board),
    'spectra': without_objects(spectra), 'clouds': without_objects(clouds),
    'photographs': photo}
