# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Make the bundled model of finished training runs.

    python benchmarks/bundle_model.py RUN [RUN ...] [--name NAME]

Writes ``astrodino_seg/data/NAME.safetensors`` (the last run's weights, in
float16), its sha256, and ``docs/NAME_log.csv``, the losses of all runs
averaged over 50 steps.
"""

import argparse
import csv
import hashlib
import json
from pathlib import Path

import numpy as np

from astrodino_seg.model import load_model

ROOT = Path(__file__).resolve().parents[1]


def main():
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('runs', type=Path, nargs='+',
                        help='outputs of astrodino train, in order')
    parser.add_argument('--name', default='grouping_tiny')
    args = parser.parse_args()
    *earlier, model = [load_model(run / 'model.safetensors')
                       for run in args.runs]
    model.provenance['name'] = args.name
    if earlier:
        model.provenance['earlier'] = [one.provenance for one in earlier]
    path = ROOT / 'astrodino_seg' / 'data' / f'{args.name}.safetensors'
    model.save(path, half=True)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_suffix('.sha256').write_text(f'{digest}  {path.name}\n')
    log = ROOT / 'docs' / f'{args.name}_log.csv'
    with open(log, 'w', newline='') as stream:
        writer = csv.writer(stream)
        for stage, run in enumerate(args.runs, start=1):
            lines = [json.loads(line) for line in
                     (run / 'log.jsonl').read_text().splitlines()]
            keys = list(dict.fromkeys(k for line in lines for k in line))
            if stage == 1:
                header = keys
                writer.writerow(['stage', *header])
            for start in range(0, len(lines), 50):
                part = lines[start:start + 50]
                means = [np.mean([x[key] for x in part if key in x])
                         for key in header]
                writer.writerow([stage, *(f'{m:.5g}' for m in means)])
    print(f'{path}: {path.stat().st_size / 2**20:.1f} MiB, {digest}')


if __name__ == '__main__':
    main()
