# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Observe an image again: with other pixels, another PSF, turned, at any scale.

Everything works on an `Exposure`: bands in units of the noise of the image
that is being made. What happens to the light happens to the noise that it
brings along, whose variance is kept. `fill_noise` then adds white noise once,
up to a variance of 1: the same as if each step had added its own in
quadrature, at the cost of one draw. The noise is the sky's; that of the
sources' own photons is neglected. Shapes in comments: ``B`` bands, ``N``
pixels in, ``S`` pixels out.
"""

import math
from typing import NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter1d

__all__ = ['Exposure', 'fill_noise', 'resample', 'rotate', 'turn']


class Exposure(NamedTuple):
    """
    Light and noise of a few bands on one pixel grid.

    Attributes
    ----------
    signal : `~numpy.ndarray`
        (band, y, x) float32, in units of the noise to be; 0 where not valid.
    valid : `~numpy.ndarray`
        (band, y, x) bool.
    variance : `~numpy.ndarray`
        (band, y, x) or (band, 1, 1) float32, of the noise in ``signal``.
    grain : float
        Width in pixels of the Gaussian that would have to smooth white noise
        to make it as correlated as this noise.
    wavelengths : `~numpy.ndarray`
        (band,) in micron; NaN where not known.
    """

    signal: np.ndarray
    valid: np.ndarray
    variance: np.ndarray
    grain: float
    wavelengths: np.ndarray


def resample(exposure, start, scale, size, *, sigma=None):
    """
    Observe again: a broader PSF, and a square of larger or smaller pixels.

    The noise of the sky in a pixel is as the root of its area, so that light
    in units of that noise is multiplied by the side of the pixels. Values are
    means over the new pixels, or interpolated where these are smaller.

    Parameters
    ----------
    exposure : `Exposure`
        With one variance a band.
    start : tuple of float
        (y, x) of the lower corner of the square, in pixels from the lower
        corner of the first pixel.
    scale : float
        Side of the new pixels in old ones.
    size : int
        Number of new pixels along a side.
    sigma : `~numpy.ndarray`, optional
        (band,) widths in old pixels of the Gaussians that the light is
        convolved with.

    Returns
    -------
    exposure : `Exposure`
        Of ``size`` by ``size`` pixels; those with less than half of their
        area on valid pixels are not valid.
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
    (size, n) share of each old pixel in each new one, along one axis.

    Small pixels are widened to old ones, which is linear interpolation.
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
    """
    One of the eight flips and quarter turns.

    Parameters
    ----------
    rng : `numpy.random.Generator`
        What is drawn from.
    exposure : `Exposure`
        Square.

    Returns
    -------
    exposure : `Exposure`
        The same pixels elsewhere.
    """
    k = int(rng.integers(8))

    def turned(array):
        array = np.rot90(array, k % 4, axes=(1, 2))
        return array[:, :, ::-1] if k >= 4 else array

    return exposure._replace(**{name: turned(getattr(exposure, name))
                                for name in ('signal', 'valid', 'variance')})


def rotate(exposure, angle, size):
    """
    Turn by any angle about the middle, and keep the middle.

    Parameters
    ----------
    exposure : `Exposure`
        Square.
    angle : float
        In radians, from x to y.
    size : int
        Side of what is kept, in pixels.

    Returns
    -------
    exposure : `Exposure`
        Of ``size`` by ``size`` pixels, interpolated linearly; pixels with
        less than half of their weight on valid ones are not valid.
    """
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
    """
    Add white noise, up to a variance of 1.

    Parameters
    ----------
    rng : `numpy.random.Generator`
        What is drawn from.
    exposure : `Exposure`
        Where its variance is above 1, it is divided by the root of that.

    Returns
    -------
    exposure : `Exposure`
        Of unit noise.
    """
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
