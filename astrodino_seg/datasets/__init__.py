# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Images to try things on, and to train and measure on.

One module a source; each gives `~astrodino_seg.Image`, one by one.
"""

from astrodino_seg.datasets.folder import FolderImages, demo_image
from astrodino_seg.datasets.legacy import LegacyCutouts
from astrodino_seg.datasets.multimodal import MultimodalImages
from astrodino_seg.datasets.pictures import Galaxy10
from astrodino_seg.datasets.tables import random_split, sky_split

__all__ = ['FolderImages', 'Galaxy10', 'LegacyCutouts', 'MultimodalImages',
           'demo_image', 'random_split', 'sky_split']
