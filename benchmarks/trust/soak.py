# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Does memory grow with the images, and do threads get in each other's way?

    python -m benchmarks.trust.soak [--images 300] [--threads 4]

Small images of any number of bands, size and depth, of round objects or of
noise alone, are segmented one by one in one process, and then by threads that
have one segmenter together. Their answers, labels and tables, must be the same
bits. Memory is what the process has at that time. Needs Linux.
"""

import argparse
import hashlib
import os
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from astrodino_seg.segmenter import DinoSegmenter

SIDES = 24, 160


def image(seed):
    """(band, y, x) float32: round objects on noise, or no objects."""
    rng = np.random.default_rng([seed, 22])
    n_bands, (ny, nx) = rng.integers(1, 6), rng.integers(*SIDES, 2)
    y, x = np.mgrid[:ny, :nx]
    cube = rng.normal(0, 1, (n_bands, ny, nx))
    for _ in range(rng.integers(0, 40)):
        peaks = 10**rng.uniform(0, 3) * rng.uniform(0.3, 1, n_bands)
        cube += peaks[:, None, None] * np.exp(
            -np.hypot(x - rng.uniform(0, nx), y - rng.uniform(0, ny))**2
            / (2 * rng.uniform(1, 8)**2))
    cube[:, rng.random((ny, nx)) < rng.choice([0, 0.02])] = np.nan
    return cube.astype(np.float32)


def answer(finder, seed):
    """A digest of all that was found, and the number of objects."""
    result = finder.segment(image(seed))
    if result is None:
        return '', 0
    found = hashlib.sha256(result.segmentation_image.data.tobytes())
    for column in result.table.itercols():
        found.update(repr(np.asarray(column).tolist()).encode())
    return found.hexdigest(), len(result.table)


def mebibytes():
    """Memory of this process at this time."""
    pages = int(Path('/proc/self/statm').read_text().split()[1])
    return pages * os.sysconf('SC_PAGE_SIZE') / 2**20


def soak(n_images, n_threads):
    """Print memory while it runs; the number of answers that differ."""
    finder, answers = DinoSegmenter(), []
    print('images  objects    MiB  seconds')

    def tell():
        print(f'{len(answers):6d} {sum(n for _, n in answers):8d} '
              f'{mebibytes():6.0f} {time.perf_counter() - start:8.0f}',
              flush=True)

    start = time.perf_counter()
    for seed in range(n_images):
        answers.append(answer(finder, seed))
        if (seed + 1) % max(n_images // 6, 1) == 0:
            tell()
    alone, answers, start = answers, [], time.perf_counter()
    with ThreadPoolExecutor(n_threads) as pool:
        answers += pool.map(lambda seed: answer(finder, seed),
                            range(n_images))
    print(f'{n_threads} threads:')
    tell()
    return sum(a != b for a, b in zip(alone, answers))


def main():
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('--images', type=int, default=300)
    parser.add_argument('--threads', type=int, default=4)
    args = parser.parse_args()
    warnings.simplefilter('ignore')
    torch.set_num_threads(1)
    print(f'{soak(args.images, args.threads)} answers differ')


if __name__ == '__main__':
    main()
