# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Terms of the losses that are of no head's own.
"""

import math

import torch
from torch.nn import functional as F

__all__ = ['CLASS_WEIGHTS', 'centre_focal_loss', 'class_loss',
           'draw_members', 'imitation_loss', 'importance', 'owner_loss']

#: Weight of the pixels of sky, star, galaxy, artifact: the rare count more.
CLASS_WEIGHTS = (1.0, 4.0, 1.0, 4.0)
#: How far the target of a pixel goes from its owner alone (0) to the shares
#: of its light (1); and how much more a pixel counts that two objects share
#: evenly.
SOFTNESS = 0.5
CONTESTED = 3.0


def class_loss(logits, classes, weights=CLASS_WEIGHTS):
    """
    Cross-entropy of the classes of pixels.

    Parameters
    ----------
    logits : `~torch.Tensor`
        (B, 4, y, x).
    classes : `~torch.Tensor`
        (B, y, x) int: 0 sky, 1 star, 2 galaxy, 3 artifact; 4 any of these
        three, of which the sum of the probabilities counts; -1 void.
    weights : sequence of float, optional
        Of the pixels of each class; those of 4 weigh as galaxies.

    Returns
    -------
    loss : `~torch.Tensor`
        The mean over the pixels that are not void; 0 if all are.
    """
    log_p = logits.log_softmax(dim=1)
    log_p = torch.cat([log_p, log_p[:, 1:].logsumexp(1, keepdim=True)], dim=1)
    if (classes < 0).all():
        return logits.sum() * 0
    weights = logits.new_tensor([*weights, weights[2]])
    return F.nll_loss(log_p, classes, weight=weights, ignore_index=-1)


def imitation_loss(maps, taught):
    """
    How far maps are from those of a teacher (Hinton et al. 2015,
    arXiv:1503.02531), in all pixels, void or not.

    Parameters
    ----------
    maps, taught : tuple of `~torch.Tensor`
        Logits of the classes, (B, 4, y, x), and of the heatmap, (B, 1, h, w),
        if both have one.

    Returns
    -------
    loss : `~torch.Tensor`
        Cross-entropy to the teacher's probabilities less their entropy, the
        mean over pixels.
    """
    (classes, *heat), (wanted, *peaks) = maps, taught
    loss = F.kl_div(classes.log_softmax(1), wanted.log_softmax(1),
                    log_target=True, reduction='none').sum(dim=1).mean()
    for own, true in zip(heat, peaks):
        both = [F.logsigmoid(torch.stack([one, -one])) for one in (own, true)]
        loss = loss + F.kl_div(*both, log_target=True,
                               reduction='none').sum(dim=0).mean()
    return loss


def centre_focal_loss(logits, target, ignore, weight=None):
    """
    Penalty-reduced focal loss (Zhou et al. 2019, equation 1; alpha 2,
    beta 4), normalised by the number of centres.

    Parameters
    ----------
    logits, target : `~torch.Tensor`
        (h, w).
    ignore : `~torch.Tensor`
        (h, w) bool; negatives that are not counted.
    weight : `~torch.Tensor`, optional
        (h, w) of each pixel, by default 1.

    Returns
    -------
    loss : `~torch.Tensor`
        Scalar.
    """
    weight = torch.ones_like(target) if weight is None else weight
    p = logits.sigmoid().clamp(1e-5, 1 - 1e-5)
    centre = target == 1
    positive = (weight * (1 - p)**2 * p.log())[centre]
    negative = weight * (1 - target)**4 * p**2 * (1 - p).log()
    negative = negative[~centre & ~ignore]
    return -(positive.sum() + negative.sum()) / max(int(centre.sum()), 4)


def importance(log_size):
    """
    Weight of objects in the heatmap: large galaxies are rare, and a centre
    that they lack, or have twice, costs more pixels.

    Parameters
    ----------
    log_size : `~torch.Tensor`
        (N,) log radius in pixels.

    Returns
    -------
    weight : `~torch.Tensor`
        (N,): 1 up to 100 pixels, then 0.5 more for each factor e in area.
    """
    area = math.pi * (2 * log_size).exp()
    return 1 + 0.5 * (area / 100.0).clamp(min=1).log()


def draw_members(n, owner, generator):
    """
    Which seeds take part in the masks: at least one an object.

    Centres most of the time and decoys less often, so that each object is
    drawn from its centre, from some other place, and from several at once.

    Parameters
    ----------
    n : int
        Objects, whose centres are the first seeds.
    owner : `~torch.Tensor`
        (S,) int: the object of each seed.
    generator : `torch.Generator`
        For the choice.

    Returns
    -------
    members : `~torch.Tensor`
        Indices of seeds.
    """
    draw = torch.rand(len(owner), generator=generator)
    part = draw < 0.35
    part[:n] = draw[:n] < 0.8
    drawn = torch.zeros(n, dtype=torch.bool)
    drawn[owner[part]] = True
    part[:n] |= ~drawn
    return part.nonzero()[:, 0]


def owner_loss(log_p, labels, rivals, shares, weight):
    """
    Cross-entropy to the owners of pixels, and to those who share their light.

    Parameters
    ----------
    log_p : `~torch.Tensor`
        (N + 1, P) logarithm of the probability of the sky and each object.
    labels : `~torch.Tensor`
        (P,) int: 0 sky, i + 1 for object i.
    rivals, shares : `~torch.Tensor`
        (R, P) further objects in each pixel, int, and their shares of its
        light.
    weight : `~torch.Tensor`
        (P,) of the pixels.

    Returns
    -------
    loss : `~torch.Tensor`
        The mean over the pixels.
    """
    rest = 1 - shares.sum(dim=0)
    weight = weight * (1 + 4 * CONTESTED * rest * (1 - rest))
    log_own = log_p.gather(0, labels[None])[0]
    less = log_p.gather(0, rivals) - log_own
    loss = log_own + SOFTNESS * (shares * less).sum(dim=0)
    return -(loss * weight).sum() / weight.sum()
