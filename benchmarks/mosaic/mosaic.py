# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Agreement of blocks with the whole image; their memory and their time.

    python -m benchmarks.mosaic.mosaic [--side 768] [--docs FOLDER]
    python -m benchmarks.mosaic.mosaic --memory SIDE BLOCK FILLED
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from astropy.table import QTable

from astrodino_seg.evaluate.matching import match_labels
from astrodino_seg.image import as_image, read_label_map
from astrodino_seg.mosaic import segment_mosaic
from astrodino_seg.segmenter import DinoSegmenter
from benchmarks.speed.threads import field

BANDS = 'griz'
#: Side and margin of the blocks; side of mosaics, of their blocks, and of the
#: corner that has pixels.
BLOCKS = (448, 64), (512, 128)
MEMORY = (512, 512, 512), (4096, 512, 512), (8192, 512, 512)


def compare(cube, whole, block, margin, folder):
    """One line of the table of agreement."""
    result = segment_mosaic(cube, folder / f'm{margin}', block=block,
                            margin=margin, bands=BANDS)
    labels, table = (read_label_map(result.labels),
                     QTable.read(result.catalog))
    match = match_labels(whole.segmentation_image.data, labels)
    good = match.iou > 0.5
    rows = (whole.table[match.truth[good] - 1],
            table[match.predicted[good] - 1])
    bright = rows[0]['flux_r'] > 20 * rows[0]['flux_err_r']
    change = np.abs(2.5 * np.log10(
        rows[1]['flux_r'][bright] / rows[0]['flux_r'][bright]))
    return (f'{block:5d} {margin:6d} {len(whole.table):5d} {len(table):6d} '
            f'{good.sum():7d} {np.median(match.iou[good]):8.3f} '
            f'{np.quantile(match.iou[good], 0.1):7.3f} '
            f'{np.median(change):8.4f} {result.n_cut:4d}')


def memory(side, block, filled):
    """Peak of memory of a mosaic, and processor time a pixel."""
    cube = field(filled)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'mosaic.npy'
        disk = np.lib.format.open_memmap(
            path, 'w+', np.float32, (len(BANDS), side, side))
        for plane, corner in zip(disk, cube):
            plane[:] = np.nan
            plane[:filled, :filled] = corner
            disk.flush()
        del disk
        before, start = _peak(), time.process_time()
        result = segment_mosaic(path, Path(folder) / 'a', block=block,
                                margin=64, bands=BANDS)
        seconds = time.process_time() - start
    return (f'{side:5d} {block:6d} {filled:7d} {result.n_labels:8d} '
            f'{before:12.2f} {_peak():9.2f} {1e6 * seconds / filled**2:9.1f}')


def _peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main():
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('--side', type=int, default=768)
    parser.add_argument('--docs', type=Path)
    parser.add_argument('--memory', type=int, nargs=3)
    args = parser.parse_args()
    warnings.simplefilter('ignore')
    torch.set_num_threads(1)
    if args.memory:
        print(memory(*args.memory))
        return
    cube = field(args.side)
    whole = DinoSegmenter().segment(as_image(cube, bands=BANDS))
    lines = [f'{args.side} x {args.side} pixels, {len(BANDS)} bands, as a '
             f'whole and by blocks:', '',
             'block margin whole blocks matched med. IoU 10% IoU  |d mag|  '
             'cut']
    with tempfile.TemporaryDirectory() as folder:
        for block, margin in BLOCKS:
            lines.append(compare(cube, whole, block, margin, Path(folder)))
            print(lines[-1], flush=True)
    lines += ['', f'Memory-mapped mosaics of {len(BANDS)} bands, a process of '
              f'one thread each:', '',
              ' side  block  filled  objects  GiB before  peak GiB  us/pixel']
    for one in MEMORY:
        done = subprocess.run(
            [sys.executable, '-m', 'benchmarks.mosaic.mosaic', '--memory',
             *map(str, one)], capture_output=True, text=True, check=True)
        lines.append(done.stdout.rstrip('\n'))
        print(lines[-1], flush=True)
    if args.docs:
        args.docs.mkdir(exist_ok=True)
        (args.docs / 'mosaic.txt').write_text('\n'.join(lines) + '\n')


if __name__ == '__main__':
    main()
