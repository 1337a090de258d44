# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Losses of the grouping head, for one crop at a time, and of semantic heads.
"""

import math
from dataclasses import replace

import torch
from torch.nn import functional as F

from astrodino_seg.heads import Seeds
from astrodino_seg.prediction import find_seeds

__all__ = ['CLASS_WEIGHTS', 'centre_focal_loss', 'class_loss',
           'grouping_losses', 'heat_target', 'imitation_loss']

#: Weight of each term in the total.
WEIGHTS = {'heat': 1.0, 'mask': 2.0, 'dice': 1.0, 'vote': 0.5, 'classes': 0.5,
           'seed_class': 1.0, 'centre': 0.3, 'size': 0.3, 'pair': 1.0}
#: Weight of the pixels of sky, star, galaxy, artifact: the rare count more.
CLASS_WEIGHTS = (1.0, 4.0, 1.0, 4.0)
#: Least probability of the heatmap's peaks that serve as decoys.
OWN_HEAT = 0.2
#: Pixels drawn for the masks in each crop, of an object and of the sky.
OBJECT_PIXELS = 1500
SKY_PIXELS = 8000
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


def heat_target(xy, log_size, shape):
    """
    Gaussians at the centres on the stride-2 grid, their maximum where they
    overlap (Zhou et al. 2019, arXiv:1904.07850, Section 3).

    Parameters
    ----------
    xy : `~torch.Tensor`
        (N, 2) centres in full-resolution pixels.
    log_size : `~torch.Tensor`
        (N,) log radius in pixels; larger objects get a wider Gaussian.
    shape : tuple of int
        (h, w) of the stride-2 map.

    Returns
    -------
    target : `~torch.Tensor`
        (h, w) in [0, 1]; exactly 1 at the pixel of each centre.
    """
    h, w = shape
    target = torch.zeros(h, w)
    for (x, y), sigma in zip((xy / 2).floor().long().tolist(),
                             (0.06 * log_size.exp()).clamp(0.8, 3).tolist()):
        r = int(3 * sigma) + 1
        ys = torch.arange(max(y - r, 0), min(y + r + 1, h))
        xs = torch.arange(max(x - r, 0), min(x + r + 1, w))
        bump = torch.exp(-((ys[:, None] - y)**2 + (xs - x)**2)
                         / (2 * sigma**2))
        part = target[ys[0]:ys[-1] + 1, xs[0]:xs[-1] + 1]
        torch.maximum(part, bump, out=part)
    return target


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


def _importance(log_size):
    """
    Weight of an object in the heatmap: large galaxies are rare, and a centre
    that they lack, or have twice, costs more pixels.
    """
    area = math.pi * (2 * log_size).exp()
    return 1 + 0.5 * (area / 100.0).clamp(min=1).log()


def _members(sample, generator):
    """
    Which seeds take part in the masks: at least one an object.

    Centres most of the time and decoys less often, so that each object is
    drawn from its centre, from some other place, and from several at once.
    """
    n = len(sample.cls)
    draw = torch.rand(len(sample.seed_object), generator=generator)
    part = draw < 0.35
    part[:n] = draw[:n] < 0.8
    drawn = torch.zeros(n, dtype=torch.bool)
    drawn[sample.seed_object[part]] = True
    part[:n] |= ~drawn
    return part.nonzero()[:, 0]


def _pixels(labels, generator):
    """Some of the pixels of sky and objects, and how many each stands for."""
    labels = labels.ravel()
    area = torch.bincount(labels.clamp(min=0), weights=labels >= 0)
    limit = torch.full_like(area, OBJECT_PIXELS)
    limit[0] = SKY_PIXELS
    share = (limit / area.clamp(min=1)).clamp(max=1)[labels.clamp(min=0)]
    keep = (labels >= 0) & (torch.rand(labels.shape, generator=generator)
                            < share)
    index = keep.nonzero()[:, 0]
    return index, (1 / share[index]).float()


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


def _mask_losses(head, seeds, owner, maps, sample, generator):
    """
    Cross-entropy over {sky, objects} and Dice, and that of the votes.

    The score of an object is that of its best seed, as in `paint`. Dice is
    that of the owners; cross-entropy has the owners' light shared, and counts
    the pixels more in which it is.
    """
    n = len(sample.cls)
    index, weight = _pixels(sample.labels, generator)
    labels = sample.labels.ravel()[index]
    width = sample.labels.shape[1]
    vote = maps.vote.flatten(1)[:, index]
    x, y = (index % width) + vote[0], (index // width) + vote[1]
    sky = maps.sky.flatten(1)[:, index]
    score = head.score(seeds, maps.embedding.flatten(1)[:, index], x, y)
    score = torch.zeros(n, len(index)).scatter_reduce(
        0, owner[:, None].expand_as(score), score, 'amax',
        include_self=False)
    log_p = torch.cat([sky, score]).log_softmax(dim=0)       # (N + 1, P)
    p = log_p[1:].exp() * weight
    own = torch.zeros(n + 1).index_add(
        0, labels, p.T.gather(1, (labels - 1).clamp(min=0)[:, None])[:, 0])
    area = torch.zeros(n + 1).index_add(0, labels, weight)[1:]
    dice = 1 - (2 * own[1:] + 1) / (p.sum(dim=1) + area + 1)
    # large galaxies are rare and are what the head exists for
    importance = 1 + (area / 100.0).clamp(min=1).log()
    known = labels > 0
    k = labels[known] - 1
    off = (torch.stack([x, y], dim=-1)[known] - sample.centre[k]
           ) / sample.log_size[k].exp()[:, None]
    return {'mask': owner_loss(log_p, labels,
                               sample.rivals.flatten(1)[:, index],
                               sample.shares.flatten(1)[:, index], weight),
            'dice': (dice * importance).sum() / importance.sum(),
            'vote': F.smooth_l1_loss(off, torch.zeros_like(off), beta=0.2)}


def _pair_loss(head, seeds, maps, sample, generator, n_max=300):
    """Same object or not, for pairs that inference would ask about; of
    either answer at most ``n_max``."""
    ix, iy = sample.seed_xy.T.long()
    x, y = sample.seed_xy.T + maps.vote[:, iy, ix]
    with torch.no_grad():
        claim = (head.score(seeds, maps.embedding[:, iy, ix], x, y)
                 - maps.sky[:, iy, ix])                      # (S, S)
        apart = torch.cdist(sample.seed_xy, sample.seed_xy)
    same = sample.seed_object[:, None] == sample.seed_object
    asked = same | (claim > -4) | (claim.T > -4) | (apart < 24)
    i, j = asked.triu(1).nonzero(as_tuple=True)
    if len(i) == 0:
        return claim.sum() * 0
    pick = torch.randperm(len(i), generator=generator)
    yes = same[i[pick], j[pick]]
    pick = torch.cat([pick[yes][:n_max], pick[~yes][:n_max]])
    i, j = i[pick], j[pick]
    logits = head.pair_logits(seeds, (claim[i, j], claim[j, i]), i, j, x, y)
    return F.binary_cross_entropy_with_logits(logits, same[i, j].float())


def _with_own_seeds(heat, sample, generator, n_max=40):
    """The sample with the heatmap's own peaks as further decoys."""
    x, y, _ = find_seeds(heat.detach(), OWN_HEAT)
    owner = sample.labels[y.long(), x.long()] - 1
    known = (owner >= 0).nonzero()[:, 0]
    pick = known[torch.randperm(len(known), generator=generator)[:n_max]]
    xy = torch.stack([x[pick], y[pick]], dim=-1)
    return replace(sample, seed_xy=torch.cat([sample.seed_xy, xy]),
                   seed_object=torch.cat([sample.seed_object, owner[pick]]))


