# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Losses of a `~astrodino_seg.Model`, for one crop of one level at a time.

All that is drawn is drawn on the CPU, whatever device the network is on, so
that a run does not depend on it.
"""

import math
from contextlib import nullcontext

import torch
from torch.nn import functional as F

from astrodino_seg.models.head import InstanceMaps, Seeds
from astrodino_seg.predict.pyramid import find_peaks
from astrodino_seg.train.losses import (
    CLASS_WEIGHTS,
    dense_logits,
    imitation_loss,
    teach,
    with_any_object,
)

#: Weight of each term in the total.
WEIGHTS = {'heat': 1.0, 'mask': 2.0, 'dice': 1.0, 'vote': 0.5, 'classes': 0.5,
           'seed_class': 1.0, 'centre': 0.3, 'size': 0.3, 'pair': 1.0}
#: Pixels drawn in each crop: of all objects together, of each at most and at
#: least, and of the rest.
OBJECT_PIXELS = 8000
MOST, LEAST = 500, 30
REST_PIXELS = 2500
#: Least probability of the heatmap's peaks that serve as decoys.
OWN_HEAT = 0.2
#: How far the target of a pixel goes from its owner alone (0) to the shares
#: of its light (1); and how much more a pixel counts that two objects share
#: evenly.
SOFTNESS = 0.5
CONTESTED = 3.0


def heat_target(xy, log_size, shape):
    """
    Gaussians at the centres (N, 2), their maximum where they overlap (Zhou et
    al. 2019, arXiv:1904.07850, Section 3).
    """
    target = torch.zeros(shape)
    sigma = (0.12 * log_size.exp()).clamp(1.0, 4.0)
    for (x, y), s in zip(xy.round().long().tolist(), sigma.tolist()):
        r = int(3 * s) + 1
        ys = torch.arange(max(y - r, 0), min(y + r + 1, shape[0]))
        xs = torch.arange(max(x - r, 0), min(x + r + 1, shape[1]))
        bump = torch.exp((ys - y)**2 / (-2 * s**2))[:, None] * torch.exp(
            (xs - x)**2 / (-2 * s**2))
        part = target[ys[0]:ys[-1] + 1, xs[0]:xs[-1] + 1]
        torch.maximum(part, bump, out=part)
    return target


def _pixels(labels, generator):
    """Some of the pixels of the rest and objects, and what each stands for."""
    labels = labels.ravel()
    area = torch.bincount(labels.clamp(min=0), weights=labels >= 0)
    n = max(len(area) - 1, 1)
    limit = torch.full_like(area, min(max(OBJECT_PIXELS // n, LEAST), MOST))
    limit[0] = REST_PIXELS
    share = (limit / area.clamp(min=1)).clamp(max=1)[labels.clamp(min=0)]
    keep = (labels >= 0) & (torch.rand(labels.shape, generator=generator)
                            < share)
    index = keep.nonzero()[:, 0]
    return index, (1 / share[index]).float()


def instance_losses(head, maps, crop, generator, *, own_seeds=False,
                    class_weights=CLASS_WEIGHTS):
    """All terms of the loss for one crop."""
    losses = {'heat': _heat_loss(maps.heat, crop)}
    if (crop.labels < 0).all():
        return losses
    device, n = maps.heat.device, len(crop.cls)
    seed_xy, own = crop.seed_xy, crop.seed_object
    if own_seeds:
        seed_xy, own = _with_peaks(maps.heat, crop, generator)
    index, weight = _pixels(crop.labels, generator)
    labels, classes = (part.ravel()[index].to(device)
                       for part in (crop.labels, crop.classes))
    # those of the pixels and of the seeds at once: each reading has a
    # gradient as large as the map
    ix, iy = seed_xy.T.long()
    at_pixels, at_seeds = head.read_pixels(maps, torch.cat(
        [index, iy * crop.labels.shape[1] + ix]).to(device)
    ).split([len(index), len(seed_xy)])
    weight = weight.to(device)
    losses['classes'] = _class_loss(head.split_pixels(at_pixels)[2], classes,
                                    weight, class_weights)
    if n == 0:
        rest = head.split_pixels(at_pixels)[1]
        losses['mask'] = F.softplus(-rest).mean()
        return losses
    seed_xy = seed_xy.to(device)
    seeds = head.read_seeds(maps.pyramid, *seed_xy.T)
    losses.update(_seed_losses(seeds, own.to(device), crop))
    losses['pair'] = _pair_loss(head, seeds, at_seeds, seed_xy,
                                own.to(device), generator)
    members = draw_members(n, own, generator)
    losses.update(_mask_losses(
        head, Seeds(*(part[members.to(device)] for part in seeds)),
        own[members], at_pixels, index, weight, labels, crop))
    return losses


def _heat_loss(heat, crop):
    """Of the centres; what may be called or not, and void, is no matter."""
    asked = F.pad(crop.asked, (1, 0), value=True)
    labels = crop.labels.clamp(min=0)
    ignore = (crop.labels < 0) | ~asked[labels]
    called = crop.asked.nonzero()[:, 0]
    target = heat_target(crop.seed_xy[called], crop.log_size[called],
                         heat.shape)
    weight = F.pad(importance(crop.log_size), (1, 0), value=1.0)[labels]
    return centre_focal_loss(heat, *(part.to(heat.device) for part in (
        target, ignore, weight)))


def _seed_losses(seeds, own, crop):
    """Of the centre, the size and the class that each seed tells."""
    centre, size, cls = (part.to(own.device)[own] for part in (
        crop.centre, crop.log_size, crop.cls))
    shift = (seeds.centre - centre) / size.exp()[:, None]
    # a class that is not known is any of the three
    log_p = F.pad(seeds.classes.log_softmax(dim=1), (0, 1))
    return {'centre': F.smooth_l1_loss(shift, torch.zeros_like(shift),
                                       beta=0.2),
            'size': F.smooth_l1_loss(seeds.log_size, size, beta=0.2),
            'seed_class': F.nll_loss(log_p, cls - 1)}


def _class_loss(logits, classes, weight, class_weights=CLASS_WEIGHTS):
    """Cross-entropy of the classes of pixels, as of `class_loss`."""
    log_p, weights = with_any_object(logits, class_weights)
    weight = weight * weights[classes.clamp(min=0)] * (classes >= 0)
    loss = log_p.gather(1, classes.clamp(min=0)[:, None])[:, 0]
    return -(loss * weight).sum() / weight.sum().clamp(min=1)


def _with_peaks(heat, crop, generator, n_max=60):
    """The seeds, and the heatmap's own peaks as further decoys."""
    x, y = (part.cpu() for part in find_peaks(heat.detach(), OWN_HEAT)[:2])
    owner = crop.labels[y.long(), x.long()] - 1
    known = (owner >= 0).nonzero()[:, 0]
    pick = known[torch.randperm(len(known), generator=generator)[:n_max]]
    return (torch.cat([crop.seed_xy, torch.stack([x, y], -1)[pick]]),
            torch.cat([crop.seed_object, owner[pick]]))


