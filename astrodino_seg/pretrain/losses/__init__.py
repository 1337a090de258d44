# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Losses of self-supervised pretraining: functions of tensors, one file each.

All of them are right with one process and with several: the mean over the
processes, or each process's value, is that of the whole batch.
"""

from astrodino_seg.pretrain.losses.alignment import (
    alignment_loss,
    masked_alignment_loss,
)
from astrodino_seg.pretrain.losses.centering import Centre
from astrodino_seg.pretrain.losses.coding_rate import (
    coding_rate,
    coding_rate_weight,
)
from astrodino_seg.pretrain.losses.dino import dino_loss
from astrodino_seg.pretrain.losses.ibot import ibot_loss
from astrodino_seg.pretrain.losses.koleo import koleo_loss
from astrodino_seg.pretrain.losses.sinkhorn import sinkhorn_knopp

__all__ = ['Centre', 'alignment_loss', 'coding_rate', 'coding_rate_weight',
           'dino_loss', 'ibot_loss', 'koleo_loss', 'masked_alignment_loss',
           'sinkhorn_knopp']
