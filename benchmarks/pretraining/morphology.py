# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The study's probe of morphology on simulated galaxies, and its baselines.

    python -m benchmarks.pretraining.morphology FOLDER [--galaxies 160]
        [--skies 20] [--splits 2] [--networks NAME ...] [--size 96]
        [--epochs 15]

The galaxies are those of ``evidence.py``: of each kind as many, bright and
large enough to show it, as cutouts of eight half-light radii; those of a sky
are all in train or all in test. Rows are the study's network of one hidden
layer on the CLS token, by its protocol (224 pixels, 30 epochs), of the bundled
backbone and of random weights; and in the fewer epochs and pixels of
``--epochs`` and ``--size``, which a CPU can afford, the bundled backbone with
a linear layer, all of it trained ("finetune"), and the study's supervised
baselines from random weights, which see the cutouts as colour pictures.
FOLDER, which is one for each set of options, gets ``morphology.csv``, which a
later run goes on from, and the table ``morphology.txt`` with 95% confidence
intervals from bootstraps over skies.
"""

import argparse
import csv
import time
from pathlib import Path

import numpy as np

from astrodino_seg.embed import embed, evaluate, evaluate_network
from astrodino_seg.embed.probe import BASELINES, STUDY
from astrodino_seg.evaluate.tables import list_table
from astrodino_seg.models import load_backbone
from benchmarks.pretraining.evidence import (
    simulated,
    splits_by_sky,
    untrained,
    write_rows,
)

PROBES = ('backbone_tiny', 'random')
NETWORKS = ('finetune', *BASELINES)


def probe(name, images, labels, splits, args):
    """The study's network on frozen vectors."""
    backbone = load_backbone()
    if name == 'random':
        backbone = untrained(backbone, 0)
    vectors = embed(images, backbone, what=STUDY['what'], size=STUDY['size'])
    network = {key: STUDY[key] for key in
               ('hidden', 'n_epochs', 'batch_size', 'rate')}
    return evaluate(vectors, labels, protocol='mlp', splits=splits, **network)


def train(name, images, labels, splits, args):
    """A network that is trained for this."""
    return evaluate_network(images, labels, name, splits=splits,
                            size=args.size, n_epochs=args.epochs,
                            batch_size=32)


def read(path):
    """Rows of an earlier run."""
    if not path.exists():
        return []
    with open(path, newline='') as stream:
        return [{**row, **{key: float(row[key])
                           for key in ('score', 'std', 'low', 'high')}}
                for row in csv.DictReader(stream)]


def table(rows):
    """The scores in reStructuredText."""
    return '\n'.join(list_table(['network', 'top-1'], [
        [one['backbone'],
         '{score:.3f} ({low:.3f} to {high:.3f})'.format(**one)]
        for one in rows])) + '\n'


def main():
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add = parser.add_argument
    add('folder', type=Path)
    add('--galaxies', type=int, default=160)
    add('--skies', type=int, default=20)
    add('--splits', type=int, default=2)
    add('--networks', nargs='*', default=(*PROBES, *NETWORKS))
    add('--size', type=int, default=96)
    add('--epochs', type=int, default=15)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    path = args.folder / 'morphology.csv'
    rows = read(path)
    done = {row['backbone'] for row in rows}
    tasks, _ = simulated(args.galaxies, 0, args.skies)
    images, labels, sky_of = tasks['morphology']
    splits = splits_by_sky(sky_of, args.skies, args.splits)
    for name in (name for name in args.networks if name not in done):
        start = time.monotonic()
        measure = probe if name in PROBES else train
        result = measure(name, images, labels, splits, args)
        low, high = result.interval(groups=np.asarray(sky_of))
        rows.append({'backbone': name, 'task': 'morphology',
                     'probe': 'mlp' if name in PROBES else 'trained',
                     'n': len(labels), 'classes': len(result.classes),
                     'score': result.accuracy, 'std': result.std,
                     'low': low, 'high': high})
        print(f'{name}: {result.accuracy:.3f} ({low:.3f} to {high:.3f}), '
              f'{time.monotonic() - start:.0f} s', flush=True)
        write_rows(path, rows)
    (args.folder / 'morphology.txt').write_text(table(rows))


if __name__ == '__main__':
    main()
