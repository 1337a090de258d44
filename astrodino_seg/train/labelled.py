# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
A user's own labels as the truth of an image, and how well a model finds it,
while it is trained or when it is done.
"""

import os
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from astrodino_seg.evaluate.matching import match_labels
from astrodino_seg.image import Image, as_image, read_label_map
from astrodino_seg.inputs.channels import PreprocessSpec, normalise
from astrodino_seg.models.semantic import SemanticModel, check_classes
from astrodino_seg.predict.instances import (
    find_instances,
    has_pixels,
    input_of,
)
from astrodino_seg.train.data import observed
from astrodino_seg.truth import CLASSES, PRIMARY_PIXELS, Truth


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


def panoptic_quality(model, scenes, *, seed=0):
    """
    Panoptic quality of a model on images, all matches pooled; those of a
    semantic model count only if their class is right, or not known.
    """
    total, count = match_scenes(model, scenes, seed=seed).sum(axis=0)
    return float(2 * total / max(count, 1))


def match_scenes(model, scenes, *, seed=0):
    """(n, 2): what panoptic quality is made of, image by image."""
    model = deepcopy(model).cpu().fused()
    parts = []
    for k in range(len(scenes)):
        image, truth = observed(scenes[k], [seed, k, 4])
        labels, classes = _segment(model, image)
        found = match_labels(truth.labels, labels)
        right = _right(found, truth.objects, classes, len(model.classes))
        parts.append((found.iou[right].sum(),
                      found.n_truth + found.n_predicted))
    return np.array(parts, float).reshape(-1, 2)


def _segment(model, image):
    """Labels that a model draws, and the class of each if those count."""
    parts, planes = input_of(model, image)
    found = find_instances(model, planes, keep=_is_connected,
                           mask=~np.isfinite(parts.noise).any(axis=0),
                           bin_factor=model.binning(parts.channels))
    classes = None
    if isinstance(model, SemanticModel):
        classes = 1 + found.classes.argmax(axis=1)
    return found.grouping.groups, classes


def _is_connected(labels, n):
    """Which labels the segmenter keeps, (n,) bool."""
    return has_pixels(labels, n, 5, 8)


def _right(found, objects, classes, unknown):
    """Which matches count: (match,) bool."""
    if classes is None:
        return np.ones(len(found.iou), bool)
    true = dict(zip(objects['id'].tolist(), objects['cls'].tolist()))
    return np.array([true[t] in (classes[p - 1], unknown) for t, p in
                     zip(found.truth.tolist(), found.predicted)], bool)


class EarlyStopping:
    """Looks at a model again and again and keeps the best of it."""

    def __init__(self, scenes, every, patience):
        self.scenes = scenes
        self.every, self.patience = every, patience
        self.best, self.pq, self.step, self.n_worse = None, -1.0, 0, 0

    @property
    def is_over(self):
        return self.n_worse >= self.patience

    def look(self, average, step):
        """Measure the average of ``step`` steps, if it is time; its ``pq``."""
        if self.scenes is None or step % self.every:
            return {}
        state = torch.get_rng_state()
        pq = panoptic_quality(average, self.scenes)
        torch.set_rng_state(state)
        self.n_worse += 1
        if pq >= self.pq:       # nothing right yet is no reason to stop
            self.best = {k: v.clone() for k, v
                         in average.state_dict().items()}
            self.pq, self.step, self.n_worse = pq, step, 0
        return {'pq': pq}

    def state_dict(self):
        """What a checkpoint needs."""
        return {'best': self.best, 'pq': self.pq, 'step': self.step,
                'n_worse': self.n_worse}

    def load_state_dict(self, state):
        """Go on from that of a checkpoint."""
        if self.scenes is not None:
            vars(self).update(state)

    def summary(self):
        """For the provenance, a dict: the quality, and after which step."""
        if self.best is None:
            return {}
        return {'validation_pq': round(self.pq, 4), 'best_step': self.step}
