# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Training samples: crops of observed scenes, or of labelled images, with seeds
and their objects.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.ndimage import gaussian_filter, maximum_filter
from torch.utils.data import Dataset

from astrodino_seg.image import Image
from astrodino_seg.planes import NoiseUnits
from astrodino_seg.preprocess import PreprocessSpec
from astrodino_seg.simulate.observe import observe

__all__ = ['CropDataset', 'Sample', 'make_sample', 'observed']

MIN_CROP_PIXELS = 6
MAX_OBJECTS = 90
#: Share of observations that are cut out about a large galaxy before the
#: background is estimated, so that there may be no sky in the image.
NEAR = 0.2


@dataclass
class Sample:
    """
    One crop.

    Attributes
    ----------
    channels : `~torch.Tensor`
        (C, H, W) input.
    labels : `~torch.Tensor`
        (H, W) int64: 0 sky, i + 1 for object i, -1 void.
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
    rivals : `~torch.Tensor`
        (R, H, W) int64: the other objects that shine in the pixel of an
        object, i + 1 for object i; 0 none. R is 2, or 0 where it is not
        known.
    shares : `~torch.Tensor`
        (R, H, W) their shares of its light. The owner has the rest.
    """

    channels: torch.Tensor
    labels: torch.Tensor
    classes: torch.Tensor
    seed_xy: torch.Tensor
    seed_object: torch.Tensor
    centre: torch.Tensor
    log_size: torch.Tensor
    cls: torch.Tensor
    rivals: torch.Tensor
    shares: torch.Tensor


def _dihedral(k, array):
    """One of the eight flips and turns of the last two axes."""
    array = np.rot90(array, k % 4, axes=(-2, -1))
    return array[..., ::-1] if k >= 4 else array


def _decoys(rng, detection, where, area):
    """Local maxima of the image on one object, else random pixels."""
    n = 1 if area < 150 else 2 if area < 600 else 4
    ys, xs = where
    value = detection[ys, xs]
    order = np.argsort(-value[:, 0] - 1e3 * value[:, 1])
    n_peaks = int(value[:, 1].sum())
    pick = rng.choice(max(n_peaks, 1), min(n, max(n_peaks, 1)),
                      replace=False)
    pick = order[pick]
    if rng.random() < 0.5 or n_peaks < n:
        pick = np.append(pick, rng.integers(len(ys)))
    return np.stack([xs[pick], ys[pick]], axis=-1)


def _rivals(owners, shares, labels, present):
    """
    The objects behind the owner of each pixel, and their shares of the light
    of those that are asked for.
    """
    index = np.zeros(max(owners.max(initial=0), present.max(initial=0)) + 1,
                     np.int64)
    index[present] = 1 + np.arange(len(present))
    rivals = np.where(labels > 0, index[owners], 0)
    shares = np.where(rivals > 0, shares, 0)
    total = np.maximum(shares.sum(axis=0), 1e-30)
    return rivals[1:], (shares / total)[1:].astype(np.float32)


def make_sample(rng, channels, labels, own_sn, objects, owners=None,
                shares=None):
    """
    Build the targets of one crop.

    Parameters
    ----------
    rng : `numpy.random.Generator`
        For the decoys.
    channels : `~numpy.ndarray`
        (C, H, W) float32.
    labels, own_sn : `~numpy.ndarray`
        (H, W) crops of a `~astrodino_seg.simulate.Truth`.
    objects : dict of `~numpy.ndarray`
        ``id``, ``x``, ``y`` (in the crop's pixels), ``cls``, ``n_pixels``.
    owners, shares : `~numpy.ndarray`, optional
        (3, H, W) of the same `~astrodino_seg.simulate.Truth`, if known.

    Returns
    -------
    sample : `Sample`
        The sample.
    """
    height, width = labels.shape
    smooth = gaussian_filter(channels[0], 1.0)
    peak = (smooth == maximum_filter(smooth, 5)) & (smooth > 0.5)
    detection = np.stack([smooth, peak], axis=-1)
    new = np.where(labels == 0, 0, -1)
    classes = new.copy()
    present, counts = np.unique(labels[labels > 0], return_counts=True)
    present = present[counts >= MIN_CROP_PIXELS]
    if len(present) > MAX_OBJECTS:
        present = rng.choice(present, MAX_OBJECTS, replace=False)
    row = {i: k for k, i in enumerate(objects['id'])}
    order = np.argsort(labels, axis=None, kind='stable')
    ranked = labels.ravel()[order]
    seeds, seed_owners, decoys, decoy_owners, info = [], [], [], [], []
    for n, i in enumerate(present):
        k = row[i]
        span = order[slice(*np.searchsorted(ranked, [i, i + 1]))]
        ys, xs = np.divmod(span, width)
        new[ys, xs] = n + 1
        classes[ys, xs] = objects['cls'][k]
        x, y = objects['x'][k], objects['y'][k]
        ix, iy = int(np.round(x)), int(np.round(y))
        if not (0 <= ix < width and 0 <= iy < height
                and labels[iy, ix] == i):
            best = own_sn[ys, xs].argmax()
            ix, iy = xs[best], ys[best]
        seeds.append((ix, iy))
        seed_owners.append(n)
        extra = _decoys(rng, detection, (ys, xs), len(ys))
        decoys.extend(extra)
        decoy_owners.extend([n] * len(extra))
        info.append((x, y, 0.5 * np.log(objects['n_pixels'][k] / np.pi),
                     objects['cls'][k]))
    info = np.array(info, np.float32).reshape(-1, 4)
    if owners is None or len(owners) == 0:
        owners = shares = np.zeros((1, height, width), np.int32)
    rivals, shares = _rivals(owners, shares, new, present)
    return Sample(
        torch.from_numpy(np.ascontiguousarray(channels)),
        torch.from_numpy(new.astype(np.int64)),
        torch.from_numpy(classes.astype(np.int64)),
        torch.tensor(np.array(seeds + decoys, np.float32).reshape(-1, 2)),
        torch.tensor(np.array(seed_owners + decoy_owners, np.int64)),
        torch.from_numpy(info[:, :2].copy()),
        torch.from_numpy(info[:, 2].copy()),
        torch.from_numpy(info[:, 3].astype(np.int64)),
        torch.from_numpy(rivals), torch.from_numpy(shares))