def _mask_losses(head, seeds, owner, at_pixels, index, weight, labels,
                 crop):
    """
    Cross-entropy over {rest, objects}, with the owners' light shared, Dice of
    the owners, and that of the votes; an object has the score of its best
    seed.
    """
    n, width, device = len(crop.cls), crop.labels.shape[1], labels.device
    embedding, rest, _, vote = head.split_pixels(at_pixels)
    rivals, shares = (part.flatten(1)[:, index].to(device)
                      for part in (crop.rivals, crop.shares))
    index = index.to(device)
    x, y = (index % width) + vote[:, 0], (index // width) + vote[:, 1]
    score = head.score(seeds, embedding.T, x, y)
    if len(owner) > n or (owner != torch.arange(n)).any():
        score = score.new_zeros(n, len(index)).scatter_reduce(
            0, owner.to(device)[:, None].expand_as(score), score, 'amax',
            include_self=False)
    log_p = torch.cat([rest[None], score]).log_softmax(dim=0)   # (N + 1, P)
    own_log_p = log_p.gather(0, labels[None])[0]
    none = weight.new_zeros(n + 1)
    area = none.index_add(0, labels, weight)[1:]
    inside = none.index_add(0, labels, own_log_p.exp() * weight)[1:]
    every = log_p[1:].exp() @ weight
    dice = 1 - (2 * inside + 1) / (every + area + 1)
    # large galaxies are rare and are what the head exists for
    large = 1 + (area / 100.0).clamp(min=1).log()
    known = labels > 0
    k = labels[known] - 1
    centre, size = crop.centre.to(device), crop.log_size.exp().to(device)
    off = (torch.stack([x, y], dim=-1)[known] - centre[k]) / size[k][:, None]
    return {'mask': owner_loss(log_p, labels, rivals, shares, weight),
            'dice': (dice * large).sum() / large.sum(),
            'vote': F.smooth_l1_loss(off, torch.zeros_like(off), beta=0.2)}


def _pair_loss(head, seeds, at_seeds, seed_xy, own, generator, n_max=200):
    """Same object or not, for pairs that decoding would ask about."""
    embedding, rest, _, vote = head.split_pixels(at_seeds)
    x, y = (seed_xy + vote).T
    with torch.no_grad():
        claim = head.score(seeds, embedding.T, x, y) - rest       # (S, S)
        apart = torch.cdist(seed_xy, seed_xy)
        same = own[:, None] == own
        asked = same | (claim > -4) | (claim.T > -4) | (apart < 12)
        i, j = asked.triu(1).nonzero(as_tuple=True)
    if len(i) == 0:
        return rest.sum() * 0
    pick = torch.randperm(len(i), generator=generator).to(i.device)
    yes = same[i[pick], j[pick]]
    pick = torch.cat([pick[yes][:n_max], pick[~yes][:n_max]])
    i, j = i[pick], j[pick]
    logits = head.pair_logits(seeds, (claim[i, j], claim[j, i]), i, j, x, y)
    return F.binary_cross_entropy_with_logits(logits, same[i, j].float())


def level_losses(model, crops, generator, *, own_seeds=True,
                 class_weights=CLASS_WEIGHTS, teacher=None,
                 autocast=nullcontext, device='cpu'):
    """Mean losses of some crops."""
    sums, by_size = {}, {}
    for crop in crops:
        by_size.setdefault(crop.channels.shape, []).append(crop)
    for batch in by_size.values():
        for name, value in _batch_losses(
                model, batch, generator, teacher, autocast, device,
                own_seeds=own_seeds, class_weights=class_weights):
            sums[name] = sums.get(name, 0) + value / len(crops)
    return sums


def _batch_losses(model, crops, generator, teacher, autocast, device,
                  **options):
    """Yield the name and the value of each term of each crop."""
    x = torch.stack([crop.channels for crop in crops]).to(device)
    binned = torch.tensor([crop.binned for crop in crops], device=device)
    with autocast():
        maps = model(x, binned, dense=teacher is not None)
    # unbound, as the gradient of each slice would be as large as the whole
    dense = maps.pixels is not None
    for crop, heat, pixels, *pyramid in zip(
            crops, maps.heat.unbind(),
            (maps.pixels if dense else maps.cells).unbind(),
            *(level.unbind() for level in maps.pyramid)):
        one = InstanceMaps(heat, pixels if dense else None, tuple(pyramid),
                           None if dense else pixels)
        yield from instance_losses(model.head, one, crop, generator,
                                   **options).items()
    if teacher is not None:
        yield 'teacher', len(crops) * imitation_loss(
            dense_logits(model.head, maps), teach(teacher, x, binned))


def centre_focal_loss(logits, target, ignore, weight=None):
    """
    Penalty-reduced focal loss of (h, w) logits (Zhou et al. 2019, equation 1;
    alpha 2, beta 4), normalised by the number of centres.
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
    Weight (N,) of objects in the heatmap: large galaxies are rare, and a
    centre that they lack, or have twice, costs more pixels.
    """
    area = math.pi * (2 * log_size).exp()
    return 1 + 0.5 * (area / 100.0).clamp(min=1).log()


def draw_members(n, owner, generator):
    """
    Which seeds of (S,) owners take part in the masks: centres most of the
    time, decoys less often, and at least one an object.
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
    Cross-entropy (N + 1, P) to the owners (P,) of pixels, and to those who
    share their light (R, P).
    """
    rest = 1 - shares.sum(dim=0)
    weight = weight * (1 + 4 * CONTESTED * rest * (1 - rest))
    log_own = log_p.gather(0, labels[None])[0]
    less = log_p.gather(0, rivals) - log_own
    loss = log_own + SOFTNESS * (shares * less).sum(dim=0)
    return -(loss * weight).sum() / weight.sum()
