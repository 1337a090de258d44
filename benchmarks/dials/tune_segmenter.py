# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Quality on the validation split for the seed limit and the merge dial.

    python -m benchmarks.dials.tune_segmenter [--scenes 30] [--model FILE]
        [--cache FOLDER]

The network looks at each scene once; FOLDER keeps the rendered scenes.
"""

import argparse
import itertools

from astrodino_seg.evaluate.benchmark import scene_scores
from astrodino_seg.evaluate.tables import summary
from benchmarks.common import Network

COLUMNS = ('pq', 'f1', 'ok', 'frag', 'n_fragments', 'contam', 'lost', 'sep')
MIN_SEED = (0.3, 0.4, 0.5, 0.6, 0.7)
MERGE = (0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9)


def main():
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--scenes', type=int, default=30)
    parser.add_argument('--model', help='a weights file; default: bundled')
    parser.add_argument('--cache', help='folder for rendered scenes')
    args = parser.parse_args()
    network = Network(args.model, args.cache)
    results = {one: [] for one in itertools.product(MIN_SEED, MERGE)}
    for looks in network.scenes('validation', args.scenes):
        for (limit, merge), records in results.items():
            labels = network.group(looks, merge=merge, min_seed=limit).groups
            records.append(scene_scores(looks.truth, labels, looks.image))
    print('min_seed merge ' + ' '.join(COLUMNS))
    for (limit, merge), scenes in results.items():
        value = summary(scenes)
        print(limit, merge, ' '.join(f'{value[k]:.3f}' for k in COLUMNS))


if __name__ == '__main__':
    main()
