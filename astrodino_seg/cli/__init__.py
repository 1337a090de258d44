# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The ``astrodino`` command, and ``astrodino info``; a subcommand imports what it
needs only when it runs.
"""

import argparse
import os
import re
import sys
import warnings
from contextlib import ExitStack

from astrodino_seg import __version__
from astrodino_seg.cli.compare import add_benchmark, add_compare, add_demo
from astrodino_seg.cli.embed import add_attention, add_embed, add_search
from astrodino_seg.cli.probe import add_probe
from astrodino_seg.cli.segment import add_report, add_segment
from astrodino_seg.cli.train import (
    add_fetch,
    add_pretrain,
    add_simulate,
    add_stamps,
    add_train,
)
from astrodino_seg.errors import AstroDinoWarning

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


def add_info(commands):
    info = commands.add_parser('info', help='model, versions and devices')
    info.add_argument('--model', help='a weights file of a model or backbone, '
                                      'or the name of a bundled one')
    info.add_argument('--json', action='store_true',
                      help='all that the weights file tells, as JSON')
    info.set_defaults(run=run_info)


def describe(model, name):
    """What a model or a backbone is, in lines for people."""
    classes = getattr(model, 'classes', ())[1:]
    if not classes:
        yield f'{name}: a backbone without a head'
    elif hasattr(model, 'decision'):
        yield f'{name}: tells objects apart, and each is {_or(classes)}'
    else:
        yield f'{name}: tells which pixels are sky, {_or(classes)}'
    vit = model.vit.spec
    n_parameters = sum(p.numel() for p in model.parameters())
    yield (f'network: {n_parameters / 1e6:.2f} million parameters; a Vision '
           f'Transformer of {vit["depth"]} layers of {vit["dim"]} on patches '
           f'of {vit["patch_size"]} pixels')
    yield (f'input: any number of bands, as {model.planes.n_planes} planes by '
           f'the rule {type(model.planes).__name__}')
    told = model.provenance
    steps = told.get('steps', told.get('n_steps'))
    if steps is not None:
        hours = f' in {told["hours"]:.1f} hours' if 'hours' in told else ''
        yield f'training: {steps:,} steps{hours}'
    fit = (model.spec.get('calibration') or {}).get('fit')
    if fit:
        yield f'calibration: on {fit["n_scenes"]} simulated scenes'


def _or(words):
    *most, last = words
    return f'{", ".join(most)} or {last}' if most else last


def run_info(args):
    import json
    import platform
    from importlib.metadata import version

    import torch

    from astrodino_seg.models.load import DEFAULT_MODEL, load_any

    model = load_any(args.model)
    if args.json:
        print(json.dumps({**model.spec, 'provenance': model.provenance},
                         indent=2))
        return 0
    for line in describe(model, str(args.model or DEFAULT_MODEL)):
        print(line)
    packages = ('astrodino_seg', 'torch', 'photutils', 'astropy', 'numpy')
    print('versions: python ' + platform.python_version() + ', '
          + ', '.join(f'{name} {version(name)}' for name in packages))
    devices = ['cpu'] + [f'cuda:{k} ({torch.cuda.get_device_name(k)})'
                         for k in range(torch.cuda.device_count())]
    print(f'devices: {", ".join(devices)}; '
          f'{torch.get_num_threads()} CPU threads')
    return 0


COMMANDS = (add_segment, add_report, add_compare, add_attention, add_embed,
            add_probe, add_search, add_benchmark, add_demo, add_fetch,
            add_info, add_simulate, add_stamps, add_train, add_pretrain)
