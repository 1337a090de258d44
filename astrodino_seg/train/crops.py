# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Training crops, and what is asked of the network in each.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import gaussian_filter, maximum_filter

from astrodino_seg.models.instance import CALLED, KEPT
from astrodino_seg.simulate.scene import turned
from astrodino_seg.truth import ISOPHOTE, pixel_classes

MIN_CROP_PIXELS = 6

MAX_OBJECTS = 300
#: Faint galaxies are followed further out, to this share of their peak.
FAINTEST = 0.05


@dataclass
class ClassCrop:
    """One crop for a semantic head."""

    channels: torch.Tensor
    classes: torch.Tensor


@dataclass
class TokenCrop:
    """One crop at one scale: (D, rows, columns), (H, W), (4, H, W)."""

    tokens: torch.Tensor
    classes: torch.Tensor
    taught: torch.Tensor | None = None


@dataclass
class LevelCrop:
    """
    One crop of one level of the image pyramid, with N objects and S seeds.
    """

    #: (C, H, W) input.
    channels: torch.Tensor
    #: 1 where it is taken to be binned, else 0.
    binned: int
    #: (H, W) int64: 0 the rest, i + 1 for object i, -1 void.
    labels: torch.Tensor
    #: (H, W) int64 class of each pixel, -1 void, 4 an object of any class.
    classes: torch.Tensor
    #: (S, 2) the objects' centres first, then decoys: off centres, on them.
    seed_xy: torch.Tensor
    #: (S,) index of the object under each seed.
    seed_object: torch.Tensor
    #: (N, 2) true centre, (N,) log radius in pixels, (N,) class index.
    centre: torch.Tensor
    log_size: torch.Tensor
    cls: torch.Tensor
    #: (N,) bool, whether the object's centre is to be called.
    asked: torch.Tensor
    #: (R, H, W) int64: other objects that shine in the pixel of an object,
    #: i + 1 for object i, 0 none; R is 2, or 0 where it is not known.
    rivals: torch.Tensor
    #: (R, H, W) their shares of its light. The owner has the rest.
    shares: torch.Tensor


class Window:
    """A square part of an image, flipped and turned."""

    def __init__(self, corner, size, turn):
        self.corner, self.size, self.turn = corner, size, turn

    def cut(self, array):
        """The part of an array whose last axes are y and x."""
        x, y = self.corner
        part = array[..., y:y + self.size, x:x + self.size]
        return np.ascontiguousarray(turned(part, self.turn))

    def points(self, x, y):
        """Where positions of the image lie in the part."""
        x, y, last = x - self.corner[0], y - self.corner[1], self.size - 1
        for _ in range(self.turn % 4):     # rot90 takes (x, y) to (y, -x)
            x, y = y, last - x
        return (last - x, y) if self.turn >= 4 else (x, y)


def _peaks(channel):
    """Smoothed S/N, and where it has its maxima."""
    smooth = gaussian_filter(channel, 1.0)
    return smooth, (smooth == maximum_filter(smooth, 5)) & (smooth > 0.3)


def _decoys(rng, smooth, is_peak, span, area):
    """Local maxima of the image on one object, else random pixels."""
    n = 1 if area < 150 else 2 if area < 600 else 4
    peaks = span[is_peak[span]]
    if len(peaks) == 0:
        return span[rng.integers(0, len(span), 1)]
    peaks = peaks[np.argsort(-smooth[peaks], kind='stable')]
    pick = peaks[rng.choice(len(peaks), min(n, len(peaks)), replace=False)]
    if rng.random() < 0.5 or len(peaks) < n:
        pick = np.append(pick, span[rng.integers(len(span))])
    return pick


def make_crop(rng, channels, binned, labels, truth, table):
    """Build the targets of one crop of channels (C, H, W), labels (H, W)."""
    width = labels.shape[1]
    present, counts = np.unique(labels[labels > 0], return_counts=True)
    present = present[counts >= MIN_CROP_PIXELS]
    row = np.searchsorted(table['id'], present)
    if len(present) > MAX_OBJECTS:          # those about one place
        x, y = table['x'][row], table['y'][row]
        k = rng.integers(len(row))
        near = np.argsort(np.hypot(x - x[k], y - y[k]))[:MAX_OBJECTS]
        row = np.sort(row[near])
        present = table['id'][row]
    index = np.zeros(labels.max(initial=0) + 1, np.int64)
    index[present] = 1 + np.arange(len(present))
    new = np.where(labels > 0, index[labels.clip(0)] + 0, labels)
    new[(labels > 0) & (new == 0)] = -1
    classes = pixel_classes(truth['labels'], table)
    smooth, is_peak = (a.ravel() for a in _peaks(channels[0]))
    order = np.argsort(new, axis=None, kind='stable')
    ends = np.searchsorted(new.ravel()[order], np.arange(len(present) + 2))
    seeds, decoys, decoy_owners = [], [], []
    for n, k in enumerate(row):
        span = order[ends[n + 1]:ends[n + 2]]
        ix, iy = int(round(table['x'][k])), int(round(table['y'][k]))
        if not (0 <= ix < width and 0 <= iy < len(labels)
                and new[iy, ix] == n + 1):
            iy, ix = divmod(span[truth['own_sn'].ravel()[span].argmax()],
                            width)
        seeds.append((ix, iy))
        extra = _decoys(rng, smooth, is_peak, span, len(span))
        decoys.extend(zip(extra % width, extra // width))
        decoy_owners.extend([n] * len(extra))
    rivals, shares = _rivals(truth, new, present)
    info = [np.array(table[key][row], np.float32)
            for key in ('x', 'y', 'radius')]
    return LevelCrop(
        torch.from_numpy(np.ascontiguousarray(channels)), int(binned),
        torch.from_numpy(new.astype(np.int64)),
        torch.from_numpy(classes.astype(np.int64)),
        torch.tensor(np.array(seeds + decoys, np.float32).reshape(-1, 2)),
        torch.tensor([*range(len(row)), *decoy_owners], dtype=torch.long),
        torch.from_numpy(np.stack(info[:2], axis=-1)),
        torch.from_numpy(np.log(info[2].clip(0.5))),
        torch.from_numpy(np.array(table['cls'][row], np.int64)),
        torch.from_numpy(np.array(table['asked'][row], bool)),
        torch.from_numpy(rivals), torch.from_numpy(shares))


def _rivals(truth, labels, present):
    """
    The objects of the crop that shine in another's pixel, and their shares;
    none where the owner is not the strongest, but beneath it.
    """
    owners, shares = truth['owners'], truth['shares']
    if len(owners) == 0:
        nothing = np.zeros((0, *labels.shape))
        return nothing.astype(np.int64), nothing.astype(np.float32)
    index = np.zeros(max(owners.max(), present.max(initial=0)) + 1, np.int64)
    index[present] = 1 + np.arange(len(present))
    own = (labels > 0) & (index[owners[0]] == labels)
    rivals = np.where(own, index[owners[1:]], 0)
    shares = np.where(rivals > 0, shares[1:], 0)
    total = np.maximum(shares.sum(axis=0) + truth['shares'][0], 1e-30)
    return rivals, (shares / total).astype(np.float32)


def level_truth(rng, truth, b):
    """
    Labels (y, x) of the objects of one level, their radius (n,), and which are
    asked for (n,).
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
