# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
`Edit`: what a person wants changed, by a table, by regions or by keywords.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from astropy.coordinates import SkyCoord
from astropy.table import Table
from regions import (
    CirclePixelRegion,
    EllipsePixelRegion,
    LinePixelRegion,
    PixCoord,
    PointPixelRegion,
    PolygonPixelRegion,
    RectanglePixelRegion,
    Region,
    Regions,
    SkyRegion,
)

from astrodino_seg.datasets.tables import read_table
from astrodino_seg.files import one_error
from astrodino_seg.image import sky_to_pixels

#: Of a table of edits.
COLUMNS = ('action', 'labels', 'x', 'y', 'ra', 'dec', 'class')
ACTIONS = ('merge', 'split', 'cut', 'reclassify', 'delete', 'draw')


class Edit(NamedTuple):
    """One edit."""

    #: One of `ACTIONS`.
    action: str
    #: What it is of, where no points tell.
    labels: tuple = ()
    #: (n, 2) x and y: one in each object; for ``split`` where its parts are;
    #: for ``cut`` two of the line, and one of the object; for ``draw`` the
    #: corners.
    points: np.ndarray = np.zeros((0, 2))
    #: The class of what comes out.
    name: str = ''


def as_edits(edits, actions, result):
    """The list of `Edit` of what `SegmentationResult.edit` takes."""
    if isinstance(edits, (str, os.PathLike)):
        edits = _read(Path(edits))
    if isinstance(edits, Region):
        edits = [edits]
    if edits is None:
        found = []
    elif isinstance(edits, Table):
        found = list(_of_table(edits, result.image))
    elif isinstance(edits, (Regions, list, tuple)) and all(
            isinstance(one, Region) for one in edits):
        found = _of_regions(edits, result)
    else:
        msg = ('edits must be a path, a Table or regions, got '
               f'{type(edits).__name__}')
        raise TypeError(msg)
    found += _of_keywords(actions, result)
    for edit in found:
        _check(edit, result.class_names[1:])
    return [one for edit in found for one in (
        [edit._replace(labels=(label,)) for label in edit.labels]
        if edit.action == 'split' and len(edit.points) == 0 else [edit])]


def _read(path):
    """The regions or the table of a file."""
    with one_error(f'edits: {str(path)!r} cannot be read'):
        if path.suffix == '.reg':
            return Regions.read(path, format='ds9')
        if path.suffix == '.csv':
            return Table.read(path, format='ascii.csv')
        return read_table(path)


def describe(edits):
    """An `Edit` in words, or a list of those of a table."""
    if isinstance(edits, Edit):
        x, y = (' '.join(f'{one:.2f}' for one in values)
                for values in edits.points.T)
        return describe([{'action': edits.action, 'x': x, 'y': y, 'labels':
                          ' '.join(map(str, edits.labels)),
                          'class': edits.name}])[0]
    return [' '.join(f'{name} {row[name]}' if name in 'xy' else row[name]
                     for name in ('action', 'labels', 'x', 'y', 'class')
                     if row[name]) for row in edits]


def _check(edit, names):
    """Raise if an edit has not what its action needs."""
    n = len(edit.points)
    if edit.action not in ACTIONS:
        need = f'an action: one of {", ".join(ACTIONS)}'
    elif edit.name and edit.name not in names:
        need = f'a class: one of {", ".join(names)}'
    elif edit.action == 'reclassify' and not edit.name:
        need = 'a class'
    elif edit.action == 'cut' and n not in (2, 3):
        need = 'the two points of a line'
    elif edit.action == 'draw' and n < 3:
        need = 'three corners or more'
    elif edit.action == 'merge' and max(n, len(edit.labels)) < 2:
        need = 'two labels or positions'
    elif edit.action != 'draw' and not n and not edit.labels:
        need = 'labels or positions'
    else:
        return
    msg = f'edits: {describe(edit)!r} needs {need}'
    raise ValueError(msg)


def _of_table(table, image):
    """Rows of text or numbers."""
    if 'action' not in table.colnames:
        msg = f'edits: no column action; there are {table.colnames}'
        raise ValueError(msg)
    names = [name for name in COLUMNS if name in table.colnames]
    for row in table:
        cell = dict.fromkeys(COLUMNS, '') | {
            name: '' if np.ma.is_masked(row[name]) else str(row[name]).strip()
            for name in names}
        try:
            labels = tuple(int(one) for one in _words(cell['labels']))
            x, y, ra, dec = ([float(one) for one in _words(cell[name])]
                             for name in ('x', 'y', 'ra', 'dec'))
            if ra and image.wcs is not None:
                points = _points(SkyCoord(ra, dec, unit='deg'), image)
            else:
                points = np.stack([x, y], axis=-1).reshape(-1, 2)
        except ValueError as err:
            text = ' '.join(filter(None, cell.values()))
            msg = f'edits: {text!r}: {err}'
            raise ValueError(msg) from err
        yield Edit(cell['action'], labels, points, cell['class'])


def _words(text):
    """Words with spaces or commas between."""
    return text.replace(',', ' ').split()


