# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Apertures and Kron fluxes of grouped sources
============================================

What ``DinoSegmenter`` returns is a segmentation image of photutils, so that
``SourceCatalog`` measures on it as on any other: moments, circular apertures,
Kron fluxes. Neighbours are masked by their labels. The image is simulated.
"""

import matplotlib.pyplot as plt
import numpy as np
from photutils.segmentation import SourceCatalog

from astrodino_seg import DinoSegmenter
from astrodino_seg.simulate import make_scene, observe

scene = make_scene(10, size=224, band_set='griz', psf_fwhm=3.5, density=0.5,
                   rates={'large': 1, 'spiral': 1000, 'group': 0, 'pair': 0,
                          'companion': 0, 'bright_star': 0, 'background': 0})
image, _ = observe(scene, 10, depth=1.5, bands=range(4), rates={
    'gradient': 0, 'missing_bands': 0, 'gap': 0, 'trail': 0, 'stripes': 0,
    'uneven_depth': 0, 'cosmic_ray': 0})
result = DinoSegmenter().segment(image)
r = image.bands.index('r')
data, error = image.cube[r] - result.background[r], result.noise[r]
catalog = SourceCatalog(data, result.segmentation_image, error=error)

table = catalog.to_table(columns=['label', 'area', 'elongation',
                                  'segment_flux', 'kron_flux'])
table['aperture_flux'] = catalog.circular_photometry(8)[0]
table['total_flux'] = result.table['total_flux_r']
table['class'] = result.table['class']
for name in ('segment_flux', 'kron_flux', 'aperture_flux', 'total_flux'):
    table[name].info.format = '.0f'
table['elongation'].info.format = '.2f'
order = np.argsort(-table['segment_flux'])
print(table[order[:8]])

# %%
# Labels are drawn, and the Kron apertures of the eight brightest are dashed.
# The label of the spiral reaches far out, and so does its Kron aperture, which
# takes in a little of the neighbours' light that their labels leave. The knot
# on the right, with a piece of its arm, is a label of its own and should not
# be.
figure, axis = plt.subplots(figsize=(6.5, 6.5), layout='constrained')
axis.imshow(np.arcsinh(data / np.median(error)), origin='lower',
            cmap='gray_r', vmin=-1, vmax=6)
result.segmentation_image.plot_patches(ax=axis, edgecolor='tab:orange',
                                       lw=0.6)
for k in order[:8]:
    catalog.kron_aperture[k].plot(ax=axis, color='tab:blue', ls='--', lw=1.2)
axis.set(xlim=(-.5, 223.5), ylim=(-.5, 223.5), xlabel='x', ylabel='y')
figure.savefig('photometry.png', dpi=100)
plt.close(figure)
