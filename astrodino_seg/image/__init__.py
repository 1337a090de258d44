# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The gate: whatever holds an image in, one checked `Image` out.

Everything behind this package may rely on what `Image` promises, and nothing
else reads or writes FITS or WCS. Within it, data flow one way::

    objects (inputs), files (files, header, hdus) -> Layer (layer)
        -> one grid (stack) -> Image (core)
    labels, maps, Image -> FITS (labels, maps)
"""

from astrodino_seg.image.fits import write_plane
from astrodino_seg.image.image import Image, as_image
from astrodino_seg.image.labels import read_label_map, write_label_map
from astrodino_seg.image.maps import write_image, write_maps

__all__ = ['Image', 'as_image', 'read_label_map', 'write_image',
           'write_label_map', 'write_maps', 'write_plane']
