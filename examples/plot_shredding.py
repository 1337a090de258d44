# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
One spiral, shredded by deblending, or as one label
===================================================

A threshold finds the spiral together with what touches it. Deblending takes
the neighbours off, and cuts the spiral into pieces with the same setting.
"""

import numpy as np
from photutils.segmentation import deblend_sources, detect_sources

from astrodino_seg import DinoSegmenter
from astrodino_seg.datasets import demo_image
from astrodino_seg.evaluate.baselines import detection_image
from astrodino_seg.evaluate.baselines.base import smooth
from astrodino_seg.plotting import plot_segmentations, rgb_image, save_figure

image = demo_image()
result = DinoSegmenter().segment(image)
spiral = result.table[np.argmax(result.table['area'])]
inside = result.segmentation_image.data == spiral['label']

# photutils, with the settings of its own tutorial
sn, _ = detection_image(image)
sn = smooth(sn, 3)
segments = detect_sources(sn, 1.5, 10)
primary = np.bincount(segments.data[inside])[1:].argmax() + 1
deblended = deblend_sources(sn, segments, 10, labels=[primary],
                            n_levels=32, contrast=0.001, progress_bar=False)

for name, found in (('detect_sources', segments),
                    ('deblend_sources', deblended)):
    print(f'{name}: {len(np.unique(found.data[inside]))} labels on the spiral')

ny, nx = image.shape
x, y = (int(spiral[f'{axis}_centroid']) for axis in 'xy')
zoom = max(x - 100, 0), min(x + 100, nx), max(y - 100, 0), min(y + 100, ny)
panels = {'detect_sources': segments.data,
          'deblend_sources': deblended.data,
          'DinoSegmenter': result.segmentation_image.data}
rgb = rgb_image(image, result.background, result.noise)
save_figure(plot_segmentations(rgb, panels, zoom=zoom, width=4),
            'shredding.png')
