# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
A galaxy of low surface brightness
==================================

Most of its light lies below any threshold on single pixels. The network looks
at binned copies of the image too, in which such a galaxy stands out. Beside
it is photutils with its usual threshold of 1.5 sigma.
"""

import numpy as np

from astrodino_seg import DinoSegmenter
from astrodino_seg.evaluate.baselines import FINDERS
from astrodino_seg.plotting import plot_segmentations, rgb_image, save_figure
from astrodino_seg.simulate import make_scene, observe

scene = make_scene(3, size=224, band_set='griz', psf_fwhm=3.5, density=0.5,
                   rates={'large': 1, 'lsb': 1000, 'group': 0, 'pair': 0,
                          'companion': 0, 'bright_star': 0, 'background': 0,
                          'star_on_galaxy': 0})
image, truth = observe(scene, 3, depth=1.5, bands=range(4), rates={
    'gradient': 0, 'missing_bands': 0, 'gap': 0, 'trail': 0, 'stripes': 0,
    'uneven_depth': 0, 'cosmic_ray': 0})
result = DinoSegmenter().segment(image)

sn = ((image.cube - result.background) / result.noise).sum(axis=0)
sn /= np.sqrt(image.n_bands)
maps = {'photutils': FINDERS['photutils']()(image).data,
        'DinoSegmenter': result.segmentation_image.data}

# the largest galaxy of the scene, and whatever of it a label holds
large = np.argmax(truth.objects['re'])
x, y, re = (truth.objects[key][large] for key in ('x', 'y', 're'))
yy, xx = np.indices(image.shape)
near = np.hypot(xx - x, yy - y) < 1.5 * re
print(f'S/N of a pixel within its half-light radius, in the median: '
      f'{np.median(sn[np.hypot(xx - x, yy - y) < re]):.2f}')
for name, labels in maps.items():
    names, counts = np.unique(labels[near & (labels > 0)],
                              return_counts=True)
    print(f'{name}: {(counts > 30).sum()} labels of more than 30 pixels '
          f'there, which hold {counts[counts > 30].sum() / near.sum():.0%} '
          f'of its pixels')

save_figure(plot_segmentations(
    rgb_image(image, result.background, result.noise),
    {**maps, 'the truth': truth.labels.clip(0)}, columns=2, width=4),
    'lsb.png')
