# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Which objects a pixel's light comes from, and how much of it each has.

A label says whose light is most of a pixel. The seeds' scores say more: their
softmax is taken as the shares of the light, and the flux of objects that
overlap can be split.
"""

from dataclasses import dataclass

import numpy as np

from astrodino_seg.predict.masks import reach_of, to_image

#: Objects that a pixel is shared by, at most.
N_OWNERS = 3
#: A score that is so much below that of the sky is nothing.
FAINT = 6.0


@dataclass(frozen=True, eq=False)
class FluxShares:
    """The objects that share the light of each pixel."""

    #: (3, y, x) int32: the objects with the largest shares, largest first; 0
    #: is none. All are 0 where the segmentation has sky.
    labels: np.ndarray
    #: (3, y, x) float32: what each has of the light; 1 in all, 0 in the sky.
    shares: np.ndarray

    def of(self, label):
        """
        The share of one object.

        Gives ``share`` (y, x) float32.
        """
        return np.where(self.labels == label, self.shares, 0).sum(axis=0)

    def total(self, values, n, *, power=1):
        """
        Sums over objects.

        ``values`` (y, x) -> ``total`` (n,) float64.
        """
        return sum(np.bincount(
            labels.ravel(), (shares**power * values).ravel(), n + 1)[1:]
            for labels, shares in zip(self.labels, self.shares))


def share_flux(levels, grouping, *, power=1.0):
    """
    Split the light of each pixel of an object among those that reach it.

    At each level the softmax of the scores of its seeds and of the rest says
    what each has; what the rest has there is shared at the next coarser one.
    """
    if grouping.seed_label is None:
        msg = 'grouping: its objects have no seeds to share light by'
        raise ValueError(msg)
    owner = grouping.groups
    left = np.ones(owner.shape, np.float32)
    parts, first = {}, 0
    for level in levels:
        label_of = grouping.seed_label[first:first + len(level.x)]
        first += len(level.x)
        odds, total = [], np.ones(owner.shape, np.float32)
        for k in np.flatnonzero(label_of):
            window, one = _odds(level, k, owner.shape, power)
            total[window] += one
            odds.append((label_of[k], window, one))
        left /= total
        for label, window, one in odds:
            parts.setdefault(label, []).append((window, one * left[window]))
    value = np.zeros((N_OWNERS, *owner.shape), np.float32)
    labels = np.zeros(value.shape, np.int32)
    for label, pieces in parts.items():
        window, whole = _sum(pieces)
        _insert(value[:, *window], labels[:, *window], whole, label)
    inside = owner > 0
    labels[:, ~inside], value[:, ~inside] = 0, 0
    alone = inside & ~(labels == owner).any(axis=0)
    labels[:, alone], value[:, alone] = 0, 0
    labels[0][alone], value[0][alone] = owner[alone], 1
    value /= np.maximum(value.sum(axis=0), 1e-30)
    labels[value == 0] = 0
    return FluxShares(labels, value)


def _odds(level, k, shape, power):
    """A seed's odds to the rest in the box beyond which they are nothing."""
    window, score, _ = reach_of(
        level, k, lambda window, score: score > level.sky[window] - FAINT)
    wide, claim = to_image(window, score - level.sky[window], level.factor,
                           shape)
    return wide, np.exp(np.clip(power * claim, -60, 60))


def _sum(parts):
    """The sum of several parts, in the box that holds all of theirs."""
    if len(parts) == 1:
        return parts[0]
    whole = tuple(slice(min(window[axis].start for window, _ in parts),
                        max(window[axis].stop for window, _ in parts))
                  for axis in (0, 1))
    total = np.zeros([one.stop - one.start for one in whole], np.float32)
    for window, value in parts:
        total[tuple(slice(one.start - all_of.start, one.stop - all_of.start)
                    for one, all_of in zip(window, whole))] += value
    return whole, total


def _insert(value, labels, new, label):
    """Put an object in its place among the ranked ones, in place."""
    new, label = new.copy(), np.full(new.shape, label, np.int32)
    for v, o in zip(value, labels):
        higher = new > v
        v[higher], new[higher] = new[higher], v[higher]
        o[higher], label[higher] = label[higher], o[higher]
