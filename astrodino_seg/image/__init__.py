# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The gate: whatever holds an image in, one checked `Image` out.

Everything behind this package may rely on what `Image` promises, and nothing
else reads or writes FITS or WCS. Within it, data flow one way::

    objects (sources), files (planes, with fits and layouts)
        -> Layer (layer)
        -> one grid (grid) -> Image (image)
    labels, maps, Image -> FITS (write)
"""

from astrodino_seg.image.fits import ds9_positions, in_icrs, sky_to_pixels
from astrodino_seg.image.grid import grid_of
from astrodino_seg.image.image import Image, as_image
from astrodino_seg.image.sources import cut_out
from astrodino_seg.image.write import (
    GrowingLabelMap,
    read_label_map,
    read_plane,
    write_image,
    write_label_map,
    write_maps,
    write_plane,
)

__all__ = ['Image', 'as_image', 'write_image', 'write_label_map']
