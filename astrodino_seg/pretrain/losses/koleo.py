# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
KoLeo: features that keep their distance.
"""

import torch
from torch.nn import functional as F

from astrodino_seg.pretrain.losses.collective import all_rows

__all__ = ['koleo_loss']


def koleo_loss(features, *, epsilon=1e-8):
    """
    Minus the mean logarithm of the distance to the nearest neighbour.

    The differential entropy of the features, as Kozachenko and Leonenko
    estimate it, up to constants (Sablayrolles et al. 2019, `arXiv:1806.03198
    <https://arxiv.org/abs/1806.03198>`_, equation 2; in DINOv2 on the CLS
    tokens). Neighbours are looked for in the batch of all processes.

    Parameters
    ----------
    features : `~torch.Tensor`
        (B, D), one view of each image; of any length, for they are
        normalised here.
    epsilon : float, optional
        Added to the distance.

    Returns
    -------
    loss : `~torch.Tensor`
        A scalar.

    Raises
    ------
    ValueError
        If there are fewer than two features.
    """
    features = all_rows(F.normalize(features, dim=-1))
    if len(features) < 2:
        msg = f'features: two or more are needed, got {len(features)}'
        raise ValueError(msg)
    with torch.no_grad():
        cosine = (features @ features.T).fill_diagonal_(-2)
        nearest = cosine.argmax(dim=1)
    difference = features - features[nearest]
    # the root has no slope at 0, where two features are equal
    distance = (difference.square().sum(dim=1) + epsilon**2).sqrt()
    return -(distance + epsilon).log().mean()
