# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
From an `~astrodino_seg.Image` to the network's input channels.

Per band: background and noise, then noise units. The bands, ordered by
wavelength, are folded into a fixed number of channels of unit noise, so that
the model takes any number of bands, and stretched with arcsinh. The same
functions serve training and inference; `PreprocessSpec` travels with the
weights.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

__all__ = ['Normalised', 'PreprocessSpec', 'background_mesh', 'band_weights',
           'bands_in_noise', 'fold', 'normalise', 'signal_to_noise']


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

    def to_dict(self):
        return asdict(self)


@dataclass(frozen=True)
class Normalised:
    """
    The network's input, and what it took to make it.

    Attributes
    ----------
    channels : `~numpy.ndarray`
        (channel, y, x) float32.
    background, noise : `~numpy.ndarray`
        (band, y, x) float32 in the image's unit. ``noise`` is ``inf`` in
        invalid pixels.
    """

    channels: np.ndarray
    background: np.ndarray
    noise: np.ndarray


def background_mesh(data, mask, box_size):
    """
    Clipped background and noise in boxes, free of large galaxies.

    In each box the pixels are clipped at 3 sigma about the median and the
    background is SExtractor's mode, 2.5 median - 1.5 mean, or the median
    where the two differ by more than 0.3 sigma (Bertin & Arnouts 1996,
    A&AS 117, 393). A box that lies on an object larger than itself is then
    too bright: boxes that exceed a plane, fitted from the darkest quarter of
    the boxes upwards, by more than 1.5 times the pixel noise are replaced
    from their neighbours. A quarter
    of the pixels of a box is read, which leaves the noise of the mesh at a
    few per cent of the pixel noise.

    Parameters
    ----------
    data : `~numpy.ndarray`
        2-D image.
    mask : `~numpy.ndarray`
        2-D bool, `True` where ``data`` is not to be used.
    box_size : int
        Side of the boxes in pixels.

    Returns
    -------
    background, rms : `~numpy.ndarray`
        2-D float64 arrays, one value a box; all zero if no box has data.
    """
    values = _boxes(data, mask, box_size)
    mode, rms, n = _clipped(values)
    n_needed = max(0.1 * values.shape[-1], 8)
    good = (n >= n_needed) & (rms > 0)
    if not good.any():
        return np.zeros(good.shape), np.zeros(good.shape)
    plane, kept = _lower_envelope(mode, rms, good)
    background = _fill(mode, kept, plane)
    typical = np.full(good.shape, np.median(rms[kept]))
    return background, _fill(rms, kept, typical)


