# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Attention maps and naive masks
==============================

What each head looks at, and the patches that hold the top 40% of it. The name
or file of a backbone can be given, ``vit_small_patch8_224.dino`` for example;
by default it is the bundled one, which was trained without labels. Its three
heads look at parts of the two galaxies on the lower edge, and at what else
stands out; masks are as coarse as its patches of 16 pixels. They are no
segmentation.
"""

import sys

from astrodino_seg.datasets import demo_image
from astrodino_seg.embed import attention_maps
from astrodino_seg.models import load_backbone
from astrodino_seg.plotting import plot_attention, rgb_image, save_figure

image = demo_image()
backbone = load_backbone(*sys.argv[1:2])
maps = attention_maps(image, backbone)
for k, head in enumerate(maps.segmentations(keep_mass=0.4)):
    print(f'head {k + 1}: {head.n_labels} regions, '
          f'{(head.data > 0).mean():.1%} of the pixels')
figure = plot_attention(rgb_image(image), maps.upsampled(), maps.masks(0.4),
                        maps.combined(0.4))
save_figure(figure, 'attention.png')
