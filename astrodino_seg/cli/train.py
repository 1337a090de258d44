# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
``astrodino train``.
"""

import tomllib

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
    train_from_config(config, args.output)
    return 0
