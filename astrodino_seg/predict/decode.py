# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
From what the network says of all levels to objects.

`decode` weighs the seeds, paints the pixels of each at its own level, and
numbers the objects and their pieces.
"""

from dataclasses import dataclass

import numpy as np
import torch
from photutils.segmentation import SegmentationImage
from torch.nn import functional as F

from astrodino_seg.predict.merge import (
    candidates,
    distance,
    gather,
    group,
    pair_features,
    seed_features,
)
from astrodino_seg.truth import CLASSES

#: The merge/split dial, and the least probability that a seed is of an object;
#: what they do is in docs/evidence/calibration.rst.
MERGE = 0.22
MIN_SEED = 0.7
#: By how many times a galaxy is larger than a point on it.
LARGER = 6
STAR = CLASSES.index('star') - 1          # of the classes but the sky
#: Share of an object's pixels of a level that makes it whole.
COVERED = 0.6


def reaches(level):
    """
    How far (S, 2), in y and in x, the ellipse of each seed is looked at from
    its centre (S, 2), and its place (S, 2).
    """
    # d^T M d <= q_max bounds x by sqrt(q_max * (M^-1)_xx)
    xx, xy, yy = level.matrix.astype(float).T
    det = np.maximum(xx * yy - xy**2, 1e-12)
    reach = 2.5 * np.sqrt(np.stack([xx, yy], axis=1) / det[:, None]) + 4
    return (reach, level.centre[:, ::-1].astype(float),
            np.stack([level.y, level.x], axis=1))


def reach_of(level, k, best, reach, centre, place):
    """
    The box (y, x) that holds all pixels where a seed has more than the best of
    (y, x) scores, its score in it, and where these are.

    It is that of `reaches`, and a side is moved out until it has none.
    """
    (ny, nx), factor = level.sky.shape, np.ones((2, 2))
    least, most = place - 4, place + 5
    while True:
        low = np.minimum(centre - factor[:, 0] * reach, least)
        high = np.maximum(centre + factor[:, 1] * reach, most)
        window = ys, xs = tuple(
            slice(int(max(a, 0)), int(min(b, n)))
            for a, b, n in zip(low.tolist(), high.tolist(), (ny, nx)))
        score = seed_score(level, k, window)
        won = score > best[window]
        cut_off = np.array([
            [ys.start > 0 and won[0].any(), ys.stop < ny and won[-1].any()],
            [xs.start > 0 and won[:, 0].any(),
             xs.stop < nx and won[:, -1].any()]])
        if not cut_off.any():
            return window, score, won
        factor[cut_off] *= 2


def seed_score(level, k, window):
    """Score (y, x) of a seed in a window; see `astrodino_seg.models.head`."""
    ys, xs = window
    kernel = level.kernel[k]
    match = level.embedding[ys, xs] @ kernel[:-1] + kernel[-1]
    x0, y0 = level.centre[k]
    vote = level.vote[ys, xs]
    dx = vote[..., 0] + (np.arange(xs.start, xs.stop, dtype=np.float32) - x0)
    dy = vote[..., 1] + (np.arange(ys.start, ys.stop, dtype=np.float32)
                         - y0)[:, None]
    q = distance(level.matrix[k], dx, dy)
    u, v = level.falloff[k]
    # log(1 + q) is many times faster than log1p, and q near 0 is 0 here
    return match - u * np.sqrt(q + 1e-4) - v * np.log(1 + q)


def paint_levels(levels, used, shape):
    """
    Give each pixel, at each level, to the seed with the largest score.

    ``used`` (S,) bool, of the seeds of all levels in turn -> of each level
    with one ``owner`` (y, x) int32 of the image: index of the seed, of all
    levels in turn, plus one; 0 for the rest.
    """
    first = np.cumsum([0, *(len(level.x) for level in levels)])
    for level, start in zip(levels, first):
        seeds = np.flatnonzero(used[start:start + len(level.x)])
        if len(seeds):
            owner = _paint(level, seeds, shape)
            owner[owner > 0] += start
            yield owner


def compose(painted, shape, object_of=None):
    """
    Put the levels together: what the finer leave, the coarser have.

    An object that has most of its pixels of a level already, of finer ones, is
    whole, and gets none of that level and of coarser ones: a binned image
    shows the rest of a small object poorly.

    ``object_of`` (S,) int, -1 is none; each seed is its own object if `None`
    -> ``owner`` (y, x) int32: index of the seed plus one; 0 for the sky.
    """
    owner = np.zeros(shape, np.int32)
    if object_of is None:
        for one in painted:
            np.copyto(owner, one, where=owner == 0)
        return owner
    object_of = np.append(0, object_of + 1)
    whole = np.zeros(object_of.max() + 1, bool)
    flat = owner.ravel()
    for one in painted:
        where = np.flatnonzero(one)
        seeds, before = one.ravel()[where], flat[where]
        here = object_of[seeds]
        area, had = (np.bincount(some, minlength=len(whole))
                     for some in (here, here[here == object_of[before]]))
        whole |= had >= COVERED * np.maximum(area, 1)
        whole[0] = False
        free = (before == 0) & ~whole[here]
        flat[where[free]] = seeds[free]
    return owner


def _paint(level, seeds, shape):
    """(y, x) of the image: index of the level's seed plus one, or 0."""
    best = level.sky.copy()
    owner = np.zeros(best.shape, np.int32)
    looked = reaches(level)
    if level.factor == 1:
        for k in seeds:
            window, score, won = reach_of(level, k, best,
                                          *(one[k] for one in looked))
            np.copyto(best[window], score, where=won)
            owner[window][won] = k + 1
        return owner
    second = np.full(best.shape, -np.inf, np.float32)
    boxes = {}
    for k in seeds:
        window, score, won = reach_of(level, k, best,
                                      *(one[k] for one in looked))
        boxes[k] = window, score
        top = best[window]
        np.maximum(second[window], np.where(won, top, score),
                   out=second[window])
        np.copyto(top, score, where=won)
        owner[window][won] = k + 1
    out = np.zeros(shape, np.int32)
    for k, (window, score) in boxes.items():
        own = owner[window] == k + 1
        if own.any():
            margin = np.where(own, best[window] - second[window],
                              score - best[window])
            there = out[tuple(slice(level.factor * one.start,
                                    level.factor * one.stop)
                              for one in window)]
            big = enlarge(margin, level.factor)
            there[big[:there.shape[0], :there.shape[1]] > 0] = k + 1
    return out


