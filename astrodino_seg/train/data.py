# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Training data: crops of observed scenes, or of labelled images.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Subset
from tqdm import tqdm

from astrodino_seg.image import Image
from astrodino_seg.inputs.background import SIDES, noise_of_sums
from astrodino_seg.inputs.channels import (
    bands_in_noise,
    bin_channels,
    fold,
    normalise,
)
from astrodino_seg.models.head import STRIDES
from astrodino_seg.simulate.observe import draw_depth, observe
from astrodino_seg.train.crops import (
    ClassCrop,
    TokenCrop,
    Window,
    level_truth,
    make_crop,
)
from astrodino_seg.train.losses import teach
from astrodino_seg.truth import pixel_classes

#: By how much an image is taken to be binned; the least is below two as the
#: noise of real pixels is correlated.
BINNINGS = 1.3, 16.0
#: Share of crops whose sky is found beneath the objects and not beside them,
#: as it is where there is enough sky.
SKY_KNOWN = 0.6
#: Share of crops that lie on a large galaxy of the level, if there is one.
ON_LARGE = 0.4
#: Sides in pixels down to which a labelled image is binned. The network looks
#: at smaller ones, but there is nothing to normalise a batch by in one token.
LEAST_CROP = 48
#: Share of observations that are cut out about a large galaxy before the
#: background is estimated, so that there may be no sky in the image; for
#: semantic heads.
NEAR = 0.2
#: Of what is fitted to a finished network every tenth scene is held out.
HELD = 10


def enough_scenes(scenes, n_scenes, before=''):
    """How many of the scenes are used; raise if none can be held out."""
    n_scenes = min(n_scenes, len(scenes))
    if n_scenes < HELD:
        msg = f'{before}n_scenes must be {HELD} or more, got {n_scenes}'
        raise ValueError(msg)
    return n_scenes


def looked_at(look, which, *, n_workers, progress, name):
    """What a function says of each of some numbers, by several processes."""
    loader = DataLoader(which, batch_size=None, num_workers=n_workers,
                        collate_fn=look)
    return list(tqdm(loader, disable=not progress, desc=name))


def observed(scene, seed, **options):
    """An image and its truth."""
    if hasattr(scene, 'truth'):
        return scene.image, scene.truth
    return observe(scene, seed, **options)


def fingerprint(scenes):
    """
    What tells training data from other data, as JSON: of a list the hash of
    pixels, labels and classes; of others kind, length and settings.
    """
    if isinstance(scenes, Subset) and isinstance(scenes.dataset, Sequence):
        scenes = [scenes[k] for k in range(len(scenes))]
    if not isinstance(scenes, Sequence):
        return {'kind': type(scenes).__name__, 'n': len(scenes),
                **{k: v for k, v in vars(scenes).items()
                   if not k.startswith('_')
                   and isinstance(v, str | int | float)}}
    content = hashlib.sha256()
    for one in scenes:
        labelled = hasattr(one, 'truth')
        objects = (one.truth if labelled else one).objects
        for array in ((one.image.cube, one.image.mask, one.truth.labels)
                      if labelled else (one.cube, one.owner)):
            content.update(np.ascontiguousarray(array))
        content.update(np.array(objects['cls'], dtype=int))
    return {'n': len(scenes), 'sha256': content.hexdigest()[:16]}


def planes_of_level(image, spec, b=1.0, light=None):
    """
    The network's input (C, y, x) of an image that is taken to be binned;
    ``light`` (band, y, x) is beside what the sky is measured of.
    """
    sky = image
    if light is not None:
        sky = Image(image.cube - light, image.mask, image.noise,
                    bands=image.bands)
    background, noise = np.empty((2, *image.cube.shape), np.float32)
    factors = np.ones((image.n_bands, len(SIDES)))

    def bands():
        for k, (sn, valid) in enumerate(bands_in_noise(
                sky, spec, background, noise, factors_of=factors)):
            if light is not None:
                unit = noise[k] * np.float32(noise_of_sums(factors[k]))
                sn = sn + light[k] / unit
            yield sn, valid

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


