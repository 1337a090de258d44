# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
A user's own labels as the truth of an image.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from astrodino_seg.image import Image, as_image, read_label_map
from astrodino_seg.inputs.channels import PreprocessSpec, normalise
from astrodino_seg.simulate.scene import CLASSES
from astrodino_seg.truth import PRIMARY_PIXELS, Truth

__all__ = ['LabelledImage', 'as_labelled']

#: Class of an object of which it is not known.
UNKNOWN = 4


@dataclass(frozen=True, eq=False)
class LabelledImage:
    """
    An image and what is known of it.

    Attributes
    ----------
    image : `~astrodino_seg.Image`
        The image.
    truth : `~astrodino_seg.simulate.Truth`
        Its labels (from 1 without gaps, 0 sky, -1 void), and for each the
        centre, the class and the number of pixels. What only a simulation
        knows is left out.
    """

    image: Image
    truth: Truth


def as_labelled(image, labels, *, classes=None, void=None, partial=False):
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
        ``'star'``, ``'galaxy'`` or ``'artifact'`` for all objects; or a dict
        by label; or a table with columns ``label`` and ``class``, as
        `~astrodino_seg.DinoSegmenter` makes. Objects that are not in it, or
        all by default, are of unknown class.
    void : array_like of bool, optional
        (y, x), `True` where nothing is said.
    partial : bool, optional
        Whether only some of the objects are labelled, so that pixels without
        a label are void and not sky.

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
    known = _read_classes(classes)
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
    cls = np.array([known.get(int(name), known.get('all', UNKNOWN))
                    for name in names[1:]], int)
    x, y = _centres(number, sn, len(names))
    objects = {'id': np.arange(1, len(names)), 'x': x, 'y': y, 'cls': cls,
               'n_pixels': area,
               'primary': (area >= PRIMARY_PIXELS) & ((cls == 2)
                                                      | (cls == UNKNOWN))}
    none = np.zeros((0, *labels.shape), np.float32)
    return LabelledImage(image, Truth(
        np.where(nothing, -1, number).astype(np.int32),
        np.where(number > 0, sn, 0).astype(np.float32), objects, none, none,
        none))


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


def _read_classes(classes):
    """Label to index of the class; ``'all'`` for all other labels."""
    if classes is None:
        return {}
    if isinstance(classes, str):
        classes = {'all': classes}
    elif not isinstance(classes, Mapping):
        classes = dict(zip(map(int, classes['label']), classes['class']))
    known = {}
    for label, name in classes.items():
        if str(name) not in CLASSES[1:]:
            msg = (f'classes[{label!r}] must be one of {CLASSES[1:]}, got '
                   f'{name!r}')
            raise ValueError(msg)
        known[label] = CLASSES.index(str(name))
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
