# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Make a bundled model, or the bundled backbone, of a finished training run.

A semantic head on the bundled backbone is stored without that.

    python -m benchmarks.model.bundle_model RUN NAME [--log NAME]

Writes ``astrodino_seg/data/NAME.safetensors`` (float16), its sha256, and
``docs/evidence/model_card/NAME_log.csv``, or by the name of ``--log``, the
run's losses averaged
over 50 steps.
"""

import argparse
import csv
import hashlib
import json
from pathlib import Path

import numpy as np

from astrodino_seg.models.load import (
    BUNDLED_BACKBONE,
    digest,
    load_any,
    load_backbone,
)
from astrodino_seg.models.semantic import SemanticModel

ROOT = Path(__file__).resolve().parents[2]
STEPS = 50


def read_log(run):
    """The lines of a log, as dicts of numbers."""
    lines = (run / 'log.jsonl').read_text().splitlines()
    return [json.loads(line) for line in lines]


def write_means(lines, path):
    """Write means over `STEPS` steps."""
    keys = list(dict.fromkeys(key for line in lines for key in line))
    groups = {}
    for line in lines:
        number = (line['step'] - 1) // STEPS
        groups.setdefault(number, []).append(line)
    with open(path, 'w', newline='') as stream:
        writer = csv.writer(stream)
        writer.writerow(keys)
        for part in groups.values():
            means = [np.mean([line[key] for line in part if key in line])
                     for key in keys]
            writer.writerow([f'{mean:.5g}' for mean in means])


def main():
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('run', type=Path,
                        help='output of astrodino train or pretrain')
    parser.add_argument('name')
    parser.add_argument('--log', help='name of the log, if another')
    args = parser.parse_args()
    file = args.run / 'backbone.safetensors'
    model = load_any(file if file.exists() else args.run / 'model.safetensors')
    model.provenance['name'] = args.name
    path = ROOT / 'astrodino_seg' / 'data' / f'{args.name}.safetensors'
    if isinstance(model, SemanticModel):
        if digest(model.vit) != digest(load_backbone().vit):
            parser.error(f'the backbone of {args.run} is not the bundled one')
        model.save(path, half=True, backbone=BUNDLED_BACKBONE)
    else:
        model.save(path, half=True)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_suffix('.sha256').write_text(f'{sha256}  {path.name}\n')
    write_means(read_log(args.run),
                ROOT / 'docs' / 'evidence' / 'model_card'
                / f'{args.log or args.name}_log.csv')
    print(f'{path}: {path.stat().st_size / 2**20:.1f} MiB, {sha256}')


if __name__ == '__main__':
    main()
