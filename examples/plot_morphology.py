# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Morphology from frozen embeddings
=================================

How much of a galaxy's kind is in the vectors of a network that was trained
without labels: a linear classifier is fitted to them, in five splits. The
galaxies are simulated, of three kinds; with images of your own, say
``FolderImages`` or ``Galaxy10``, it is the same call.
"""

from astrodino_seg.embed import embed, evaluate
from astrodino_seg.plotting import plot_confusion, save_figure
from astrodino_seg.simulate import make_scene, observe

kinds = ('spiral', 'elliptical', 'edge_on')


def galaxy(kind, seed):
    """A small scene with a galaxy of a kind; None if none came out large."""
    scene = make_scene(seed, size=96, band_set='griz', psf_fwhm=2.5,
                       density=0.2, rates={
                           kind: 1000, 'large': 1, 'group': 0, 'pair': 0,
                           'companion': 0, 'bright_star': 0, 'background': 0,
                           'star_on_galaxy': 0})
    image, truth = observe(scene, seed, depth=3, bands=range(4), rates={
        'gradient': 0, 'missing_bands': 0, 'gap': 0, 'trail': 0,
        'stripes': 0, 'uneven_depth': 0, 'cosmic_ray': 0})
    return image if truth.objects['primary'].any() else None


images, labels = [], []
for kind in kinds:
    for seed in range(20):
        one = galaxy(kind, seed)
        if one is not None:
            images.append(one)
            labels.append(kind)
print({kind: labels.count(kind) for kind in kinds})

# %%
# The mean of the patch tokens of the bundled backbone, and a linear probe on
# it. Chance would be the share of the most frequent kind. With so few images
# the numbers are rough; :doc:`/using/probe` has those of a real sample.
vectors = embed(images, what='patch')
result = evaluate(vectors, labels, protocol='linear', classes=kinds)
print(result)
print(f'chance: {max(map(labels.count, kinds)) / len(labels):.2f}')
save_figure(plot_confusion(result, width=5), 'morphology.png')
