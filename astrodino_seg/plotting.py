# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Pictures of images and label maps. Needs matplotlib (extra ``plot``).
"""

import os
from pathlib import Path

import numpy as np
from scipy.ndimage import binary_dilation
from skimage.segmentation import find_boundaries

from astrodino_seg.errors import require
from astrodino_seg.inputs.rgb import rgb_image

__all__ = ['outline_rgb', 'plot_benchmark', 'plot_closeups',
           'plot_segmentations', 'rgb_image', 'save_figure']

WHITE, ORANGE = (255, 255, 255), (255, 130, 40)


def outline_rgb(rgb, labels, colour=WHITE, *, reference=None):
    """
    Draw the outlines of labels into a picture.

    Parameters
    ----------
    rgb : `~numpy.ndarray`
        (y, x, 3) uint8.
    labels : `~numpy.ndarray`
        (y, x) int.
    colour : tuple of int, optional
        Of the outlines.
    reference : `~numpy.ndarray`, optional
        (y, x) labels; outlines more than two pixels away from one of theirs
        are orange.

    Returns
    -------
    rgb : `~numpy.ndarray`
        A copy with outlines.
    """
    out = rgb.copy()
    # every label's own inner edge, so that neighbours are told apart
    edges = find_boundaries(labels, mode='inner')
    out[edges] = colour
    if reference is not None:
        known = find_boundaries(reference, mode='thick')
        known = binary_dilation(known, np.ones((3, 3)), iterations=2)
        out[edges & ~known] = ORANGE
    return out


def plot_segmentations(rgb, segmentations, *, zoom=None, columns=None,
                       width=7, reference=None):
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
    # Figure alone, without pyplot, leaves the user's backend as it is
    figure_module = require('matplotlib.figure', 'plot')
    n = len(segmentations) + 1
    columns = columns or n
    rows = -(-n // columns)
    x0, x1, y0, y1 = zoom or (0, rgb.shape[1], 0, rgb.shape[0])
    part = (slice(y0, y1), slice(x0, x1))
    height = width * (y1 - y0) / (x1 - x0) + 0.4
    figure = figure_module.Figure(figsize=(columns * width, rows * height),
                                  layout='constrained')
    axes = np.atleast_1d(figure.subplots(rows, columns)).ravel()
    extent = (x0 - .5, x1 - .5, y0 - .5, y1 - .5)
    panels = {'': (rgb[part], None), **{
        title: (rgb[part], labels) for title, labels in
        segmentations.items()}}
    for axis, (title, (picture, labels)) in zip(axes, panels.items()):
        if title:
            labels = np.zeros(rgb.shape[:2], int) if labels is None else (
                np.asarray(labels))
            shown = labels[part]
            n_shown = len(np.unique(shown[shown > 0]))
            other = segmentations.get(reference)
            picture = outline_rgb(
                picture, shown, reference=None if other is None
                else np.asarray(other)[part])
            title = f'{title}: {n_shown} labels'
        axis.imshow(picture, origin='lower', extent=extent,
                    interpolation='nearest')
        axis.set_title(title)
    for axis in axes[n:]:
        axis.remove()
    return figure


def plot_closeups(rgb, segmentations, zooms, *, width=3):
    """
    One row a place: the picture, then each label map's outlines on it.

    Parameters
    ----------
    rgb : `~numpy.ndarray`
        (y, x, 3) uint8.
    segmentations : dict of str to `~numpy.ndarray`
        Title to (y, x) labels; outlines that the first does not have are
        orange.
    zooms : list of tuple of int
        (x0, x1, y0, y1) in pixels.
    width : float, optional
        Width of a panel in inches.

    Returns
    -------
    figure : `~matplotlib.figure.Figure`
        The figure; no window is opened.
    """
    figure_module = require('matplotlib.figure', 'plot')
    shape = len(zooms), len(segmentations) + 1
    figure = figure_module.Figure(
        figsize=(shape[1] * width, shape[0] * (width + 0.3)),
        layout='constrained')
    axes = figure.subplots(*shape, squeeze=False)
    first = next(iter(segmentations.values()))
    for row, (x0, x1, y0, y1) in zip(axes, zooms):
        part = (slice(y0, y1), slice(x0, x1))
        extent = (x0 - .5, x1 - .5, y0 - .5, y1 - .5)
        row[0].imshow(rgb[part], origin='lower', extent=extent)
        for axis, (title, labels) in zip(row[1:], segmentations.items()):
            labels = labels[part]
            axis.imshow(outline_rgb(rgb[part], labels, reference=first[part]),
                        origin='lower', extent=extent,
                        interpolation='nearest')
            n = len(np.unique(labels[labels > 0]))
            axis.set_title(f'{title}: {n}')
        for axis in row:
            axis.tick_params(labelsize='x-small')
    return figure


def plot_benchmark(tables):
    """
    The main results of a benchmark.

    Parameters
    ----------
    tables : dict of str to `~astropy.table.Table`
        Of `~astrodino_seg.evaluate.benchmark.benchmark_tables`.

    Returns
    -------
    figure : `~matplotlib.figure.Figure`
        Large galaxies that come out right against companions kept apart; F1
        against IoU; and the first of these by kind of galaxy.
    """
    figure_module = require('matplotlib.figure', 'plot')
    figure = figure_module.Figure(figsize=(15, 5), layout='constrained')
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


def save_figure(figure, path, *, dpi=100):
    """Write a figure; the file appears whole or not at all."""
    path = Path(path)
    temporary = path.with_name(f'.{os.getpid()}.{path.name}')
    try:
        figure.savefig(temporary, dpi=dpi)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
