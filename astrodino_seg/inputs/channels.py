# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
From an `~astrodino_seg.Image` to the network's input channels. Bands in units
of their noise, ordered by wavelength, are folded into a fixed number of
channels of unit noise, so that the model takes any number of bands, and
stretched with arcsinh, by the same functions in training and inference.
"""

import warnings
from dataclasses import dataclass

import numpy as np

from astrodino_seg.errors import AstroDinoUserWarning
from astrodino_seg.inputs.background import (
    SIDES,
    correlation,
    measure_background,
    noise_of_sums,
)

#: Pixels that are worked on at a time: so many stay in the cache.
IN_CACHE = 2**15


@dataclass(frozen=True)
class PreprocessSpec:
    """
    What a model's input was made with.

    Parameters
    ----------
    box_size : int, optional
        Side of the background boxes in pixels; a quarter of the image's
        shorter side if that is less, and never less than 16.
    n_slots : int, optional
        Number of wavelength slots that the bands are folded into.
    softening : float, optional
        S/N per pixel below which the arcsinh stretch is linear.
    """

    box_size: int = 64
    n_slots: int = 3
    softening: float = 1.0

    def __post_init__(self):
        if self.box_size < 16 or self.box_size % 4:
            msg = ('box_size must be a multiple of 4, 16 or more, got '
                   f'{self.box_size!r}')
            raise ValueError(msg)
        for name in ('n_slots', 'softening'):
            if not getattr(self, name) > 0:
                msg = f'{name} must be positive, got {getattr(self, name)!r}'
                raise ValueError(msg)

    @property
    def n_channels(self):
        """Detection channel, wavelength slots, valid fraction."""
        return self.n_slots + 2


@dataclass(frozen=True)
class Normalised:
    """The network's input, and what it took to make it."""

    #: (channel, y, x) float32.
    channels: np.ndarray
    #: (band, y, x) float32 in the image's unit. ``noise`` is ``inf`` in
    #: invalid pixels.
    background: np.ndarray
    noise: np.ndarray
    #: (band, n) float64, how much larger the noise of the sum over a square of
    #: `~astrodino_seg.inputs.background.SIDES` pixels is than if these were
    #: independent.
    correlation: np.ndarray


def band_weights(n_bands, n_slots=3):
    """
    Weight (slot, band) float32 of each band, ordered by wavelength, in each
    slot: triangular, of half-width 0.6, bands and slots being spread evenly
    over [0, 1]. One band fills every slot; as many as slots lead one each.
    """
    if n_bands == 1:
        return np.ones((n_slots, 1), np.float32)
    band = np.linspace(0, 1, n_bands)
    slot = np.linspace(0, 1, n_slots) if n_slots > 1 else np.array([0.5])
    weights = np.maximum(1 - np.abs(slot[:, None] - band) / 0.6, 0)
    return weights.astype(np.float32)


def bands_in_noise(image, spec, background, noise, *, objects=None,
                   given=None, factors_of=None):
    """
    Iterate over (y, x) S/N and validity of bands; (band, y, x) background and
    noise, and (band, n) ``factors_of``, are filled.
    """
    def in_noise(b):
        if image.noise is not None:
            noise[b] = image.noise[b]
        valid = ~image.mask[b] & (noise[b] > 0)
        np.copyto(noise[b], np.inf, where=~valid)
        sn = image.cube[b] - background[b]
        sn /= noise[b]
        factors = correlation(sn, valid if objects is None
                              else valid & ~objects)
        if factors_of is not None:
            factors_of[b] = factors
        sn /= np.float32(noise_of_sums(factors))
        return sn, valid

    return measure_background(image, spec.box_size, background, noise,
                              objects=objects, given=given, then=in_noise)


def signal_to_noise(image, spec):
    """
    (band, y, x) S/N and validity of an image, and (band,) sigma of its noise
    in their units.
    """
    background, noise = np.empty((2, *image.cube.shape), np.float32)
    sn = np.empty_like(image.cube)
    valid = np.empty(sn.shape, bool)
    factors = np.ones((image.n_bands, len(SIDES)))
    bands = bands_in_noise(image, spec, background, noise, factors_of=factors)
    for b, (values, good) in enumerate(bands):
        sn[b], valid[b] = values, good
    sigma = [1 / noise_of_sums(one) for one in factors]
    return sn, valid, np.array(sigma, np.float32)


