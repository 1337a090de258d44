# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
One cutout, from the start of a process to files on the disk.

    python -m benchmarks.speed.cold [--side 512] [--runs 5] [--imports]

``astrodino segment`` of a FITS file of four bands, with and without its
picture, and a script of photutils that reads it and writes labels and
catalogue. Seconds by the clock and of the processor, peak memory, medians.
``--imports`` tells which packages take longest to import, each with all that
it is the first to need.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from astropy.io import fits

from benchmarks.speed.threads import field

PHOTUTILS = """
import numpy as np
from astropy.convolution import convolve
from astropy.io import fits
from photutils.background import Background2D
from photutils.segmentation import (SourceCatalog, SourceFinder,
                                    make_2dgaussian_kernel)
data = fits.getdata('field.fits').sum(axis=0)
background = Background2D(data, 64)
data = data - background.background
smooth = convolve(data, make_2dgaussian_kernel(3, size=5))
labels = SourceFinder(n_pixels=5, progress_bar=False)(
    smooth, 1.5 * background.background_rms)
fits.writeto('labels.fits', labels.data)
SourceCatalog(data, labels, error=background.background_rms).to_table(
    ).write('catalog.ecsv')
"""
SEGMENT = [sys.executable, '-m', 'astrodino_seg', 'segment', '-q',
           'field.fits', '-o', 'out']
WAYS = {'photutils': [sys.executable, '-c', PHOTUTILS],
        'astrodino segment --no-png': [*SEGMENT, '--no-png'],
        'astrodino segment': SEGMENT}


def run(command, cube):
    """Seconds by the clock, seconds of the processor, and GiB."""
    with tempfile.TemporaryDirectory() as folder:
        fits.writeto(Path(folder) / 'field.fits', cube)
        start = time.perf_counter()
        process = subprocess.Popen(command, cwd=folder,
                                   stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        if status:
            msg = f'{command[:6]} ended with {status}'
            raise RuntimeError(msg)
    return (seconds, usage.ru_utime + usage.ru_stime,
            usage.ru_maxrss / 2**20)


def slowest_imports(n=20):
    """Lines of ``-X importtime`` that took longest."""
    done = subprocess.run(
        [sys.executable, '-X', 'importtime', '-c',
         'import astrodino_seg.segmenter'], capture_output=True, text=True,
        check=True)
    rows = [line.split('|') for line in done.stderr.splitlines()[1:]]
    rows.sort(key=lambda row: -int(row[1]))
    return [f'{int(row[1]) / 1e6:7.2f}  {row[2].strip()}' for row in rows[:n]]


def main():
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('--side', type=int, default=512)
    parser.add_argument('--runs', type=int, default=5)
    parser.add_argument('--imports', action='store_true')
    args = parser.parse_args()
    os.environ['PYTHONPATH'] = os.getcwd()
    if args.imports:
        print('\n'.join(slowest_imports()))
        return
    cube = field(args.side)
    taken = {name: [] for name in WAYS}
    for _ in range(args.runs):
        for name, command in WAYS.items():
            taken[name].append(run(command, cube))
    print(f'{args.side} x {args.side} pixels, 4 bands, medians of {args.runs} '
          f'runs\n{"":27s} seconds  processor    GiB  of photutils')
    first = np.median(taken['photutils'], axis=0)
    for name, rows in taken.items():
        seconds, processor, memory = np.median(rows, axis=0)
        print(f'{name:27s} {seconds:7.2f} {processor:10.2f} {memory:6.2f} '
              f'{seconds / first[0]:13.2f}')


if __name__ == '__main__':
    main()
