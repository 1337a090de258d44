# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Total fluxes, fitted to what the finished model finds.
"""

import warnings
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from photutils.utils.exceptions import NoDetectionsWarning
from scipy.ndimage import gaussian_filter

from astrodino_seg.catalog import N_FEATURES, features, measure_light
from astrodino_seg.errors import AstroDinoUserWarning
from astrodino_seg.evaluate.matching import match_labels
from astrodino_seg.image import Image
from astrodino_seg.models.decision import Totals
from astrodino_seg.segmenter import DinoSegmenter
from astrodino_seg.simulate.galaxies import make_frame, sersic
from astrodino_seg.train.data import HELD, enough_scenes, looked_at, observed

#: Least total S/N of the objects, and largest logarithm of the factor.
LEAST_SN = 10.0
LARGEST = 2.0
#: Degrees of freedom of Student's t: some matches are of other objects.
FREEDOM = 3.0
BATCH = 256
#: What leaves no flux to be told from pixels.
NOT_LINEAR = {'photographic': 0, 'stretched': 0, 'negated': 0}
#: Objects of one scene, at most: a star cluster is not to be all there is.
MOST = 100
#: Half-light radii in pixels and central S/N of galaxies that are alone.
RADII, PEAKS = (2.5, 140), (3, 200)
#: Mean and scatter of the logarithm of Sersic's index: most are discs.
INDEX = 0.25, 0.55
#: How many of them there are for each scene, and their share in the fit.
ALONE, SHARE = 3, 0.15


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Features (n, m) of labels, and the logarithm (n,) of true over found."""

    features: np.ndarray
    truth: np.ndarray


