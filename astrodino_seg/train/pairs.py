# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The pair score, fitted to the pairs that a trained network asks about.
"""

import numpy as np
import torch
from torch.nn import functional as F
from tqdm import tqdm

from astrodino_seg.inference import predict_maps
from astrodino_seg.prediction import describe_pairs, seeds_of
from astrodino_seg.train.targets import observed

__all__ = ['fit_pairs', 'pairs_of_scene']

#: How much more a pair counts if one of its objects is a large galaxy.
PRIMARY_WEIGHT = 3.0
#: Every tenth scene is held out, so that there must be ten.
MIN_SCENES = 10


def pairs_of_scene(model, image, truth, min_heat):
    """
    The pairs of an observed scene, and the truth about them.

    Parameters
    ----------
    model : `~astrodino_seg.model.Model`
        The trained model, in evaluation mode.
    image, truth
        Of `~astrodino_seg.simulate.observe`.
    min_heat : float
        Least probability of the seeds.

    Returns
    -------
    features : `~torch.Tensor`
        (P, n) of `~astrodino_seg.pairs.pair_features`.
    same : `~torch.Tensor`
        (P,) float, 1 for two seeds on one object. Pairs with a seed on sky
        or void are left out.
    primary : `~torch.Tensor`
        (P,) bool, whether one of the objects is a large galaxy.
    """
    channels = model.planes(image)
    with torch.no_grad():
        maps = predict_maps(model, channels)
        x, y, heat = seeds_of(maps, min_heat)
        seeds = model.head.read_seeds(maps.pyramid, x, y)
        i, j, features = describe_pairs(model.head, seeds, maps, channels, x,
                                        y, heat)
    owner = truth.labels[y.long(), x.long()]
    large = np.isin(owner, truth.objects['id'][truth.objects['primary']])
    i, j = i.numpy(), j.numpy()
    known = (owner[i] > 0) & (owner[j] > 0)
    return (features[torch.from_numpy(known)],
            torch.from_numpy((owner[i] == owner[j])[known]).float(),
            torch.from_numpy((large[i] | large[j])[known]))


def fit_pairs(model, scenes, *, n_scenes=400, min_heat=0.1, n_epochs=12,
              peak_rate=2e-3, weight_decay=0.05, seed=0, progress=True):
    """
    Fit a model's `~astrodino_seg.pairs.PairScore`; nothing else is changed.

    Every tenth scene is held out to measure it.

    Parameters
    ----------
    model : `~astrodino_seg.model.Model`
        The trained model; its score is fitted in place, and its provenance
        says how well.
    scenes : sequence of `~astrodino_seg.simulate.Scene` or \
            `~astrodino_seg.train.LabelledImage`
        What to fit it to.
    n_scenes : int, optional
        Scenes to use, at most.
    min_heat : float, optional
        Least probability of the seeds.
    n_epochs : int, optional
        Passes over all pairs.
    peak_rate, weight_decay : float, optional
        Of AdamW; the rate falls linearly to zero.
    seed : int, optional
        Seed of the noise of the scenes and of the fit.
    progress : bool, optional
        Whether to show a progress bar.

    Returns
    -------
    model : `~astrodino_seg.model.Model`
        The model, in evaluation mode.

    Raises
    ------
    ValueError
        If fewer than ten scenes have pairs.
    """
    model.eval()
    parts = []
    n_scenes = min(n_scenes, len(scenes))
    for k in tqdm(range(n_scenes), disable=not progress, desc='pairs'):
        image, truth = observed(scenes[k], [seed, k, 2])
        part = pairs_of_scene(model, image, truth, min_heat)
        if len(part[0]):
            parts.append(part)
    if len(parts) < MIN_SCENES:
        msg = f'n_scenes must give ten scenes with pairs, got {len(parts)}'
        raise ValueError(msg)
    held = parts[::10]
    used = [part for k, part in enumerate(parts) if k % 10]
    features, same, primary = map(torch.cat, zip(*used))
    # a crowded scene has most of the pairs and few of the large galaxies
    weight = torch.cat([torch.full((len(part[1]),), len(part[1]) ** -0.5)
                        for part in used])
    weight = weight * torch.where(primary, PRIMARY_WEIGHT, 1.0)
    weight = weight / weight.mean()
    # what was fitted to the old score is not true of the new
    model.provenance.pop('calibration', None)
    score = model.pairs
    score.mean.copy_(features.mean(dim=0))
    score.scale.copy_(features.std(dim=0) + 1e-3)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(score.parameters(), lr=peak_rate,
                                  weight_decay=weight_decay)
    for epoch in range(n_epochs):
        for group in optimizer.param_groups:
            group['lr'] = peak_rate * (1 - epoch / n_epochs)
        order = torch.randperm(len(same), generator=generator)
        for batch in order.split(512):
            loss = F.binary_cross_entropy_with_logits(
                score(features[batch]), same[batch], weight[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    model.provenance['pairs'] = {
        'n_pairs': len(same), 'n_scenes': len(parts), 'seed': seed,
        **_measure(score, held)}
    return model


def _measure(score, parts):
    """Loss and share of right answers on held-out pairs; of large galaxies."""
    features, same, primary = map(torch.cat, zip(*parts))
    with torch.no_grad():
        logits = score(features)
    out = {}
    for name, which in (('', slice(None)), ('_primary', primary)):
        if len(same[which]) == 0:
            continue                        # no NaN in the provenance
        loss = F.binary_cross_entropy_with_logits(logits[which], same[which])
        right = ((logits[which] > 0) == (same[which] > 0)).float().mean()
        out |= {f'loss{name}': round(loss.item(), 4),
                f'right{name}': round(right.item(), 4)}
    return out
