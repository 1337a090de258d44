# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The loss of iBOT: what the hidden patches would have said.
"""

from torch.nn import functional as F

__all__ = ['ibot_loss', 'mean_over_masked']


def ibot_loss(student, teacher, mask, *, temperature=0.1):
    """
    Cross-entropy between teacher and student in the masked patches.

    The student sees a mask token in their place, the teacher the patches
    (Zhou et al. 2022, `arXiv:2111.07832 <https://arxiv.org/abs/2111.07832>`_,
    equation 2; weights as in DINOv2, `arXiv:2304.07193
    <https://arxiv.org/abs/2304.07193>`_).

    Parameters
    ----------
    student : `~torch.Tensor`
        (M, K) logits of the masked patches, in the order of
        ``mask.nonzero()``.
    teacher : `~torch.Tensor`
        (M, K) probabilities of the same patches.
    mask : `~torch.Tensor`
        (B, gh, gw) bool, `True` where masked.
    temperature : float, optional
        The student's.

    Returns
    -------
    loss : `~torch.Tensor`
        A scalar: the mean over the masked patches of each image, then over
        the images, those without a mask counted as 0.
    """
    log_p = F.log_softmax(student / temperature, dim=-1)
    return mean_over_masked(-(teacher * log_p).sum(dim=-1), mask)


def mean_over_masked(values, mask):
    """
    The mean over the masked patches of each image, then over the images.

    Parameters
    ----------
    values : `~torch.Tensor`
        (M,), in the order of ``mask.nonzero()``.
    mask : `~torch.Tensor`
        (B, gh, gw) bool.

    Returns
    -------
    mean : `~torch.Tensor`
        A scalar.
    """
    mask = mask.flatten(1)                                      # (B, N)
    n_masked = mask.sum(dim=1, keepdim=True).clamp(min=1)
    weight = (1 / n_masked).expand_as(mask)[mask]               # (M,)
    return (values * weight).sum() / len(mask)
