# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Quality on simulated scenes of the benchmark split, with photutils beside.

    python benchmarks/quality.py OUTPUT.csv [--scenes 60] [--rst TABLE.rst]
    python benchmarks/quality.py --tune [--scenes 36]

The first command measures the bundled model and photutils at its default and
at its tuned settings; errors are standard deviations over bootstraps of the
scenes. The second finds the tuned settings on the validation split.
"""

import argparse
import csv
import itertools
import time
import warnings

import numpy as np

from astrodino_seg.baselines import PhotutilsFinder
from astrodino_seg.matching import match_labels, measure_primaries
from astrodino_seg.segmenter import DinoSegmenter
from astrodino_seg.simulate import SceneLibrary, observe

#: Best panoptic quality on the validation split, by ``--tune``.
TUNED = {'n_sigma': 1.5, 'n_pixels': 20, 'contrast': 0.001}
GRID = {'n_sigma': (1.0, 1.5, 2.0, 3.0), 'n_pixels': (10, 20),
        'contrast': (0.001, 0.01, 0.1)}
COLUMNS = ('f1', 'pq', 'ok', 'frag', 'n_fragments', 'flux_share',
           'contamination', 'lost', 'sep')


def measure(finder, image, truth):
    """All sums of one scene: counts, not yet ratios."""
    start = time.perf_counter()
    found = finder(image)
    seconds = time.perf_counter() - start
    labels = np.zeros(image.shape, int) if found is None else found.data
    match = match_labels(truth.labels, labels)
    o = truth.objects
    rows, separated = measure_primaries(
        truth.labels, labels, truth.own_sn, o['id'][o['primary']],
        o['id'][o['on_primary'] & ~o['primary']])
    return {'tp': len(match.iou), 'iou': match.iou.sum(),
            'n': match.n_truth + match.n_predicted, 'rows': rows,
            'separated': separated, 'seconds': seconds,
            'kinds': [str(k) for k in o['kind'][o['primary']]]}


def summary(scenes):
    """The measures of a set of scenes."""
    rows = [row for scene in scenes for row in scene['rows']]
    separated = [s for scene in scenes for s in scene['separated']]
    n = sum(scene['n'] for scene in scenes)

    def mean(values):
        return float(np.mean(values)) if len(values) else np.nan

    return {'f1': 2 * sum(s['tp'] for s in scenes) / n,
            'pq': 2 * sum(s['iou'] for s in scenes) / n,
            'ok': mean([r['ok'] for r in rows]),
            'frag': mean([r['n_fragments'] > 1 for r in rows]),
            'n_fragments': mean([r['n_fragments'] for r in rows]),
            'flux_share': mean([r['flux_share'] for r in rows]),
            'contamination': mean([r['contamination'] for r in rows]),
            'lost': mean([r['lost'] for r in rows]),
            'sep': mean(separated)}


def scenes_of(split, n, path):
    """Image and truth of the first ``n`` scenes of a split."""
    library = SceneLibrary(split, n, path=path)
    for k in range(n):
        yield observe(library[k], [library.seed(k), 1])


def bootstrap(scenes, n=200):
    """Standard deviations of `summary` over resampled scenes."""
    rng = np.random.default_rng(0)
    draws = [summary([scenes[i] for i in rng.integers(
        0, len(scenes), len(scenes))]) for _ in range(n)]
    return {key: float(np.nanstd([d[key] for d in draws]))
            for key in COLUMNS}


def table(results, n_scenes):
    """Rows of the table: name, measures and errors."""
    rows = []
    for name, scenes in results.items():
        value, error = summary(scenes), bootstrap(scenes)
        row = {'finder': name, 'n_scenes': n_scenes,
               'n_primaries': sum(len(s['rows']) for s in scenes),
               'n_companions': sum(len(s['separated']) for s in scenes),
               'seconds': round(float(np.median(
                   [s['seconds'] for s in scenes])), 2)}
        for key in COLUMNS:
            row[key] = round(value[key], 3)
            row[f'{key}_err'] = round(error[key], 3)
        rows.append(row)
    return rows


def kinds_table(scenes):
    """Share of large galaxies that come out right, kind by kind."""
    by_kind = {}
    for scene in scenes:
        for kind, row in zip(scene['kinds'], scene['rows']):
            by_kind.setdefault(kind, []).append(row)
    return {kind: (len(rows), float(np.mean([r['ok'] for r in rows])),
                   float(np.mean([r['n_fragments'] > 1 for r in rows])))
            for kind, rows in sorted(by_kind.items())}


def write_rst(rows, path):
    """The table for the docs."""
    shown = ('pq', 'f1', 'ok', 'frag', 'n_fragments', 'contamination',
             'lost', 'sep')
    lines = ['.. list-table::', '   :header-rows: 1', '',
             '   * - finder'] + [f'     - {key}' for key in shown]
    for row in rows:
        lines.append(f'   * - {row["finder"]}')
        lines += [f'     - {row[key]:.3f} ± {row[key + "_err"]:.3f}'
                  for key in shown]
    with open(path, 'w') as stream:
        stream.write('\n'.join(lines) + '\n')


def tune(n_scenes, path):
    """Print the panoptic quality of every setting of `GRID`."""
    data = list(scenes_of('validation', n_scenes, path))
    best = (-1, None)
    for values in itertools.product(*GRID.values()):
        settings = dict(zip(GRID, values))
        finder = PhotutilsFinder(**settings)
        value = summary([measure(finder, *one) for one in data])
        print(settings, {k: round(value[k], 3) for k in
                         ('pq', 'f1', 'ok', 'sep')}, flush=True)
        best = max(best, (value['pq'], str(settings)))
    print('best:', best)


def main():
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('output', nargs='?')
    parser.add_argument('--scenes', type=int, default=60)
    parser.add_argument('--rst')
    parser.add_argument('--tune', action='store_true')
    parser.add_argument('--model')
    parser.add_argument('--cache', help='folder for rendered scenes')
    args = parser.parse_args()
    warnings.simplefilter('ignore')
    if args.tune:
        tune(args.scenes, args.cache)
        return
    if args.output is None:
        parser.error('give the CSV file to write')
    finders = {'DinoSegmenter': DinoSegmenter(model=args.model),
               'photutils (default deblending)': PhotutilsFinder(),
               'photutils (tuned)': PhotutilsFinder(**TUNED)}
    results = {name: [] for name in finders}
    for k, one in enumerate(scenes_of('benchmark', args.scenes, args.cache)):
        for name, finder in finders.items():
            results[name].append(measure(finder, *one))
        print(f'{k + 1}/{args.scenes}', end='\r', flush=True)
    rows = table(results, args.scenes)
    with open(args.output, 'w', newline='') as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        print(row)
    for name, scenes in results.items():
        print(name, kinds_table(scenes))
    if args.rst:
        write_rst(rows, args.rst)


if __name__ == '__main__':
    main()
