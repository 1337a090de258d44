# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
How fast the views of pretraining are made, and what each degradation costs.

    python -m benchmarks.speed.views [--items 200] [--workers 2]

One item is two global views of 128 and six local views of 64 pixels a side of
an image of four bands. Times are of one core, in seconds of the processor, so
that other jobs on the machine do not count; only the last lines, with worker
processes, are by the clock. No scenes are rendered: the images are sources of
Gaussian shape on noise.
"""

import argparse
import time

import numpy as np
import torch
from torch.utils.data import DataLoader

from astrodino_seg.image import Image
from astrodino_seg.inputs.channels import PreprocessSpec
from astrodino_seg.train import ViewDataset
from astrodino_seg.train.exposures import expose
from astrodino_seg.train.views import RATES

SIZE, N_BANDS, N_IMAGES = 512, 4, 4


def make_image(seed):
    """A hundred sources, correlated noise and a gap."""
    rng = np.random.default_rng(seed)
    cube = rng.normal(0, 1, (N_BANDS, SIZE, SIZE))
    cube = (cube + np.roll(cube, 1, -1) + np.roll(cube, 1, -2)) / 3**0.5
    yy, xx = np.mgrid[-20:21, -20:21]
    for y, x in rng.integers(20, SIZE - 21, (100, 2)):
        source = np.exp(-(yy**2 + xx**2) / (2 * rng.uniform(1.5, 5)**2))
        flux = 10**rng.uniform(0.3, 2) * rng.uniform(0.3, 1, (N_BANDS, 1, 1))
        cube[:, y - 20:y + 21, x - 20:x + 21] += flux * source
    mask = np.zeros(cube.shape, bool)
    mask[1, 200:220] = True
    cube[mask] = 0
    return Image(cube.astype(np.float32), mask, bands=tuple('griz'))


def items_a_second(images, n_items, rates):
    """Items a second of processor time."""
    data = ViewDataset(images, PreprocessSpec(), n_items, rates=rates)
    for k in range(20):     # open the images
        data[k]
    start = time.process_time()
    for k in range(n_items):
        data[k]
    return n_items / (time.process_time() - start)


def main():
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--items', type=int, default=200)
    parser.add_argument('--workers', type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(1)
    images = [make_image(k) for k in range(N_IMAGES)]
    start = time.process_time()
    for image in images:
        expose(image, PreprocessSpec())
    seconds = (time.process_time() - start) / N_IMAGES
    print(f'opening an image of {SIZE} x {SIZE} x {N_BANDS}: '
          f'{1e3 * seconds:.0f} ms, once a worker')
    usual = items_a_second(images, args.items, None)
    never = items_a_second(images, args.items, dict.fromkeys(RATES, 0))
    print(f'items/s per core: {usual:.0f} with all rates as they are, '
          f'{never:.0f} with all 0')
    print(f'{"rate":10s}{"usual":>8s}{"items/s, 0":>12s}{"items/s, 1":>12s}')
    for name, rate in RATES.items():
        without, always = (items_a_second(images, args.items, {name: value})
                           for value in (0, 1))
        print(f'{name:10s}{rate:8.2f}{without:12.0f}{always:12.0f}',
              flush=True)
    data = ViewDataset(images, PreprocessSpec(), 4 * args.items)
    for n in (0, args.workers):
        loader = DataLoader(data, batch_size=16, num_workers=n)
        start = time.perf_counter()
        for _ in loader:
            pass
        print(f'{len(data) / (time.perf_counter() - start):.0f} items/s by '
              f'the clock with {n} workers')


if __name__ == '__main__':
    main()
