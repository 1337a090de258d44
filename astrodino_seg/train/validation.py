# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Panoptic quality on labelled images while a model is trained.
"""

from copy import deepcopy

import numpy as np
import torch

from astrodino_seg.evaluate.matching import match_labels
from astrodino_seg.models.semantic import SemanticModel
from astrodino_seg.predict.instances import (
    find_instances,
    has_pixels,
    input_of,
)
from astrodino_seg.train.data import observed


def panoptic_quality(model, scenes, *, seed=0):
    """
    Panoptic quality of a model on images, all matches pooled.

    The labels are those of `~astrodino_seg.DinoSegmenter` with its defaults.
    Those of a semantic model count only if their class is right, or not
    known.
    """
    total, count = match_scenes(model, scenes, seed=seed).sum(axis=0)
    return float(2 * total / max(count, 1))


def match_scenes(model, scenes, *, seed=0):
    """
    What panoptic quality is made of, image by image.

    parts (n, 2).
    """
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
