# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Alignment of unit vectors: what SimDINO has in place of the cross-entropy.
"""

import torch

from astrodino_seg.pretrain.losses.dino import mean_over_pairs
from astrodino_seg.pretrain.losses.ibot import mean_over_masked

__all__ = ['alignment_loss', 'masked_alignment_loss']


def alignment_loss(student, teacher):
    """
    Half the squared distance of two views of an image, over all pairs.

    Of unit vectors that is 1 less the cosine (Wu et al. 2025,
    `arXiv:2502.10385 <https://arxiv.org/abs/2502.10385>`_). Alone it would
    make all features equal: `coding_rate` goes with it.

    Parameters
    ----------
    student : `~torch.Tensor`
        (S, B, D) of unit length, the views that the teacher saw first.
    teacher : `~torch.Tensor`
        (T, B, D) of unit length.

    Returns
    -------
    loss : `~torch.Tensor`
        A scalar.

    Raises
    ------
    ValueError
        If there is no pair of two views.
    """
    cosine = torch.einsum('tbd,sbd->ts', teacher, student) / student.shape[1]
    return mean_over_pairs(1 - cosine)


def masked_alignment_loss(student, teacher, mask):
    """
    Half the squared distance of teacher and student in masked patches.

    Parameters
    ----------
    student, teacher : `~torch.Tensor`
        (M, D) of unit length, in the order of ``mask.nonzero()``.
    mask : `~torch.Tensor`
        (B, gh, gw) bool, `True` where masked.

    Returns
    -------
    loss : `~torch.Tensor`
        A scalar, averaged as in `ibot_loss`.
    """
    return mean_over_masked(1 - (student * teacher).sum(dim=-1), mask)
