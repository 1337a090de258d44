# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
From any sequence of images to the items of self-supervised pretraining.
"""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from astrodino_seg.inputs.channels import fold
from astrodino_seg.pretrain.views import (
    bright_blocks,
    check_rates,
    draw_square,
    expose,
    make_view,
)
from astrodino_seg.simulate import observe

__all__ = ['Mixture', 'ObservedScenes', 'ViewDataset', 'Views']


class Views(NamedTuple):
    """
    The views of one item, or of a batch with one more axis in front.

    Attributes
    ----------
    global_views : `~torch.Tensor`
        (2, C, G, G) float32 channels.
    local_views : `~torch.Tensor`
        (n_local, C, L, L) float32 channels.
    """

    global_views: torch.Tensor
    local_views: torch.Tensor


class ObservedScenes(Sequence):
    """
    Simulated scenes as images: each is observed once, always alike.

    Parameters
    ----------
    scenes : sequence of `~astrodino_seg.simulate.Scene`
        For example a `~astrodino_seg.simulate.SceneLibrary`.
    seed : int, optional
        Seed of noise, depth, bands and artifacts.
    """

    def __init__(self, scenes, *, seed=0):
        self.scenes = scenes
        self.seed = seed

    def __len__(self):
        return len(self.scenes)

    def __getitem__(self, index):
        if not 0 <= index < len(self):
            msg = f'index must be in [0, {len(self)}), got {index!r}'
            raise IndexError(msg)
        return observe(self.scenes[index], [self.seed, index])[0]

    @property
    def shapes(self):
        """The shape (ny, nx) of each."""
        if hasattr(self.scenes, 'size'):
            return [(self.scenes.size, self.scenes.size)] * len(self)
        return [scene.cube.shape[1:] for scene in self.scenes]


class Mixture(Sequence):
    """
    Several sequences of images as one, each with its share of the items.

    Parameters
    ----------
    sources : sequence of sequences of `~astrodino_seg.Image`
        The parts.
    shares : sequence of float, optional
        For each part the share of the items whose image comes from it; in
        proportion to the number of images if `None`.

    Raises
    ------
    ValueError
        If a part is empty, or there is not one positive share a part.
    """

    def __init__(self, sources, shares=None):
        self.sources = list(sources)
        self.lengths = [len(source) for source in self.sources]
        shares = self.lengths if shares is None else list(shares)
        if not self.sources or 0 in self.lengths:
            msg = (f'sources must have one image or more each, got '
                   f'{self.lengths}')
            raise ValueError(msg)
        if len(shares) != len(self.sources) or not min(shares) > 0:
            msg = (f'shares must be {len(self.sources)} positive numbers, '
                   f'one a source, got {shares}')
            raise ValueError(msg)
        self.ends = list(accumulate(self.lengths))
        #: For each image, the share of the items that is to come from it.
        self.weights = np.repeat(np.divide(shares, self.lengths),
                                 self.lengths) / np.sum(shares)

    def __len__(self):
        return self.ends[-1]

    def __getitem__(self, index):
        if not 0 <= index < len(self):
            msg = f'index must be in [0, {len(self)}), got {index!r}'
            raise IndexError(msg)
        k = bisect_right(self.ends, index)
        return self.sources[k][index - self.ends[k] + self.lengths[k]]


class ViewDataset(Dataset):
    """
    Two global and some local views of a piece of an image, item by item.

    Each item has a parent crop, a square of ``zoom`` times ``global_size``
    pixels of an image. A global view shows a square of ``global_scale`` of
    its area, half of it or more, and a local view one of ``local_scale``,
    anywhere within; see `~astrodino_seg.pretrain.views` for what else tells
    the views apart.

    To bring an image into units of its noise takes as long as some items, so
    that images are kept open: items come from ``n_open`` of them, drawn at
    random, one of which is exchanged for another from time to time. Each
    process that makes items opens the images itself; with ``n_streams`` and
    ``run`` set to the number of processes and to the items of a batch, each
    has images of its own to open, and not all of them.

    Parameters
    ----------
    images : sequence of `~astrodino_seg.Image`
        For example `ObservedScenes`, a
        `~astrodino_seg.datasets.FolderImages`, a list, or a `Mixture` of
        such. Unless it has an attribute ``shapes``, each image is opened
        once now, and checked.
    spec : `~astrodino_seg.inputs.channels.PreprocessSpec`
        The model's preprocessing.
    n_items : int
        How many items. Item ``i`` depends on ``i`` and these arguments
        alone, in any process.
    global_size, local_size : int, optional
        Sides of the views in pixels.
    n_local : int, optional
        Local views an item.
    global_scale, local_scale : tuple of float, optional
        Range of a view's share of the area of the parent crop.
    zoom : tuple of float, optional
        Range of the side of the parent crop over ``global_size``; it never
        exceeds the shorter side of the image. Without the degradation
        ``rescale`` it is such that a global view in the image's own pixels
        has the smallest share of ``global_scale``.
    rates : dict, optional
        Some of `~astrodino_seg.pretrain.views.RATES`, to change them.
    n_open : int, optional
        Images that the items of a stream come from at any one time.
    n_reuse : int, optional
        Items from one image before it is closed again, on average;
        ``n_items`` over the number of images, and 16 or more, if `None`.
    n_streams, run : int, optional
        Each ``run`` items that follow each other are of one stream, the next
        ``run`` of the next, in turn. A stream has open images of its own.
    cache_bytes : int, optional
        Memory of each process for open images; if it is less than they
        need, some are opened more often.
    seed : int, optional
        Seed of everything drawn.

    Raises
    ------
    ValueError
        If an argument is impossible; if there are no images, or some are
        constant, without valid pixels, or smaller than ``global_size``.
    """

    def __init__(self, images, spec, n_items, *, global_size=128,
                 local_size=64, n_local=6, global_scale=(0.5, 1.0),
                 local_scale=(0.05, 0.4), zoom=(1.0, 2.0), rates=None,
                 n_open=64, n_reuse=None, n_streams=1, run=1,
                 cache_bytes=2**30, seed=0):
        for name, (low, high), least in (
                ('global_scale', global_scale, 0.5),
                ('local_scale', local_scale, 1e-3)):
            if not least <= low <= high <= 1:
                msg = (f'{name} must be a range within [{least}, 1], got '
                       f'{(low, high)}')
                raise ValueError(msg)
        if not 1 <= zoom[0] <= zoom[1]:
            msg = f'zoom must be a range above 1, got {tuple(zoom)}'
            raise ValueError(msg)
        for name, value, least in (
                ('n_items', n_items, 1), ('global_size', global_size, 16),
                ('local_size', local_size, 8), ('n_local', n_local, 0),
                ('n_open', n_open, 1), ('n_reuse', n_reuse, 1),
                ('n_streams', n_streams, 1), ('run', run, 1)):
            if value is not None and value < least:
                msg = f'{name} must be {least} or more, got {value!r}'
                raise ValueError(msg)
        if local_size > global_size:
            msg = (f'local_size must be at most global_size={global_size}, '
                   f'got {local_size}')
            raise ValueError(msg)
        self.rates = check_rates(rates)
        check_images(images, global_size)
        self.images = images
        self.spec = spec
        self.n_items = n_items
        self.global_size, self.local_size = global_size, local_size
        self.n_local = n_local
        self.global_scale, self.local_scale = global_scale, local_scale
        self.zoom = zoom
        self.n_open = n_open
        self.n_reuse = n_reuse or max(n_items // len(images), 16)
        self.n_streams, self.run = n_streams, run
        self.cache_bytes = cache_bytes
        self.seed = seed
        self._open = OrderedDict()

    def __getstate__(self):
        return {**vars(self), '_open': OrderedDict()}

    def __len__(self):
        return self.n_items

    def __getitem__(self, index):
        rng, exposure, bright, parent, whole, rescale = self._draw(index)

        def views(n, size, scale):
            out = np.empty((n, self.spec.n_channels, size, size), np.float32)
            for k in range(n):
                side = (whole * rng.uniform(*scale)**0.5 if rescale
                        else size)
                start = draw_square(rng, parent, parent + whole, side,
                                    self._aim(rng, bright))
                start = start if rescale else np.rint(start)
                out[k] = make_view(rng, exposure, start, side, size,
                                   self.rates, self.spec)
            return torch.from_numpy(out)

        return Views(views(2, self.global_size, self.global_scale),
                     views(self.n_local, self.local_size, self.local_scale))

    def parent(self, index):
        """
        The channels of an item's parent crop as it was observed, to look at.

        Parameters
        ----------
        index : int
            Of the item.

        Returns
        -------
        channels : `~numpy.ndarray`
            (channel, y, x) float32.
        """
        _, exposure, _, (y, x), whole, _ = self._draw(index)
        part = np.s_[:, y:y + whole, x:x + whole]
        return fold(zip(exposure.signal[part], exposure.valid[part]),
                    len(exposure.signal), self.spec)

    def _draw(self, index):
        """Generator, image and parent crop of an item."""
        if not 0 <= index < self.n_items:
            msg = f'index must be in [0, {self.n_items}), got {index!r}'
            raise IndexError(msg)
        rng = np.random.default_rng([self.seed, 0, index])
        exposure, bright = self._opened(self._image_of(rng, index))
        rescale = rng.random() < self.rates['rescale']
        zoom = (np.exp(rng.uniform(*np.log(self.zoom))) if rescale
                else self.global_scale[0]**-0.5)
        shape = np.array(exposure.signal.shape[1:])
        whole = min(int(self.global_size * zoom), *shape)
        aim = self._aim(rng, bright)
        most = -1
        for _ in range(10):     # not on gaps, if that can be
            corner = draw_square(rng, np.zeros(2), shape, whole, aim)
            y, x = corner = np.rint(corner).astype(int)
            share = exposure.valid[:, y:y + whole, x:x + whole].mean()
            if share > most:
                most, parent = share, corner
            if share >= 0.5:
                break
        return rng, exposure, bright, parent, whole, rescale

    def _aim(self, rng, bright):
        return bright if rng.random() < self.rates['aim'] else None

    def _image_of(self, rng, index):
        """The image of an item: of a window on the stream's endless row."""
        n = len(self.images)
        if n > self.n_open:
            stream = index // self.run % self.n_streams
            first = index // (self.n_reuse * self.n_streams)
            place = first + int(rng.integers(self.n_open))
            rng = np.random.default_rng([self.seed, 1, stream, place])
        return int(rng.choice(n, p=getattr(self.images, 'weights', None)))

    def _opened(self, index):
        if index not in self._open:
            exposure = expose(self.images[index], self.spec)
            if not exposure.valid.any():
                msg = (f'images[{index}] has no noise to be measured: it is '
                       f'constant or masked')
                raise ValueError(msg)
            self._open[index] = exposure, bright_blocks(exposure)
        self._open.move_to_end(index)
        held = [e.signal.nbytes + e.valid.nbytes
                for e, _ in self._open.values()]
        while sum(held) > self.cache_bytes and len(held) > 1:
            self._open.popitem(last=False)
            held.pop(0)
        return self._open[index]


