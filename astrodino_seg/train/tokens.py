# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What a frozen backbone and a teacher say of crops, computed once, and the
losses of semantic heads.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import Dataset

from astrodino_seg.models.semantic import SemanticModel
from astrodino_seg.train.losses import (
    CLASS_WEIGHTS,
    class_loss,
    imitation_loss,
)

__all__ = ['TokenCrop', 'TokenCrops', 'dense_logits', 'semantic_losses',
           'teach']


@dataclass
class TokenCrop:
    """
    One crop at one scale.

    Attributes
    ----------
    tokens : `~torch.Tensor`
        (D, rows, columns) float16 tokens of the frozen backbone.
    classes : `~torch.Tensor`
        (H, W) int64, as of `~astrodino_seg.train.crops.ClassCrop`.
    taught : `~torch.Tensor` or `None`
        (4, H, W) float16 logits of a teacher.
    """

    tokens: torch.Tensor
    classes: torch.Tensor
    taught: torch.Tensor | None = None


def dense_logits(head, maps):
    """
    What a teacher can teach of the maps of a level.

    Parameters
    ----------
    head : `~astrodino_seg.models.head.InstanceHead`
        Whose maps they are.
    maps : `~astrodino_seg.models.head.InstanceMaps`
        The maps.

    Returns
    -------
    logits : tuple of `~torch.Tensor`
        Of the classes, (B, 4, y, x), and of the heatmap, (B, 1, y, x).
    """
    classes = head.split_pixels(maps.pixels)[2]
    return classes.permute(0, 3, 1, 2), maps.heat[:, None]


def teach(teacher, x, binned=None):
    """
    What a teacher says.

    Parameters
    ----------
    teacher : Model or SemanticModel
        The teacher.
    x : `~torch.Tensor`
        (B, plane, y, x) its input.
    binned : `~torch.Tensor`, optional
        (B,) int: 1 where the input is that of a binned image; by default
        nowhere.

    Returns
    -------
    taught : tuple of `~torch.Tensor`
        Logits of the classes, (B, 4, y, x), and those of the heatmap, (B, 1,
        y, x), if it has one.
    """
    if binned is None:
        binned = torch.zeros(len(x), dtype=torch.long, device=x.device)
    with torch.no_grad():
        if isinstance(teacher, SemanticModel):
            return (teacher.probabilities(x).clamp(min=1e-6).log(),)
        return dense_logits(teacher.head, teacher(x, binned))


class TokenCrops(Dataset):
    """
    Crops as tokens, drawn from a pool that is made at the start.

    Parameters
    ----------
    model : `~astrodino_seg.models.semantic.SemanticModel`
        Whose backbone is frozen. Each step has one of its scales in turn.
    crops : `~astrodino_seg.train.data.ClassCrops`
        The crops; as many of its first items as ``n_pool`` are used, or all.
    teacher : `~torch.nn.Module`, optional
        See `teach`.
    n_items : int, optional
        Items a step.
    n_pool : int, optional
        Items to keep.
    """

    def __init__(self, model, crops, teacher=None, *, n_items=1, n_pool=48):
        self.crops, self.scales, self.n_items = crops, model.scales, n_items
        if n_pool < n_items:
            msg = f'n_pool must be n_items={n_items} or more, got {n_pool!r}'
            raise ValueError(msg)
        self.pool = {scale: [] for scale in self.scales}
        device = next(model.parameters()).device
        model.eval()
        for k in range(min(n_pool, len(crops))):
            for crop in crops[k]:
                x = crop.channels[None].to(device)
                taught = None
                if teacher is not None:
                    taught = teach(teacher, x)[0][0].half().cpu()
                for scale in self.scales:
                    with torch.no_grad():
                        tokens = model.tokens(x, scale)[0].half().cpu()
                    self.pool[scale].append(
                        TokenCrop(tokens, crop.classes, taught))

    def __len__(self):
        return len(self.crops)

    def __getitem__(self, index):
        scale = self.scales[index // self.n_items % len(self.scales)]
        pool = self.pool[scale]
        rng = np.random.default_rng([self.crops.seed, index, 3])
        return [pool[k] for k in rng.choice(len(pool), min(2, len(pool)),
                                            replace=False)]


def semantic_losses(model, crops, generator, *, class_weights=CLASS_WEIGHTS,
                    teacher=None, bfloat16=False, device='cpu'):
    """
    Mean losses of some crops of one size.

    Parameters
    ----------
    model : `~astrodino_seg.models.semantic.SemanticModel`
        The model, on ``device``.
    crops : list of `TokenCrop` or `~astrodino_seg.train.crops.ClassCrop`
        The truth.
    generator : `torch.Generator`
        For the choice of the scale, of crops that are no tokens yet.
    class_weights, teacher, bfloat16, device
        As of `~astrodino_seg.train.instance.level_losses`.

    Returns
    -------
    losses : dict of `~torch.Tensor`
        One scalar a term, unweighted.
    """
    cached = isinstance(crops[0], TokenCrop)
    x = torch.stack([crop.tokens if cached else crop.channels
                     for crop in crops]).to(device).contiguous(
        memory_format=torch.channels_last)
    with torch.autocast(torch.device(device).type, torch.bfloat16,
                        enabled=bfloat16):
        if cached:
            logits = model.logits(x.float(), crops[0].classes.shape)
        else:
            k = torch.randint(len(model.scales), (), generator=generator)
            logits = model(x, model.scales[k])
    logits = logits.float()
    losses = {'classes': class_loss(
        logits, torch.stack([crop.classes for crop in crops]).to(device),
        class_weights)}
    if teacher is not None:
        taught = (torch.stack([crop.taught for crop in crops])
                  .to(device).float(),) if cached else teach(teacher, x)
        losses['teacher'] = imitation_loss((logits,), taught)
    return losses
