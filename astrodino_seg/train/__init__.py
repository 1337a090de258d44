# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Training: of models with heads, and of backbones without labels.
"""

from astrodino_seg.train.batches import Mixture, ObservedScenes
from astrodino_seg.train.decision import fit_decision
from astrodino_seg.train.head import fit_head
from astrodino_seg.train.labelled import (
    LabelledImage,
    as_labelled,
    panoptic_quality,
)
from astrodino_seg.train.methods import DINO, SimDINO
from astrodino_seg.train.recipe import pretrain_from_config, train_from_config
from astrodino_seg.train.ssl import pretrain
from astrodino_seg.train.supervised import fit_model
from astrodino_seg.train.totals import fit_totals
from astrodino_seg.train.views import ViewDataset

__all__ = ['DINO', 'SimDINO', 'ViewDataset', 'as_labelled', 'fit_head',
           'fit_model', 'pretrain']
