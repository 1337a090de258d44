# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
From an `~astrodino_seg.Image` to the input planes of a backbone, one rule for
each family of weights. Weights with three planes take any number of bands,
which `~astrodino_seg.inputs.channels.band_weights` folds into blue, green and
red, each the mean of its bands with these weights.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

import astropy.units as u
import numpy as np

from astrodino_seg.image.filters import canonical
from astrodino_seg.inputs.channels import (
    PreprocessSpec,
    band_weights,
    normalise,
    rgb_image,
)

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
AB_ZERO = u.zero_point_flux(3631 * u.Jy)


@dataclass(frozen=True)
class NoiseUnits:
    """
    The input of the bundled model: bands in noise units, arcsinh-stretched.
    """

    #: How.
    spec: PreprocessSpec = field(default_factory=PreprocessSpec)

    @property
    def n_planes(self):
        """The number of planes."""
        return self.spec.n_channels

    @property
    def blank(self):
        """The planes, (plane,) float32, of a pixel that is masked."""
        return np.zeros(self.n_planes, np.float32)

    def __call__(self, image):
        """Return the planes, (plane, y, x) float32."""
        return normalise(image, self.spec).channels


@dataclass(frozen=True)
class Photographic:
    """
    The input of weights that were trained on photographs: the colour picture
    of `~astrodino_seg.plotting.rgb_image`, standardised.
    """

    #: Of red, green and blue in the training set; by default ImageNet's.
    mean: tuple = IMAGENET_MEAN
    std: tuple = IMAGENET_STD

    n_planes = 3

    def __call__(self, image):
        """Return the planes red, green, blue, (3, y, x) float32."""
        parts = normalise(image, PreprocessSpec())
        return self.standardise(
            rgb_image(image, parts.background, parts.noise))

    def standardise(self, rgb):
        """
        (3, y, x) float32 of a picture (y, x, 3) uint8 that is one already.
        """
        rgb = np.asarray(rgb)
        if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
            msg = (f'rgb must be uint8 of the shape (y, x, 3), got '
                   f'{rgb.dtype} of {rgb.shape}')
            raise ValueError(msg)
        planes = (rgb / np.float32(255) - np.float32(self.mean)) / np.float32(
            self.std)
        return np.ascontiguousarray(planes.transpose(2, 0, 1))


@dataclass(frozen=True)
class NanomaggyRGB:
    """
    The input of AstroCLIP: z, r and g as a colour picture in absolute flux.
    With the scaled fluxes ``s = scale * flux + m`` of the three bands and the
    mean ``I`` of their positive parts, the planes are ``s f(I) / I`` with
    ``f(I) = arcsinh(q I) / sqrt(q)``, clipped to [0, 1] (Parker et al. 2024,
    MNRAS 531, 4990). No statistics of photographs are applied, and x and y are
    not exchanged, as they are in AstroCLIP's own data loader. Bands other than
    g, r and z are folded into their places; without a unit, pixels are taken
    to be nanomaggies.
    """

    #: Of z, r and g.
    scales: tuple = (2.2, 3.4, 6.0)
    #: Offset and softening.
    m: float = 0.03
    q: float = 20.0

    n_planes = 3

    @property
    def blank(self):
        """The planes, (3,) float32, of a pixel that is masked: no flux."""
        return np.full(3, np.arcsinh(self.q * self.m) / np.sqrt(self.q),
                       np.float32)

    def __call__(self, image):
        """Return the planes z, r, g, (3, y, x) float32."""
        factor = 1.0
        if image.unit is not None:
            try:
                factor = image.unit.to(u.nmgy, equivalencies=AB_ZERO)
            except u.UnitConversionError:
                msg = (f'data: the unit {image.unit} cannot be converted to '
                       f'nanomaggies, which these weights need')
                raise ValueError(msg) from None
        names = [canonical(band) for band in image.bands]
        if {'g', 'r', 'z'} <= set(names):
            flux = image.cube[[names.index(band) for band in 'zrg']]
        else:
            weights = band_weights(image.n_bands)[::-1]
            weights = weights / weights.sum(axis=1, keepdims=True)
            flux = np.tensordot(weights, image.cube, axes=1)
        scales = factor * np.float32(self.scales)[:, None, None]
        scaled = flux * scales.astype(np.float32) + np.float32(self.m)
        total = scaled.clip(min=0).mean(axis=0)
        total[total == 0] = 1e-6
        stretch = np.arcsinh(self.q * total) / np.sqrt(self.q) / total
        return (scaled * stretch).clip(0, 1).astype(np.float32)


@dataclass(frozen=True)
class WithNoiseUnits:
    """
    The input of a grouping head on weights that have planes of their own:
    first the channels of `NoiseUnits`, which the head sees, then those planes,
    both made of the whole image.
    """

    #: The rule of the weights.
    planes: Photographic | NanomaggyRGB
    #: How the noise units are made.
    spec: PreprocessSpec = field(default_factory=PreprocessSpec)

    @property
    def n_planes(self):
        """The number of all planes."""
        return self.spec.n_channels + self.planes.n_planes

    def __call__(self, image):
        """Return all planes, (plane, y, x) float32."""
        return np.concatenate([NoiseUnits(self.spec)(image),
                               self.planes(image)])


def planes_to_dict(planes):
    """What a rule is, for the metadata of a file."""
    if type(planes) not in (NoiseUnits, Photographic, NanomaggyRGB):
        msg = ('planes must be NoiseUnits, Photographic or NanomaggyRGB, '
               f'got {type(planes).__name__}')
        raise TypeError(msg)
    return {'kind': type(planes).__name__, **asdict(planes)}


def planes_from_dict(table):
    """The rule that `planes_to_dict` tells of."""
    if not isinstance(table, Mapping):
        msg = f'planes must be a table, got {table!r}'
        raise ValueError(msg)
    table = {k: tuple(v) if isinstance(v, list) else v
             for k, v in table.items()}
    kind = table.pop('kind', None)
    if kind == 'NoiseUnits':
        return NoiseUnits(PreprocessSpec(**table.get('spec', {})))
    if kind == 'Photographic':
        return Photographic(**table)
    if kind == 'NanomaggyRGB':
        return NanomaggyRGB(**table)
    msg = f'planes: unknown kind {kind!r}'
    raise ValueError(msg)
