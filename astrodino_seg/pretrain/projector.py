# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The projector: what stands between the tokens and the losses.
"""

import torch
from torch import nn
from torch.nn import functional as F

__all__ = ['Projector']


class Projector(nn.Module):
    """
    An MLP with a bottleneck, and prototypes to compare with.

    The head of DINO (Caron et al. 2021, `arXiv:2104.14294
    <https://arxiv.org/abs/2104.14294>`_, appendix C): the output of the MLP
    is brought to unit length, and so is each prototype, a row of the last
    layer (weight normalisation with the norm kept at 1), so that a logit is a
    cosine. It is thrown away after the training.

    Parameters
    ----------
    dim : int
        Length of a token.
    n_prototypes : int
        Number of outputs, ``K``; 0 for none, and the unit vectors of the
        bottleneck as outputs.
    hidden : int, optional
        Width of the MLP.
    bottleneck : int, optional
        Length of the unit vectors.
    n_layers : int, optional
        Layers of the MLP, with GELU between.
    """

    def __init__(self, dim, n_prototypes, *, hidden=2048, bottleneck=256,
                 n_layers=3):
        super().__init__()
        widths = [dim, *[hidden] * (n_layers - 1), bottleneck]
        layers = []
        for n_in, n_out in zip(widths, widths[1:]):
            layers += [nn.Linear(n_in, n_out), nn.GELU()]
        self.mlp = nn.Sequential(*layers[:-1])
        for layer in layers[::2]:
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
        self.prototypes = None
        if n_prototypes:
            self.prototypes = nn.Parameter(
                torch.empty(n_prototypes, bottleneck))
            nn.init.trunc_normal_(self.prototypes, std=0.02)
        self.n_outputs = n_prototypes or bottleneck

    def forward(self, x):
        """
        Project tokens.

        Parameters
        ----------
        x : `~torch.Tensor`
            (..., dim).

        Returns
        -------
        out : `~torch.Tensor`
            (..., K) cosines, or (..., bottleneck) of unit length; float32
            under autocast too, for cosines are divided by a small temperature.
        """
        x = self.mlp(x)
        with torch.autocast(x.device.type, enabled=False):
            x = F.normalize(x.to(self.mlp[0].weight.dtype), dim=-1)
            if self.prototypes is None:
                return x
            return F.linear(x, F.normalize(self.prototypes, dim=-1))

    def freeze_prototypes(self):
        """
        Forget the prototypes' gradient, so that the next step leaves them.

        To be called after the backward pass of the first steps, while the
        teacher is still random (Caron et al. 2021, appendix C).
        """
        if self.prototypes is not None:
            self.prototypes.grad = None
