# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The coding rate: how many directions the features spread over.
"""

import torch

from astrodino_seg.pretrain.losses.collective import all_sum

__all__ = ['coding_rate', 'coding_rate_weight']


def coding_rate(features, *, distortion=0.05):
    r"""
    The rate at which features are coded up to a distortion.

    .. math::

        R = \frac{1}{2} \log \det \left( I + \frac{d}{\varepsilon^2}
        \frac{Z^T Z}{n} \right)

    is least if all features are equal and largest if they fill all directions
    alike. SimDINO makes it large, in the place of prototypes, centre and
    temperatures (Wu et al. 2025, `arXiv:2502.10385
    <https://arxiv.org/abs/2502.10385>`_).

    Parameters
    ----------
    features : `~torch.Tensor`
        (n, d) of unit length. With several processes ``n`` is their total.
    distortion : float, optional
        :math:`\varepsilon^2`.

    Returns
    -------
    rate : `~torch.Tensor`
        A scalar, in nats.
    """
    dim = features.shape[1]
    count = all_sum(features.new_tensor(len(features)))
    moment = all_sum(features.T @ features) / count             # (d, d)
    matrix = torch.eye(dim, dtype=features.dtype, device=features.device)
    matrix = matrix + dim / distortion * moment
    # the determinant is the squared product of the factor's diagonal
    return torch.linalg.cholesky(matrix).diagonal().log().sum()


def coding_rate_weight(n_features, dim):
    """
    The weight of the rate that balances it with the alignment.

    :math:`(n + d) / (n d)` keeps the two of one order whatever the batch (the
    choice of SimDINO's authors in their program).

    Parameters
    ----------
    n_features, dim : int
        The shape of the features of all processes.

    Returns
    -------
    weight : float
        The weight.
    """
    return (n_features + dim) / (n_features * dim)
