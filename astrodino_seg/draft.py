# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Labels edited by hand: the result that follows from a list of `Edit`.
"""

import warnings
from dataclasses import replace

import numpy as np
from astropy.table import Table
from scipy.ndimage import distance_transform_edt, gaussian_filter
from skimage.draw import polygon
from skimage.segmentation import watershed

from astrodino_seg.catalog import FLAGS, measure
from astrodino_seg.edits import COLUMNS, as_edits, describe, label_at
from astrodino_seg.errors import AstroDinoUserWarning
from astrodino_seg.image import in_icrs
from astrodino_seg.inputs.channels import detection_channel
from astrodino_seg.predict.decode import Grouping, label_fragments


class _UnmatchedError(Exception):
    """There is nothing that an edit could be of."""


def edit_result(result, edits, actions):
    """Edit a `SegmentationResult`, as its `edit` says."""
    draft, rows = _Draft(result), []
    for edit in as_edits(edits, actions, result):
        try:
            rows.append(draft.apply(edit))
        except _UnmatchedError as why:
            msg = f'edit {describe(edit)!r}: {why}; it is left out'
            warnings.warn(msg, AstroDinoUserWarning)
    return draft.finish(rows)


class _Draft:
    """
    The labels while they are edited. Their numbers stay the same until the
    end, so that all edits of a list can name those of the first map.
    """

    def __init__(self, result):
        self.result = result
        self.groups = result.segmentation_image.data.copy()
        self.pieces = result.fragments.data.copy()
        self.probabilities = result.probabilities   # copied when it changes
        table = result.table
        labels = table['label'].tolist()
        self.classes = dict(zip(labels, np.stack([
            np.asarray(table[f'p_{name}'], float)
            for name in result.class_names[1:]], axis=-1)))
        self.confidence = dict(zip(labels, table['group_confidence']))
        self.edited = set(table['label'][
            table['flags'] & FLAGS['edited'] > 0].tolist())
        self.now = {label: label for label in labels}   # 0 is nothing any more
        self.n_labels = max(labels)
        self.n_pieces = int(self.pieces.max())
        # where objects are bright, they are found again
        self.light = gaussian_filter(np.sinh(detection_channel(
            result.image, result.background, result.noise,
            result.noise_correlation)), 1.0)

    def apply(self, edit):
        """Apply one; gives the row of `COLUMNS` that it is found again by."""
        labels, points = self._find(edit)
        if edit.action not in ('split', 'cut', 'draw'):
            points = np.array([self._peak(label) for label in labels])
        made = getattr(self, f'_{edit.action}')(labels, points)
        if edit.name:
            self._classify(made, edit.name)
        return self._row(edit, labels, points)

    # ------------------------------------------------------ what is meant

    def _find(self, edit):
        """The labels that an edit is of, and its points."""
        points = edit.points
        if edit.action == 'draw':
            return [], points
        if edit.action == 'cut':
            if len(points) == 3:        # the last is of the object
                return [self._at(points[2])], points
            label = (self._numbered(edit.labels[0]) if edit.labels
                     else self._below(*points))
            return [label], np.vstack([points, self._peak(label)])
        labels = ([self._at(point) for point in points] if len(points)
                  else [self._numbered(label) for label in edit.labels])
        labels = list(dict.fromkeys(labels))
        if edit.action == 'split' and len(points) == 0:
            points = np.array([self._peak(label) for label in labels])
        return labels, points

    def _at(self, point):
        """The label at a point."""
        label = label_at(self.groups, point)
        if label == 0:
            msg = 'there is no object at x={:.1f}, y={:.1f}'.format(*point)
            raise _UnmatchedError(msg)
        return label

    def _numbered(self, label):
        """What has become of a label of the first map."""
        if label not in self.now:
            msg = f'edits: there is no label {label}'
            raise ValueError(msg)
        while label and self.now[label] != label:
            label = self.now[label]
        if label == 0 or not (self.groups == label).any():
            msg = 'the object is gone by an edit before'
            raise _UnmatchedError(msg)
        return label

    def _below(self, start, end):
        """The label that most of a line lies on."""
        n = int(2 * np.hypot(*(end - start))) + 2
        found = [label for point in np.linspace(start, end, n)
                 if (label := label_at(self.groups, point))]
        if not found:
            msg = 'the line lies on no object'
            raise _UnmatchedError(msg)
        return int(np.bincount(found).argmax())

    def _peak(self, label):
        """The x and y of the brightest pixel of a label."""
        where = np.flatnonzero(self.groups == label)
        y, x = divmod(where[self.light.ravel()[where].argmax()],
                      self.groups.shape[1])
        return float(x), float(y)

    # ------------------------------------------- actions, with what they made

    def _merge(self, labels, points):
        keep = min(labels)
        if len(labels) == 1:            # they are one already
            return labels
        area = np.bincount(self.groups.ravel(), minlength=self.n_labels + 1)
        lead = max(labels, key=lambda label: area[label])
        self.classes[keep] = self.classes[lead]
        new = np.arange(self.n_labels + 1)
        new[labels] = keep
        self.groups = new[self.groups].astype(np.int32)
        self.now.update((label, keep) for label in labels)
        self._is_sure(keep)
        return [keep]

    def _split(self, labels, points):
        if len(points) == len(labels) == 1:
            return self._divide(labels[0], self.pieces)
        made = []
        for label in labels:
            own = self.groups == label
            inside = [point for point in np.floor(points + 0.5).astype(int)
                      if own[point[1], point[0]]]
            if len(inside) == 1 < len(labels):
                made.append(label)      # they are apart already
                continue
            seeds = np.zeros(own.shape, np.int32)
            for k, (x, y) in enumerate(inside, start=1):
                seeds[y, x] = k
            parts = watershed(-self.light, seeds, mask=own)
            # islands without a point are of the nearest part
            _, near = distance_transform_edt(parts == 0, return_indices=True)
            made += self._divide(label, parts[tuple(near)])
        return made

    def _cut(self, labels, points):
        (x0, y0), (x1, y1), _ = points
        y, x = np.indices(self.groups.shape, sparse=True)
        side = (x - x0) * (y1 - y0) - (y - y0) * (x1 - x0) > 0
        return self._divide(labels[0], side.astype(int))

    def _divide(self, label, part_of):
        """Make an object several, by a number of each pixel."""
        own = self.groups == label
        names, part = np.unique(part_of[own], return_inverse=True)
        if len(names) == 1:
            msg = 'nothing divides the object at x={}, y={}'.format(
                *self._peak(label))
            raise _UnmatchedError(msg)
        made = [label, *range(self.n_labels + 1,
                              self.n_labels + len(names))]
        self.n_labels += len(names) - 1
        self.groups[own] = np.array(made)[part]
        self.pieces[own] = self.n_pieces + 1 + part
        self.n_pieces += len(names)
        for new in made:
            self.classes[new] = self.classes[label]
            self._is_sure(new)
        return made

    def _reclassify(self, labels, points):
        return labels

    def _delete(self, labels, points):
        for label in labels:
            own = self.groups == label
            self._paint(own, 0)
            self.pieces[own], self.groups[own] = 0, 0
            self.now[label] = 0
        return []

    def _draw(self, labels, points):
        inside = np.zeros(self.groups.shape, bool)
        if np.isfinite(points).all():
            x, y = points.T
            inside[polygon(y, x, inside.shape)] = True
        inside &= np.isfinite(self.result.noise).any(axis=0)
        if not inside.any():
            msg = 'no valid pixel of the image is within'
            raise _UnmatchedError(msg)
        self.edited |= set(np.unique(self.groups[inside]).tolist()) - {0}
        self.n_labels += 1
        self.n_pieces += 1
        self.groups[inside] = self.n_labels
        self.pieces[inside] = self.n_pieces
        seen = self.probabilities[1:, inside].sum(axis=1, dtype=float)
        self.classes[self.n_labels] = seen / seen.sum()
        self._is_sure(self.n_labels)
        return [self.n_labels]

    def _is_sure(self, label):
        """A person said that it is an object."""
        self.confidence[label] = 1.0
        self.edited.add(label)

    def _classify(self, labels, name):
        """A person said what it is."""
        names = self.result.class_names[1:]
        k = names.index(name)
        for label in labels:
            self.classes[label] = np.eye(len(names))[k]
            self.edited.add(label)
            self._paint(self.groups == label, k + 1)

    def _paint(self, where, k):
        """The class of pixels is known."""
        if self.probabilities is self.result.probabilities:
            self.probabilities = self.probabilities.copy()
        self.probabilities[:, where] = 0
        self.probabilities[k][where] = 1

    # ---------------------------------------------------- what follows

    def _row(self, edit, labels, points):
        """The edit as a row of text."""
        x, y = np.reshape(points, (-1, 2)).T
        sky = in_icrs(self.result.image.sky(x, y))
        ra, dec = ((), ()) if sky is None else (sky.ra.deg, sky.dec.deg)
        return (edit.action, ' '.join(map(str, edit.labels or labels)),
                *(' '.join(form.format(one) for one in values)
                  for form, values in (('{:.2f}', x), ('{:.2f}', y),
                                       ('{:.8f}', ra), ('{:.8f}', dec))),
                edit.name)

    def finish(self, rows):
        """The edited result, all made of its labels by what made the first."""
        old = self.result
        left = np.unique(self.groups)
        left = left[left > 0]
        if len(left) == 0:
            msg = 'edits: no object would be left'
            raise ValueError(msg)
        number = np.zeros(self.n_labels + 1, np.int32)
        number[left] = np.arange(1, len(left) + 1)
        groups = number[self.groups]
        inside = groups > 0
        parent = np.zeros(self.n_pieces + 1, np.int32)
        parent[self.pieces[inside]] = groups[inside]
        fragments, children = label_fragments(self.pieces, groups, parent)
        grouping = Grouping(
            groups, fragments, children, np.arange(len(left)),
            np.array([self.confidence[label] for label in left.tolist()]),
            np.array([len(children.get(k + 1, [0]))
                      for k in range(len(left))]))
        table = measure(old, grouping, np.array(
            [self.classes[label] for label in left.tolist()]))
        table['flags'][np.isin(left, list(self.edited))] |= FLAGS['edited']
        table.meta = {**old.table.meta, **table.meta}
        rows = [*([] if old.edits is None else map(tuple, old.edits)), *rows]
        edits = Table(rows=rows, names=COLUMNS) if rows else None
        if rows:
            table.meta['edits'] = '; '.join(describe(edits))
        objects, pieces = grouping.images()
        return replace(
            old, segmentation_image=objects, fragments=pieces, table=table,
            probabilities=self.probabilities, edits=edits,
            class_map=self.probabilities.argmax(0).astype(np.uint8),
            parent=old)
