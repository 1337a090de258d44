# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What is asked of the network at one level of the image pyramid.

An image that was binned by ``b`` has a noise of 1 / b in units of the noise of
the pixels that were binned, and these are the units of all levels. In the
image itself all is called that is not large; in a binned one what is small
does not exist, as it is called elsewhere, and what lies beneath it shows.
"""

import numpy as np

from astrodino_seg.models.instance import CALLED, KEPT
from astrodino_seg.truth import ISOPHOTE

__all__ = ['level_truth']

#: Faint galaxies are followed further out, to this share of their peak.
FAINTEST = 0.05


def level_truth(rng, truth, b):
    """
    The objects of one level, and the pixels of each.

    Parameters
    ----------
    rng : `numpy.random.Generator`
        For objects between two levels, which may be called or not.
    truth : `~astrodino_seg.simulate.Truth`
        Of an image in units of its own noise. Without ``owners``, as of a
        labelled image, the labels are as they are.
    b : int
        Pixels, in x and in y, that are taken to have been binned in it.

    Returns
    -------
    labels : `~numpy.ndarray`
        (y, x) int32: as of the truth, but 0 in what is the rest at this
        level.
    radius : `~numpy.ndarray`
        (n,) of the objects of the truth, pixels; 0 of those that are not of
        this level.
    asked : `~numpy.ndarray`
        (n,) bool: the objects whose centres are called; others with a radius
        may be.
    """
    n = int(truth.labels.max(initial=0)) + 1
    ids = truth.objects['id']
    n = max(n, ids.max(initial=0) + 1)
    known = len(truth.owners) > 0       # else labels say how far they reach
    limit = np.full(n, ISOPHOTE * b if known else 0.0)
    if b > 1 and known and len(ids):
        faint = truth.objects['cls'] == 2
        peak = np.zeros(len(limit))
        inside = truth.labels > 0
        np.maximum.at(peak, truth.labels[inside], truth.own_sn[inside])
        limit[ids[faint]] = np.clip(FAINTEST * peak[ids[faint]], ISOPHOTE,
                                    ISOPHOTE * b)
    labels = np.where(truth.own_sn >= limit[truth.labels.clip(0)],
                      truth.labels, np.minimum(truth.labels, 0))
    area = np.bincount(labels[labels > 0], minlength=len(limit))[ids]
    size = np.sqrt(area / np.pi)
    low, high = (rng.uniform(a, c, len(size)) for a, c in (
        (KEPT[0], CALLED[0]), (CALLED[1], KEPT[1])))
    asked = size < CALLED[1]
    used = (size < high) & (size > 0)
    if b > 1:
        asked &= size >= CALLED[0]
        used &= size >= low
        small = np.zeros(len(limit), bool)
        small[ids[size < low]] = True
        labels = _beneath(truth, labels, small, limit)
    of_level = np.zeros(len(limit), bool)
    of_level[ids[used]] = True
    labels = np.where(of_level[labels.clip(0)], labels,
                      np.minimum(labels, 0))
    return labels.astype(np.int32), np.where(used, size, 0), asked & used


def _beneath(truth, labels, small, limit):
    """Labels without small objects: those of the strongest of the others."""
    known = np.zeros(len(limit), bool)
    known[truth.objects['id']] = True
    hidden = (labels > 0) & small[labels.clip(0)]
    out = np.where(hidden, 0, labels)
    if not hidden.any() or len(truth.owners) == 0:
        return out
    whole = truth.own_sn[hidden] / np.maximum(truth.shares[0][hidden], 1e-9)
    for k in range(len(truth.owners) - 1, -1, -1):
        number = truth.owners[k][hidden]
        number = np.where(number < len(limit), number, 0)
        shows = (known[number] & ~small[number]
                 & (truth.shares[k][hidden] * whole >= limit[number]))
        out[hidden] = np.where(shows, number, out[hidden])
    return out
