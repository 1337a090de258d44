# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
A colour picture of an image of any number of bands.
"""

import numpy as np
from astropy.visualization import make_lupton_rgb

from astrodino_seg.inputs.channels import band_weights

__all__ = ['rgb_image']


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
    return make_lupton_rgb(red, green, blue, minimum=-1, stretch=stretch, Q=q)
