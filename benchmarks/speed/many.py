# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Many cutouts in one call, one by one, and one by one in photutils.

    python -m benchmarks.speed.many [--images 64] [--runs 5] [--threads 2]

Cutouts of 160 x 160 pixels in g, r, i and z of a simulated field, beside
photutils in the same run. Times an image are medians over runs, of which
photutils and one by one have a quarter of the images; what is imported or read
is not in them. The ratio is of the processor's time, so that other programs
count little.
"""

import argparse
import time
import warnings

import numpy as np
import torch

from astrodino_seg.evaluate.baselines import PhotutilsFinder
from astrodino_seg.image import as_image
from astrodino_seg.segmenter import DinoSegmenter
from benchmarks.speed.threads import field

SIDE, N_FIELD = 160, 4


def cutouts(n):
    """(n, 4, 160, 160) float32, in turn of those of one field."""
    cube = field(N_FIELD * SIDE)
    some = [cube[:, y:y + SIDE, x:x + SIDE]
            for y in range(0, N_FIELD * SIDE, SIDE)
            for x in range(0, N_FIELD * SIDE, SIDE)]
    return np.stack([some[k % len(some)] for k in range(n)])


def milliseconds(function, images):
    """By the clock and of the processor, an image."""
    start = np.array([time.perf_counter(), time.process_time()])
    function(images)
    end = np.array([time.perf_counter(), time.process_time()])
    return 1e3 * (end - start) / len(images)


def main():
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('--images', type=int, default=64)
    parser.add_argument('--runs', type=int, default=5)
    parser.add_argument('--threads', type=int, default=2)
    args = parser.parse_args()
    warnings.simplefilter('ignore')
    torch.set_num_threads(args.threads)
    finder, photutils = DinoSegmenter(), PhotutilsFinder()
    images = cutouts(args.images)
    few = images[:max(args.images // 4, 1)]
    ways = {
        'photutils one by one': (lambda some: [
            photutils(as_image(one)) for one in some], few),
        'segment': (lambda some: [finder.segment(one) for one in some], few),
        'segment_many': (lambda some: list(finder.segment_many(some)),
                         images)}
    times = {name: [] for name in ways}
    for run in range(args.runs + 1):        # the first makes things ready
        for name, (function, some) in ways.items():
            taken = milliseconds(function, some if run else some[:2])
            if run:
                times[name].append(taken)
    print(f'{args.images} cutouts of {SIDE} x {SIDE} pixels, 4 bands, '
          f'{args.threads} threads, medians of {args.runs} runs')
    print(f'{"":20s}     ms  of the processor  of photutils')
    first = np.median(times['photutils one by one'], axis=0)[1]
    for name, taken in times.items():
        clock, processor = np.median(taken, axis=0)
        print(f'{name:20s} {clock:6.1f} {processor:17.1f} '
              f'{processor / first:13.2f}')


if __name__ == '__main__':
    main()
