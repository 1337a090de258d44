# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Classes of pixels, and one label for a spiral
=============================================

The pixels of a spiral galaxy are of several classes: knots in its arms look
like stars. Its label is one nevertheless.
"""

import numpy as np

from astrodino_seg import DinoSegmenter
from astrodino_seg.datasets import demo_image
from astrodino_seg.plotting import plot_classes, rgb_image, save_figure

image = demo_image()
result = DinoSegmenter().segment(image)
labels = result.segmentation_image
spiral = result.table[np.argmax(result.table['area'])]
inside = labels.data == spiral['label']
for k, name in enumerate(('star', 'galaxy', 'artifact'), start=1):
    share = (result.class_map[inside] == k).mean()
    print(f'{share:.1%} of the pixels of label {spiral["label"]}: {name}')

ny, nx = image.shape
x, y = (int(spiral[f'{axis}_centroid']) for axis in 'xy')
zoom = max(x - 100, 0), min(x + 100, nx), max(y - 100, 0), min(y + 100, ny)
rgb = rgb_image(image, result.background, result.noise)
save_figure(plot_classes(rgb, result.class_map, labels.data, zoom=zoom),
            'classes.png')
