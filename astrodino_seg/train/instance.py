# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Training of the model of the pyramid's levels: its losses, and one loop.
"""

import json
import platform
import time
from pathlib import Path

import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, Subset

from astrodino_seg.heads import Seeds
from astrodino_seg.models.instance import InstanceMaps, InstanceModel
from astrodino_seg.predict.pyramid import find_peaks
from astrodino_seg.train.crops import LevelCrops
from astrodino_seg.train.losses import (
    CLASS_WEIGHTS,
    _importance,
    _members,
    centre_focal_loss,
    owner_loss,
)
from astrodino_seg.train.supervised import (
    _average,
    _flatten,
    _save,
    _shorten,
)

__all__ = ['instance_losses', 'rate_of_step', 'train_instance']

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


def heat_target(xy, log_size, shape):
    """
    Gaussians at the centres, their maximum where they overlap (Zhou et al.
    2019, arXiv:1904.07850, Section 3).

    Parameters
    ----------
    xy : `~torch.Tensor`
        (N, 2) centres in pixels.
    log_size : `~torch.Tensor`
        (N,) log radius in pixels; larger objects get a wider Gaussian.
    shape : tuple of int
        (H, W).

    Returns
    -------
    target : `~torch.Tensor`
        (H, W) in [0, 1]; exactly 1 at the pixel of each centre.
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


def instance_losses(head, maps, crop, generator, *, own_seeds=False):
    """
    All terms of the loss for one crop.

    Parameters
    ----------
    head : `~astrodino_seg.models.instance.InstanceHead`
        The head.
    maps : `~astrodino_seg.models.instance.InstanceMaps`
        Of this crop, without the batch axis.
    crop : `~astrodino_seg.train.crops.LevelCrop`
        The truth.
    generator : `torch.Generator`
        For the choice of seeds and pixels.
    own_seeds : bool, optional
        Whether the heatmap's own peaks are decoys too.

    Returns
    -------
    losses : dict of `~torch.Tensor`
        One scalar a term, unweighted.
    """
    n = len(crop.cls)
    void = crop.labels < 0
    heat = maps.heat
    asked = F.pad(crop.asked, (1, 0), value=True)
    ignore = void | ~asked[crop.labels.clamp(min=0)]
    called = crop.asked.nonzero()[:, 0]
    target = heat_target(crop.seed_xy[called], crop.log_size[called],
                         heat.shape)
    weight = F.pad(_importance(crop.log_size), (1, 0), value=1.0)
    losses = {'heat': centre_focal_loss(
        heat, target, ignore, weight[crop.labels.clamp(min=0)])}
    if void.all():
        return losses
    seed_xy, own = crop.seed_xy, crop.seed_object
    if own_seeds:
        seed_xy, own = _with_peaks(heat, crop, generator)
    index, weight = _pixels(crop.labels, generator)
    # those of the pixels and of the seeds at once: each reading has a
    # gradient as large as the map
    ix, iy = seed_xy.T.long()
    at_pixels, at_seeds = maps.pixels.flatten(0, 1).index_select(
        0, torch.cat([index, iy * heat.shape[1] + ix])).split(
        [len(index), len(seed_xy)])
    embedding, rest, classes, vote = head.split_pixels(at_pixels)
    losses['classes'] = _class_loss(classes, crop.classes.ravel()[index],
                                    weight)
    labels = crop.labels.ravel()[index]
    if n == 0:
        losses['mask'] = F.softplus(-rest).mean()
        return losses
    seeds = head.read_seeds(maps.pyramid, *seed_xy.T)
    size = crop.log_size[own]
    shift = (seeds.centre - crop.centre[own]) / size.exp()[:, None]
    losses['centre'] = F.smooth_l1_loss(shift, torch.zeros_like(shift),
                                        beta=0.2)
    losses['size'] = F.smooth_l1_loss(seeds.log_size, size, beta=0.2)
    # a class that is not known is any of the three
    log_p = F.pad(seeds.classes.log_softmax(dim=1), (0, 1))
    losses['seed_class'] = F.nll_loss(log_p, crop.cls[own] - 1)
    losses['pair'] = _pair_loss(head, seeds, at_seeds, seed_xy, own,
                                generator)
    members = _members(_Members(crop.cls, own), generator)
    losses.update(_mask_losses(
        head, Seeds(*(part[members] for part in seeds)), own[members],
        (embedding, rest, vote), index, weight, labels, crop))
    return losses


class _Members:
    """What `_members` asks for."""

    def __init__(self, cls, seed_object):
        self.cls, self.seed_object = cls, seed_object


