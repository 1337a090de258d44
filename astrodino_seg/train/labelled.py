# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
A user's own labels as the truth of an image, and a head trained on them.
"""

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real

import numpy as np
from scipy.ndimage import gaussian_filter
from torch.utils.data import Subset

from astrodino_seg.errors import AstroDinoUserWarning
from astrodino_seg.image import Image, as_image, read_label_map
from astrodino_seg.inputs.channels import PreprocessSpec, normalise
from astrodino_seg.models.load import load_model
from astrodino_seg.models.semantic import SemanticModel, check_classes
from astrodino_seg.simulate.scene import Scene
from astrodino_seg.train.instance import CLASS_WEIGHTS
from astrodino_seg.train.supervised import fit_model
from astrodino_seg.truth import CLASSES, PRIMARY_PIXELS, Truth

#: Least side of a crop, pixels.
STEP = 16


@dataclass(frozen=True, eq=False)
class LabelledImage:
    """An image and what is known of it."""

    #: The image.
    image: Image
    #: Its labels (from 1 without gaps, 0 sky, -1 void), and for each the
    #: centre, the class and the number of pixels. What only a simulation knows
    #: is left out.
    truth: Truth
    #: What objects can be: class k + 1 of the truth is name k, and the class
    #: after the last is not known.
    class_names: tuple = CLASSES[1:]

    @property
    def unknown(self):
        """The class of objects of which it is not known."""
        return len(self.class_names) + 1


def as_labelled(image, labels, *, classes=None, void=None, partial=False,
                class_names=CLASSES[1:]):
    """
    Put an image and labels together.

    Parameters
    ----------
    image : image-like
        What `~astrodino_seg.as_image` takes.
    labels : array_like, `~photutils.segmentation.SegmentationImage` or path
        (y, x) int: one positive label an object, 0 sky, less than 0 void,
        about which nothing is said. A path is that of a FITS label map.
    classes : str, dict or table, optional
        One of ``class_names`` for all objects; or a dict
        by label; or a table with columns ``label`` and ``class``, as
        `~astrodino_seg.DinoSegmenter` makes. Objects that are not in it, or
        all by default, are of unknown class.
    void : array_like of bool, optional
        (y, x), `True` where nothing is said.
    partial : bool, optional
        Whether only some of the objects are labelled, so that pixels without
        a label are void and not sky.
    class_names : sequence of str, optional
        What objects can be: star, galaxy and artifact, or classes of your
        own, for a semantic head.

    Returns
    -------
    labelled : `LabelledImage`
        Both. Pixels that no band has are void.

    Raises
    ------
    TypeError
        If the labels are not integers.
    ValueError
        If shapes differ, or a class is unknown.
    """
    image = as_image(image)
    labels = _read_labels(labels, image.shape)
    class_names = check_classes(class_names)
    unknown = len(class_names) + 1
    known = _read_classes(classes, class_names)
    nothing = image.mask.all(axis=0) | (labels < 0)
    if void is not None:
        void = np.asarray(void)
        if void.dtype != bool or void.shape != labels.shape:
            msg = (f'void must be bool of shape {labels.shape}, got '
                   f'{void.dtype} of {void.shape}')
            raise ValueError(msg)
        nothing |= void
    names, number = np.unique(np.append(labels.clip(min=0), 0),
                              return_inverse=True)
    number = number[:-1].reshape(labels.shape)
    area = np.bincount(number.ravel(), minlength=len(names))[1:]
    if partial:
        nothing |= number == 0
    sn = np.sinh(normalise(image, PreprocessSpec()).channels[0])
    sn = gaussian_filter(sn, 1.0).clip(min=0)
    cls = np.array([known.get(int(name), known.get('all', unknown))
                    for name in names[1:]], int)
    x, y = _centres(number, sn, len(names))
    objects = {'id': np.arange(1, len(names)), 'x': x, 'y': y, 'cls': cls,
               'n_pixels': area,
               'primary': (area >= PRIMARY_PIXELS) & ~np.isin(cls, [
                   k for k, name in enumerate(class_names, 1)
                   if name in ('star', 'artifact')])}
    none = np.zeros((0, *labels.shape), np.float32)
    return LabelledImage(image, Truth(
        np.where(nothing, -1, number).astype(np.int32),
        np.where(number > 0, sn, 0).astype(np.float32), objects, none, none,
        none), class_names)


def _read_labels(labels, shape):
    """The labels as an array of int of this shape."""
    if isinstance(labels, (str, os.PathLike)):
        labels = read_label_map(labels)
    labels = np.asarray(labels)
    if labels.dtype.kind not in 'iu':
        msg = f'labels must be int, got {labels.dtype}'
        raise TypeError(msg)
    if labels.shape != shape:
        msg = f'labels must have the shape {shape}, got {labels.shape}'
        raise ValueError(msg)
    return labels.astype(np.int64)


def _read_classes(classes, names):
    """Label to index of the class; ``'all'`` for all other labels."""
    if classes is None:
        return {}
    if isinstance(classes, str):
        classes = {'all': classes}
    elif not isinstance(classes, Mapping):
        classes = dict(zip(map(int, classes['label']), classes['class']))
    known = {}
    for label, name in classes.items():
        if str(name) not in names:
            msg = (f'classes[{label!r}] must be one of {names}, got '
                   f'{name!r}; class_names names others')
            raise ValueError(msg)
        known[label] = 1 + names.index(str(name))
    return known


def _centres(labels, sn, n):
    """
    Mean x and y of each label from 1, weighted by the square of the S/N, so
    that cores count and outskirts do not.
    """
    weight = (sn**2 + 1e-12).ravel().astype(float)
    norm = np.bincount(labels.ravel(), weight, n)[1:]
    return [np.bincount(labels.ravel(), weight * grid.ravel(), n)[1:] / norm
            for grid in np.indices(labels.shape)[::-1]]


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
