# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Time with one and two threads, alone and beside busy neighbours.

    python -m benchmarks.speed.threads [--size 1024] [--runs 3]

A simulated field of g, r, i and z is segmented in a process of its own, with
photutils on it in the same run. Neighbours multiply numbers, one process each,
all the time. Times are medians; what is imported or read is not in them.
"""

import argparse
import json
import multiprocessing
import subprocess
import sys
import time
import warnings

import numpy as np

TOOLS = ('dino', 'photutils')


def field(size):
    """Stars and galaxies on white noise, (4, size, size) float32."""
    from astropy.modeling.models import Sersic2D
    from photutils.datasets import make_model_image, make_model_params
    from photutils.psf import CircularGaussianPSF

    n, rng = size**2 // 1500, np.random.default_rng(0)
    stars = make_model_params((size, size), n // 3, x_name='x_0',
                              y_name='y_0', flux=(30, 3000), seed=0)
    stars['fwhm'] = 3.5
    galaxies = make_model_params(
        (size, size), n, x_name='x_0', y_name='y_0', amplitude=(1, 10),
        r_eff=(2, 8), ellip=(0, .6), theta=(0, np.pi), seed=1)
    galaxies['n'] = rng.uniform(0.8, 3, n)
    light = sum(make_model_image((size, size), model, table, x_name='x_0',
                                 y_name='y_0', model_shape=(81, 81))
                for model, table in ((CircularGaussianPSF(), stars),
                                     (Sersic2D(), galaxies)))
    return np.stack([light * tilt + rng.normal(0, 1, light.shape)
                     for tilt in (0.6, 1, 1.2, 1.3)]).astype(np.float32)


def run_once(tool, size, threads):
    """Segment the field once, print the seconds and the labels."""
    import torch

    from astrodino_seg.evaluate.baselines import PhotutilsFinder
    from astrodino_seg.image import as_image
    from astrodino_seg.segmenter import DinoSegmenter

    warnings.simplefilter('ignore')
    torch.set_num_threads(threads)
    cube = field(size)
    finder = DinoSegmenter() if tool == 'dino' else PhotutilsFinder()
    finder(as_image(cube[:, :128, :128], bands='griz'))
    start = time.perf_counter()
    found = finder(as_image(cube, bands='griz'))
    print(json.dumps([time.perf_counter() - start, int(found.n_labels)]))


def _busy():
    values = np.ones((400, 400))
    while True:
        values @ values


def main():
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('--size', type=int, default=1024)
    parser.add_argument('--runs', type=int, default=3)
    parser.add_argument('--once', choices=TOOLS, help=argparse.SUPPRESS)
    parser.add_argument('--threads', type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.once:
        run_once(args.once, args.size, args.threads)
        return
    print(f'{args.size} x {args.size} pixels, four bands, medians of '
          f'{args.runs} runs, seconds\n')
    print('neighbours  tool       threads  seconds  labels')
    for n_busy in (0, 1, 2):
        busy = [multiprocessing.Process(target=_busy, daemon=True)
                for _ in range(n_busy)]
        for one in busy:
            one.start()
        for tool, threads in (('dino', 1), ('dino', 2), ('photutils', 1)):
            runs = [json.loads(subprocess.run(
                [sys.executable, '-m', 'benchmarks.speed.threads', '--once',
                 tool, '--size', str(args.size), '--threads', str(threads)],
                check=True, capture_output=True, text=True
                ).stdout.splitlines()[-1]) for _ in range(args.runs)]
            seconds = np.median([run[0] for run in runs])
            print(f'{n_busy:10}  {tool:9}  {threads:7}  {seconds:7.2f}  '
                  f'{runs[0][1]:6}', flush=True)
        for one in busy:
            one.kill()


if __name__ == '__main__':
    main()
