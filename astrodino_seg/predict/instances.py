# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
`find_instances`: what any model says of the objects of an image; of a
`~astrodino_seg.models.SemanticModel`, by the regions of its classes.
"""

from dataclasses import dataclass
from functools import singledispatch

import numpy as np
import torch
from skimage.measure import label as label_regions
from torch.nn import functional as F
from tqdm import tqdm

from astrodino_seg.models.calibration import read_calibration
from astrodino_seg.models.instance import Model
from astrodino_seg.models.semantic import SemanticModel
from astrodino_seg.predict.decode import MERGE, MIN_SEED, Grouping, decode
from astrodino_seg.predict.masks import enlarge
from astrodino_seg.predict.pyramid import look
from astrodino_seg.predict.shares import FluxShares, share_flux
from astrodino_seg.predict.tiles import CONTEXT, TILE_SIZE, taper, tiles


def predict_classes(model, planes, *, bin_factor=1, tile_size=TILE_SIZE,
                    device='cpu', progress=False):
    """
    Class probabilities of an image of any size.

    A larger image is cut into tiles, whose probabilities are averaged where
    they overlap.

    ``planes`` (plane, y, x) float32 -> ``probabilities`` (4, y, x) float32.
    """
    _, ny, nx = planes.shape
    patch = model.vit.patch_size        # tiles are of whole patches
    x = torch.from_numpy(planes)[None]
    x = F.pad(x, (0, -nx % patch, 0, -ny % patch), mode='replicate')
    shape = tuple(x.shape[2:])
    total = torch.zeros(4, *shape)
    weights = torch.zeros(shape)
    cut = tiles(shape, size=tile_size // patch * patch,
                margin=CONTEXT // patch * patch, step=patch)
    for tile in tqdm(cut, disable=not progress, desc='segmenting',
                     unit='tile', leave=False):
        with torch.inference_mode():
            part = model.probabilities(x[:, :, *tile.outer].to(device),
                                       1 / bin_factor)[0].cpu()
        weight = torch.from_numpy(taper(tile, shape, step=1))
        total[:, *tile.outer] += weight * part
        weights[tile.outer] += weight
    return (total / weights)[:, :ny, :nx].numpy()


def segment_classes(probabilities, *, n_pixels=5, connectivity=8, keep=None,
                    mask=None):
    """
    Label the connected regions of each class.

    ``probabilities`` (4, y, x), ``mask`` (y, x) bool -> ``classes``
    (n_objects, 3).
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
    #: (n_objects, 3) probabilities of star, galaxy and artifact.
    classes: np.ndarray
    #: (4, y, x) float32 of sky, star, galaxy and artifact.
    probabilities: np.ndarray
    #: Who shares the light of each pixel, if it was asked for.
    shares: FluxShares | None = None


@singledispatch
def find_instances(model, planes, *, bin_factor=1, n_pixels=5, connectivity=8,
                   merge=MERGE, min_seed=MIN_SEED, mask=None, keep=None,
                   split_flux=False, tile_size=TILE_SIZE, device='cpu',
                   progress=False):
    """
    Find the objects of an image.

    Takes ``planes`` (plane, y, x) float32.
    """
    msg = f'model must be a model of this package, got {type(model).__name__}'
    raise TypeError(msg)


@find_instances.register
def _(model: Model, planes, *, bin_factor=1, connectivity=8, merge=MERGE,
      min_seed=MIN_SEED, split_flux=False, tile_size=TILE_SIZE, device='cpu',
      progress=False, **rules):
    """Seeds at all levels of a pyramid, joined to objects."""
    shape = planes.shape[1:]
    levels = look(model, planes, bin_factor=bin_factor, tile_size=tile_size,
                  device=device, progress=progress)
    grouping = decode(levels, model.decision, shape, merge=merge,
                      min_seed=min_seed, **rules)
    classes, heat = (
        np.concatenate([getattr(level, key) for level in levels])[
            grouping.seed_of] for key in ('classes', 'heat'))
    calibration = read_calibration(model.calibration)
    grouping = calibration.rate(grouping, heat)
    shares = (share_flux(levels, grouping, power=calibration.share_power)
              if split_flux else None)
    fine = levels[0].probabilities
    if bin_factor > 1:
        fine = np.stack([enlarge(one, bin_factor)[:shape[0], :shape[1]]
                         for one in fine])
    return Instances(grouping=grouping, probabilities=fine, shares=shares,
                     classes=calibration.class_probabilities(classes))


@find_instances.register
def _(model: SemanticModel, planes, *, bin_factor=1, merge=MERGE,
      min_seed=MIN_SEED, split_flux=False, tile_size=TILE_SIZE, device='cpu',
      progress=False, **rules):
    """Connected regions of one class."""
    if split_flux:
        msg = 'split_flux=True needs a model with a grouping head'
        raise ValueError(msg)
    probabilities = predict_classes(model, planes, bin_factor=bin_factor,
                                    tile_size=tile_size, device=device,
                                    progress=progress)
    grouping, classes = segment_classes(probabilities, **rules)
    return Instances(grouping=grouping, classes=classes,
                     probabilities=probabilities)
