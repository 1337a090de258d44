# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Views of one image for self-supervised learning, made for astronomy. A view is
what another survey might have taken of the same piece of sky: resampled,
turned, behind more dust, shallower, through worse seeing, with other bands
(see ``exposures``), in units of the noise, band by band; the bands are folded
into the model's channels last.
"""

from collections import OrderedDict
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from astrodino_seg.errors import check
from astrodino_seg.inputs.channels import fold
from astrodino_seg.train.batches import check_images
from astrodino_seg.train.exposures import (
    bright_blocks,
    choose_bands,
    cut_gaps,
    drop_bands,
    expose,
    fill_noise,
    lower_depth,
    offset_sky,
    psf_sigma,
    redden,
    resample,
    rotate,
    turn,
)

#: Share of views in which each happens; of ``rescale``, share of items.
RATES = {
    'aim': 0.5,         # something bright is in it, and in the parent crop
    'rescale': 0.8,     # crops of any scale, else of the image's own pixels
    'turn': 1.0,        # eight flips and quarter turns
    'rotate': 0.2,      # up to MAX_ANGLE besides
    'subset': 0.2,      # fewer bands
    'redden': 0.5,
    'depth': 0.5,
    'psf': 0.3,
    'offset': 0.5,
    'gaps': 0.15,
    'drop': 0.1,        # bands without data
}

MAX_ANGLE = np.pi / 4   # with the quarter turns, that is any angle


def check_rates(rates):
    """Complete the rates of degradations, or say what is wrong with them."""
    rates = dict(rates or {})
    check('rates', rates, extra=RATES)
    for name, rate in rates.items():
        if not 0 <= rate <= 1:
            msg = f'rates: {name} must be in [0, 1], got {rate!r}'
            raise ValueError(msg)
    return {**RATES, **rates}


def draw_square(rng, low, high, side, bright=None):
    """Draw where in a rectangle from low to high (y, x) a square lies."""
    limit = np.maximum(high - side, low)
    if bright is not None:
        yx, weight = bright
        weight = np.cumsum(weight * ((yx > low) & (yx < high)).all(axis=1))
        if len(weight) and weight[-1] > 0:
            k = np.searchsorted(weight, rng.random() * weight[-1], 'right')
            return np.clip(yx[k] - side * rng.uniform(0.15, 0.85, 2), low,
                           limit)
    return rng.uniform(low, limit)


def make_view(rng, exposure, start, side, size, rates, spec):
    """Make one view, (channel, size, size)."""
    def happens(name):
        return rng.random() < rates[name]

    angle, scale, n = 0, side / size, size
    if happens('rotate'):
        angle = rng.uniform(-MAX_ANGLE, MAX_ANGLE)
        n = int(np.ceil(size * (np.cos(angle) + abs(np.sin(angle))))) + 2
        start = start - scale * (n - size) / 2
    exposure, start = _cut(exposure, start, scale * n)
    if happens('subset'):
        exposure = choose_bands(rng, exposure)
    if happens('redden'):
        exposure = redden(rng, exposure)
    if happens('depth'):
        exposure = lower_depth(rng, exposure)
    sigma = (psf_sigma(rng, len(exposure.signal)) if happens('psf')
             else None)
    exposure = resample(exposure, start, scale, n, sigma=sigma)
    if angle:
        exposure = rotate(exposure, angle, size)
    if happens('turn'):
        exposure = turn(rng, exposure)
    exposure = fill_noise(rng, exposure)
    if happens('offset'):
        exposure = offset_sky(rng, exposure)
    if happens('gaps'):
        exposure = cut_gaps(rng, exposure)
    if happens('drop'):
        exposure = drop_bands(rng, exposure)
    return fold(zip(exposure.signal, exposure.valid), len(exposure.signal),
                spec)


def _cut(exposure, start, side):
    """The pixels that a square needs, and where in them it starts."""
    low = np.maximum(np.floor(start).astype(int) - 1, 0)
    y, x = (slice(a, b) for a, b in zip(
        low, np.ceil(start + side).astype(int) + 1))
    return exposure._replace(signal=exposure.signal[:, y, x],
                             valid=exposure.valid[:, y, x]), start - low


class Views(NamedTuple):
    """
    The views of one item, (2, C, G, G) and (n_local, C, L, L), or of a batch
    with one more axis in front.
    """

    global_views: torch.Tensor
    local_views: torch.Tensor


class ViewDataset(Dataset):
    """
    Two global and some local views of a piece of an image, item by item.

    Each item has a parent crop, a square of ``zoom`` times ``global_size``
    pixels of an image. A global view shows a square of ``global_scale`` of
    its area, half of it or more, and a local view one of ``local_scale``,
    anywhere within; see `~astrodino_seg.train.views` for what else tells
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
    spec : `~astrodino_seg.inputs.PreprocessSpec`
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
        Some of `~astrodino_seg.train.views.RATES`, to change them.
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
        check('views', {
            'n_items': n_items, 'global_size': global_size,
            'local_size': local_size, 'n_local': n_local, 'n_open': n_open,
            'n_reuse': n_reuse, 'n_streams': n_streams, 'run': run,
            'seed': seed}, ViewDataset)
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