def _boxes(data, mask, box_size):
    """(my, mx, pixels) sample of each box, NaN where masked."""
    ny, nx = data.shape
    my, mx = -(-ny // box_size), -(-nx // box_size)
    step = 2 if box_size >= 32 else 1
    full = np.full((my * box_size, mx * box_size), np.nan, np.float32)
    full[:ny, :nx] = np.where(mask, np.nan, data)
    if step == 2:      # every other pixel, rows staggered
        full = np.concatenate([full[0::4, 0::2], full[2::4, 1::2]], axis=1)
        return (full.reshape(my, box_size // 4, 2, mx, box_size // 2)
                .transpose(0, 3, 1, 2, 4).reshape(my, mx, -1))
    return (full.reshape(my, box_size, mx, box_size)
            .transpose(0, 2, 1, 3).reshape(my, mx, -1))


def _clipped(values, n_iterations=8):
    """Mode, standard deviation and count of the clipped last axis."""
    v = np.sort(values, axis=-1).astype(np.float64)     # NaN goes last
    hi = np.isfinite(v).sum(axis=-1)
    n_valid = hi.copy()
    lo = np.zeros_like(hi)
    v = np.where(np.isfinite(v), v, 0)
    centre = np.take_along_axis(v, (hi // 2)[..., None], -1)
    w = np.where(np.arange(v.shape[-1]) < hi[..., None], v - centre, 0)
    zero = np.zeros((*hi.shape, 1))
    s1 = np.concatenate([zero, np.cumsum(w, axis=-1)], axis=-1)
    s2 = np.concatenate([zero, np.cumsum(w**2, axis=-1)], axis=-1)

    def between(total):
        return (np.take_along_axis(total, hi[..., None], -1)
                - np.take_along_axis(total, lo[..., None], -1))[..., 0]

    for i in range(n_iterations + 1):
        n = np.maximum(hi - lo, 1)
        mean = between(s1) / n
        std = np.sqrt(np.maximum(between(s2) / n - mean**2, 0))
        mid = np.minimum((lo + hi) // 2, v.shape[-1] - 1)
        median = np.take_along_axis(w, mid[..., None], -1)[..., 0]
        if i == n_iterations:
            break
        valid = np.arange(v.shape[-1]) < n_valid[..., None]
        low, high = median - 3 * std, median + 3 * std
        lo = (valid & (w < low[..., None])).sum(axis=-1)
        hi = np.maximum((valid & (w <= high[..., None])).sum(axis=-1), lo)
    skewed = np.abs(mean - median) > 0.3 * std
    mode = np.where(skewed, median, 2.5 * median - 1.5 * mean)
    return mode + centre[..., 0], std, n_valid


def _lower_envelope(mode, rms, good):
    """A plane through the darkest boxes, and the boxes near it."""
    y, x = np.mgrid[:mode.shape[0], :mode.shape[1]]
    terms = [np.ones(mode.shape), x - x.mean(), y - y.mean()]
    design = np.stack(terms if good.sum() >= 24 else terms[:1], axis=-1)
    # start from the darkest quarter: a galaxy may fill all but the corners
    kept = good & (mode <= np.quantile(mode[good], 0.25))
    # a sky that was once flattened varies by less than this
    tolerance = 1.5 * np.quantile(rms[good], 0.1)
    for _ in range(4):
        coefficients = np.linalg.lstsq(design[kept], mode[kept], rcond=None)[0]
        plane = design @ coefficients
        kept = good & (mode < plane + tolerance)
    return plane, kept


def _fill(mesh, kept, fallback):
    """Smooth the kept boxes over their neighbours, else the fallback."""
    weight = gaussian_filter(kept.astype(float), 0.8, mode='nearest')
    value = gaussian_filter(np.where(kept, mesh, 0), 0.8, mode='nearest')
    return (value + 0.02 * fallback) / (weight + 0.02)


def _interpolation(n, n_boxes, box_size):
    """(n, n_boxes) matrix of bilinear interpolation from box centres."""
    centre = (np.arange(n) + 0.5) / box_size - 0.5
    centre = np.clip(centre, 0, n_boxes - 1)
    low = np.minimum(centre.astype(int), max(n_boxes - 2, 0))
    matrix = np.zeros((n, n_boxes), np.float32)
    matrix[np.arange(n), low] = 1 - (centre - low)
    if n_boxes > 1:
        matrix[np.arange(n), low + 1] = centre - low
    return matrix


def _background(data, mask, box_size, out):
    """Put background and rms of one band, (y, x) each, into ``out``."""
    ny, nx = data.shape
    side = int(min(box_size, max(16, min(ny, nx) // 4 // 4 * 4)))
    mesh = background_mesh(data, mask, side)
    my, mx = mesh[0].shape
    left, right = _interpolation(ny, my, side), _interpolation(nx, mx, side)
    for boxes, plane in zip(mesh, out):
        np.matmul(left @ boxes.astype(np.float32), right.T, out=plane)


def band_weights(n_bands, n_slots=3):
    """
    Weight of each band, ordered by wavelength, in each slot.

    Slot centres and bands are spread evenly over [0, 1]; a band enters a
    slot with a triangular weight of half-width 0.6. One band fills every
    slot; with as many bands as slots each slot is led by its own band.

    Parameters
    ----------
    n_bands, n_slots : int
        How many.

    Returns
    -------
    weights : `~numpy.ndarray`
        (slot, band) float32; the largest of each row is positive.
    """
    if n_bands == 1:
        return np.ones((n_slots, 1), np.float32)
    band = np.linspace(0, 1, n_bands)
    slot = np.linspace(0, 1, n_slots) if n_slots > 1 else np.array([0.5])
    weights = np.maximum(1 - np.abs(slot[:, None] - band) / 0.6, 0)
    return weights.astype(np.float32)


def bands_in_noise(image, spec, background, noise):
    """
    Yield S/N and validity band by band.

    Parameters
    ----------
    image : `~astrodino_seg.Image`
        The image.
    spec : `PreprocessSpec`
        How.
    background, noise : `~numpy.ndarray`
        (band, y, x) float32, to be filled; as of `Normalised`.

    Yields
    ------
    sn : `~numpy.ndarray`
        (y, x) float32, 0 where not valid.
    valid : `~numpy.ndarray`
        (y, x) bool.
    """
    def measure(b):
        _background(image.cube[b], image.mask[b], spec.box_size,
                    (background[b], noise[b]))

    with ThreadPoolExecutor(2) as pool:     # numpy lets others run
        for b, _ in enumerate(pool.map(measure, range(image.n_bands))):
            if image.noise is not None:
                noise[b] = image.noise[b]
            valid = ~image.mask[b] & (noise[b] > 0)
            noise[b][~valid] = np.inf
            sn = image.cube[b] - background[b]
            sn /= noise[b]
            yield sn, valid


def signal_to_noise(image, spec):
    """
    Subtract the background and divide by the noise, band by band.

    Parameters
    ----------
    image : `~astrodino_seg.Image`
        The image.
    spec : `PreprocessSpec`
        How.

    Returns
    -------
    sn : `~numpy.ndarray`
        (band, y, x) float32, 0 where not valid.
    valid : `~numpy.ndarray`
        (band, y, x) bool: neither masked nor without noise.
    """
    background, noise = np.empty((2, *image.cube.shape), np.float32)
    sn = np.empty_like(image.cube)
    valid = np.empty(sn.shape, bool)
    bands = bands_in_noise(image, spec, background, noise)
    for b, (values, good) in enumerate(bands):
        sn[b], valid[b] = values, good
    return sn, valid


def fold(bands, n_bands, spec):
    """
    Fold bands in units of their noise into the network's input channels.

    Parameters
    ----------
    bands : iterable of tuple
        For each band, in order of wavelength, its S/N, (y, x) float32 with 0
        where not valid, and where it is valid, (y, x) bool; the latter are
        kept until the last has come.
    n_bands : int
        How many there are.
    spec : `PreprocessSpec`
        How.

    Returns
    -------
    channels : `~numpy.ndarray`
        (channel, y, x) float32, as `normalise` says.
    """
    weights = np.vstack([np.ones((1, n_bands), np.float32),
                         band_weights(n_bands, spec.n_slots)])
    is_valid = []
    for b, (sn, valid) in enumerate(bands):
        if b == 0:
            channels = np.zeros((len(weights) + 1, *sn.shape), np.float32)
            slots, n_valid = channels[:-1], channels[-1]
            power, buffer = np.empty((2, *sn.shape), np.float32)
        n_valid += valid
        is_valid.append(valid)
        for k in np.flatnonzero(weights[:, b]):
            slots[k] += np.multiply(sn, weights[k, b], out=buffer)
    for k, slot in enumerate(slots):
        power[:] = 0
        for b in np.flatnonzero(weights[k]):
            power += np.multiply(is_valid[b], weights[k, b]**2, out=buffer)
        empty = power == 0              # the sum of the bands is 0 there too
        power[empty] = 1
        slot /= np.sqrt(power, out=power)
        if k > 0 and empty.any():
            np.copyto(slot, slots[0], where=empty)
    slots /= spec.softening
    for slot in slots:
        _arcsinh(slot, buffer)
    n_valid /= n_bands
    return channels


def _arcsinh(values, buffer):
    """
    In place, by a logarithm, which numpy has much faster than its arcsinh.

    What is lost near 0 is 1e-7 of the noise.
    """
    np.clip(values, -1e18, 1e18, out=values)    # squares are finite
    np.square(values, out=buffer)
    buffer += 1
    np.sqrt(buffer, out=buffer)
    buffer += np.abs(values)
    np.copysign(np.log(buffer, out=buffer), values, out=values)


def normalise(image, spec):
    """
    Make the network's input channels.

    Parameters
    ----------
    image : `~astrodino_seg.Image`
        The image, bands in order of wavelength.
    spec : `PreprocessSpec`
        How.

    Returns
    -------
    normalised : `Normalised`
        Channels: the optimal combination of all bands for a flat spectrum
        in S/N, then the slots from blue to red, each with unit noise and
        arcsinh-stretched, then the fraction of bands that are valid. A slot
        without a valid band takes the combination's value.
    """
    background = np.empty_like(image.cube)
    noise = np.empty_like(image.cube)
    bands = bands_in_noise(image, spec, background, noise)
    return Normalised(fold(bands, image.n_bands, spec), background, noise)
