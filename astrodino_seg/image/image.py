# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
`Image`, what it promises, and `as_image`, which keeps it.
"""

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.wcs import WCS
from numpy.typing import ArrayLike

from astrodino_seg.errors import AstroDinoUserWarning, EmptyImageError
from astrodino_seg.image.filters import canonical, order_bands
from astrodino_seg.image.fits import fits_wcs, sky_coordinates
from astrodino_seg.image.grid import stack_layers
from astrodino_seg.image.layer import (
    LARGEST,
    check_mask,
    check_noise,
    split_cube,
)
from astrodino_seg.image.layouts import check_bits, warn_of_bits
from astrodino_seg.image.sources import check_name, convert_unit, read_input


@dataclass(frozen=True, eq=False, repr=False)
class Image:
    """
    An image of one or more bands on one pixel grid.

    Made by `as_image`, which keeps what is promised here.

    Parameters
    ----------
    cube : float32 `~numpy.ndarray`
        The pixels, of shape (band, y, x); finite everywhere, 0 where
        ``mask`` is True.
    mask : bool `~numpy.ndarray`
        Of the same shape; True marks invalid pixels of a band.
    noise : float32 `~numpy.ndarray` or `None`, optional
        The 1-sigma noise, of the same shape; positive and finite everywhere.
        Where ``mask`` is True it is the median of the band, and means
        nothing.
    wcs : `~astropy.wcs.WCS` or `None`, optional
        The celestial WCS of the pixel grid.
    bands : tuple of str, optional
        The names of the bands, from blue to red where the names are known.
    unit : `~astropy.units.UnitBase` or `None`, optional
        The unit of ``cube`` and ``noise``.
    order : tuple of int, optional
        The position of each band in the input.
    pedestal : tuple of float, optional
        What was subtracted from each band, 0 but where float32 could not
        have held the noise about a large constant.
    """

    cube: np.ndarray
    mask: np.ndarray
    noise: np.ndarray | None = None
    wcs: WCS | None = None
    bands: tuple = ()
    unit: u.UnitBase | None = None
    order: tuple = ()
    pedestal: tuple = ()

    def __post_init__(self):
        n = len(self.cube)
        for name, default in (('bands', tuple(f'band{i}' for i in range(n))),
                              ('order', tuple(range(n))),
                              ('pedestal', (0.0,) * n)):
            if not getattr(self, name):
                object.__setattr__(self, name, default)
        for name in ('mask', 'noise'):
            array = getattr(self, name)
            if array is not None and array.shape != self.cube.shape:
                msg = (f'{name} has shape {array.shape}, cube has '
                       f'{self.cube.shape}')
                raise ValueError(msg)
        if self.cube.ndim != 3 or len(self.bands) != len(self.cube):
            msg = (f'cube must have the shape (band, y, x) with the '
                   f'{len(self.bands)} bands {self.bands}, got '
                   f'{self.cube.shape}')
            raise ValueError(msg)

    def __repr__(self):
        ny, nx = self.shape
        unit = '' if self.unit is None else f', unit {self.unit}'
        return (f'<Image {", ".join(self.bands)}; {ny} x {nx} pixels; '
                f'{self.mask.mean():.2%} masked; '
                f'{"no " if self.noise is None else ""}noise, '
                f'{"no " if self.wcs is None else ""}WCS{unit}>')

    @property
    def n_bands(self) -> int:
        """The number of bands."""
        return len(self.cube)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape (ny, nx) of the pixel grid."""
        return self.cube.shape[1:]

    def sky(self, x: ArrayLike, y: ArrayLike) -> SkyCoord | None:
        """
        Positions of pixels on the sky.

        Parameters
        ----------
        x, y : array_like
            Pixels, from 0.

        Returns
        -------
        positions : `~astropy.coordinates.SkyCoord` or `None`
            In the frame of the WCS, or ICRS if that is ecliptic; `None`
            without a WCS, or if astropy knows no such frame, as of the Sun
            or a planet.
        """
        return self.wcs and sky_coordinates(self.wcs, x, y)


