# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Draw the picture of the front page: a spiral in pieces, and as one label.

    python -m benchmarks.real_fields.front docs/front.jpg --data FOLDER

The galaxy, with a star before it, is ``spiral_SDSS`` of the development images
(SDSS). The pieces are those of photutils with the defaults of
`~astrodino_seg.evaluate.baselines.PhotutilsFinder`.
"""

import argparse
import warnings
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from astrodino_seg.evaluate.baselines import PhotutilsFinder
from astrodino_seg.plotting import outline_rgb, rgb_image, save_figure
from astrodino_seg.segmenter import DinoSegmenter
from benchmarks.common import fields, parse_with_data, read_field


def painted(rgb, labels):
    """The picture with each label in a colour of its own, and outlined."""
    colours = (255 * np.array(colormaps['tab20'].colors)).astype(int)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    rank = np.empty(len(sizes), int)
    rank[np.argsort(-sizes)] = np.arange(len(sizes))
    paint = colours[(2 * rank[labels]) % 19]
    mixed = np.where(labels[..., None] > 0, 0.55 * rgb + 0.45 * paint, rgb)
    return outline_rgb(mixed.astype(np.uint8), labels)


def main():
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('picture', type=Path)
    args = parse_with_data(parser)
    warnings.simplefilter('ignore')
    image = read_field(fields(args.data)['spiral_SDSS'][0])
    result = DinoSegmenter().segment(image)
    rgb = rgb_image(image, result.background, result.noise)
    y, x = np.array(rgb.shape[:2]) // 2
    panels = {'a spiral and a star (SDSS)': rgb}
    for name, segm in (
            ('photutils, detected and deblended', PhotutilsFinder()(image)),
            ('astrodino_seg', result.segmentation_image)):
        panels[name] = painted(rgb, segm.data)
        galaxy = result.segmentation_image.data
        inside = galaxy == galaxy[y, x]
        n = len(np.unique(segm.data[inside & (segm.data > 0)]))
        print(f'{name}: {segm.n_labels} labels, {n} on the galaxy')
    figure = Figure(figsize=(9.6, 3.4), layout='constrained',
                    facecolor='white')
    for axis, (name, picture) in zip(figure.subplots(1, 3), panels.items()):
        axis.imshow(picture, origin='lower')
        axis.set_title(name, fontsize=11)
        axis.axis('off')
    save_figure(figure, args.picture, dpi=100)


if __name__ == '__main__':
    main()
