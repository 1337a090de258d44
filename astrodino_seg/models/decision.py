# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What is fitted to a finished network, and is a part of the model.

`Decision`: which seeds are nothing, which are one object. `Totals`: how much
of an object's light its label leaves out. `Calibration`: maps that make
probabilities come true, for a network may be too sure of itself, or not sure
enough: a temperature for the classes (`Guo et al. 2017
<https://arxiv.org/abs/1706.04599>`_) and a straight line for the log-odds of
yes and no (Platt 1999), fitted by ``benchmarks/calibration/calibration.py``.
"""

from dataclasses import dataclass, fields
from numbers import Real

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

#: Pairs at a time, so that memory is bounded.
CHUNK = 200_000
#: Largest of the standardised features.
LIMIT = 8.0
#: Of the natural logarithm of a total's factor, and of its error.
LARGEST, LEAST_ERROR = 2.5, 1e-3
#: A grouping decision counts as at most so certain, or so uncertain by one
#: less this: where nothing was compared it has probability one.
DECISION_LIMIT = 0.99


class Decision(nn.Module):
    """
    Seeds and pairs of them, as the nodes and edges of one graph.

    Each layer gathers at every seed what its pairs say, by attention over them
    (as Velickovic et al. 2018, arXiv:1710.10903), and then tells each pair
    what its two seeds have heard (as in Battaglia et al. 2018,
    arXiv:1806.01261): whether a point of light is a knot depends on the others
    about it.

    ``n_seed`` and ``n_pair`` are how many features a seed and a pair have;
    ``star_odds`` is the logarithm of how many times more of the points on
    galaxies are stars than in what it was fitted to
    (`~astrodino_seg.predict.decode.as_frequent`).
    """

    def __init__(self, n_seed, n_pair, *, width=64, n_layers=2, n_heads=4,
                 star_odds=0.0):
        super().__init__()
        if not _is_number(star_odds):
            msg = (f'star_odds of a decision must be a finite number, got '
                   f'{star_odds!r}')
            raise ValueError(msg)
        self.star_odds = star_odds
        self.spec = {'n_seed': n_seed, 'n_pair': n_pair, 'width': width,
                     'n_layers': n_layers, 'n_heads': n_heads,
                     'star_odds': star_odds}
        self.of_seed = Standard(n_seed)
        self.of_pair = Standard(n_pair)
        self.seed_in = _mlp(n_seed, width)
        self.pair_in = _mlp(2 * width + n_pair, width)
        self.layers = nn.ModuleList(_Layer(width, n_heads)
                                    for _ in range(n_layers))
        self.seed_out = nn.Linear(width, 1)
        self.pair_out = nn.Linear(width, 1)

    def forward(self, seeds, pairs, i, j, dropout=0.0):
        """
        Logits (S,) that a seed is of an object and (P,) that two seeds are of
        one.

        Of an image, or of several whose seeds are counted on: features seeds
        (S, n_seed) and pairs (P, n_pair), a share ``dropout`` of which is left
        out; i, j (P,) int64, the seeds of each pair.
        """
        nodes = self.seed_in(F.dropout(self.of_seed(seeds), dropout))
        ends = list(zip(i.split(CHUNK), j.split(CHUNK)))
        edges = [self.pair_in(torch.cat([
            nodes[a], nodes[b], F.dropout(self.of_pair(part), dropout)],
            dim=1)) for part, (a, b) in zip(pairs.split(CHUNK), ends)]
        for layer in self.layers:
            nodes = layer.listen(nodes, edges, ends)
            for k, (a, b) in enumerate(ends):
                edges[k] = layer.tell(edges[k], nodes[a], nodes[b])
        same = [self.pair_out(part)[:, 0] for part in edges]
        return self.seed_out(nodes)[:, 0], torch.cat(same)


def _mlp(n_in, width):
    return nn.Sequential(nn.Linear(n_in, width), nn.GELU(),
                         nn.Linear(width, width))


class Standard(nn.Module):
    """Features less their mean, in units of their scatter."""

    def __init__(self, n):
        super().__init__()
        self.register_buffer('mean', torch.zeros(n))
        self.register_buffer('scale', torch.ones(n))

    def fit(self, features):
        self.mean.copy_(features.mean(dim=0))
        self.scale.copy_(features.std(dim=0) + 1e-3)

    def forward(self, features):
        return ((features - self.mean) / self.scale).clamp(-LIMIT, LIMIT)


class _Layer(nn.Module):
    """One exchange between seeds and pairs."""

    def __init__(self, width, n_heads):
        super().__init__()
        self.n_heads = n_heads
        # a pair looks different from its larger and its smaller end
        self.weight = nn.ModuleList(nn.Linear(width, n_heads)
                                    for _ in range(2))
        self.value = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.node = nn.Sequential(nn.LayerNorm(2 * width),
                                  _mlp(2 * width, width))
        self.edge = nn.Sequential(nn.LayerNorm(3 * width),
                                  _mlp(3 * width, width))

    def listen(self, nodes, edges, ends):
        """Seeds, with the mean of what their pairs say, by weight."""
        n, heads = len(nodes), self.n_heads
        total = nodes.new_full((n, heads, 1), 1e-6)
        said = nodes.new_zeros(n, heads, nodes.shape[1] // heads)
        for part, both in zip(edges, ends):
            for side, at in enumerate(both):
                weight = self.weight[side](part).clamp(-10, 10).exp()
                value = self.value[side](part).unflatten(1, (heads, -1))
                total = total.index_add(0, at, weight[..., None])
                said = said.index_add(0, at, weight[..., None] * value)
        heard = (said / total).flatten(1)
        return nodes + self.node(torch.cat([nodes, heard], dim=1))

    def tell(self, part, first, second):
        """Pairs, with what their seeds have heard."""
        return part + self.edge(torch.cat([part, first, second], dim=1))


class Totals(nn.Module):
    """
    The total flux of a label by the light about it, of which so many features
    are known.
    """

    def __init__(self, n_features, *, width=64):
        super().__init__()
        self.spec = {'n_features': n_features, 'width': width}
        self.standard = Standard(n_features)
        self.net = nn.Sequential(
            nn.Linear(n_features, width), nn.GELU(), nn.Linear(width, width),
            nn.GELU(), nn.Linear(width, 2))

    def forward(self, features, dropout=0.0):
        """
        The natural logarithm (n,) of total over label flux, and of its error,
        of features (n, n_features).
        """
        known = nn.functional.dropout(self.standard(features), dropout)
        value, error = self.net(known).unbind(dim=1)
        return (value.clamp(-LARGEST, LARGEST),
                error.clamp(np.log(LEAST_ERROR), LARGEST))

    def factors(self, features):
        """
        Total over label flux, (n,) float64, and its relative error, of
        features (n, n_features) of `~astrodino_seg.catalog.features`, an
        array.
        """
        with torch.inference_mode():
            value, error = self(torch.from_numpy(features))
        return tuple(part.double().exp().numpy() for part in (value, error))


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What is done to the probabilities of a model."""

    #: The log probabilities of the classes of an object are divided by this.
    class_temperature: float = 1.0
    #: Weights of the log-odds of an object's weakest grouping decision and of
    #: its leading seed, and a bias: their sum is the log-odds that the label
    #: is one object, neither cut nor merged. `None` leaves the probability of
    #: the weakest decision as it is.
    confidence: tuple | None = None
    #: What images are like that the model copes with: of each of ``signs``
    #: (`astrodino_seg.predict.domain.SIGNS`) what is usual, its scatter, and
    #: the weights of being below and above it; and the ``limit`` of the sum.
    #: `None` if that is not known.
    domain: dict | None = None
    #: How they were fitted, to be read by people.
    fit: dict | None = None

    def __post_init__(self):
        if not _is_number(self.class_temperature) or (
                self.class_temperature <= 0):
            _refuse('class_temperature', 'a positive number',
                    self.class_temperature)
        values = self.confidence
        if values is not None and not (
                isinstance(values, list | tuple) and len(values) == 3
                and all(map(_is_number, values))):
            _refuse('confidence', 'three finite numbers or None', values)
        if self.domain is not None and not _is_domain(self.domain):
            _refuse('domain', 'a limit and, by their names, signs of four '
                    'finite numbers, or None', self.domain)

    def class_probabilities(self, probabilities):
        """
        Calibrated probabilities of classes (..., n), which add up to 1; the
        array itself where the temperature is 1.
        """
        if self.class_temperature == 1:
            return probabilities
        logits = np.log(np.clip(probabilities, 1e-30, 1, dtype=float))
        logits -= logits.max(axis=-1, keepdims=True)
        out = np.exp(logits / self.class_temperature)
        out /= out.sum(axis=-1, keepdims=True)
        return out.astype(probabilities.dtype)

    def confidences(self, decision, heat):
        """
        The probability (n,) that labels are one object each, from those that
        the weakest decision about each is right and of its leading seed.
        """
        if self.confidence is None:
            return decision
        *weights, bias = self.confidence
        total = features_of(decision, heat) @ np.array(weights, float) + bias
        return 1 / (1 + np.exp(-np.clip(total, -50, 50)))


