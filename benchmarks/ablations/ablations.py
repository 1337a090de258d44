# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Short trainings that each differ from a recipe in one thing, and their scores.

    python -m benchmarks.ablations.ablations RECIPE FOLDER [NAME ...]
        [--dino FILE] [--steps 600] [--seeds 0 1 2] [--scenes 24]

``full`` is a new head on the bundled backbone, trained as the recipe has it,
but in ``--steps`` steps, at whose end the learning rate has fallen to a
hundredth. Of the others,

- ``random`` starts from random weights of the same network, ``dino`` from the
  backbone ``--dino``, which was pretrained by views alone
  (``pretraining/variants.py``);
- ``frozen`` trains the head alone;
- ``linear`` and ``ms`` are the semantic heads on the same frozen backbone, at
  the rates of their own recipes.

All layers have the same rate where all start from random weights.

FOLDER gets a folder ``NAME-SEED`` of each, as ``astrodino train`` leaves it;
what is complete is left alone, and what was stopped goes on. All are then
measured on scenes of the validation split with the default dials, and
FOLDER/ablations.txt is the table: means over the seeds, with half the distance
from the 16th to the 84th percentile over bootstraps of the scenes, and where
there are several seeds, their standard deviation.
"""

import argparse
import copy
import json
import tomllib
from dataclasses import asdict
from pathlib import Path

import numpy as np

from astrodino_seg.evaluate.benchmark import benchmark_tables, run_benchmark
from astrodino_seg.evaluate.tables import list_table
from astrodino_seg.models.load import BUNDLED_BACKBONE, load_backbone
from astrodino_seg.segmenter import DinoSegmenter
from astrodino_seg.train import train_from_config

COLUMNS = ('pq', 'f1', 'ok', 'frag', 'sep', 'contam')
DECISION_SCENES = 60


def random(config, args):
    """The same network from random weights."""
    backbone = load_backbone(config['model'].pop('backbone'))
    config['model'].update(vit=backbone.spec['vit'],
                           preprocess=asdict(backbone.preprocess))
    config['fit'].update(layer_decay=1.0)


def dino(config, args):
    """A backbone that was pretrained by views alone."""
    config['model'].update(backbone=str(args.dino))


def frozen(config, args):
    """The head alone."""
    config['fit'].update(freeze_backbone=True, layer_decay=1.0)


def semantic(head):
    """A semantic head on the frozen backbone."""
    def change(config, args):
        frozen(config, args)
        config['model'].update(head=head)
        config.pop('decision')
        # as in the recipes of these heads
        config['fit'].update(peak_rate=1e-2, weight_decay=0.0,
                             n_pool=min(240, 2 * args.steps))
    return change


#: What is changed, by name.
VARIANTS = {'full': lambda config, args: None, 'random': random,
            'dino': dino, 'frozen': frozen, 'linear': semantic('linear'),
            'ms': semantic('ms')}


def variant(base, name, seed, args):
    """The recipe of a variant."""
    config = copy.deepcopy(base)
    config['model'] = {'backbone': BUNDLED_BACKBONE}
    # a schedule and an average that suit so few steps
    config['fit'].update(n_steps=args.steps, seed=seed, crop_size=256,
                         own_seeds_from=args.steps // 4, schedule='cosine',
                         warmup=args.steps // 4, average_decay=0.99)
    config['decision'] = {**config.get('decision', {}),
                          'n_scenes': DECISION_SCENES}
    VARIANTS[name](config, args)
    return config


def train(config, out):
    """Train as a recipe says, if that has not been done in this folder."""
    text, recipe = json.dumps(config), out / 'recipe.json'
    done = out / 'done'
    if recipe.exists() and recipe.read_text() != text:
        msg = f'{out} is of another recipe: remove it'
        raise SystemExit(msg)
    if not done.exists():
        print(out, flush=True)
        out.mkdir(parents=True, exist_ok=True)
        recipe.write_text(text)
        train_from_config(config, out)
        done.touch()


def table(rows):
    """The scores in reStructuredText; the seeds of a name are one row."""
    lines = []
    names = dict.fromkeys(row['finder'].split('#')[0] for row in rows)
    for name in names:
        some = [row for row in rows if row['finder'].split('#')[0] == name]
        lines.append([name, len(some)])
        for key in COLUMNS:
            values = [row[key] for row in some]
            half = np.mean([row[f'{key}_high'] - row[f'{key}_low']
                            for row in some]) / 2
            spread = (f' ({np.std(values, ddof=1):.3f})' if len(some) > 1
                      else '')
            lines[-1].append(f'{np.mean(values):.3f} ± {half:.3f}{spread}')
    return '\n'.join(list_table(['training', 'seeds', *COLUMNS],
                                lines)) + '\n'


def main():
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('recipe', type=Path)
    parser.add_argument('folder', type=Path)
    parser.add_argument('names', nargs='*', metavar='NAME',
                        help=', '.join(VARIANTS))
    parser.add_argument('--dino', type=Path)
    parser.add_argument('--steps', type=int, default=600)
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--scenes', type=int, default=24)
    args = parser.parse_args()
    names = args.names or list(VARIANTS)
    unknown = sorted(set(names) - set(VARIANTS))
    if unknown:
        parser.error(f'no variants {unknown}')
    if 'dino' in names and not (args.dino and args.dino.is_file()):
        parser.error(f'dino needs a file, got --dino {args.dino}')
    base = tomllib.loads(args.recipe.read_text())
    finders = {}
    for seed in args.seeds:
        for name in names:
            out = args.folder / f'{name}-{seed}'
            train(variant(base, name, seed, args), out)
            finders[f'{name}#{seed}'] = DinoSegmenter(
                model=str(out / 'model.safetensors'))
    finders = {key: finders[key] for name in names for key in finders
               if key.split('#')[0] == name}
    results = run_benchmark(
        finders, args.folder / 'records.jsonl', n_scenes=args.scenes,
        split='validation', cache=args.folder / 'scenes')
    text = table(benchmark_tables(results)['scores'])
    (args.folder / 'ablations.txt').write_text(text)
    print(text)


if __name__ == '__main__':
    main()
