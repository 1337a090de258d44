# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The decision about seeds, fitted to what the finished network says.
"""

from copy import deepcopy
from dataclasses import dataclass, fields
from functools import partial

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch.nn import functional as F

from astrodino_seg.models.decision import Decision
from astrodino_seg.predict.decode import paint_levels
from astrodino_seg.predict.instances import input_of
from astrodino_seg.predict.merge import (
    candidates,
    pair_features,
    seed_features,
)
from astrodino_seg.predict.pyramid import look
from astrodino_seg.train.crops import FAINTEST
from astrodino_seg.train.data import HELD, enough_scenes, looked_at, observed
from astrodino_seg.truth import CLASSES, ISOPHOTE

#: How much more a pair counts if one of its objects is a large galaxy.
PRIMARY_WEIGHT = 3.0
#: Share of a seed's pixels that must be an object's; and in a binned image,
#: where what small objects leave is drawn poorly.
ON_OBJECT, ON_BINNED = 0.3, 0.5
#: Share of a seed's light in a binned image that one object must have.
OF_ONE = 0.5
#: A seed is of what is known of a point if it is so many pixels from it, or so
#: many of its level's, and its radius differs by no more than this factor e.
ON_POINT, ON_COARSE, ALIKE = 2.5, 0.7, 0.9
GALAXY = CLASSES.index('galaxy')
#: Scenes of a step of the fit, and the steps in which its rate rises.
AT_A_TIME = 8
WARMUP = 50


def seed_truth(levels, truth, shape):
    """
    The object (S,) that each seed is of, by the pixels that it paints: 0 for
    the sky, -1 where it is not known.
    """
    n = [len(level.x) for level in levels]
    owner, first = np.full(sum(n), -1), np.cumsum([0, *n])
    last = max(truth.labels.max(initial=0), truth.owners.max(initial=0)) + 3
    painted = paint_levels(levels, np.ones(sum(n), bool), shape)
    for here in painted:
        k = np.searchsorted(first, here.max(), 'left') - 1
        true = truth.labels
        if levels[k].factor > 1 and len(truth.owners):     # sees fainter
            limit = _isophotes(truth, last, levels[k].factor)
            faint = (true == 0) & (truth.own_sn >= limit[truth.owners[0]])
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
        least = ON_OBJECT if levels[k].factor == 1 else ON_BINNED
        on_object = area[:, 2:].sum(axis=1) >= least * total
        if levels[k].factor > 1:        # what holds several is none of them
            own = area[np.arange(n[k]), best + 1]
            on_object &= own >= OF_ONE * (total - area[:, 0])
        void = area[:, 0] > 0.5 * total
        part = np.where(on_object, best, 0)
        part[(total == 0) | (void & ~on_object)] = -1
        owner[first[k]:first[k + 1]] = part
    return owner


def _isophotes(truth, n, factor):
    """How far each object reaches, S/N, in an image binned by a factor."""
    peak = np.zeros(n)
    np.maximum.at(peak, truth.owners[0].ravel(), truth.own_sn.ravel())
    limit = np.clip(FAINTEST * peak, ISOPHOTE / factor, ISOPHOTE)
    o = truth.objects
    limit[o['id'][o['cls'] != GALAXY]] = ISOPHOTE   # as in training
    return limit


@dataclass(frozen=True, kw_only=True)
class Graph:
    """The seeds and pairs of an observed scene, and the truth about them."""

    #: (S, n) of `~astrodino_seg.predict.merge.seed_features`, and (P, m) of
    #: `~astrodino_seg.predict.merge.pair_features`.
    seeds: torch.Tensor
    pairs: torch.Tensor
    #: (P,) int64, the seeds of each pair.
    i: torch.Tensor
    j: torch.Tensor
    #: (S,) and (P,) float32: 1 for a seed on an object, and for two seeds of
    #: one object.
    real: torch.Tensor
    same: torch.Tensor
    #: (S,) and (P,) float32; 0 where the truth is not known.
    seed_weight: torch.Tensor
    pair_weight: torch.Tensor


@dataclass(frozen=True, kw_only=True)
class Points:
    """What is known of an image at points (N,), as someone has looked."""

    #: Pixels, and the radius of what is there.
    x: np.ndarray
    y: np.ndarray
    radius: np.ndarray
    #: int, the object that each is of, from 1.
    owner: np.ndarray
    #: bool, whether that is a galaxy with points on it.
    large: np.ndarray

    def of_seeds(self, found):
        """
        The object (S,) of each seed, -1 where it is not known, and whether
        that is large: of the nearest point, if that is near enough and, but
        on a large galaxy, of a like size.
        """
        apart, k = cKDTree(np.stack([self.x, self.y], axis=-1)).query(
            np.stack([found.x, found.y], axis=-1))
        like = np.abs(np.log(found.radius / self.radius[k])) < ALIKE
        known = (apart <= np.maximum(ON_POINT, ON_COARSE * found.factor)) & (
            like | self.large[k])
        return np.where(known, self.owner[k], -1), known & self.large[k]


def graph_of_scene(model, image, truth):
    """
    What a model's decision is asked about a scene, a `Graph`, and what is
    right, as a `~astrodino_seg.truth.Truth` or `Points` know it.
    """
    levels = look(model, input_of(model, image)[1])
    found = candidates(levels)
    if isinstance(truth, Points):       # not of what has no object there
        owner, large = truth.of_seeds(found)
        is_known = np.zeros(len(owner))
    else:
        owner = seed_truth(levels, truth, image.shape)
        is_known = owner >= 0
        large = np.isin(owner, truth.objects['id'][truth.objects['primary']])
    i, j = found.i, found.j
    both = (owner[i] > 0) & (owner[j] > 0)
    n_asked = both.sum() if isinstance(truth, Points) else len(i)
    # a crowded scene has most of the seeds and few of the large galaxies
    return Graph(
        seeds=seed_features(levels, found),
        pairs=pair_features(levels, found),
        i=torch.from_numpy(i), j=torch.from_numpy(j),
        real=_floats(owner > 0), same=_floats(owner[i] == owner[j]),
        seed_weight=_floats(is_known * max(len(owner), 1)**-0.5),
        pair_weight=_floats(both * max(n_asked, 1)**-0.5 * np.where(
            large[i] | large[j], PRIMARY_WEIGHT, 1)))


def _floats(values):
    return torch.from_numpy(values.astype(np.float32))


def _together(graphs):
    """Several graphs as one, whose parts do not touch."""
    n = [len(graph.seeds) for graph in graphs]
    first = np.cumsum([0, *n[:-1]]).tolist()
    parts = {field.name: [getattr(graph, field.name) for graph in graphs]
             for field in fields(Graph)}
    for end in 'ij':
        parts[end] = [part + k for part, k in zip(parts[end], first)]
    return Graph(**{key: torch.cat(part) for key, part in parts.items()})


def fit_decision(model, scenes, *, held=None, n_scenes=400, n_epochs=8,
                 rates=None, peak_rate=1.5e-3, weight_decay=0.3, dropout=0.2,
                 share=1.0, seed=0, bfloat16=True, n_workers=0,
                 progress=True):
    """
    Fit a model's decision to scenes, labelled images, or what has an ``image``
    and `Points` as its ``truth``; nothing else is changed.

    It goes on from where it is; a model that has none gets a new one. Of at
    most ``n_scenes`` every tenth is held out, or instead of these ``held``,
    best of other galaxies, as those that the network has seen are known by
    heart. The provenance says how good it is there, by which the best of
    ``n_epochs`` passes is chosen. ``rates`` are those of
    `~astrodino_seg.simulate.observe`; ``peak_rate``, which falls linearly to
    zero, and ``weight_decay`` of AdamW; ``dropout`` is the share of the
    features that is left out, as a scene has many pairs of few objects; the
    weights are ``share`` of those fitted and the rest of those before, which
    keeps what a few images do not show (Wortsman et al. 2022,
    arXiv:2109.01903);
    ``seed`` is of the observations and of the fit.
    """
    n_scenes = enough_scenes(scenes, n_scenes)
    runner = deepcopy(model).fused()
    runner.in_bfloat16 = bfloat16

    def graphs_of(some, which):
        return [Graph(**{key: torch.from_numpy(part)
                         for key, part in one.items()})
                for one in looked_at(
                    partial(_look, runner, some, rates, seed), which,
                    name='decision', n_workers=n_workers, progress=progress)]

    which = range(n_scenes)
    used = graphs_of(scenes, [
        k for k in which if held is not None or k % HELD])
    held = _together(graphs_of(scenes, which[::HELD]) if held is None else
                     graphs_of(held, range(min(len(held), n_scenes // HELD))))
    every = _together(used)
    n_pairs = int((every.pair_weight > 0).sum())
    if len(every.seeds) == 0 or n_pairs == 0:
        msg = (f'scenes: {len(every.seeds)} seeds and {n_pairs} pairs are '
               'too few')
        raise ValueError(msg)
    torch.manual_seed(seed)             # of the weights and what is left out
    decision = _decision_of(model, every)
    start = deepcopy(decision.state_dict())
    n_epochs = _fit(decision, used, held, n_epochs=n_epochs,
                    peak_rate=peak_rate, weight_decay=weight_decay,
                    dropout=dropout, seed=seed)
    for key, value in decision.state_dict().items():
        value.lerp_(start[key], 1 - share)
    before = model.provenance.get('decision', {}).get('n_scenes', 0)
    model.put_decision(decision.eval())
    model.provenance['decision'] = {
        'n_seeds': len(every.seeds), 'n_pairs': n_pairs,
        'n_scenes': len(used), 'n_scenes_before': before,
        'n_epochs': n_epochs, 'seed': seed,
        **_measure(decision, held)}
    return model.eval()


def _look(model, scenes, rates, seed, k):
    """
    `graph_of_scene` of a scene, as arrays: tensors of many scenes would be as
    many open files.
    """
    image, truth = observed(scenes[k], [seed, k, 2], rates=rates)
    graph = graph_of_scene(model, image, truth)
    return {field.name: getattr(graph, field.name).numpy()
            for field in fields(Graph)}


def _decision_of(model, every):
    """A copy of the model's own, or a new one."""
    shape = {'n_seed': every.seeds.shape[1], 'n_pair': every.pairs.shape[1]}
    if model.decision is not None:
        return deepcopy(model.decision)
    decision = Decision(**shape)
    decision.of_seed.fit(every.seeds)
    decision.of_pair.fit(every.pairs)
    return decision