def log_odds(probability, limit=1 - 1e-7):
    """Log-odds of probabilities, of at most ``limit``, of at least 1 less."""
    p = np.clip(np.asarray(probability, float), 1 - limit, limit)
    return np.log(p) - np.log1p(-p)


def features_of(decision, heat):
    """(n, 2) log-odds that `Calibration.confidences` is made of."""
    return np.stack([log_odds(decision, DECISION_LIMIT), log_odds(heat)],
                    axis=-1)


def read_calibration(values):
    """
    The `Calibration` of a dict; one that changes nothing, to the last bit, of
    `None`. Raises `ValueError` at keys and values that are not known.
    """
    if values is None:
        return Calibration()
    if isinstance(values, dict):            # of files of before
        values = {k: v for k, v in values.items() if k != 'share_power'}
    names = [field.name for field in fields(Calibration)]
    if not isinstance(values, dict) or not set(values) <= set(names):
        msg = (f'calibration of a model must be a dict with keys of {names}, '
               f'got {values!r}')
        raise ValueError(msg)
    return Calibration(**values)


def _is_domain(values):
    return (isinstance(values, dict) and set(values) == {'limit', 'signs'}
            and isinstance(values['signs'], dict) and all(
                isinstance(one, list | tuple) and len(one) == 4
                and all(map(_is_number, one))
                for one in values['signs'].values())
            and _is_number(values['limit']))


def _is_number(value):
    return (isinstance(value, Real) and not isinstance(value, bool)
            and bool(np.isfinite(value)))


def _refuse(name, wanted, value):
    msg = f'{name} of a calibration must be {wanted}, got {value!r}'
    raise ValueError(msg)
