# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The loss of DINO.
"""

import torch
from torch.nn import functional as F

__all__ = ['dino_loss', 'mean_over_pairs']


def dino_loss(student, teacher, *, temperature=0.1):
    r"""
    Cross-entropy between the teacher's and the student's views of an image.

    .. math::

        L = \frac{1}{|P|} \sum_{(t, s) \in P} \left< - \sum_k p_{tk} \log
        \mathrm{softmax}_k (z_s / \tau) \right>, \quad
        P = \{(t, s): t \neq s\},

    where the brackets are the mean over the batch (Caron et al. 2021,
    `arXiv:2104.14294 <https://arxiv.org/abs/2104.14294>`_, equation 3 and
    Algorithm 1).

    Parameters
    ----------
    student : `~torch.Tensor`
        (S, B, K) logits of the views, those that the teacher saw first.
    teacher : `~torch.Tensor`
        (T, B, K) probabilities, centred and sharpened.
    temperature : float, optional
        :math:`\tau`, the student's.

    Returns
    -------
    loss : `~torch.Tensor`
        A scalar.

    Raises
    ------
    ValueError
        If there is no pair of two views.
    """
    log_p = F.log_softmax(student / temperature, dim=-1)
    pairs = torch.einsum('tbk,sbk->ts', teacher, log_p) / student.shape[1]
    return -mean_over_pairs(pairs)


def mean_over_pairs(pairs):
    """
    The mean over pairs of different views.

    Parameters
    ----------
    pairs : `~torch.Tensor`
        (T, S), one value for each view of the teacher and of the student.

    Returns
    -------
    mean : `~torch.Tensor`
        A scalar: the mean without the diagonal.

    Raises
    ------
    ValueError
        If nothing is left.
    """
    n_pairs = pairs.numel() - min(pairs.shape)
    if n_pairs == 0:
        msg = (f'teacher and student need two different views, got '
               f'{pairs.shape[0]} and {pairs.shape[1]} views')
        raise ValueError(msg)
    same = torch.eye(*pairs.shape, dtype=torch.bool, device=pairs.device)
    return pairs.masked_fill(same, 0).sum() / n_pairs
