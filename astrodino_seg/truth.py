# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The truth of an observation, which depends on what can be seen in it.
"""

from dataclasses import dataclass

import numpy as np

#: Of pixels; those of objects are without the first.
CLASSES = ('sky', 'star', 'galaxy', 'artifact')
#: Of pixels whose class is not known, or does not count.
VOID = -1
#: Own S/N per pixel (all bands together) down to which a pixel belongs to
#: an object. It lies well below the usual detection threshold, because a
#: total flux needs the outskirts.
ISOPHOTE = 0.5
#: Objects with less total S/N or fewer pixels are void.
MIN_SN = 7.0
MIN_PIXELS = 12
#: A resolved galaxy with at least this total S/N and this many pixels of its
#: own in view is a primary: large enough to be cut in pieces.
PRIMARY_SN = 30.0
PRIMARY_PIXELS = 300


@dataclass
class Truth:
    """What is known of an observed scene."""

    #: (y, x) int32: 0 sky, object ids as in ``objects``, -1 void (masked, or
    #: of an object too faint to be asked for).
    labels: np.ndarray
    #: (y, x) float32: S/N of the owner alone, the root of the sum of squares
    #: over the bands.
    own_sn: np.ndarray
    #: Arrays with an entry for each object that is asked for: ``id``, its
    #: label; ``x`` and ``y``, pixels; ``cls``, index into `CLASSES`; ``kind``
    #: and ``re`` (pixels), as in the scene; ``primary``, whether it is a large
    #: galaxy, resolved, and above `PRIMARY_SN` and `PRIMARY_PIXELS`; ``sn``,
    #: its total S/N over its region; ``n_pixels`` of its region, masked ones
    #: included; ``flux``, (object, band), the sum of its own noiseless light
    #: within the frame, in the unit of the image, NaN if the scene does not
    #: tell; ``blendedness`` in [0, 1), 1 - own / all, of the sums over its
    #: region of its own S/N and of that of the three strongest there (as Bosch
    #: et al. 2018, PASJ 70, S5, do with fluxes); ``on_primary``, whether its
    #: peak, the pixel of its region with its highest own S/N, lies where
    #: another object that is primary is above `ISOPHOTE`; ``overlaps``, the id
    #: of the strongest other object that is asked for and above `ISOPHOTE` at
    #: its peak, or 0.
    objects: dict
    #: (band, y, x) float32: the noiseless light of all objects, artifacts
    #: included, in the unit of the image; before saturation, masks, sky and
    #: noise.
    light: np.ndarray
    #: (3, y, x) int32: the objects with the largest own S/N in each pixel,
    #: largest first; 0 is none. Some may be too faint to be in ``objects``.
    owners: np.ndarray
    #: (3, y, x) float32: their shares of the sum of the three's own S/N; 1 in
    #: all, or 0 where there is no light.
    shares: np.ndarray


def consecutive(labels):
    """
    Labels, and what each was: sparse ids, as of a survey, become 1 to n.

    What is less than 0 stays.
    """
    labels = np.asarray(labels)
    last = int(labels.max(initial=0))
    if last <= labels.size:
        return labels, np.arange(last + 1)
    names = np.unique(labels[labels > 0])
    number = np.searchsorted(names, labels) + 1
    return (np.where(labels > 0, number, np.minimum(labels, 0)).astype(int),
            np.concatenate([[0], names.astype(np.int64)]))


def pixel_classes(labels, objects):
    """
    The class of each pixel, int64, of labels (y, x): an index into `CLASSES`,
    or `VOID`.
    """
    ids = objects['id']     # some own no pixel
    table = np.full(max(labels.max(initial=0), ids.max(initial=0)) + 1, VOID)
    table[0] = 0
    table[ids] = objects['cls']
    return np.where(labels < 0, VOID, table[labels.clip(0)])


def make_truth(light, owner, own_sn, dead, objects):
    """
    Apply the rules of the truth.

    Takes ``light`` (band, y, x), owner, own_sn (3, y, x), ``dead`` (y, x)
    bool.
    """
    labels = np.where(own_sn[0] >= ISOPHOTE, owner[0], 0).astype(np.intp)
    everything = own_sn.sum(axis=0)
    n = len(objects['x'])

    def per_object(weight=None):
        weight = None if weight is None else weight.ravel()
        return np.bincount(labels.ravel(), weight, minlength=n + 1)

    counts, total = per_object(), np.sqrt(per_object(own_sn[0]**2))
    blended = 1 - per_object(own_sn[0]) / np.maximum(
        per_object(everything), 1e-30)
    wanted = (total >= MIN_SN) & (counts >= MIN_PIXELS)
    wanted[0] = True
    labels = np.where(wanted[labels] & ~dead, labels, -1)
    ids = np.flatnonzero(wanted[1:]) + 1
    objects = {k: np.array(v) for k, v in objects.items()}
    objects['flux'] = objects['flux'].reshape(n, len(light))
    objects['primary'] = (objects['primary'].astype(bool)
                          & (total[1:] >= PRIMARY_SN)
                          & (counts[1:] >= PRIMARY_PIXELS))
    under = _under_peak(ids, labels, owner, own_sn)
    asked = np.where(wanted[under], under, 0)
    table = {k: v[ids - 1] for k, v in objects.items()}
    table.update(id=ids, sn=total[ids], n_pixels=counts[ids],
                 blendedness=np.clip(blended[ids], 0, 1),
                 on_primary=np.append(False, objects['primary'])[under].any(
                     axis=0),
                 overlaps=np.where(asked[0] > 0, asked[0], asked[1]))
    shares = np.divide(own_sn, everything, where=everything > 0,
                       out=np.zeros_like(own_sn))
    return Truth(labels.astype(np.int32), own_sn[0].astype(np.float32),
                 table, light, owner, shares.astype(np.float32))


def _under_peak(ids, labels, owner, own_sn):
    """(2, object) ids of what shines below each object's peak; 0 is none."""
    inside = np.flatnonzero(labels > 0)
    label, sn = labels.ravel()[inside], own_sn[0].ravel()[inside]
    highest = np.zeros(ids.max(initial=0) + 1, sn.dtype)
    np.maximum.at(highest, label, sn)
    at_peak = sn == highest[label]
    peak = np.full(highest.shape, -1)
    peak[label[at_peak]] = inside[at_peak]
    below = np.where(own_sn[1:] >= ISOPHOTE, owner[1:], 0).reshape(2, -1)
    # what is masked all over has no peak
    return np.where(peak[ids] >= 0, below[:, peak[ids]], 0)