def _place(rng, shape, size):
    """A random corner (x, y), and the last that there can be."""
    limit = np.array(shape[::-1]) - size
    if limit.min() < 0:
        msg = (f'crop_size must be at most the side of the scenes, '
               f'{min(shape)}, got {size!r}')
        raise ValueError(msg)
    return rng.integers(0, limit + 1), limit


def _near(rng, objects, k, size, limit):
    """A corner for a crop that has object k somewhere in its middle."""
    middle = np.array([objects['x'][k], objects['y'][k]])
    middle = middle + rng.normal(0, size / 5, 2)
    return np.clip(middle - size / 2, 0, limit).astype(int)


class _Crops(Dataset):
    """Items of one observation each; item ``i`` is the same in any process."""

    def __init__(self, scenes, n_items, crop_size, rates, seed):
        self.scenes = scenes
        self.n_items = n_items
        self.crop_size = crop_size
        self.rates = rates
        self.seed = seed

    def __len__(self):
        return self.n_items

    def __getitem__(self, index):
        rng = np.random.default_rng([self.seed, index])
        scene = self.scenes[int(rng.integers(len(self.scenes)))]
        return self._item(rng, scene, [self.seed, index, 1])


class LevelCrops(_Crops):
    """
    Crops of one level each, two of each observation: one of the image as it
    is, and one as if it were a binned image. A labelled image, which cannot be
    observed deeper, is really binned, to 48 pixels a side or more.
    """

    def __init__(self, scenes, planes, n_items, *, crop_size=256, rates=None,
                 seed=0):
        super().__init__(scenes, n_items, crop_size, rates, seed)
        self.spec = getattr(planes, 'spec', planes)
        self.others = getattr(planes, 'planes', None)

    def _item(self, rng, scene, seed):
        if hasattr(scene, 'truth'):
            return self._of_labelled(rng, scene.image, scene.truth)
        b = np.exp(rng.uniform(*np.log(BINNINGS)))
        # what is binned is deep
        image, truth = observe(scene, seed,
                               depth=draw_depth(rng) * b**rng.random(),
                               rates=self.rates)
        return [self._as_if_binned(rng, image, truth, one)
                for one in (1.0, b)]

    def _as_if_binned(self, rng, image, truth, b):
        known = rng.random() < SKY_KNOWN and _is_linear(image, truth.light)
        channels = planes_of_level(image, self.spec, b,
                                   truth.light if known else None)
        return self._crop(rng, self._with_others(channels, image), truth, b,
                          self.crop_size)

    def _with_others(self, channels, image):
        """The planes of a backbone's own rule too, which are never deeper."""
        if self.others is None:
            return channels
        return np.concatenate([channels, self.others(image)])

    def _of_labelled(self, rng, image, truth):
        inside = truth.labels > 0
        normalised = normalise(image, self.spec,
                               objects=inside if inside.any() else None)
        channels = self._with_others(normalised.channels, image)
        out = [self._crop(rng, channels, truth, 1, self.crop_size)]
        least = min(image.shape)
        n = int(np.log2(max(least // LEAST_CROP, 1)))
        if n > 0:
            b = 2 ** int(rng.integers(1, n + 1))
            step = max(STRIDES)
            size = min(self.crop_size, least // b // step * step)
            out.append(self._crop(rng, *_bin(
                channels, truth, b, self.spec.n_channels), b, size))
        return out

    def _crop(self, rng, channels, truth, b, size):
        """A random crop, flipped and turned, often on a large galaxy."""
        labels, radius, asked = level_truth(rng, truth, b)
        o = truth.objects
        corner, limit = _place(rng, labels.shape, size)
        large = np.flatnonzero(asked & (radius > 10))
        if len(large) and rng.random() < ON_LARGE:
            corner = _near(rng, o, rng.choice(large), size, limit)
        window = Window(corner, size, int(rng.integers(8)))
        x, y = window.points(o['x'], o['y'])
        table = {'id': o['id'], 'cls': o['cls'], 'x': x, 'y': y,
                 'radius': radius, 'asked': asked}
        return make_crop(rng, window.cut(channels), b > 1,
                         window.cut(labels), {
            name: window.cut(getattr(truth, name))
            for name in ('labels', 'own_sn', 'owners', 'shares')}, table)


def _bin(channels, truth, b, n_noise):
    """A labelled image, binned; only whole blocks."""
    ny, nx = (side // b for side in truth.labels.shape)
    part = (slice(b // 2, b * ny, b), slice(b // 2, b * nx, b))
    o, none = truth.objects, np.zeros((0, ny, nx), np.float32)
    return bin_channels(channels, b, n_noise)[:, :ny, :nx], replace(
        truth, labels=truth.labels[part], own_sn=truth.own_sn[part],
        objects={**o, 'x': (o['x'] + 0.5) / b - 0.5,
                 'y': (o['y'] + 0.5) / b - 0.5},
        light=none, owners=none, shares=none)


class ClassCrops(_Crops):
    """
    Crops and the classes of their pixels, for semantic heads: two of each
    observation, the first on a large galaxy, if there is one.
    """

    def __init__(self, scenes, planes, n_items, *, crop_size=256, rates=None,
                 seed=0):
        super().__init__(scenes, n_items, crop_size, rates, seed)
        self.planes = planes

    def _item(self, rng, scene, seed):
        image, truth = observed(scene, seed, rates=self.rates)
        if rng.random() < NEAR:
            image, truth = _cutout(rng, image, truth, self.crop_size)
        channels = self.planes(image)
        return [self._crop(rng, channels, truth, on_primary=k == 0)
                for k in range(2)]

    def _crop(self, rng, channels, truth, *, on_primary):
        size, o = self.crop_size, truth.objects
        corner, limit = _place(rng, truth.labels.shape, size)
        large = np.flatnonzero(o['primary'])
        if on_primary and len(large):
            corner = _near(rng, o, rng.choice(large), size, limit)
        window = Window(corner, size, int(rng.integers(8)))
        classes = pixel_classes(window.cut(truth.labels), o)
        return ClassCrop(torch.from_numpy(window.cut(channels)),
                         torch.from_numpy(classes.astype(np.int64)))


class TokenCrops(Dataset):
    """Crops as tokens, drawn from a pool that is made at the start."""

    def __init__(self, model, crops, teacher=None, *, n_items=1, n_pool=48):
        self.crops, self.scales, self.n_items = crops, model.scales, n_items
        if n_pool < n_items:
            msg = f'n_pool must be n_items={n_items} or more, got {n_pool!r}'
            raise ValueError(msg)
        self.pool = {scale: [] for scale in self.scales}
        device = next(model.parameters()).device
        model.eval()
        for k in range(min(n_pool, len(crops))):
            for crop in crops[k]:
                x = crop.channels[None].to(device)
                taught = None
                if teacher is not None:
                    taught = teach(teacher, x)[0][0].half().cpu()
                for scale in self.scales:
                    with torch.no_grad():
                        tokens = model.tokens(x, scale)[0].half().cpu()
                    self.pool[scale].append(
                        TokenCrop(tokens, crop.classes, taught))

    def __len__(self):
        return len(self.crops)

    def __getitem__(self, index):
        scale = self.scales[index // self.n_items % len(self.scales)]
        pool = self.pool[scale]
        rng = np.random.default_rng([self.crops.seed, index, 3])
        return [pool[k] for k in rng.choice(len(pool), min(2, len(pool)),
                                            replace=False)]


def _cutout(rng, image, truth, smallest):
    """A cutout about a large galaxy, if there is one, of random size."""
    large = np.flatnonzero(truth.objects['primary'])
    ny, nx = image.shape
    if len(large) == 0 or min(ny, nx) < smallest:
        return image, truth
    k = rng.choice(large)
    size = int(rng.integers(smallest, min(ny, nx) + 1))
    middle = [truth.objects['x'][k], truth.objects['y'][k]]
    x, y = np.clip(np.array(middle) - size / 2, 0,
                   [nx - size, ny - size]).astype(int)
    part = (slice(y, y + size), slice(x, x + size))
    objects = {**truth.objects, 'x': truth.objects['x'] - x,
               'y': truth.objects['y'] - y}
    noise = None if image.noise is None else image.noise[:, *part]
    return (Image(image.cube[:, *part], image.mask[:, *part], noise,
                  bands=image.bands, unit=image.unit),
            replace(truth, objects=objects, labels=truth.labels[part]))
