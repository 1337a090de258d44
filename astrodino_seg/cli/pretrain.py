# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
``astrodino pretrain``.
"""

import tomllib

__all__ = ['add_parser', 'run']


def add_parser(commands):
    """Add the subcommand."""
    pretrain = commands.add_parser(
        'pretrain', help='train a backbone on images without labels')
    pretrain.add_argument('config', help='TOML recipe; there are some in '
                                         'astrodino_seg/train/recipes')
    pretrain.add_argument('-o', '--output', required=True,
                          help='folder for checkpoint, log and weights; a '
                               'run that was killed goes on from there')
    pretrain.add_argument('-q', '--quiet', action='store_true',
                          help='no progress bar')
    pretrain.set_defaults(run=run)


def run(args):
    """Run the subcommand."""
    from astrodino_seg.train import pretrain_from_config

    with open(args.config, 'rb') as stream:
        config = tomllib.load(stream)
    pretrain_from_config(config, args.output, progress=not args.quiet)
    return 0
