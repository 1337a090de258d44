# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
From the pixels of seeds to integer labels: fragments, then groups.

A fragment is the mask of one seed; a group is the union of the fragments
that are one object.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import find_objects
from scipy.ndimage import label as label_components

from astrodino_seg.joining import (
    EIGHT,
    fill_giants,
    join_in_giants,
    join_scattered,
)
from astrodino_seg.painting import paint

__all__ = ['Grouping', 'group_seeds', 'segment_maps']


@dataclass(frozen=True)
class Grouping:
    """
    Labels of an image.

    Attributes
    ----------
    groups : `~numpy.ndarray`
        (y, x) int32, consecutive from 1: one label an object.
    fragments : `~numpy.ndarray`
        (y, x) int32: one label a seed. The fragment of an object with only
        one has the object's label; others follow after the last object's.
    children : dict
        Object label to the array of its fragments' labels, for objects with
        more than one.
    seed_of : `~numpy.ndarray`
        (n_objects,) index of the leading seed of each object.
    confidence : `~numpy.ndarray`
        (n_objects,) probability that the object's weakest grouping decision
        (a merge made, or a merge refused) is right; of a calibrated model,
        that it is one object (`astrodino_seg.calibration`).
    n_fragments : `~numpy.ndarray`
        (n_objects,) int.
    seed_label : `~numpy.ndarray` or None
        (S,) int: the object that each seed is of; 0 none. `None` where
        objects have no seeds.
    """

    groups: np.ndarray
    fragments: np.ndarray
    children: dict
    seed_of: np.ndarray
    confidence: np.ndarray
    n_fragments: np.ndarray
    seed_label: np.ndarray | None = None


def group_seeds(pairs, same, heat, merge):
    """
    Join seeds that are one object.

    Pairs are taken from the most to the least probable, down to
    ``1 - merge``; a pair of which both still lead is joined, the less
    certain seed and all it leads under the more certain. Comparing leaders
    only keeps chains from forming, and a larger ``merge`` only ever joins
    more.

    Parameters
    ----------
    pairs : `~numpy.ndarray`
        (P, 2) seed indices.
    same : `~numpy.ndarray`
        (P,) probability that the two are one object.
    heat : `~numpy.ndarray`
        (S,) certainty of each seed.
    merge : float
        0 joins nothing, 1 everything that was compared.

    Returns
    -------
    leader : `~numpy.ndarray`
        (S,) index of each seed's leader; a leader's is its own.
    confidence : `~numpy.ndarray`
        (S,) for leaders the probability that the weakest decision about
        the object is right; one where nothing was compared.
    """
    n = len(heat)
    rank = np.empty(n, int)
    rank[np.argsort(-heat, kind='stable')] = np.arange(n)
    leader = np.arange(n)
    led = [[k] for k in range(n)]
    for k in np.argsort(-same, kind='stable') if merge > 0 else ():
        if merge < 1 and same[k] <= 1 - merge:
            break
        early, late = sorted(pairs[k].tolist(), key=rank.__getitem__)
        if leader[early] == early and leader[late] == late:
            leader[led[late]] = early
            led[early] += led[late]
    joined = leader[pairs[:, 0]] == leader[pairs[:, 1]]
    to_leader = (leader[pairs[:, 0]] == pairs[:, 1]) | (
        leader[pairs[:, 1]] == pairs[:, 0])
    right = np.where(joined, same, 1 - same)
    confidence = np.ones(n)
    counted = to_leader | ~joined
    for side in (0, 1):
        np.minimum.at(confidence, leader[pairs[counted, side]],
                      right[counted])
    return leader, confidence


def _relabel(labels, leader):
    """Labels of leaders for those of seeds; both are the index plus one."""
    return np.append(0, leader + 1).astype(np.int32)[labels]


def _tidy(groups, n_pixels):
    """Drop islands: pieces of a label that are small beside its largest."""
    out = np.zeros_like(groups)
    for k, window in enumerate(find_objects(groups), start=1):
        if window is None:
            continue
        own = groups[window] == k
        pieces, n = label_components(own, EIGHT)
        if n > 1:
            area = np.bincount(pieces.ravel())
            area[0] = 0
            keep = area >= max(0.04 * area.max(), n_pixels)
            keep[area.argmax()] = True
            own = keep[pieces]
        out[window][own] = k
    return out


