# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Scenes a second: composed of stamps, and with every galaxy drawn anew.

    python -m benchmarks.speed.scenes [--stamps FOLDER] [--runs 5]

Scenes of 256 x 256 pixels in g, r, i, z, each observed once, on one core: the
processor time of composition and of observation, the median over runs and
their range. Without ``--stamps`` a library of two skies is drawn first, into
a folder that goes away.
"""

import argparse
import os
import tempfile
import time

os.environ['OMP_NUM_THREADS'] = '1'     # before numpy

import numpy as np

from astrodino_seg.simulate import StampLibrary, make_scene, observe
from astrodino_seg.simulate.scene_library import build_stamps

SIZE, BANDS = 256, 'griz'


def one_run(seeds, stamps):
    """Milliseconds a scene: of composition and of observation."""
    total = np.zeros(2)
    for seed in seeds:
        times = [time.process_time()]
        scene = make_scene(seed, size=SIZE, band_set=BANDS, stamps=stamps)
        times.append(time.process_time())
        observe(scene, [seed, 1], bands=range(len(BANDS)))
        times.append(time.process_time())
        total += np.diff(times)
    return 1e3 * total / len(seeds)


def report(name, n_scenes, n_runs, stamps):
    """Measure and print one way to make scenes."""
    one_run(range(3), stamps)           # files and tables are read
    runs = np.array([one_run(range(n_scenes), stamps)
                     for _ in range(n_runs)])
    rate = 1e3 / runs.sum(axis=1)
    scene, observation = np.median(runs, axis=0)
    print(f'{name}: {np.median(rate):.1f} scenes/s ({rate.min():.1f} to '
          f'{rate.max():.1f}); scene {scene:.1f} ms, observation '
          f'{observation:.1f} ms', flush=True)


def main():
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--stamps', help='folder of "astrodino stamps"')
    parser.add_argument('--scenes', type=int, default=60)
    parser.add_argument('--runs', type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        stamps = (StampLibrary(args.stamps) if args.stamps else
                  build_stamps(folder, n_skies=2, band_sets=[BANDS]))
        report('of stamps', args.scenes, args.runs, stamps)
    report('drawn', max(args.scenes // 6, 1), args.runs, None)


if __name__ == '__main__':
    main()
