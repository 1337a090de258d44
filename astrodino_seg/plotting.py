# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Figures: pictures with outlines, classes, attention and benchmarks.

They need matplotlib (extra ``plot``). Each is a `~matplotlib.figure.Figure`;
no window is opened. Pictures are (y, x, 3) uint8, labels (y, x) int, and zooms
(x0, x1, y0, y1) in pixels.
"""

import os
from collections.abc import Mapping
from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike
from scipy.ndimage import binary_dilation
from skimage.segmentation import find_boundaries

from astrodino_seg.errors import require
from astrodino_seg.files import whole_or_not
from astrodino_seg.image import as_image
from astrodino_seg.inputs.channels import rgb_image
from astrodino_seg.truth import CLASSES

__all__ = ['plot_segmentations', 'rgb_image', 'save_figure']

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WHITE, ORANGE = (255, 255, 255), (255, 130, 40)
#: Colours of classes; sky has none.
COLOURS = ((70, 140, 255), (255, 90, 60), (60, 220, 120), (240, 200, 60),
           (190, 110, 240), (90, 220, 230), (240, 130, 190), (170, 150, 100))


def class_colours(names=CLASSES):
    """The colour of each class but the sky; from the ninth on once more."""
    return dict(zip(names[1:], cycle(COLOURS)))


def _figure(width, height):
    # Figure alone, without pyplot, leaves the user's backend as it is
    return require('matplotlib.figure', 'plot').Figure(
        figsize=(width, height), layout='constrained')


def _part(rgb, zoom):
    """Slices of a zoom, or of all, its extent for imshow, and ny / nx."""
    x0, x1, y0, y1 = zoom or (0, rgb.shape[1], 0, rgb.shape[0])
    return (np.s_[y0:y1, x0:x1], (x0 - .5, x1 - .5, y0 - .5, y1 - .5),
            (y1 - y0) / (x1 - x0))


def _show(axis, picture, title='', extent=None):
    axis.imshow(picture, origin='lower', extent=extent,
                interpolation='nearest')
    axis.set_title(title)


def _count(labels):
    return len(np.unique(labels[labels > 0]))


def outline_rgb(rgb, labels, *, reference=None):
    """
    A copy of a picture with the outlines of labels; with ``reference`` labels,
    those more than two pixels away from one of theirs are orange.
    """
    out = rgb.copy()
    # every label's own inner edge, so that neighbours are told apart
    edges = find_boundaries(labels, mode='inner')
    out[edges] = WHITE
    if reference is not None:
        known = find_boundaries(reference, mode='thick')
        known = binary_dilation(known, np.ones((3, 3)), iterations=2)
        out[edges & ~known] = ORANGE
    return out


def plot_segmentations(rgb: np.ndarray,
                       segmentations: Mapping[str, ArrayLike | None], *,
                       zoom: tuple[int, int, int, int] | None = None,
                       columns: int | None = None, width: float = 7,
                       reference: str | None = None) -> 'Figure':
    """
    A colour picture beside the same picture with outlines.

    Parameters
    ----------
    rgb : `~numpy.ndarray`
        (y, x, 3) uint8.
    segmentations : dict of str to `~numpy.ndarray`
        Title to (y, x) labels, or to `None` where nothing was found.
    zoom : tuple of int, optional
        (x0, x1, y0, y1) in pixels.
    columns : int, optional
        Panels a row; all in one row if `None`.
    width : float, optional
        Width of a panel in inches.
    reference : str, optional
        A title; the outlines of the others that it does not have are orange.

    Returns
    -------
    figure : `~matplotlib.figure.Figure`
        The figure; no window is opened.
    """
    n = len(segmentations) + 1
    columns = columns or n
    rows = -(-n // columns)
    part, extent, ratio = _part(rgb, zoom)
    figure = _figure(columns * width, rows * (width * ratio + 0.4))
    axes = np.atleast_1d(figure.subplots(rows, columns)).ravel()
    _show(axes[0], rgb[part], extent=extent)
    other = segmentations.get(reference or '')
    other = None if other is None else np.asarray(other)[part]
    for axis, (title, labels) in zip(axes[1:], segmentations.items()):
        shown = (np.zeros(rgb.shape[:2], int) if labels is None
                 else np.asarray(labels))[part]
        _show(axis, outline_rgb(rgb[part], shown, reference=other),
              f'{title}: {_count(shown)} labels', extent)
    for axis in axes[n:]:
        axis.remove()
    return figure


def plot_closeups(rgb, segmentations, zooms):
    """
    One row a zoom: the picture, then each label map's outlines on it, orange
    where the first of the maps, a dict by title, does not have them.
    """
    shape = len(zooms), len(segmentations) + 1
    figure = _figure(shape[1] * 3, shape[0] * 3.3)
    axes = figure.subplots(*shape, squeeze=False)
    first = next(iter(segmentations.values()))
    for row, zoom in zip(axes, zooms):
        part, extent, _ = _part(rgb, zoom)
        _show(row[0], rgb[part], extent=extent)
        for axis, (title, labels) in zip(row[1:], segmentations.items()):
            labels = labels[part]
            _show(axis, outline_rgb(rgb[part], labels, reference=first[part]),
                  f'{title}: {_count(labels)}', extent)
        for axis in row:
            axis.tick_params(labelsize='x-small')
    return figure


def class_rgb(rgb, class_map, names=CLASSES):
    """
    A copy of a picture in the colours of (y, x) classes, indices into their
    names: the first, sky, is left grey, others have half of a pixel's colour.
    """
    grey = np.broadcast_to(rgb.mean(axis=-1, keepdims=True), rgb.shape)
    colours = np.array([(0, 0, 0), *class_colours(names).values()])[class_map]
    mixed = np.where(class_map[..., None] > 0, (grey + colours) / 2, grey)
    return mixed.astype(np.uint8)


def plot_classes(rgb, class_map, labels, *, names=CLASSES, zoom=None,
                 width=5):
    """Picture, classes as of `class_rgb`, and outlines of whole objects."""
    part, extent, ratio = _part(rgb, zoom)
    labels, picture = np.asarray(labels)[part], rgb[part]
    shares = np.bincount(class_map[part][labels > 0],
                         minlength=len(names))[1:]
    shares = shares / max(shares.sum(), 1)
    title = ', '.join(f'{name} {share:.0%}' for name, share in
                      zip(names[1:], shares))
    figure = _figure(3 * width, width * ratio + 0.4)
    plain, classes, objects = figure.subplots(1, 3)
    _show(plain, picture, extent=extent)
    _show(classes, class_rgb(picture, class_map[part], names), title, extent)
    _show(objects, outline_rgb(picture, labels), f'{_count(labels)} labels',
          extent)
    return figure


def plot_attention(rgb, heads, masks, combined, *, columns=6, width=2.5):
    """
    Attention maps (head, y, x) above the picture in their masks (head, y, x);
    first the picture, and the same in the ``combined`` (y, x) labels.
    """
    columns = min(columns, len(heads))
    rows = 2 * -(-len(heads) // columns)
    figure = _figure((columns + 1) * width,
                     rows * (width * _part(rgb, None)[2] + 0.3))
    axes = figure.subplots(rows, columns + 1, squeeze=False)

    def inside(mask):
        dark = np.where(mask[..., None], rgb, rgb // 3)
        return outline_rgb(dark, mask.astype(int))

    for axis in axes.flat:
        axis.set_axis_off()
    _show(axes[0, 0], rgb)
    _show(axes[1, 0], inside(np.asarray(combined) > 0), 'mean')
    for k, (weights, mask) in enumerate(zip(heads, masks)):
        row, column = 2 * (k // columns), k % columns + 1
        _show(axes[row, column], weights, f'head {k + 1}')
        _show(axes[row + 1, column], inside(mask))
    return figure


def plot_benchmark(tables):
    """
    The main results of `benchmark_tables`: large galaxies that come out right
    against companions kept apart; F1 against IoU; the first by kind.
    """
    figure = _figure(15, 5)
    both, curves, kinds = figure.subplots(1, 3)
    for k, row in enumerate(tables['scores']):
        # ten colours, then the same with other markers and dashes
        style = {'color': f'C{k % 10}', 'marker': 'os^'[k // 10 % 3],
                 'linestyle': 'none'}
        ends = [[[row[x] - row[f'{x}_low']], [row[f'{x}_high'] - row[x]]]
                for x in ('sep', 'ok')]
        both.errorbar(row['sep'], row['ok'], *ends[::-1], **style,
                      label=row['finder'])
        one = tables['curve'][tables['curve']['finder'] == row['finder']]
        curves.plot(one['iou'], one['f1'], color=style['color'],
                    linestyle=('-', '--', ':')[k // 10 % 3])
        curves.fill_between(one['iou'], one['f1_low'], one['f1_high'],
                            color=style['color'], alpha=0.2, lw=0)
        if 'kind' in tables['bins'].colnames:
            part = tables['bins'][(tables['bins']['finder'] == row['finder'])
                                  & (tables['bins']['by'] == 'kind')]
            kinds.errorbar(part['kind'].tolist(), part['ok'],
                           [part['ok'] - part['ok_low'],
                            part['ok_high'] - part['ok']], **style)
    both.set(xlabel='companions kept apart (sep)', xlim=(0, 1), ylim=(0, 1),
             ylabel='large galaxies right (ok)')
    both.legend(fontsize='small')
    curves.set(xlabel='IoU', ylabel='F1', ylim=(0, 1))
    kinds.set(ylabel='ok', ylim=(0, 1))
    kinds.tick_params(axis='x', rotation=45)
    return figure


def save_figure(figure: 'Figure', path: str | os.PathLike, *,
                dpi: float = 100) -> None:
    """Write a figure; the file appears whole or not at all."""
    with whole_or_not(path) as part:
        figure.savefig(part, dpi=dpi)


def plot_tsne(points, labels, classes):
    """Points (n, 2) coloured by their class, of labels (n,) int."""
    colormaps = require('matplotlib', 'plot').colormaps
    figure = _figure(7, 5.25)
    axis = figure.subplots()
    colours = colormaps['tab10' if len(classes) <= 10 else 'turbo']
    step = 1 if len(classes) <= 10 else colours.N / len(classes)
    for k, name in enumerate(classes):
        own = np.asarray(points)[np.asarray(labels) == k]
        axis.scatter(*own.T, s=9, color=colours(int(k * step)),
                     label=f'{name} ({len(own)})')
    axis.set(xticks=[], yticks=[], aspect='equal')
    figure.legend(loc='outside right center', fontsize='small',
                  frameon=False)
    return figure


def plot_confusion(result, *, width=7):
    """The confusion matrix of a probe."""
    counts = result.confusion
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = _figure(width, 0.9 * width)
    axis = figure.subplots()
    axis.imshow(shares, cmap='Blues', vmin=0, vmax=1)
    for (row, column), share in np.ndenumerate(shares):
        axis.text(column, row, f'{100 * share:.0f}', ha='center',
                  va='center', color='white' if share > 0.6 else 'black',
                  fontsize='small')
    where = np.arange(len(result.classes))
    axis.set_xticks(where, result.classes, rotation=45, ha='right')
    axis.set_yticks(where, result.classes)
    low, high = result.interval()
    axis.set(xlabel='predicted', ylabel='true',
             title=f'{result.name}: top-1 {100 * result.accuracy:.1f}% '
                   f'({100 * low:.1f} to {100 * high:.1f})')
    return figure


def plot_neighbours(images, found, *, n_queries=6):
    """
    Pictures of the first queries, rows of the table, each followed by what was
    ``found`` for it by `similar`; ``images`` are what the table was made of.
    """
    names = list(dict.fromkeys(np.asarray(found['query']).tolist()))
    names = names[:n_queries]
    columns = 1 + int(np.max(found['rank']))
    figure = _figure(columns * 1.6, len(names) * 1.8)
    axes = figure.subplots(len(names), columns, squeeze=False)
    for line, name in zip(axes, names):
        part = found[np.asarray(found['query']) == name]
        shown = [(name, f'row {name}')] + [
            (row, f'{value:.3f}') for row, value in
            zip(part['row'], part['similarity'])]
        for axis, (row, title) in zip(line, shown):
            _show(axis, _picture(images, int(row)))
            axis.set_title(title, fontsize='small')
        for axis in line:
            axis.axis('off')
    return figure


def _picture(images, row):
    """A picture whose first row is the lowest."""
    if hasattr(images, 'rgb'):
        return images.rgb(row)[::-1]
    image = images[row]
    if image is None:
        return np.zeros((1, 1, 3), np.uint8)
    return rgb_image(as_image(image))
