# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
`fit_head`: a head trained on a handful of labelled images.
"""

from collections.abc import Mapping, Sequence
from numbers import Real

import numpy as np
from torch.utils.data import Subset

from astrodino_seg.models.semantic import SemanticModel
from astrodino_seg.simulate.scene import Scene
from astrodino_seg.train.labelled import LabelledImage, as_labelled
from astrodino_seg.train.losses import CLASS_WEIGHTS
from astrodino_seg.train.supervised import fit_model

__all__ = ['balanced_weights', 'fit_head']

#: Least side of a crop, pixels.
STEP = 16


def fit_head(model, data, *, out, n_steps=200, validation=0.2, partial=False,
             freeze_backbone=True, class_weights='balanced', crop_size=None,
             peak_rate=None, **options):
    """
    Train a model's head on labelled images or simulated scenes.

    The backbone stays as it is unless ``freeze_backbone=False``, so that a
    handful of images are enough. So does the decision of a model that has
    one, which takes more of them (`~astrodino_seg.train.fit_decision`). A run
    that was killed goes on from ``out``.

    Parameters
    ----------
    model : Model or SemanticModel
        The model to adapt or to train; changed in place.
    data : sequence
        Each item is a pair (image, labels), a triple with the classes, or a
        dict of the arguments of `~astrodino_seg.train.as_labelled`; or what
        that returns, or a `~astrodino_seg.simulate.Scene`, of which
        observations are made anew at each step.
    out : path-like
        Folder for the checkpoint, the log and ``model.safetensors``.
    n_steps : int, optional
        Optimiser steps.
    validation : float, sequence or `None`, optional
        The share of ``data``, its last items, that is held out, or other
        data: the panoptic quality on these decides which weights are kept
        and when to stop. Without it, the last weights are taken.
    partial : bool, optional
        Whether only some objects are labelled, so that pixels without a label
        are void; for pairs and triples.
    freeze_backbone : bool, optional
        Whether the Vision Transformer stays as it is. If not, its layers
        learn more slowly the deeper they lie below the head, by
        ``layer_decay``, 0.75 unless given. The tokens of a frozen one are
        computed once for a semantic head.
    class_weights : {'balanced'} or sequence of float, optional
        Weights of the pixels of sky, star, galaxy and artifact; see
        `balanced_weights`.
    crop_size : int, optional
        Side of the crops; 256, or less if an image is smaller, by default.
    peak_rate : float, optional
        Learning rate; by default 2e-4 for a `~astrodino_seg.Model`, which is
        trained already, and 1e-2 for a semantic head, or 1e-3 with its
        backbone.
    **options
        Other arguments of `~astrodino_seg.train.fit_model`.

    Returns
    -------
    model : Model or SemanticModel
        The model, in evaluation mode.

    Raises
    ------
    TypeError
        If ``data`` or an item of it is of another type.
    ValueError
        If an item cannot be used, or nothing is left to train on.
    """
    data = _labelled(data, partial, 'data')
    if isinstance(validation, Real):
        if not 0 < validation < 1:
            msg = f'validation must be in (0, 1), got {validation!r}'
            raise ValueError(msg)
        n = len(data) - max(round(validation * len(data)), 1)
        held = Subset(data, range(n, len(data)))
        data = Subset(data, range(n))
    else:
        held = (None if validation is None
                else _labelled(validation, partial, 'validation'))
    if len(data) == 0:
        msg = 'data: no image is left to train on; validation=None holds none'
        raise ValueError(msg)
    if isinstance(class_weights, str):
        if class_weights != 'balanced':
            msg = ("class_weights must be 'balanced' or four numbers, got "
                   f'{class_weights!r}')
            raise ValueError(msg)
        class_weights = balanced_weights(data)
    semantic = isinstance(model, SemanticModel)
    if peak_rate is None:
        peak_rate = ((1e-2 if freeze_backbone else 1e-3) if semantic
                     else 2e-4)
    defaults = {'warmup': min(20, n_steps // 10 + 1), 'average_decay': 0.98,
                'validate_every': max(n_steps // 8, 1), 'n_workers': 0,
                'layer_decay': 1.0 if freeze_backbone else 0.75}
    return fit_model(model, data, out=out, n_steps=n_steps,
                     crop_size=crop_size or _crop_size(data),
                     peak_rate=peak_rate, freeze_backbone=freeze_backbone,
                     class_weights=class_weights, validation=held,
                     **{**defaults, **options})


def balanced_weights(data):
    """
    Weights of the classes of pixels, so that the rare count more.

    Parameters
    ----------
    data : sequence
        Of `~astrodino_seg.train.LabelledImage`.

    Returns
    -------
    weights : tuple of float
        Of sky, star, galaxy and artifact: the inverse root of how many pixels
        there are of each beside those of the most frequent, 10 at most; those
        of `~astrodino_seg.train.losses.CLASS_WEIGHTS` for scenes, and where no
        pixel's class is known but for the sky.
    """
    count = np.zeros(5)
    for k in range(len(data)):
        one = data[k]
        if not isinstance(one, LabelledImage):
            return CLASS_WEIGHTS
        labels = one.truth.labels
        cls = np.append(0, one.truth.objects['cls'])
        count += np.bincount(cls[labels[labels >= 0]], minlength=5)
    count = count[:4]
    if not count[1:].any():
        return CLASS_WEIGHTS
    return tuple((count.max() / count.clip(min=1)).clip(max=100)**0.5)


def _labelled(data, partial, name):
    """The items as `LabelledImage` or `Scene`."""
    if hasattr(data, '__getitem__') and not isinstance(data, Sequence):
        return data                         # a library of scenes
    if not isinstance(data, Sequence) or isinstance(data, str):
        msg = f'{name} must be a sequence, got {type(data).__name__}'
        raise TypeError(msg)
    out = []
    for k, item in enumerate(data):
        try:
            if isinstance(item, LabelledImage | Scene):
                out.append(item)
            elif isinstance(item, Mapping):
                out.append(as_labelled(**{'partial': partial, **item}))
            elif isinstance(item, tuple | list) and len(item) in (2, 3):
                image, labels, *classes = item
                out.append(as_labelled(image, labels, partial=partial,
                                       classes=classes[0] if classes
                                       else None))
            else:
                msg = ('must be a pair (image, labels), a triple with '
                       f'classes, a dict or a scene, got {item!r:.60}')
                raise TypeError(msg)
        except (TypeError, ValueError) as err:
            msg = f'{name}[{k}]: {err}'
            raise type(err)(msg) from err
    return out


def _crop_size(data):
    """256 or the largest multiple of 16 that all images have."""
    first = [data[k] for k in range(min(len(data), 64))]
    side = min(min(one.image.shape if isinstance(one, LabelledImage)
                   else one.cube.shape[1:]) for one in first)
    if side < STEP:
        msg = f'data: images must have {STEP} pixels a side, got {side}'
        raise ValueError(msg)
    return min(256, side // STEP * STEP)
