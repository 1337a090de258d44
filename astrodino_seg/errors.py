# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Exceptions and warnings, and the checks for optional packages, for settings and
for the arguments of training: of functions, and of tables of recipes.

Wrong arguments raise `ValueError` or `TypeError`; the classes here exist only
where a caller may want to catch one by name.
"""

from collections.abc import Mapping
from importlib import import_module
from inspect import Parameter, signature
from typing import Annotated, Any, get_args


class AstroDinoUserWarning(UserWarning):
    """Something in the input is unusual; the result may not be meant."""
    # none of astropy's, which are ignored where it reads files


class OutOfDomainWarning(AstroDinoUserWarning):
    """An image is unlike those that the model copes with."""


class BandWarning(AstroDinoUserWarning):
    """The bands could not be ordered by wavelength."""


class CollapseWarning(AstroDinoUserWarning):
    """A self-supervised training has found an answer that says nothing."""


class SkippedWarning(AstroDinoUserWarning):
    """Some of many items could not be used and were left out."""

    def __init__(self, kind, skipped):
        super().__init__(kind, skipped)
        self.kind, self.skipped = kind, skipped

    def __str__(self):
        item, reason = self.skipped[0]
        return (f'{self.kind} left out: {len(self.skipped)}, listed in '
                f'"skipped" of this warning; the first is {str(item)!r}: '
                f'{reason}')


class BusyError(OSError):
    """Another process writes the same files at this time."""


class TooLargeError(ValueError):
    """What comes from outside is, or says it is, larger than is allowed."""


class DownloadError(OSError):
    """A service answered with an error, or not with what was asked for."""


class MissingToolError(ImportError):
    """A program that a baseline runs is not on this machine."""


class ProgramError(RuntimeError):
    """A program that a baseline runs has failed."""


class EmptyImageError(ValueError):
    """An image has no valid pixels."""


class ModelFileError(ValueError):
    """A weights file is corrupt, foreign, or of another format version."""


#: The least of integers that may be less, or must be more, than 1.
LEAST = {'seed': 0, 'n_workers': 0, 'warmup': 0, 'own_seeds_from': 0,
         'n_local': 0, 'first': 0, 'n_registers': 0, 'patch_border': 0,
         'local_size': 8, 'global_size': 16}
#: The most of integers that cost a process or a thread each.
MOST = {'n_workers': 256, 'threads': 1024}
#: Ranges of other numbers, or of both of a pair; they are 0 or more else.
RANGES = {**dict.fromkeys([
    'warmup', 'temperature_warmup', 'frozen_prototypes', 'drop_path',
    'mask_share', 'momentum', 'mask_ratio', 'average_decay', 'layer_decay'],
    (0, 1)), 'temperature': (1e-4, None), 'mlp_ratio': (0.1, 100)}
#: Numbers that must be more than 0.
POSITIVE = {'peak_rate', 'max_gradient', 'student_temperature', 'rate',
            'distortion', 'share'}
#: Types of what has no default, or `None`, which then is a value too.
TYPES = {**dict.fromkeys(['n_steps', 'n_items', 'n_scenes', 'n_reuse',
                          'threads'], int),
         'share': float, 'stop_after': float, 'bfloat16': bool}


def check_settings(values, rules):
    """
    Raise `ValueError` for values that are not as the rules of their names say:
    of a type (or some), for which a function is true, which is then in words.
    """
    for name, value in values.items():
        kinds, is_right, words = rules[name]
        kinds = kinds if isinstance(kinds, tuple) else (kinds,)
        if (not isinstance(value, kinds) or not is_right(value)
                or isinstance(value, bool) and bool not in kinds):
            msg = f'{name} must be {words}, got {value!r}'
            raise ValueError(msg)


def require(package, extra=None):
    """Import an optional package, or say in one sentence how to get it."""
    try:
        return import_module(package)
    except (ImportError, RuntimeError, OSError) as err:
        # a torchvision built for another torch raises RuntimeError or
        # OSError from within ``import timm``
        name = package.split('.')[0]
        how = (f'pip install "astrodino_seg[{extra}]"' if extra
               else f'pip install {name}')
        msg = f'{name} is needed for this and cannot be imported; {how}'
        raise ImportError(msg) from err


def check(name, table, *functions, without=(), extra=(), needs=()):
    """
    Raise `ValueError` if a table cannot be arguments of functions, less those
    ``without``: keys are known, values of the type of the default and in
    range, and none is missing that it ``needs``.
    """
    if not isinstance(table, Mapping):
        msg = f'{name} must be a table, got {table!r}'
        raise ValueError(msg)
    known = dict.fromkeys(extra, Parameter.empty)
    for function in functions:
        known |= {key: one.default
                  for key, one in signature(function).parameters.items()
                  if one.kind is not Parameter.VAR_KEYWORD}
    known = {k: v for k, v in known.items() if k not in without}
    unknown = sorted(set(table) - set(known))
    if unknown:
        msg = f'{name} has unknown keys {unknown}; known are {sorted(known)}'
        raise ValueError(msg)
    for key in needs:
        if key not in table:
            msg = f'{name}: {key} is missing'
            raise ValueError(msg)
    for key, value in table.items():
        if value is None and known[key] is None:
            continue
        _check_value(f'{name}: {key}', value, _kind(key, known[key]))


def _check_value(name, value, kind):
    pydantic = require('pydantic', 'train')
    if hasattr(value, 'dtype') and value.ndim == 0:
        value = value.item()
    pair = isinstance(value, list | tuple)      # a list in a file
    try:
        pydantic.TypeAdapter(kind).validate_python(
            tuple(value) if pair else value, strict=True)
    except pydantic.ValidationError as err:
        found = err.errors()[0]
        text = found['msg'].removeprefix('Input ')
        if found['type'] in ('tuple_type', 'missing', 'too_long'):
            text = f'should be {len(get_args(kind))} numbers'
        msg = f'{name} {text}, got {value!r}'
        raise ValueError(msg) from None


def _kind(key, default):
    """The type of an argument, with its range."""
    field = require('pydantic', 'train').Field
    kind = TYPES.get(key, type(default))
    if kind is int:
        return Annotated[int, field(ge=LEAST.get(key, 1),
                                    le=MOST.get(key))]
    if kind is float or key in RANGES:
        low, high = RANGES.get(key, (0, None))
        number = Annotated[float, field(gt=0) if key in POSITIVE
                           else field(ge=low, le=high)]
        return tuple[number, number] if kind is tuple else number
    if kind is tuple and all(isinstance(v, int | float) for v in default):
        return tuple[(Annotated[float, field(ge=0)],) * len(default)]
    return kind if kind in (bool, str) else Any
