# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Lay the real development images out for pretraining.

    python -m benchmarks.model.real_images OUTPUT [--data FOLDER] [--side 640]

Each of `FIELDS` is cut into pieces of at most ``--side`` pixels, so that a
large image gives as many items as its sky is large, and each piece is written
as a FITS file, bands as extensions. A recipe of ``astrodino pretrain`` then
has ::

    [[images]]
    kind = "folder"
    path = "OUTPUT"

Pieces smaller than 128 pixels, and those with a tenth of valid pixels or
less, are left out. The folder of the images is ``--data``, or the environment
variable ASTRODINO_DATA. Files that exist are kept.
"""

import argparse
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np

from astrodino_seg.image import write_image
from benchmarks.common import fields, parse_with_data, read_field

#: The fields that a backbone sees; galaxy_zoo_examples are kept for testing.
FIELDS = ('kids_nine', 'jwst_three', 'jwst_f770w_80mas', 'hsc_35', 'hsc',
          'hsc_spiral', 'sdss_ngc6976', 'spiral_DES', 'spiral_PS1',
          'spiral_SDSS', 'legacy_cluster_ring_grz',
          'legacy_cutout_59.1067_-30.4848_grz_invvar_psf',
          'legacy_dr10_griz_192.6009_-28.2675', 'legacy_decals_dr5_example_a',
          'legacy_decals_dr5_example_b', 'single_M51', 'single_HST-HDFS',
          'single_image')
LEAST = 128         # pixels a side
LEAST_VALID = 0.1


def pieces(shape, side):
    """Yield slices that cut an image into equal parts of at most `side`."""
    edges = [np.linspace(0, n, -(-n // side) + 1).round().astype(int)
             for n in shape]
    for y0, y1 in zip(edges[0], edges[0][1:]):
        for x0, x1 in zip(edges[1], edges[1][1:]):
            yield np.s_[y0:y1, x0:x1]


def main():
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('output', type=Path)
    parser.add_argument('--side', type=int, default=640)
    args = parse_with_data(parser)
    args.output.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter('ignore')
    sources = fields(args.data)
    for name in FIELDS:
        image = read_field(sources[name][0])
        for k, part in enumerate(pieces(image.shape, args.side)):
            cut = np.s_[:, *part]
            piece = replace(image, cube=image.cube[cut], wcs=None,
                            mask=image.mask[cut], noise=None
                            if image.noise is None else image.noise[cut])
            path = args.output / f'{name}-{k:02d}.fits'
            valid = 1 - piece.mask.mean()
            if min(piece.shape) < LEAST or valid <= LEAST_VALID:
                print(f'{path.name}: {piece.shape}, {valid:.2f} valid: '
                      f'left out')
            elif not path.exists():
                write_image(path, piece)
                print(f'{path.name}: {",".join(piece.bands)} {piece.shape}',
                      flush=True)


if __name__ == '__main__':
    main()