def grouping_losses(head, maps, sample, generator, *, own_seeds=False,
                    class_weights=CLASS_WEIGHTS):
    """
    All terms of the loss for one crop.

    Parameters
    ----------
    head : `~astrodino_seg.heads.GroupingHead`
        The head.
    maps : `~astrodino_seg.heads.DenseMaps`
        Of this crop, without the batch axis.
    sample : `~astrodino_seg.train.targets.Sample`
        The truth.
    generator : `torch.Generator`
        For the choice of seeds and pixels.
    own_seeds : bool, optional
        Whether the heatmap's own peaks are decoys too, so that the head
        learns to read and to compare the seeds it will meet.
    class_weights : sequence of float, optional
        As of `class_loss`.

    Returns
    -------
    losses : dict of `~torch.Tensor`
        One scalar a term, unweighted.
    """
    n = len(sample.cls)
    void = sample.labels < 0
    target = heat_target(sample.seed_xy[:n], sample.log_size,
                         maps.heat.shape[1:])
    weight = F.pad(_importance(sample.log_size), (1, 0), value=1.0)
    losses = {'heat': centre_focal_loss(
                  maps.heat[0], target, void[::2, ::2] | void[1::2, 1::2],
                  weight[sample.labels[::2, ::2].clamp(min=0)]),
              'classes': class_loss(maps.classes[None],
                                    sample.classes[None], class_weights)}
    if void.all():                         # nothing is known of this crop
        return {'heat': losses['heat']}
    if n == 0:
        losses['mask'] = F.softplus(-maps.sky)[:, ~void].mean()
        return losses
    if own_seeds:
        sample = _with_own_seeds(maps.heat[0], sample, generator)
    seeds = head.read_seeds(maps.pyramid, *sample.seed_xy.T)
    own = sample.seed_object
    size = sample.log_size[own]
    shift = (seeds.centre - sample.centre[own]) / size.exp()[:, None]
    losses['centre'] = F.smooth_l1_loss(shift, torch.zeros_like(shift),
                                        beta=0.2)
    losses['size'] = F.smooth_l1_loss(seeds.log_size, size, beta=0.2)
    # a class that is not known is any of the three
    log_p = F.pad(seeds.classes.log_softmax(dim=1), (0, 1))
    losses['seed_class'] = F.nll_loss(log_p, sample.cls[own] - 1)
    losses['pair'] = _pair_loss(head, seeds, maps, sample, generator)
    members = _members(sample, generator)
    losses.update(_mask_losses(
        head, Seeds(*(part[members] for part in seeds)), own[members], maps,
        sample, generator))
    return losses
