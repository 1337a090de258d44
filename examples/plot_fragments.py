# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Pieces, objects and the merge dial
==================================

Each object is put together from pieces; the dial decides how readily.
"""

import numpy as np

from astrodino_seg import DinoSegmenter
from astrodino_seg.datasets import demo_image
from astrodino_seg.plotting import plot_segmentations, rgb_image, save_figure

image = demo_image()
panels = {}
for merge in (0.0, 0.5, 0.95):
    result = DinoSegmenter(merge=merge).segment(image)
    panels[f'merge={merge}'] = result.segmentation_image.data
    children = result.fragments.parent_to_deblended_labels
    print(f'merge={merge}: {len(result.table)} objects, {len(children)} of '
          f'them from more than one piece')

largest = result.table[np.argmax(result.table['area'])]
print(f"the largest is a {largest['class']} of {largest['area']:.0f}, from "
      f"{largest['n_fragments']} pieces, confidence "
      f"{largest['group_confidence']:.2f}")
rgb = rgb_image(image, result.background, result.noise)
save_figure(plot_segmentations(rgb, panels), 'fragments.png')
