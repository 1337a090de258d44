# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What tells two observations of one piece of sky apart, each a pure function.

The set is that of `Stein et al. 2021 <https://arxiv.org/abs/2110.13151>`_
(reddening, PSF, noise; `~astrodino_seg.pretrain.camera` has orientation and
size), with what surveys do besides: missing bands, gaps, and backgrounds that
are not quite right. None adds noise: what makes the light fainter does so to
the noise in it too, and `~astrodino_seg.pretrain.camera.fill_noise` fills
that up.
"""

import numpy as np
from scipy.interpolate import CubicSpline

__all__ = ['choose_bands', 'cut_gaps', 'drop_bands', 'extinction',
           'lower_depth', 'offset_sky', 'psf_sigma', 'redden']

# Fitzpatrick 1999, PASP 111, 63, Table 3: A / E(B-V) for R_V = 3.1
_F99 = CubicSpline(
    [0, 1 / 2.65, 1 / 1.22, 1 / .6, 1 / .547, 1 / .467, 1 / .411, 1 / .27,
     1 / .26],
    [0, .265, .829, 2.688, 3.055, 3.806, 4.315, 6.265, 6.591],
    bc_type='natural')


def _log_uniform(rng, low, high, size=None):
    return np.exp(rng.uniform(np.log(low), np.log(high), size))


def extinction(wavelengths):
    """
    Galactic extinction per reddening, A / E(B-V), for R_V = 3.1.

    The law of Fitzpatrick (1999, PASP 111, 63) with the anchors of its Table
    3, which `Schlafly & Finkbeiner 2011
    <https://doi.org/10.1088/0004-637X/737/2/103>`_ confirmed with stars.

    Parameters
    ----------
    wavelengths : array_like
        In micron. Below 0.26 the value there is given.

    Returns
    -------
    ratio : `~numpy.ndarray`
        float64, in magnitudes per magnitude.
    """
    return _F99(1 / np.maximum(wavelengths, 0.26))


def redden(rng, exposure, *, ebv=(0.0, 0.25)):
    """
    Put the objects behind more Galactic dust.

    Parameters
    ----------
    rng : `numpy.random.Generator`
        What is drawn from.
    exposure : `~astrodino_seg.pretrain.camera.Exposure`
        Unchanged if a wavelength is not known.
    ebv : tuple of float, optional
        Range of the added E(B-V) in magnitudes. The median over the Legacy
        Surveys is 0.03, and few fields for galaxies have more than 0.25.

    Returns
    -------
    exposure : `~astrodino_seg.pretrain.camera.Exposure`
        Fluxes times 10^(-0.4 A) (see `extinction`).
    """
    if np.isnan(exposure.wavelengths).any():
        return exposure
    gain = 10**(-0.4 * rng.uniform(*ebv) * extinction(exposure.wavelengths))
    return _dim(exposure, gain)


def lower_depth(rng, exposure, *, factor=(1.0, 4.0), scatter=1.25):
    """
    Raise the noise of the sky to a target.

    Parameters
    ----------
    rng : `numpy.random.Generator`
        What is drawn from.
    exposure : `~astrodino_seg.pretrain.camera.Exposure`
        The exposure.
    factor : tuple of float, optional
        Range of the ratio of the new noise to the old, 1 or more; uniform in
        the logarithm. 4 is 1.5 magnitudes.
    scatter : float, optional
        Largest further ratio of one band alone, 0.24 magnitudes: about as
        much as the noise of a band of the Legacy Surveys varies over the sky
        (Stein et al. 2021). More would wipe out the colours.

    Returns
    -------
    exposure : `~astrodino_seg.pretrain.camera.Exposure`
        Light and noise divided by the ratios.
    """
    n_bands = len(exposure.signal)
    ratio = (_log_uniform(rng, *factor)
             * _log_uniform(rng, 1, scatter, n_bands))
    return _dim(exposure, 1 / ratio)


def _dim(exposure, gain):
    """Multiply each band, its noise included."""
    gain = gain.astype(np.float32)[:, None, None]
    return exposure._replace(signal=exposure.signal * gain,
                             variance=exposure.variance * gain**2)


def psf_sigma(rng, n_bands, *, sigma=(0.5, 2.0), scatter=1.2):
    """
    Draw by how much the PSF is to be broadened.

    Parameters
    ----------
    rng : `numpy.random.Generator`
        What is drawn from.
    n_bands : int
        How many bands.
    sigma : tuple of float, optional
        Range in pixels of the image. By 2 a PSF of 2.5 pixels FWHM becomes
        one of 5.3, the root of 2.5^2 + (2.355 x 2)^2.
    scatter : float, optional
        Largest further factor of one band alone, up or down.

    Returns
    -------
    sigma : `~numpy.ndarray`
        (band,) widths of Gaussians in pixels, for
        `~astrodino_seg.pretrain.camera.resample`.
    """
    return (rng.uniform(*sigma)
            * _log_uniform(rng, 1 / scatter, scatter, n_bands))


def offset_sky(rng, exposure, *, level=0.15):
    """
    Leave some of the background, or take too much.

    Parameters
    ----------
    rng : `numpy.random.Generator`
        What is drawn from.
    exposure : `~astrodino_seg.pretrain.camera.Exposure`
        The exposure.
    level : float, optional
        Standard deviation, in units of the noise, of the constant, and of
        the rise from the middle to either edge, in each band. A mesh of
        boxes errs by some hundredths in an empty field, and by tenths near a
        large galaxy (see `~astrodino_seg.inputs.channels.background_mesh`).

    Returns
    -------
    exposure : `~astrodino_seg.pretrain.camera.Exposure`
        With a plane added to each band.
    """
    n_bands, ny, nx = exposure.signal.shape
    constant, up, right = rng.normal(0, level, (3, n_bands, 1, 1)).astype(
        np.float32)
    plane = (constant + up * np.linspace(-1, 1, ny, dtype='f4')[:, None]
             + right * np.linspace(-1, 1, nx, dtype='f4'))
    return exposure._replace(
        signal=np.where(exposure.valid, exposure.signal + plane, 0))


def cut_gaps(rng, exposure, *, n_gaps=(1, 3), width=(0.01, 0.15)):
    """
    Lose rows or columns: gaps between chips, dead columns, edges.

    Parameters
    ----------
    rng : `numpy.random.Generator`
        What is drawn from.
    exposure : `~astrodino_seg.pretrain.camera.Exposure`
        The exposure.
    n_gaps : tuple of int, optional
        Smallest and largest number of gaps.
    width : tuple of float, optional
        Range of their widths over the side of the image; at least a pixel.
        Each is in one band, or in all.

    Returns
    -------
    exposure : `~astrodino_seg.pretrain.camera.Exposure`
        With fewer valid pixels.
    """
    valid = exposure.valid.copy()
    n_bands, *sides = valid.shape
    for _ in range(rng.integers(n_gaps[0], n_gaps[1] + 1)):
        band = slice(None) if rng.random() < 0.5 else rng.integers(n_bands)
        axis = int(rng.integers(2))
        wide = max(round(rng.uniform(*width) * sides[axis]), 1)
        first = int(rng.integers(1 - wide, sides[axis]))
        part = slice(max(first, 0), first + wide)
        valid[(band, part) if axis == 0 else (band, slice(None), part)] = 0
    return exposure._replace(signal=np.where(valid, exposure.signal, 0),
                             valid=valid)


def drop_bands(rng, exposure):
    """
    Lose bands, of which the image is then known to have none.

    Parameters
    ----------
    rng : `numpy.random.Generator`
        What is drawn from.
    exposure : `~astrodino_seg.pretrain.camera.Exposure`
        Unchanged if it has one band.

    Returns
    -------
    exposure : `~astrodino_seg.pretrain.camera.Exposure`
        Some bands, not all, have no valid pixel.
    """
    valid = exposure.valid.copy()
    lost = _some(rng, len(valid))
    valid[lost] = False
    signal = exposure.signal.copy()
    signal[lost] = 0
    return exposure._replace(signal=signal, valid=valid)


def choose_bands(rng, exposure):
    """
    Keep some of the bands, as if no others had ever been taken.

    Parameters
    ----------
    rng : `numpy.random.Generator`
        What is drawn from.
    exposure : `~astrodino_seg.pretrain.camera.Exposure`
        Unchanged if it has one band.

    Returns
    -------
    exposure : `~astrodino_seg.pretrain.camera.Exposure`
        Of fewer bands, in the same order.
    """
    lost = _some(rng, len(exposure.signal))
    kept = np.setdiff1d(np.arange(len(exposure.signal)), lost)
    return exposure._replace(**{
        name: getattr(exposure, name)[kept] for name in (
            'signal', 'valid', 'variance', 'wavelengths')})


def _some(rng, n):
    """Between 1 and n - 1 of n numbers, or none of one."""
    return rng.choice(n, rng.integers(1, n) if n > 1 else 0, replace=False)
