# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The background of each band, and its noise; and threshold and background that
are given, as photutils means them, for several bands.
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from astropy import units as u
from scipy.ndimage import gaussian_filter

#: Share of a box, and pixels, that must be left when objects are masked.
LEAST_SHARE, LEAST_PIXELS = 0.1, 8
#: Pixels of images that are measured sooner than a thread is started.
SMALL = 256**2
#: Sides of the squares whose sums tell how the noise is correlated, in pixels,
#: and how many squares are needed.
SIDES = 1, 2, 4, 8, 16
LEAST_SQUARES = 50
#: The side that stands for all in units of the noise: beyond it, faint sources
#: and the background are as large as the correlation of resampled pixels. Less
#: than this is as for white noise.
TYPICAL, WHITE = 4, 1.15


def background_mesh(data, mask, box_size, *, objects=None):
    """
    Clipped background and noise in boxes, free of large galaxies. In each box,
    of which a quarter of the pixels is read, these are clipped at 3 sigma
    about the median and the background is SExtractor's mode, 2.5 median - 1.5
    mean, or the median where the two differ by more than 0.3 sigma (Bertin &
    Arnouts 1996, A&AS 117, 393). Boxes that exceed a plane, fitted from the
    darkest quarter of the boxes upwards, by more than 1.5 times the pixel
    noise lie on objects and are replaced from their neighbours.
    """
    unused = mask if objects is None else mask | objects
    values = _boxes(data, unused, box_size)
    mode, rms, n = _clipped(values)
    n_needed = max(LEAST_SHARE * values.shape[-1], LEAST_PIXELS)
    good = (n >= n_needed) & (rms > 0)
    if not good.any():
        if objects is not None:
            return background_mesh(data, mask, box_size)
        return np.zeros(good.shape), np.zeros(good.shape)
    # a galaxy may fill all but the corners, unless it is masked
    plane, kept = _lower_envelope(mode, rms, good,
                                  0.25 if objects is None else 0.5)
    background = _fill(mode, kept, plane)
    typical = np.full(good.shape, np.median(rms[kept]))
    return background, _fill(rms, kept, typical)


