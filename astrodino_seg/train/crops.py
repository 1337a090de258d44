# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Training crops of one level of the image pyramid each.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.ndimage import gaussian_filter, maximum_filter
from torch.utils.data import Dataset

from astrodino_seg.image import Image
from astrodino_seg.preprocess import bands_in_noise, fold
from astrodino_seg.simulate.observe import observe
from astrodino_seg.train.levels import level_truth
from astrodino_seg.train.targets import _turn_points

__all__ = ['LevelCrop', 'LevelCrops', 'make_crop', 'planes_of_level']

MIN_CROP_PIXELS = 6
MAX_OBJECTS = 300
#: By how much an image is taken to be binned; the least is below two as the
#: noise of real pixels is correlated.
BINNINGS = 1.3, 16.0
#: Share of crops whose sky is found beneath the objects and not beside them,
#: as it is where there is enough sky.
SKY_KNOWN = 0.6
#: Share of crops that lie on a large galaxy of the level, if there is one.
ON_LARGE = 0.4


@dataclass
class LevelCrop:
    """
    One crop.

    Attributes
    ----------
    channels : `~torch.Tensor`
        (C, H, W) input.
    binned : int
        1 where it is taken to be binned, else 0.
    labels : `~torch.Tensor`
        (H, W) int64: 0 the rest, i + 1 for object i, -1 void.
    classes : `~torch.Tensor`
        (H, W) int64 class of each pixel, -1 void; 4 if it is an object whose
        class is not known.
    seed_xy : `~torch.Tensor`
        (S, 2) seed positions: the centres of the N objects first, then
        decoys, which lie on the same objects off their centres.
    seed_object : `~torch.Tensor`
        (S,) index of the object under each seed.
    centre, log_size, cls : `~torch.Tensor`
        (N, 2) true centre, (N,) log radius in pixels, (N,) class index.
    asked : `~torch.Tensor`
        (N,) bool, whether the object's centre is to be called.
    rivals, shares : `~torch.Tensor`
        (R, H, W) as of `~astrodino_seg.train.targets.Sample`.
    """

    channels: torch.Tensor
    binned: int
    labels: torch.Tensor
    classes: torch.Tensor
    seed_xy: torch.Tensor
    seed_object: torch.Tensor
    centre: torch.Tensor
    log_size: torch.Tensor
    cls: torch.Tensor
    asked: torch.Tensor
    rivals: torch.Tensor
    shares: torch.Tensor


def planes_of_level(image, spec, b=1.0, light=None):
    """
    The network's input of an image that is taken to be binned.

    Parameters
    ----------
    image : `~astrodino_seg.Image`
        The image, of white noise.
    spec : `~astrodino_seg.preprocess.PreprocessSpec`
        The model's preprocessing.
    b : float, optional
        Pixels, in x and in y, that are taken to have been binned: the noise
        of the planes is 1 / b before they are stretched.
    light : `~numpy.ndarray`, optional
        (band, y, x) the light of the objects; background and noise are then
        found without it.

    Returns
    -------
    channels : `~numpy.ndarray`
        (C, y, x) float32.
    """
    sky = image
    if light is not None:
        sky = Image(image.cube - light, image.mask, image.noise,
                    bands=image.bands)
    background, noise = np.empty((2, *image.cube.shape), np.float32)

    def bands():
        for k, (sn, valid) in enumerate(bands_in_noise(
                sky, spec, background, noise)):
            yield (sn if light is None else sn + light[k] / noise[k]), valid

    return fold(bands(), image.n_bands,
                replace(spec, softening=spec.softening * b))


def _is_linear(image, light):
    """Whether the image is the light, a sky, and noise of about one."""
    off = (image.cube - light)[~image.mask][::7]
    bright = light[~image.mask][::7] > 3
    if bright.sum() < 50 or bright.all():
        return True
    middle = np.median(off[~bright])
    return abs(np.median(off[bright]) - middle) < 2 * np.median(
        np.abs(off[~bright] - middle)) + 1


def _peaks(channel):
    """Smoothed S/N, and where it has its maxima."""
    smooth = gaussian_filter(channel, 1.0)
    return smooth, (smooth == maximum_filter(smooth, 5)) & (smooth > 0.3)


