# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What a frozen backbone and a teacher say of crops: computed once.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import Dataset

from astrodino_seg.semantic import SemanticModel

__all__ = ['TokenCrop', 'TokenCrops', 'teach']


@dataclass
class TokenCrop:
    """
    One crop at one scale.

    Attributes
    ----------
    tokens : `~torch.Tensor`
        (D, rows, columns) float16 tokens of the frozen backbone.
    classes : `~torch.Tensor`
        (H, W) int64, as of `~astrodino_seg.train.targets.Sample`.
    taught : `~torch.Tensor` or `None`
        (4, H, W) float16 logits of a teacher.
    """

    tokens: torch.Tensor
    classes: torch.Tensor
    taught: torch.Tensor | None = None


def teach(teacher, x):
    """
    What a teacher says.

    Parameters
    ----------
    teacher : Model or SemanticModel
        The teacher.
    x : `~torch.Tensor`
        (B, plane, y, x) its input.

    Returns
    -------
    taught : tuple of `~torch.Tensor`
        Logits of the classes, (B, 4, y, x), and those of the heatmap, (B, 1,
        y/2, x/2), if it has one.
    """
    with torch.no_grad():
        if isinstance(teacher, SemanticModel):
            return (teacher.probabilities(x).clamp(min=1e-6).log(),)
        maps = teacher(x)
        return maps.classes, maps.heat


class TokenCrops(Dataset):
    """
    Crops as tokens, drawn from a pool that is made at the start.

    Parameters
    ----------
    model : `~astrodino_seg.semantic.SemanticModel`
        Whose backbone is frozen. Each step has one of its scales in turn.
    crops : `~astrodino_seg.train.targets.CropDataset`
        The crops; as many of its first items as ``n_pool`` are used, or all.
    teacher : `~torch.nn.Module`, optional
        See `teach`.
    n_pool : int, optional
        Items to keep.
    """

    def __init__(self, model, crops, teacher=None, *, n_pool=48):
        self.crops, self.scales = crops, model.scales
        n_sizes = len(crops.crop_sizes)
        if n_pool < n_sizes * crops.n_items:
            msg = (f'n_pool must be {n_sizes * crops.n_items} or more, a step '
                   f'of each crop size, got {n_pool!r}')
            raise ValueError(msg)
        self.pool = {}
        model.eval()
        for k in range(min(n_pool, len(crops))):
            size = k // crops.n_items % n_sizes
            for crop in crops[k]:
                x = crop.channels[None]
                taught = None
                if teacher is not None:
                    taught = teach(teacher, x)[0][0].half()
                for scale in self.scales:
                    with torch.no_grad():
                        tokens = model.tokens(x, scale)[0].half()
                    self.pool.setdefault((size, scale), []).append(
                        TokenCrop(tokens, crop.classes, taught))

    def __len__(self):
        return len(self.crops)

    def __getitem__(self, index):
        step = index // self.crops.n_items
        n_sizes = len(self.crops.crop_sizes)
        scale = self.scales[step // n_sizes % len(self.scales)]
        pool = self.pool[step % n_sizes, scale]
        rng = np.random.default_rng([self.crops.seed, index, 3])
        return [pool[k] for k in rng.choice(len(pool), min(2, len(pool)),
                                            replace=False)]