def fold(bands, n_bands, spec):
    """Fold bands in units of their noise into (channel, y, x) float32."""
    weights = np.vstack([np.ones((1, n_bands), np.float32),
                         band_weights(n_bands, spec.n_slots)])
    is_valid = []
    for b, (sn, valid) in enumerate(bands):
        if b == 0:
            channels = np.zeros((len(weights) + 1, *sn.shape), np.float32)
            parts = parts_of(sn.shape)
            buffers = np.empty((2, *sn[parts[0]].shape), np.float32)
        is_valid.append(valid)
        for rows in parts:
            *slots, n_valid = channels[:, rows]
            n_valid += valid[rows]
            buffer = buffers[0, :len(n_valid)]
            for k in np.flatnonzero(weights[:, b]):
                slots[k] += np.multiply(sn[rows], weights[k, b], out=buffer)
    for rows in parts:
        *slots, n_valid = channels[:, rows]
        power, buffer = buffers[:, :len(n_valid)]
        whole = n_valid.min() == n_bands
        for k, slot in enumerate(slots):
            if whole:               # one number for all, in the same order
                slot /= np.sqrt(sum(weights[k]**2, np.float32(0)))
                continue
            power[:] = 0
            for b in np.flatnonzero(weights[k]):
                power += np.multiply(is_valid[b][rows], weights[k, b]**2,
                                     out=buffer)
            empty = power == 0          # the sum of the bands is 0 there too
            power[empty] = 1
            slot /= np.sqrt(power, out=power)
            if k > 0 and empty.any():
                np.copyto(slot, slots[0], where=empty)
        for slot in slots:
            slot /= spec.softening
            _arcsinh(slot, buffer)
        n_valid /= n_bands
    return channels


