# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What the student is asked for: networks, losses of a method and their sum, and
the signs of a trivial answer.
"""

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from astrodino_seg.errors import check
from astrodino_seg.train.losses import (
    Centre,
    alignment_loss,
    coding_rate,
    coding_rate_weight,
    dino_loss,
    distribution_state,
    feature_spread,
    ibot_loss,
    koleo_loss,
    masked_alignment_loss,
    n_processes,
    sinkhorn_knopp,
)


class Projected(NamedTuple):
    """
    What a student or a teacher says of B images: views (V, B, K), patches (M,
    K), features (2, B, D).
    """

    views: torch.Tensor
    patches: torch.Tensor | None
    features: torch.Tensor


class Student(nn.Module):
    """A Vision Transformer with projectors."""

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
            block.drop_path = drop_path * i / max(n_layers - 1, 1)

    def forward(self, global_views, local_views=None, mask=None, *,
                hide=True):
        """
        Project views (2, B, C, G, G) and (L, B, C, S, S), and what a mask (2,
        B, gh, gw) hides.
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


def decay_groups(student):
    """AdamW's groups: with weight decay, and without (biases and norms)."""
    parameters = [p for p in student.parameters() if p.requires_grad]
    return [{'params': [p for p in parameters if (p.ndim > 1) == decays],
             'decays': int(decays)} for decays in (True, False)]


class Projector(nn.Module):
    """
    An MLP with a bottleneck, and prototypes to compare with, both of unit
    length so that a logit is a cosine: the head of DINO (Caron et al. 2021,
    arXiv:2104.14294, appendix C), which is thrown away after the training.
    """

    def __init__(self, dim, n_prototypes, *, hidden=2048, bottleneck=256,
                 n_layers=3):
        super().__init__()
        widths = [dim, *[hidden] * (n_layers - 1), bottleneck]
        layers = []
        for n_in, n_out in zip(widths, widths[1:]):
            layers += [nn.Linear(n_in, n_out), nn.GELU()]
        self.mlp = nn.Sequential(*layers[:-1])
        for layer in layers[::2]:
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
        self.prototypes = None
        if n_prototypes:
            self.prototypes = nn.Parameter(
                torch.empty(n_prototypes, bottleneck))
            nn.init.trunc_normal_(self.prototypes, std=0.02)
        self.n_outputs = n_prototypes or bottleneck

    def forward(self, x):
        """Project tokens (..., dim) to (..., K)."""
        x = self.mlp(x)
        with torch.autocast(x.device.type, enabled=False):
            x = F.normalize(x.to(self.mlp[0].weight.dtype), dim=-1)
            if self.prototypes is None:
                return x
            return F.linear(x, F.normalize(self.prototypes, dim=-1))

    def freeze_prototypes(self):
        """
        Forget the prototypes' gradient, while the teacher is still random
        (Caron et al. 2021, appendix C).
        """
        if self.prototypes is not None:
            self.prototypes.grad = None


class Objective(nn.Module):
    """What is asked of the student; it stores its arguments by their names."""

    n_prototypes = 0

    def __init__(self, **arguments):
        super().__init__()
        check('objective', arguments, type(self))
        vars(self).update(arguments)

    @property
    def projector(self):
        """Arguments of the projectors."""
        return {name: getattr(self, name)
                for name in ('n_prototypes', 'hidden', 'bottleneck')}

    @property
    def patches(self):
        """Whether masked patches are asked for."""
        return self.ibot > 0

    def end_step(self):
        """What is to be done once a step of the optimiser."""


