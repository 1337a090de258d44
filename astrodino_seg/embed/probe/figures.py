# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Figures of probes. Need matplotlib (extra ``plot``).
"""

import numpy as np

from astrodino_seg.embed.vectors import vectors_of
from astrodino_seg.errors import require

__all__ = ['plot_confusion', 'plot_tsne', 'tsne']


def tsne(vectors, *, perplexity=30.0, seed=0):
    """
    Place vectors in a plane (van der Maaten & Hinton 2008, JMLR 9, 2579).

    Parameters
    ----------
    vectors : array_like or `~astropy.table.Table`
        (n, d), or a table with a column ``embedding``; all rows have one.
    perplexity : float, optional
        About how many neighbours each point has; at most a third of the
        points are taken.
    seed : int, optional
        Seed of the optimisation.

    Returns
    -------
    points : `~numpy.ndarray`
        (n, 2) float32.

    Raises
    ------
    ValueError
        If there are fewer than four vectors, or a row has none.
    ImportError
        If scikit-learn cannot be imported.
    """
    vectors, good = vectors_of(vectors)
    if len(vectors) < 4 or not good.all():
        msg = (f'vectors: t-SNE needs 4 rows or more that all have one, got '
               f'{good.sum()} of {len(good)}')
        raise ValueError(msg)
    manifold = require('sklearn.manifold', 'probe')
    return manifold.TSNE(
        perplexity=min(perplexity, (len(vectors) - 1) / 3), init='pca',
        random_state=seed).fit_transform(vectors)


def plot_tsne(points, labels, classes, *, width=7):
    """
    Points coloured by their class.

    Parameters
    ----------
    points : `~numpy.ndarray`
        (n, 2), of `tsne`.
    labels : `~numpy.ndarray`
        (n,) int, positions in ``classes``.
    classes : sequence of str
        The names of the classes.
    width : float, optional
        Width of the figure in inches.

    Returns
    -------
    figure : `~matplotlib.figure.Figure`
        The figure; no window is opened.
    """
    figure_module = require('matplotlib.figure', 'plot')
    colormaps = require('matplotlib', 'plot').colormaps
    figure = figure_module.Figure(figsize=(width, 0.75 * width),
                                  layout='constrained')
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
    """
    The confusion matrix of a probe.

    Parameters
    ----------
    result : `ProbeResult`
        The probe.
    width : float, optional
        Width of the figure in inches.

    Returns
    -------
    figure : `~matplotlib.figure.Figure`
        Shares of each true class (rows, which sum to 1), in per cent; no
        window is opened.
    """
    figure_module = require('matplotlib.figure', 'plot')
    counts = result.confusion
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = figure_module.Figure(figsize=(width, 0.9 * width),
                                  layout='constrained')
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
