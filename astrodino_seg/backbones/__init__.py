# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Backbones: the bundled one, and weights that others have trained.

`load_backbone` reads DINO, DINOv2 and DINOv3, by the names of ``timm`` or from
files, and the two checkpoints of AstroCLIP. Whatever the family, the result is
a `~astrodino_seg.vit.VisionTransformer` and the rule that makes its input
planes from an image of any number of bands.
"""

from astrodino_seg.backbones.core import Backbone, load_backbone
from astrodino_seg.planes import (
    NanomaggyRGB,
    NoiseUnits,
    Photographic,
)

__all__ = ['Backbone', 'NanomaggyRGB', 'NoiseUnits', 'Photographic',
           'load_backbone']
