# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The ``astrodino`` command; one module a subcommand, which imports what it needs
only when it runs.
"""

import argparse
import os
import re
import sys
import warnings

from astrodino_seg.cli import (
    attention,
    benchmark,
    compare,
    demo,
    embed,
    fetch,
    info,
    pretrain,
    probe,
    search,
    segment,
    simulate,
    stamps,
    train,
)
from astrodino_seg.errors import AstroDinoWarning
from astrodino_seg.version import __version__

__all__ = ['main']

USER_ERRORS = (ValueError, TypeError, OSError, ImportError,
               FloatingPointError)
COMMANDS = (segment, compare, attention, embed, probe, search, benchmark, demo,
            fetch, info, simulate, stamps, train, pretrain)


def main(argv=None):
    """
    Run ``astrodino``.

    Parameters
    ----------
    argv : list of str, optional
        The arguments; those of the process if `None`.

    Returns
    -------
    status : int
        0 if all went well, 1 after an error (one line on standard error),
        3 if nothing was found, 130 after an interrupt, 141 if the reader of
        the output has gone. Wrong usage exits with 2.
    """
    args = _parser().parse_args(argv)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        warnings.simplefilter('always', AstroDinoWarning)
        warnings.showwarning = _show_warning
        try:
            status = args.run(args)
            sys.stdout.flush()
            return status
        except KeyboardInterrupt:
            print('astrodino: interrupted', file=sys.stderr)
            return 130
        except BrokenPipeError:
            # who read the output, as ``head`` does, has seen enough; what is
            # left of it must not fail again at the end of the process
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            os.close(nowhere)
            return 141
        except USER_ERRORS as err:
            if args.debug:
                raise
            text = ' '.join(str(err).split()) or type(err).__name__
            text = re.sub(r'^\w+', lambda name: args.options.get(
                name[0], name[0]), text)    # of the command, not of Python
            print(f'astrodino: error: {text}', file=sys.stderr)
            return 1


def _show_warning(message, category, *args, **kwargs):
    print(f'astrodino: warning: {message}', file=sys.stderr)


def _parser():
    parser = argparse.ArgumentParser(
        prog='astrodino',
        description='Segment astronomical images, one label an object.')
    parser.add_argument('--version', action='version',
                        version=f'%(prog)s {__version__}')
    parser.add_argument('--debug', action='store_true',
                        help='show the traceback of an error')
    commands = parser.add_subparsers(dest='command', required=True)
    for command in COMMANDS:
        command.add_parser(commands)
    for one in commands.choices.values():
        one.set_defaults(options={
            action.dest: action.option_strings[-1]
            for action in one._actions if action.option_strings})
    return parser
