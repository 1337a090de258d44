# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
`find_instances`: what any model says of the objects of an image.
"""

from dataclasses import dataclass
from functools import singledispatch

import numpy as np

from astrodino_seg.models.calibration import read_calibration
from astrodino_seg.models.instance import Model
from astrodino_seg.models.semantic import SemanticModel
from astrodino_seg.predict.decode import MERGE, MIN_SEED, Grouping, decode
from astrodino_seg.predict.masks import enlarge
from astrodino_seg.predict.pyramid import look
from astrodino_seg.predict.regions import predict_classes, segment_classes
from astrodino_seg.predict.shares import FluxShares, share_flux

__all__ = ['Instances', 'find_instances']


@dataclass(frozen=True, eq=False, kw_only=True)
class Instances:
    """
    Objects, and what they and the pixels are.

    Attributes
    ----------
    grouping : `~astrodino_seg.predict.decode.Grouping`
        Labels and fragments.
    classes : `~numpy.ndarray`
        (n_objects, 3) probabilities of star, galaxy and artifact.
    probabilities : `~numpy.ndarray`
        (4, y, x) float32 of sky, star, galaxy and artifact.
    shares : `~astrodino_seg.predict.shares.FluxShares` or None
        Who shares the light of each pixel, if it was asked for.
    """

    grouping: Grouping
    classes: np.ndarray
    probabilities: np.ndarray
    shares: FluxShares | None = None


@singledispatch
def find_instances(model, planes, *, bin_factor=1, n_pixels=5, connectivity=8,
                   merge=MERGE, min_seed=MIN_SEED, mask=None, keep=None,
                   split_flux=False, tile_size=512, device='cpu',
                   progress=False):
    """
    Find the objects of an image.

    Parameters
    ----------
    model : `~astrodino_seg.Model` or \
            `~astrodino_seg.models.semantic.SemanticModel`
        The model, on ``device``.
    planes : `~numpy.ndarray`
        (plane, y, x) float32 of the model's ``planes``.
    bin_factor : int, optional
        Pixels, in x and in y, that are binned before the network looks.
    n_pixels, mask, keep
        As of `~astrodino_seg.predict.decode.decode`.
    connectivity : {8, 4}, optional
        How pixels of a class are connected; for semantic models.
    merge, min_seed, split_flux
        As of `~astrodino_seg.DinoSegmenter`; for others.
    tile_size, device, progress
        As of `~astrodino_seg.predict.pyramid.look`.

    Returns
    -------
    found : `Instances`
        The objects; there may be none.

    Raises
    ------
    TypeError
        If it is no model.
    ValueError
        If ``planes`` do not fit, or a semantic model is to split fluxes.
    """
    msg = f'model must be a model of this package, got {type(model).__name__}'
    raise TypeError(msg)


@find_instances.register
def _(model: Model, planes, *, bin_factor=1, connectivity=8, merge=MERGE,
      min_seed=MIN_SEED, split_flux=False, tile_size=512, device='cpu',
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
      min_seed=MIN_SEED, split_flux=False, tile_size=512, device='cpu',
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
