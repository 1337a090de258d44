# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
How much of an object's light its label leaves out.
"""

import numpy as np
import torch
from torch import nn

from astrodino_seg.models.decision import Standard

__all__ = ['Totals']

#: Of the natural logarithm of the factor, and of its error.
LARGEST, LEAST_ERROR = 2.5, 1e-3


class Totals(nn.Module):
    """
    The total flux of a label by the light about it.

    Parameters
    ----------
    n_features : int
        What is known of a label.
    width : int, optional
        Of the two layers.
    """

    def __init__(self, n_features, *, width=64):
        super().__init__()
        self.spec = {'n_features': n_features, 'width': width}
        self.standard = Standard(n_features)
        self.net = nn.Sequential(
            nn.Linear(n_features, width), nn.GELU(), nn.Linear(width, width),
            nn.GELU(), nn.Linear(width, 2))

    def forward(self, features, dropout=0.0):
        """
        The natural logarithm of total over label flux, and of its error.

        features (n, n_features) -> (n,), (n,).
        """
        known = nn.functional.dropout(self.standard(features), dropout)
        value, error = self.net(known).unbind(dim=1)
        return (value.clamp(-LARGEST, LARGEST),
                error.clamp(np.log(LEAST_ERROR), LARGEST))

    def factors(self, features):
        """
        Parameters
        ----------
        features : `~numpy.ndarray`
            (n, n_features) of `~astrodino_seg.photometry.features`.

        Returns
        -------
        factor, error : `~numpy.ndarray`
            (n,) float64, total over label flux, and its relative error.
        """
        with torch.inference_mode():
            value, error = self(torch.from_numpy(features))
        return tuple(part.double().exp().numpy() for part in (value, error))
