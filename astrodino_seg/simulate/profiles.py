# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What galaxies are painted with: spectra, frames, profiles, knots, dust.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

__all__ = ['Frame', 'clumps', 'colours', 'make_frame', 'mix', 'noise_field',
           'sed', 'sersic', 'sersic_bn', 'spots', 'unit']


def sed(wavelengths, slope):
    """
    A smooth spectral shape, one at 0.62 micron.

    Parameters
    ----------
    wavelengths : array_like
        Effective wavelengths in micron.
    slope : float
        Logarithmic slope at 0.62 micron; 0 is flat in f_nu, 2 is red.

    Returns
    -------
    flux : `~numpy.ndarray`
        Relative flux per band.
    """
    x = np.log(np.asarray(wavelengths, float) / 0.62)
    return np.exp(slope * x / (1 + 0.6 * np.abs(x)))


def sersic_bn(n):
    """Sersic b_n, Ciotti & Bertin (1999), A&A 352, 447, eq. 18."""
    return 2 * n - 1 / 3 + 4 / (405 * n) + 46 / (25515 * n**2)


@dataclass(frozen=True)
class Frame:
    """Pixel grid seen from one galaxy: plane coordinates and sizes."""

    size: int        # stamp side, pixels
    re: float        # half-light radius of the whole, pixels
    q: float         # axis ratio of the disc, cos(inclination)
    u: np.ndarray    # along the major axis, pixels
    v: np.ndarray    # along the minor axis, deprojected, pixels
    x: np.ndarray    # pixel offset in x
    y: np.ndarray    # pixel offset in y

    @property
    def r(self):
        return np.hypot(self.u, self.v)

    @property
    def theta(self):
        return np.arctan2(self.v, self.u)


def make_frame(size, re, q, angle, offset=(0.0, 0.0)):
    c = (size - 1) / 2
    y, x = np.mgrid[:size, :size].astype(np.float32)
    x -= c + offset[0]
    y -= c + offset[1]
    u = x * np.cos(angle) + y * np.sin(angle)
    v = (-x * np.sin(angle) + y * np.cos(angle)) / q
    return Frame(size, re, q, u, v, x, y)


def noise_field(rng, size, scale):
    """A smooth Gaussian random field of unit variance."""
    n = max(int(np.ceil(size / max(scale / 2, 1))) + 4, 8)
    coarse = gaussian_filter(rng.normal(size=(n, n)), 2.0, mode='wrap')
    grid = np.linspace(0, n - 1, size)
    field = map_coordinates(coarse, np.meshgrid(grid, grid, indexing='ij'),
                            order=1)
    return ((field - coarse.mean()) / coarse.std()).astype(np.float32)


def sersic(r, re, n):
    soft = np.sqrt(r**2 + 0.35**2)     # a pixel's worth of core smoothing
    return np.exp(-sersic_bn(n) * ((soft / re)**(1 / n) - 1))


def unit(image):
    return image / max(float(image.sum()), 1e-12)


def clumps(rng, frame, density, n_clumps, sizes, slope=-1.7):
    """
    Sum of Gaussian knots placed with a probability ``density``; fluxes
    follow a power law dN/dL ~ L**slope (HII regions: Kennicutt, Edgar &
    Hodge 1989, ApJ 337, 761).
    """
    weight = np.clip(density, 0, None).ravel().astype(float)
    if n_clumps == 0 or weight.sum() == 0:
        return np.zeros_like(frame.u)
    where = rng.choice(weight.size, n_clumps, p=weight / weight.sum())
    flux = (1 - rng.uniform(0, 0.999, n_clumps))**(1 / (slope + 1))
    flux = np.minimum(flux, 60)
    radius = np.exp(rng.uniform(*np.log(sizes), n_clumps))
    cy, cx = np.divmod(where, frame.size)
    shift = rng.uniform(-.5, .5, (2, n_clumps))
    return spots(frame, cx + shift[0], cy + shift[1], radius,
                 flux / radius**2)


def spots(frame, x, y, sigma, height):
    """Sum of round Gaussians at pixel positions, each cut at 4 sigma."""
    out = np.zeros_like(frame.u)
    for cx, cy, s, peak in zip(x, y, sigma, height):
        h = int(np.ceil(4 * s))
        x0, y0 = max(int(cx) - h, 0), max(int(cy) - h, 0)
        xx = np.arange(x0, min(int(cx) + h + 1, frame.size))
        yy = np.arange(y0, min(int(cy) + h + 1, frame.size))
        out[y0:y0 + len(yy), x0:x0 + len(xx)] += peak * np.outer(
            np.exp(-(yy - cy)**2 / (2 * s**2)),
            np.exp(-(xx - cx)**2 / (2 * s**2)))
    return out


def mix(wavelengths, parts, dust=None, tau=0.0):
    """Add ``(image, share, slope)`` parts and dim them by a dust screen."""
    cube = sum(share * sed(wavelengths, slope)[:, None, None] * unit(image)
               for image, share, slope in parts)
    if dust is not None:
        depth = tau * (0.62 / np.asarray(wavelengths))[:, None, None]
        cube = cube * np.exp(-np.minimum(depth, 4) * dust)
    return cube


def colours(rng):
    """Slopes of an old, a young and a star-forming population."""
    return rng.uniform(1.2, 2.4), rng.uniform(0.1, 1.2), rng.uniform(-.8, .4)
