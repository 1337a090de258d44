# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The colour of an irregular galaxy
=================================

A clumpy galaxy in pieces has as many colours as pieces. As one label it has
one, from the same pixels in all bands. The truth is known: the galaxy is
simulated.
"""

import numpy as np

from astrodino_seg import DinoSegmenter
from astrodino_seg.evaluate.baselines import FINDERS
from astrodino_seg.plotting import plot_segmentations, rgb_image, save_figure
from astrodino_seg.simulate import make_scene, observe

scene = make_scene(6, size=224, band_set='griz', psf_fwhm=3.5, density=0.5,
                   rates={'large': 1, 'irregular': 1000, 'group': 0,
                          'companion': 0, 'bright_star': 0, 'background': 0,
                          'star_on_galaxy': 0})
image, truth = observe(scene, 6, depth=1.5, bands=range(4), rates={
    'gradient': 0, 'missing_bands': 0, 'gap': 0, 'trail': 0, 'stripes': 0,
    'uneven_depth': 0, 'cosmic_ray': 0})
result = DinoSegmenter().segment(image)
data = image.cube - result.background
g, r = image.bands.index('g'), image.bands.index('r')


def colours(labels, inside):
    """The g - r of each label that has 300 pixels in a region."""
    for label in np.unique(labels[inside & (labels > 0)]):
        part = labels == label
        flux = data[g][part].sum(), data[r][part].sum()
        if min(flux) > 0 and (part & inside).sum() > 300:
            yield label, part.sum(), -2.5 * np.log10(flux[0] / flux[1])


galaxy = np.argmax(truth.objects['n_pixels'])
inside = truth.labels == truth.objects['id'][galaxy]
flux = truth.objects['flux'][galaxy]
print(f'the truth: g - r = {-2.5 * np.log10(flux[g] / flux[r]):.2f}')

maps = {'photutils': FINDERS['photutils']()(image).data,
        'DinoSegmenter': result.segmentation_image.data}
for name, labels in maps.items():
    for label, area, colour in colours(labels, inside):
        print(f'{name}, label {label}, {area} pixels: g - r = {colour:.2f}')

# %%
# Here one lobe of the galaxy is taken for an object of its own, with a colour
# that is right for it; and the label of the rest reaches the frame's edge.
save_figure(plot_segmentations(
    rgb_image(image, result.background, result.noise),
    {**maps, 'the truth': truth.labels.clip(0)}, columns=2, width=4),
    'irregular_colours.png')
