# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Losses of the grouping head, for one crop at a time.
"""

from dataclasses import replace

import torch
from torch.nn import functional as F

from astrodino_seg.heads import Seeds
from astrodino_seg.inference import find_seeds

__all__ = ['centre_focal_loss', 'grouping_losses', 'heat_target']

#: Weight of each term in the total.
WEIGHTS = {'heat': 1.0, 'mask': 2.0, 'dice': 1.0, 'classes': 0.3,
           'seed_class': 0.3, 'centre': 0.3, 'size': 0.3, 'pair': 0.5}
#: Least probability of the heatmap's peaks that serve as decoys.
OWN_HEAT = 0.15


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


def centre_focal_loss(logits, target, ignore):
    """
    Penalty-reduced focal loss (Zhou et al. 2019, equation 1; alpha 2,
    beta 4), normalised by the number of centres.

    Parameters
    ----------
    logits, target : `~torch.Tensor`
        (h, w).
    ignore : `~torch.Tensor`
        (h, w) bool; negatives that are not counted.

    Returns
    -------
    loss : `~torch.Tensor`
        Scalar.
    """
    p = logits.sigmoid().clamp(1e-5, 1 - 1e-5)
    centre = target == 1
    positive = ((1 - p)**2 * p.log())[centre]
    negative = (1 - target)**4 * p**2 * (1 - p).log()
    negative = negative[~centre & ~ignore]
    return -(positive.sum() + negative.sum()) / max(int(centre.sum()), 4)


def _choose(sample, generator):
    """One seed an object: its centre, or with equal odds a decoy."""
    n = len(sample.cls)
    chosen = torch.arange(n)
    for k in torch.randperm(len(sample.seed_object), generator=generator):
        owner = sample.seed_object[k]
        if k >= n and torch.rand((), generator=generator) < 0.45:
            chosen[owner] = k
    return chosen


def _mask_losses(head, seeds, maps, sample, generator):
    """Cross-entropy over {sky, seeds} and Dice, on all of the objects'
    pixels and a third of the sky's."""
    labels = sample.labels.ravel()
    keep = (labels > 0) | ((labels == 0)
                           & (torch.rand(labels.shape, generator=generator)
                              < 0.33))
    index = keep.nonzero()[:, 0]
    labels = labels[index]
    width = sample.labels.shape[1]
    y, x = (index // width).float(), (index % width).float()
    sky = maps.sky.flatten(1)[:, index]
    score = head.score(seeds, maps.embedding.flatten(1)[:, index], x, y)
    log_p = torch.cat([sky, score]).log_softmax(dim=0)       # (N + 1, P)
    loss = F.nll_loss(log_p.T, labels, reduction='none')
    loss = (loss * torch.where(labels == 0, 3.0, 1.0)).mean()
    p = log_p[1:].exp()
    weight = torch.where(labels == 0, 3.0, 1.0)
    total = (p * weight).sum(dim=1)
    own = torch.zeros(len(p)).index_add(
        0, labels[labels > 0] - 1,
        p.T[labels > 0].gather(1, labels[labels > 0][:, None] - 1)[:, 0])
    area = torch.bincount(labels, minlength=len(p) + 1)[1:]
    dice = 1 - (2 * own + 1) / (total + area + 1)
    # large galaxies are rare and are what the head exists for
    importance = 1 + (area / 100.0).clamp(min=1).log()
    return loss, (dice * importance).sum() / importance.sum()


def _pair_loss(head, seeds, maps, sample, generator, n_max=700):
    """Same object or not, for pairs that inference would ask about."""
    x, y = sample.seed_xy.T
    ix, iy = x.long(), y.long()
    with torch.no_grad():
        claim = (head.score(seeds, maps.embedding[:, iy, ix], x, y)
                 - maps.sky[:, iy, ix])                      # (S, S)
        apart = torch.cdist(sample.seed_xy, sample.seed_xy)
    same = sample.seed_object[:, None] == sample.seed_object
    asked = same | (claim > -4) | (claim.T > -4) | (apart < 24)
    i, j = asked.triu(1).nonzero(as_tuple=True)
    if len(i) == 0:
        return claim.sum() * 0
    pick = torch.randperm(len(i), generator=generator)[:n_max]
    i, j = i[pick], j[pick]
    logits = head.pair_logits(seeds, (claim[i, j], claim[j, i]), i, j, x, y)
    return F.binary_cross_entropy_with_logits(logits, same[i, j].float())


def _with_own_seeds(heat, sample, generator, n_max=60):
    """The sample with the heatmap's own peaks as further decoys."""
    x, y, _ = find_seeds(heat.detach(), OWN_HEAT)
    owner = sample.labels[y.long(), x.long()] - 1
    known = (owner >= 0).nonzero()[:, 0]
    pick = known[torch.randperm(len(known), generator=generator)[:n_max]]
    xy = torch.stack([x[pick], y[pick]], dim=-1)
    return replace(sample, seed_xy=torch.cat([sample.seed_xy, xy]),
                   seed_object=torch.cat([sample.seed_object, owner[pick]]))


def grouping_losses(head, maps, sample, generator, *, own_seeds=False):
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

    Returns
    -------
    losses : dict of `~torch.Tensor`
        One scalar a term, unweighted.
    """
    n = len(sample.cls)
    void = sample.labels < 0
    target = heat_target(sample.seed_xy[:n], sample.log_size,
                         maps.heat.shape[1:])
    losses = {'heat': centre_focal_loss(maps.heat[0], target,
                                        void[::2, ::2] | void[1::2, 1::2]),
              'classes': F.cross_entropy(
                  maps.classes[None], sample.classes[None], ignore_index=-1)}
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
    losses['seed_class'] = F.cross_entropy(seeds.classes,
                                           sample.cls[own] - 1)
    losses['pair'] = _pair_loss(head, seeds, maps, sample, generator)
    chosen = _choose(sample, generator)
    one_each = Seeds(*(part[chosen] for part in seeds))
    losses['mask'], losses['dice'] = _mask_losses(head, one_each, maps,
                                                  sample, generator)
    return losses
