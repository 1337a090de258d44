# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Galaxies that are alone, with noise of 1 a pixel on a sky of 10, drawn without
the simulator of the package: discs and de Vaucouleurs galaxies by numpy, and
galaxies of the COSMOS survey by GalSim.
"""

from functools import cache
from pathlib import Path

import galsim
import numpy as np
from astropy.table import Table
from scipy.ndimage import gaussian_filter
from scipy.special import gammaincinv

#: Pixels of the image of each scale.
SIDES = {3: 128, 8: 192, 20: 384, 40: 512, 80: 900}
INDICES = {1: 'exponential', 4: 'de Vaucouleurs'}
PEAKS = 5, 10, 50
#: Axis ratio, and sigma of the PSF in pixels.
RATIO, PSF = 0.7, 1.3
#: Samples along a pixel, so far from the middle.
OVERSAMPLE, CORE = 5, 64
SKY = 10.0
#: Of the images of COSMOS galaxies: side in pixels, arcsec of a pixel, FWHM of
#: the PSF in arcsec, and the flux of 22.5 mag in units of the noise of a
#: pixel.
SIDE, PIXEL, SEEING = 128, 0.2, 0.7
DEPTHS = {'shallow': 100, 'deep': 1000}


def sersic(index, scale, peak, seed):
    """
    An image (y, x) and the light in it of a Sersic galaxy.

    ``scale`` is that of the exponential, or the half-light radius.
    """
    n = SIDES[scale]
    rng = np.random.default_rng([index, scale, peak, seed])
    centre = n / 2 + rng.uniform(-6, 6, 2)
    b = 1 if index == 1 else gammaincinv(2 * index, 0.5)

    def profile(pixels):
        y, x = (pixels - c for c in centre)
        r = np.hypot(x, y[:, None] / RATIO) / scale
        return np.exp(-b * r**(1 / index))

    light = profile(np.arange(n))
    # the middle alone needs the mean over pixels
    fine = np.arange(n // 2 - CORE, n // 2 + CORE)
    pixels = np.add.outer(fine, (np.arange(OVERSAMPLE) + 0.5) / OVERSAMPLE
                          - 0.5)
    light[np.ix_(fine, fine)] = profile(pixels.ravel()).reshape(
        (2 * CORE, OVERSAMPLE) * 2).mean(axis=(1, 3))
    light = gaussian_filter(light, PSF)
    light *= peak / light.max()
    return light + SKY + rng.normal(size=(n, n)), light


@cache
def catalogue():
    """The parameters of GalSim's fits to 100 galaxies."""
    return Table.read(Path(__file__).with_name('cosmos.ecsv'))


def cosmos(k, depth):
    """The same of the galaxy in row ``k`` of `catalogue`, by GalSim."""
    row = catalogue()[k]
    rng = np.random.default_rng([k, DEPTHS[depth]])
    galaxy = galsim.Sersic(row['n'], half_light_radius=row['hlr']).shear(
        q=row['q'], beta=row['phi'] * galsim.degrees)
    if row['bulge_share'] > 0:
        bulge = galsim.DeVaucouleurs(half_light_radius=row['bulge_hlr']).shear(
            q=row['bulge_q'], beta=row['bulge_phi'] * galsim.degrees)
        galaxy = (row['bulge_share'] * bulge
                  + (1 - row['bulge_share']) * galaxy)
    galaxy = galaxy.withFlux(
        DEPTHS[depth] * 10**(0.4 * (22.5 - row['mag']))).shift(
            *rng.uniform(-PIXEL, PIXEL, 2))
    seen = galsim.Convolve(galaxy, galsim.Moffat(beta=3.5, fwhm=SEEING))
    light = seen.drawImage(nx=SIDE, ny=SIDE, scale=PIXEL).array.astype(float)
    return light + SKY + rng.normal(size=light.shape), light
