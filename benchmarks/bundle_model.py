# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Make the bundled model of a finished training run.

    python benchmarks/bundle_model.py RUN [NAME]

Writes ``astrodino_seg/data/NAME.safetensors`` (float16), its sha256, and
``docs/NAME_log.csv``, the run's losses averaged over 50 steps.
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
    parser.add_argument('run', type=Path, help='output of astrodino train')
    parser.add_argument('name', nargs='?', default='grouping_tiny')
    args = parser.parse_args()
    model = load_model(args.run / 'model.safetensors')
    model.provenance['name'] = args.name
    path = ROOT / 'astrodino_seg' / 'data' / f'{args.name}.safetensors'
    model.save(path, half=True)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_suffix('.sha256').write_text(f'{digest}  {path.name}\n')
    lines = [json.loads(line) for line in
             (args.run / 'log.jsonl').read_text().splitlines()]
    keys = list(dict.fromkeys(key for line in lines for key in line))
    log = ROOT / 'docs' / f'{args.name}_log.csv'
    with open(log, 'w', newline='') as stream:
        writer = csv.writer(stream)
        writer.writerow(keys)
        for start in range(0, len(lines), 50):
            part = lines[start:start + 50]
            means = [np.mean([x[key] for x in part if key in x])
                     for key in keys]
            writer.writerow([f'{mean:.5g}' for mean in means])
    print(f'{path}: {path.stat().st_size / 2**20:.1f} MiB, {digest}')


if __name__ == '__main__':
    main()
