# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Which seeds are nothing and which are one object.

What is known of seeds and of pairs of them, of any two levels, goes to the
model's `~astrodino_seg.models.decision.Decision`; average linkage does the
rest. The image itself tells too: how deep the valley between two seeds is, of
objects that touch; how the colours and the concentration of each differ from
its surroundings and from the other's, a star from a knot. Shapes in comments:
``S`` seeds of all levels, ``P`` pairs.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components, shortest_path
from scipy.spatial import cKDTree
from torch.nn import functional as F

#: How far from a seed others are compared with it, in radii of its object, and
#: the pixels, of its own level, within which any two are.
REACH = 3
NEAR = 12
#: Where the seeds of an image have more others within reach than this, on
#: average, each is compared with so many, the nearest.
CROWDED = 40
#: Pairs are compared if one claims the place of the other by this, in units of
#: a log-odds to the rest.
CLAIM = -4.0
#: Where, in radii, it is asked how much of a seed another claims.
HALF_WAY = 0.6
#: Pairs below this probability do not connect.
UNLIKE = 0.02
#: Seeds that are connected, at most, for one linkage.
LARGEST = 3000
#: Sides in pixels of the means that a seed's looks are made of.
SCALES = (3, 5, 9, 17)
#: Samples of the line between two seeds.
N_SAMPLES = 17
#: Seeds whose surroundings are in memory at a time.
CHUNK = 20_000


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """
    The seeds of all levels, and the pairs of them that may be one object.
    """

    #: (S,) int, the index of the level of each, and its index in it.
    level: np.ndarray
    index: np.ndarray
    #: (S,) of that level.
    factor: np.ndarray
    #: (S,) in pixels of the image.
    x: np.ndarray
    y: np.ndarray
    radius: np.ndarray
    #: (P,) int, the seeds of each pair; the first is the larger.
    i: np.ndarray
    j: np.ndarray
    #: (P, 2) score of i less that of the rest at j's position, and of j at
    #: i's.
    claims: np.ndarray
    #: (S,) the claim of each seed on its own position.
    own: np.ndarray


def candidates(levels):
    """`Candidates` of the seeds of all levels, the finest first."""
    n = [len(one.x) for one in levels]
    level = np.repeat(np.arange(len(levels)), n)
    index = np.concatenate([np.arange(k) for k in n]).astype(int)
    factor = np.array([one.factor for one in levels], float)[level]
    x, y = (factor * (gather(levels, key) + 0.5) - 0.5 for key in 'xy')
    radius = factor * gather(levels, 'radius')
    i, j = _near(x, y, np.maximum(REACH * radius, NEAR * factor))
    swap = radius[i] < radius[j]
    i, j = np.where(swap, j, i), np.where(swap, i, j)
    claims = np.stack([_claims(levels, level, index, a, x[b], y[b])
                       for a, b in ((i, j), (j, i))], axis=-1)
    apart = np.hypot(x[i] - x[j], y[i] - y[j])
    asked = (claims.max(axis=1, initial=-np.inf) > CLAIM) | (
        apart < NEAR * np.minimum(factor[i], factor[j]))
    every = np.arange(len(x))
    return Candidates(level=level, index=index, factor=factor, x=x, y=y,
                      radius=radius, i=i[asked], j=j[asked],
                      claims=claims[asked],
                      own=_claims(levels, level, index, every, x, y))


def _near(x, y, reach):
    """Pairs i < j of which one lies within reach of the other."""
    points = np.stack([x, y], axis=-1)
    if len(points) < 2:
        return np.zeros((2, 0), int)
    tree = cKDTree(points)
    n = tree.query_ball_point(points, reach, return_length=True) - 1
    reach = reach.copy()
    if n.mean() > CROWDED:
        full = n > CROWDED
        farthest, _ = tree.query(points[full], [CROWDED + 1])
        reach[full] = farthest[:, 0] * (1 + 1e-9)
    lists = tree.query_ball_point(points, reach)
    first = np.repeat(np.arange(len(points)), [len(p) for p in lists])
    second = np.concatenate([np.asarray(p, int) for p in lists])
    low, high = np.minimum(first, second), np.maximum(first, second)
    pairs = np.unique((low * len(points) + high)[low < high])
    return np.divmod(pairs, len(points))


def _claims(levels, level, index, a, x, y):
    """Claim of seeds ``a`` on positions of the image, each on one."""
    out = np.empty(len(a), np.float32)
    for k, one in enumerate(levels):
        here = np.flatnonzero(level[a] == k)
        s = index[a[here]]
        ny, nx = one.sky.shape
        px, py = (((p[here] + 0.5) / one.factor - 0.5).round().astype(int)
                  .clip(0, n - 1) for p, n in ((x, nx), (y, ny)))
        kernel, vote = one.kernel[s], one.vote[py, px]
        match = (kernel[:, :-1] * one.embedding[py, px]).sum(axis=1)
        dx = px + vote[:, 0] - one.centre[s, 0]
        dy = py + vote[:, 1] - one.centre[s, 1]
        q = distance(one.matrix[s], dx, dy)
        u, v = one.falloff[s].T
        out[here] = (match + kernel[:, -1] - u * np.sqrt(q + 1e-4)
                     - v * np.log1p(q) - one.sky[py, px])
    return out