def check_images(images, global_size):
    """
    Check that views can be made of images.

    Parameters
    ----------
    images : sequence of `~astrodino_seg.Image`
        See `ViewDataset`.
    global_size : int
        Side in pixels that each must have.

    Raises
    ------
    TypeError
        If they are not a sequence, or not of images.
    ValueError
        If there are none; once for all that cannot be used.
    """
    if not (hasattr(images, '__len__') and hasattr(images, '__getitem__')):
        msg = (f'images must be a sequence, for example a list, got '
               f'{type(images).__name__}')
        raise TypeError(msg)
    if not len(images):
        msg = 'images is empty'
        raise ValueError(msg)
    bad = [f'{name} {problem}' for name, problem in _problems(
        images, global_size, 'images')]
    if bad:
        more = f', and {len(bad) - 5} more' if len(bad) > 5 else ''
        msg = (f'{len(bad)} of {len(images)} images cannot be used: '
               + ', '.join(bad[:5]) + more)
        raise ValueError(msg)


def _problems(images, global_size, label):
    """Yield the name of each image that cannot be used, and why."""
    if isinstance(images, Mixture):
        for k, source in enumerate(images.sources):
            yield from _problems(source, global_size, f'sources[{k}]')
        return
    shapes = getattr(images, 'shapes', None)
    paths = getattr(images, 'paths', None)
    for k in range(len(images)):
        name = f'{label}[{k}]' if paths is None else str(paths[k])
        image = images[k] if shapes is None else None
        if image is not None and not hasattr(image, 'cube'):
            msg = (f'{name} must be an Image, which as_image makes, got '
                   f'{type(image).__name__}')
            raise TypeError(msg)
        shape = image.shape if shapes is None else shapes[k]
        if min(shape) < global_size:
            yield name, (f'has {shape[0]} x {shape[1]} pixels, less than '
                         f'global_size={global_size}')
        elif image is not None:
            good = [band[~bad] for band, bad in zip(image.cube, image.mask)]
            if not any(map(len, good)):
                yield name, 'has no valid pixel'
            elif not any(len(v) and np.ptp(v) > 0 for v in good):
                yield name, 'is constant'
