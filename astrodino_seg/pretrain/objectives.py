# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What the student is asked for: the losses of a method, and their sum.
"""

from torch import nn

from astrodino_seg.pretrain.losses import (
    Centre,
    alignment_loss,
    coding_rate,
    coding_rate_weight,
    dino_loss,
    ibot_loss,
    koleo_loss,
    masked_alignment_loss,
    sinkhorn_knopp,
)
from astrodino_seg.pretrain.losses.collective import n_processes
from astrodino_seg.pretrain.monitors import distribution_state, feature_spread

__all__ = ['DINO', 'SimDINO']


class DINO(nn.Module):
    """
    DINO, with the masked patches of iBOT and KoLeo beside: DINOv2.

    A loss of weight 0 is left out. If a batch is taken in parts, KoLeo and
    Sinkhorn-Knopp are those of each part, and the centre is that of all.

    Parameters
    ----------
    n_prototypes : int, optional
        Outputs of the projectors.
    hidden, bottleneck : int, optional
        Of the projectors; see `~astrodino_seg.pretrain.projector.Projector`.
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
        super().__init__()
        if centring not in ('mean', 'sinkhorn'):
            msg = f"centring must be 'mean' or 'sinkhorn', got {centring!r}"
            raise ValueError(msg)
        check_positive(n_prototypes=n_prototypes, hidden=hidden,
                       bottleneck=bottleneck,
                       student_temperature=student_temperature)
        check_weights(ibot=ibot, koleo=koleo)
        self.n_prototypes = n_prototypes
        self.hidden, self.bottleneck = hidden, bottleneck
        self.ibot, self.koleo = ibot, koleo
        self.centring = centring
        self.student_temperature = student_temperature
        self.cls_centre = self.patch_centre = None
        if centring == 'mean':
            self.cls_centre = Centre(n_prototypes)
            self.patch_centre = Centre(n_prototypes) if ibot else None

    @property
    def projector(self):
        """Arguments of the projectors."""
        return {'n_prototypes': self.n_prototypes, 'hidden': self.hidden,
                'bottleneck': self.bottleneck}

    @property
    def patches(self):
        """Whether masked patches are asked for."""
        return self.ibot > 0

    def forward(self, student, teacher, mask, temperature):
        """
        The losses of a batch.

        Parameters
        ----------
        student, teacher : `~astrodino_seg.pretrain.student.Projected`
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


class SimDINO(nn.Module):
    """
    Alignment of features and their coding rate, without prototypes.

    SimDINO and, with masked patches, SimDINOv2 (Wu et al. 2025,
    `arXiv:2502.10385 <https://arxiv.org/abs/2502.10385>`_). The temperature is
    not used.

    Parameters
    ----------
    hidden, bottleneck : int, optional
        Of the projectors; see `~astrodino_seg.pretrain.projector.Projector`.
    ibot : float, optional
        Weight of the alignment of masked patches.
    rate : float, optional
        Weight of the coding rate, in units of
        `~astrodino_seg.pretrain.losses.coding_rate_weight`.
    distortion : float, optional
        Of the coding rate.

    Raises
    ------
    ValueError
        If a number is impossible.
    """

    def __init__(self, *, hidden=1024, bottleneck=256, ibot=1.0, rate=1.0,
                 distortion=0.05):
        super().__init__()
        check_positive(hidden=hidden, bottleneck=bottleneck, rate=rate,
                       distortion=distortion)
        check_weights(ibot=ibot)
        self.hidden, self.bottleneck = hidden, bottleneck
        self.ibot, self.rate, self.distortion = ibot, rate, distortion

    @property
    def projector(self):
        """Arguments of the projectors."""
        return {'n_prototypes': 0, 'hidden': self.hidden,
                'bottleneck': self.bottleneck}

    @property
    def patches(self):
        """Whether masked patches are asked for."""
        return self.ibot > 0

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

    def end_step(self):
        """Nothing: there is no centre."""


def check_positive(**values):
    """Raise `ValueError` for a number that must be positive and is not."""
    for name, value in values.items():
        if not value > 0:
            msg = f'{name} must be positive, got {value!r}'
            raise ValueError(msg)


def check_weights(**values):
    """Raise `ValueError` for a weight below 0."""
    for name, value in values.items():
        if not value >= 0:
            msg = f'{name} must be 0 or more, got {value!r}'
            raise ValueError(msg)
