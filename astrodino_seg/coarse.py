# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Looks at the binned image, for galaxies that are large or faint.

At full resolution a galaxy much larger than a training crop comes out in
pieces, because no place of it shows the whole, and its outskirts drown in the
noise of single pixels. In the binned image it is of the usual size, while
small objects are lost. Where that shows one object, the pieces of the other
are joined, and what they leave to the sky is given to it.
"""

import numpy as np
from scipy.ndimage import find_objects, gaussian_filter, zoom

from astrodino_seg.binning import bin_channels
from astrodino_seg.grouping import segment_maps
from astrodino_seg.inference import predict
from astrodino_seg.joining import Giants

__all__ = ['FACTORS', 'find_giants', 'giants_of', 'look_at_binned']

#: Further binnings of the image that are looked at, each a multiple of the
#: one before.
FACTORS = (4, 16)
#: Area of a giant, in pixels of the binned image: a radius of 10.
GIANT_AREA = 10**2 * np.pi


def find_giants(model, channels, *, merge, min_seed, bin_factor=1,
                device='cpu', tile_size=512):
    """
    Label the giant galaxies of an image.

    Parameters
    ----------
    model, channels, bin_factor, device, tile_size
        As of `~astrodino_seg.inference.predict`; the image is binned by
        4 and by 16 times ``bin_factor``.
    merge, min_seed : float
        As of `~astrodino_seg.grouping.segment_maps`.

    Returns
    -------
    giants : list of `~astrodino_seg.joining.Giants`
        Of each look that shows some. These are objects with the area of a
        circle with a radius of 10 binned pixels or more.
    """
    looks = look_at_binned(model, channels, bin_factor=bin_factor,
                           device=device, tile_size=tile_size)
    found = [giants_of(prediction, channels.shape[1:], factor, merge=merge,
                       min_seed=min_seed)
             for factor, prediction in looks.items()]
    return [one for one in found if one is not None]


def look_at_binned(model, channels, *, bin_factor=1, device='cpu',
                   tile_size=512):
    """
    What the network says of the binned image.

    Parameters
    ----------
    model, channels, bin_factor, device, tile_size
        As of `find_giants`.

    Returns
    -------
    looks : dict of int to `~astrodino_seg.prediction.Prediction`
        By the number of pixels, in x and in y, that were binned; in binned
        pixels. Binnings whose image could not hold a giant are left out.
    """
    n_pixels, done, looks = channels.shape[1] * channels.shape[2], 1, {}
    for step in FACTORS:
        factor = bin_factor * step
        if n_pixels >= GIANT_AREA * factor**2:
            channels = bin_channels(channels, factor // done,
                                    model.head.in_channels)
            done = factor
            looks[factor] = predict(model, channels, bin_factor=1,
                                    device=device, tile_size=tile_size)
    return looks


def giants_of(prediction, shape, factor, *, merge, min_seed):
    """
    Label the giant galaxies that a look at the binned image has shown.

    Parameters
    ----------
    prediction : `~astrodino_seg.prediction.Prediction`
        Of `look_at_binned`.
    shape : tuple of int
        (ny, nx) of the image.
    factor : int
        Pixels that are binned.
    merge, min_seed
        As of `find_giants`.

    Returns
    -------
    giants : `~astrodino_seg.joining.Giants` or None
        `None` if there are none.
    """
    labels = segment_maps(prediction, merge=merge, min_seed=min_seed,
                          n_pixels=1).groups
    area = np.bincount(labels.ravel())
    area[0] = 0
    if area.max(initial=0) < GIANT_AREA:
        return None
    giants = np.zeros(shape, np.int32)
    boxes = find_objects(labels)
    for k in np.flatnonzero(area >= GIANT_AREA):
        # interpolated, so that the outline has no steps of a binned pixel
        box = tuple(slice(max(one.start - 4, 0), one.stop + 4)
                    for one in boxes[k - 1])
        soft = gaussian_filter((labels[box] == k).astype(np.float32), 0.7)
        full = zoom(soft, factor, order=1, mode='nearest', grid_mode=True)
        there = giants[tuple(slice(factor * one.start, factor * one.stop)
                             for one in box)]
        there[full[:there.shape[0], :there.shape[1]] > 0.5] = k
    return Giants(giants, factor)
