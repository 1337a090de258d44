# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Observe an image again: with other pixels, another PSF, turned, at any scale.
Everything works on an `Exposure`: bands in units of the noise of the image
that is being made. What happens to the light happens to its noise, whose
variance is kept; `fill_noise` then adds white noise once, up to a variance of
1. The noise is the sky's; that of the sources' own photons is neglected.
Shapes in comments: ``B`` bands, ``N`` pixels in, ``S`` pixels out.
"""

import math
from typing import NamedTuple

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.ndimage import gaussian_filter1d

from astrodino_seg.image.filters import wavelength
from astrodino_seg.inputs.channels import signal_to_noise
from astrodino_seg.simulate.scene import log_uniform, turned

# Fitzpatrick 1999, PASP 111, 63, Table 3: A / E(B-V) for R_V = 3.1
_F99 = CubicSpline(
    [0, 1 / 2.65, 1 / 1.22, 1 / .6, 1 / .547, 1 / .467, 1 / .411, 1 / .27,
     1 / .26],
    [0, .265, .829, 2.688, 3.055, 3.806, 4.315, 6.265, 6.591],
    bc_type='natural')
BLOCK = 16              # pixels


class Exposure(NamedTuple):
    """
    Light and noise of a few bands on one pixel grid: (band, y, x) ``signal``
    in units of the noise to be, and ``valid``; ``variance`` (band, y, x) or
    (band, 1, 1) of the noise in it; ``grain``, width in pixels of the Gaussian
    that would make white noise as correlated; ``wavelengths`` (band,) in
    micron, NaN where not known.
    """

    signal: np.ndarray
    valid: np.ndarray
    variance: np.ndarray
    grain: float
    wavelengths: np.ndarray


def resample(exposure, start, scale, size, *, sigma=None):
    """
    Observe again: a broader PSF, of ``sigma`` (band,), and a square of larger
    or smaller pixels from ``start`` (y, x). Light in units of the noise of the
    sky is multiplied by the side of the pixels; values are means over these,
    or interpolated where they are smaller.
    """
    shape = exposure.signal.shape[1:]
    scale = float(scale)        # a numpy number would make all float64
    first = [round(one) for one in start]
    if scale == 1 and sigma is None and all(
            one == whole and 0 <= whole <= n - size
            for one, whole, n in zip(start, first, shape)):
        y, x = (slice(one, one + size) for one in first)
        return exposure._replace(signal=exposure.signal[:, y, x],
                                 valid=exposure.valid[:, y, x])
    grid = [_overlap(n, one, scale, size) for n, one in zip(shape, start)]
    rows, columns = grid if sigma is None else [
        _broadened(one, sigma) for one in grid]              # (B, S, N)
    value = rows @ exposure.signal @ np.swapaxes(columns, -1, -2)
    if exposure.valid.all():
        share = np.outer(*(one.sum(axis=1) for one in grid))[None]
        valid = np.repeat(share > 0.5, len(value), axis=0)
    else:
        mask = exposure.valid.astype(np.float32)
        share = rows @ mask @ np.swapaxes(columns, -1, -2)
        # a broader PSF does not fill gaps
        valid = (share if sigma is None else
                 grid[0] @ mask @ grid[1].T) > 0.5
    share = np.maximum(share, 0.1)
    noise = (_energy(rows, exposure.grain)[..., :, None]
             * _energy(columns, exposure.grain)[..., None, :])
    width = 0 if sigma is None else np.mean(sigma)
    return exposure._replace(
        signal=np.where(valid, value * (scale / share), 0),
        valid=valid, variance=exposure.variance * noise * (scale**2 / share),
        grain=float(np.hypot(width, exposure.grain)) / scale)


def _overlap(n, start, scale, size):
    """
    (size, n) share of each old pixel in each new one, along one axis; small
    pixels are widened to old ones, which is linear interpolation.
    """
    middle = float(start) + scale * (
        np.arange(size, dtype=np.float32)[:, None] + 0.5)
    half = np.float32(max(scale, 1) / 2)
    edge = np.arange(n, dtype=np.float32) - middle
    overlap = np.minimum(edge + 1, half) - np.maximum(edge, -half)
    return np.maximum(overlap, 0) / (2 * half)


def _broadened(grid, sigma):
    """(B, S, N) weights through a Gaussian; each row keeps its sum."""
    out = np.stack([gaussian_filter1d(grid, one, axis=1, mode='constant')
                    for one in sigma])
    total = out.sum(axis=-1, keepdims=True)
    return out * (grid.sum(axis=1, keepdims=True)
                  / np.where(total > 0, total, 1))


def _energy(weights, grain):
    """Variance that weights along one axis leave of unit noise."""
    out = np.einsum('...j,...j', weights, weights)
    if grain > 0.3:
        for lag in range(1, min(int(4 * grain) + 2, weights.shape[-1])):
            out += 2 * math.exp(-lag**2 / (4 * grain**2)) * np.einsum(
                '...j,...j', weights[..., lag:], weights[..., :-lag])
    return out


def turn(rng, exposure):
    """One of the eight flips and quarter turns."""
    k = int(rng.integers(8))
    return exposure._replace(**{name: turned(getattr(exposure, name), k)
                                for name in ('signal', 'valid', 'variance')})


def rotate(exposure, angle, size):
    """Turn by any angle about the middle, and keep the middle."""
    n = exposure.signal.shape[-1]
    offset = np.arange(size) - (size - 1) / 2
    cos, sin = np.cos(angle), np.sin(angle)
    y = (n - 1) / 2 + cos * offset[:, None] - sin * offset
    x = (n - 1) / 2 + sin * offset[:, None] + cos * offset
    inside = (y > -1) & (y < n) & (x > -1) & (x < n)
    y, x = np.clip([y, x], 0, n - 1 - 1e-4)
    iy, ix = y.astype(int), x.astype(int)
    fy, fx = (y - iy).astype(np.float32), (x - ix).astype(np.float32)
    corners = [(iy * n + ix, (1 - fy) * (1 - fx)),
               (iy * n + ix + 1, (1 - fy) * fx),
               (iy * n + ix + n, fy * (1 - fx)),
               (iy * n + ix + n + 1, fy * fx)]

    def interpolated(array):
        flat = array.reshape(len(array), -1)
        return sum(weight * flat.take(where, axis=1)
                   for where, weight in corners)

    share = (interpolated(exposure.valid) if not exposure.valid.all()
             else np.ones((1, size, size), np.float32)) * inside
    valid = np.broadcast_to(share > 0.5, (len(exposure.signal), size, size))
    share = np.maximum(share, 0.5)
    variance = exposure.variance.mean(axis=(1, 2), keepdims=True)
    alike = (math.exp(-1 / (4 * exposure.grain**2)) if exposure.grain > 0.3
             else 0)
    kept = 1
    for f in (fy, fx):
        kept = kept * (1 - 2 * f * (1 - f) * (1 - alike))
    return exposure._replace(
        signal=np.where(valid, interpolated(exposure.signal) / share, 0),
        valid=valid, variance=variance * (kept / share))


def fill_noise(rng, exposure):
    """Add white noise, up to a variance of 1."""
    variance = exposure.variance
    missing = np.sqrt(np.maximum(1 - variance, 0), dtype=np.float32)
    signal = exposure.signal
    if variance.max() > 1:
        signal = signal / np.sqrt(np.maximum(variance, 1))
    if missing.max() > 0.01:
        noise = rng.standard_normal(signal.shape, np.float32)
        noise *= missing
        noise += signal
        signal = noise
    if not exposure.valid.all():
        signal = np.where(exposure.valid, signal, 0)
    return exposure._replace(signal=signal, variance=np.ones(
        (len(signal), 1, 1), np.float32))


def extinction(wavelengths):
    """
    Galactic extinction per reddening, A / E(B-V), for R_V = 3.1 (Fitzpatrick
    1999, PASP 111, 63, Table 3; confirmed by Schlafly & Finkbeiner 2011).
    """
    return _F99(1 / np.maximum(wavelengths, 0.26))


def redden(rng, exposure, *, ebv=(0.0, 0.25)):
    """
    Put the objects behind more Galactic dust, E(B-V) in magnitudes, unless a
    wavelength is not known. The median over the Legacy Surveys is 0.03.
    """
    if np.isnan(exposure.wavelengths).any():
        return exposure
    gain = 10**(-0.4 * rng.uniform(*ebv) * extinction(exposure.wavelengths))
    return _dim(exposure, gain)


def lower_depth(rng, exposure, *, factor=(1.0, 4.0), scatter=1.25):
    """
    Raise the noise of the sky by a factor, and each band by up to 0.24
    magnitudes more, about as it varies over the Legacy Surveys (Stein et al.
    2021).
    """
    n_bands = len(exposure.signal)
    ratio = (log_uniform(rng, *factor)
             * log_uniform(rng, 1, scatter, n_bands))
    return _dim(exposure, 1 / ratio)


def _dim(exposure, gain):
    """Multiply each band, its noise included."""
    gain = gain.astype(np.float32)[:, None, None]
    return exposure._replace(signal=exposure.signal * gain,
                             variance=exposure.variance * gain**2)


def psf_sigma(rng, n_bands, *, sigma=(0.5, 2.0), scatter=1.2):
    """Draw by how much the PSF is to be broadened: (band,) sigma in pixels."""
    return (rng.uniform(*sigma)
            * log_uniform(rng, 1 / scatter, scatter, n_bands))


def offset_sky(rng, exposure, *, level=0.15):
    """
    Leave some of the background, or take too much: a plane, in units of the
    noise.
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
    Lose rows or columns, in one band or all: gaps between chips, dead columns,
    edges.
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
    """Lose bands, of which the image is then known to have none."""
    valid = exposure.valid.copy()
    lost = _some(rng, len(valid))
    valid[lost] = False
    signal = exposure.signal.copy()
    signal[lost] = 0
    return exposure._replace(signal=signal, valid=valid)


