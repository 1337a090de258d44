# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The ``astrodino`` command. ``data/commands.toml`` has all commands and their
options; a command's module, and what that needs, is imported when it runs.
"""

import argparse
import os
import re
import sys
import tomllib
import warnings
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path

from astrodino_seg import __version__
from astrodino_seg.cli.products import map_names
from astrodino_seg.errors import AstroDinoUserWarning

USER_ERRORS = (ValueError, TypeError, OSError, ImportError, MemoryError,
               FloatingPointError)
#: In what torch, which raises `RuntimeError`, says of too little memory.
NO_MEMORY = "can't allocate memory"


def main(argv=None):
    """Run ``astrodino``."""
    args = _parser().parse_args(argv)
    # threads that have nothing to do sleep: they would take the processor
    # from whatever else runs. OpenMP reads it when torch is imported.
    os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
    with warnings.catch_warnings(), ExitStack() as args.until_end:
        warnings.simplefilter('ignore')
        warnings.simplefilter('always', AstroDinoUserWarning)
        warnings.showwarning = _show_warning
        try:
            module = import_module(f'astrodino_seg.cli.{args.module}')
            status = getattr(module, f'run_{args.command}')(args)
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
    tables = tomllib.loads((Path(__file__).parents[1] / 'data'
                            / 'commands.toml').read_text('utf-8'))
    for name, table in tables['commands'].items():
        command = commands.add_parser(name, help=table['help'],
                                      description=table.get('description'))
        _add_options(command, table, tables['shared'])
        command.set_defaults(module=table['module'], window=None, options={
            action.dest: action.option_strings[-1]
            for action in command._actions if action.option_strings})
    return parser


def _add_options(command, table, shared):
    """Add those of a command: of the groups that it shares, and its own."""
    options = {}
    for part in (*(shared[name] for name in table.get('shared', ())),
                 table.get('options', {})):
        for names, settings in part.items():
            options[names] = {**options.get(names, {}), **settings}
    one_of = ('exclusive' in table
              and command.add_mutually_exclusive_group())
    for names, settings in options.items():
        if 'type' in settings:
            settings['type'] = TYPES[settings['type']]
        group = one_of if names in table.get('exclusive', ()) else command
        group.add_argument(*names.split(), **settings)


def _bits(text):
    return text if text == 'any' else int(text)


def _background(text):
    return text if text in ('none', 'flat') else float(text)


#: What makes a value of the text of an option.
TYPES = {'int': int, 'float': float, 'bits': _bits,
         'background': _background, 'maps': map_names}
