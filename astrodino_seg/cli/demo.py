# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
``astrodino demo``.
"""

from pathlib import Path

from astrodino_seg.cli.products import (
    product_paths,
    summarise,
    write_products,
)
from astrodino_seg.errors import require

__all__ = ['add_parser', 'run']


def add_parser(commands):
    """Add the subcommand."""
    demo = commands.add_parser(
        'demo', help='segment a bundled scene, with photutils beside it')
    demo.add_argument('-o', '--output', default='astrodino_demo',
                      help='folder for the products (default: %(default)s)')
    demo.add_argument('--device', default='cpu')
    demo.set_defaults(run=run)


def run(args):
    """Run the subcommand."""
    from astrodino_seg.datasets import demo_image
    from astrodino_seg.evaluate.baselines import PhotutilsFinder
    from astrodino_seg.segmenter import DinoSegmenter

    require('matplotlib', 'plot')
    folder = Path(args.output)
    folder.mkdir(parents=True, exist_ok=True)
    image = demo_image()
    print(f'bundled simulated scene: {"".join(image.bands)}, '
          f'{image.shape[1]} x {image.shape[0]} pixels')
    result = DinoSegmenter(device=args.device).segment(image)
    peaks = PhotutilsFinder()(image)
    print(f'DinoSegmenter: {summarise(result)}')
    print(f'photutils detect + deblend: {peaks.n_labels} labels')
    write_products(
        result, product_paths(folder / 'demo', 'ecsv', png=True),
        {'photutils detect + deblend': peaks.data})
    return 0
