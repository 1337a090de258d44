# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The scenes of a split, kept on disk or composed of stamps.

The seed ranges of the three splits stand here and nowhere else.
"""

from pathlib import Path

import numpy as np

from astrodino_seg.files import whole_or_not
from astrodino_seg.simulate.compose import make_scene
from astrodino_seg.simulate.scene import CONTENT, VERSION, Scene, merge_rates
from astrodino_seg.simulate.stamps import StampLibrary

#: Seeds of the splits: first seed, and one past the last.
SPLITS = {'train': (0, 1_000_000),
          'validation': (1_000_000, 1_100_000),
          'benchmark': (2_000_000, 2_100_000)}


class SceneLibrary:
    """
    Scenes of one split.

    They are drawn anew each time, or rendered once and kept as float16
    files, or composed of stamps.

    Parameters
    ----------
    split : str
        A key of `SPLITS`.
    n_scenes : int
        How many scenes.
    path : path-like, optional
        The folder of the files, in which rendered scenes are kept.
    size : int, optional
        Side of a scene in pixels.
    stamps : path-like, optional
        The folder of a `~astrodino_seg.simulate.StampLibrary`, of which
        scenes are composed.
    rates : dict of float, optional
        As of `~astrodino_seg.simulate.make_scene`.

    Raises
    ------
    ValueError
        If ``split`` is unknown or has fewer seeds than ``n_scenes``, a rate
        is impossible, or ``path`` is given with ``stamps`` or ``rates``:
        files do not tell what they were made with.
    FileNotFoundError
        If there are no ``stamps``.
    """

    def __init__(self, split, n_scenes, *, path=None, size=512, stamps=None,
                 rates=None):
        if split not in SPLITS:
            msg = f'split must be one of {sorted(SPLITS)}, got {split!r}'
            raise ValueError(msg)
        first, last = SPLITS[split]
        if not 0 < n_scenes <= last - first:
            msg = (f'n_scenes must be in [1, {last - first}] for split '
                   f'{split!r}, got {n_scenes!r}')
            raise ValueError(msg)
        for name, other in (('stamps', stamps), ('rates', rates)):
            if path is not None and other is not None:
                msg = (f'only one of path={str(path)!r} and '
                       f'{name}={str(other)!r} can be given')
                raise ValueError(msg)
        self.split = split
        self.n_scenes = n_scenes
        self.path = None if path is None else Path(path)
        self.size = size
        self.stamps = None if stamps is None else StampLibrary(stamps)
        self.rates = merge_rates(rates, CONTENT)

    def __len__(self):
        return self.n_scenes

    def _file(self, index):
        return self.path / (
            f'{self.split}{VERSION}-{self.size}-{index:06d}.npz')

    def seed(self, index):
        """The seed of scene ``index``."""
        return SPLITS[self.split][0] + index

    def __getitem__(self, index):
        if not 0 <= index < self.n_scenes:
            msg = f'index must be in [0, {self.n_scenes}), got {index!r}'
            raise IndexError(msg)
        if self.path is None:
            return make_scene(self.seed(index), size=self.size,
                              stamps=self.stamps, rates=self.rates)
        if not self._file(index).exists():
            _save(self._file(index),
                  make_scene(self.seed(index), size=self.size))
        return _load(self._file(index))


def _save(path, scene):
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {f'object_{k}': v for k, v in scene.objects.items()}
    with whole_or_not(path) as part:
        np.savez(part, owner=scene.owner,
                 cube=scene.cube.clip(-6e4, 6e4).astype(np.float16),
                 own_sn=scene.own_sn.clip(0, 6e4).astype(np.float16),
                 psf_fwhm=scene.psf_fwhm,
                 pixel_scale=scene.pixel_scale or np.nan,
                 names=np.array(list(scene.bands)),
                 waves=np.array(list(scene.bands.values())), **arrays)


def _load(path):
    with np.load(path, allow_pickle=False) as z:
        objects = {k[7:]: z[k] for k in z.files if k.startswith('object_')}
        bands = dict(zip(z['names'].tolist(), z['waves'].tolist()))
        return Scene(z['cube'].astype(np.float32), z['owner'],
                     z['own_sn'].astype(np.float32), bands, z['psf_fwhm'],
                     objects,
                     None if np.isnan(z['pixel_scale'])
                     else float(z['pixel_scale']))
