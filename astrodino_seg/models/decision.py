# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The one learned decision: which seeds are nothing, which are one object.
"""

import torch
from torch import nn
from torch.nn import functional as F

__all__ = ['Decision']


class Decision(nn.Module):
    """
    Two small networks, fitted to what the finished network says.

    Parameters
    ----------
    n_seed : int
        Features of a seed.
    n_pair : int
        Features of a pair of seeds.
    width : int, optional
        Of the layers.
    """

    def __init__(self, n_seed, n_pair, width=96):
        super().__init__()
        self.spec = {'n_seed': n_seed, 'n_pair': n_pair, 'width': width}
        self.seed = _Scaled(n_seed, width)
        self.pair = _Scaled(n_pair, width)


class _Scaled(nn.Module):
    """Standardised features, two hidden layers, one logit."""

    def __init__(self, n_in, width):
        super().__init__()
        self.register_buffer('mean', torch.zeros(n_in))
        self.register_buffer('scale', torch.ones(n_in))
        self.net = nn.Sequential(
            nn.Linear(n_in, width), nn.GELU(), nn.Linear(width, width),
            nn.GELU(), nn.Linear(width, 1))

    def forward(self, features, dropout=0.0):
        """Logits (n,) of features (n, n_in), some of these left out."""
        standard = ((features - self.mean) / self.scale).clamp(-8, 8)
        return self.net(F.dropout(standard, dropout))[:, 0]
