# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Training.
"""

from astrodino_seg.train.adapt import fit_head
from astrodino_seg.train.decision import fit_decision
from astrodino_seg.train.labelled import LabelledImage, as_labelled
from astrodino_seg.train.recipe import train_from_config
from astrodino_seg.train.supervised import fit_model
from astrodino_seg.train.validation import panoptic_quality

__all__ = ['LabelledImage', 'as_labelled', 'fit_decision', 'fit_head',
           'fit_model', 'panoptic_quality', 'train_from_config']