def distance(matrix, dx, dy):
    """Elliptical distance squared of offsets, of matrices (..., 3)."""
    xx, xy, yy = matrix.T
    return np.clip(xx * dx**2 + 2 * xy * dx * dy + yy * dy**2, 0, 1e4)


def gather(levels, key):
    """One of the seeds' arrays, (S, ...) of all levels."""
    return np.concatenate([getattr(one, key) for one in levels])


def seed_features(levels, found):
    """What is known of each seed, (S, n) float32."""
    heat = gather(levels, 'heat').clip(1e-4, 1 - 1e-4)
    classes = np.log(gather(levels, 'classes').clip(1e-4))
    looks = np.concatenate([seed_looks(
        torch.from_numpy(one.channels), torch.from_numpy(one.x),
        torch.from_numpy(one.y)).numpy() for one in levels])
    # the strongest claim of another on its place
    rival = np.full(len(heat), -10.0, np.float32)
    np.maximum.at(rival, found.j, found.claims[:, 0])
    np.maximum.at(rival, found.i, found.claims[:, 1])
    parts = [np.log2(found.factor), np.log(found.radius),
             np.log(found.radius / found.factor), np.log(heat / (1 - heat)),
             found.own, rival, found.own - rival]
    return torch.from_numpy(np.concatenate(
        [np.stack(parts, axis=-1), classes, looks,
         gather(levels, 'descriptor')], axis=1).astype(
        np.float32)).clamp(-20, 20)


def _contained(levels, found, a, b):
    """Share of b, at four places half way to its border, that a claims."""
    share = 0
    for dx, dy in ((1, 0), (0, 1), (-1, 0), (0, -1)):
        step = HALF_WAY * found.radius[b]
        claims = _claims(levels, found.level, found.index, a,
                         found.x[b] + dx * step, found.y[b] + dy * step)
        share = share + 0.25 / (1 + np.exp(-claims.clip(-20, 20)))
    return share


def pair_features(levels, found):
    """What is known of each pair beyond its two seeds, (P, m) float32."""
    i, j = found.i, found.j
    d = gather(levels, 'descriptor')
    apart = np.hypot(found.x[i] - found.x[j], found.y[i] - found.y[j])
    parts = [np.log1p(apart), apart / found.radius[i],
             apart / found.radius[j], np.log(found.radius[i]
                                             / found.radius[j]),
             found.level[i] - found.level[j]]
    # elliptical distance of j from i, and of i from j
    factor = found.factor[:, None]
    centre = factor * (gather(levels, 'centre') + 0.5) - 0.5
    matrix = gather(levels, 'matrix') / factor**2
    parts += [np.log1p(distance(matrix[a], found.x[b] - centre[a, 0],
                                found.y[b] - centre[a, 1]))
              for a, b in ((i, j), (j, i))]
    parts += [_contained(levels, found, i, j), _contained(levels, found, j, i)]
    parts = np.concatenate([np.stack(parts, axis=-1), found.claims,
                            np.abs(d[i] - d[j]), d[i] * d[j],
                            _valleys(levels, found)], axis=1)
    return torch.from_numpy(parts.astype(np.float32)).clamp(-20, 20)


def _valleys(levels, found):
    """The light between the two, at the finer of their levels."""
    out = np.zeros((len(found.i), 3), np.float32)
    finer = np.minimum(found.level[found.i], found.level[found.j])
    for k, one in enumerate(levels):
        here = np.flatnonzero(finer == k)
        if len(here):
            x, y = (torch.from_numpy(((p + 0.5) / one.factor - 0.5).astype(
                np.float32)) for p in (found.x, found.y))
            out[here] = valleys(torch.from_numpy(one.channels), x, y,
                                torch.from_numpy(found.i[here]),
                                torch.from_numpy(found.j[here])).numpy()
    return out


