# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What is checked before a pretraining begins, and while it runs.
"""

import math
from inspect import signature
from numbers import Integral, Real

__all__ = ['check_counts', 'check_finite', 'check_settings', 'check_table',
           'check_views', 'describe']

SHARES = ('warmup', 'temperature_warmup', 'frozen_prototypes', 'drop_path',
          'mask_share')
#: The range that both ends of a schedule, or of an interval, are in.
RANGES = {'weight_decay': (0, math.inf), 'momentum': (0, 1),
          'temperature': (1e-4, math.inf), 'mask_ratio': (0, 1)}


def check_table(name, table, function, *, without=(), extra=()):
    """
    Check that a table of a recipe can be the arguments of a function.

    Parameters
    ----------
    name : str
        Of the table.
    table : dict
        The table.
    function : callable
        A function or class. A value must be of the kind of its default: a
        number for a number, as many numbers for a tuple of numbers. Tables
        within the table are not looked at.
    without : iterable of str, optional
        Arguments that are given otherwise.
    extra : iterable of str, optional
        Keys that are for something else.

    Raises
    ------
    ValueError
        If this is no table, a key is unknown, or a value is of another kind.
    """
    if not isinstance(table, dict):
        msg = f'{name} must be a table, got {table!r}'
        raise ValueError(msg)
    known = {key: parameter.default for key, parameter
             in signature(function).parameters.items() if key not in without}
    known.update(dict.fromkeys(extra))
    unknown = sorted(set(table) - set(known))
    if unknown:
        msg = f'{name} has unknown keys {unknown}; known are {sorted(known)}'
        raise ValueError(msg)
    for key, value in table.items():
        kind, found = _kind(known[key]), _kind(value)
        if kind == 'a number' and found == 'an integer':
            continue
        if None not in (kind, found) and kind != found:
            msg = f'{name}: {key} must be {kind}, got {value!r}'
            raise ValueError(msg)


def _kind(value):
    """What a value is, in words; `None` if it may be anything."""
    if isinstance(value, bool):
        return 'true or false'
    if isinstance(value, Integral):
        return 'an integer'
    if isinstance(value, Real):
        return 'a number'
    if isinstance(value, str):
        return 'a string'
    if isinstance(value, (tuple, list)):
        numbers = all(isinstance(v, Real) for v in value)
        return f'{len(value)} numbers' if numbers else 'a list'
    return None


def check_counts(least=1, **counts):
    """
    Raise `ValueError` for what is no integer, or too small a one.

    Parameters
    ----------
    least : int, optional
        The smallest that each may be.
    **counts
        By name, what is to be checked.
    """
    for name, value in counts.items():
        if not (isinstance(value, Integral) and value >= least):
            kind = ('a positive integer' if least == 1
                    else f'an integer of {least} or more')
            msg = f'{name} must be {kind}, got {value!r}'
            raise ValueError(msg)


def check_settings(settings):
    """
    Check the arguments of `~astrodino_seg.pretrain.pretrain`.

    Parameters
    ----------
    settings : dict
        The arguments that are written into a checkpoint.

    Raises
    ------
    ValueError
        If one of them is impossible.
    """
    check_counts(**{name: settings[name] for name in
                    ('n_steps', 'batch_size', 'n_parts')})
    check_counts(0, seed=settings['seed'])
    for name in ('peak_rate', 'max_gradient'):
        if not settings[name] > 0:
            msg = f'{name} must be positive, got {settings[name]!r}'
            raise ValueError(msg)
    for name in SHARES:
        if not 0 <= settings[name] <= 1:
            msg = f'{name} must be in [0, 1], got {settings[name]!r}'
            raise ValueError(msg)
    for name, (low, high) in RANGES.items():
        values = settings[name]
        if len(values) != 2 or not all(low <= v <= high for v in values):
            msg = (f'{name} must be two numbers in [{low}, {high}], got '
                   f'{values!r}')
            raise ValueError(msg)
    least, most = settings['mask_ratio']
    if least > most:
        msg = f'mask_ratio must be a range, got {settings["mask_ratio"]!r}'
        raise ValueError(msg)


def check_views(views, encoder, n_items):
    """
    Check that views can be the input of an encoder.

    Parameters
    ----------
    views : `~torch.utils.data.Dataset`
        Items of `~astrodino_seg.pretrain.data.Views`; the first is made.
    encoder : `~astrodino_seg.models.load.Encoder`
        The encoder.
    n_items : int
        How many items are needed.

    Raises
    ------
    ValueError
        If they do not fit.
    """
    if len(views) < n_items:
        msg = (f'views has {len(views)} items; n_steps * batch_size = '
               f'{n_items} are needed')
        raise ValueError(msg)
    spec = getattr(views, 'spec', encoder.preprocess)
    if spec != encoder.preprocess:
        msg = (f'views are made with {spec}, the encoder has '
               f'{encoder.preprocess}')
        raise ValueError(msg)
    for name, view in zip(('global', 'local'), views[0]):
        _, n_channels, *size = view.shape
        if n_channels != encoder.vit.in_channels:
            msg = (f'views: the {name} ones have {n_channels} channels, the '
                   f'encoder takes {encoder.vit.in_channels}')
            raise ValueError(msg)
        if any(n % encoder.vit.patch_size for n in size):
            msg = (f'views: the sides of the {name} ones must be multiples '
                   f'of patch_size={encoder.vit.patch_size}, got {size[0]}')
            raise ValueError(msg)


def describe(thing):
    """
    The arguments that an object was made with, which it stores by their names.

    Parameters
    ----------
    thing : object
        For example an objective.

    Returns
    -------
    arguments : dict
        With the name of its class as ``kind``.
    """
    names = signature(type(thing)).parameters
    return {'kind': type(thing).__name__,
            **{name: getattr(thing, name) for name in names}}


def check_finite(step, loss, norm):
    """
    Stop a training that has failed.

    Parameters
    ----------
    step : int
        The step.
    loss, norm : `~torch.Tensor`
        Its loss and the norm of its gradient.

    Raises
    ------
    FloatingPointError
        If one of them is not finite.
    """
    loss, norm = loss.item(), norm.item()
    if not (math.isfinite(loss) and math.isfinite(norm)):
        msg = (f'step {step}: the loss is {loss:g} and the norm of its '
               f'gradient {norm:g}; lower peak_rate')
        raise FloatingPointError(msg)
