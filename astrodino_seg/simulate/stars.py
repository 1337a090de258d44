# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Stars: the point-spread function with its wings, spikes and reflections.
"""

import math

import numpy as np

__all__ = ['moffat', 'moffat_reach', 'star_flux', 'star_stamp']

#: Largest half-width of a star's stamp, pixels.
MAX_REACH = 256


def moffat(r2, fwhm, beta):
    """Moffat (1969) profile of unit flux; ``r2`` is radius squared."""
    a2 = (fwhm / 2)**2 / (2**(1 / beta) - 1)
    return (beta - 1) / (np.pi * a2) * (1 + r2 / a2)**-beta


def moffat_reach(sky, flux, floor=.02):
    """
    Half-widths of stamps beyond which a Moffat profile is below a floor.

    Parameters
    ----------
    sky : `~astrodino_seg.simulate.surveys.Sky`
        Through what stars are seen.
    flux : `~numpy.ndarray`
        Total fluxes in units of the noise of a pixel.
    floor : float, optional
        In units of the noise of a pixel.

    Returns
    -------
    half : `~numpy.ndarray`
        Int, pixels.
    """
    width = sky.psf_fwhm.max()
    a = width / 2 / math.sqrt(2**(1 / sky.beta) - 1)
    peak = flux * moffat(0, sky.psf_fwhm.min(), sky.beta)
    r = a * np.sqrt(np.maximum((peak / floor)**(1 / sky.beta) - 1, 0))
    return np.ceil(np.maximum(r, 1.5 * width)).astype(int)


def star_flux(sky, sn):
    """The flux in a band that gives a matched-filter S/N in all together."""
    flux = sn * math.sqrt(4 * math.pi) * sky.mean_fwhm / 2.35
    return flux / math.sqrt(len(sky.bands))


def star_stamp(sky, flux, x, y, shape):
    """
    A star, out to where its wings drown in the noise.

    Parameters
    ----------
    sky : `~astrodino_seg.simulate.surveys.Sky`
        Through what it is seen.
    flux : `~numpy.ndarray`
        (band,) total fluxes in units of the noise of a pixel.
    x, y : float
        Where the star lies in the scene, pixels.
    shape : tuple of int
        (y, x) pixels of the scene.

    Returns
    -------
    stamp : `~numpy.ndarray`
        (band, y, x) float32, what lies in the scene; may be empty.
    x0, y0 : int
        The pixel of the scene under the stamp's first one.
    """
    half = _reach(sky, flux.max())
    x0, y0 = (max(round(c) - half, 0) for c in (x, y))
    x1, y1 = (min(round(c) + half + 1, n)
              for c, n in ((x, shape[1]), (y, shape[0])))
    dx = np.arange(x0, x1, dtype=np.float32) - np.float32(x)
    dy = np.arange(y0, y1, dtype=np.float32)[:, None] - np.float32(y)
    r2 = dx**2 + dy**2
    widths, group = sky.groups
    aureole = sky.optics['aureole']
    stamp = np.empty((len(flux), *r2.shape), np.float32)
    rays = _reflections(dx, dy, r2, sky.optics)
    # so that no edge is seen
    rim = np.clip((1 - np.sqrt(r2) / half) / .15, 0, 1)
    for g, width in enumerate(widths.tolist()):
        light = moffat(r2, width, sky.beta)
        light += aureole * moffat(r2, 9 * width, 1.7)
        light = (light + rays) * rim
        for b in np.flatnonzero(group == g):
            stamp[b] = np.float32(flux[b]) * light
    return stamp, x0, y0


def _reach(sky, flux):
    """Half-width of a star's stamp, pixels."""
    fwhm, spikes = sky.psf_fwhm, sky.optics['spikes']
    half = 4 * sky.mean_fwhm
    peak = flux / sky.mean_fwhm**2
    if peak > 10:
        a = fwhm.max() * 9
        wings = flux * (sky.optics['aureole'] + .003) / a**2
        half = max(half, a * min((wings / .05)**(1 / 3.4), 4), 30)
        if peak > 300:
            half = max(half, 2.5 * spikes[3], sky.optics['halo'][0] + 8)
    return int(min(half, MAX_REACH))


def _reflections(x, y, r2, optics):
    """Diffraction spikes, and the disc that reflections make."""
    image = np.zeros_like(r2)
    n, angle, share, length, width = optics['spikes']
    for k in range(n):
        a = angle + k * np.pi / n
        along = np.abs(x * math.cos(a) + y * math.sin(a))
        across = y * math.cos(a) - x * math.sin(a)
        image += share / n / (3.5 * length * width) * np.exp(
            -along / length - across**2 / (2 * width**2))
    radius, share = optics['halo']
    if share:
        disc = 1 / (1 + np.exp(np.clip((np.sqrt(r2) - radius) / 2, -30, 30)))
        image += share * disc / (np.pi * radius**2)
    return image
