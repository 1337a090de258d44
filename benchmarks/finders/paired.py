# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
How much two finders differ on the same scenes.

    python -m benchmarks.finders.paired RECORDS FINDER OTHER_RECORDS
        OTHER_FINDER

RECORDS is the ``records.jsonl`` of ``astrodino benchmark``, and FINDER a name
in it. Printed are the first less the second, and in brackets half the distance
from the 16th to the 84th percentile over bootstraps of the scenes, which are
drawn for both at once: what makes a scene hard for both is not in that.
"""

import argparse
import json
from pathlib import Path

from astrodino_seg.evaluate.tables import bootstrap, summary

KEYS = ('pq', 'f1', 'ok', 'frag', 'sep', 'contam', 'lost')


def read(path, finder):
    """The measures of each scene, by its number."""
    lines = map(json.loads, path.read_text().splitlines())
    found = {scene: measures for name, _, scene, measures in lines
             if name == finder}
    if not found:
        raise SystemExit(f'{path} has no finder {finder!r}')
    return found


def main():
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    for which in ('', 'other_'):
        parser.add_argument(f'{which}records', type=Path)
        parser.add_argument(f'{which}finder')
    args = parser.parse_args()
    one = read(args.records, args.finder)
    other = read(args.other_records, args.other_finder)
    scenes = [(one[k], other[k]) for k in sorted(one.keys() & other.keys())]

    def difference(pairs):
        first, second = map(summary, zip(*pairs))
        return {key: first[key] - second[key] for key in KEYS}

    values, errors = difference(scenes), bootstrap(scenes, difference)
    print(f'{len(scenes)} scenes')
    for key in KEYS:
        low, high = errors[key]
        print(f'{key}: {values[key]:+.3f} ({(high - low) / 2:.3f})')


if __name__ == '__main__':
    main()
