# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
`decode`: from what the network says of all levels to objects.
"""

from dataclasses import dataclass

import numpy as np
import torch
from photutils.segmentation import SegmentationImage

from astrodino_seg.predict.masks import compose, paint_levels
from astrodino_seg.predict.merge import (
    candidates,
    group,
    pair_features,
    seed_features,
)

__all__ = ['MERGE', 'MIN_SEED', 'Grouping', 'decode', 'label_fragments',
           'weigh']

#: The merge/split dial, and the least probability that a seed is of an object;
#: chosen on scenes of the validation split.
MERGE = 0.35
MIN_SEED = 0.7


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
        that it is one object (`astrodino_seg.models.calibration`).
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

    def images(self):
        """The `SegmentationImage` of the objects, and of the fragments."""
        fragments = SegmentationImage(self.fragments)
        fragments._deblend_label_map = dict(self.children)
        return SegmentationImage(self.groups), fragments


def weigh(levels, decision):
    """
    The seeds of all levels, their pairs, and what is decided of them.

    Parameters
    ----------
    levels : list of `~astrodino_seg.predict.pyramid.Level`
        Of `~astrodino_seg.predict.pyramid.look`.
    decision : `~astrodino_seg.models.decision.Decision` or `None`
        The model's. Without, a seed's probability is the heatmap's, and no
        two seeds are one object.

    Returns
    -------
    found : `~astrodino_seg.predict.merge.Candidates`
        Seeds and pairs.
    real : `~numpy.ndarray`
        (S,) probability that a seed is of an object.
    same : `~numpy.ndarray`
        (P,) probability that the two are one object.
    """
    found = candidates(levels)
    if decision is None:
        heat = np.concatenate([one.heat for one in levels])
        return found, heat, np.zeros(len(found.i))
    with torch.inference_mode():
        real, same = decision(seed_features(levels, found),
                              pair_features(levels, found),
                              torch.from_numpy(found.i),
                              torch.from_numpy(found.j))
    return found, *(part.sigmoid().double().numpy() for part in (real, same))


def decode(levels, decision, shape, *, merge=MERGE, min_seed=MIN_SEED,
           n_pixels=5, keep=None, mask=None):
    """
    Make objects of what the network says.

    Parameters
    ----------
    levels, decision
        As of `weigh`.
    shape : tuple of int
        (ny, nx) of the image.
    merge : float, optional
        The merge/split dial in [0, 1]; see
        `~astrodino_seg.predict.merge.group`.
    min_seed : float, optional
        Seeds that are less probably of an object are nothing.
    n_pixels : int, optional
        Smaller objects are dropped.
    keep : callable, optional
        Maps a label image and its number of labels to a bool array (one a
        label from 1) of which labels to keep.
    mask : `~numpy.ndarray`, optional
        (y, x) bool; these pixels stay 0.

    Returns
    -------
    grouping : `Grouping`
        The labels.
    """
    found, real, same = weigh(levels, decision)
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
                    confidence[leaders], n_fragments, number[leader + 1])


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
