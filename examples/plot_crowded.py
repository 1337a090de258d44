# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
A crowded cluster
=================

The core of a globular cluster, simulated. This is not what the package is
best at: in the core most stars are lost to brighter neighbours. Take a
PSF-fitting tool for such fields, and labels at most for its first guesses.
"""

import matplotlib.pyplot as plt
import numpy as np

from astrodino_seg import DinoSegmenter
from astrodino_seg.plotting import outline_rgb, rgb_image
from astrodino_seg.simulate import make_scene, observe

scene = make_scene(4, size=160, band_set='griz', psf_fwhm=3.5, density=0.2,
                   rates={'star_field': 1, 'large': 0, 'bright_star': 0})
image, truth = observe(scene, 4, depth=1.5, bands=range(4), rates={
    'gradient': 0, 'missing_bands': 0, 'gap': 0, 'trail': 0, 'stripes': 0,
    'uneven_depth': 0, 'cosmic_ray': 0})
result = DinoSegmenter().segment(image)
labels = result.segmentation_image.data

# %%
# A star is found here if the label at its position is that of no brighter
# one.
objects = truth.objects
x, y = (np.rint(objects[axis]).astype(int).clip(0, 159) for axis in 'xy')
flux = objects['flux'].sum(axis=1)
taken, found = {0}, np.zeros(len(x), bool)
for k in np.argsort(-flux):
    found[k] = labels[y[k], x[k]] not in taken
    taken.add(labels[y[k], x[k]])
middle = flux @ x / flux.sum(), flux @ y / flux.sum()
distance = np.hypot(x - middle[0], y - middle[1])
for near, far in ((0, 20), (20, 40), (40, 160)):
    ring = (distance >= near) & (distance < far)
    print(f'{near} to {far} pixels from the middle: {found[ring].sum()} of '
          f'{ring.sum()} stars')

rgb = rgb_image(image, result.background, result.noise)
figure, axes = plt.subplots(1, 2, figsize=(10, 5.3), layout='constrained')
axes[0].imshow(rgb, origin='lower')
axes[1].imshow(outline_rgb(rgb, labels), origin='lower')
axes[1].plot(x[~found], y[~found], '+', color='tab:orange', ms=5)
axes[0].set_title('a cluster')
axes[1].set_title(f'{len(result.table)} labels; + are stars without one')
for axis in axes:
    axis.set(xlim=(-.5, 159.5), ylim=(-.5, 159.5))
figure.savefig('crowded.png', dpi=100)
plt.close(figure)
