# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Stamps of galaxies through the PSF of a sky, drawn when they are asked for.

`Renderer` and `~astrodino_seg.simulate.stamps.Stamps`, which takes them from
a file, have the same two methods, ``large`` and ``small``, and tell their
``sky`` and the ``kinds`` of large galaxies that they have.
"""

from typing import NamedTuple

import numpy as np
from scipy.fft import irfft2, next_fast_len, rfft2

from astrodino_seg.errors import require
from astrodino_seg.simulate.cosmos import CosmosGalaxies
from astrodino_seg.simulate.galaxies import KINDS, resolved_galaxy
from astrodino_seg.simulate.stars import moffat

__all__ = ['Large', 'Renderer', 'Small']


class Large(NamedTuple):
    """
    A resolved galaxy.

    Attributes
    ----------
    cube : `~numpy.ndarray`
        (band, y, x) with the nucleus in the middle.
    scale : float
        The factor with which the mean of the bands' total fluxes is one.
    re : float
        Half-light radius in pixels.
    q : float
        Axis ratio.
    """

    cube: np.ndarray
    scale: float
    re: float
    q: float


class Small(NamedTuple):
    """
    A small galaxy of one or two components (the disc and the bulge).

    Attributes
    ----------
    parts : `~numpy.ndarray`
        (component, PSF width, y, x).
    scale : float
        The factor with which each part has unit flux.
    x, y : float
        Where its centre lies off the middle of the stamp, pixels.
    re : float
        Half-light radius of the first component in pixels.
    """

    parts: np.ndarray
    scale: float
    x: float
    y: float
    re: float


class Renderer:
    """
    Draws stamps.

    Parameters
    ----------
    sky : `~astrodino_seg.simulate.surveys.Sky`
        Bands and PSFs.
    rates : dict of float
        Of `~astrodino_seg.simulate.rates.CONTENT`, complete.
    cosmos : path-like, optional
        The folder of the COSMOS galaxies, for the kind ``'cosmos'``.
    """

    def __init__(self, sky, rates, *, cosmos=None):
        self.sky = sky
        self.rates = rates
        self.cosmos = None if cosmos is None else CosmosGalaxies(cosmos)
        self.kinds = {*KINDS, *(() if cosmos is None else ('cosmos',))}
        kernels = [psf_kernel(f, sky.beta) for f in sky.psf_fwhm]
        half = max(k.shape[0] for k in kernels) // 2
        self.kernels = [np.pad(k, half - k.shape[0] // 2) for k in kernels]
        self._profiles = None

    def large(self, rng, kind, re):
        """
        Draw a large galaxy.

        Parameters
        ----------
        rng : `numpy.random.Generator`
            Source of all randomness.
        kind : str
            A key of `~astrodino_seg.simulate.KINDS`, or ``'cosmos'``.
        re : float
            Half-light radius in pixels.

        Returns
        -------
        large : `Large`
            The galaxy.
        """
        if kind == 'cosmos':
            cube, re, q = self.cosmos.draw(rng, re, self.sky.wavelengths)
        else:
            cube, q = resolved_galaxy(rng, kind, re, self.sky.wavelengths,
                                      self.rates)
        pad = self.kernels[0].shape[0] // 2
        cube = np.pad(cube, ((0, 0), (pad, pad), (pad, pad)))
        return Large(convolve(cube, self.kernels), 1.0, re, q)

    def small(self, rng, re, half, *, bulge=False):
        """
        Draw a small galaxy with GalSim.

        Parameters
        ----------
        rng : `numpy.random.Generator`
            Source of all randomness.
        re : float
            Half-light radius in pixels.
        half : int
            Half-width of the stamp in pixels.
        bulge : bool, optional
            Whether there is a bulge besides the disc.

        Returns
        -------
        small : `Small`
            The galaxy.
        """
        galsim, gsp, psfs = self._galsim()
        shear = galsim.Shear(q=rng.uniform(.25, 1),
                             beta=rng.uniform(0, 180) * galsim.degrees)
        shapes = [(rng.choice([.7, 1., 1., 1.5, 2.5]), re)]
        if bulge:
            shapes = [(1.0, re), (2.5, rng.uniform(.2, .5) * re)]
        x, y = rng.uniform(-.5, .5, 2)
        n = 2 * half + 1
        parts = np.empty((len(shapes), len(psfs), n, n), np.float32)
        for k, (index, radius) in enumerate(shapes):
            profile = galsim.Sersic(index, half_light_radius=radius,
                                    gsparams=gsp).shear(shear).shift(x, y)
            for g, psf in enumerate(psfs):
                parts[k, g] = galsim.Convolve(
                    profile, psf, gsparams=gsp).drawImage(
                        nx=n, ny=n, scale=1, method='no_pixel',
                        dtype=np.float32).array
        return Small(parts, 1.0, x, y, re)

    def _galsim(self):
        """GalSim, its precision, and one PSF for each width."""
        if self._profiles is None:
            galsim = require('galsim', 'simulate')
            gsp = galsim.GSParams(folding_threshold=2e-2, maxk_threshold=5e-3,
                                  kvalue_accuracy=1e-3, stepk_minimum_hlr=4)
            psfs = [galsim.Moffat(beta=self.sky.beta, fwhm=f, gsparams=gsp)
                    for f in self.sky.groups[0]]
            self._profiles = galsim, gsp, psfs
        return self._profiles


def psf_kernel(fwhm, beta):
    """A Moffat PSF of unit sum, averaged over each pixel."""
    half = int(np.ceil(6 * fwhm))
    y, x = np.mgrid[-half:half + 1, -half:half + 1]
    kernel = sum(moffat((x + dx)**2 + (y + dy)**2, fwhm, beta)
                 for dx in (-.3, 0, .3) for dy in (-.3, 0, .3))
    return (kernel / kernel.sum()).astype(np.float32)


def convolve(cube, kernels):
    """Convolve each band with its kernel, zero padded, centred."""
    k = kernels[0].shape[0] // 2
    n = next_fast_len(cube.shape[1] + 2 * k)
    out = np.empty_like(cube)
    for b, (image, kernel) in enumerate(zip(cube, kernels)):
        full = irfft2(rfft2(image, (n, n)) * rfft2(kernel, (n, n)), (n, n))
        out[b] = full[k:k + cube.shape[1], k:k + cube.shape[2]]
    return out
