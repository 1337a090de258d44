# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The student, and the teacher that follows it.
"""

import copy
from typing import NamedTuple

import torch
from torch import nn

from astrodino_seg.pretrain.projector import Projector

__all__ = ['Projected', 'Student', 'make_teacher', 'parameter_groups',
           'update_teacher']


class Projected(NamedTuple):
    """
    What a student or a teacher says of a batch of B images.

    Attributes
    ----------
    views : `~torch.Tensor`
        (V, B, K) projected CLS tokens, the global views first.
    patches : `~torch.Tensor` or `None`
        (M, K) projected tokens of the masked patches, in the order of
        ``mask.nonzero()``.
    features : `~torch.Tensor`
        (2, B, D) CLS tokens of the global views.
    """

    views: torch.Tensor
    patches: torch.Tensor | None
    features: torch.Tensor


class Student(nn.Module):
    """
    A Vision Transformer with projectors.

    Parameters
    ----------
    vit : `~astrodino_seg.models.vit.VisionTransformer`
        The backbone; it becomes a part of the student.
    projector : dict
        Arguments of `~astrodino_seg.pretrain.projector.Projector` but ``dim``.
    patches : bool, optional
        Whether masked patches are predicted too; they have a projector of
        their own.
    drop_path : float, optional
        The rate of stochastic depth in the last layer; it rises linearly from
        0 in the first.
    """

    def __init__(self, vit, projector, *, patches=True, drop_path=0.0):
        super().__init__()
        self.vit = vit
        self.cls_projector = Projector(vit.dim, **projector)
        self.patch_projector = self.mask_token = None
        if patches:
            self.patch_projector = Projector(vit.dim, **projector)
            self.mask_token = nn.Parameter(torch.zeros(vit.dim))
        n_layers = len(vit.blocks)
        for i, block in enumerate(vit.blocks):
            block.drop_path.rate = drop_path * i / max(n_layers - 1, 1)

    def forward(self, global_views, local_views=None, mask=None, *,
                hide=True):
        """
        Project the views of a batch.

        Parameters
        ----------
        global_views : `~torch.Tensor`
            (2, B, C, G, G).
        local_views : `~torch.Tensor`, optional
            (L, B, C, S, S).
        mask : `~torch.Tensor`, optional
            (2, B, G / patch_size, G / patch_size) bool: the patches of the
            global views to project.
        hide : bool, optional
            Whether the mask token stands in their place: `True` for the
            student, `False` for the teacher.

        Returns
        -------
        projected : `Projected`
            The projections.
        """
        shown = None if mask is None else mask.flatten(0, 1)
        out = self.vit.forward_features(
            global_views.flatten(0, 1), mask=shown if hide else None,
            mask_token=self.mask_token)
        tokens = [out.cls]
        if local_views is not None and len(local_views):
            tokens.append(self.vit.forward_features(
                local_views.flatten(0, 1)).cls)
        views = self.cls_projector(torch.cat(tokens))
        patches = None
        if mask is not None:
            maps = out.patches[-1].permute(0, 2, 3, 1)      # (2B, gh, gw, D)
            patches = self.patch_projector(maps[shown])
        n_batch = global_views.shape[1]
        return Projected(views.unflatten(0, (-1, n_batch)), patches,
                         out.cls.unflatten(0, (-1, n_batch)).float())

    def freeze_prototypes(self):
        """Let the next step of the optimiser leave all prototypes alone."""
        for projector in (self.cls_projector, self.patch_projector):
            if projector is not None:
                projector.freeze_prototypes()


def parameter_groups(student):
    """
    AdamW's groups: with weight decay, and without (biases and norms).

    Parameters
    ----------
    student : `~torch.nn.Module`
        What is trained.

    Returns
    -------
    groups : list of dict
        ``decays`` of each is 1 or 0.
    """
    parameters = [p for p in student.parameters() if p.requires_grad]
    return [{'params': [p for p in parameters if (p.ndim > 1) == decays],
             'decays': int(decays)} for decays in (True, False)]


def make_teacher(student):
    """
    Copy the student: without gradients, drop path or mask.

    Parameters
    ----------
    student : `Student`
        The student.

    Returns
    -------
    teacher : `Student`
        The copy, in evaluation mode.
    """
    return copy.deepcopy(student).requires_grad_(False).eval()


@torch.no_grad()
def update_teacher(teacher, student, momentum):
    """
    Move the teacher towards the student.

    Parameters
    ----------
    teacher, student : `Student`
        Of one architecture; each parameter of the teacher becomes
        ``momentum`` times itself plus ``1 - momentum`` times the student's.
    momentum : float
        Between 0 and 1.
    """
    for ours, theirs in zip(teacher.parameters(), student.parameters()):
        ours.lerp_(theirs, 1 - momentum)
