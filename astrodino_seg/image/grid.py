# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Bands as they come, each on its own pixel grid, to one unit, one grid and one
cube.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace

import astropy.units as u
import numpy as np
from astropy.wcs import WCS
from astropy.wcs.utils import pixel_to_pixel, proj_plane_pixel_area

from astrodino_seg.errors import AstroDinoUserWarning
from astrodino_seg.image.filters import canonical
from astrodino_seg.image.fits import sky_coordinates
from astrodino_seg.image.layer import Layer
from astrodino_seg.image.sources import cut_out, opened, read_input

# two grids are the same if no pixel is further off than this (pixels)
GRID_TOLERANCE = 1e-3


@dataclass(frozen=True, eq=False)
class Grid:
    """The pixels (ny, nx) of an image, their WCS and unit or `None`."""

    shape: tuple
    wcs: WCS | None
    unit: u.UnitBase | None = None

    def sky(self, x, y):
        """Positions of pixels, as `~astrodino_seg.Image.sky`."""
        return self.wcs and sky_coordinates(self.wcs, x, y)


def grid_of(data, wcs=None):
    """
    The `Grid` of any ``data`` of `~astrodino_seg.as_image`, of which no more
    than a pixel is read. Bands on several grids are refused.
    """
    if hasattr(data, 'cube'):       # an Image
        return Grid(tuple(data.shape), wcs or data.wcs, data.unit)
    data = opened(data)
    items = (list(data.values()) if isinstance(data, Mapping) else
             list(data) if isinstance(data, (list, tuple)) else [data])
    grids = []
    for item in map(opened, items):
        layer = read_input(cut_out(item, (slice(0, 1), slice(0, 1))),
                           'data')[0]
        shape = layer.whole or np.shape(getattr(item, 'data', item))[-2:]
        grids.append(Grid(tuple(shape), wcs or layer.wcs, layer.unit))
    first = next((one for one in grids if one.wcs is not None), grids[0])
    unit = None if None in [one.unit for one in grids] else grids[0].unit
    for one in grids:
        if one.shape != first.shape or (one.wcs is not None and not same_grid(
                one.wcs, first.wcs, first.shape)):
            msg = (f'data: the bands of a mosaic must have one pixel grid, '
                   f'got the shapes {[one.shape for one in grids]} and '
                   f'different WCS; reproject writes them onto one')
            raise ValueError(msg)
    return replace(first, unit=unit)


def same_grid(wcs1, wcs2, shape):
    """Whether two WCS put every pixel of an image at the same place."""
    if wcs1 is wcs2:
        return True
    x, y = np.meshgrid(np.linspace(0, shape[1] - 1, 9),
                       np.linspace(0, shape[0] - 1, 9))
    x2, y2 = _map_pixels(wcs1, wcs2, x, y)
    off = np.hypot(x2 - x, y2 - y)
    # off the sky (NaN) says nothing, unless it is NaN everywhere
    return bool(np.isfinite(off).any()
                and np.nanmax(off) <= GRID_TOLERANCE)


def _map_pixels(wcs1, wcs2, x, y):
    """Pixel positions of ``wcs1`` in pixels of ``wcs2``; NaN off the sky."""
    with warnings.catch_warnings(), np.errstate(all='ignore'):
        # an inverse distortion that does not converge is far outside
        warnings.simplefilter('ignore')
        return pixel_to_pixel(wcs1, wcs2, x, y)


def stack_layers(layers, reference=None):
    """Bring layers to one unit and one grid, and stack them."""
    unit = _common_unit(layers)
    wcs, shape = _target(layers, reference)
    full = (len(layers), *shape)
    with_noise = [layer.noise is not None for layer in layers]
    if any(with_noise) and not all(with_noise):
        names = [layer.name for layer in layers if layer.noise is None]
        msg = (f'the bands {names} have no uncertainty; the uncertainties '
               f'of the other bands are not used')
        warnings.warn(msg, AstroDinoUserWarning)
    cube, mask = np.zeros(full, np.float32), np.ones(full, bool)
    noise = np.zeros(full, np.float32) if all(with_noise) else None
    pedestal = []
    for i, layer in enumerate(layers):
        if not _on_grid(layer, wcs, shape):
            layer = _reproject(layer, wcs, shape)
        factor = 1 if unit is None else layer.unit.to(unit)
        cube[i] = layer.data * np.float32(factor)
        mask[i] = layer.mask
        pedestal.append(layer.pedestal * float(factor))
        if noise is not None:
            noise[i] = layer.noise * np.float32(factor)
    return cube, mask, noise, wcs, unit, pedestal


def _common_unit(layers):
    """The unit of the first band, to which all others must convert."""
    units = [layer.unit for layer in layers]
    for layer in layers:
        unit = layer.unit
        if (isinstance(unit, u.function.FunctionUnitBase)
                or {u.mag, u.dex, u.dB} & set(getattr(unit, 'bases', ()))):
            msg = (f'the unit of band {layer.name!r} is {unit}; '
                   f'a linear unit is needed')
            raise ValueError(msg)
    if any(unit is None for unit in units):
        if any(unit is not None for unit in units):
            names = [layer.name for layer in layers if layer.unit is None]
            msg = (f'the bands {names} have no unit, the others have; the '
                   f'units are dropped and no values converted')
            warnings.warn(msg, AstroDinoUserWarning)
        return None
    for layer in layers:
        if not layer.unit.is_equivalent(units[0]):
            msg = (f'the unit of band {layer.name!r}, {layer.unit}, cannot be '
                   f'converted to that of band {layers[0].name!r}, '
                   f'{units[0]}')
            raise ValueError(msg)
    return units[0]


