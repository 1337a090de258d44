# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Search for what looks alike
===========================

Each label becomes a cutout and each cutout a vector; the nearest vectors are
those of objects that look alike to the network. No label of a class is used.
"""

import numpy as np

from astrodino_seg import DinoSegmenter
from astrodino_seg.datasets import demo_image
from astrodino_seg.embed import embedding_table, label_cutouts, similar
from astrodino_seg.plotting import plot_neighbours, save_figure

image = demo_image()
result = DinoSegmenter().segment(image)
found = label_cutouts(image, result.segmentation_image, size=32)
table = embedding_table(found, size=64, what='patch')
print(f"{len(table)} vectors of {table['embedding'].shape[1]} numbers")

# %%
# Of each query's neighbours, some are of its class and some are not: the
# bundled backbone is small, and stars and galaxies of a few pixels look much
# alike at this size.
#
# The queries: the brightest star, the brightest small galaxy, and a faint one
classes = result.table['class']
flux = np.asarray(result.table['flux_r'])
small = np.asarray(result.table['area'].value) < 300
stars = np.flatnonzero((classes == 'star') & small)
galaxies = np.flatnonzero((classes == 'galaxy') & small)
queries = [stars[flux[stars].argmax()],
           *galaxies[np.argsort(-flux[galaxies])[[0, 10]]]]
alike = similar(table, [int(k) for k in queries], n=6)
for query in queries:
    rows = alike['row'][alike['query'] == query]
    print(f'{classes[query]}: ' + ', '.join(classes[np.asarray(rows)]))
save_figure(plot_neighbours(found, alike), 'similar.png')
