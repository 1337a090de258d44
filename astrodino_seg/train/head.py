# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
A head, trained on a user's own labels or on scenes.
"""

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from numbers import Real

import numpy as np
from torch.utils.data import Subset

from astrodino_seg.errors import AstroDinoUserWarning
from astrodino_seg.models.load import load_model
from astrodino_seg.models.semantic import SemanticModel, check_classes
from astrodino_seg.simulate.scene import Scene
from astrodino_seg.train.instance import CLASS_WEIGHTS
from astrodino_seg.train.labelled import LabelledImage, as_labelled
from astrodino_seg.train.supervised import fit_model
from astrodino_seg.truth import CLASSES

#: Least side of a crop, pixels.
STEP = 16


def fit_head(model, data, *, out, n_steps=200, validation=0.2, partial=False,
             class_names=None, freeze_backbone=True, class_weights='balanced',
             crop_size=None, peak_rate=None, **options):
    """
    Train a model's head on labelled images or simulated scenes.

    The backbone stays as it is unless ``freeze_backbone=False``, so that a
    handful of images are enough. So does the decision of a model that has
    one, which takes more of them (`~astrodino_seg.train.fit_decision`). A run
    that was killed goes on from ``out``.

    Parameters
    ----------
    model : Model, SemanticModel or path-like
        The model to adapt or to train, changed in place; or its file or the
        name of a bundled one, as of `~astrodino_seg.load_model`.
    data : sequence
        Each item is a pair (image, labels), a triple with the classes, or a
        dict of the arguments of `~astrodino_seg.train.as_labelled`; or what
        that returns, or a `~astrodino_seg.simulate.scene.Scene`, of which
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
    class_names : sequence of str, optional
        What objects can be, for a semantic head; by default what labelled
        images say, or what the model knows. Others take the place of these,
        and are learned from nothing. Without a class in any label, a head
        that was never trained tells objects, of the class ``'object'``, from
        the sky.
    freeze_backbone : bool, optional
        Whether the Vision Transformer stays as it is. If not, its layers
        learn more slowly the deeper they lie below the head, by
        ``layer_decay``, 0.75 unless given. The tokens of a frozen one are
        computed once for a semantic head.
    class_weights : {'balanced'} or sequence of float, optional
        Weights of the pixels of the sky and of each class; see
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
        If an item cannot be used, nothing is left to train on, or ``out`` is
        of another run, be it by its labels alone: what differs is said.
    """
    if isinstance(model, (str, os.PathLike)):
        model = load_model(model)
    names = (_names_of(data, model) if class_names is None
             else check_classes(class_names))
    data = _labelled(data, partial, 'data', names)
    if isinstance(validation, Real):
        if not 0 < validation < 1:
            msg = f'validation must be in (0, 1), got {validation!r}'
            raise ValueError(msg)
        n = len(data) - max(round(validation * len(data)), 1)
        held = Subset(data, range(n, len(data)))
        data = Subset(data, range(n))
    else:
        held = (None if validation is None
                else _labelled(validation, partial, 'validation', names))
    if len(data) == 0:
        msg = 'data: no image is left to train on; validation=None holds none'
        raise ValueError(msg)
    if isinstance(class_weights, str) and class_weights != 'balanced':
        msg = ("class_weights must be 'balanced' or a number for the sky and "
               f'each class, got {class_weights!r}')
        raise ValueError(msg)
    semantic = isinstance(model, SemanticModel)
    if semantic and options.get('teacher') is None and _without_classes(data):
        if class_names is None and 'steps' not in model.provenance:
            names = 'object',
            data, held = (one and [_of_one_class(one[k], names)
                                   for k in range(len(one))]
                          for one in (data, held))
        else:
            msg = (f'data: no label has a class, so that this semantic model '
                   f'tells objects from sky and learns nothing of {names}')
            warnings.warn(msg, AstroDinoUserWarning)
    if names != model.classes[1:]:
        if not semantic:
            msg = (f'class_names: a grouping head tells '
                   f'{model.classes[1:]}, got {names}; a semantic one '
                   f"('linear_tiny') takes classes of your own")
            raise ValueError(msg)
        model.take_classes(names)
    if isinstance(class_weights, str):
        class_weights = balanced_weights(data, len(names))
    if len(class_weights) != len(names) + 1:
        msg = (f'class_weights must be {len(names) + 1} numbers, for the sky '
               f'and {names}, got {class_weights!r}')
        raise ValueError(msg)
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


def _without_classes(data):
    """Whether there are labelled objects and none has a class."""
    n_objects = 0
    for k in range(len(data)):
        one = data[k]
        if not isinstance(one, LabelledImage) or (
                one.truth.objects['cls'] != one.unknown).any():
            return False
        n_objects += len(one.truth.objects['cls'])
    return n_objects > 0


def _names_of(data, model):
    """What objects can be: as labelled images say, or as the model knows."""
    if isinstance(data, Sequence):
        for one in data:
            if isinstance(one, LabelledImage):
                return one.class_names
    return model.classes[1:]


def _of_one_class(one, names):
    """A `LabelledImage` whose objects are all of the one class there is."""
    if not isinstance(one, LabelledImage):
        return one
    objects = {**one.truth.objects,
               'cls': np.ones_like(one.truth.objects['cls'])}
    return LabelledImage(one.image, replace(one.truth, objects=objects), names)


def balanced_weights(data, n_classes=3):
    """Weights of the classes of pixels, so that the rare count more."""
    count = np.zeros(n_classes + 2)
    for k in range(len(data)):
        one = data[k]
        if not isinstance(one, LabelledImage):
            return CLASS_WEIGHTS
        labels = one.truth.labels
        cls = np.append(0, one.truth.objects['cls'])
        count += np.bincount(cls[labels[labels >= 0]], minlength=len(count))
    count = count[:-1]
    if not count[1:].any():
        return CLASS_WEIGHTS if n_classes == 3 else (1.0,) * len(count)
    return tuple((count.max() / count.clip(min=1)).clip(max=100)**0.5)


def _labelled(data, partial, name, class_names):
    """The items as `LabelledImage` or `Scene`."""
    if hasattr(data, '__getitem__') and not isinstance(data, Sequence):
        return data                         # a library of scenes
    if not isinstance(data, Sequence) or isinstance(data, str):
        msg = f'{name} must be a sequence, got {type(data).__name__}'
        raise TypeError(msg)
    out = []
    for k, item in enumerate(data):
        try:
            known = getattr(item, 'class_names', CLASSES[1:])
            if isinstance(item, LabelledImage | Scene):
                if known != class_names:
                    msg = f'has the classes {known}, not {class_names}'
                    raise ValueError(msg)
                out.append(item)
            elif isinstance(item, Mapping):
                out.append(as_labelled(**{
                    'partial': partial, 'class_names': class_names, **item}))
            elif isinstance(item, tuple | list) and len(item) in (2, 3):
                image, labels, *classes = item
                out.append(as_labelled(
                    image, labels, partial=partial, class_names=class_names,
                    classes=classes[0] if classes else None))
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
