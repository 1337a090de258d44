# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What a survey would take, from what a pixel takes.

    python -m benchmarks.speed.survey --measure [--side 1024] [--runs 3]
    python -m benchmarks.speed.survey [--area 20000] [--pixel 0.262]

``--measure`` writes the processor time of one thread for a simulated field of
g, r, i and z, the median of some runs, to a table; without it, the table is
read, and the arithmetic printed. By default that of the area and the pixels of
the Legacy Surveys, DR10. Cores are taken to work side by side without loss, as
tiles and bricks need nothing of one another.
"""

import argparse
import time
import warnings
from pathlib import Path

import numpy as np
from astropy.table import Table

TABLE = Path('docs/using/scale/throughput.csv')
#: Bytes a pixel and band that are read, float32, and that labels take.
READ, WRITTEN = 4, 4
#: Name, cores, and MB/s that its disk reads.
MACHINES = (('a laptop', 8, 500), ('a cluster', 1000, 5000))


def measure(side, n_runs):
    """Processor seconds of one thread, and the objects found."""
    import torch

    from astrodino_seg.image import as_image
    from astrodino_seg.segmenter import DinoSegmenter
    from benchmarks.speed.threads import field

    warnings.simplefilter('ignore')
    torch.set_num_threads(1)
    image = as_image(field(side), bands='griz')
    finder, taken = DinoSegmenter(), []
    finder(as_image(image.cube[:, :128, :128]))
    for _ in range(n_runs):
        start = time.process_time()
        labels = finder(image)
        taken.append(time.process_time() - start)
    return float(np.median(taken)), labels.n_labels


def arithmetic(row, area, pixel, bands=4):
    """Lines of what an area in square degrees takes."""
    n_pixels = area * (3600 / pixel)**2
    seconds = row['seconds'] / row['side']**2 * n_pixels
    data = n_pixels * (bands * READ + WRITTEN)
    lines = [f'{area:.0f} square degrees in pixels of {pixel} arcsec, {bands} '
             f'bands: {n_pixels:.2e} pixels, {data / 1e12:.0f} TB read and '
             f'written',
             f'{1e6 * row["seconds"] / row["side"]**2:.2f} microseconds of '
             f'one core a pixel: {seconds / 3600:.0f} core hours']
    for name, cores, rate in MACHINES:
        work, disk = seconds / cores / 3600, data / rate / 1e6 / 3600
        lines.append(f'{name}, {cores} cores: {work:.0f} hours; its disk at '
                     f'{rate} MB/s: {disk:.0f} hours')
    return lines


def main():
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add = parser.add_argument
    add('--measure', action='store_true')
    add('--side', type=int, default=1024)
    add('--runs', type=int, default=3)
    add('--area', type=float, default=20_000)
    add('--pixel', type=float, default=0.262)
    args = parser.parse_args()
    if args.measure:
        seconds, n = measure(args.side, args.runs)
        TABLE.parent.mkdir(exist_ok=True)
        Table({'side': [args.side], 'bands': [4], 'runs': [args.runs],
               'seconds': [round(seconds, 2)], 'objects': [n]}).write(
            TABLE, overwrite=True)
    row = Table.read(TABLE)[0]
    print('\n'.join(arithmetic(row, args.area, args.pixel)))


if __name__ == '__main__':
    main()
