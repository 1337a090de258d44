# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Which objects a pixel's light comes from, and how much of it each has.

A label says whose light is most of a pixel. The seeds' scores say more: their
softmax is taken as the shares of the light, and the flux of objects that
overlap can be split.
"""

from dataclasses import dataclass

import numpy as np

from astrodino_seg.predict.masks import enlarge, reach_of

__all__ = ['FluxShares', 'share_flux']

#: Objects that a pixel is shared by, at most.
N_OWNERS = 3
#: A score that is so much below that of the sky is nothing.
FAINT = 6.0


@dataclass(frozen=True, eq=False)
class FluxShares:
    """
    The objects that share the light of each pixel.

    Attributes
    ----------
    labels : `~numpy.ndarray`
        (3, y, x) int32: the objects with the largest shares, largest first;
        0 is none. All are 0 where the segmentation has sky.
    shares : `~numpy.ndarray`
        (3, y, x) float32: what each has of the light; 1 in all, 0 in the
        sky.
    """

    labels: np.ndarray
    shares: np.ndarray

    def of(self, label):
        """
        The share of one object.

        Parameters
        ----------
        label : int
            The object.

        Returns
        -------
        share : `~numpy.ndarray`
            (y, x) float32 in [0, 1], 0 where the segmentation has sky.
            Times the image less its background, this is the object's part
            of the light within labelled pixels.
        """
        return np.where(self.labels == label, self.shares, 0).sum(axis=0)

    def total(self, values, n, *, power=1):
        """
        Sums over objects.

        Parameters
        ----------
        values : `~numpy.ndarray`
            (y, x) what is summed.
        n : int
            The largest label.
        power : int, optional
            Of the shares: 1 for flux, 2 for its variance.

        Returns
        -------
        total : `~numpy.ndarray`
            (n,) float64: for labels from 1 the sum of shares times values.
        """
        return sum(np.bincount(
            labels.ravel(), (shares**power * values).ravel(), n + 1)[1:]
            for labels, shares in zip(self.labels, self.shares))


def share_flux(prediction, grouping, *, power=1.0):
    """
    Split the light of each pixel of an object among those that reach it.

    Parameters
    ----------
    prediction : `~astrodino_seg.prediction.Prediction` or list of \
            `~astrodino_seg.predict.pyramid.Level`
        The network's output.
    grouping : `~astrodino_seg.grouping.Grouping`
        The labels that were made of it.
    power : float, optional
        The softmax of the objects' scores, in which the sky has no part, is
        raised to it and made to add up to 1 again.

    Returns
    -------
    shares : `FluxShares`
        The shares. A pixel that was filled, where the object that has it
        has a lower score than the sky, is all that object's.

    Raises
    ------
    ValueError
        If the objects have no seeds.
    """
    if grouping.seed_label is None:
        msg = 'grouping: its objects have no seeds to share light by'
        raise ValueError(msg)
    owner = grouping.groups
    inside = owner > 0
    reach = (_reach_of_level if isinstance(prediction, list) else _reach)
    score = np.full((N_OWNERS, *owner.shape), -np.inf, np.float32)
    labels = np.zeros(score.shape, np.int32)
    for label in range(1, len(grouping.seed_of) + 1):
        parts = [reach(prediction, k, inside) for k in
                 np.flatnonzero(grouping.seed_label == label)]
        window, best = _largest(parts)
        _insert(score[:, *window], labels[:, *window], best, label)
    own = np.where(labels == owner, score, -np.inf).max(axis=0)
    top = np.where(np.isfinite(score[0]), score[0], 0)
    shares = np.exp(power * (score - top))
    shares /= np.maximum(shares.sum(axis=0), 1e-30)
    # what was filled, or was nobody's by its score
    alone = inside & (own < 0)
    labels[:, alone | ~inside], shares[:, alone | ~inside] = 0, 0
    labels[0][alone], shares[0][alone] = owner[alone], 1
    labels[shares == 0] = 0
    return FluxShares(labels, shares)


def _reach(prediction, k, inside):
    """A seed's claim in the box beyond which it is nothing to any object."""
    window, score, _ = reach_of(
        prediction, k, lambda window, score: inside[window] & (
            score > prediction.sky[window] - FAINT))
    return window, score - prediction.sky[window]


def _reach_of_level(levels, k, inside):
    """The same, of a seed of all levels in turn, in pixels of the image."""
    for level in levels:
        if k < len(level.x):
            break
        k -= len(level.x)
    window, score, _ = reach_of(
        level, k, lambda window, score: score > level.sky[window] - FAINT)
    claim = enlarge(score - level.sky[window], level.factor)
    wide = tuple(slice(level.factor * one.start,
                       min(level.factor * one.stop, n))
                 for one, n in zip(window, inside.shape))
    return wide, claim[:wide[0].stop - wide[0].start,
                       :wide[1].stop - wide[1].start]


def _largest(parts):
    """The largest of several scores, in the box that holds all of theirs."""
    if len(parts) == 1:
        return parts[0]
    whole = tuple(slice(min(window[axis].start for window, _ in parts),
                        max(window[axis].stop for window, _ in parts))
                  for axis in (0, 1))
    best = np.full([one.stop - one.start for one in whole], -np.inf,
                   np.float32)
    for window, score in parts:
        there = best[tuple(slice(one.start - all_of.start,
                                 one.stop - all_of.start)
                           for one, all_of in zip(window, whole))]
        np.maximum(there, score, out=there)
    return whole, best


def _insert(score, labels, new, label):
    """Put an object in its place among the ranked ones, in place."""
    new, label = new.copy(), np.full(new.shape, label, np.int32)
    for s, o in zip(score, labels):
        higher = new > s
        s[higher], new[higher] = new[higher], s[higher]
        o[higher], label[higher] = label[higher], o[higher]