def _points(value, image):
    """(n, 2) x and y of points on the image or on the sky."""
    if isinstance(value, SkyCoord):
        # rounded, so that what is on the sky and back has the same pixels
        return np.round(np.stack(sky_to_pixels(image, value), axis=-1),
                        2).reshape(-1, 2)
    points = np.asarray(value, float)
    if points.ndim != 2 or points.shape[1] != 2:
        msg = f'edits: points must be pairs (x, y), got {value!r:.60}'
        raise ValueError(msg)
    return points


def _of_keywords(actions, result):
    """Edits that were written as ``action=value``."""
    found = []
    for action, value in actions.items():
        if action not in ACTIONS:
            msg = f'edit has no argument {action!r}'
            raise TypeError(msg)
        if action == 'merge':
            nested = len(value) and np.ndim(value[0]) > 0
            found += [Edit(action, _integers(one))
                      for one in (value if nested else [value])]
        elif action == 'draw':
            items = value.items() if isinstance(value, Mapping) else (
                [('', value)])
            found += [Edit(action, (), _points(points, result.image), name)
                      for name, points in items]
        elif not isinstance(value, Mapping):
            found += [Edit(action, (one,)) for one in _integers(value)]
        elif action == 'reclassify':
            found += [Edit(action, _integers(label), name=name)
                      for label, name in value.items()]
        else:
            for label, points in value.items():
                points = _points(points, result.image)
                if action == 'split':
                    _check_inside(points, label, result)
                found.append(Edit(action, _integers(label), points))
    return found


def _integers(value):
    """Labels as a tuple of int."""
    labels = np.atleast_1d(value)
    if labels.dtype.kind not in 'iu' or labels.ndim > 1:
        msg = f'edits: labels must be int, got {value!r}'
        raise TypeError(msg)
    return tuple(labels.tolist())


def _check_inside(points, label, result):
    """Raise unless there are two points or more, all in a label."""
    labels = result.segmentation_image.data
    if len({tuple(np.floor(point + 0.5)) for point in points}) < 2 or any(
            label_at(labels, point) != label for point in points):
        msg = (f'edits: split of {label} needs two points or more in '
               f'different pixels of it, got {points.tolist()}')
        raise ValueError(msg)


def label_at(labels, point):
    """The label of a map (y, x) at a point (x, y); 0 is none."""
    if not np.isfinite(point).all():
        return 0
    x, y = np.floor(np.asarray(point) + 0.5).astype(int)
    ny, nx = labels.shape
    return int(labels[y, x]) if 0 <= x < nx and 0 <= y < ny else 0


def _of_regions(regions, result):
    """
    What the texts of regions say; without, a line is a cut, an area a new
    object, and the label of an area that this package wrote no edit.
    """
    found, places = [], {}
    for region in regions:
        text = str(region.meta.get('text', ''))
        words = text.split()
        if words and words[0].isdigit():
            continue
        name = (words.pop() if words and words[-1] in result.class_names[1:]
                else '')
        action = words.pop(0) if words and words[0] in ACTIONS else ''
        if isinstance(region, SkyRegion):
            if result.image.wcs is None:
                msg = 'edits: regions are on the sky, the image has no WCS'
                raise ValueError(msg)
            region = region.to_pixel(result.image.wcs)
        is_point = isinstance(region, PointPixelRegion)
        if words and not (action and is_point) or is_point and not (
                action or name):
            msg = (f'edits: the text of a region must be an action '
                   f'({", ".join(ACTIONS)}), a class or both, got {text!r}')
            raise ValueError(msg)
        if is_point:        # those of one text are one edit
            owner = action == 'split' and label_at(
                result.segmentation_image.data, region.center.xy)
            places.setdefault((action or 'reclassify', text, name, owner),
                              []).append(region.center.xy)
        elif isinstance(region, LinePixelRegion):
            found.append(Edit('cut', (), np.array(
                [region.start.xy, region.end.xy], float), name))
        elif action in ('', 'draw'):
            found.append(Edit('draw', (), _corners(region), name))
        else:
            table = result.table
            inside = region.contains(PixCoord(
                np.asarray(table['x_centroid']),
                np.asarray(table['y_centroid'])))
            found.append(Edit(action, tuple(table['label'][inside].tolist()),
                              name=name))
    return found + [Edit(action, (), np.array(points, float), name)
                    for (action, _, name, _), points in places.items()]


def _corners(region):
    """(n, 2) corners of an area."""
    if isinstance(region, PolygonPixelRegion):
        return np.stack(region.vertices.xy, axis=-1).astype(float)
    if isinstance(region, RectanglePixelRegion):
        return np.array(region.corners, float)
    angle = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    if isinstance(region, CirclePixelRegion):
        a = b = region.radius
        turn = 0.0
    elif isinstance(region, EllipsePixelRegion):
        a, b = region.width / 2, region.height / 2
        turn = region.angle.to_value('rad')
    else:
        msg = (f'edits: a {type(region).__name__} cannot be drawn; polygons, '
               f'circles, ellipses and boxes can')
        raise ValueError(msg)
    x, y = a * np.cos(angle), b * np.sin(angle)
    return np.stack([region.center.x + x * np.cos(turn) - y * np.sin(turn),
                     region.center.y + x * np.sin(turn) + y * np.cos(turn)],
                    axis=-1)
