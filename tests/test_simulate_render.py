# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests of stamps of galaxies through the PSF.
"""

import numpy as np
import pytest
from astropy.modeling.models import Moffat2D, Sersic2D
from numpy.testing import assert_allclose
from scipy.ndimage import center_of_mass
from scipy.signal import fftconvolve
from simulate_helpers import make_sky

from astrodino_seg.simulate import CONTENT
from astrodino_seg.simulate.galaxies import resolved_galaxy
from astrodino_seg.simulate.render import Renderer, convolve, psf_kernel
from astrodino_seg.simulate.scene import merge_rates

RATES = merge_rates(None, CONTENT)


def test_convolve():
    """Zero padded and centred, as SciPy does it; flux is conserved."""
    rng = np.random.default_rng(0)
    cube = np.zeros((2, 61, 61), np.float32)
    cube[:, 20:41, 20:41] = rng.uniform(0, 1, (2, 21, 21))
    kernels = [psf_kernel(1.7, 3.0), psf_kernel(1.7, 2.5)]
    found = convolve(cube, kernels)
    assert found.dtype == np.float32
    for image, kernel, before in zip(found, kernels, cube):
        assert_allclose(image, fftconvolve(before, kernel, mode='same'),
                        atol=1e-5)
        assert_allclose(image.sum(), before.sum(), rtol=1e-5)


@pytest.mark.parametrize('fwhm', [1.7, 3.3, 6.5])
def test_kernel(fwhm):
    kernel = psf_kernel(fwhm, 3.0)
    assert_allclose(kernel.sum(), 1, rtol=1e-5)
    middle = kernel.shape[0] // 2
    assert kernel.argmax() == middle * kernel.shape[0] + middle
    assert_allclose(kernel, kernel.T, atol=1e-9)
    # its width, interpolated along the row of the peak
    row = kernel[middle, middle:] / kernel[middle, middle]
    assert_allclose(2 * np.interp(-0.5, -row, np.arange(len(row))), fwhm,
                    rtol=0.12)


@pytest.mark.parametrize('kind', ['elliptical', 'spiral', 'shells',
                                  'central'])
def test_large(kind):
    """A large galaxy keeps its flux through the PSF, at its place."""
    sky = make_sky(2, fwhm=2.5)
    galaxy = Renderer(sky, RATES).large(np.random.default_rng(2), kind, 6.0)
    cube, q = resolved_galaxy(np.random.default_rng(2), kind, 6.0,
                              sky.wavelengths)
    assert (galaxy.re, galaxy.q, galaxy.scale) == (6.0, q, 1.0)
    assert galaxy.cube.shape[1] == galaxy.cube.shape[2]
    assert galaxy.cube.shape[1] % 2 == 1
    assert_allclose(galaxy.cube.sum(axis=(1, 2)), cube.sum(axis=(1, 2)),
                    rtol=2e-3)
    pad = (galaxy.cube.shape[1] - cube.shape[1]) // 2
    for band, before in zip(galaxy.cube, np.pad(cube, ((0, 0), (pad, pad),
                                                       (pad, pad)))):
        wanted = fftconvolve(before, psf_kernel(2.5, 3.0), mode='same')
        assert_allclose(band, wanted, atol=1e-4 * wanted.max())


def test_bands_have_their_own_psf():
    sky = make_sky(2)
    sky = type(sky)(sky.bands, np.array([2.0, 6.0]), 3.0, sky.depth,
                    sky.optics)
    cube = Renderer(sky, RATES).large(np.random.default_rng(0), 'elliptical',
                                      3.0).cube
    widths = [np.sqrt(band.sum() / band.max()) for band in cube]
    assert widths[1] > 1.5 * widths[0]
    parts = Renderer(sky, RATES).small(np.random.default_rng(0), 1.0, 20).parts
    assert parts.shape == (1, 2, 41, 41)
    assert parts[0, 0].max() > 3 * parts[0, 1].max()


def oracle(q, angle, index, re, x, y, fwhm, beta, half, fine=5):
    """A Sersic profile through a Moffat, summed numerically."""
    n = 2 * half + 1
    step = (np.arange(n * fine) - (n * fine - 1) / 2) / fine
    xx, yy = np.meshgrid(step, step)
    # of the same area as the circle of the half-light radius
    galaxy = Sersic2D(1, re / np.sqrt(q), index, x, y, 1 - q,
                      np.deg2rad(angle))(xx, yy)
    gamma = fwhm / 2 / np.sqrt(2**(1 / beta) - 1)
    psf = Moffat2D((beta - 1) / (np.pi * gamma**2), 0, 0, gamma, beta)(
        xx, yy) / fine**2
    image = fftconvolve(galaxy, psf, mode='same')
    middle = fine // 2
    image = image[middle::fine, middle::fine]
    return image / (galaxy.sum() / fine**2)


@pytest.mark.parametrize('seed', [0, 1, 5])
def test_small(seed):
    """Against a numerical convolution of models of Astropy."""
    pytest.importorskip('galsim')
    sky = make_sky(1, fwhm=3.0)
    found = Renderer(sky, RATES).small(np.random.default_rng(seed), 2.0, 30)
    rng = np.random.default_rng(seed)
    q, angle = rng.uniform(.25, 1), rng.uniform(0, 180)
    index = rng.choice([.7, 1., 1., 1.5, 2.5])
    x, y = rng.uniform(-.5, .5, 2)
    assert (found.x, found.y, found.re, found.scale) == (x, y, 2.0, 1.0)
    wanted = oracle(q, angle, index, 2.0, x, y, 3.0, 3.0, 30)
    image = found.parts[0, 0]
    assert_allclose(image, wanted, atol=0.01 * wanted.max())
    assert_allclose(image.sum(), 1, atol=0.03)
    bright = image * (image > image.max() / 20)
    assert_allclose(center_of_mass(bright), [30 + y, 30 + x], atol=0.05)


def test_bulge():
    """Two components about one centre, the bulge the smaller."""
    pytest.importorskip('galsim')
    found = Renderer(make_sky(1), RATES).small(np.random.default_rng(3), 6.0,
                                               40, bulge=True)
    disc, bulge = found.parts[:, 0]
    assert_allclose([disc.sum(), bulge.sum()], 1, atol=0.04)
    assert bulge.max() > 3 * disc.max()
    for part in (disc, bulge):
        bright = part * (part > part.max() / 20)
        assert_allclose(center_of_mass(bright), [40 + found.y, 40 + found.x],
                        atol=0.15)


def test_without_galsim(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, 'galsim', None)
    renderer = Renderer(make_sky(), RATES)
    with pytest.raises(ImportError, match=r'astrodino_seg\[simulate\]'):
        renderer.small(np.random.default_rng(0), 2.0, 10)
    # large galaxies need none
    assert renderer.large(np.random.default_rng(0), 'spiral', 4.0).re == 4
