# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tune the baselines on simulated scenes of the validation split.

    python -m benchmarks.finders.tune_baselines RUNS.jsonl [--scenes 12]
        [--only sep peaks] [--processes 2] [--cache FOLDER] [--best BEST.json]

Every setting of `GRIDS`, 30 or more for each finder, is run on the same
scenes; the best has the largest panoptic quality (PQ) over all of them, and
is what belongs in ``TUNED`` of ``astrodino_seg.evaluate.baselines``. Beside it
stands ``ok * sep``: the share of large galaxies that come out right times that
of companions that are separated.

Each run is a line of RUNS.jsonl. A command that was stopped goes on where it
was when it is given again. Finders that are not on this machine are skipped.
"""

import argparse
import itertools
import json
import multiprocessing
import time
import warnings
from functools import lru_cache
from pathlib import Path

import numpy as np

from astrodino_seg.evaluate.baselines import FINDERS, available_finders
from astrodino_seg.evaluate.benchmark import (
    read_lines,
    scene_scores,
    split_scene,
)
from astrodino_seg.evaluate.finders import detection_image
from astrodino_seg.files import whole_or_not
from astrodino_seg.simulate import SceneLibrary

_N_SIGMA = (0.5, 1.0, 1.5, 2.0, 3.0)
_EXTRACTOR = {'n_sigma': _N_SIGMA, 'n_pixels': (5, 15, 40),
              'contrast': (0.001, 0.005, 0.02, 0.1)}
#: What is tried of each finder: all combinations of these, the finder's own
#: defaults among them.
GRIDS = {
    'detect': {'n_sigma': _N_SIGMA, 'n_pixels': (5, 10, 20, 40),
               'fwhm': (3.0, 5.0)},
    'photutils': {'n_sigma': _N_SIGMA, 'n_pixels': (10, 20, 40),
                  'contrast': (0.001, 0.01, 0.1, 0.3)},
    'sep': _EXTRACTOR | {'fwhm': (2.0, 4.0)},
    'peaks': {'detector': ('find_peaks', 'DAOStarFinder'),
              'n_sigma': _N_SIGMA, 'n_pixels': (10, 30),
              'min_separation': (3.0, 5.0, 10.0, 20.0)},
    'regions': {'n_sigma': _N_SIGMA, 'n_pixels': (10, 30),
                'saddle': (0.3, 0.5, 0.7), 'prominence': (0.25, 0.5, 1.0)},
    'sextractor': _EXTRACTOR,
    'noisechisel': {'tile_size': (20, 30), 'qthresh': (0.3, 0.5, 0.7, 0.9),
                    'detgrowquant': (0.9, 1.0),
                    'objbordersn': (0.1, 1.0)},
    'mtobjects': {'move_factor': (0.3, 0.5, 1.0, 2.0, 4.0),
                  'min_distance': (0.0, 0.25, 0.5), 'gain': (None, 1.0)},
}


def settings_of(name):
    """All settings of a finder that are tried."""
    grid = GRIDS[name]
    return [dict(zip(grid, values))
            for values in itertools.product(*grid.values())]


def key_of(row):
    """What tells one run from another."""
    return (row['finder'], json.dumps(row['settings'], sort_keys=True),
            row['scene'])


@lru_cache(maxsize=1)
def _scene(k, cache):
    """Image, truth, detection image and mask of a scene."""
    library = SceneLibrary('validation', k + 1, path=cache)
    image, truth = split_scene(library, k)
    return image, truth, *detection_image(image)


def measure(truth, labels, image):
    """The counts of one run, to be summed over scenes."""
    record = scene_scores(truth, labels, image)
    iou, ok = record['objects']['iou'], record['primaries']['ok']
    separated = record['companions']['separated']
    return {'iou': sum(iou), 'n': len(iou) + record['n_predicted'],
            'n_ok': sum(ok), 'n_primaries': len(ok),
            'n_separated': sum(separated), 'n_companions': len(separated)}


def run(job):
    """Run a finder with many settings on one scene."""
    k, name, many, cache = job
    warnings.simplefilter('ignore')
    image, truth, sn, mask = _scene(k, cache)
    rows = []
    for settings in many:
        row = {'finder': name, 'settings': settings, 'scene': k}
        start, found = time.perf_counter(), None
        try:
            found = FINDERS[name](**settings).find(sn, mask)
        except RuntimeError as err:     # a program has failed
            row['error'] = str(err)
        row['seconds'] = round(time.perf_counter() - start, 3)
        labels = np.zeros(sn.shape, int) if found is None else found.data
        rows.append(row | measure(truth, labels, image))
    return rows


def jobs_left(names, n_scenes, cache, done):
    """What is still to be run, scene by scene."""
    for k, name in itertools.product(range(n_scenes), names):
        many = [one for one in settings_of(name)
                if key_of({'finder': name, 'settings': one, 'scene': k})
                not in done]
        if many:
            yield k, name, many, cache


def run_all(path, jobs, processes):
    """Run the jobs and append a line for each run."""
    with (multiprocessing.get_context('spawn').Pool(processes) as pool,
          path.open('a') as stream):
        todo = len(jobs)
        for k, rows in enumerate(pool.imap_unordered(run, jobs)):
            stream.write(''.join(json.dumps(row) + '\n' for row in rows))
            stream.flush()
            print(f'{k + 1}/{todo}', end='\r', flush=True)
    print()


def summary(rows):
    """The measures of one setting over its scenes."""
    total = {key: sum(row[key] for row in rows)
             for key in ('iou', 'n', 'n_ok', 'n_primaries', 'n_separated',
                         'n_companions')}
    ok = total['n_ok'] / max(total['n_primaries'], 1)
    sep = total['n_separated'] / max(total['n_companions'], 1)
    return {'pq': 2 * total['iou'] / max(total['n'], 1), 'ok': ok, 'sep': sep,
            'ok*sep': ok * sep,
            'seconds': float(np.median([row['seconds'] for row in rows]))}


def best_of(name, runs, n_scenes):
    """
    The best setting of a finder, or `None` where runs are left.

    Where a program failed it has found nothing, as in the benchmark.
    """
    by_setting = {}
    for row in runs:
        if row['finder'] == name and row['scene'] < n_scenes:
            by_setting.setdefault(key_of(row)[1], []).append(row)
    tried = [by_setting.get(json.dumps(one, sort_keys=True), [])
             for one in settings_of(name)]
    if any(len(rows) < n_scenes for rows in tried):
        return None
    results = [{'settings': rows[0]['settings'], **summary(rows),
                'n_failed': sum('error' in row for row in rows)}
               for rows in tried]
    return {**max(results, key=lambda one: one['pq']),
            'n_settings': len(tried), 'n_scenes': n_scenes}


def write_best(best, path):
    """Write the best settings, all or nothing."""
    with whole_or_not(path) as part:
        part.write_text(json.dumps(best, indent=1) + '\n')


def main():
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('runs', type=Path, help='file of runs, added to')
    parser.add_argument('--scenes', type=int, default=12)
    parser.add_argument('--only', nargs='+', choices=GRIDS, default=GRIDS)
    parser.add_argument('--processes', type=int, default=1)
    parser.add_argument('--cache', help='folder for rendered scenes')
    parser.add_argument('--best', type=Path, help='file for the results')
    args = parser.parse_args()
    available, missing = available_finders()
    names = [name for name in args.only if name in available]
    for name in args.only:
        if name in missing:
            print(f'{name} skipped: {missing[name]}')
    done = {key_of(row) for row in read_lines(args.runs)}
    run_all(args.runs, list(jobs_left(names, args.scenes, args.cache, done)),
            args.processes)
    runs = read_lines(args.runs)
    best = {name: best_of(name, runs, args.scenes) for name in names}
    best = {name: one for name, one in best.items() if one}
    for name, one in best.items():
        print(name, ', '.join(
            f'{key} {value:.3f}' if isinstance(value, float) else
            f'{key} {value}' for key, value in one.items()))
    if args.best:
        write_best(best, args.best)


if __name__ == '__main__':
    main()
