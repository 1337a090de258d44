# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Classes of pixels, and one label for a spiral
=============================================

The pixels of a spiral galaxy are of several classes: knots in its arms look
like stars. Its label is one nevertheless.
"""

import numpy as np

from astrodino_seg import DinoSegmenter
from astrodino_seg.plotting import plot_classes, rgb_image, save_figure
from astrodino_seg.simulate import make_scene, observe

scene = make_scene(10, size=224, band_set='griz', psf_fwhm=3.5, density=0.5,
                   rates={'large': 1, 'spiral': 1000, 'group': 0, 'pair': 0,
                          'companion': 0, 'bright_star': 0, 'background': 0})
image, truth = observe(scene, 10, depth=1.5, bands=range(4), rates={
    'gradient': 0, 'missing_bands': 0, 'gap': 0, 'trail': 0, 'stripes': 0,
    'uneven_depth': 0, 'cosmic_ray': 0})
result = DinoSegmenter().segment(image)
labels = result.segmentation_image
spiral = result.table[np.argmax(result.table['area'])]
inside = labels.data == spiral['label']
for k, name in enumerate(('star', 'galaxy', 'artifact'), start=1):
    share = (result.class_map[inside] == k).mean()
    print(f'{share:.1%} of the pixels of label {spiral["label"]}: {name}')

rgb = rgb_image(image, result.background, result.noise)
save_figure(plot_classes(rgb, result.class_map, labels.data, width=4),
            'classes.png')
