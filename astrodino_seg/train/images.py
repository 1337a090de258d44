# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Where the images of a pretraining come from.
"""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from astrodino_seg.simulate import observe

__all__ = ['Mixture', 'ObservedScenes']


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


def check_images(images, global_size):
    """Check that views can be made of images."""
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
