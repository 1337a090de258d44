# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Learning rates by step, and by layer.
"""

import math

__all__ = ['SCHEDULES', 'learning_rate', 'parameter_groups', 'rate_of_step']


def learning_rate(step, n_steps, *, peak, warmup=200):
    """
    Linear warm-up, then a cosine to a hundredth of the peak.

    Parameters
    ----------
    step, n_steps : int
        The step and how many there will be.
    peak : float
        The largest rate.
    warmup : int, optional
        Steps of warm-up.

    Returns
    -------
    rate : float
        The learning rate of this step.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(n_steps - warmup, 1)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))


def rate_of_step(step, n_steps, *, peak, warmup=500, cooldown=0.2):
    """
    Warm up, stay, and fall to nothing at the end (`Hu et al. 2024
    <https://arxiv.org/abs/2404.06395>`_), so that a run can be made longer.

    Parameters
    ----------
    step, n_steps : int
        The step and how many there will be.
    peak : float
        The largest rate.
    warmup : int, optional
        Steps in which it rises.
    cooldown : float, optional
        Share of the steps in which it falls.

    Returns
    -------
    rate : float
        The learning rate of this step.
    """
    left = (n_steps - step) / max(cooldown * n_steps, 1)
    return peak * min((step + 1) / warmup, 1.0, left)


#: By name.
SCHEDULES = {'cosine': learning_rate, 'steady': rate_of_step}


def parameter_groups(model, layer_decay):
    """
    Groups of parameters for the optimiser, and the factor on the rate of
    each: that of a layer of the transformer falls with its depth.

    Parameters
    ----------
    model : Model or SemanticModel
        The model; what requires no gradient is left out.
    layer_decay : float
        Factor from each layer to the one below.

    Returns
    -------
    groups : list
        What an optimiser takes.
    factors : list of float
        Of each group.
    """
    if layer_decay == 1:
        return [p for p in model.parameters() if p.requires_grad], [1.0]
    depth = len(model.vit.blocks)
    groups = {}
    for name, param in model.named_parameters():
        part = name.split('.')
        below = 0
        if part[0] == 'vit' and part[1] == 'blocks':
            below = depth - int(part[2])
        elif part[0] == 'vit' and part[1] != 'norm':
            below = depth + 1               # patches, positions, CLS token
        if param.requires_grad:
            groups.setdefault(below, []).append(param)
    return ([{'params': groups[below]} for below in sorted(groups)],
            [layer_decay**below for below in sorted(groups)])