def enlarge(values, factor):
    """Values (y, x), interpolated to (factor y, factor x)."""
    if factor == 1:
        return values
    return F.interpolate(torch.from_numpy(values)[None, None],
                         scale_factor=factor, mode='bilinear',
                         align_corners=False)[0, 0].numpy()


@dataclass(frozen=True)
class Grouping:
    """Labels of an image."""

    #: (y, x) int32, consecutive from 1: one label an object.
    groups: np.ndarray
    #: (y, x) int32: one label a seed. The fragment of an object with only one
    #: has the object's label; others follow after the last object's.
    fragments: np.ndarray
    #: Object label to the array of its fragments' labels, for objects with
    #: more than one.
    children: dict
    #: (n_objects,) index of the leading seed of each object.
    seed_of: np.ndarray
    #: (n_objects,) probability that the object's weakest grouping decision (a
    #: merge made, or a merge refused) is right; of a calibrated model, that it
    #: is one object (`astrodino_seg.models.decision.Calibration`).
    confidence: np.ndarray
    #: (n_objects,) int.
    n_fragments: np.ndarray

    def images(self):
        """The `SegmentationImage` of the objects, and of the fragments."""
        fragments = SegmentationImage(self.fragments)
        fragments._deblend_label_map = dict(self.children)
        return SegmentationImage(self.groups), fragments


def as_frequent(levels, found, same, star_odds):
    """
    The probability (P,) that two seeds are one object where stars are more
    frequent than in training.

    It is ``same`` (P,) with other prior odds, for a seed that looks like a
    star and lies on a much larger object (Saerens, Latinne & Decaestecker
    2002, Neural Computation 14, 21): ``exp(star_odds)`` times more such points
    are stars, as far as the network's class says that it is one.
    """
    if star_odds == 0:
        return same
    on_large = found.radius[found.i] > LARGER * found.radius[found.j]
    star = on_large * gather(levels, 'classes')[found.j, STAR]
    return same / (same + (1 - same) * np.exp(star_odds * star))


