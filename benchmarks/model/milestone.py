# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
A model of a training run that goes on: the averaged weights with a decision,
and with total fluxes.

    python -m benchmarks.model.milestone RUN OUT [--stamps FOLDER]
        [--held FOLDER] [--decision FILE] [--scenes 600] [--epochs 8]
        [--points] [--totals 200] [--workers 2] [--recipe FILE]

RUN/average.safetensors is what the run has written last. The decision and the
totals are fitted to scenes of 512 pixels, of the end of the training split and
of the recipe's rates but for half as many of moderate galaxies; with --held,
those of these stamps are held out, best of galaxies that the network has not
seen either. With --decision the decision goes on from that of another weights
file, and else from the run's. OUT gets ``model.safetensors`` and the
run's log, for ``bundle_model.py``.
"""

import argparse
import shutil
import tomllib
from pathlib import Path

import torch
from torch.utils.data import Subset

from astrodino_seg import load_model
from astrodino_seg.simulate import SceneLibrary
from astrodino_seg.simulate.scene_library import SPLITS
from astrodino_seg.train import fit_decision, fit_totals
from benchmarks.common import add_data
from benchmarks.model.points import labelled

RECIPE = (Path(__file__).resolve().parents[2] / 'astrodino_seg' / 'train'
          / 'recipes' / 'grouping_tiny.toml')
SIZE = 512
#: Of the fit to real galaxies.
POINTS = {'n_epochs': 8, 'peak_rate': 5e-4, 'share': 0.35}


def main():
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('run', type=Path)
    parser.add_argument('out', type=Path)
    parser.add_argument('--stamps')
    parser.add_argument('--held')
    parser.add_argument('--decision')
    parser.add_argument('--scenes', type=int, default=600)
    parser.add_argument('--epochs', type=int, default=8)
    parser.add_argument('--totals', type=int, default=200)
    parser.add_argument('--workers', type=int, default=2)
    parser.add_argument('--recipe', type=Path, default=RECIPE)
    parser.add_argument('--points', action='store_true')
    add_data(parser)
    args = parser.parse_args()
    if args.points and not args.data:
        parser.error('--points needs --data')
    torch.set_num_threads(1)
    recipe = tomllib.loads(args.recipe.read_text())
    rates = recipe['scenes']['rates']
    rates = {**rates, 'moderate': 0.5 * rates.get('moderate', 0)}
    first, last = SPLITS['train']

    def library(stamps):
        every = SceneLibrary('train', last - first, size=SIZE, stamps=stamps,
                             rates=rates)
        n = max(args.scenes, args.totals)
        return Subset(every, range(len(every) - n, len(every)))

    scenes = library(args.stamps)
    held = library(args.held) if args.held else None
    model = load_model(args.run / 'average.safetensors')
    if args.decision:
        other = load_model(args.decision)
        model.put_decision(other.decision)
        model.provenance['decision'] = other.provenance['decision']
    if args.scenes:
        fit_decision(model, scenes, held=held, n_scenes=args.scenes,
                     n_epochs=args.epochs, rates=recipe['fit']['rates'],
                     n_workers=args.workers)
    if args.points:
        pieces = labelled(args.data)
        fit_decision(model, pieces, held=labelled(args.data, held=True),
                     n_scenes=len(pieces), n_workers=args.workers, **POINTS)
    if args.totals:
        fit_totals(model, scenes, n_scenes=args.totals,
                   rates=recipe['fit']['rates'], n_workers=args.workers)
    args.out.mkdir(parents=True, exist_ok=True)
    model.save(args.out / 'model.safetensors')
    shutil.copy(args.run / 'log.jsonl', args.out)
    print(model.provenance)


if __name__ == '__main__':
    main()
