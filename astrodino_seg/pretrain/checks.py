# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What is checked before a pretraining begins, and while it runs.
"""

import math
from inspect import signature

__all__ = ['check_finite', 'check_settings', 'check_views', 'describe']

SHARES = ('warmup', 'temperature_warmup', 'frozen_prototypes', 'drop_path',
          'mask_share')
#: The range that both ends of a schedule, or of an interval, are in.
RANGES = {'weight_decay': (0, math.inf), 'momentum': (0, 1),
          'temperature': (1e-4, math.inf), 'mask_ratio': (0, 1)}


def check_settings(settings, **counts):
    """
    Check the arguments of `~astrodino_seg.pretrain.pretrain`.

    Parameters
    ----------
    settings : dict
        The arguments that are written into a checkpoint.
    **counts : int
        Others that must be positive.

    Raises
    ------
    ValueError
        If one of them is impossible.
    """
    for name in ('n_steps', 'batch_size', 'n_parts'):
        counts[name] = settings[name]
    for name, value in counts.items():
        if not (isinstance(value, int) and value > 0):
            msg = f'{name} must be a positive integer, got {value!r}'
            raise ValueError(msg)
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


def check_views(views, encoder, n_items):
    """
    Check that views can be the input of an encoder.

    Parameters
    ----------
    views : `~torch.utils.data.Dataset`
        Items of `~astrodino_seg.pretrain.data.Views`; the first is made.
    encoder : `~astrodino_seg.model.Encoder`
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
