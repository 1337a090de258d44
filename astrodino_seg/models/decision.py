# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The one learned decision: which seeds are nothing, which are one object.
"""

import torch
from torch import nn
from torch.nn import functional as F

__all__ = ['Decision', 'Standard']

#: Pairs at a time, so that memory is bounded.
CHUNK = 200_000
#: Largest of the standardised features.
LIMIT = 8.0


class Decision(nn.Module):
    """
    Seeds and pairs of them, as the nodes and edges of one graph.

    Each layer gathers at every seed what its pairs say, by attention over
    them (as Velickovic et al. 2018, arXiv:1710.10903), and then tells each
    pair what its two seeds have heard (as in Battaglia et al. 2018,
    arXiv:1806.01261): whether a point of light is a knot depends on the
    others about it.

    Parameters
    ----------
    n_seed : int
        Features of a seed.
    n_pair : int
        Features of a pair of seeds.
    width : int, optional
        Of the layers.
    n_layers : int, optional
        How often seeds and pairs tell each other.
    n_heads : int, optional
        Attentions of a layer.
    """

    def __init__(self, n_seed, n_pair, *, width=64, n_layers=2, n_heads=4):
        super().__init__()
        self.spec = {'n_seed': n_seed, 'n_pair': n_pair, 'width': width,
                     'n_layers': n_layers, 'n_heads': n_heads}
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
        Decide of an image, or of several whose seeds are counted on.

        Parameters
        ----------
        seeds : `~torch.Tensor`
            (S, n_seed) features.
        pairs : `~torch.Tensor`
            (P, n_pair) features.
        i, j : `~torch.Tensor`
            (P,) int64, the seeds of each pair.
        dropout : float, optional
            Share of the features that is left out.

        Returns
        -------
        real : `~torch.Tensor`
            (S,) logits that a seed is of an object.
        same : `~torch.Tensor`
            (P,) logits that two seeds are of one object.
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