def _fill_pinholes(groups, max_hole=12):
    """Sky enclosed by one object and smaller than ``max_hole`` pixels."""
    holes, n = label_components(groups == 0)
    if n == 0:
        return groups
    area = np.bincount(holes.ravel(), minlength=n + 1)
    area[0] = max_hole + 1
    small = np.flatnonzero(area <= max_hole)
    windows = find_objects(holes)
    out = groups.copy()
    ny, nx = groups.shape
    for k in small:
        ys, xs = windows[k - 1]
        if 0 in (ys.start, xs.start) or ys.stop == ny or xs.stop == nx:
            continue                        # open to the outside
        wide = (slice(ys.start - 1, ys.stop + 1),
                slice(xs.start - 1, xs.stop + 1))
        hole = holes[wide] == k
        around = np.unique(groups[wide][~hole & (groups[wide] > 0)])
        if len(around) == 1:
            out[wide][hole] = around[0]
    return out


def segment_maps(prediction, *, merge=0.5, min_seed=0.0, n_pixels=5,
                 keep=None, mask=None, giants=()):
    """
    Fragments and groups of an image.

    Parameters
    ----------
    prediction : `~astrodino_seg.prediction.Prediction`
        The network's output.
    merge : float, optional
        The merge/split dial in [0, 1]; see `group_seeds`.
    min_seed : float, optional
        See `~astrodino_seg.painting.paint`.
    n_pixels : int, optional
        Smaller objects are dropped.
    keep : callable, optional
        Maps a label image and its number of labels to a bool array (one a
        label from 1) of which labels to keep.
    mask : `~numpy.ndarray`, optional
        (y, x) bool; these pixels stay 0.
    giants : sequence of `~astrodino_seg.joining.Giants`, optional
        Giant galaxies, the least binned first; see
        `~astrodino_seg.joining.join_in_giants`.

    Returns
    -------
    grouping : `Grouping`
        The labels.
    """
    owner = paint(prediction, mask, min_seed)
    # a seed without pixels has no part in what the others do
    n_own = np.bincount(owner.ravel(), minlength=len(prediction.x) + 1)[1:]
    used = (n_own > 0)[prediction.pairs].all(axis=1)
    leader, confidence = group_seeds(prediction.pairs[used],
                                     prediction.same[used], prediction.heat,
                                     merge)
    leader = join_scattered(leader, _relabel(owner, leader))
    groups = _relabel(owner, leader)
    for one in giants:
        star, *others = prediction.classes.T
        is_star = star > np.max(others, axis=0)
        joined = join_in_giants(np.arange(len(leader)), groups, one, is_star)
        leader = joined[leader]
        groups = fill_giants(_relabel(groups, joined), one)
    groups = _fill_pinholes(_tidy(groups, n_pixels))
    if mask is not None:
        groups[mask] = 0
    n = len(leader)
    wanted = np.bincount(groups.ravel(), minlength=n + 1)[1:] >= n_pixels
    if keep is not None:
        wanted &= keep(groups, n)
    leaders = np.flatnonzero(wanted)
    number = np.zeros(n + 1, np.int32)
    number[leaders + 1] = np.arange(1, len(leaders) + 1)
    groups = number[groups]
    fragments, children = _fragments(owner, groups, leader, number)
    n_fragments = np.ones(len(leaders), int)
    for parent, labels in children.items():
        n_fragments[parent - 1] = len(labels)
    return Grouping(groups, fragments, children, leaders,
                    confidence[leaders], n_fragments, number[leader + 1])


def _fragments(owner, groups, leader, number):
    """Label the seeds within each object; see `Grouping`."""
    n_seeds, n_groups = len(leader), int(number.max(initial=0))
    parent = np.concatenate([[0], number[leader + 1]])      # of owner id
    inside = (groups > 0) & (parent[owner] == groups)
    seeds = np.where(inside, owner, 0)
    present = np.flatnonzero(np.bincount(seeds.ravel(),
                                         minlength=n_seeds + 1))
    present = present[present > 0]
    members = {}
    for k in present:
        members.setdefault(int(parent[k]), []).append(k)
    label, children, last = np.zeros(n_seeds + 1, np.int32), {}, n_groups
    default = np.arange(n_groups + 1, dtype=np.int32)
    for group, seeds_in in sorted(members.items()):
        if len(seeds_in) == 1:
            label[seeds_in[0]] = group
            continue
        label[seeds_in] = np.arange(last + 1, last + 1 + len(seeds_in))
        children[group] = label[seeds_in].copy()
        last += len(seeds_in)
        default[group] = children[group][0]
    # pixels that tidying gave to an object belong to its first fragment
    fragments = np.where(inside, label[seeds], default[groups])
    return fragments.astype(np.int32), children