def _decoys(rng, smooth, is_peak, span, area):
    """Local maxima of the image on one object, else random pixels."""
    n = 1 if area < 150 else 2 if area < 600 else 4
    peaks = span[is_peak[span]]
    if len(peaks) == 0:
        return span[rng.integers(0, len(span), 1)]
    peaks = peaks[np.argsort(-smooth[peaks], kind='stable')]
    pick = peaks[rng.choice(len(peaks), min(n, len(peaks)), replace=False)]
    if rng.random() < 0.5 or len(peaks) < n:
        pick = np.append(pick, span[rng.integers(len(span))])
    return pick


def make_crop(rng, channels, binned, labels, truth, table):
    """
    Build the targets of one crop.

    Parameters
    ----------
    rng : `numpy.random.Generator`
        For the decoys.
    channels : `~numpy.ndarray`
        (C, H, W) float32.
    binned : bool
        Whether it is taken to be binned.
    labels : `~numpy.ndarray`
        (H, W) of `~astrodino_seg.train.levels.level_truth`.
    truth : dict of `~numpy.ndarray`
        Crops of ``labels``, ``own_sn``, ``owners``, ``shares`` of a
        `~astrodino_seg.simulate.Truth`.
    table : dict of `~numpy.ndarray`
        ``id``, ``x``, ``y`` (in the crop's pixels), ``cls``, ``radius``,
        ``asked``.

    Returns
    -------
    crop : `LevelCrop`
        The crop.
    """
    width = labels.shape[1]
    present, counts = np.unique(labels[labels > 0], return_counts=True)
    present = present[counts >= MIN_CROP_PIXELS]
    row = np.searchsorted(table['id'], present)
    if len(present) > MAX_OBJECTS:          # those about one place
        x, y = table['x'][row], table['y'][row]
        k = rng.integers(len(row))
        near = np.argsort(np.hypot(x - x[k], y - y[k]))[:MAX_OBJECTS]
        row = np.sort(row[near])
        present = table['id'][row]
    index = np.zeros(labels.max(initial=0) + 1, np.int64)
    index[present] = 1 + np.arange(len(present))
    new = np.where(labels > 0, index[labels.clip(0)] + 0, labels)
    new[(labels > 0) & (new == 0)] = -1
    known = np.full(truth['labels'].max(initial=0) + 1, -1)
    known[0] = 0
    inside = table['id'] < len(known)
    known[table['id'][inside]] = table['cls'][inside]
    classes = np.where(truth['labels'] < 0, -1,
                       known[truth['labels'].clip(0)])
    smooth, is_peak = (a.ravel() for a in _peaks(channels[0]))
    order = np.argsort(new, axis=None, kind='stable')
    ends = np.searchsorted(new.ravel()[order], np.arange(len(present) + 2))
    seeds, decoys, decoy_owners = [], [], []
    for n, k in enumerate(row):
        span = order[ends[n + 1]:ends[n + 2]]
        ix, iy = int(round(table['x'][k])), int(round(table['y'][k]))
        if not (0 <= ix < width and 0 <= iy < len(labels)
                and new[iy, ix] == n + 1):
            iy, ix = divmod(span[truth['own_sn'].ravel()[span].argmax()],
                            width)
        seeds.append((ix, iy))
        extra = _decoys(rng, smooth, is_peak, span, len(span))
        decoys.extend(zip(extra % width, extra // width))
        decoy_owners.extend([n] * len(extra))
    rivals, shares = _rivals(truth, new, present)
    info = [np.array(table[key][row], np.float32)
            for key in ('x', 'y', 'radius')]
    return LevelCrop(
        torch.from_numpy(np.ascontiguousarray(channels)), int(binned),
        torch.from_numpy(new.astype(np.int64)),
        torch.from_numpy(classes.astype(np.int64)),
        torch.tensor(np.array(seeds + decoys, np.float32).reshape(-1, 2)),
        torch.tensor([*range(len(row)), *decoy_owners], dtype=torch.long),
        torch.from_numpy(np.stack(info[:2], axis=-1)),
        torch.from_numpy(np.log(info[2].clip(0.5))),
        torch.from_numpy(np.array(table['cls'][row], np.int64)),
        torch.from_numpy(np.array(table['asked'][row], bool)),
        torch.from_numpy(rivals), torch.from_numpy(shares))


def _rivals(truth, labels, present):
    """
    The objects of the crop that shine in another's pixel, and their shares;
    none where the owner is not the strongest, but beneath it.
    """
    owners, shares = truth['owners'], truth['shares']
    if len(owners) == 0:
        nothing = np.zeros((0, *labels.shape))
        return nothing.astype(np.int64), nothing.astype(np.float32)
    index = np.zeros(max(owners.max(), present.max(initial=0)) + 1, np.int64)
    index[present] = 1 + np.arange(len(present))
    own = (labels > 0) & (index[owners[0]] == labels)
    rivals = np.where(own, index[owners[1:]], 0)
    shares = np.where(rivals > 0, shares[1:], 0)
    total = np.maximum(shares.sum(axis=0) + truth['shares'][0], 1e-30)
    return rivals, (shares / total).astype(np.float32)


class LevelCrops(Dataset):
    """
    Crops of scenes, observed anew: of each observation two, one of the image
    as it is and one of it as if it were a binned image.

    Parameters
    ----------
    scenes : sequence of `~astrodino_seg.simulate.Scene`
        For example a `~astrodino_seg.simulate.SceneLibrary`.
    spec : `~astrodino_seg.preprocess.PreprocessSpec`
        The model's preprocessing.
    n_items : int
        How many observations there are; item ``i``, a list of its two
        crops, is the same in any process.
    crop_size : int, optional
        Side of the crops in pixels.
    rates : dict of float, optional
        As of `~astrodino_seg.simulate.observe`.
    seed : int, optional
        Seed of everything drawn.
    """

    def __init__(self, scenes, spec, n_items, *, crop_size=256, rates=None,
                 seed=0):
        self.scenes = scenes
        self.spec = spec
        self.n_items = n_items
        self.crop_size = crop_size
        self.rates = rates
        self.seed = seed

    def __len__(self):
        return self.n_items

    def __getitem__(self, index):
        rng = np.random.default_rng([self.seed, index])
        scene = self.scenes[int(rng.integers(len(self.scenes)))]
        b = np.exp(rng.uniform(*np.log(BINNINGS)))
        # what is binned is deep
        image, truth = observe(scene, [self.seed, index, 1],
                               depth=_depth(rng) * b**rng.random(),
                               rates=self.rates)
        return [self._crop(rng, image, truth, one) for one in (1.0, b)]

    def _crop(self, rng, image, truth, b):
        """A random crop, flipped and turned."""
        known = rng.random() < SKY_KNOWN and _is_linear(image, truth.light)
        channels = planes_of_level(image, self.spec, b,
                                   truth.light if known else None)
        labels, radius, asked = level_truth(rng, truth, b)
        size, o = self.crop_size, truth.objects
        limit = np.array(labels.shape[::-1]) - size
        if limit.min() < 0:
            msg = (f'crop_size must be at most the side of the scenes, '
                   f'{min(labels.shape)}, got {size!r}')
            raise ValueError(msg)
        corner = rng.integers(0, limit + 1)
        large = np.flatnonzero(asked & (radius > 10))
        if len(large) and rng.random() < ON_LARGE:
            k = rng.choice(large)
            middle = np.array([o['x'][k], o['y'][k]])
            middle = middle + rng.normal(0, size / 5, 2)
            corner = np.clip(middle - size / 2, 0, limit).astype(int)
        part = tuple(slice(a, a + size) for a in corner[::-1])
        turn = int(rng.integers(8))

        def cut(array):
            array = np.rot90(array[..., *part], turn % 4, axes=(-2, -1))
            return np.ascontiguousarray(array[..., ::-1] if turn >= 4
                                        else array)

        x, y = _turn_points(turn, o['x'] - corner[0], o['y'] - corner[1],
                            size)
        table = {'id': o['id'], 'cls': o['cls'], 'x': x, 'y': y,
                 'radius': radius, 'asked': asked}
        return make_crop(rng, cut(channels), b > 1, cut(labels), {
            name: cut(getattr(truth, name))
            for name in ('labels', 'own_sn', 'owners', 'shares')}, table)


def _depth(rng):
    """As of `~astrodino_seg.simulate.observe`."""
    high = 2 if rng.random() < .7 else 50
    return np.exp(rng.uniform(np.log(.5), np.log(high)))
