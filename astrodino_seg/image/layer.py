# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
One band as it comes, checked: the step between the input and the cube.
"""

import warnings
from dataclasses import dataclass

import astropy.units as u
import numpy as np
from astropy.wcs import WCS
from scipy import ndimage

from astrodino_seg.errors import AstroDinoUserWarning

FILL_SIDE = 8           # of the least square of equal pixels that is missing
#: The noise may be as few of the steps that float32 has at the median.
LEAST_STEPS = 256
#: Values beyond this are no data; float32 could not hold their sums.
LARGEST = 1e34
#: What a kind of uncertainty is raised to for the 1-sigma noise.
POWER = {'std': 1, 'var': 0.5, 'ivar': -0.5}


@dataclass
class Layer:
    """
    One band: float32 ``data``, bool ``mask`` (True is invalid), float32
    ``noise`` (1-sigma, or `None`), all 2-D; a celestial ``wcs`` or `None`;
    ``name`` or `None`; ``unit`` or `None`; ``stem``, the name of the file,
    for when the names of several bands turn out to be the same;
    ``pedestal``, what was subtracted from ``data``; and ``whole``, the shape
    of what it was cut out of.
    """

    data: np.ndarray
    mask: np.ndarray
    noise: np.ndarray | None = None
    wcs: WCS | None = None
    name: str | None = None
    unit: u.UnitBase | None = None
    stem: str | None = None
    pedestal: float = 0.0
    whole: tuple | None = None


def check_shape(array, name):
    """A view (band, y, x) of an array of real numbers, or raise."""
    if array.dtype.kind not in 'iuf':
        cure = {'c': '; numpy.abs(data) is real',
                'b': '; data.astype(float) is one'}.get(array.dtype.kind, '')
        msg = (f'{name} must be an array of real numbers, got dtype '
               f'{array.dtype}{cure}')
        raise TypeError(msg)
    if array.ndim < 2 or any(size != 1 for size in array.shape[:-3]):
        msg = (f'{name} must be a 2-D (y, x) or a 3-D (band, y, x) array, '
               f'got shape {array.shape}')
        raise ValueError(msg)
    if array.size == 0:
        msg = f'{name} is empty, its shape is {array.shape}'
        raise ValueError(msg)
    cube = array.reshape((-1, *array.shape[-2:]))
    n, ny, nx = cube.shape
    if n > 16 and (n == ny != nx or nx <= 4 or (
            nx <= 16 or 4 * nx < n) and ny >= 2 * nx):
        msg = (f'{name} has shape {array.shape}, which looks like (y, x, '
               f'band); (band, y, x) is needed: numpy.moveaxis(data, -1, 0)')
        raise ValueError(msg)
    return cube


def check_mask(mask, shape, name='mask'):
    """
    A new bool array of ``shape``, True being invalid, of a mask that is (band,
    y, x), or 2-D and then for all bands, or None.
    """
    if mask is None:
        return np.zeros(shape, dtype=bool)
    mask = np.asarray(mask)
    if mask.dtype.kind not in 'biu':
        msg = f'{name} must be an array of bool, got dtype {mask.dtype}'
        raise TypeError(msg)
    while mask.ndim > 3 and mask.shape[0] == 1:
        mask = mask[0]
    if mask.ndim and mask.shape not in (shape, shape[1:]):
        msg = (f'{name} has shape {mask.shape}, but the image has shape '
               f'{shape} (band, y, x)')
        raise ValueError(msg)
    return np.broadcast_to(mask.astype(bool), shape).copy()


def check_noise(noise, mask, name='error'):
    """
    Raise if the noise is not positive where an image is valid; ``mask`` is
    set, in place, where it is not finite.
    """
    mask |= ~(noise < LARGEST)
    wrong = ~mask & ~(noise > 0)
    if wrong.any():
        msg = (f'{name} must be positive where the image is not masked, got '
               f'{noise[wrong][0]} at {wrong.sum()} pixels')
        raise ValueError(msg)


def split_cube(data, *, mask=None, noise=None, wcs=None, unit=None,
               names=None, stem=None, label='data', pedestals=None):
    """
    Make one `Layer` of each plane of an array, 2-D or 3-D, as ``mask`` and
    ``noise`` are. Values that are not finite become masked and 0, and so do
    large areas of one value that mean missing; a large constant that float32
    could not hold the noise about is subtracted. With ``pedestals``, those of
    before, nothing is looked for.
    """
    cube = check_shape(data, label)
    if cube.dtype.kind == 'f' and cube.dtype.itemsize < 4:
        cube = cube.astype(np.float32)      # differences overflow
    bad = check_mask(mask, cube.shape, f'the mask of {label}')
    bad |= ~np.isfinite(cube)
    found = pedestals is None
    if found:
        _mask_fill(cube, bad, names, label)
        pedestals = [_pedestal(*both) for both in zip(cube, bad)]
        if any(pedestals):
            msg = (f'{label} varies little about {max(pedestals, key=abs):g}'
                   f', which is subtracted for the sake of precision')
            warnings.warn(msg, AstroDinoUserWarning)
    values = np.empty(cube.shape, np.float32)  # in native byte order
    with np.errstate(over='ignore', invalid='ignore'):
        for plane, one, new in zip(cube, pedestals, values):
            new[:] = plane - one if one and found else plane
    _check_range(cube, values, bad, label)
    bad |= ~(np.abs(values) < LARGEST)
    if noise is not None:
        with np.errstate(over='ignore', invalid='ignore'):
            noise = np.asarray(noise).astype(np.float32)
        noise = noise.reshape((-1, *noise.shape[-2:]))
        if noise.shape != values.shape:
            msg = (f'the uncertainty of {label} has shape {noise.shape}, '
                   f'the image {values.shape}')
            raise ValueError(msg)
        check_noise(noise, bad, f'the uncertainty of {label}')
    values[bad] = 0
    if names is None or len(names) != len(values):
        names = [None] * len(values)
    return [Layer(values[i], bad[i], None if noise is None else noise[i],
                  wcs, names[i], unit, stem, float(pedestals[i]))
            for i in range(len(values))]


def _check_range(cube, values, bad, label):
    """Raise if float32 cannot hold the values."""
    for plane, single, out in zip(cube, values, bad):
        if plane.dtype.kind != 'f':
            continue
        largest = np.max(np.abs(plane), where=~out, initial=0)
        n_over = np.count_nonzero(~(np.abs(single) < LARGEST) & ~out)
        is_small = 0 < largest < 1e-34
        if is_small or 2 * n_over > np.count_nonzero(~out):
            msg = (f'the values of {label} are too '
                   f'{"small" if is_small else "large"} for single precision: '
                   f'the largest is {largest:.3g}; use another unit')
            raise ValueError(msg)


def _pedestal(plane, bad):
    """What is to be subtracted before values become float32; or 0."""
    if plane.dtype.itemsize < (8 if plane.dtype.kind == 'f' else 4):
        return 0
    step = int(max(plane.size / 40000, 1)**0.5)
    sample = plane[::step, ::step][~bad[::step, ::step]].astype(float)
    if sample.size == 0:
        return 0
    low, median, high = np.percentile(sample, [16, 50, 84])
    scatter = (high - low) / 2
    step = np.spacing(np.float32(min(abs(median), 1e38)))
    return median if 0 < scatter < LEAST_STEPS * step and abs(
        median) < 1e38 else 0


# ------------------------------------------------------------ missing pixels
def _mask_fill(cube, bad, names, label):
    """Mask large areas of exactly one value in place, and say so."""
    said = []
    for i, plane in enumerate(cube):
        for value in _repeated(plane):
            area = _missing(plane, value, bad[i])
            if area is not None and (area & ~bad[i]).any():
                bad[i] |= area
                name = names[i] if names and len(names) == len(cube) else i
                said.append(f'{area.mean():.1%} of band {name} (all '
                            f'{value:g})')
    if said:
        msg = (f'areas without data in {label}, filled with one value, are '
               f'masked: {", ".join(said)}')
        warnings.warn(msg, AstroDinoUserWarning)


def _repeated(plane):
    """Values that a grid of pixels has with two of their neighbours."""
    ny, nx = (n // FILL_SIDE * FILL_SIDE for n in plane.shape)
    tiles = plane[:ny, :nx]
    centre = tiles[3::FILL_SIDE, 3::FILL_SIDE]
    same = np.ones(centre.shape, bool)
    for dy, dx in ((3, 4), (4, 3)):
        same &= centre == tiles[dy::FILL_SIDE, dx::FILL_SIDE]
    values, counts = np.unique(centre[same], return_counts=True)
    values = values[np.argsort(-counts)][:4]
    return [value for value in values if np.isfinite(value)]


def _missing(plane, value, bad):
    """
    The area of one value, (y, x) bool, if it means missing; or None: if it is
    common outside of solid squares, as 0 among counted photons; if it is the
    largest, as of saturated stars, and not along the border, beside the sky;
    if all other pixels are as flat; or if the rest fades into it, as into the
    clipped sky of a picture.
    """
    equal = plane == value
    solid = ndimage.minimum_filter(equal, FILL_SIDE)
    if not solid.any():
        return None
    solid = ndimage.maximum_filter(solid, FILL_SIDE, origin=-1) & equal
    outside = equal[~solid & ~bad]
    if outside.size == 0 or outside.mean() > 0.5:
        return None
    area = ndimage.binary_propagation(solid, mask=equal)
    others = ~equal & ~bad
    rest = plane[others]
    if rest.size < FILL_SIDE**2:
        return None
    largest = value > rest.max() and abs(value) < 1e20
    border = np.concatenate([area[0], area[-1], area[:, 0], area[:, -1]])
    if largest and border.mean() < 0.05:        # trails of stars are narrow
        return None
    pairs = others[:, 1:] & others[:, :-1]
    if (plane[:, 1:] == plane[:, :-1])[pairs].mean() > 0.5:
        return None
    near = plane[ndimage.binary_dilation(area, iterations=2) & others]
    quarter, half, upper = np.percentile(
        rest[::max(rest.size // 20000, 1)], [25, 50, 75])
    edge = np.median(near) if near.size else half
    if largest:         # stars have wings
        return area if edge <= upper else None
    spread = np.median(np.abs(near - edge)) if near.size else 0
    fades = value < rest.min() and (edge <= rest.min() or (
        edge < quarter and edge - value < max(7 * spread,
                                              (half - value) / 2)))
    return None if fades else area
