# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Adapt the model to an instrument
================================

Ten images of an instrument with labels, some of your own making, are enough
to train the head a little further. Here simulated ones stand in for them:
four small images with a wide PSF, and so few steps that it takes seconds and
changes next to nothing. Take a hundred and more, and images of 256 pixels:
:doc:`/training/labels` has what that is worth.
"""

from tempfile import TemporaryDirectory

from astrodino_seg import DinoSegmenter, load_model
from astrodino_seg.plotting import plot_segmentations, rgb_image, save_figure
from astrodino_seg.simulate import make_scene, observe
from astrodino_seg.train import fit_head


def labelled(seed):
    """An image and its labels, in place of your own."""
    scene = make_scene(seed, size=96, band_set='jwst', psf_fwhm=7.5,
                       density=1.0)
    image, truth = observe(scene, seed, depth=2,
                           bands=range(len(scene.bands)))
    return image, truth.labels


pairs = [labelled(seed) for seed in range(4)]
image, truth = labelled(13)
before = DinoSegmenter().segment(image)

with TemporaryDirectory() as folder:
    model = fit_head(load_model(), pairs, out=folder, n_steps=3,
                     crop_size=64, validate_every=3, progress=False)
after = DinoSegmenter(model=model).segment(image)

print(f'before: {len(before.table)} labels, after: {len(after.table)}')
save_figure(plot_segmentations(
    rgb_image(image, before.background, before.noise),
    {'before': before.segmentation_image.data,
     'after 3 steps': after.segmentation_image.data,
     'labelled': truth.clip(0)}, columns=2, width=4), 'adapt.png')