def _boxes(data, mask, box_size):
    """(my, mx, pixels) sample of each box, NaN where masked."""
    ny, nx = data.shape
    my, mx = -(-ny // box_size), -(-nx // box_size)
    if box_size < 32:
        full = np.full((my * box_size, mx * box_size), np.nan, np.float32)
        full[:ny, :nx] = np.where(mask, np.nan, data)
        return (full.reshape(my, box_size, mx, box_size)
                .transpose(0, 2, 1, 3).reshape(my, mx, -1))
    rows, columns = my * box_size // 4, mx * box_size // 2
    full = np.full((rows, 2, columns), np.nan, np.float32)
    for k in range(2):      # every other pixel, rows staggered
        part = np.s_[2 * k::4, k::2]
        values = np.where(mask[part], np.nan, data[part])
        full[:values.shape[0], k, :values.shape[1]] = values
    return (full.reshape(my, box_size // 4, 2, mx, box_size // 2)
            .transpose(0, 3, 1, 2, 4).reshape(my, mx, -1))


def _clipped(values, n_iterations=8):
    """Mode, standard deviation and count of the clipped last axis."""
    v = np.sort(values, axis=-1).astype(np.float64)     # NaN goes last
    n_valid = np.isfinite(v).sum(axis=-1)
    lo, hi = np.zeros_like(n_valid), n_valid
    unused = np.arange(v.shape[-1]) >= n_valid[..., None]
    v[unused] = 0
    centre = np.take_along_axis(v, (hi // 2)[..., None], -1)
    v -= centre
    v[unused] = 0
    sums = np.zeros((2, *hi.shape, v.shape[-1] + 1))
    np.cumsum(v, axis=-1, out=sums[0, ..., 1:])
    np.cumsum(v**2, axis=-1, out=sums[1, ..., 1:])

    def between(total):
        return _at(total, hi) - _at(total, lo)

    for i in range(n_iterations + 1):
        n = np.maximum(hi - lo, 1)
        mean = between(sums[0]) / n
        std = np.sqrt(np.maximum(between(sums[1]) / n - mean**2, 0))
        median = _at(v, np.minimum((lo + hi) // 2, v.shape[-1] - 1))
        if i == n_iterations:
            break
        before = lo, hi
        lo = _rank(v, n_valid, median - 3 * std, np.less)
        hi = np.maximum(_rank(v, n_valid, median + 3 * std, np.less_equal),
                        lo)
        if (lo == before[0]).all() and (hi == before[1]).all():
            break
    skewed = np.abs(mean - median) > 0.3 * std
    mode = np.where(skewed, median, 2.5 * median - 1.5 * mean)
    return mode + centre[..., 0], std, n_valid


def _at(values, index):
    """One of the last axis each."""
    n = values.shape[-1]
    first = np.arange(0, values.size, n).reshape(index.shape)
    return values.reshape(-1)[first + index]


def _rank(values, n, limit, is_below):
    """How many of the first n of the last axis, sorted, are below a limit."""
    low, high = np.zeros_like(n), n
    while (search := low < high).any():
        middle = (low + high) >> 1
        value = _at(values, np.minimum(middle, values.shape[-1] - 1))
        below = is_below(value, limit) & search
        low, high = (np.where(below, middle + 1, low),
                     np.where(below, high, middle))
    return low


def _lower_envelope(mode, rms, good, share):
    """A plane through the darkest boxes, and the boxes near it."""
    y, x = np.mgrid[:mode.shape[0], :mode.shape[1]]
    terms = [np.ones(mode.shape), x - x.mean(), y - y.mean()]
    design = np.stack(terms if good.sum() >= 24 else terms[:1], axis=-1)
    kept = good & (mode <= np.quantile(mode[good], share))
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


def measure_background(image, box_size, background, noise, *, objects=None,
                       given=None, then=int):
    """
    Measure the background and the noise (band, y, x) of each band, beside
    ``objects`` (y, x); yields what ``then`` gives for the number of each.
    """
    ny, nx = image.cube.shape[1:]
    side = int(min(box_size, max(16, min(ny, nx) // 4 // 4 * 4)))

    def measure(b):
        mesh = background_mesh(image.cube[b], image.mask[b], side,
                               objects=objects)
        my, mx = mesh[0].shape
        left = _interpolation(ny, my, side)
        right = _interpolation(nx, mx, side).T
        for boxes, plane in zip(mesh, (background[b], noise[b])):
            np.matmul(left @ boxes.astype(np.float32), right, out=plane)
        if isinstance(given, str):
            background[b] = 0 if given == 'none' else np.median(mesh[0])
        elif given is not None:
            background[b] = given[b] if np.ndim(given) == 3 else given
        return then(b)

    if ny * nx < SMALL:
        yield from map(measure, range(image.n_bands))
        return
    with ThreadPoolExecutor(2) as pool:     # numpy lets others run
        yield from pool.map(measure, range(image.n_bands))


def correlation(sn, is_sky):
    """
    How much larger the noise of a sum is than that of independent pixels, (n,)
    by `SIDES`, of (y, x) S/N and ``is_sky``.
    """
    sn, whole, factors = np.where(is_sky, sn, 0), is_sky, [1.0]
    for side in SIDES[1:]:      # each is twice the one before
        ny, nx = (n // 2 * 2 for n in whole.shape)
        whole = whole[:ny, :nx:2] & whole[:ny, 1:nx:2]
        whole = whole[::2] & whole[1::2]
        sums = sums_of_blocks(sn, side)[whole] / side
        if len(sums) < LEAST_SQUARES:
            factors.append(factors[-1])
        else:
            scatter = 1.4826 * _median(np.abs(sums - _median(sums)))
            factors.append(max(scatter, 1.0))
    return np.array(factors)


def _median(values):
    """As numpy's of values (n,) that are finite, in half the time."""
    half = len(values) // 2
    parts = np.partition(values, half)
    if len(values) % 2:
        return parts[half]
    return (parts[:half].max() + parts[half]) / 2


def sums_of_blocks(values, side):
    """Sums of squares of so many pixels of (y, x), without an edge of less."""
    ny, nx = (n // side * side for n in values.shape)
    values = values[:ny, :nx]
    if side > 5:
        return values.reshape(ny // side, side, nx // side, side).sum(
            axis=(1, 3), dtype=values.dtype)
    for axis in (1, 0):     # small ones, in the same order, and sooner
        parts = [values[:, k::side] if axis else values[k::side]
                 for k in range(side)]
        values = parts[0] + parts[1]
        for part in parts[2:]:
            values += part
    return values


def correlation_of_area(factors, n_pixels):
    """
    The factor, of (n,) ``factors``, for the sum over so many connected pixels.
    """
    return np.interp(np.log(np.maximum(n_pixels, 1)) / 2, np.log(SIDES),
                     factors)


def noise_of_sums(factors):
    """By how much, of (n,) ``factors``, the noise of a pixel is too small."""
    typical = float(factors[SIDES.index(TYPICAL)])
    return typical if typical > WHITE else 1.0


def background_cube(background, image, order):
    """The background of each pixel, or the word that tells how it is made."""
    if isinstance(background, str):
        if background not in ('none', 'flat'):
            msg = ("background must be 'none', 'flat', a number or an image, "
                   f'got {background!r}')
            raise ValueError(msg)
        return background
    values = cube_of(_values_of(background), image, order, 'background')
    if not np.isfinite(values).all():
        msg = 'background must be finite'
        raise ValueError(msg)
    # of the image as it came
    return values - np.array(image.pedestal)[:, None, None]


def _values_of(background):
    """The image in an object of photutils, if there is one."""
    if isinstance(background, Mapping):
        return {band: _values_of(one) for band, one in background.items()}
    return getattr(background, 'background', background)


def cube_of(given, image, order, name):
    """One value, or one a band, of each pixel."""
    if isinstance(given, Mapping):
        if set(given) != set(image.bands):
            msg = (f'{name} is for the bands {list(given)}, data has '
                   f'{list(image.bands)}')
            raise ValueError(msg)
        values = [_in_unit(given[band], image, name) for band in image.bands]
    else:
        values = _in_unit(given, image, name)
        values = [values] if values.ndim in (0, 2) else list(values)
        if len(values) == image.n_bands > 1:
            values = [values[i] for i in order]
    if (len(values) not in (1, image.n_bands)
            or any(v.shape not in ((), image.shape) for v in values)):
        msg = (f'{name} must be one value, an image of shape {image.shape} '
               f'or one of these for each of {image.n_bands} bands, got the '
               f'shapes {[v.shape for v in values]}')
        raise ValueError(msg)
    values = np.stack([np.broadcast_to(v, image.shape) for v in values])
    if np.isnan(values).any():
        msg = f'{name} must not be NaN'
        raise ValueError(msg)
    return values


def _in_unit(given, image, name):
    """The values in the image's unit."""
    unit = getattr(given, 'unit', None)
    if (unit is None) != (image.unit is None):
        msg = (f'{name} has unit {unit} but data has unit {image.unit}; '
               'give both a unit or neither')
        raise ValueError(msg)
    try:
        if unit is not None:
            given = u.Quantity(given).to_value(image.unit)
        return np.asarray(given, float)
    except (TypeError, ValueError) as err:
        msg = (f'{name} must be numbers in the unit of data '
               f'({image.unit}), got {given!r}')
        raise ValueError(msg) from err