def _class_loss(logits, classes, weight):
    """Cross-entropy of the classes of pixels, as of `class_loss`."""
    log_p = logits.log_softmax(dim=1)
    weights = torch.tensor([*CLASS_WEIGHTS, 1.0])
    weight = weight * weights[classes.clamp(min=0)] * (classes >= 0)
    # an object of any class: not the sky
    some = torch.logsumexp(log_p[:, 1:], dim=1, keepdim=True)
    loss = torch.cat([log_p, some], dim=1).gather(
        1, classes.clamp(min=0)[:, None])[:, 0]
    return -(loss * weight).sum() / weight.sum().clamp(min=1)


def _with_peaks(heat, crop, generator, n_max=60):
    """The seeds, and the heatmap's own peaks as further decoys."""
    x, y, _ = find_peaks(heat.detach(), OWN_HEAT)
    owner = crop.labels[y.long(), x.long()] - 1
    known = (owner >= 0).nonzero()[:, 0]
    pick = known[torch.randperm(len(known), generator=generator)[:n_max]]
    return (torch.cat([crop.seed_xy, torch.stack([x, y], -1)[pick]]),
            torch.cat([crop.seed_object, owner[pick]]))


def _mask_losses(head, seeds, owner, values, index, weight, labels, crop):
    """As of `astrodino_seg.train.losses`, on the pixels that were drawn."""
    embedding, rest, vote = values
    n, width = len(crop.cls), crop.labels.shape[1]
    x, y = (index % width) + vote[:, 0], (index // width) + vote[:, 1]
    score = head.score(seeds, embedding.T, x, y)
    if len(owner) > n or (owner != torch.arange(n)).any():
        score = torch.zeros(n, len(index)).scatter_reduce(
            0, owner[:, None].expand_as(score), score, 'amax',
            include_self=False)
    log_p = torch.cat([rest[None], score]).log_softmax(dim=0)       # (N + 1, P)
    own_log_p = log_p.gather(0, labels[None])[0]
    known = labels > 0
    area = torch.zeros(n + 1).index_add(0, labels, weight)[1:]
    inside = torch.zeros(n + 1).index_add(
        0, labels, own_log_p.exp() * weight)[1:]
    every = log_p[1:].exp() @ weight
    dice = 1 - (2 * inside + 1) / (every + area + 1)
    # large galaxies are rare and are what the head exists for
    importance = 1 + (area / 100.0).clamp(min=1).log()
    k = labels[known] - 1
    off = (torch.stack([x, y], dim=-1)[known] - crop.centre[k]
           ) / crop.log_size[k].exp()[:, None]
    return {'mask': owner_loss(log_p, labels,
                               crop.rivals.flatten(1)[:, index],
                               crop.shares.flatten(1)[:, index], weight),
            'dice': (dice * importance).sum() / importance.sum(),
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
    pick = torch.randperm(len(i), generator=generator)
    yes = same[i[pick], j[pick]]
    pick = torch.cat([pick[yes][:n_max], pick[~yes][:n_max]])
    i, j = i[pick], j[pick]
    logits = head.pair_logits(seeds, (claim[i, j], claim[j, i]), i, j, x, y)
    return F.binary_cross_entropy_with_logits(logits, same[i, j].float())


def rate_of_step(step, n_steps, *, peak, warmup=500, cooldown=0.2):
    """
    Warm up, stay, and fall to nothing at the end (`Hu et al. 2024
    <https://arxiv.org/abs/2404.06395>`_), so that a run can be made longer.

    Parameters
    ----------
    step, n_steps : int
        The step and how many there will be.
    peak : float
        The largest rate.
    warmup : int, optional
        Steps in which it rises.
    cooldown : float, optional
        Share of the steps in which it falls.

    Returns
    -------
    rate : float
        The learning rate of this step.
    """
    left = (n_steps - step) / max(cooldown * n_steps, 1)
    return peak * min((step + 1) / warmup, 1.0, left)


def train_instance(model, scenes, *, out, n_steps, n_items=2, crop_size=256,
                   rates=None, peak_rate=1e-3, weight_decay=0.02, warmup=500,
                   average_decay=0.9995, device='cpu', bfloat16=True,
                   save_every=200, milestone_every=2000, n_workers=1, seed=0,
                   stop_after=None):
    """
    Train a model on scenes of known truth; a run that was stopped goes on.

    Parameters
    ----------
    model : `~astrodino_seg.models.instance.InstanceModel`
        The model; changed in place, in the end to the running average.
    scenes : sequence of `~astrodino_seg.simulate.Scene`
        What to train on.
    out : path-like
        Folder for the checkpoint, the log and the weights: the average after
        every ``milestone_every`` steps is in ``average.safetensors``.
    n_steps : int
        Optimiser steps.
    n_items, crop_size, rates
        Observations a step, of two crops each, the side of these in pixels,
        and the ``rates`` of
        `~astrodino_seg.train.crops.LevelCrops`.
    peak_rate, weight_decay, warmup : float
        Of AdamW (Loshchilov & Hutter 2019) and of `rate_of_step`.
    average_decay : float, optional
        Of the running average of the weights.
    device : str, optional
        Where the network runs.
    bfloat16 : bool, optional
        Whether it runs in bfloat16.
    save_every, milestone_every : int, optional
        Steps between checkpoints, and between averaged weights.
    n_workers : int, optional
        Processes that make the data.
    seed : int, optional
        Seed of the data and of all choices.
    stop_after : float, optional
        Seconds after which to stop, at the next checkpoint.

    Returns
    -------
    model : `~astrodino_seg.models.instance.InstanceModel`
        The averaged model, in evaluation mode.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    checkpoint = out / 'checkpoint.pt'
    model.to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak_rate,
                                  weight_decay=weight_decay)
    average = {k: v.clone() for k, v in model.state_dict().items()}
    start, seconds = 0, 0.0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True, map_location=device)
        model.load_state_dict(state['model'])
        optimizer.load_state_dict(state['optimizer'])
        average, start = state['average'], state['step']
        seconds = state['seconds']
        _shorten(out / 'log.jsonl', start)
    data = LevelCrops(scenes, model.preprocess, n_steps * n_items,
                      crop_size=crop_size, rates=rates, seed=seed)
    todo = Subset(data, range(start * n_items, n_steps * n_items))
    loader = DataLoader(todo, batch_size=n_items, num_workers=n_workers,
                        collate_fn=_flatten,
                        prefetch_factor=8 if n_workers else None)
    model.train()
    begin = time.monotonic() - seconds
    first = seconds
    for step, crops in enumerate(loader, start=start):
        for group in optimizer.param_groups:
            group['lr'] = rate_of_step(step, n_steps, peak=peak_rate,
                                       warmup=warmup)
        generator = torch.Generator().manual_seed(seed * 10_000_019 + step)
        losses = _step(model, crops, generator, device, bfloat16)
        optimizer.zero_grad()
        losses['total'].backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 3.0)
        optimizer.step()
        _average(average, model, min(average_decay, (step + 1) / (step + 10)))
        values = {k: round(v.item(), 4) for k, v in losses.items()}
        seconds = time.monotonic() - begin
        with open(out / 'log.jsonl', 'a') as log:
            log.write(json.dumps({'step': step, 'seconds': round(seconds, 1),
                                  'norm': round(norm.item(), 2),
                                  **values}) + '\n')
        done = step + 1
        if done % save_every == 0 or done == n_steps:
            _save(checkpoint, {'model': model.state_dict(),
                               'optimizer': optimizer.state_dict(),
                               'average': average, 'step': done,
                               'seconds': seconds})
        if done % milestone_every == 0 or done == n_steps:
            _milestone(model, average, out, steps=done, n_items=n_items,
                       crop_size=crop_size, seed=seed,
                       hours=round(seconds / 3600, 2),
                       machine=f'{platform.machine()}, '
                               f'{torch.get_num_threads()} threads')
        if (stop_after is not None and done % save_every == 0
                and seconds - first > stop_after):
            break
    model.load_state_dict(average)
    return model.cpu().eval()


def _milestone(model, average, out, **provenance):
    """Write the running average."""
    other = InstanceModel(**{k: model.spec[k]
                             for k in ('vit', 'head', 'preprocess')},
                          provenance={**model.provenance, **provenance})
    other.load_state_dict(average)
    other.save(out / 'average.safetensors')


def _step(model, crops, generator, device, bfloat16):
    """Mean losses of a batch of crops; ``total`` is their weighted sum."""
    batch = torch.stack([crop.channels for crop in crops]).to(device)
    binned = torch.tensor([crop.binned for crop in crops], device=device)
    with torch.autocast(torch.device(device).type, torch.bfloat16,
                        enabled=bfloat16):
        maps = model(batch, binned)
    sums = {}
    # unbound, as the gradient of each slice would be as large as the whole
    for crop, heat, pixels, *pyramid in zip(
            crops, maps.heat.unbind(), maps.pixels.unbind(),
            *(level.unbind() for level in maps.pyramid)):
        one = InstanceMaps(heat, pixels, tuple(pyramid))
        for name, value in instance_losses(model.head, one, crop, generator,
                                           own_seeds=True).items():
            sums[name] = sums.get(name, 0) + value / len(crops)
    sums['total'] = sum(WEIGHTS[name] * value for name, value in sums.items())
    return sums
