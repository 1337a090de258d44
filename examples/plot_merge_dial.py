# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
A star on a spiral: what merging costs
======================================

Each object is put together from pieces, and ``merge`` says how readily. A low
value cuts galaxies in pieces, a high one swallows the stars that lie before
them. Here are both, with the truth beside.
"""

import numpy as np

from astrodino_seg import DinoSegmenter
from astrodino_seg.plotting import plot_segmentations, rgb_image, save_figure
from astrodino_seg.simulate import make_scene, observe

scene = make_scene(2, size=224, band_set='griz', psf_fwhm=3.5, density=0.5,
                   rates={'large': 1, 'spiral': 1000, 'group': 0,
                          'companion': 0, 'bright_star': 0, 'background': 0,
                          'star_on_galaxy': 2})
image, truth = observe(scene, 2, depth=1.5, bands=range(4), rates={
    'gradient': 0, 'missing_bands': 0, 'gap': 0, 'trail': 0, 'stripes': 0,
    'uneven_depth': 0, 'cosmic_ray': 0})
objects = truth.objects
spiral = np.argmax(objects['n_pixels'])
inside = truth.labels == objects['id'][spiral]
on_it = np.flatnonzero(objects['overlaps'] == objects['id'][spiral])

panels = {}
for merge in (0.0, 0.3, 0.8):
    result = DinoSegmenter(merge=merge).segment(image)
    labels = result.segmentation_image.data
    own = np.bincount(labels[inside])[1:].argmax() + 1
    pieces, counts = np.unique(labels[inside], return_counts=True)
    n_pieces = (counts[pieces > 0] > 30).sum()
    apart = sum(labels[int(objects['y'][k]), int(objects['x'][k])]
                not in (0, own) for k in on_it)
    panels[f'merge={merge}'] = labels
    print(f'merge={merge}: the spiral is in {n_pieces} labels of more than '
          f'30 pixels; {apart} of {len(on_it)} objects on it are apart')

# %%
# The default, 0.3, is meant for catalogues in which a swallowed star is as
# bad as a shredded galaxy. :doc:`/evidence/calibration` has the whole curve,
# with the dials of other tools beside.
panels['the truth'] = truth.labels.clip(0)
rgb = rgb_image(image, result.background, result.noise)
save_figure(plot_segmentations(rgb, panels, columns=3, width=3),
            'merge_dial.png')
