# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Sinkhorn-Knopp: prototypes shared out evenly among the batch.
"""

import torch
from torch import distributed

from astrodino_seg.pretrain.losses.collective import all_sum, n_processes

__all__ = ['sinkhorn_knopp']


@torch.no_grad()
def sinkhorn_knopp(logits, temperature, *, n_iterations=3):
    """
    The teacher's probabilities such that all prototypes are used alike.

    In turn each prototype is given the same total over the batch of all
    processes and each sample the total 1 (Caron et al. 2020, SwAV,
    `arXiv:2006.09882 <https://arxiv.org/abs/2006.09882>`_, equation 3;
    in DINOv2 in place of the centre). Done with logarithms, so that no
    temperature is too low.

    Parameters
    ----------
    logits : `~torch.Tensor`
        (..., K) of the teacher.
    temperature : float
        The teacher's temperature.
    n_iterations : int, optional
        How often.

    Returns
    -------
    probabilities : `~torch.Tensor`
        (..., K), without gradient; the last axis sums to 1.
    """
    log_q = logits.flatten(0, -2) / temperature                 # (B, K)
    for _ in range(n_iterations):
        log_q = log_q - _logsumexp_of_all(log_q)
        log_q = log_q - log_q.logsumexp(dim=1, keepdim=True)
    return log_q.exp().reshape(logits.shape)


def _logsumexp_of_all(x):
    """(K,) logarithm of the sum of exp over the rows of all processes."""
    least = x.new_full((1, x.shape[1]), -torch.inf)     # if there are no rows
    largest = torch.cat([x, least]).amax(dim=0)
    if n_processes() > 1:
        distributed.all_reduce(largest, distributed.ReduceOp.MAX)
    return largest + all_sum((x - largest).exp().sum(dim=0)).log()