def parts_of(shape, least=1):
    """Rows (y, x) that stay in the cache, as slices of whole ``least``."""
    step = max(IN_CACHE // max(shape[1], 1) // least, 1) * least
    return [slice(k, k + step) for k in range(0, shape[0], step)]


def _arcsinh(values, buffer):
    """
    In place, by a logarithm, which numpy has much faster than its arcsinh;
    what is lost near 0 is 1e-7 of the noise.
    """
    np.clip(values, -1e18, 1e18, out=values)    # squares are finite
    np.square(values, out=buffer)
    buffer += 1
    np.sqrt(buffer, out=buffer)
    buffer += np.abs(values)
    np.copysign(np.log(buffer, out=buffer), values, out=values)


def normalise(image, spec, *, objects=None, background=None):
    """Make the network's input channels; ``objects`` (y, x) are no sky."""
    sky, noise = np.empty((2, *image.cube.shape), np.float32)
    factors = np.ones((image.n_bands, len(SIDES)))
    bands = bands_in_noise(image, spec, sky, noise, objects=objects,
                           given=background, factors_of=factors)
    return Normalised(channels=fold(bands, image.n_bands, spec),
                      background=sky, noise=noise, correlation=factors)


def detection_channel(image, background, noise, factors_of):
    """
    The first channel of `normalise`, (y, x) float32, of the background, noise
    (band, y, x) and correlation (band, n) that it gave.
    """
    bands = (((image.cube[b] - background[b]) / noise[b]
              / np.float32(noise_of_sums(factors_of[b])),
              np.isfinite(noise[b])) for b in range(image.n_bands))
    return fold(bands, image.n_bands, PreprocessSpec(n_slots=1))[0]


def oversampling(channels, softening=1.0):
    """
    The binning at which channels (C, y, x) have structure from pixel to pixel.
    """
    factor, limit = 1, 0.3
    while min(channels.shape[1:]) >= 128:
        sn = softening * np.sinh(channels[0])
        valid = channels[-1] > 0
        steps = [(sn[:, 1:] - sn[:, :-1])[valid[:, 1:] & valid[:, :-1]],
                 (sn[1:] - sn[:-1])[valid[1:] & valid[:-1]]]
        steps = np.abs(np.concatenate([step[::7] for step in steps]))
        if len(steps) == 0 or 1.4826 * np.median(steps) > limit * 2**0.5:
            break
        channels, factor, limit = bin_channels(channels, 2), 2 * factor, 0.5
    return factor


def bin_channels(channels, factor, n_noise=None):
    """
    Mean S/N of blocks of pixels of channels (C, y, x); the far edges are
    padded to whole blocks.
    """
    if factor == 1:
        return channels
    # imported here: all else of this folder does without
    import torch
    from torch.nn import functional as F

    n = len(channels)
    last = (n if n_noise is None else n_noise) - 1      # the valid fraction
    ny, nx = (-(-side // factor) for side in channels.shape[1:])
    binned = np.empty((n, ny, nx), np.float32)
    for rows in parts_of(channels.shape[1:], factor):
        for k, plane in enumerate(channels[:, rows]):
            if k < last:        # sinh, which is made much faster of exp
                plane = np.exp(plane)
                plane = (plane - 1 / plane) / 2
            edges = [(0, -side % factor) for side in plane.shape]
            if any(map(sum, edges)):
                plane = np.pad(plane, edges, mode='edge')
            plane = torch.from_numpy(np.ascontiguousarray(plane))
            means = F.avg_pool2d(plane[None], factor)[0].numpy()
            start = rows.start // factor
            binned[k, start:start + len(means)] = (
                np.arcsinh(means) if k < last else means)
    return binned


def tell_no_noise(image, noise):
    """
    Warn if the noise (band, y, x) of a band was measured and is 0; whether it
    was of all.
    """
    names = [band for band, values, bad, sigma in zip(
        image.bands, image.cube, image.mask, noise)
        if not np.isfinite(sigma).any() and not bad.all()
        and np.ptp(values[~bad]) > 0]
    if not names:
        return False
    msg = (f'the noise of {", ".join(names)} is 0 where it is measured, as '
           f'most pixels have one value, and the band is not used: pass '
           f'error=')
    if min(image.shape) == 1:
        msg = (f'the noise of {", ".join(names)} cannot be measured in '
               f'{image.shape[0]} x {image.shape[1]} pixels: pass error=, or '
               f'reshape the data to (y, x) if they are an image')
    warnings.warn(msg, AstroDinoUserWarning)
    return not np.isfinite(noise).any()


def rgb_image(image, background=None, noise=None, *, stretch=None, q=8):
    """
    A colour picture, bluest bands blue (Lupton et al. 2004, PASP 116, 133).

    Parameters
    ----------
    image : `~astrodino_seg.Image`
        The image; one band gives a grey picture.
    background, noise : `~numpy.ndarray`, optional
        (band, y, x) as in `~astrodino_seg.SegmentationResult`; estimated
        from each band's quantiles if `None`.
    stretch : float, optional
        The S/N at which the stretch turns from linear to logarithmic;
        chosen from the image if `None`.
    q : float, optional
        Softening of the stretch.

    Returns
    -------
    rgb : `~numpy.ndarray`
        (y, x, 3) uint8.
    """
    from astropy.visualization import make_lupton_rgb  # takes matplotlib

    sn = np.empty_like(image.cube)
    for b, (band, bad) in enumerate(zip(image.cube, image.mask)):
        if background is None or noise is None:
            good = band[~bad] if (~bad).any() else np.zeros(1)
            low, mid = np.percentile(good, [15.87, 50])
            # where most pixels are equal, their quantiles have no width
            value = (band - mid) / (
                (mid - low) or good.std(dtype=float) or 1)
        else:
            value = (band - background[b]) / noise[b]
        sn[b] = np.where(bad, 0, value)
    weights = band_weights(image.n_bands, 3)
    weights = weights / weights.sum(axis=1, keepdims=True)
    blue, green, red = np.tensordot(weights, sn, axes=1)
    if stretch is None:
        high = np.percentile((blue + green + red) / 3, 99)
        stretch = float(np.clip(high, 3, 60))
    with np.errstate(invalid='ignore'):     # of 0 / 0, which it sets to 0
        return make_lupton_rgb(red, green, blue, minimum=-1, stretch=stretch,
                               Q=q)
