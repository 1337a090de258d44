# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Run a semantic model over an image, and label the regions of each class.

What touches and is of one class is one label: to tell such objects from one
another takes the grouping head.
"""

import numpy as np
import torch
from skimage.measure import label as label_regions
from torch.nn import functional as F
from tqdm import tqdm

from astrodino_seg.predict.decode import Grouping
from astrodino_seg.predict.tiles import CONTEXT, taper, tiles

__all__ = ['predict_classes', 'segment_classes']


def predict_classes(model, planes, *, bin_factor=1, tile_size=512,
                    device='cpu', progress=False):
    """
    Class probabilities of an image of any size.

    A larger image is cut into tiles, whose probabilities are averaged where
    they overlap.

    Parameters
    ----------
    model : `~astrodino_seg.models.semantic.SemanticModel`
        The model, on ``device``.
    planes : `~numpy.ndarray`
        (plane, y, x) float32 of its rule.
    bin_factor : int, optional
        What the scales of the model are divided by.
    tile_size : int, optional
        Largest side of the tiles in pixels, a multiple of 16.
    device : str, optional
        Where the network runs.
    progress : bool, optional
        Whether to show a progress bar over the tiles.

    Returns
    -------
    probabilities : `~numpy.ndarray`
        (4, y, x) float32: sky, star, galaxy, artifact.
    """
    _, ny, nx = planes.shape
    patch = model.vit.patch_size        # tiles are of whole patches
    x = torch.from_numpy(planes)[None]
    x = F.pad(x, (0, -nx % patch, 0, -ny % patch), mode='replicate')
    shape = tuple(x.shape[2:])
    total = torch.zeros(4, *shape)
    weights = torch.zeros(shape)
    cut = tiles(shape, size=tile_size // patch * patch,
                margin=CONTEXT // patch * patch, step=patch)
    for tile in tqdm(cut, disable=not progress, desc='segmenting',
                     unit='tile', leave=False):
        with torch.inference_mode():
            part = model.probabilities(x[:, :, *tile.outer].to(device),
                                       1 / bin_factor)[0].cpu()
        weight = torch.from_numpy(taper(tile, shape, step=1))
        total[:, *tile.outer] += weight * part
        weights[tile.outer] += weight
    return (total / weights)[:, :ny, :nx].numpy()


def segment_classes(probabilities, *, n_pixels=5, connectivity=8, keep=None,
                    mask=None):
    """
    Label the connected regions of each class.

    Parameters
    ----------
    probabilities : `~numpy.ndarray`
        (4, y, x) of `predict_classes`.
    n_pixels : int, optional
        Smaller regions are dropped.
    connectivity : {8, 4}, optional
        How pixels are connected.
    keep : callable, optional
        As of `~astrodino_seg.predict.decode.segment_maps`.
    mask : `~numpy.ndarray`, optional
        (y, x) bool; these pixels stay 0.

    Returns
    -------
    grouping : `~astrodino_seg.predict.decode.Grouping`
        The labels. Nothing was grouped: each object is one fragment, and its
        confidence is NaN.
    classes : `~numpy.ndarray`
        (n_objects, 3) mean probabilities of star, galaxy and artifact over
        the pixels of each label, which sum to 1.
    """
    called = probabilities.argmax(axis=0)
    if mask is not None:
        called[mask] = 0
    labels, n = label_regions(called, background=0, return_num=True,
                              connectivity=2 if connectivity == 8 else 1)
    wanted = np.bincount(labels.ravel(), minlength=n + 1)[1:] >= n_pixels
    if keep is not None:
        wanted &= keep(labels, n)
    number = np.zeros(n + 1, np.int32)
    number[1:][wanted] = np.arange(1, wanted.sum() + 1)
    labels, n = number[labels], int(wanted.sum())
    classes = np.stack([np.bincount(labels.ravel(), p.ravel(), n + 1)[1:]
                        for p in probabilities[1:]], axis=-1)
    classes /= classes.sum(axis=1, keepdims=True)
    grouping = Grouping(labels, labels.copy(), {}, np.arange(n),
                        np.full(n, np.nan), np.ones(n, int))
    return grouping, classes
