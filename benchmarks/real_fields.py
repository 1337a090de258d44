# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Segment the real development images and draw them, with photutils beside.

    python benchmarks/real_fields.py OUTPUT [NAME ...] [--data FOLDER]
        [--sheet FILE]

Without names, all of `FIELDS`. The folder of the images is ``--data``, or the
environment variable ASTRODINO_DATA. ``--sheet`` puts the pictures of `SHEET`
one below the other, for the docs.
"""

import argparse
import os
import time
import warnings
from pathlib import Path

import numpy as np
from PIL import Image as Picture

from astrodino_seg.evaluate.baselines import PhotutilsFinder
from astrodino_seg.image import as_image
from astrodino_seg.plotting import plot_segmentations, rgb_image, save_figure
from astrodino_seg.segmenter import DinoSegmenter

KIDS = 'kids_viking/{}.fits'
ZOOMS = {'spiral': (1050, 1362, 330, 630), 'merger': (1220, 1400, 1580, 1760),
         'tail': (790, 1030, 1760, 2000), 'edge_on': (1180, 1390, 930, 1130),
         'saturated': (520, 820, 610, 910), 'gaps': (0, 400, 0, 400)}


#: Pictures of the docs.
SHEET = ('spiral_DES', 'spiral_PS1', 'spiral_SDSS', 'jwst_three_spiral',
         'single_M51', 'kids_griZ_saturated', 'kids_griZ_tail',
         'kids_griZ_merger', 'kids_griZ_edge_on')
SHEET_WIDTH = 900       # pixels


def _npz(path):
    with np.load(path) as z:
        error = np.sqrt(z['variance']) if 'variance' in z else None
        return as_image(z['images'], error=error,
                        bands=[str(f) for f in z['filters']])


def _paths(folder, pattern, bands):
    return {band: folder / pattern.format(band) for band in bands}


def fields(folder):
    """Name to (input of `as_image`, zooms)."""
    sdss = folder / 'spiral_with_star/SDSS_{}.fits'
    kids = folder / KIDS
    jwst = folder / 'jwst_uds'
    out = {
        'kids_griZ': (_paths(folder, KIDS, 'griZ'), ZOOMS),
        'kids_nine': ({b: folder / KIDS.format(b) for b in (
            'u', 'g', 'r', 'i', 'Z', 'Y', 'J', 'H', 'Ks')},
            {'spiral': ZOOMS['spiral']}),
        'kids_r': (Path(str(kids).format('r')),
                   {'spiral': ZOOMS['spiral']}),
        'jwst_three': ({b: jwst / f'{b.lower()}_sci.fits' for b in (
            'F115W', 'F444W', 'F770W')}, {'spiral': (300, 500, 210, 410)}),
        'jwst_f770w_80mas': (jwst / 'f770w_80mas_sci.fits', {}),
        'hsc_35': (folder / 'hsc/hsc_cosmos_35.npz', {}),
        'hsc': (folder / 'hsc/hsc_cosmos.npz', {}),
        'hsc_spiral': (folder / 'hsc/hsc_ra=150.24071_dec=2.06514.fits', {}),
        'sdss_ngc6976': ({b: folder / 'sdss_ngc6976'
                          / f'reprojected_sdss_{b}.fits.bz2'
                          for b in 'gri'}, {})}
    for survey in ('DES', 'PS1'):
        out[f'spiral_{survey}'] = (
            _paths(folder, f'spiral_with_star/{survey}_{{}}.fits', 'griz'),
            {})
    # the cutouts' headers still have the WCS of the uncut frames, so that
    # bands on one pixel grid seem to be on four
    out['spiral_SDSS'] = ({b: as_image(str(sdss).format(b)).cube[0]
                           for b in 'griz'}, {})
    for name in ('cluster_ring_grz', 'cutout_59.1067_-30.4848_grz_invvar_psf',
                 'dr10_griz_192.6009_-28.2675', 'decals_dr5_example_a',
                 'decals_dr5_example_b'):
        out[f'legacy_{name}'] = (folder / f'legacy/{name}.fits', {})
    for name in ('M51', 'HST-HDFS', 'image'):
        out[f'single_{name}'] = (folder / f'single_band/{name}.fits', {})
    for path in sorted((folder / 'edge_cases').glob('*.fits*')):
        out[f'edge_{path.name.split(".")[0]}'] = (path, {})
    return out


def read_field(source):
    """The `~astrodino_seg.Image` of a source of `fields`."""
    return _npz(source) if str(source).endswith('.npz') else as_image(source)


def draw(name, source, zooms, output, finder):
    """Segment one field both ways and write its pictures."""
    try:
        image = read_field(source)
    except ValueError as err:
        print(f'{name}: refused: {err}')
        return
    start = time.perf_counter()
    result = finder.segment(image)
    seconds = time.perf_counter() - start
    peaks = PhotutilsFinder()(image)
    if result is None:
        print(f'{name}: nothing found')
        return
    print(f'{name}: {",".join(image.bands)} {image.shape} '
          f'{len(result.table)} labels in {seconds:.1f} s, photutils '
          f'{0 if peaks is None else peaks.n_labels}', flush=True)
    rgb = rgb_image(image, result.background, result.noise)
    both = {'DinoSegmenter': result.segmentation_image.data,
            'photutils deblending': None if peaks is None else peaks.data}
    save_figure(plot_segmentations(rgb, both), output / f'{name}.png',
                dpi=80 if max(image.shape) < 1500 else 160)
    for part, zoom in zooms.items():
        save_figure(plot_segmentations(rgb, both, zoom=zoom),
                    output / f'{name}_{part}.png', dpi=70)


def write_sheet(folder, path):
    """Write the pictures of `SHEET` as one."""
    pictures = []
    for name in SHEET:
        with Picture.open(folder / f'{name}.png') as one:
            height = round(one.height * SHEET_WIDTH / one.width)
            pictures.append(one.convert('RGB').resize((SHEET_WIDTH, height)))
    sheet = Picture.new('RGB', (SHEET_WIDTH, sum(
        one.height for one in pictures)))
    y = 0
    for one in pictures:
        sheet.paste(one, (0, y))
        y += one.height
    sheet.save(path, quality=80)


def main():
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('output', type=Path)
    parser.add_argument('names', nargs='*')
    parser.add_argument('--data', type=Path,
                        default=os.environ.get('ASTRODINO_DATA'))
    parser.add_argument('--model')
    parser.add_argument('--merge', type=float, default=DinoSegmenter().merge)
    parser.add_argument('--sheet', type=Path, help='for example a .jpg')
    args = parser.parse_args()
    if args.data is None or not Path(args.data).is_dir():
        parser.error('no folder of images: give --data')
    args.output.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter('ignore')
    finder = DinoSegmenter(model=args.model, merge=args.merge)
    for name, (source, zooms) in fields(Path(args.data)).items():
        if not args.names or name in args.names:
            draw(name, source, zooms, args.output, finder)
    if args.sheet:
        write_sheet(args.output, args.sheet)


if __name__ == '__main__':
    main()
