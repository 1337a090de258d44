# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Images to try things on, and to train and measure on.

One module a source; each gives `~astrodino_seg.Image`, one by one.
"""

from astrodino_seg.datasets.demo import demo_image
from astrodino_seg.datasets.folder import FolderImages
from astrodino_seg.datasets.galaxy10 import GALAXY10_CLASSES, Galaxy10
from astrodino_seg.datasets.legacy import LegacyCutouts, legacy_cutout
from astrodino_seg.datasets.multimodal import (
    MultimodalImages,
    record_image,
    record_metadata,
)
from astrodino_seg.datasets.pictures import PictureFolder
from astrodino_seg.datasets.splits import random_split, sky_split

__all__ = ['GALAXY10_CLASSES', 'FolderImages', 'Galaxy10', 'LegacyCutouts',
           'MultimodalImages', 'PictureFolder', 'demo_image', 'legacy_cutout',
           'random_split', 'record_image', 'record_metadata', 'sky_split']
