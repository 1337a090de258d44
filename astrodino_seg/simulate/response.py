# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
How pixels answer to light, where not in proportion to it.

The truth is that of the light; see `~astrodino_seg.simulate.observe`.
"""

import numpy as np
from scipy.ndimage import gaussian_filter

FWHM = 2 * np.sqrt(2 * np.log(2))


def smooth_noise(rng, shape, sigma):
    """
    Noise of one sigma a pixel that is smooth in each band.

    Gives ``noise`` (band, y, x) float32.
    """
    noise = rng.standard_normal(shape, dtype=np.float32)
    point = np.zeros(2 * int(5 * sigma + 2) + 1)
    point[len(point) // 2] = 1
    kernel = gaussian_filter(point, sigma, truncate=3)
    # the noise of a pixel is the same at the frame's edges
    return gaussian_filter(noise, (0, sigma, sigma), truncate=3,
                           mode='wrap') / np.float32((kernel**2).sum())


def count(rng, light, noise_map, sky):
    """
    Count photons.

    ``light`` (band, y, x), ``noise_map`` (y, x) -> ``image`` (band, y, x)
    float32.
    """
    root = np.sqrt(sky)
    mean = (sky + root * light.astype(float)) / noise_map**2
    return (rng.poisson(mean.clip(0)) / root).astype(np.float32)


def quantise(image, step):
    """Round to steps; in place."""
    np.multiply(np.rint(image / np.float32(step)), np.float32(step),
                out=image)


def photographic(rng, light, noise_map):
    """
    A photographic plate for each band.

    The characteristic curve (Hurter & Driffield 1890, J. Soc. Chem. Ind. 9,
    455) of density over the logarithm of the exposure is a logistic one: a
    toe, a straight part, a shoulder. The grain is that of densities.

    ``light`` (band, y, x), ``noise_map`` (y, x) -> ``image`` (band, y, x)
    float32.
    """
    image = np.empty_like(light)
    steepness, toe = rng.uniform(1, 2.5), rng.uniform(.04, .3)
    for b, plane in enumerate(light):
        densest = np.exp(rng.uniform(np.log(15), np.log(150)))
        # so that, at the sky, density goes with light as one
        exposure = 1 + plane / np.float32(steepness * toe * densest)
        power = exposure.clip(1e-3)**np.float32(steepness)
        density = power / (power + np.float32(1 / toe - 1))
        image[b] = (density - toe) * np.float32(densest / (1 - toe))
    # a scanner's spot
    image += noise_map * smooth_noise(rng, image.shape, rng.uniform(.5, 1.2))
    return image


def stretch(rng, image):
    """
    Values as they are shown on a screen.

    ``image`` (band, y, x) -> ``stretched`` (band, y, x) float32.
    """
    # the cheapest of robust levels
    sky = np.median(image[:, ::3, ::3], axis=(1, 2), keepdims=True)
    black = sky - (rng.uniform(2, 8) if rng.random() < .8
                   else rng.uniform(-.5, 2))
    span = np.exp(rng.uniform(np.log(20), np.log(3000)))
    x = ((image - black) / span).clip(0, 1).astype(np.float32)
    kind = rng.integers(4)
    if kind == 0:
        # Lupton et al. 2004, PASP 116, 133; linear up to some sigma
        scale = np.float32(span / rng.uniform(1, 10))
        x = np.arcsinh(scale * x) / np.arcsinh(scale)
    elif kind == 1:
        scale = np.float32(10**rng.uniform(1.5, 3))
        x = np.log1p(scale * x) / np.log1p(scale)
    else:
        x **= np.float32(.5 if kind == 2 else rng.uniform(.35, .9))
    x *= 255
    if rng.random() < .5:
        quantise(x, 1)
    return x
