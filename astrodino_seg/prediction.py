# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
From dense maps to seeds and pairs: all that the network says of an image.

What leaves this module is numpy.
"""

from copy import deepcopy
from typing import NamedTuple

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch.nn import functional as F

from astrodino_seg.calibration import read_calibration
from astrodino_seg.heads import Seeds
from astrodino_seg.pairs import pair_features, seed_looks, valleys

__all__ = ['PAIR_REACH', 'WEAK_HEAT', 'Prediction', 'describe_pairs',
           'find_seeds', 'read_prediction', 'seeds_of']

#: Weak seeds, kept for light that no other claims.
WEAK_HEAT = 0.1
#: How far from a seed others are compared with it, in radii of its object
#: (the knots of a large galaxy are far from its centre, and its radius may be
#: told short), and the pixels within which any two are.
PAIR_REACH = 6
NEAR = 24
#: Where the seeds of an image have more others within reach than this, on
#: average, each is compared with so many, the nearest, and with those of whose
#: nearest it is one: there would be millions of pairs.
CROWDED = 100


class Prediction(NamedTuple):
    """
    What the network says of an image. ``S`` seeds, ``P`` pairs of them.

    Attributes
    ----------
    embedding : `~numpy.ndarray`
        (y, x, E) float32.
    sky : `~numpy.ndarray`
        (y, x) float32 score of the sky.
    probabilities : `~numpy.ndarray`
        (4, y, x) float32: sky, star, galaxy, artifact.
    vote : `~numpy.ndarray`
        (y, x, 2) float32 offset (x, y) in pixels to the centre that each
        pixel votes for.
    x, y, heat : `~numpy.ndarray`
        (S,) pixel positions and the probability that a seed is an object's
        centre, in falling order.
    kernel, centre, matrix, falloff : `~numpy.ndarray`
        (S, ...) see `~astrodino_seg.heads.Seeds`.
    radius : `~numpy.ndarray`
        (S,) radius of the object in pixels.
    classes : `~numpy.ndarray`
        (S, 3) probabilities of star, galaxy, artifact.
    pairs : `~numpy.ndarray`
        (P, 2) seed indices, the first smaller.
    same : `~numpy.ndarray`
        (P,) probability that the two are one object.
    """

    embedding: np.ndarray
    sky: np.ndarray
    probabilities: np.ndarray
    vote: np.ndarray
    x: np.ndarray
    y: np.ndarray
    heat: np.ndarray
    kernel: np.ndarray
    centre: np.ndarray
    matrix: np.ndarray
    falloff: np.ndarray
    radius: np.ndarray
    classes: np.ndarray
    pairs: np.ndarray
    same: np.ndarray


def find_seeds(heat, min_heat):
    """
    Local maxima of the heatmap.

    Parameters
    ----------
    heat : `~torch.Tensor`
        (h, w) logits at stride 2.
    min_heat : float
        Least probability.

    Returns
    -------
    x, y, heat : `~torch.Tensor`
        (S,) pixel positions and probabilities, brightest first.
    """
    peak = heat == F.max_pool2d(heat[None, None], 3, 1, 1)[0, 0]
    peak &= heat.sigmoid() >= min_heat
    rows, columns = peak.nonzero(as_tuple=True)
    value, order = heat[rows, columns].sort(descending=True, stable=True)
    return (2 * columns[order] + 0.5, 2 * rows[order] + 0.5,
            value.sigmoid())


def seeds_of(maps, min_heat):
    """
    The seeds within an image.

    Parameters
    ----------
    maps : `~astrodino_seg.heads.DenseMaps`
        Of `~astrodino_seg.inference.predict_maps`; its heatmap may reach
        beyond the image.
    min_heat : float
        Least probability.

    Returns
    -------
    x, y, heat : `~torch.Tensor`
        As of `find_seeds`.
    """
    ny, nx = maps.sky.shape[1:]
    x, y, heat = find_seeds(maps.heat[0, :-(-ny // 2), :-(-nx // 2)],
                            min_heat)
    return x.clamp(max=nx - 1.0), y.clamp(max=ny - 1.0), heat


def read_prediction(model, maps, channels, x, y, heat):
    """
    Read given seeds and compare those that may be one object.

    The probabilities of classes and pairs are calibrated, if the model's
    provenance says how (`astrodino_seg.calibration`).

    Parameters
    ----------
    model : `~astrodino_seg.model.Model`
        The model.
    maps : `~astrodino_seg.heads.DenseMaps`
        Of `~astrodino_seg.inference.predict_maps`.
    channels : `~numpy.ndarray`
        (C, y, x) that they were made of.
    x, y, heat : `~torch.Tensor`
        (S,) positions in pixels and probabilities.

    Returns
    -------
    prediction : `Prediction`
        All that grouping needs.

    Raises
    ------
    ValueError
        If the model's calibration cannot be used.
    """
    calibration = read_calibration(model.provenance)
    head, score = model.head, model.pairs
    if next(head.parameters()).device.type != 'cpu':
        head, score = deepcopy(head).cpu(), deepcopy(score).cpu()
    ny, nx = maps.sky.shape[1:]
    x, y = x.clamp(max=nx - 1.0), y.clamp(max=ny - 1.0)
    seeds = head.read_seeds(maps.pyramid, x, y)
    radius = seeds.log_size.clamp(-1, 6).exp()
    i, j, features = describe_pairs(head, seeds, maps, channels, x, y, heat)
    same = calibration.pair_logits(score(features)).sigmoid()
    classes = calibration.class_logits(seeds.classes)
    arrays = (maps.embedding.permute(1, 2, 0), maps.sky[0],
              maps.classes.softmax(dim=0), maps.vote.permute(1, 2, 0), x, y,
              heat, seeds.kernel, seeds.centre, seeds.matrix, seeds.falloff,
              radius, classes.softmax(dim=-1), torch.stack([i, j], dim=-1),
              same)
    return Prediction(*(a.numpy() for a in arrays))


def describe_pairs(head, seeds, maps, channels, x, y, heat):
    """
    The pairs of seeds that may be one object, and what is known of them.

    Parameters
    ----------
    head : `~astrodino_seg.heads.GroupingHead`
        The head.
    seeds : `~astrodino_seg.heads.Seeds`
        The seeds that it read.
    maps, channels, x, y, heat
        As of `read_prediction`.

    Returns
    -------
    i, j : `~torch.Tensor`
        (P,) indices, i < j.
    features : `~torch.Tensor`
        (P, n) of `~astrodino_seg.pairs.pair_features`.
    """
    channels = torch.from_numpy(channels[:head.in_channels])
    i, j = _near(x, y, seeds.log_size.clamp(-1, 6).exp())
    ix, iy = x.long(), y.long()
    claims = [_claim(head, seeds, maps, a, ix[b], iy[b])
              for a, b in ((i, j), (j, i))]
    apart = torch.hypot(x[i] - x[j], y[i] - y[j])
    asked = (claims[0] > -4) | (claims[1] > -4) | (apart < NEAR)
    i, j = i[asked], j[asked]
    claims = tuple(claim[asked] for claim in claims)
    vote = maps.vote[:, iy, ix]
    return i, j, pair_features(
        head, seeds, claims, seed_looks(channels, x, y),
        valleys(channels, x, y, i, j), heat, i, j, x + vote[0], y + vote[1])


def _near(x, y, radius):
    """
    Pairs i < j of which one lies within `PAIR_REACH` or `NEAR` of the other,
    or is one of its `CROWDED` nearest where there are too many.
    """
    points = torch.stack([x, y], dim=-1).numpy()
    if len(points) < 2:
        return torch.zeros(0, dtype=torch.long), torch.zeros(
            0, dtype=torch.long)
    tree, reach = cKDTree(points), np.clip(
        PAIR_REACH * radius.double().numpy(), NEAR, 400)
    n = tree.query_ball_point(points, reach, return_length=True) - 1
    if n.mean() > CROWDED:
        full = n > CROWDED
        farthest, _ = tree.query(points[full], [CROWDED + 1])
        reach[full] = farthest[:, 0] * (1 + 1e-9)
    lists = tree.query_ball_point(points, reach)
    first = np.repeat(np.arange(len(points)), [len(p) for p in lists])
    second = np.concatenate([np.asarray(p, int) for p in lists])
    # as one number a pair, which is sorted many times faster than rows
    low, high = np.minimum(first, second), np.maximum(first, second)
    pairs = np.unique((low * len(points) + high)[low < high])
    return tuple(map(torch.from_numpy, np.divmod(pairs, len(points))))


def _claim(head, seeds, maps, a, ix, iy):
    """Score of seeds ``a`` less the sky's, each at one pixel."""
    one = Seeds(*(part[a] for part in seeds))
    embedding = maps.embedding[:, iy, ix].T[:, :, None]
    vote = maps.vote[:, iy, ix]
    score = head.score(one, embedding, (ix + vote[0])[:, None],
                       (iy + vote[1])[:, None])
    return score[:, 0] - maps.sky[0, iy, ix]
