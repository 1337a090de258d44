# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The teacher's centre: a running mean of its outputs.
"""

import torch
from torch import nn

from astrodino_seg.pretrain.losses.collective import all_sum

__all__ = ['Centre']


class Centre(nn.Module):
    r"""
    Centring and sharpening of the teacher.

    The centre :math:`c` is taken from the teacher's logits before a softmax
    of low temperature, and follows their mean over all processes, :math:`c
    \leftarrow m c + (1 - m) \bar z` (Caron et al. 2021, `arXiv:2104.14294
    <https://arxiv.org/abs/2104.14294>`_, equation 4). Centring alone leads to
    a uniform output, sharpening alone to one prototype for all; together they
    keep both away.

    Parameters
    ----------
    n_outputs : int
        The number of prototypes, ``K``.
    momentum : float, optional
        :math:`m`, per step.

    Attributes
    ----------
    value : `~torch.Tensor`
        (K,), a buffer: it belongs in a checkpoint.
    """

    def __init__(self, n_outputs, *, momentum=0.9):
        super().__init__()
        self.momentum = momentum
        self.register_buffer('value', torch.zeros(n_outputs))
        self._seen = None

    @torch.no_grad()
    def softmax(self, logits, temperature):
        """
        The teacher's probabilities, centred and sharpened.

        Parameters
        ----------
        logits : `~torch.Tensor`
            (..., K); they count in the next `update`.
        temperature : float
            The teacher's temperature.

        Returns
        -------
        probabilities : `~torch.Tensor`
            (..., K), without gradient.
        """
        rows = logits.flatten(0, -2)
        seen = torch.cat([rows.sum(dim=0), rows.new_tensor([len(rows)])])
        self._seen = seen if self._seen is None else self._seen + seen
        return ((logits - self.value) / temperature).softmax(dim=-1)

    @torch.no_grad()
    def update(self):
        """Move towards the mean of the logits since the last update."""
        if self._seen is None:
            return
        total = all_sum(self._seen)
        if total[-1] > 0:
            self.value.lerp_(total[:-1] / total[-1], 1 - self.momentum)
        self._seen = None
