# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Replace SourceFinder in a script
================================

One line changes, and the photometry of the script stays as it is:

.. code-block:: diff

   -from photutils.segmentation import SourceFinder
   +from astrodino_seg import DinoSegmenter

   -finder = SourceFinder(n_pixels=10)
   +finder = DinoSegmenter(n_pixels=10)
    segm = finder(data, threshold)
    catalog = SourceCatalog(data, segm)

``DinoSegmenter`` takes the other arguments of ``SourceFinder`` too, and says
which of them it does not use. The image is that of photutils' own
documentation.
"""

import matplotlib.pyplot as plt
import numpy as np
from photutils.background import Background2D
from photutils.datasets import make_100gaussians_image
from photutils.segmentation import SourceCatalog, SourceFinder

from astrodino_seg import DinoSegmenter

data = make_100gaussians_image()
background = Background2D(data, 50, filter_size=3)
data = data - background.background
threshold = 1.5 * background.background_rms

catalogs = {}
for finder in (SourceFinder(n_pixels=10, progress_bar=False),
               DinoSegmenter(n_pixels=10)):
    segm = finder(data, threshold)
    catalogs[type(finder).__name__] = segm, SourceCatalog(data, segm)

figure, axes = plt.subplots(1, 2, figsize=(10, 3.7), layout='constrained')
for axis, (name, (segm, catalog)) in zip(axes, catalogs.items()):
    axis.imshow(np.arcsinh(data / np.median(background.background_rms)),
                origin='lower', cmap='gray_r', vmin=-1, vmax=4)
    segm.plot_patches(ax=axis, edgecolor='tab:red', lw=0.8)
    brightest = np.nanmax(catalog.segment_flux)
    axis.set_title(f'{name}: {segm.n_labels} labels')
    print(f'{name}: {segm.n_labels} labels, flux of the brightest '
          f'{brightest:.4g}')
figure.savefig('swap_source_finder.png', dpi=100)
plt.close(figure)
