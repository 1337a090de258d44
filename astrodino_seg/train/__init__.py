# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Training.
"""

from astrodino_seg.train.pairs import fit_pairs
from astrodino_seg.train.supervised import fit_model, train_from_config

__all__ = ['fit_model', 'fit_pairs', 'train_from_config']