def as_image(data: Any, *, mask: ArrayLike | None = None, error: Any = None,
             wcs: WCS | None = None, bands: Iterable[str] | None = None,
             reference: str | WCS | None = None,
             bad_bits: int | str | None = None) -> Image:
    """
    Turn whatever holds an image into an `Image`.

    Nothing that is handed in is changed or shared.

    Parameters
    ----------
    data : object
        One of the following, with one or more bands:

        * `~astropy.nddata.NDData` or `~astropy.nddata.CCDData`, 2-D or
          (band, y, x), with its mask, uncertainty, unit and WCS;
        * `~numpy.ndarray`, `~numpy.ma.MaskedArray` or
          `~astropy.units.Quantity`, 2-D or (band, y, x), of any real type;
        * the path of a FITS file, an `~astropy.io.fits.HDUList` or an image
          HDU (see Notes);
        * a dict ``{band: item}`` or a list of items, each being any of the
          above with a single band and its own WCS and pixel grid;
        * an `Image`.

        Pixels that are NaN, infinite or beyond 1e34 are masked.
    mask : array_like of bool, optional
        True marks invalid pixels, in addition to those which ``data`` marks.
        2-D for all bands, 3-D, or a dict by band.
    error : array_like or `~astropy.units.Quantity`, optional
        The 1-sigma noise instead of that in ``data``: a number, one number
        per band, 2-D, 3-D, or a dict by band. Without a unit, it is in the
        unit of the image. Pixels where it is not finite are masked.
    wcs : `~astropy.wcs.WCS`, optional
        The WCS of the pixel grid, instead of those in ``data``.
    bands : sequence of str, optional
        The names of the bands in the order of ``data``, instead of those in
        ``data``; ``'grz'`` is ``['g', 'r', 'z']``. ``mask`` and ``error``
        are in the order of ``data`` too.
    reference : str or `~astropy.wcs.WCS`, optional
        The grid onto which bands on other grids are reprojected: the name of
        a band, or a WCS with ``array_shape``. By default, that of the band
        with the smallest pixels. ``mask`` and ``error`` are on this grid.
    bad_bits : int or 'any', optional
        The bits, added up, of the masks in FITS files that mark invalid
        pixels, or any, instead of those that their pipeline calls bad.

    Returns
    -------
    image : `Image`
        The image, with its bands ordered by wavelength (see
        `~astrodino_seg.image.filters.order_bands`).

    Raises
    ------
    ValueError, TypeError
        If an argument cannot be used; the message names it.
    FileNotFoundError
        If there is no file of this name.

    Notes
    -----
    *Reprojection.* Bands whose pixels coincide within 0.001 pixel, or that
    have equal shapes and not both a WCS, are stacked as they are. Others are
    reprojected with `~reproject.reproject_adaptive`. Values are fluxes per
    pixel, and scaled with the area of the pixels, unless the unit is per
    solid angle or per beam, or a brightness temperature. Pixels outside of a
    band are masked in it. The noise is scaled such that sums over many pixels
    keep theirs.

    *Units* are converted to that of the first band.

    *Missing pixels.* Areas of 8 by 8 pixels and more that have exactly one
    value, as 0 where nothing was observed, are masked with a warning, unless
    that value is common elsewhere or the largest.

    *FITS files.* The first image that is no uncertainty or the like is read.
    If it is 2-D, further images of the same shape are bands if their headers
    or EXTNAMEs name other filters than the first; other further images are
    left with a warning. Uncertainties and masks are told by EXTNAME, EXTTYPE,
    HDUCLAS2 or IMAGETYP, and belong to the image of the same detector, band
    or EXTVER; it is an error if that leaves a choice. Of masks, the bits that
    the pipeline calls bad are used. What is not used is in one warning. The
    documentation has a table, "What is read from a file". One image and its
    planes are read from ``'file.fits[1]'`` or ``'file.fits[SCI,1]'``.

    *Names of the bands* are the first of: ``bands``, the keys of the dict, a
    known filter in the header (BANDS, BAND, FILTER, FILTNAM, ...), in
    EXTNAME, in the name of the file; any other filter in the header;
    ``'band0'``, and so on. Where the headers give several bands the same
    name, the names of the files are used if those differ.

    Examples
    --------
    >>> import numpy as np
    >>> from astrodino_seg.image import as_image
    >>> image = as_image({'r': np.ones((4, 5)), 'g': np.zeros((4, 5))})
    >>> image.bands, image.cube.shape
    (('g', 'r'), (2, 4, 5))
    """
    if bad_bits is not None:
        check_bits(bad_bits)
    if isinstance(data, Image):
        if all(one is None for one in (mask, error, wcs, bands, reference,
                                       bad_bits)):
            return data
        warn_of_bits(bad_bits, 'data')
        layers = split_cube(data.cube, mask=data.mask, noise=data.noise,
                            wcs=data.wcs, unit=data.unit, names=data.bands,
                            pedestals=data.pedestal)
    else:
        layers = read_input(data, 'data', bad_bits)
    if wcs is not None:
        _set_wcs(layers, wcs)
    names = _names(layers, bands)
    for layer, name in zip(layers, names):
        layer.name = name
    cube, invalid, noise, wcs, unit, pedestal = stack_layers(layers,
                                                             reference)
    invalid |= ~(np.abs(cube) < LARGEST)    # by the unit
    if mask is not None:
        invalid |= check_mask(_by_band(mask, names, 'mask'), cube.shape)
    if error is not None:
        noise = _error(_by_band(error, names, 'error'), cube.shape, unit)
        check_noise(noise, invalid)
    if invalid.all():
        msg = 'data has no valid pixels: all are masked or not finite'
        raise EmptyImageError(msg)
    empty = [name for name, bad in zip(names, invalid) if bad.all()]
    if empty:
        msg = f'the bands {empty} have no valid pixels'
        warnings.warn(msg, AstroDinoUserWarning)
    cube[invalid] = 0
    if noise is not None:
        for sigma, bad in zip(noise, invalid):      # it means nothing there
            sigma[bad] = 1 if bad.all() else np.median(sigma[~bad])
    if wcs is not None:
        wcs = wcs.deepcopy()
        wcs.array_shape = cube.shape[1:]
    order = list(order_bands(names))
    return Image(cube[order], invalid[order],
                 None if noise is None else noise[order], wcs,
                 tuple(names[i] for i in order), unit, tuple(order),
                 tuple(pedestal[i] for i in order))


