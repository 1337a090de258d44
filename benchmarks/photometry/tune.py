# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tune the traditional tools of `total_flux`, on galaxies of other draws and on
scenes of the validation split.

    python -m benchmarks.photometry.tune RUNS.jsonl [--scenes 2]

For galaxies that are alone and for scenes each, the best setting of `GRIDS`
has the least mean error of total magnitudes, of which one that is lost, or off
by more, counts as 1 mag. It belongs into ``TUNED`` of `tools`. A command that
was stopped goes on where it was.
"""

import argparse
import json
import warnings
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np

from astrodino_seg.errors import MissingToolError
from astrodino_seg.evaluate.benchmark import split_scene
from astrodino_seg.simulate import SceneLibrary
from benchmarks.photometry.galaxies import INDICES, PEAKS, cosmos, sersic
from benchmarks.photometry.tools import TUNED
from benchmarks.photometry.total_flux import (
    collect,
    magnitude,
    of_galaxy,
    of_scene,
)

GRIDS = {'alone': {'n_sigma': (1.0, 1.5, 2.5), 'box_size': (64, 512),
                   'factor': (2.5, 3.5), 'contrast': (1.0,)},
         'scenes': {'n_sigma': (1.5,), 'box_size': (64, 128),
                    'factor': (2.5, 3.5), 'contrast': (0.02,)}}
#: Scales that are tuned on, and the seed of draws of their own.
SCALES, SEED = (3, 20), 1000


def images():
    """The galaxies that are alone, with their light."""
    for index, scale, peak in product(INDICES, SCALES, PEAKS):
        yield sersic(index, scale, peak, SEED)
    for k in range(0, 100, 20):
        yield cosmos(k, 'shallow')


def mean_error(errors):
    """Of magnitudes, where `None` is of a galaxy that is lost."""
    return float(np.mean([1 if one is None or not abs(one) < 1 else abs(one)
                          for one in errors]))


def main():
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('runs', type=Path)
    parser.add_argument('--scenes', type=int, default=2)
    args = parser.parse_args()
    warnings.simplefilter('ignore')
    galaxies = list(images())

    @cache
    def scenes():
        library = SceneLibrary('validation', args.scenes)
        return [split_scene(library, k) for k in range(args.scenes)]

    def alone(tool):
        records = [of_galaxy(tool, *one) for one in galaxies]
        return [magnitude(r['total']) if 'total' in r else None
                for r in records]

    def in_scenes(tool):
        return [r.get('total') for one in scenes()
                for r in of_scene(tool, *one)]

    for kind, measure in {'alone': alone, 'scenes': in_scenes}.items():
        settings = [dict(zip(GRIDS[kind], one))
                    for one in product(*GRIDS[kind].values())]
        for name, (make, _) in TUNED.items():
            try:
                make()
            except (ImportError, MissingToolError) as err:
                print(f'without {name}: {err}')
                continue
            runs = collect(args.runs, [
                ([kind, name, one],
                 lambda one=one, make=make, measure=measure: [mean_error(
                     measure(make(**one)))]) for one in settings])
            (_, _, best), error = min(runs, key=lambda run: run[1])
            print(f'{kind}, {name}: {json.dumps(best)}, {error:.3f} mag of '
                  f'{runs[0][1]:.3f} to {max(e for _, e in runs):.3f}')


if __name__ == '__main__':
    main()
