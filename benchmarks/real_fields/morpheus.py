# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Draw a real spiral as its pixels, as pieces, and as one label.

    python -m benchmarks.real_fields.morpheus OUTPUT [--data FOLDER]

The two pictures are those of Hausen & Robertson 2020 (ApJS, 248, 20) that
``examples/plot_classes.py`` and ``examples/plot_shredding.py`` show on the
bundled scene: ``morpheus_classes.png`` and ``morpheus_shredding.png``. The
folder of the images is ``--data``, or the environment variable ASTRODINO_DATA.
"""

import argparse
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
from photutils.segmentation import deblend_sources, detect_sources

from astrodino_seg.evaluate.finders import detection_image, smooth
from astrodino_seg.plotting import (
    plot_classes,
    plot_segmentations,
    rgb_image,
    save_figure,
)
from astrodino_seg.segmenter import DinoSegmenter
from benchmarks.common import fields, parse_with_data, read_field

FIELD = 'kids_griZ'
X, Y = 1206, 477        # of the spiral
AROUND, SHOWN = 400, 96


def square(x, y, side):
    """(x0, x1, y0, y1) of the square of twice a side about a pixel."""
    return x - side, x + side, y - side, y + side


def cut(image, zoom):
    """A part of an image."""
    x0, x1, y0, y1 = zoom
    part = np.s_[:, y0:y1, x0:x1]
    noise = None if image.noise is None else image.noise[part]
    return replace(image, cube=image.cube[part], mask=image.mask[part],
                   noise=noise, wcs=None)


def photutils_maps(image, inside):
    """
    What a threshold finds, and that with one of its segments deblended.

    ``inside`` are the pixels of an object, (y, x) bool; the segment that has
    most of them is deblended. The settings are those of photutils' tutorial.
    """
    sn, mask = detection_image(image)
    sn = smooth(sn, 3)
    segments = detect_sources(sn, 1.5, 10, mask=mask)
    primary = np.bincount(segments.data[inside])[1:].argmax() + 1
    deblended = deblend_sources(sn, segments, 10, labels=[primary],
                                n_levels=32, contrast=0.001,
                                progress_bar=False)
    return segments.data, deblended.data


def main():
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('output', type=Path)
    args = parse_with_data(parser)
    args.output.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter('ignore')
    image = read_field(fields(args.data)[FIELD][0])
    image = cut(image, square(X, Y, AROUND))
    result = DinoSegmenter().segment(image)
    labels = result.segmentation_image.data
    inside = labels == labels[AROUND, AROUND]
    segments, deblended = photutils_maps(image, inside)
    for name, found in (('detect_sources', segments),
                        ('deblend_sources', deblended),
                        ('DinoSegmenter', labels)):
        n = len(np.unique(found[inside & (found > 0)]))
        print(f'{name}: {n} labels on the spiral')
    rgb = rgb_image(image, result.background, result.noise)
    zoom = square(AROUND, AROUND, SHOWN)
    save_figure(plot_classes(rgb, result.class_map, labels, zoom=zoom,
                             width=4), args.output / 'morpheus_classes.png',
                dpi=72)
    maps = {'detect_sources': segments, 'deblend_sources': deblended,
            'DinoSegmenter': labels}
    save_figure(plot_segmentations(rgb, maps, zoom=zoom, width=4),
                args.output / 'morpheus_shredding.png', dpi=72)


if __name__ == '__main__':
    main()
