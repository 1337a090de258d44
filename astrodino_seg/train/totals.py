# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Total fluxes, fitted to what the finished model finds.
"""

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from photutils.utils.exceptions import NoDetectionsWarning
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from astrodino_seg.errors import AstroDinoUserWarning
from astrodino_seg.evaluate.matching import match_labels
from astrodino_seg.models.totals import Totals
from astrodino_seg.photometry import N_FEATURES, features, measure_light
from astrodino_seg.segmenter import DinoSegmenter
from astrodino_seg.train.data import observed
from astrodino_seg.train.decision import HELD

__all__ = ['fit_totals', 'totals_of_scene']

#: Least total S/N of the objects, and largest logarithm of the factor.
LEAST_SN = 10.0
LARGEST = 2.0
#: Degrees of freedom of Student's t: some matches are of other objects.
FREEDOM = 3.0
BATCH = 256


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Features (n, m) of labels, and the logarithm (n,) of true over found."""

    features: np.ndarray
    truth: np.ndarray


def totals_of_scene(segmenter, image, truth):
    """
    What a model's totals are asked about a scene, and what is right.

    Parameters
    ----------
    segmenter : `~astrodino_seg.DinoSegmenter`
        Of the model.
    image, truth
        Of `~astrodino_seg.simulate.observe`.

    Returns
    -------
    measured : `Measured`
        Stars and galaxies that are found, and whose flux is known.
    """
    none = Measured(features=np.zeros((0, N_FEATURES), np.float32),
                    truth=np.zeros(0, np.float32))
    result = segmenter.segment(image)
    if result is None:
        return none
    labels = result.segmentation_image.data
    light = measure_light(image, result.background, result.noise, labels,
                          result.table)
    match = match_labels(truth.labels, labels)
    objects = truth.objects
    row = {one: k for k, one in enumerate(objects['id'].tolist())}
    k = np.array([row[one] for one in match.truth.tolist()], int)
    found = match.predicted - 1
    true = objects['flux'][k] @ light.weights
    good = ((light.flux[found] > 0) & (true > 0) & (objects['cls'][k] < 3)
            & (objects['sn'][k] >= LEAST_SN))
    if not good.any():
        return none
    ratio = np.log(true[good] / light.flux[found[good]])
    return Measured(features=features(light)[found[good]], truth=np.clip(
        ratio, -LARGEST, LARGEST).astype(np.float32))


def fit_totals(model, scenes, *, n_scenes=300, n_steps=4000, rates=None,
               peak_rate=2e-3, weight_decay=0.1, dropout=0.05, seed=0,
               bfloat16=True, n_workers=0, progress=True):
    """
    Fit a model's total fluxes to scenes; nothing else is changed.

    Parameters
    ----------
    model : `~astrodino_seg.Model`
        The finished model, with its decision. The provenance says how good
        its totals are on every tenth scene, which is held out.
    scenes : sequence of `~astrodino_seg.simulate.Scene`
        What to fit it to.
    n_scenes : int, optional
        Scenes to use, at most.
    n_steps : int, optional
        Steps of 256 objects.
    rates : dict of float, optional
        As of `~astrodino_seg.simulate.observe`.
    peak_rate, weight_decay : float, optional
        Of AdamW; the rate falls linearly to zero.
    dropout : float, optional
        Share of the features that is left out, at random.
    seed : int, optional
        Seed of the observations and of the fit.
    bfloat16 : bool, optional
        Whether the network runs in bfloat16.
    n_workers : int, optional
        Processes that look at scenes; none but this one if 0.
    progress : bool, optional
        Whether to show a progress bar.

    Returns
    -------
    model : `~astrodino_seg.Model`
        The model, in evaluation mode.

    Raises
    ------
    ValueError
        If there are fewer than ten scenes, or nothing is found in them.
    """
    n_scenes = min(n_scenes, len(scenes))
    if n_scenes < HELD:
        msg = f'n_scenes must be {HELD} or more, got {n_scenes}'
        raise ValueError(msg)
    looks = DataLoader(_Looks(model, scenes, rates, seed, bfloat16),
                       batch_size=None, sampler=range(n_scenes),
                       num_workers=n_workers, collate_fn=_as_it_is)
    found = list(tqdm(looks, disable=not progress, desc='totals'))
    used, held = (tuple(torch.from_numpy(np.concatenate(part)) for part in zip(
        *some)) for some in ([one for k, one in enumerate(found) if k % HELD],
                             found[::HELD]))
    if len(used[0]) == 0 or len(held[0]) == 0:
        msg = f'scenes: {len(used[0])} and {len(held[0])} objects are too few'
        raise ValueError(msg)
    torch.manual_seed(seed)
    totals = Totals(used[0].shape[1])
    totals.standard.fit(used[0])
    _fit(totals, *used, n_steps=n_steps, peak_rate=peak_rate,
         weight_decay=weight_decay, dropout=dropout)
    measured = _calibrate(totals.eval(), *held)
    model.put_totals(totals)
    model.provenance['totals'] = {'n_objects': len(used[0]), 'seed': seed,
                                  **measured}
    return model.eval()


def _as_it_is(item):
    return item


class _Looks(Dataset):
    """`totals_of_scene` of each scene, as arrays."""

    def __init__(self, model, scenes, rates, seed, bfloat16):
        self.segmenter = DinoSegmenter(model=model, bfloat16=bfloat16)
        self.scenes, self.rates, self.seed = scenes, rates, seed

    def __len__(self):
        return len(self.scenes)

    def __getitem__(self, k):
        image, truth = observed(self.scenes[k], [self.seed, k, 5],
                                rates=self.rates)
        with warnings.catch_warnings():     # to find nothing is no news
            warnings.simplefilter('ignore', NoDetectionsWarning)
            warnings.simplefilter('ignore', AstroDinoUserWarning)
            one = totals_of_scene(self.segmenter, image, truth)
        return one.features, one.truth


def _fit(totals, features, truth, *, n_steps, peak_rate, weight_decay,
         dropout):
    """By the likelihood of Student's t."""
    optimizer = torch.optim.AdamW(totals.parameters(), lr=peak_rate,
                                  weight_decay=weight_decay)
    for step in range(n_steps):
        some = torch.randint(len(features), (BATCH,))
        value, error = totals(features[some], dropout)
        pull = (truth[some] - value) / error.exp()
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
