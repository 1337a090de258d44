# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Figures of what a network sees. Need matplotlib (extra ``plot``).
"""

import numpy as np

from astrodino_seg.errors import require
from astrodino_seg.plotting import outline_rgb

__all__ = ['class_rgb', 'plot_attention', 'plot_classes']

#: Colour of each class of `~astrodino_seg.SegmentationResult`; sky has none.
CLASS_COLOURS = {'star': (70, 140, 255), 'galaxy': (255, 90, 60),
                 'artifact': (60, 220, 120)}


def plot_attention(rgb, heads, masks, combined, *, columns=6, width=2.5):
    """
    Attention maps above the masks that come from them.

    Parameters
    ----------
    rgb : `~numpy.ndarray`
        (y, x, 3) uint8.
    heads : `~numpy.ndarray`
        (head, y, x) weights.
    masks : `~numpy.ndarray`
        (head, y, x) bool.
    combined : `~numpy.ndarray`
        (y, x) labels of all heads together.
    columns : int, optional
        Heads a row.
    width : float, optional
        Width of a panel in inches.

    Returns
    -------
    figure : `~matplotlib.figure.Figure`
        In the first column the picture, and the same with what is not in
        ``combined`` darkened; then each map, and below it the picture with
        what is not in its mask darkened. No window is opened.
    """
    figure_module = require('matplotlib.figure', 'plot')
    columns = min(columns, len(heads))
    rows = 2 * -(-len(heads) // columns)
    height = width * rgb.shape[0] / rgb.shape[1] + 0.3
    figure = figure_module.Figure(
        figsize=((columns + 1) * width, rows * height), layout='constrained')
    axes = figure.subplots(rows, columns + 1, squeeze=False)

    def show(axis, picture, title=''):
        axis.imshow(picture, origin='lower', interpolation='nearest')
        axis.set_title(title)

    def inside(mask):
        dark = np.where(mask[..., None], rgb, rgb // 3)
        return outline_rgb(dark, mask.astype(int))

    for axis in axes.flat:
        axis.set_axis_off()
    show(axes[0, 0], rgb)
    show(axes[1, 0], inside(np.asarray(combined) > 0), 'mean')
    for k, (weights, mask) in enumerate(zip(heads, masks)):
        row, column = 2 * (k // columns), k % columns + 1
        show(axes[row, column], weights, f'head {k + 1}')
        show(axes[row + 1, column], inside(mask))
    return figure


def class_rgb(rgb, class_map):
    """
    Colour the pixels of a picture by their class.

    Parameters
    ----------
    rgb : `~numpy.ndarray`
        (y, x, 3) uint8.
    class_map : `~numpy.ndarray`
        (y, x) int: 0 sky, 1 star, 2 galaxy, 3 artifact.

    Returns
    -------
    rgb : `~numpy.ndarray`
        A copy; the sky is left grey, and elsewhere half of the colour is that
        of the class.
    """
    grey = np.broadcast_to(rgb.mean(axis=-1, keepdims=True), rgb.shape)
    colours = np.array([(0, 0, 0), *CLASS_COLOURS.values()])[class_map]
    mixed = np.where(class_map[..., None] > 0, (grey + colours) / 2, grey)
    return mixed.astype(np.uint8)


def plot_classes(rgb, class_map, labels, *, zoom=None, width=5):
    """
    The class of each pixel beside whole objects, as labels.

    Parameters
    ----------
    rgb : `~numpy.ndarray`
        (y, x, 3) uint8.
    class_map : `~numpy.ndarray`
        (y, x) int: 0 sky, 1 star, 2 galaxy, 3 artifact.
    labels : `~numpy.ndarray`
        (y, x) int; 0 is no object.
    zoom : tuple of int, optional
        (x0, x1, y0, y1) in pixels.
    width : float, optional
        Width of a panel in inches.

    Returns
    -------
    figure : `~matplotlib.figure.Figure`
        Picture, classes and outlines of labels; no window is opened.
    """
    figure_module = require('matplotlib.figure', 'plot')
    x0, x1, y0, y1 = zoom or (0, rgb.shape[1], 0, rgb.shape[0])
    part = (slice(y0, y1), slice(x0, x1))
    labels, picture = np.asarray(labels)[part], rgb[part]
    shares = np.bincount(class_map[part][labels > 0], minlength=4)[1:]
    shares = shares / max(shares.sum(), 1)
    title = ', '.join(f'{name} {share:.0%}' for name, share in
                      zip(CLASS_COLOURS, shares))
    height = width * (y1 - y0) / (x1 - x0) + 0.4
    figure = figure_module.Figure(figsize=(3 * width, height),
                                  layout='constrained')
    extent = (x0 - .5, x1 - .5, y0 - .5, y1 - .5)
    panels = {'': picture, title: class_rgb(picture, class_map[part]),
              f'{len(np.unique(labels[labels > 0]))} labels': outline_rgb(
                  picture, labels)}
    for axis, (title, shown) in zip(figure.subplots(1, 3), panels.items()):
        axis.imshow(shown, origin='lower', extent=extent,
                    interpolation='nearest')
        axis.set_title(title)
    return figure
