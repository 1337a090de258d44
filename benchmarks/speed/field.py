# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Time and memory of one large field, with photutils on it in the same run.

    python -m benchmarks.speed.field [--data FOLDER] [--runs 3] [--threads 2]

The field is KiDS g, r, i + VIKING Z of 1400 x 2600 pixels in ``--data`` (or
the environment variable ASTRODINO_DATA); without it the command says so and
ends. Each tool runs in a process of its own for its peak memory; times are
medians over runs that take turns, without import and file reading.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np

TOOLS = ('dino', 'photutils')


def run_once(tool, folder, threads):
    """Segment the field once; print seconds, labels and peak memory."""
    import torch

    from astrodino_seg.evaluate.baselines import PhotutilsFinder
    from astrodino_seg.image import as_image
    from astrodino_seg.segmenter import DinoSegmenter

    warnings.simplefilter('ignore')
    torch.set_num_threads(threads)
    image = as_image({b: folder / f'kids_viking/{b}.fits' for b in 'griZ'})
    finder = DinoSegmenter() if tool == 'dino' else PhotutilsFinder()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    found = finder(image)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({'seconds': seconds, 'labels': int(found.n_labels),
                      'peak_gib': peak / 2**20,
                      'before_gib': before / 2**20}))


def main():
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--data', default=os.environ.get('ASTRODINO_DATA'))
    parser.add_argument('--runs', type=int, default=3)
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--once', choices=TOOLS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.data is None or not (Path(args.data) / 'kids_viking').is_dir():
        print('no KiDS field: give --data')
        return
    if args.once:
        run_once(args.once, Path(args.data), args.threads)
        return
    runs = {tool: [] for tool in TOOLS}
    for _ in range(args.runs):
        for tool in TOOLS:
            out = subprocess.run(
                [sys.executable, __file__, '--once', tool, '--data',
                 args.data, '--threads', str(args.threads)],
                check=True, capture_output=True, text=True).stdout
            runs[tool].append(json.loads(out.splitlines()[-1]))
            print(tool, runs[tool][-1], flush=True)
    for tool, results in runs.items():
        print(f'{tool}: median '
              f'{np.median([r["seconds"] for r in results]):.1f} s, peak '
              f'{max(r["peak_gib"] for r in results):.2f} GiB, '
              f'{results[0]["labels"]} labels')
    ratios = [a['seconds'] / b['seconds']
              for a, b in zip(runs['dino'], runs['photutils'])]
    print(f'ratio dino / photutils: median {np.median(ratios):.2f} '
          f'({min(ratios):.2f} to {max(ratios):.2f}), {args.threads} threads')


if __name__ == '__main__':
    main()