def weigh(levels, decision):
    """
    The `~astrodino_seg.predict.merge.Candidates` of all levels, and by a
    model's `~astrodino_seg.models.decision.Decision` the probability (S,) that
    a seed is of an object and (P,) that two are one object.

    Without a decision a seed's probability is the heatmap's, and no two seeds
    are one object.
    """
    found = candidates(levels)
    if decision is None:
        return found, gather(levels, 'heat'), np.zeros(len(found.i))
    with torch.inference_mode():
        real, same = decision(seed_features(levels, found),
                              pair_features(levels, found),
                              torch.from_numpy(found.i),
                              torch.from_numpy(found.j))
    real, same = (part.sigmoid().double().numpy() for part in (real, same))
    return found, real, as_frequent(levels, found, same, decision.star_odds)


def decode(levels, decision, shape, *, merge=MERGE, min_seed=MIN_SEED,
           n_pixels=5, keep=None, mask=None, weighed=None):
    """
    Make objects, a `Grouping`, of what the network says of an image.

    Seeds that are less probably of an object than ``min_seed`` are nothing;
    ``merge``, the merge/split dial in [0, 1], is that of
    `~astrodino_seg.predict.merge.group`. Objects of fewer than ``n_pixels``,
    or that ``keep(labels, n)``, (n,) bool, does not want, are dropped; where
    ``mask`` (y, x) is, pixels stay 0. ``weighed`` is what `weigh` gives, if
    that is there already.
    """
    found, real, same = weighed or weigh(levels, decision)
    used = real >= min_seed
    number = np.cumsum(used) - 1
    both = used[found.i] & used[found.j]
    label, right = group(int(used.sum()), number[found.i[both]],
                         number[found.j[both]], same[both], merge)
    object_of = np.full(len(used), -1)
    object_of[used] = label
    owner = compose(paint_levels(levels, used, shape), shape, object_of)
    if mask is not None:
        owner[mask] = 0
    return _objects(owner, np.flatnonzero(used), label, right, found.radius,
                    n_pixels, keep)


def _objects(owner, seeds, label, right, radius, n_pixels, keep):
    """Labels of what is large enough, and all that belongs to them."""
    # each group has the name of its largest seed
    order = np.lexsort((-radius[seeds], label))
    first = np.concatenate([[True], np.diff(label[order]) != 0])[
        :len(order)]
    leader_of = seeds[order[first]]
    leader = np.arange(len(radius))
    leader[seeds] = leader_of[label]
    groups = np.append(0, leader + 1).astype(np.int32)[owner]
    n = len(radius)
    wanted = np.bincount(groups.ravel(), minlength=n + 1)[1:] >= n_pixels
    if keep is not None:
        wanted &= keep(groups, n)
    leaders = np.flatnonzero(wanted)
    number = np.zeros(n + 1, np.int32)
    number[leaders + 1] = np.arange(1, len(leaders) + 1)
    groups = number[groups]
    fragments, children = label_fragments(
        owner, groups, np.append(0, number[leader + 1]))
    n_fragments = np.ones(len(leaders), int)
    for parent, labels in children.items():
        n_fragments[parent - 1] = len(labels)
    confidence = np.ones(n)
    confidence[leader_of] = right
    return Grouping(groups, fragments, children, leaders,
                    confidence[leaders], n_fragments)


def label_fragments(owner, groups, parent):
    """
    Number the pieces within each object as of `Grouping`.

    ``owner`` (y, x) int, the piece that has each pixel, 0 is none; ``groups``
    (y, x) int; ``parent`` (n_pieces + 1,) int, the object of each piece.
    """
    seeds = np.where(groups > 0, owner, 0)
    present = np.flatnonzero(np.bincount(seeds.ravel(),
                                         minlength=len(parent)))
    present = present[present > 0]
    members = {}
    for k in present:
        members.setdefault(int(parent[k]), []).append(k)
    label, children = np.zeros(len(parent), np.int32), {}
    last = int(parent.max())
    for parent_of, seeds_in in sorted(members.items()):
        if len(seeds_in) == 1:
            label[seeds_in[0]] = parent_of
            continue
        label[seeds_in] = np.arange(last + 1, last + 1 + len(seeds_in))
        children[parent_of] = label[seeds_in].copy()
        last += len(seeds_in)
    return label[seeds], children
