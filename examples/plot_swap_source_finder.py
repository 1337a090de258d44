# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Swap SourceFinder for DinoSegmenter
===================================

The photometry of an existing script stays as it is; one line changes.
"""

import matplotlib.pyplot as plt
import numpy as np
from photutils.background import Background2D
from photutils.segmentation import SourceCatalog, SourceFinder

from astrodino_seg import DinoSegmenter
from astrodino_seg.datasets import demo_image

# one band of the bundled sample, as a script would read it from a file
image = demo_image()
data = image.cube[image.bands.index('r')]
background = Background2D(data, 64, filter_size=3)
data = data - background.background
threshold = 1.5 * background.background_rms

catalogs = {}
for finder in (SourceFinder(n_pixels=10, progress_bar=False),
               DinoSegmenter(n_pixels=10)):
    segm = finder(data, threshold)
    catalogs[type(finder).__name__] = segm, SourceCatalog(data, segm)

figure, axes = plt.subplots(1, 2, figsize=(12, 6.5), layout='constrained')
for axis, (name, (segm, catalog)) in zip(axes, catalogs.items()):
    axis.imshow(np.arcsinh(data), origin='lower', cmap='gray_r')
    segm.plot_patches(ax=axis, edgecolor='tab:red', lw=0.8)
    brightest = np.nanmax(catalog.segment_flux)
    axis.set_title(f'{name}: {segm.n_labels} labels, brightest '
                   f'{brightest:.3g}')
    print(f'{name}: {segm.n_labels} labels, flux of the brightest '
          f'{brightest:.4g}')
figure.savefig('swap_source_finder.png', dpi=100)
