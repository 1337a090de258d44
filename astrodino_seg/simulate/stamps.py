# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
A library of galaxy stamps on disk, from which scenes are composed quickly.

Drawing a large galaxy and putting it through the PSF takes a hundred times
longer than placing it. One file holds the stamps of one `Sky` (bands, PSFs,
depths) as float16; scenes differ by what is taken, turned and placed where.
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
from astrodino_seg.simulate.compose import DRAWN
from astrodino_seg.simulate.render import Large, Renderer, Small
from astrodino_seg.simulate.scene import (
    CONTENT,
    VERSION,
    log_uniform,
    merge_rates,
)
from astrodino_seg.simulate.sky import Sky, check_bands, draw_sky

#: Stamps are scaled to this largest value, so that their wings stay within
#: what float16 can tell from zero.
PEAK = 2e4
#: One of so many stamps, those nearest in size, is taken, if it is not off
#: the size by more than this factor more than the nearest.
N_NEAREST, LEEWAY = 4, 1.5


def _turn(k, array):
    """One of the eight flips and turns of the last two axes."""
    # by hand, for np.rot90 takes longer than all else about a small stamp
    if k % 2:
        array = array.swapaxes(-2, -1)
    rows, columns = k % 4 in (1, 2), (k % 4 in (2, 3)) != (k >= 4)
    return array[..., ::-1 if rows else 1, ::-1 if columns else 1]


def _turn_offset(k, x, y):
    """Where `_turn` takes an offset from the middle."""
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
            self.sky = Sky(sky['bands'], np.array(sky['psf_fwhm']),
                           sky['beta'], np.array(sky['depth']),
                           sky['optics'])
            self._large = _sizes(about['large'], 'kind')
            self._small = _sizes(about['small'], 'bulge')
        except (SafetensorError, OSError, KeyError, TypeError,
                json.JSONDecodeError) as err:
            msg = f'path: {str(path)!r} is not a file of stamps: {err}'
            raise ModelFileError(msg) from err
        if version != VERSION:
            msg = (f'path: {str(path)!r} has stamps of version {version}, '
                   f'this is {VERSION}')
            raise ModelFileError(msg)
        self.kinds = set(self._large)

    def large(self, rng, kind, re):
        """
        Take a large galaxy of a kind, one of those nearest in size, as of
        `Renderer.large`.
        """
        row = _nearest(rng, self._large[kind], re)
        cube = self._file.get_tensor(row['name'])
        return Large(_turn(rng.integers(8), cube), row['scale'], row['re'],
                     row['q'])

    def small(self, rng, re, half, *, bulge=False):
        """
        Take a small galaxy, one of those nearest in size, as of
        `Renderer.small`.
        """
        row = _nearest(rng, self._small[bulge], re)
        parts = self._file.get_tensor(row['name'])
        half = int(half * max(row['re'] / re, 1))
        cut = max(parts.shape[-1] // 2 - half, 0)
        inner = slice(cut, parts.shape[-1] - cut)
        turn = rng.integers(8)
        parts = _turn(turn, parts[..., inner, inner]).astype(np.float32)
        return Small(parts, row['scale'],
                     *_turn_offset(turn, row['x'], row['y']), row['re'])


def _sizes(rows, key):
    """By what they have in ``key``: logarithms of sizes, and rows, sorted."""
    parts = {}
    for row in rows:
        parts.setdefault(row[key], []).append(row)
    sizes = {}
    for value, part in parts.items():
        part = sorted(part, key=lambda row: row['re'])
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
        If there are no files of this version of the simulations.
    """

    def __init__(self, path):
        self.path = Path(path)
        self.files = sorted(self.path.glob(f'stamps{VERSION}-*.safetensors'))
        if not self.files:
            msg = (f'path: no stamps of version {VERSION} in '
                   f'{str(self.path)!r}')
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
        order = rng.permutation(len(self.files))
        if band_set is None:
            return self.source(order[0])
        bands = list(check_bands(band_set).items())
        for index in order:
            if list(self.source(index).sky.bands.items()) == bands:
                return self.source(index)
        msg = f'the stamps have no sky with band_set={band_set!r}'
        raise ValueError(msg)


def build_stamps(path, *, n_skies=32, n_large=40, n_small=160, first_seed=0,
                 band_sets=None, rates=None, cosmos=None, progress=True):
    """
    Draw the stamps of some skies into a folder: its `StampLibrary`.

    Of each sky there are ``n_large`` galaxies, one more of each kind, and
    ``n_small``. Files that exist are kept as they are, whatever they were
    drawn with, so that what was stopped goes on where it was. ``band_sets``
    are keys of `BAND_SETS` that the skies have in turn, drawn if `None`;
    ``rates`` and ``cosmos`` are those of `make_scene`. The same seeds give the
    same stamps.
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
            _write(file, *_draw(rng, source, n_large, n_small))
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
    sky = asdict(source.sky)
    sky.update(psf_fwhm=sky['psf_fwhm'].tolist(), depth=sky['depth'].tolist())
    return tensors, {'version': VERSION, 'sky': sky, 'large': large,
                     'small': small}


def _write(file, tensors, about):
    """Write one file; it appears whole or not at all."""
    with whole_or_not(file) as part:
        part.write_bytes(to_bytes(tensors, {'stamps': json.dumps(about)}))
