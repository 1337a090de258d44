# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What a frozen backbone and a teacher say of crops, computed once, and the
losses of semantic heads.
"""

from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F
from torch.utils.data import Dataset

from astrodino_seg.models.semantic import SemanticModel

#: Weight of the pixels of sky, star, galaxy, artifact: the rare count more.
CLASS_WEIGHTS = (1.0, 4.0, 1.0, 4.0)


def class_loss(logits, classes, weights=CLASS_WEIGHTS):
    """
    Cross-entropy of the classes of pixels.

    logits (B, class, y, x), classes (B, y, x).
    """
    if (classes < 0).all():
        return logits.sum() * 0
    log_p, weights = with_any_object(logits, weights)
    return F.nll_loss(log_p, classes, weight=weights, ignore_index=-1)


def with_any_object(logits, weights=CLASS_WEIGHTS):
    """
    Log probabilities (B, n + 1, ...) of logits (B, n, ...), and weights: the
    last is that of an object of any class, which is not the sky.
    """
    log_p = logits.log_softmax(dim=1)
    some = torch.logsumexp(log_p[:, 1:], dim=1, keepdim=True)
    return (torch.cat([log_p, some], dim=1),
            logits.new_tensor([*weights, min(weights[1:])]))


def imitation_loss(maps, taught):
    """
    How far maps are from those of a teacher (Hinton et al. 2015,
    arXiv:1503.02531), in all pixels, void or not.
    """
    (classes, *heat), (wanted, *peaks) = maps, taught
    loss = F.kl_div(classes.log_softmax(1), wanted.log_softmax(1),
                    log_target=True, reduction='none').sum(dim=1).mean()
    for own, true in zip(heat, peaks):
        both = [F.logsigmoid(torch.stack([one, -one])) for one in (own, true)]
        loss = loss + F.kl_div(*both, log_target=True,
                               reduction='none').sum(dim=0).mean()
    return loss


@dataclass
class TokenCrop:
    """
    One crop at one scale.

    tokens (D, rows, columns), classes (H, W), taught (4, H, W).
    """

    tokens: torch.Tensor
    classes: torch.Tensor
    taught: torch.Tensor | None = None


def dense_logits(head, maps):
    """What a teacher can teach of the maps of a level."""
    classes = head.split_pixels(maps.pixels)[2]
    return classes.permute(0, 3, 1, 2), maps.heat[:, None]


def teach(teacher, x, binned=None):
    """
    What a teacher says.

    x (B, plane, y, x), binned (B,).
    """
    if binned is None:
        binned = torch.zeros(len(x), dtype=torch.long, device=x.device)
    with torch.no_grad():
        if isinstance(teacher, SemanticModel):
            return (teacher.probabilities(x).clamp(min=1e-6).log(),)
        return dense_logits(teacher.head, teacher(x, binned))


class TokenCrops(Dataset):
    """Crops as tokens, drawn from a pool that is made at the start."""

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
                    teacher=None, autocast=nullcontext, device='cpu'):
    """Mean losses of some crops of one size."""
    cached = isinstance(crops[0], TokenCrop)
    x = torch.stack([crop.tokens if cached else crop.channels
                     for crop in crops]).to(device).contiguous(
        memory_format=torch.channels_last)
    with autocast():
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
