# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Which objects a pixel's light comes from, and how much of it each has.

A label says whose light is most of a pixel. The seeds' scores say more: their
softmax is taken as the shares of the light, and the flux of objects that
overlap can be split.
"""

from dataclasses import dataclass

import numpy as np

from astrodino_seg.painting import seed_score, seed_window

__all__ = ['FluxShares', 'share_flux']

#: Objects that a pixel is shared by, at most.
N_OWNERS = 3
#: Windows are so many times as wide as those that seeds are painted in.
WIDER = 1.5


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
            (y, x) float32 in [0, 1]: times the image less its background,
            this is what the object would look like alone.
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
    prediction : `~astrodino_seg.prediction.Prediction`
        The network's output.
    grouping : `~astrodino_seg.grouping.Grouping`
        The labels that were made of it.
    power : float, optional
        The softmax of the scores is raised to it.

    Returns
    -------
    shares : `FluxShares`
        The shares. A pixel which the label map gives to an object that has
        no score there is all that object's.
    """
    shape = grouping.groups.shape
    score = np.full((N_OWNERS, *shape), -np.inf, np.float32)
    labels = np.zeros((N_OWNERS, *shape), np.int32)
    order = np.argsort(grouping.seed_label, kind='stable')
    members = np.split(order, np.searchsorted(
        grouping.seed_label[order], np.arange(1, len(grouping.seed_of) + 1)))
    for label, seeds in enumerate(members[1:], start=1):
        windows = [seed_window(prediction, k, shape, WIDER) for k in seeds]
        window = tuple(slice(min(w[a].start for w in windows),
                             max(w[a].stop for w in windows)) for a in (0, 1))
        best = np.max([seed_score(prediction, k, window) for k in seeds],
                      axis=0)
        _insert(score[:, *window], labels[:, *window], best, label)
    top = np.where(np.isfinite(score[0]), score[0], 0)
    shares = np.exp(power * (score - top))
    shares /= np.maximum(shares.sum(axis=0), 1e-30)
    owner = grouping.groups
    alone = (labels != owner).all(axis=0) | (owner == 0)
    labels[:, alone], shares[:, alone] = 0, 0
    labels[0][alone] = owner[alone]
    shares[0][alone & (owner > 0)] = 1
    labels[shares == 0] = 0
    return FluxShares(labels, shares)


def _insert(score, labels, new, label):
    """Put an object in its place among the ranked ones, in place."""
    new, label = new.copy(), np.full(new.shape, label, np.int32)
    for s, o in zip(score, labels):
        higher = new > s
        s[higher], new[higher] = new[higher], s[higher]
        o[higher], label[higher] = label[higher], o[higher]