def choose_bands(rng, exposure):
    """Keep some of the bands, as if no others had ever been taken."""
    lost = _some(rng, len(exposure.signal))
    kept = np.setdiff1d(np.arange(len(exposure.signal)), lost)
    return exposure._replace(**{
        name: getattr(exposure, name)[kept] for name in (
            'signal', 'valid', 'variance', 'wavelengths')})


def _some(rng, n):
    """Between 1 and n - 1 of n numbers, or none of one."""
    return rng.choice(n, rng.integers(1, n) if n > 1 else 0, replace=False)


def expose(image, spec):
    """Bring an image into units of its noise, once for all of its views."""
    sn, valid, sigma = signal_to_noise(image, spec)
    waves = [wavelength(name) for name in image.bands]
    return Exposure(sn, valid, sigma[:, None, None]**2,
                    _grain(sn, valid),
                    np.array([np.nan if w is None else w for w in waves]))


def _grain(sn, valid):
    """How far noise is correlated; see `Exposure`."""
    grains = [0.0]
    for values, good in zip(sn, valid):
        step = max(round((good.sum() / 1e5)**0.5), 1)
        for v, g in ((values, good), (values.T, good.T)):
            spread = []
            for lag in (1, 8):      # differences take the light away
                near, far = slice(None, -lag), slice(lag, None)
                both = (g[::step, near] & g[::step, far])
                change = (v[::step, near] - v[::step, far])[both]
                spread.append(np.median(np.abs(change)) if len(change) > 99
                              else 0)
            if min(spread) > 0:
                alike = np.clip(1 - (spread[0] / spread[1])**2, 1e-9, 0.9)
                grains.append(0.5 / np.sqrt(-np.log(alike)))
    return float(np.median(grains[1:] or grains))


def bright_blocks(exposure):
    """Where something shines: (n, 2) y and x, and (n,) weights."""
    n_valid = exposure.valid.sum(axis=0)
    sn = exposure.signal.sum(axis=0) / np.sqrt(np.maximum(n_valid, 1))
    ny, nx = (n // BLOCK for n in sn.shape)
    blocks = sn[:ny * BLOCK, :nx * BLOCK].reshape(ny, BLOCK, nx, BLOCK)
    excess = blocks.sum(axis=(1, 3)) / BLOCK - 5
    found = np.argwhere(excess > 0)
    return (found + 0.5) * BLOCK, np.arcsinh(excess[tuple(found.T)])
