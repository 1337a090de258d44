# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Sums and rows over all processes of a run, with gradients.

With one process, or none set up by `torch.distributed`, they return what they
are given. A loss that is made of them has the same value in every process, and
the gradient that `~torch.nn.parallel.DistributedDataParallel` makes, the mean
over the processes, is that of one process with the whole batch.
"""

import torch
from torch import distributed

__all__ = ['all_rows', 'all_sum', 'n_processes']


def n_processes():
    """How many processes work together."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_world_size()
    return 1


class _AllSum(torch.autograd.Function):
    """The sum over processes; each of them depends on every term."""

    @staticmethod
    def forward(ctx, x):
        x = x.clone()
        distributed.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx, gradient):
        gradient = gradient.clone()
        distributed.all_reduce(gradient)
        return gradient


def all_sum(x):
    """
    The sum of a tensor over all processes.

    Parameters
    ----------
    x : `~torch.Tensor`
        Of the same shape in each process.

    Returns
    -------
    total : `~torch.Tensor`
        The same in each process.
    """
    return _AllSum.apply(x) if n_processes() > 1 else x


def all_rows(x):
    """
    The rows of all processes, in the order of their ranks.

    Parameters
    ----------
    x : `~torch.Tensor`
        (n, ...), of the same shape in each process.

    Returns
    -------
    rows : `~torch.Tensor`
        (n_processes n, ...), the same in each process.
    """
    if n_processes() == 1:
        return x
    parts = [torch.zeros_like(x)] * n_processes()
    parts[distributed.get_rank()] = x
    return all_sum(torch.cat(parts))
