# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Draw the logs of pretraining runs.

    python -m benchmarks.pretraining.curves OUTPUT.png NAME=RUN ...

RUN is a folder as ``astrodino pretrain`` leaves it, or a CSV file of means as
``benchmarks/model/bundle_model.py`` writes it.
"""

import argparse
import csv
import json
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from astrodino_seg.plotting import save_figure

PANELS = {'dino': 'DINO: cross-entropy (nats)',
          'ibot': 'iBOT: cross-entropy (nats)',
          'kl': 'divergence from the teacher (nats)',
          'information': "information in the teacher's answers",
          'feature_std': 'spread of the features',
          'teacher_entropy': "teacher's entropy (1 = uniform)"}
WIDTH = 5       # lines that are averaged


def read(run):
    """Columns of the log of a run, as arrays."""
    path = Path(run)
    if path.is_dir():
        lines = [json.loads(line) for line in
                 (path / 'log.jsonl').read_text().splitlines()]
    else:
        with open(path, newline='') as stream:
            lines = list(csv.DictReader(stream))
    return {key: np.array([float(line[key]) for line in lines])
            for key in lines[0]}


def main():
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('output', type=Path)
    parser.add_argument('runs', nargs='+', metavar='NAME=RUN')
    args = parser.parse_args()
    figure = Figure(figsize=(10, 5.5), layout='constrained')
    axes = figure.subplots(2, 3, sharex=True)
    window = np.ones(WIDTH) / WIDTH
    for k, one in enumerate(args.runs):
        name, _, run = one.partition('=')
        log = read(run)
        for axis, key in zip(axes.flat, PANELS):
            if key in log and len(log[key]) > WIDTH:
                axis.plot(*(np.convolve(log[column], window, 'valid')
                            for column in ('step', key)), f'C{k}', label=name)
    for axis, title in zip(axes.flat, PANELS.values()):
        axis.set_title(title, fontsize='small')
        axis.grid(alpha=0.3)
    for axis in axes[1]:
        axis.set_xlabel('step')
    axes[1, 1].legend(fontsize='small')     # the one that all have
    save_figure(figure, args.output)


if __name__ == '__main__':
    main()
