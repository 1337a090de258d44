# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Make the bundled sample of ``astrodino demo``.

    python -m benchmarks.model.make_demo astrodino_seg/data/demo_griz.fits.fz

One simulated scene of the benchmark split in g, r, i, z, with a WCS, stored
with lossy RICE compression (a sixteenth of the noise). The bundled file was
made with version 3 of the simulations; later ones draw another scene of the
same seed.
"""

import argparse
import os

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS

from astrodino_seg.simulate import make_scene, observe
from astrodino_seg.simulate.scene_library import SPLITS

SEED = SPLITS['benchmark'][0] + 90_017


def demo_image(seed=SEED, size=448):
    """The image and the truth of the demo scene."""
    scene = make_scene(seed, size=size, band_set='griz', density=0.8)
    return observe(scene, seed + 1, depth=1.5, bands=range(4))


def main():
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('output')
    parser.add_argument('--seed', type=int, default=SEED)
    args = parser.parse_args()
    image, truth = demo_image(args.seed)
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = 'RA---TAN', 'DEC--TAN'
    wcs.wcs.crval = 150.1, 2.2
    wcs.wcs.cdelt = -0.262 / 3600, 0.262 / 3600
    wcs.wcs.crpix = (np.array(image.shape[::-1]) + 1) / 2
    header = wcs.to_header()
    header['BANDS'] = ''.join(image.bands)
    header['SIMSEED'] = (args.seed, 'seed of the simulated scene')
    header['NTRUE'] = (len(truth.objects['id']), 'objects in the truth')
    data = np.where(image.mask, np.nan, image.cube).astype(np.float32)
    hdu = fits.CompImageHDU(data, header, compression_type='RICE_1',
                            quantize_level=16, dither_seed=1,
                            quantize_method=1)
    temporary = f'{args.output}.part'
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(temporary, overwrite=True)
    os.replace(temporary, args.output)


if __name__ == '__main__':
    main()
