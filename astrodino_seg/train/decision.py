# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The decision about seeds, fitted to what the finished network says.
"""

from copy import deepcopy

import numpy as np
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from astrodino_seg.models.decision import Decision
from astrodino_seg.predict.masks import paint_levels
from astrodino_seg.predict.merge import (
    candidates,
    pair_features,
    seed_features,
)
from astrodino_seg.predict.pyramid import look
from astrodino_seg.train.data import observed
from astrodino_seg.truth import ISOPHOTE

__all__ = ['decisions_of_scene', 'fit_decision']

#: How much more a pair counts if one of its objects is a large galaxy.
PRIMARY_WEIGHT = 3.0
#: Share of a seed's light, in pixels, that must be an object's.
ON_OBJECT = 0.3
#: Share of a seed's light in a binned image that one object must have.
OF_ONE = 0.5
#: Every tenth scene is held out.
HELD = 10


def seed_truth(levels, truth, shape):
    """
    The object that each seed is of, by the pixels that it paints.

    Parameters
    ----------
    levels : list of `~astrodino_seg.predict.pyramid.Level`
        What the network says.
    truth : `~astrodino_seg.simulate.Truth`
        What is there.
    shape : tuple of int
        (ny, nx) of the image.

    Returns
    -------
    owner : `~numpy.ndarray`
        (S,) int: the object, 0 for the sky, -1 where it is not known.
    """
    n = [len(level.x) for level in levels]
    owner, first = np.full(sum(n), -1), np.cumsum([0, *n])
    last = max(truth.labels.max(initial=0), truth.owners.max(initial=0)) + 3
    painted = paint_levels(levels, np.ones(sum(n), bool), shape)
    for here in painted:
        k = np.searchsorted(first, here.max(), 'left') - 1
        true = truth.labels
        if levels[k].factor > 1 and len(truth.owners):     # sees fainter
            faint = (true == 0) & (truth.own_sn * levels[k].factor
                                   >= ISOPHOTE)
            true = np.where(faint, truth.owners[0], true)
        inside = here > 0
        seed = here[inside] - 1 - first[k]
        weight = np.minimum(truth.own_sn[inside], 5) + 0.2
        table = np.bincount(seed * last + true[inside] + 1, weight,
                            minlength=n[k] * last).reshape(-1, last)
        area = np.bincount(seed * last + true[inside] + 1,
                           minlength=n[k] * last).reshape(-1, last)
        total = area.sum(axis=1)
        best = table[:, 2:].argmax(axis=1) + 1
        on_object = area[:, 2:].sum(axis=1) >= ON_OBJECT * total
        if levels[k].factor > 1:        # what holds several is none of them
            own = area[np.arange(n[k]), best + 1]
            on_object &= own >= OF_ONE * (total - area[:, 0])
        void = area[:, 0] > 0.5 * total
        part = np.where(on_object, best, 0)
        part[(total == 0) | (void & ~on_object)] = -1
        owner[first[k]:first[k + 1]] = part
    return owner


def decisions_of_scene(model, image, truth):
    """
    The seeds and pairs of an observed scene, and the truth about them.

    Parameters
    ----------
    model : `~astrodino_seg.Model`
        The trained model, ready to run.
    image, truth
        Of `~astrodino_seg.simulate.observe`, or of a
        `~astrodino_seg.train.LabelledImage`.

    Returns
    -------
    seeds, real : `~torch.Tensor`
        (S, n) of `~astrodino_seg.predict.merge.seed_features`, and (S,) 1 for
        a seed on an object.
    pairs, same, primary : `~torch.Tensor`
        (P, m) of `~astrodino_seg.predict.merge.pair_features`; (P,) 1 for two
        seeds of one object; and (P,) bool, whether one of the two is of a
        large galaxy. What is not known is left out.
    """
    levels = look(model, model.planes(image))
    found = candidates(levels)
    seeds = seed_features(levels, found)
    pairs = pair_features(levels, found, seeds)
    owner = seed_truth(levels, truth, image.shape)
    large = np.isin(owner, truth.objects['id'][truth.objects['primary']])
    i, j = found.i, found.j
    known = torch.from_numpy(owner >= 0)
    both = torch.from_numpy((owner[i] > 0) & (owner[j] > 0))
    return (seeds[known], torch.from_numpy(owner > 0)[known].float(),
            pairs[both], torch.from_numpy(owner[i] == owner[j])[both].float(),
            torch.from_numpy(large[i] | large[j])[both])


def fit_decision(model, scenes, *, n_scenes=400, n_epochs=4, rates=None,
                 peak_rate=1.5e-3, weight_decay=0.3, dropout=0.2, seed=0,
                 bfloat16=True, n_workers=0, progress=True):
    """
    Fit a model's decision; nothing else is changed.

    Parameters
    ----------
    model : `~astrodino_seg.Model`
        The trained model, which gets a new decision; its provenance says how
        good it is on every tenth scene, which is held out.
    scenes : sequence of `~astrodino_seg.simulate.Scene` or \
            `~astrodino_seg.train.LabelledImage`
        What to fit it to.
    n_scenes : int, optional
        Scenes to use, at most.
    n_epochs : int, optional
        Passes over all pairs.
    rates : dict of float, optional
        As of `~astrodino_seg.simulate.observe`.
    peak_rate, weight_decay : float, optional
        Of AdamW; the rate falls linearly to zero.
    dropout : float, optional
        Share of the features that is left out, at random; a scene has many
        pairs of few objects, which are soon known by heart.
    seed : int, optional
        Seed of the observations and of the fit.
    bfloat16 : bool, optional
        Whether the network runs in bfloat16.
    n_workers : int, optional
        Processes that look at scenes; none but this one if 0.
    progress : bool, optional
        Whether to show a progress bar.

    Returns
    -------
    model : `~astrodino_seg.Model`
        The model, in evaluation mode.

    Raises
    ------
    ValueError
        If there are fewer than ten scenes, or nothing is found in them.
    """
    n_scenes = min(n_scenes, len(scenes))
    if n_scenes < HELD:
        msg = f'n_scenes must be {HELD} or more, got {n_scenes}'
        raise ValueError(msg)
    runner = deepcopy(model).fused()
    runner.in_bfloat16 = bfloat16
    looks = DataLoader(_Looks(runner, scenes, rates, seed), batch_size=None,
                       sampler=range(n_scenes), num_workers=n_workers,
                       collate_fn=list)
    parts = [tuple(map(torch.from_numpy, part)) for part in tqdm(
        looks, disable=not progress, desc='decision')]
    held = parts[::HELD]
    used = [part for k, part in enumerate(parts) if k % HELD]
    torch.manual_seed(seed)
    decision = Decision(used[0][0].shape[1], used[0][2].shape[1])
    seeds, real = (torch.cat([p[k] for p in used]) for k in (0, 1))
    pairs, same, primary = (torch.cat([p[k] for p in used])
                            for k in (2, 3, 4))
    # a crowded scene has most of the seeds and few of the large galaxies
    by_scene = [torch.cat([torch.full((len(p[k]),), max(len(p[k]), 1)**-0.5)
                           for p in used]) for k in (0, 2)]
    if len(real) == 0 or len(same) == 0:
        msg = f'scenes: {len(real)} seeds and {len(same)} pairs are too few'
        raise ValueError(msg)
    options = {'n_epochs': n_epochs, 'peak_rate': peak_rate,
               'weight_decay': weight_decay, 'dropout': dropout, 'seed': seed}
    _fit(decision.seed, seeds, real, by_scene[0], **options)
    _fit(decision.pair, pairs, same, by_scene[1] * torch.where(
        primary, PRIMARY_WEIGHT, 1.0), **options)
    model.put_decision(decision.eval())
    model.provenance['decision'] = {
        'n_seeds': len(real), 'n_pairs': len(same), 'n_scenes': len(used),
        'seed': seed, **_measure(decision, held)}
    return model.eval()


class _Looks(Dataset):
    """
    What `decisions_of_scene` says of each scene, as arrays: tensors of many
    scenes would be as many open files.
    """

    def __init__(self, model, scenes, rates, seed):
        self.model, self.scenes = model, scenes
        self.rates, self.seed = rates, seed

    def __len__(self):
        return len(self.scenes)

    def __getitem__(self, k):
        image, truth = observed(self.scenes[k], [self.seed, k, 2],
                                rates=self.rates)
        return [part.numpy() for part in decisions_of_scene(
            self.model, image, truth)]


def _fit(net, features, wanted, weight, *, n_epochs, peak_rate,
         weight_decay, dropout, seed):
    """Fit one of the two networks."""
    torch.manual_seed(seed)             # of what is left out
    net.mean.copy_(features.mean(dim=0))
    net.scale.copy_(features.std(dim=0) + 1e-3)
    weight = weight / weight.mean()
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(net.parameters(), lr=peak_rate,
                                  weight_decay=weight_decay)
    n_steps = n_epochs * -(-len(wanted) // 512)
    step = 0
    for _ in range(n_epochs):
        order = torch.randperm(len(wanted), generator=generator)
        for batch in order.split(512):
            for group in optimizer.param_groups:
                group['lr'] = peak_rate * (1 - step / n_steps)
            loss = F.binary_cross_entropy_with_logits(
                net(features[batch], dropout), wanted[batch],
                weight[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1


def _measure(decision, parts):
    """Loss and share of right answers on what was held out."""
    out = {}
    with torch.no_grad():
        for name, net, k in (('seed', decision.seed, 0),
                             ('pair', decision.pair, 2)):
            features, wanted = (torch.cat([p[i] for p in parts])
                                for i in (k, k + 1))
            if len(wanted) == 0:
                continue
            logits = net(features)
            out[f'{name}_loss'] = round(F.binary_cross_entropy_with_logits(
                logits, wanted).item(), 4)
            out[f'{name}_right'] = round(
                ((logits > 0) == (wanted > 0)).float().mean().item(), 4)
    return out
