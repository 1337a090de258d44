# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Segment the real development images and draw them, with photutils beside.

    python -m benchmarks.real_fields.real_fields OUTPUT [NAME ...]
        [--data FOLDER] [--sheet FILE]

Without names, all of `benchmarks.common.fields`. The folder of the images is
``--data``, or the environment variable ASTRODINO_DATA. ``--sheet`` puts the
pictures of `SHEET` one below the other, for the docs.
"""

import argparse
import time
import warnings
from pathlib import Path

from PIL import Image as Picture

from astrodino_seg.evaluate.baselines import PhotutilsFinder
from astrodino_seg.plotting import plot_segmentations, rgb_image, save_figure
from astrodino_seg.segmenter import DinoSegmenter
from benchmarks.common import fields, parse_with_data, read_field

#: Pictures of the docs.
SHEET = ('spiral_DES', 'spiral_PS1', 'spiral_SDSS', 'jwst_three_spiral',
         'single_M51', 'kids_griZ_saturated', 'kids_griZ_tail',
         'kids_griZ_merger', 'kids_griZ_edge_on')
SHEET_WIDTH = 900       # pixels


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
    parser.add_argument('--model')
    parser.add_argument('--merge', type=float, default=DinoSegmenter().merge)
    parser.add_argument('--sheet', type=Path, help='for example a .jpg')
    args = parse_with_data(parser)
    args.output.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter('ignore')
    finder = DinoSegmenter(model=args.model, merge=args.merge)
    for name, (source, zooms) in fields(args.data).items():
        if not args.names or name in args.names:
            draw(name, source, zooms, args.output, finder)
    if args.sheet:
        write_sheet(args.output, args.sheet)


if __name__ == '__main__':
    main()
