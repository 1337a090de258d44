# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Self-supervised pretraining.
"""

from astrodino_seg.pretrain.data import Mixture, ObservedScenes, ViewDataset
from astrodino_seg.pretrain.loop import pretrain
from astrodino_seg.pretrain.objectives import DINO, SimDINO
from astrodino_seg.pretrain.recipe import pretrain_from_config

__all__ = ['DINO', 'Mixture', 'ObservedScenes', 'SimDINO', 'ViewDataset',
           'pretrain', 'pretrain_from_config']
