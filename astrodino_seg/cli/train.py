# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
``astrodino train``.
"""

import tomllib
from pathlib import Path

__all__ = ['add_parser', 'run']


def add_parser(commands):
    """Add the subcommand."""
    train = commands.add_parser('train', help='train a model from a recipe')
    train.add_argument('config', help='TOML recipe; there are some in '
                                      'astrodino_seg/train/recipes')
    train.add_argument('-o', '--output', required=True,
                       help='folder for checkpoint, log and weights; a run '
                            'that was killed goes on from there')
    train.set_defaults(run=run)


def run(args):
    """Run the subcommand."""
    from astrodino_seg.train import train_from_config

    with open(args.config, 'rb') as stream:
        config = tomllib.load(stream)
    model = train_from_config(config, args.output)
    print(_ending(model.provenance, Path(args.output)))
    return 0


def _ending(told, folder):
    """How the training ended, in one line."""
    if not (folder / 'model.safetensors').exists():
        return (f'stopped after {told["steps"]} steps; the same command goes '
                f'on')
    end = 'the last one'
    if 'best_step' in told:
        end = (f'the best one, {told["best_step"]}, with a panoptic quality '
               f'of {told["validation_pq"]:.3f}')
    return (f'ended after {told["steps"]} steps; {folder}/model.safetensors '
            f'has the weights of {end}')
