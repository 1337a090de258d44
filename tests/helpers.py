# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What the tests of images share.
"""

import numpy as np
from astropy.wcs import WCS

from astrodino_seg import as_image


def make_wcs(scale=1.0, shape=(40, 50), angle=0.0, ctype='TAN', **kwargs):
    """A WCS centred on the same sky; scale in arcsec per pixel."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = [f'RA---{ctype}', f'DEC--{ctype}']
    wcs.wcs.crval = 150, 2
    wcs.wcs.crpix = [(n + 1) / 2 for n in shape[::-1]]
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    wcs.wcs.cd = scale / 3600 * np.array([[-cos, sin], [sin, cos]])
    wcs.array_shape = shape
    return wcs


def cube_wcs(shape=(3, 40, 50), last='WAVE'):
    wcs = WCS(naxis=3)
    wcs.wcs.ctype = 'RA---TAN', 'DEC--TAN', last
    wcs.wcs.cunit = 'deg', 'deg', 'm'
    wcs.wcs.crval = 150, 2, 5e-7
    wcs.wcs.cdelt = -1 / 3600, 1 / 3600, 1e-7
    wcs.wcs.crpix = 25.5, 20.5, 1
    wcs.array_shape = shape
    return wcs


def check_promises(image):
    assert image.cube.dtype == np.float32
    assert image.cube.dtype.isnative
    assert image.cube.flags.writeable
    assert image.cube.ndim == 3
    assert np.isfinite(image.cube).all()
    assert image.mask.dtype == bool
    assert image.mask.shape == image.cube.shape
    assert not image.cube[image.mask].any()
    assert len(image.bands) == image.n_bands == len(image.cube)
    assert image.shape == image.cube.shape[1:]
    assert all(isinstance(band, str) for band in image.bands)
    if image.noise is not None:
        assert image.noise.dtype == np.float32
        assert image.noise.shape == image.cube.shape
        assert np.isfinite(image.noise).all()
        assert (image.noise > 0).all()
    if image.wcs is not None:
        assert image.wcs.naxis == 2
        assert image.wcs.has_celestial
        assert image.wcs.array_shape == image.shape


def blobs(ys=slice(None), xs=slice(None)):
    """
    A window of an image of 102 x 104 pixels, g, r, i and z with noise of 1 and
    a WCS: two galaxies that touch, a large one, and stars.
    """
    y, x = np.indices((102, 104))
    light = sum(peak * np.exp(-((x - x0)**2 / ratio + (y - y0)**2)
                              / 2 / sigma**2)
                for x0, y0, peak, sigma, ratio in (
                    (40, 40, 60, 3.5, 1), (58, 42, 40, 3, 1.5),
                    (68, 76, 30, 6, 2), (20, 84, 300, 1.6, 1),
                    (88, 24, 100, 1.6, 1), (18, 18, 150, 1.6, 1),
                    (92, 48, 200, 1.6, 1)))
    rng = np.random.default_rng(2)
    cube = np.stack([tilt * light + rng.normal(size=light.shape)
                     for tilt in (0.7, 1, 1.2, 1.3)])
    wcs = make_wcs(shape=light.shape)
    return as_image(cube[:, ys, xs], wcs=wcs[ys, xs], bands='griz')