def seed_looks(channels, x, y):
    """
    Means (S, 4 (C - 1)) about each seed, on several scales, of the channels
    (C, H, W) of S/N.
    """
    reach = max(SCALES) // 2
    step = torch.arange(-reach, reach + 1)
    ny, nx = channels.shape[1:]
    out = []
    for xs, ys in zip(x.round().long().split(CHUNK),
                      y.round().long().split(CHUNK)):
        rows = (ys[:, None] + step).clamp(0, ny - 1)
        columns = (xs[:, None] + step).clamp(0, nx - 1)
        patch = channels[:-1, rows[:, :, None], columns[:, None]]
        means = []
        for side in SCALES:
            cut = slice(reach - side // 2, reach + side // 2 + 1)
            means.append(patch[..., cut, cut].mean(dim=(-2, -1)))  # (C-1, S)
        means = [means[0], *(b - a for a, b in zip(means, means[1:]))]
        out.append(torch.cat(means).T)
    return torch.cat(out)


def valleys(channels, x, y, i, j):
    """
    The light (P, 3) of channels (C, H, W) along the straight lines between
    seeds.
    """
    smooth = F.avg_pool2d(channels[None, :1], 3, 1, 1,
                          count_include_pad=False)[0]
    t = torch.linspace(0, 1, N_SAMPLES)[:, None]
    ny, nx = smooth.shape[1:]
    grid = torch.stack([(2 * (p[i] * (1 - t) + p[j] * t) + 1) / n - 1
                        for p, n in ((x, nx), (y, ny))], dim=-1)
    line = F.grid_sample(smooth[None], grid[None], padding_mode='border',
                         align_corners=False)[0, 0]             # (17, P)
    low, high = torch.minimum(line[0], line[-1]), torch.maximum(
        line[0], line[-1])
    return torch.stack([line.amin(dim=0) - low, line.mean(dim=0) - low,
                        high - low], dim=-1)


def group(n, i, j, same, merge):
    """
    Join n seeds by average linkage.

    Two groups are joined as long as the mean probability over all pairs of one
    from each exceeds ``1 - merge``: 0 joins nothing, and a larger one only
    ever joins more. The probability of a pair which was not compared is the
    product along the best chain of pairs that were: two knots, each of one
    galaxy.

    ``i, j, same`` (P,), the pairs that were compared -> ``label`` (n,) int
    from 0, the group of each seed; ``right`` (n_groups,) probability that the
    group's weakest decision is right: the last join that was made, or the next
    that was refused.
    """
    if merge <= 0 or len(i) == 0:
        nearest = np.zeros(n)
        for side in (i, j):
            np.maximum.at(nearest, side, same)
        return np.arange(n), 1 - nearest
    last = 0
    label = np.empty(n, int)
    rights = []
    for members, pairs in _components(n, i, j, same):
        part, one = _link(members, i[pairs], j[pairs], same[pairs], merge)
        label[members] = last + part
        last += len(one)
        rights.append(one)
    return label, np.concatenate(rights)


def _components(n, i, j, same, limit=UNLIKE):
    """Yield the seeds and the pairs of each connected part."""
    some = same >= limit
    graph = coo_array((np.ones(some.sum()), (i[some], j[some])), shape=(n, n))
    _, part = connected_components(graph, directed=False)
    order = np.argsort(part, kind='stable')
    ends = np.cumsum(np.bincount(part))
    inside = part[i] == part[j]
    of_pair = np.flatnonzero(inside)[np.argsort(part[i[inside]],
                                                kind='stable')]
    starts = np.searchsorted(part[i[of_pair]], np.arange(len(ends) + 1))
    for k, members in enumerate(np.split(order, ends[:-1])):
        pairs = of_pair[starts[k]:starts[k + 1]]
        if len(members) <= LARGEST or limit > 0.5:
            yield members, pairs
            continue
        row = np.searchsorted(members, np.stack([i[pairs], j[pairs]]))
        for few, which in _components(len(members), *row, same[pairs],
                                      max(2 * limit, 0.1)):
            yield members[few], pairs[which]


def _link(members, i, j, same, merge):
    """Labels from 0 of one connected part, and how right each group is."""
    m = len(members)
    if m == 1:
        return np.zeros(1, int), np.ones(1)
    if m == 2:      # most of them, and sooner done than put in a tree
        apart = 1 - same
        return ((np.zeros(2, int), 1 - apart) if apart[0] < merge
                else (np.arange(2), np.repeat(apart, 2)))
    # scipy 1.13 takes no other integers
    a, b = np.searchsorted(members, [i, j]).astype(np.int32)
    steps = coo_array((-np.log(same.clip(1e-9, 1 - 1e-9)), (a, b)),
                      shape=(m, m)).tocsr()
    distance = 1 - np.exp(-shortest_path(steps, 'D', directed=False))
    distance[a, b] = distance[b, a] = 1 - same
    tree = linkage(distance[np.triu_indices(m, 1)], 'average')
    # strictly less: a merge of 1 joins what was compared, not the rest
    label = fcluster(tree, np.nextafter(merge, 0), 'distance') - 1
    right = np.ones(label.max() + 1)
    node = np.append(label, np.full(len(tree), -1))
    for k, (left, other, height, _) in enumerate(tree, start=m):
        one, two = node[int(left)], node[int(other)]
        if one >= 0 and one == two:
            node[k] = one
            right[one] = min(right[one], 1 - height)
        else:
            for which in (one, two):
                if which >= 0:
                    right[which] = min(right[which], height)
    return label, right