class DINO(Objective):
    """
    DINO, with the masked patches of iBOT and KoLeo beside: DINOv2.

    A loss of weight 0 is left out. If a batch is taken in parts, KoLeo and
    Sinkhorn-Knopp are those of each part, and the centre is that of all.

    Parameters
    ----------
    n_prototypes : int, optional
        Outputs of the projectors.
    hidden, bottleneck : int, optional
        Of the projectors; see `~astrodino_seg.train.methods.Projector`.
    ibot, koleo : float, optional
        Weights of the losses beside that of DINO, which has the weight 1.
    centring : {'mean', 'sinkhorn'}, optional
        How the teacher is kept from one prototype for all.
    student_temperature : float, optional
        The student's temperature.

    Raises
    ------
    ValueError
        If ``centring`` is unknown or a number is impossible.
    """

    def __init__(self, *, n_prototypes=4096, hidden=1024, bottleneck=256,
                 ibot=1.0, koleo=0.1, centring='mean',
                 student_temperature=0.1):
        if centring not in ('mean', 'sinkhorn'):
            msg = f"centring must be 'mean' or 'sinkhorn', got {centring!r}"
            raise ValueError(msg)
        super().__init__(
            n_prototypes=n_prototypes, hidden=hidden, bottleneck=bottleneck,
            ibot=ibot, koleo=koleo, centring=centring,
            student_temperature=student_temperature)
        self.cls_centre = self.patch_centre = None
        if centring == 'mean':
            self.cls_centre = Centre(n_prototypes)
            self.patch_centre = Centre(n_prototypes) if ibot else None

    def forward(self, student, teacher, mask, temperature):
        """
        The losses of a batch.

        Parameters
        ----------
        student, teacher : `~astrodino_seg.train.methods.Projected`
            What they say; the teacher of the global views alone.
        mask : `~torch.Tensor` or `None`
            (2, B, gh, gw) bool: the masked patches.
        temperature : float
            The teacher's.

        Returns
        -------
        total : `~torch.Tensor`
            The weighted sum.
        parts : dict of str to `~torch.Tensor`
            Each loss without its weight, and what is to be watched.
        """
        target = _probabilities(teacher.views, self.cls_centre, temperature)
        total = dino_loss(student.views, target,
                          temperature=self.student_temperature)
        parts = {'dino': total}
        if self.ibot:
            parts['ibot'] = ibot_loss(
                student.patches,
                _probabilities(teacher.patches, self.patch_centre,
                               temperature),
                mask.flatten(0, 1), temperature=self.student_temperature)
            total = total + self.ibot * parts['ibot']
        if self.koleo:      # not between two views of one image
            parts['koleo'] = sum(map(koleo_loss, student.features)) / len(
                student.features)
            total = total + self.koleo * parts['koleo']
        parts.update(distribution_state(target, parts['dino']))
        parts['feature_std'] = feature_spread(teacher.features)
        return total, parts

    def end_step(self):
        """Move the centres, once a step of the optimiser."""
        for centre in (self.cls_centre, self.patch_centre):
            if centre is not None:
                centre.update()


def _probabilities(logits, centre, temperature):
    if centre is None:
        return sinkhorn_knopp(logits, temperature)
    return centre.softmax(logits, temperature)


class SimDINO(Objective):
    """
    Alignment of features and their coding rate, without prototypes.

    SimDINO and, with masked patches, SimDINOv2 (Wu et al. 2025,
    `arXiv:2502.10385 <https://arxiv.org/abs/2502.10385>`_). The temperature is
    not used.

    Parameters
    ----------
    hidden, bottleneck : int, optional
        Of the projectors; see `~astrodino_seg.train.methods.Projector`.
    ibot : float, optional
        Weight of the alignment of masked patches.
    rate : float, optional
        Weight of the coding rate, in units of
        `~astrodino_seg.train.losses.coding_rate_weight`.
    distortion : float, optional
        Of the coding rate.

    Raises
    ------
    ValueError
        If a number is impossible.
    """

    def __init__(self, *, hidden=1024, bottleneck=256, ibot=1.0, rate=1.0,
                 distortion=0.05):
        super().__init__(hidden=hidden, bottleneck=bottleneck, ibot=ibot,
                         rate=rate, distortion=distortion)

    def forward(self, student, teacher, mask, temperature):
        """
        The losses of a batch; parameters and results are those of `DINO`.
        """
        total = alignment_loss(student.views, teacher.views)
        parts = {'alignment': total}
        if self.ibot:
            parts['ibot'] = masked_alignment_loss(
                student.patches, teacher.patches, mask.flatten(0, 1))
            total = total + self.ibot * parts['ibot']
        views = student.views[:len(teacher.views)]      # (2, B, D)
        parts['coding_rate'] = sum(
            coding_rate(view, distortion=self.distortion)
            for view in views) / len(views)
        weight = self.rate * coding_rate_weight(
            n_processes() * views.shape[1], views.shape[2])
        total = total - weight * parts['coding_rate']
        parts['feature_std'] = feature_spread(teacher.features)
        return total, parts
