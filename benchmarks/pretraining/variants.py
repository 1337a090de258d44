# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Pretrain variants of a recipe, one after the other, to be compared.

    python -m benchmarks.pretraining.variants RECIPE FOLDER [NAME ...]
        [--steps 800] [--seeds 0 1] [--reuse 64]

Each variant in `VARIANTS` changes one thing of the recipe; ``full`` changes
none. All have the same number of steps, and take ``--reuse`` items from each
image before it is closed, which saves time. FOLDER gets a folder
``NAME-SEED`` of each, as ``astrodino pretrain`` leaves it. What is complete is
left alone, and what was stopped goes on. ``evidence.py`` then says what they
have learned.
"""

import argparse
import copy
import tomllib
from pathlib import Path

from astrodino_seg.train import pretrain_from_config
from astrodino_seg.train.views import RATES

DINO_ONLY = ('n_prototypes', 'koleo', 'centring')


def without_patches(config):
    """DINO as in Caron et al. 2021: views alone."""
    config['objective'].update(ibot=0.0, koleo=0.0)


def mean_centring(config):
    """The teacher's running mean in the place of Sinkhorn-Knopp."""
    config['objective'].update(centring='mean')


def warm(config):
    """The teacher's temperature of DINO, which rises from 0.04 to 0.07."""
    config['fit'].update(temperature=[0.04, 0.07])


def without_prototypes(config):
    """SimDINO."""
    objective = {key: value for key, value in config['objective'].items()
                 if key not in DINO_ONLY}
    config['objective'] = {**objective, 'kind': 'simdino'}


def plain_views(config):
    """Crops, flips and quarter turns, and nothing else."""
    kept = ('aim', 'rescale', 'turn')
    config['views']['rates'] = {name: 0 for name in RATES if name not in kept}


def without_norms(config):
    """Queries and keys as they are."""
    config['model']['vit']['qk_norm'] = False


#: What is changed, by name.
VARIANTS = {'full': lambda config: None, 'dino': without_patches,
            'mean': mean_centring, 'warm': warm,
            'simdino': without_prototypes, 'plain': plain_views,
            'unnormed': without_norms}


def main():
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('recipe', type=Path)
    parser.add_argument('folder', type=Path)
    parser.add_argument('names', nargs='*', metavar='NAME',
                        help=', '.join(VARIANTS))
    parser.add_argument('--steps', type=int, default=800)
    parser.add_argument('--reuse', type=int, default=64)
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1])
    args = parser.parse_args()
    unknown = sorted(set(args.names) - set(VARIANTS))
    if unknown:
        parser.error(f'no variants {unknown}')
    base = tomllib.loads(args.recipe.read_text())
    for seed in args.seeds:
        for name in args.names or VARIANTS:
            config = copy.deepcopy(base)
            VARIANTS[name](config)
            config['fit'].update(n_steps=args.steps, seed=seed)
            config['views']['n_reuse'] = args.reuse
            out = args.folder / f'{name}-{seed}'
            if not (out / 'backbone.safetensors').exists():
                print(out, flush=True)
                pretrain_from_config(config, out)


if __name__ == '__main__':
    main()