def totals_of_scene(segmenter, image, truth):
    """
    What a model's totals are asked about a scene, and what is right: of stars
    and galaxies that are found, and whose flux is known.
    """
    result = segmenter.segment(image)
    if result is None:
        return _measured(None, [], [])
    light = _light(result)
    match = match_labels(truth.labels, result.segmentation_image.data)
    objects = truth.objects
    row = {one: k for k, one in enumerate(objects['id'].tolist())}
    k = np.array([row[one] for one in match.truth.tolist()], int)
    found = match.predicted - 1
    true = objects['flux'][k] @ light.weights
    good = ((light.flux[found] > 0) & (true > 0) & (objects['cls'][k] < 3)
            & (objects['sn'][k] >= LEAST_SN))
    some = np.flatnonzero(good)
    some = some[::-(-len(some) // MOST) or 1]
    return _measured(light, found[some], true[some])


def _light(result):
    return measure_light(result.image, result.background, result.noise,
                         result.segmentation_image.data, result.table)


def _measured(light, k, true):
    """Of the labels of some indices, whose flux is known."""
    if len(k) == 0:
        return Measured(features=np.zeros((0, N_FEATURES), np.float32),
                        truth=np.zeros(0, np.float32))
    ratio = np.log(np.array(true) / light.flux[k])
    return Measured(features=features(light)[k], truth=np.clip(
        ratio, -LARGEST, LARGEST).astype(np.float32))


def totals_alone(segmenter, rng):
    """
    The same of one galaxy of any Sersic index on an even sky: scenes have few
    so smooth, and few with so much light below their noise.
    """
    re = np.exp(rng.uniform(*np.log(RADII)))
    index = np.clip(rng.lognormal(*INDEX), 0.5, 6)
    size = int(np.clip(8 * re, 96, 640))
    frame = make_frame(size, re, rng.uniform(0.3, 1), rng.uniform(0, np.pi),
                       rng.uniform(-3, 3, 2))
    light = gaussian_filter(sersic(frame.r, re, index), rng.uniform(0.8, 3))
    light *= np.exp(rng.uniform(*np.log(PEAKS))) / light.max()
    y, x = np.unravel_index(light.argmax(), light.shape)
    cube = (light + rng.normal(size=light.shape)).astype(np.float32)[None]
    result = segmenter.segment(Image(cube, np.zeros(cube.shape, bool),
                                     bands=('r',)))
    k = 0 if result is None else result.segmentation_image.data[y, x]
    found = None if k == 0 else _light(result)
    if k == 0 or found.flux[k - 1] <= 0:
        return _measured(None, [], [])
    return _measured(found, [k - 1], [light.sum() * found.weights[0]])


def fit_totals(model, scenes, *, n_scenes=300, n_steps=4000, rates=None,
               peak_rate=2e-3, weight_decay=0.1, dropout=0.05, seed=0,
               bfloat16=True, n_workers=0, progress=True):
    """
    Fit a finished model's total fluxes to scenes; nothing else is changed.

    Of at most ``n_scenes`` every tenth is held out, and the provenance says
    how good totals are there. There are three times as many images of one
    galaxy alone, of any Sersic index. A step is of 256 objects; ``rates`` are
    those of `~astrodino_seg.simulate.observe`, but for those of pixels that
    are not linear, which are 0; ``peak_rate``, which falls linearly to zero,
    and ``weight_decay`` of AdamW; ``dropout`` is the share of the features
    that is left out; ``seed`` is of the observations and of the fit.
    """
    n_scenes = enough_scenes(scenes, n_scenes)
    look = partial(_look, DinoSegmenter(model=model, bfloat16=bfloat16),
                   scenes, n_scenes, {**(rates or {}), **NOT_LINEAR}, seed)
    found = looked_at(look, range((1 + ALONE) * n_scenes), name='totals',
                      n_workers=n_workers, progress=progress)
    kept = [k % HELD for k in range(n_scenes)]
    held, used, alone = (
        [torch.from_numpy(np.concatenate(part)) for part in zip(*some)]
        for some in ([one for one, k in zip(found, kept) if k == 0],
                     [one for one, k in zip(found, kept) if k],
                     found[n_scenes:]))
    if len(used[0]) == 0 or len(held[0]) == 0:
        msg = f'scenes: {len(used[0])} and {len(held[0])} objects are too few'
        raise ValueError(msg)
    torch.manual_seed(seed)
    totals = Totals(used[0].shape[1])
    totals.standard.fit(used[0])
    _fit(totals, used, alone, n_steps=n_steps, peak_rate=peak_rate,
         weight_decay=weight_decay, dropout=dropout)
    measured = _calibrate(totals.eval(), *held)
    model.put_totals(totals)
    model.provenance['totals'] = {
        'n_objects': len(used[0]), 'n_alone': len(alone[0]), 'seed': seed,
        **measured}
    return model.eval()


def _look(segmenter, scenes, n_scenes, rates, seed, k):
    """`totals_of_scene` of a scene, or beyond these `totals_alone`."""
    with warnings.catch_warnings():     # to find nothing is no news
        warnings.simplefilter('ignore', NoDetectionsWarning)
        warnings.simplefilter('ignore', AstroDinoUserWarning)
        if k < n_scenes:
            image, truth = observed(scenes[k], [seed, k, 5], rates=rates)
            one = totals_of_scene(segmenter, image, truth)
        else:
            rng = np.random.default_rng([seed, k, 5])
            one = totals_alone(segmenter, rng)
    return one.features, one.truth


def _fit(totals, used, alone, *, n_steps, peak_rate, weight_decay, dropout):
    """By the likelihood of Student's t."""
    optimizer = torch.optim.AdamW(totals.parameters(), lr=peak_rate,
                                  weight_decay=weight_decay)
    n_alone = int(SHARE * BATCH) if len(alone[0]) else 0
    for step in range(n_steps):
        which = [torch.randint(len(part[0]), (n,)) for part, n in (
            (used, BATCH - n_alone), (alone, n_alone)) if n]
        known, truth = (torch.cat([part[k][some] for part, some in zip(
            (used, alone), which)]) for k in range(2))
        value, error = totals(known, dropout)
        pull = (truth - value) / error.exp()
        loss = (error + (FREEDOM + 1) / 2 * torch.log1p(
            pull**2 / FREEDOM)).mean()
        for group in optimizer.param_groups:
            group['lr'] = peak_rate * (1 - step / n_steps)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@torch.no_grad()
def _calibrate(totals, features, truth):
    """Make the errors true on what was held out; how good it is there."""
    value, error = totals(features)
    pull = (truth - value) / error.exp()
    low, middle, high = torch.quantile(pull, torch.tensor([.16, .5, .84]))
    totals.net[-1].bias[1] += torch.log((high - low) / 2)
    off = (truth - value) / np.log(10) * 2.5
    low, bias, high = torch.quantile(off, torch.tensor([.16, .5, .84]))
    return {'n_held': len(truth), 'mag_bias': round(float(bias), 4),
            'mag_scatter': round(float(high - low) / 2, 4),
            'pull': round(float(middle), 3)}
