# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The flags of objects, and which labels touch.
"""

import numpy as np
from scipy import ndimage
from skimage.measure import label as label_regions

#: Bits of the ``flags`` column. ``saturated``: in a band the brightest pixels
#: are a plateau, or around a hole of invalid ones; ``uncovered``: a band has
#: no valid pixel of the label, and no flux; ``part_covered``: one lacks some;
#: ``blended``: it touches another label; ``edited``: by a person; ``cut``: by
#: blocks of a mosaic; ``out_of_domain``: the image is unlike all others.
FLAGS = {'edge': 1, 'masked': 2, 'disjoint': 4, 'saturated': 8,
         'uncovered': 16, 'part_covered': 32, 'blended': 64,
         'low_confidence': 128, 'edited': 256, 'cut': 512,
         'out_of_domain': 1024}

MIN_SATURATED_SN, MIN_PLATEAU = 200, 4
#: Of pixels above half the peak the share above 0.9 of it, 0.15 for any
#: Gaussian and more for a plateau; and the least number of these.
MIN_STEEP, MIN_STEEP_PIXELS = 0.3, 9


def flags_of(image, grouping, covered, bright):
    """
    The ``flags`` (n_objects,) of a grouping, of the share (band, n_objects) of
    its pixels that is valid, and of what is `saturated`.
    """
    groups, n = grouping.groups, covered.shape[1]
    flags = np.zeros(n + 1, np.int32)
    flags[1:][grouping.confidence < 0.5] |= FLAGS['low_confidence']
    flags[_present(neighbours(groups)[0], n)] |= FLAGS['blended']
    flags[1:][(covered == 0).any(axis=0)] |= FLAGS['uncovered']
    flags[1:][((covered > 0) & (covered < 1)).any(axis=0)] |= (
        FLAGS['part_covered'])
    edge = np.concatenate([groups[0], groups[-1], groups[:, 0],
                           groups[:, -1]])
    flags[_present(edge, n)] |= FLAGS['edge']
    bad = image.mask.any(axis=0)
    if bad.any():
        bad = ndimage.binary_dilation(bad, np.ones((3, 3), bool))
        flags[_present(groups[bad], n)] |= FLAGS['masked']
    pieces, n_pieces = label_regions(groups, background=0, connectivity=2,
                                     return_num=True)
    owner = np.zeros(n_pieces + 1, np.int32)
    owner[pieces.ravel()] = groups.ravel()
    n_of = np.bincount(owner[1:], minlength=n + 1)
    flags[n_of > 1] |= FLAGS['disjoint']
    flags[_present(bright, n)] |= FLAGS['saturated']
    return flags[1:]


def _present(labels, n):
    """Which numbers up to n, (n + 1,) bool, are among labels."""
    found = np.zeros(n + 1, bool)
    found[labels] = True
    return found


def neighbours(groups, *planes, connectivity=8):
    """
    (2, m) labels of pixels that touch, by corners too if the connectivity is
    8, and for each (y, x) plane its (2, m) values there.
    """
    ny, nx = groups.shape
    found = []
    for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1))[:connectivity // 2]:
        here = np.s_[:ny - dy, max(-dx, 0):nx - max(dx, 0)]
        there = np.s_[dy:, max(dx, 0):nx + min(dx, 0)]
        one, other = groups[here], groups[there]
        both = np.nonzero(one != other)     # few, which are sooner looked at
        touch = (one[both] > 0) & (other[both] > 0)
        both = tuple(index[touch] for index in both)
        found.append([[plane[here][both], plane[there][both]]
                      for plane in (groups, *planes)])
    return [np.concatenate(part, axis=1) for part in zip(*found)]


def saturated(values, sigma, where, groups, noise, n):
    """
    Labels with a flat top (some pixels within 1% of a high peak, or more
    within 10%) and a steep fall below; or with a hole in their middle; of
    values and noise where there are labels.
    """
    high = values > MIN_SATURATED_SN * sigma
    where, values = where[high], values[high]
    if len(where) == 0:
        return where
    labels = groups.ravel()[where]
    peak = np.zeros(n + 1)
    np.maximum.at(peak, labels, values)
    exact, near, half = (
        np.bincount(labels[values > share * peak[labels]], minlength=n + 1)
        for share in (0.99, 0.9, 0.5))
    found = (near > MIN_STEEP * half) & (
        (exact >= MIN_PLATEAU) | (near >= MIN_STEEP_PIXELS))
    valid = np.isfinite(noise)
    if not valid.all():
        holes = label_regions(~valid, connectivity=1)
        ring = ndimage.maximum_filter(holes, 3) * valid
        size, whole, bright = (
            np.bincount(one.ravel(), minlength=holes.max() + 1)
            for one in (holes, ring, ring.ravel()[where]))
        hole = (size >= MIN_PLATEAU) & (bright == whole)
        hole[0] = False
        found[groups[hole[ring]]] = True
        found[0] = False
    return np.flatnonzero(found)