class CropDataset(Dataset):
    """
    Crops of scenes, observed anew each time.

    Parameters
    ----------
    scenes : sequence of `~astrodino_seg.simulate.Scene`
        For example a `~astrodino_seg.simulate.SceneLibrary`; or of
        `~astrodino_seg.train.LabelledImage`, which are as they are.
    spec : `~astrodino_seg.preprocess.PreprocessSpec` or callable
        The model's preprocessing, or the rule for its planes.
    n_steps : int
        Steps that the dataset lasts for.
    n_items : int, optional
        Observations a step; item ``i`` belongs to step ``i // n_items`` and
        is the same in any process.
    crop_sizes : sequence of int, optional
        Sides of the crops in pixels, step by step in turn. An observation
        gives two crops, or one where the side is above 320.
    seed : int, optional
        Seed of everything drawn.
    """

    def __init__(self, scenes, spec, n_steps, *, n_items=2,
                 crop_sizes=(256,), seed=0):
        self.scenes = scenes
        self.spec = spec
        self.planes = (NoiseUnits(spec) if isinstance(spec, PreprocessSpec)
                       else spec)
        self.n_steps = n_steps
        self.n_items = n_items
        self.crop_sizes = tuple(crop_sizes)
        self.seed = seed

    def __len__(self):
        return self.n_steps * self.n_items

    def __getitem__(self, index):
        rng = np.random.default_rng([self.seed, index])
        scene = self.scenes[int(rng.integers(len(self.scenes)))]
        image, truth = observed(scene, [self.seed, index, 1])
        size = self.crop_sizes[index // self.n_items % len(self.crop_sizes)]
        if rng.random() < NEAR:
            image, truth = _cutout(rng, image, truth, size)
        channels = self.planes(image)
        return [_crop(rng, channels, truth, size, on_primary=n == 0)
                for n in range(1 if size > 320 else 2)]


def observed(scene, seed):
    """
    An image and its truth.

    Parameters
    ----------
    scene : `~astrodino_seg.simulate.Scene` or \
            `~astrodino_seg.train.LabelledImage`
        What is observed, or has been.
    seed : int or sequence of int
        Seed of the observation of a scene.

    Returns
    -------
    image : `~astrodino_seg.Image`
        The image.
    truth : `~astrodino_seg.simulate.Truth`
        What is in it.
    """
    if hasattr(scene, 'truth'):
        return scene.image, scene.truth
    return observe(scene, seed)


def _cutout(rng, image, truth, smallest):
    """A cutout about a large galaxy, if there is one, of random size."""
    large = np.flatnonzero(truth.objects['primary'])
    if len(large) == 0:
        return image, truth
    k = rng.choice(large)
    ny, nx = image.shape
    size = int(rng.integers(smallest, min(ny, nx) + 1))
    middle = [truth.objects['x'][k], truth.objects['y'][k]]
    x, y = np.clip(np.array(middle) - size / 2, 0,
                   [nx - size, ny - size]).astype(int)
    part = (slice(y, y + size), slice(x, x + size))
    objects = {**truth.objects, 'x': truth.objects['x'] - x,
               'y': truth.objects['y'] - y}
    cut = {name: getattr(truth, name)[..., *part] for name in (
        'labels', 'own_sn', 'light', 'owners', 'shares')}
    noise = None if image.noise is None else image.noise[:, *part]
    return (Image(image.cube[:, *part], image.mask[:, *part], noise,
                  bands=image.bands, unit=image.unit),
            replace(truth, objects=objects, **cut))


def _crop(rng, channels, truth, size, *, on_primary):
    """A random crop, flipped and turned, perhaps on a large galaxy."""
    objects = truth.objects
    limit = np.array(channels.shape[:0:-1]) - size       # x, y
    if limit.min() < 0:
        msg = (f'crop_sizes must be at most the side of the scenes, '
               f'{min(channels.shape[1:])}, got {size!r}')
        raise ValueError(msg)
    corner = rng.integers(0, limit + 1)
    large = np.flatnonzero(objects['primary'])
    if on_primary and len(large):
        k = rng.choice(large)
        middle = np.array([objects['x'][k], objects['y'][k]])
        middle = middle + rng.normal(0, size / 5, 2)
        corner = np.clip(middle - size / 2, 0, limit).astype(int)
    xs = slice(corner[0], corner[0] + size)
    ys = slice(corner[1], corner[1] + size)
    turn = int(rng.integers(8))
    cut = [np.ascontiguousarray(_dihedral(turn, a[..., ys, xs]))
           for a in (channels, truth.labels, truth.own_sn, truth.owners,
                     truth.shares)]
    x, y = _turn_points(turn, objects['x'] - corner[0],
                        objects['y'] - corner[1], size)
    return make_sample(rng, *cut[:3], {**objects, 'x': x, 'y': y}, *cut[3:])


def _turn_points(turn, x, y, size):
    """Where `_dihedral` takes the pixel positions of a square image."""
    for _ in range(turn % 4):          # rot90 takes (x, y) to (y, n - 1 - x)
        x, y = y, size - 1 - x
    return (size - 1 - x, y) if turn >= 4 else (x, y)