def _target(layers, reference):
    """The WCS (or None) and the shape of the grid for all layers."""
    if isinstance(reference, WCS):
        if reference.naxis != 2 or not reference.has_celestial:
            msg = (f'reference must be a celestial 2-D WCS, got one with '
                   f'{reference.naxis} axes of type '
                   f'{list(reference.wcs.ctype)}')
            raise ValueError(msg)
        if reference.array_shape is None:
            msg = ('reference is a WCS without a shape; set its array_shape '
                   'to (ny, nx)')
            raise ValueError(msg)
        return reference.deepcopy(), tuple(reference.array_shape)
    if isinstance(reference, str):
        layer = _find_band(layers, reference)
    elif reference is None:
        with_wcs = [one for one in layers if one.wcs is not None]
        areas = [proj_plane_pixel_area(one.wcs) for one in with_wcs]
        finest = min(areas, default=0) * (1 + 1e-6)
        layer = next((one for one, area in zip(with_wcs, areas)
                      if area <= finest), layers[0])
    else:
        msg = (f'reference must be the name of a band or an '
               f'astropy.wcs.WCS, got {type(reference).__name__}')
        raise TypeError(msg)
    return layer.wcs, layer.data.shape


def _find_band(layers, name):
    """The layer of a name, written as it is or in another way."""
    for same in (lambda one: one.name == name,
                 lambda one: canonical(one.name) == canonical(name)
                 is not None):
        for layer in layers:
            if same(layer):
                return layer
    msg = (f'reference {name!r} is none of the bands '
           f'{[layer.name for layer in layers]}')
    raise ValueError(msg)


def _on_grid(layer, wcs, shape):
    """Whether a layer can be stacked as it is."""
    if layer.wcs is not None and wcs is not None:
        _check_frames(layer, wcs)
        return (layer.data.shape == shape
                and same_grid(wcs, layer.wcs, shape))
    if layer.data.shape != shape:
        msg = (f'band {layer.name!r} has shape {layer.data.shape}, not '
               f'{shape}, and without a WCS for both it cannot be reprojected')
        raise ValueError(msg)
    return True


def _check_frames(layer, wcs):
    """Raise if astropy cannot say where one frame is in the other."""
    axes = {one.wcs.ctype[one.wcs.lng][:4] for one in (layer.wcs, wcs)}
    if len(axes) > 1 and not axes <= {'RA--', 'GLON'}:
        msg = (f'band {layer.name!r} cannot be put on the grid of another '
               f'one: their coordinates are {", ".join(sorted(axes))}; '
               f'reproject one of them first')
        raise ValueError(msg)


def _reproject(layer, wcs, shape):
    """
    Reproject one layer onto another grid. `~reproject.reproject_adaptive`
    averages where pixels become larger and interpolates where they become
    smaller. A new pixel is masked if a fifth of its weight is, or its centre
    is outside. The average keeps surface brightness; a flux per pixel is
    multiplied by the area of the new pixel in old ones. The variance is scaled
    such that sums over areas much larger than a pixel keep theirs, as if the
    new pixels were independent; single pixels scatter less.
    """
    from reproject import reproject_adaptive

    planes = [np.where(layer.mask, np.nan, layer.data),
              layer.mask.astype(float)]
    if layer.noise is not None:
        variance = layer.noise.astype(float)**2
        planes.append(np.where(layer.mask, np.nan, variance))
    with warnings.catch_warnings(), np.errstate(all='ignore'):
        warnings.simplefilter('ignore')
        planes = reproject_adaptive(
            (np.array(planes, dtype=float), layer.wcs), wcs,
            shape_out=shape, boundary_mode='ignore',
            bad_value_mode='ignore', return_footprint=False)
    inside, area = _inside_and_area(layer, wcs, shape)
    scale = 1 if _is_brightness(layer.unit) else area
    data = planes[0] * scale
    mask = ~inside | ~(planes[1] < 0.2) | ~np.isfinite(data)
    noise = None
    if layer.noise is not None:
        noise = np.sqrt(planes[2] * scale**2 / area)
        mask |= ~np.isfinite(noise)
        noise[mask] = np.nan
    data[mask] = 0
    pedestal = layer.pedestal
    if pedestal and not mask.all():
        pedestal *= float(np.median(np.broadcast_to(scale, shape)[~mask]))
    return Layer(data.astype(np.float32), mask, noise, wcs, layer.name,
                 layer.unit, pedestal=pedestal)


def _inside_and_area(layer, wcs, shape):
    """Which new pixels lie on the old image, and their area in old ones."""
    y, x = np.mgrid[-1:shape[0] + 1, -1:shape[1] + 1].astype(float)
    x_in, y_in = _map_pixels(wcs, layer.wcs, x, y)
    x_dy, x_dx = np.gradient(x_in)
    y_dy, y_dx = np.gradient(y_in)
    crop = (slice(1, -1), slice(1, -1))
    area = np.abs(x_dx * y_dy - x_dy * y_dx)[crop]
    x_in, y_in = x_in[crop], y_in[crop]
    ny, nx = layer.data.shape
    inside = ((x_in >= -0.5) & (x_in <= nx - 0.5)
              & (y_in >= -0.5) & (y_in <= ny - 0.5))
    return inside, area


def _is_brightness(unit):
    """Whether values are per solid angle or beam, or a temperature."""
    if unit is None:
        return False
    parts = unit.decompose()
    return any(base in (u.rad, u.beam) and power < 0 or base == u.K
               for base, power in zip(parts.bases, parts.powers))
