# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
`find_instances`: what any model says of the objects of an image.

Of a `~astrodino_seg.Model`, by the seeds of all levels, which `decode` groups;
of a `~astrodino_seg.models.SemanticModel`, by the regions of its classes.
"""

from dataclasses import dataclass
from functools import singledispatch

import numpy as np
import torch
from photutils.segmentation import SegmentationImage
from skimage.measure import label as label_regions
from torch.nn import functional as F
from tqdm import tqdm

from astrodino_seg.models.decision import read_calibration
from astrodino_seg.models.instance import Model
from astrodino_seg.models.semantic import SemanticModel
from astrodino_seg.predict.masks import compose, enlarge, paint_levels
from astrodino_seg.predict.merge import (
    candidates,
    gather,
    group,
    pair_features,
    seed_features,
)
from astrodino_seg.predict.pyramid import (
    CONTEXT,
    TILE_SIZE,
    blend,
    look,
    tiles,
)

#: The merge/split dial, and the least probability that a seed is of an object;
#: chosen on scenes of the validation split.
MERGE = 0.35
MIN_SEED = 0.7


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
    return found, *(part.sigmoid().double().numpy() for part in (real, same))


def decode(levels, decision, shape, *, merge=MERGE, min_seed=MIN_SEED,
           n_pixels=5, keep=None, mask=None):
    """
    Make objects, a `Grouping`, of what the network says of an image.

    Seeds that are less probably of an object than ``min_seed`` are nothing;
    ``merge``, the merge/split dial in [0, 1], is that of
    `~astrodino_seg.predict.merge.group`. Objects of fewer than ``n_pixels``,
    or that ``keep(labels, n)``, (n,) bool, does not want, are dropped; where
    ``mask`` (y, x) is, pixels stay 0.
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


def predict_classes(model, planes, *, bin_factor=1, tile_size=TILE_SIZE,
                    device='cpu', progress=False):
    """
    Class probabilities of an image of any size.

    A larger image is cut into tiles, whose probabilities are averaged where
    they overlap.

    ``planes`` (plane, y, x) float32 -> ``probabilities`` (class, y, x)
    float32.
    """
    _, ny, nx = planes.shape
    patch = model.vit.patch_size        # tiles are of whole patches
    x = torch.from_numpy(planes)[None]
    x = F.pad(x, (0, -nx % patch, 0, -ny % patch), mode='replicate')
    shape = tuple(x.shape[2:])
    cut = tiles(shape, size=tile_size // patch * patch,
                margin=CONTEXT // patch * patch, step=patch)

    def parts():
        for tile in tqdm(cut, disable=not progress, desc='segmenting',
                         unit='tile', leave=False):
            with torch.inference_mode():
                yield tile, model.probabilities(
                    x[:, :, *tile.outer].to(device), 1 / bin_factor)[0].cpu()

    return blend(parts(), shape, 1)[:, :ny, :nx].numpy()


def segment_classes(probabilities, *, n_pixels=5, connectivity=8, keep=None,
                    mask=None):
    """
    Label the connected regions of each class.

    ``probabilities`` (class, y, x), ``mask`` (y, x) bool -> ``classes``
    (n_objects, class - 1).
    """
    called = probabilities.argmax(axis=0)
    if mask is not None:
        called[mask] = 0
    labels, n = label_regions(called, background=0, return_num=True,
                              connectivity=2 if connectivity == 8 else 1)
    wanted = np.bincount(labels.ravel(), minlength=n + 1)[1:] >= n_pixels
    if keep is not None:
        wanted &= keep(labels, n)
    number = np.zeros(n + 1, np.int32)
    number[1:][wanted] = np.arange(1, wanted.sum() + 1)
    labels, n = number[labels], int(wanted.sum())
    classes = np.stack([np.bincount(labels.ravel(), p.ravel(), n + 1)[1:]
                        for p in probabilities[1:]], axis=-1)
    classes /= classes.sum(axis=1, keepdims=True)
    grouping = Grouping(labels, labels.copy(), {}, np.arange(n),
                        np.full(n, np.nan), np.ones(n, int))
    return grouping, classes


@dataclass(frozen=True, eq=False, kw_only=True)
class Instances:
    """Objects, and what they and the pixels are."""

    #: Labels and fragments.
    grouping: Grouping
    #: (n_objects, class - 1) probabilities of the classes but the sky.
    classes: np.ndarray
    #: (class, y, x) float32, of the sky first.
    probabilities: np.ndarray


@singledispatch
def find_instances(model, planes, *, bin_factor=1, n_pixels=5, connectivity=8,
                   merge=MERGE, min_seed=MIN_SEED, mask=None, keep=None,
                   tile_size=TILE_SIZE, device='cpu', progress=False):
    """
    Find the objects of an image.

    Takes ``planes`` (plane, y, x) float32.
    """
    msg = f'model must be a model of this package, got {type(model).__name__}'
    raise TypeError(msg)


@find_instances.register
def _(model: Model, planes, *, bin_factor=1, connectivity=8, merge=MERGE,
      min_seed=MIN_SEED, tile_size=TILE_SIZE, device='cpu', progress=False,
      **rules):
    """Seeds at all levels of a pyramid, joined to objects."""
    shape = planes.shape[1:]
    levels = look(model, planes, bin_factor=bin_factor, tile_size=tile_size,
                  device=device, progress=progress)
    grouping = decode(levels, model.decision, shape, merge=merge,
                      min_seed=min_seed, **rules)
    classes, heat = (gather(levels, key)[grouping.seed_of]
                     for key in ('classes', 'heat'))
    calibration = read_calibration(model.calibration)
    grouping = calibration.rate(grouping, heat)
    fine = levels[0].probabilities
    if bin_factor > 1:
        fine = np.stack([enlarge(one, bin_factor)[:shape[0], :shape[1]]
                         for one in fine])
    return Instances(grouping=grouping, probabilities=fine,
                     classes=calibration.class_probabilities(classes))


@find_instances.register
def _(model: SemanticModel, planes, *, bin_factor=1, merge=MERGE,
      min_seed=MIN_SEED, tile_size=TILE_SIZE, device='cpu', progress=False,
      **rules):
    """Connected regions of one class."""
    probabilities = predict_classes(model, planes, bin_factor=bin_factor,
                                    tile_size=tile_size, device=device,
                                    progress=progress)
    grouping, classes = segment_classes(probabilities, **rules)
    return Instances(grouping=grouping, classes=classes,
                     probabilities=probabilities)
