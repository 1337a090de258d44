# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What changes in the course of a training: pure functions of the step.

Steps count from 0. Their values are those of DINO (Caron et al. 2021,
`arXiv:2104.14294 <https://arxiv.org/abs/2104.14294>`_): a learning rate with
linear warm-up and cosine decay, a weight decay and a teacher's momentum that
rise along a cosine, a teacher's temperature with linear warm-up.
"""

import math

__all__ = ['cosine', 'learning_rate', 'ramp']


def ramp(step, n_steps, start, end):
    """
    A straight line, then constant.

    Parameters
    ----------
    step : int
        The step.
    n_steps : int
        The step from which the value is ``end``.
    start, end : float
        The first and the last value.

    Returns
    -------
    value : float
        The value of this step.
    """
    if step >= n_steps:
        return end
    return start + (end - start) * step / n_steps


def cosine(step, n_steps, start, end):
    """
    Half a period of a cosine.

    Parameters
    ----------
    step : int
        The step, from 0 to ``n_steps - 1``.
    n_steps : int
        How many steps there are; the last has the value ``end``.
    start, end : float
        The first and the last value.

    Returns
    -------
    value : float
        The value of this step.
    """
    progress = min(step / max(n_steps - 1, 1), 1.0)
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * progress))


def learning_rate(step, n_steps, *, peak, warmup, end=1e-6):
    """
    Linear warm-up, then a cosine.

    Parameters
    ----------
    step, n_steps : int
        The step and how many there are.
    peak : float
        The largest rate, that of step ``warmup``.
    warmup : int
        Steps of warm-up; the first has the rate ``peak / (warmup + 1)``.
    end : float, optional
        The rate of the last step.

    Returns
    -------
    rate : float
        The learning rate of this step.
    """
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    return cosine(step - warmup, n_steps - warmup, peak, end)
