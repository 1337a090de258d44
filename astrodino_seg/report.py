# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Label maps and their tables as one HTML page, which needs no network. Labels
are deflated int32: a browser that blurs what a page reads of pictures, against
fingerprints, would change labels that came as a picture.
"""

import base64
import hashlib
import io
import json
import zlib
from html import escape
from pathlib import Path
from string import Template

import numpy as np
from astropy import units as u
from astropy.table import QTable
from astropy.table.serialize import represent_mixins_as_columns
from PIL import Image as Picture
from skimage.measure import block_reduce

from astrodino_seg.catalog import centroids
from astrodino_seg.files import whole_or_not
from astrodino_seg.plotting import class_colours, rgb_image
from astrodino_seg.truth import CLASSES

#: A larger image is shown binned.
MAX_SIDE = 2048


def write_report(path, image, rgb, maps, tables, *, title, class_map=None,
                 class_names=CLASSES, edits=False, lines=(),
                 max_side=MAX_SIDE):
    """
    Write the page: of ``rgb`` (y, x, 3) uint8, ``maps``, (y, x) int labels by
    name, 0 and less being sky, and ``tables`` by the same names, with a column
    ``label``. ``class_map`` is (y, x) uint8 of ``class_names``; ``edits``
    tells whether the first map can be edited; an image of a side above
    ``max_side`` is shown binned.
    """
    factor = max(-(-max(rgb.shape[:2]) // max_side), 1)
    picture = bin_picture(rgb, factor)
    first = next(iter(tables.values()))
    words = [word.split('=') for word in
             first.meta.get('flags', '').split(', ') if word]
    data = {
        'title': title, 'lines': list(lines), 'factor': factor,
        'shape': picture.shape[:2], 'edits': edits,
        'arcsec': None if image.wcs is None else float(np.mean(
            [side.to_value('arcsec') for side in
             image.wcs.proj_plane_pixel_scales()])),
        'bands': image.bands,
        'flags': {name: int(bit) for name, bit in words},
        'classes': class_colours(class_names), 'picture': _png(picture),
        'class_map': None if class_map is None else _deflated(
            bin_labels(class_map, factor)),
        'maps': [{'name': name, 'columns': plain_columns(tables[name]),
                  'labels': _deflated(bin_labels(labels, factor))}
                 for name, labels in maps.items()]}
    # a script ends at the first </script>, even within a string
    text = json.dumps(data, allow_nan=False).replace('<', '\\u003c')
    page, style, script = (
        (Path(__file__).parent / 'data' / f'report.{kind}').read_text('utf-8')
        for kind in ('html', 'css', 'js'))
    html = Template(page).substitute(
        title=escape(title), style=style, script=script, data=text,
        style_hash=_hash(style), script_hash=_hash(script))
    with whole_or_not(path) as part:
        part.write_text(html, 'utf-8', newline='')


def report_result(result, path, *, others, title, lines):
    """Write the page of a `~astrodino_seg.SegmentationResult`."""
    image = result.image
    maps = {'labels': result.segmentation_image.data,
            'fragments': result.fragments.data}
    for name, labels in others.items():
        if labels is None:
            continue
        maps[name] = np.asarray(labels)
        if maps[name].shape != image.shape:
            msg = (f'others: {name!r} must have the shape of the image, '
                   f'{image.shape}, got {maps[name].shape}')
            raise ValueError(msg)
    tables = {name: result.table if name == 'labels' else measure_labels(
        labels, image, result.background) for name, labels in maps.items()}
    parent = result.fragments.deblended_label_to_parent
    pieces = tables['fragments']
    pieces.add_column([parent.get(label, label) for label in
                       pieces['label'].tolist()], 1, 'parent')
    write_report(path, image,
                 rgb_image(image, result.background, result.noise), maps,
                 tables, title=title, class_map=result.class_map,
                 class_names=result.class_names, edits=True, lines=lines)


def measure_labels(labels, image, background):
    """
    Measure (y, x) int labels of any tool, of which 0 and less are sky: a table
    of ``label``, ``area``, ``x_centroid``, ``y_centroid`` (of the light of all
    bands) and ``flux_<band>`` less the (band, y, x) background.
    """
    where = np.flatnonzero(labels > 0)
    values, index = np.unique(labels.ravel()[where], return_inverse=True)

    def total(weights=None):
        return np.bincount(index, weights, minlength=len(values))

    light = np.where(image.mask, 0, image.cube - background).reshape(
        image.n_bands, -1)[:, where]
    x, y = centroids(light.sum(axis=0, dtype=float), 1e-30, where,
                      image.shape, total)
    unit = 1 if image.unit is None else image.unit
    table = QTable({'label': values, 'area': total() * u.pix**2,
                    'x_centroid': x, 'y_centroid': y})
    for band, plane in zip(image.bands, light):
        table[f'flux_{band}'] = total(plane) * unit
    return table


def bin_picture(rgb, factor):
    """Means of blocks; the far edges are padded to whole blocks."""
    padding = [(0, -n % factor) for n in rgb.shape[:2]]
    rgb = np.pad(rgb, [*padding, (0, 0)], mode='edge')
    return block_reduce(rgb, (factor, factor, 1), np.mean).round().astype(
        np.uint8)


def bin_labels(labels, factor):
    """
    Labels of blocks: the one of the fewest pixels in all, so that what is
    small is not lost beside what is large, or sky.
    """
    if factor == 1:
        return labels.clip(0)
    values, index, area = np.unique(labels, return_inverse=True,
                                    return_counts=True)
    area[values <= 0] = labels.size + 1
    order = np.argsort(-area, kind='stable')
    rank = np.argsort(order)
    rank = rank[index].reshape(labels.shape)
    return values[order][block_reduce(rank, factor, np.max)].clip(0)


def plain_columns(table):
    """Columns of numbers and texts, named as in ECSV; what is NaN is none."""
    out = []
    for column in represent_mixins_as_columns(QTable(table)).itercols():
        if column.ndim > 1:
            continue
        values = column.tolist()
        if column.dtype.kind == 'f':
            digits = 7 if column.dtype.itemsize == 4 else 12
            values = [float(f'{value:.{digits}g}') if value is not None
                      and np.isfinite(value) else None for value in values]
        out.append({'name': column.name, 'values': values,
                    'unit': None if column.unit is None
                    else str(column.unit)})
    return out


def _png(rgb):
    """The first row of an image is its lowest, of a picture its upper."""
    stream = io.BytesIO()
    Picture.fromarray(np.ascontiguousarray(rgb[::-1])).save(stream, 'PNG')
    return _text(stream.getvalue())


def _deflated(labels):
    upper_first = np.ascontiguousarray(labels[::-1], '<i4')
    return _text(zlib.compress(upper_first.tobytes()))


def _hash(text):
    return 'sha256-' + _text(hashlib.sha256(text.encode()).digest())


def _text(data):
    return base64.b64encode(data).decode()