def _set_wcs(layers, wcs):
    """Give all layers the WCS that the user gave."""
    wcs = fits_wcs(wcs, 3, 'wcs')
    if wcs is None:
        msg = 'wcs is not celestial'
        raise ValueError(msg)
    shapes = {layer.data.shape for layer in layers}
    if len(shapes) > 1:
        msg = (f'wcs is one for all bands, but their shapes are '
               f'{sorted(shapes)}')
        raise ValueError(msg)
    for layer in layers:
        layer.wcs = wcs


def _names(layers, bands):
    """The names of the bands, all different."""
    n = len(layers)
    if bands is not None:
        if not isinstance(bands, Iterable):
            msg = f'bands must be a sequence of str, got {bands!r}'
            raise TypeError(msg)
        names = ([bands] if isinstance(bands, str) and n == 1 else
                 [check_name(name) for name in bands])
        if len(names) != n or len(set(names)) != n:
            msg = (f'bands must be {n} different names, one per band, got '
                   f'{bands!r}')
            raise ValueError(msg)
        return names
    names = [layer.name for layer in layers]
    if len(set(names)) < n:
        stems = [canonical(layer.stem) for layer in layers]
        if None not in stems and len(set(stems)) == n:
            names = stems
    unique = []
    for i, name in enumerate(names):
        name = f'band{i}' if name is None else name
        earlier = names[:i].count(name)
        unique.append(f'{name}_{earlier + 1}' if earlier else name)
    return unique


def _by_band(value, names, name):
    """A dict by band as one array in the order of the bands."""
    if not isinstance(value, Mapping):
        return value
    if set(value) != set(names):
        msg = f'{name} is for the bands {list(value)}, data has {names}'
        raise ValueError(msg)
    values = [value[band] for band in names]
    if len({np.shape(one) for one in values}) > 1:
        msg = (f'{name} has different shapes in different bands: '
               f'{[np.shape(one) for one in values]}')
        raise ValueError(msg)
    if any(isinstance(one, u.Quantity) for one in values):
        return u.Quantity(values)
    return np.array(values)


def _error(error, shape, unit):
    """The ``error`` argument as a float32 array of the shape of the cube."""
    if isinstance(error, u.Quantity):
        error = convert_unit(error.value, error.unit, unit, 'error')
    error = np.asarray(error)
    if error.dtype.kind not in 'iuf':
        msg = f'error must be an array of numbers, got dtype {error.dtype}'
        raise TypeError(msg)
    while error.ndim > 3 and error.shape[0] == 1:
        error = error[0]
    if error.shape not in ((), shape[:1], shape[1:], shape):
        msg = (f'error has shape {error.shape}, but the image has shape '
               f'{shape} (band, y, x)')
        raise ValueError(msg)
    if error.ndim == 1:
        error = error[:, None, None]
    with np.errstate(over='ignore'):  # infinite, and so masked
        error = error.astype(np.float32)
    return np.broadcast_to(error, shape).copy()
