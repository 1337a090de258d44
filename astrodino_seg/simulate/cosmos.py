# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Real morphology: HST COSMOS galaxies, enlarged to resolved sizes.

The folder has the layout of GalSim's ``COSMOSCatalog`` pieces: a FITS file
``galaxies_f814w.fits`` with one stamp in each extension, and a table
``catalog.ecsv`` with ``NOISE_MEAN`` and ``NOISE_VARIANCE`` of each.
"""

from functools import lru_cache
from pathlib import Path

import numpy as np
from astropy.table import Table
from scipy.ndimage import gaussian_filter, label, zoom

from astrodino_seg.image.fits import open_fits, read_pixels
from astrodino_seg.simulate.profiles import sed

__all__ = ['CosmosGalaxies']

#: Smoothing that takes the noise out of a stamp, in its pixels, where it is
#: bright and where it is faint.
SMOOTHING = 1.0, 4.0
#: A stamp is enlarged up to so many times; more would show its pixels.
MAX_ZOOM = 4.0
#: Stamps with a brightest pixel below this S/N are left out.
MIN_PEAK = 12.0


class CosmosGalaxies:
    """
    Galaxies of the COSMOS field with colours drawn pixel by pixel.

    Parameters
    ----------
    folder : path-like
        Where the stamps are.

    Raises
    ------
    FileNotFoundError
        If there are none.
    ValueError
        If a file is not what it should be.
    """

    def __init__(self, folder):
        self.stamps = _load(str(Path(folder)))

    def draw(self, rng, re, wavelengths):
        """
        Draw one galaxy without PSF or noise of the scene.

        Its young light, which stands out above its own smooth self, is bluer
        than the rest (as in `resolved_galaxy`, slopes of old and young light
        are drawn).

        Parameters
        ----------
        rng : `numpy.random.Generator`
            Source of all randomness.
        re : float
            Half-light radius in pixels; less if the stamp is too small for
            it.
        wavelengths : array_like
            Of the bands in micron.

        Returns
        -------
        cube : `~numpy.ndarray`
            (band, y, x) float32 with an odd side; the mean of the bands'
            total fluxes is one.
        re : float
            Half-light radius in pixels that it has.
        axis_ratio : float
            Of the light's second moments.
        """
        stamp, radius, q = self.stamps[rng.integers(len(self.stamps))]
        factor = min(re / radius, MAX_ZOOM)
        image = np.clip(zoom(stamp, factor, order=3, mode='grid-constant',
                             grid_mode=True), 0, None)
        image = _centred(np.rot90(image, rng.integers(4)))
        smooth = gaussian_filter(image, 0.6 * radius * factor)
        young = np.clip(image / np.maximum(smooth, 1e-9 * image.max()) - .7,
                        0, 1.5) / 1.5
        old, blue = rng.uniform(1.0, 2.2), rng.uniform(-.4, .8)
        cube = (sed(wavelengths, old)[:, None, None] * (1 - young) * image
                + sed(wavelengths, blue)[:, None, None] * young * image)
        cube = cube / cube.sum(axis=(1, 2)).mean()
        return cube.astype(np.float32), radius * factor, q


def _centred(image):
    """Padded to an odd square with the brightest pixel in the middle."""
    y, x = np.unravel_index(gaussian_filter(image, 2).argmax(), image.shape)
    half = max(y, x, image.shape[0] - 1 - y, image.shape[1] - 1 - x)
    out = np.zeros((2 * half + 1, 2 * half + 1), image.dtype)
    out[half - y:half - y + image.shape[0],
        half - x:half - x + image.shape[1]] = image
    return out


@lru_cache(maxsize=2)
def _load(folder):
    """All stamps: clean image, half-light radius, axis ratio."""
    images, catalogue = (Path(folder) / name for name in (
        'galaxies_f814w.fits', 'catalog.ecsv'))
    for file in (images, catalogue):
        if not file.is_file():
            msg = f'cosmos: no file {str(file)!r}'
            raise FileNotFoundError(msg)
    table = Table.read(catalogue)
    missing = {'NOISE_MEAN', 'NOISE_VARIANCE'} - set(table.colnames)
    if missing:
        msg = f'cosmos: {str(catalogue)!r} has no columns {sorted(missing)}'
        raise ValueError(msg)
    found = []
    with open_fits(images) as hdus:
        if len(hdus) != len(table) + 1:
            msg = (f'cosmos: {str(images)!r} has {len(hdus) - 1} extensions, '
                   f'{str(catalogue)!r} has {len(table)} rows')
            raise ValueError(msg)
        for hdu, row in zip(hdus[1:], table):
            image = read_pixels(hdu, images) - float(row['NOISE_MEAN'])
            clean = _clean(image, np.sqrt(row['NOISE_VARIANCE']))
            if clean is not None:
                found.append(clean)
    if not found:
        msg = f'cosmos: no galaxy in {str(images)!r} is bright enough'
        raise FileNotFoundError(msg)
    return found


def _clean(image, noise):
    """The galaxy in the middle, smoothed, without neighbours and noise."""
    fine, coarse = (gaussian_filter(image, sigma) for sigma in SMOOTHING)
    parts, _ = label(coarse > 0.5 * noise)
    middle = parts[image.shape[0] // 2, image.shape[1] // 2]
    if middle == 0 or fine.max() < MIN_PEAK * noise:
        return None
    bright = 1 / (1 + np.exp(-(coarse / noise - 3) / .7))
    soft = gaussian_filter((parts == middle).astype(float), 2)
    smooth = (bright * fine + (1 - bright) * coarse).clip(0) * soft
    y, x = np.mgrid[:image.shape[0], :image.shape[1]]
    weight = smooth / smooth.sum()
    y = y - (weight * y).sum()
    x = x - (weight * x).sum()
    moments = np.array([[(weight * x * x).sum(), (weight * x * y).sum()],
                        [(weight * x * y).sum(), (weight * y * y).sum()]])
    short, long = np.sqrt(np.linalg.eigvalsh(moments))
    # an elliptical edge, and none at the edge of the stamp
    inverse = np.linalg.inv(moments)
    away = np.sqrt(inverse[0, 0] * x**2 + 2 * inverse[0, 1] * x * y
                   + inverse[1, 1] * y**2)
    ny, nx = image.shape
    yy, xx = np.ogrid[:ny, :nx]
    rim = np.minimum(np.minimum(yy, ny - 1 - yy), np.minimum(xx, nx - 1 - xx))
    smooth = (smooth * np.clip((4 - away) / 1.5, 0, 1)
              * np.clip(rim / (0.15 * min(ny, nx)), 0, 1))
    r = np.hypot(x, y).ravel()
    order = np.argsort(r)
    light = np.cumsum(smooth.ravel()[order])
    radius = r[order][np.searchsorted(light, 0.5 * light[-1])]
    return smooth, max(radius, 1.0), short / long
