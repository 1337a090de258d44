# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The ``astrodino`` command; a subcommand imports what it needs only when it
runs.
"""

import argparse
import os
import re
import sys
import warnings
from contextlib import ExitStack

from astrodino_seg import __version__
from astrodino_seg.cli.compare import add_benchmark, add_compare
from astrodino_seg.cli.embed import add_attention, add_embed, add_search
from astrodino_seg.cli.probe import add_probe
from astrodino_seg.cli.segment import add_report, add_segment
from astrodino_seg.cli.simulate import (
    add_pretrain,
    add_simulate,
    add_stamps,
    add_train,
)
from astrodino_seg.cli.tools import add_demo, add_fetch, add_info
from astrodino_seg.errors import AstroDinoWarning

USER_ERRORS = (ValueError, TypeError, OSError, ImportError, MemoryError,
               FloatingPointError)
#: In what torch, which raises `RuntimeError`, says of too little memory.
NO_MEMORY = "can't allocate memory"
COMMANDS = (add_segment, add_report, add_compare, add_attention, add_embed,
            add_probe, add_search, add_benchmark, add_demo, add_fetch,
            add_info, add_simulate, add_stamps, add_train, add_pretrain)


def main(argv=None):
    """Run ``astrodino``."""
    args = _parser().parse_args(argv)
    # threads that have nothing to do sleep: they would take the processor
    # from whatever else runs. OpenMP reads it when torch is imported.
    os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
    with warnings.catch_warnings(), ExitStack() as args.until_end:
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
        except (*USER_ERRORS, RuntimeError) as err:
            if args.debug or not (isinstance(err, USER_ERRORS)
                                  or NO_MEMORY in str(err)):
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
    for add in COMMANDS:
        add(commands)
    for one in commands.choices.values():
        one.set_defaults(options={
            action.dest: action.option_strings[-1]
            for action in one._actions if action.option_strings})
    return parser
