# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What changes in the course of a training: pure functions of the step, which
counts from 0.
"""

import math


def ramp(step, n_steps, start, end):
    """A straight line, then constant."""
    if step >= n_steps:
        return end
    return start + (end - start) * step / n_steps


def cosine(step, n_steps, start, end):
    """Half a period of a cosine."""
    progress = min(step / max(n_steps - 1, 1), 1.0)
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * progress))


def warmup_cosine(step, n_steps, *, peak, warmup, end=1e-6):
    """Linear warm-up, then a cosine."""
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    return cosine(step - warmup, n_steps - warmup, peak, end)


def cosine_rate(step, n_steps, *, peak, warmup=200):
    """Linear warm-up, then a cosine to a hundredth of the peak."""
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(n_steps - warmup, 1)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))


def steady_rate(step, n_steps, *, peak, warmup=500, cooldown=0.2):
    """
    Warm up, stay, and fall to nothing at the end (`Hu et al. 2024
    <https://arxiv.org/abs/2404.06395>`_), so that a run can be made longer.
    """
    left = (n_steps - step) / max(cooldown * n_steps, 1)
    return peak * min((step + 1) / max(warmup, 1), 1.0, left)


#: By name.
SCHEDULES = {'cosine': cosine_rate, 'steady': steady_rate}