def _fit(decision, graphs, held, *, n_epochs, peak_rate, weight_decay,
         dropout, seed):
    """The weights after the best pass; which that was."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(decision.parameters(), lr=peak_rate,
                                  weight_decay=weight_decay)
    n_steps = n_epochs * -(-len(graphs) // AT_A_TIME)
    step, least, best = 0, np.inf, None
    decision.train()
    for epoch in range(n_epochs):
        order = torch.randperm(len(graphs), generator=generator).tolist()
        for k in range(0, len(graphs), AT_A_TIME):
            some = _together([graphs[g] for g in order[k:k + AT_A_TIME]])
            for group in optimizer.param_groups:
                group['lr'] = peak_rate * min(1 - step / n_steps,
                                              (step + 1) / WARMUP)
            loss = sum(_losses(decision, some, dropout))
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(decision.parameters(), 1.0)
            optimizer.step()
            step += 1
        with torch.no_grad():
            loss = float(sum(_losses(decision, held)))
        if not loss >= least:           # nothing may be known of them
            least, best = loss, (epoch + 1, deepcopy(decision.state_dict()))
    decision.load_state_dict(best[1])
    return best[0]


def _losses(decision, graph, dropout=0.0):
    """Cross-entropy of the seeds and of the pairs."""
    answers = decision(graph.seeds, graph.pairs, graph.i, graph.j, dropout)
    for logits, wanted, weight in zip(
            answers, (graph.real, graph.same),
            (graph.seed_weight, graph.pair_weight)):
        each = F.binary_cross_entropy_with_logits(logits, wanted,
                                                  reduction='none')
        yield (each * weight).sum() / weight.sum().clamp(min=1e-6)


def _measure(decision, graph):
    """Loss and share of right answers on what was held out."""
    out = {}
    with torch.no_grad():
        answers = decision(graph.seeds, graph.pairs, graph.i, graph.j)
    for name, logits, wanted, weight in zip(
            ('seed', 'pair'), answers, (graph.real, graph.same),
            (graph.seed_weight, graph.pair_weight)):
        known = weight > 0
        if not known.any():
            continue
        logits, wanted = logits[known], wanted[known]
        out[f'{name}_loss'] = round(F.binary_cross_entropy_with_logits(
            logits, wanted).item(), 4)
        out[f'{name}_right'] = round(
            ((logits > 0) == (wanted > 0)).float().mean().item(), 4)
    return out
