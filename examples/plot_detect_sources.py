# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Replace detect_sources in a script
==================================

A script that measures with photutils keeps its form. What was detected and
then deblended is found in one call, and the rest does not change:

.. code-block:: diff

    from photutils.background import Background2D
   -from photutils.segmentation import (SourceCatalog, deblend_sources,
   -                                    detect_sources)
   +from photutils.segmentation import SourceCatalog
   +from astrodino_seg import detect_sources

    background = Background2D(data, 64, filter_size=3)
    data = data - background.background
    threshold = 1.5 * background.background_rms
    segm = detect_sources(data, threshold, n_pixels=10)
   -segm = deblend_sources(data, segm, n_pixels=10)
    catalog = SourceCatalog(data, segm)

Below are both, on one band of the image that comes with the package.
It is a hard one: three galaxies before a sky that is not flat.
"""

import photutils.segmentation as photutils
from photutils.background import Background2D

import astrodino_seg
from astrodino_seg import as_image
from astrodino_seg.datasets import demo_image
from astrodino_seg.plotting import plot_segmentations, rgb_image, save_figure

image = demo_image()
data = image.cube[image.bands.index('r')]
background = Background2D(data, 64, filter_size=3)
data = data - background.background
threshold = 1.5 * background.background_rms

before = photutils.detect_sources(data, threshold, n_pixels=10)
before = photutils.deblend_sources(data, before, n_pixels=10,
                                   progress_bar=False)
after = astrodino_seg.detect_sources(data, threshold, n_pixels=10)

for name, segm in (('before', before), ('after', after)):
    table = photutils.SourceCatalog(data, segm).to_table(
        columns=['label', 'area', 'segment_flux'])
    table.sort('segment_flux', reverse=True)
    print(f'{name}: {segm.n_labels} labels, the brightest:')
    print(table[:3], end='\n\n')

# %%
# Deblending cuts all three galaxies in pieces. The labels of the network are
# fewer, but they follow the light far into the sky, and the outline between
# the spiral and the edge-on galaxy above it is not where one would draw it.
panels = {'before': before.data, 'after': after.data}
save_figure(plot_segmentations(rgb_image(as_image(data)), panels, width=4),
            'detect_sources.png')
