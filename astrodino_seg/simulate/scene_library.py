# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Libraries on disk: of galaxy stamps, and of the scenes of a split.

A scene is composed of stamps a hundred times faster than it is drawn. One file
holds those of one `Sky` (bands, PSFs, depths) as float16; scenes differ by
what is taken, turned and placed where.
"""

import json
import math
from dataclasses import asdict
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_bytes
from tqdm import tqdm

from astrodino_seg.errors import ModelFileError
from astrodino_seg.files import whole_or_not
from astrodino_seg.simulate.compose import DRAWN, make_scene
from astrodino_seg.simulate.render import Large, Renderer, Small
from astrodino_seg.simulate.scene import (
    CONTENT,
    VERSION,
    Scene,
    log_uniform,
    merge_rates,
    turned,
)
from astrodino_seg.simulate.sky import Sky, check_bands, draw_sky

#: Seeds of the splits: first seed, and one past the last.
SPLITS = {'train': (0, 1_000_000),
          'validation': (1_000_000, 1_100_000),
          'benchmark': (2_000_000, 2_100_000)}
#: The largest value of stamps, whose wings float16 can then tell from zero.
PEAK = 2e4
#: One of so many stamps of the nearest size is taken, which is off by no more
#: than this factor more than the nearest.
N_NEAREST, LEEWAY = 4, 1.5


def _turn_offset(k, x, y):
    """Where `turned` takes an offset from the middle."""
    for _ in range(k % 4):
        x, y = y, -x
    return (-x, y) if k >= 4 else (x, y)


class Stamps:
    """The stamps of one sky; a source of galaxies like `Renderer`."""

    def __init__(self, path):
        try:
            self._file = safe_open(path, 'numpy')
            about = json.loads(self._file.metadata()['stamps'])
            version, sky = about['version'], about['sky']
            self.sky = Sky(**{**sky, **{
                key: np.array(sky[key]) for key in ('psf_fwhm', 'depth')}})
            self._large = _sizes(about['large'], 'kind')
            self._small = _sizes(about['small'], 'bulge')
        except (SafetensorError, OSError, LookupError, TypeError,
                ValueError) as err:
            msg = f'path: {str(path)!r} is not a file of stamps: {err}'
            raise ModelFileError(msg) from err
        if version != VERSION:
            msg = (f'path: {str(path)!r} has stamps of version {version}, '
                   f'this is {VERSION}')
            raise ModelFileError(msg)
        self.kinds = set(self._large)

    def large(self, rng, kind, re):
        """As `Renderer.large`, one of those nearest in size."""
        row = _nearest(rng, self._large[kind], re)
        cube = self._file.get_tensor(row['name'])
        return Large(turned(cube, rng.integers(8)), row['scale'], row['re'],
                     row['q'])

    def small(self, rng, re, half, *, bulge=False):
        """As `Renderer.small`, one of those nearest in size."""
        row = _nearest(rng, self._small[bulge], re)
        parts = self._file.get_tensor(row['name'])
        half = int(half * max(row['re'] / re, 1))
        cut = max(parts.shape[-1] // 2 - half, 0)
        inner = slice(cut, parts.shape[-1] - cut)
        turn = rng.integers(8)
        parts = turned(parts[..., inner, inner], turn).astype(np.float32)
        return Small(parts, row['scale'],
                     *_turn_offset(turn, row['x'], row['y']), row['re'])


def _sizes(rows, key):
    """By what they have in ``key``: logarithms of sizes, and rows, sorted."""
    sizes = {}
    for value in {row[key] for row in rows}:
        part = sorted((row for row in rows if row[key] == value),
                      key=lambda row: row['re'])
        sizes[value] = np.log([row['re'] for row in part]), part
    return sizes


def _nearest(rng, sizes, re):
    """One of the nearest in size."""
    logs, rows = sizes
    wanted = math.log(re)
    first = max(logs.searchsorted(wanted) - N_NEAREST, 0)
    away = sorted((abs(log - wanted), k) for k, log in enumerate(
        logs[first:first + 2 * N_NEAREST].tolist(), first))[:N_NEAREST]
    near = [k for d, k in away if d <= away[0][0] + math.log(LEEWAY)]
    return rows[near[rng.integers(len(near))]]


class StampLibrary:
    """
    The files of a folder.

    Parameters
    ----------
    path : path-like
        A folder that `build_stamps` filled.

    Raises
    ------
    FileNotFoundError
        If there are no files of this version.
    """

    def __init__(self, path):
        self.path = Path(path)
        self.files = sorted(self.path.glob(f'stamps{VERSION}-*.safetensors'))
        if not self.files:
            msg = f'path: no stamps of version {VERSION} in {str(path)!r}'
            raise FileNotFoundError(msg)
        self._sources = {}

    def __getstate__(self):
        return {**self.__dict__, '_sources': {}}    # open files stay here

    def source(self, index):
        """The `Stamps` of one file, opened once."""
        if index not in self._sources:
            self._sources[index] = Stamps(self.files[index])
        return self._sources[index]

    def draw(self, rng, band_set=None):
        """
        One sky, at random.

        Parameters
        ----------
        rng : `numpy.random.Generator`
            Source of all randomness.
        band_set : str or dict, optional
            A key of `BAND_SETS`, or bands, that the sky must have.

        Returns
        -------
        stamps : `Stamps`
            Its stamps.

        Raises
        ------
        ValueError
            If the library has no sky of this band set.
        """
        bands = band_set and list(check_bands(band_set).items())
        for index in rng.permutation(len(self.files)):
            sky = self.source(index).sky
            if band_set is None or list(sky.bands.items()) == bands:
                return self.source(index)
        msg = f'the stamps have no sky with band_set={band_set!r}'
        raise ValueError(msg)


def build_stamps(path, *, n_skies=32, n_large=40, n_small=160, first_seed=0,
                 band_sets=None, rates=None, cosmos=None, progress=True):
    """
    Draw the stamps of some skies into a folder: its `StampLibrary`.

    Of each sky there are ``n_large`` galaxies, one more of each kind, and
    ``n_small``. Files that exist are kept as they are. ``band_sets`` are those
    that the skies have in turn, drawn if `None`.
    """
    for name, value in (('n_skies', n_skies), ('n_large', n_large),
                        ('n_small', n_small)):
        if value < 1:
            msg = f'{name} must be at least 1, got {value!r}'
            raise ValueError(msg)
    rates = merge_rates(rates, CONTENT)
    for name in band_sets or ():
        check_bands(name)
    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    for k in tqdm(range(n_skies), disable=not progress, unit='sky'):
        file = path / f'stamps{VERSION}-{first_seed + k:06d}.safetensors'
        if not file.exists():
            rng = np.random.default_rng([first_seed + k, 2027])
            name = band_sets[k % len(band_sets)] if band_sets else None
            sky = draw_sky(rng, rates, band_set=name)
            source = Renderer(sky, rates, cosmos=cosmos)
            tensors, about = _draw(rng, source, n_large, n_small)
            with whole_or_not(file) as part:
                part.write_bytes(to_bytes(tensors, {
                    'stamps': json.dumps(about)}))
    return StampLibrary(path)


def _draw(rng, source, n_large, n_small):
    """The tensors of a file and what is said of them."""
    names = [name for name in DRAWN if source.rates[name] > 0
             and name in source.kinds]
    shares = np.array([source.rates[name] for name in names])
    # every kind at a few sizes, and 'central' for groups
    counts = 1 + np.round(n_large * shares / max(shares.sum(), 1e-9))
    plan = [(name, k, int(n)) for name, n in zip(names, counts)
            for k in range(int(n))]
    plan += [('central', k, 2) for k in range(2)]
    tensors, large, small = {}, [], []
    for i, (kind, k, n) in enumerate(plan):
        lo, hi = np.log((12, 30) if kind == 'central' else (2.5, 130))
        re = np.exp(lo + (hi - lo) * (k + rng.random()) / n)
        galaxy = source.large(rng, kind, float(re))
        scale = float(galaxy.cube.max() / PEAK)
        tensors[f'large{i}'] = (galaxy.cube / scale).astype(np.float16)
        large.append({'name': f'large{i}', 'kind': kind,
                      're': float(galaxy.re), 'q': float(galaxy.q),
                      'scale': scale})
    for i in range(n_small):
        re = float(log_uniform(rng, .4, 16))
        bulge = bool(i % 4 == 0)
        half = int(np.clip(5 * re + 2 * source.sky.psf_fwhm.mean(), 8, 80))
        galaxy = source.small(rng, re, half, bulge=bulge)
        scale = float(galaxy.parts.max() / PEAK)
        tensors[f'small{i}'] = (galaxy.parts / scale).astype(np.float16)
        small.append({'name': f'small{i}', 're': re, 'bulge': bulge,
                      'x': float(galaxy.x), 'y': float(galaxy.y),
                      'scale': scale})
    sky = {key: value.tolist() if isinstance(value, np.ndarray) else value
           for key, value in asdict(source.sky).items()}
    return tensors, {'version': VERSION, 'sky': sky, 'large': large,
                     'small': small}


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
        path = self.path / (
            f'{self.split}{VERSION}-{self.size}-{index:06d}.npz')
        if not path.exists():
            _save(path, make_scene(self.seed(index), size=self.size))
        return _load(path)


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
        scale = float(z['pixel_scale'])
        return Scene(z['cube'].astype(np.float32), z['owner'],
                     z['own_sn'].astype(np.float32), bands, z['psf_fwhm'],
                     objects, None if np.isnan(scale) else scale)
