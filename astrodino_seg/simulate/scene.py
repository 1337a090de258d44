# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
A noiseless multi-band scene, the canvas that it is painted on, and how much of
each ingredient there is.

Fluxes are in units of the pixel noise at nominal depth;
`~astrodino_seg.simulate.observe` draws the noise and makes the truth.

The two tables of rates, in ``data/ingredients.toml``, are all there is to
switch: `~astrodino_seg.simulate.make_scene` takes the names of `CONTENT` and
`~astrodino_seg.simulate.observe` those of `CONDITIONS`, in their ``rates``.
"""

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import NamedTuple

import numpy as np

#: In the names of files of scenes and stamps; raised with every change of
#: what a seed gives.
VERSION = 4

N_OWNERS = 3
COLUMNS = ('x', 'y', 'cls', 'kind', 're', 'primary')


class Rate(NamedTuple):
    """How often an ingredient comes."""

    #: The default.
    value: float
    #: What the ingredient is, and what its rate counts.
    what: str


TABLES = tomllib.loads((Path(__file__).parents[1] / 'data'
                         / 'ingredients.toml').read_text())
#: Ingredients of a scene.
CONTENT = {name: Rate(*row) for name, row in TABLES['content'].items()}
#: Ingredients of an observation.
CONDITIONS = {name: Rate(*row) for name, row in TABLES['conditions'].items()}


def happens(rng, rate):
    """
    Whether an ingredient comes; a rate of 0 draws no random number, so that
    seeds give what they gave before there was the ingredient.
    """
    return rate > 0 and rng.random() < rate


def merge_rates(rates, known):
    """Put the caller's rates over the defaults."""
    if not isinstance(rates, Mapping | None):
        msg = f'rates must be a table, got {rates!r}'
        raise ValueError(msg)
    merged = {name: rate.value for name, rate in known.items()}
    for name, value in (rates or {}).items():
        if name not in known:
            msg = f'rates must be some of {sorted(known)}, got {name!r}'
            raise ValueError(msg)
        if not (isinstance(value, Real) and 0 <= value < math.inf):
            msg = (f'rates[{name!r}] must be a number of 0 or more, got '
                   f'{value!r}')
            raise ValueError(msg)
        merged[name] = float(value)
    return merged


def log_uniform(rng, lowest, highest, size=None):
    """Numbers whose logarithms are uniform between two limits."""
    return np.exp(rng.uniform(np.log(lowest), np.log(highest), size))


def turned(array, k):
    """
    One of the eight flips and quarter turns of (..., y, x); np.rot90, which
    would do the same, takes longer than all else.
    """
    if k % 2:
        array = array.swapaxes(-2, -1)
    rows, columns = k % 4 in (1, 2), (k % 4 in (2, 3)) != (k >= 4)
    return array[..., ::-1 if rows else 1, ::-1 if columns else 1]


@dataclass
class Scene:
    """A noiseless scene."""

    #: (band, y, x) float32, in units of the nominal noise.
    cube: np.ndarray
    #: (3, y, x) int32: the three objects (ids from 1; 0 is none) with the
    #: largest own S/N in each pixel, largest first.
    owner: np.ndarray
    #: (3, y, x) float32: their own noiseless S/N, the root of the sum of
    #: squares over bands.
    own_sn: np.ndarray
    #: Band name to wavelength in micron.
    bands: dict
    #: Pixels, one a band.
    psf_fwhm: np.ndarray
    #: One entry an object: ``x``, ``y`` (pixels), ``cls`` (index into
    #: `~astrodino_seg.truth.CLASSES`), ``kind`` (str), ``re`` (pixels),
    #: ``primary`` (bool) and ``flux``, (object, band) float32, the sum of its
    #: light within the frame, in the unit of ``cube``.
    objects: dict = field(default_factory=dict)
    #: Arcsec, for the WCS of observations.
    pixel_scale: float | None = None


def insert_owner(owner, own_sn, number, sn):
    """
    Put an object of (y, x) ``sn`` among the strongest of each pixel, (k, y, x)
    owner and own_sn, in place.
    """
    number = np.asarray(number, owner.dtype)
    beaten = [sn > values for values in own_sn]
    # from the weakest up, so that what moves down is still there
    for k in reversed(range(len(owner))):
        np.copyto(owner[k], number, where=beaten[k])
        if k:
            np.copyto(owner[k], owner[k - 1], where=beaten[k - 1])
            sn_here = np.minimum(own_sn[k - 1], sn)
        else:
            sn_here = sn
        np.maximum(own_sn[k], sn_here, out=own_sn[k])


class Canvas:
    """Adds objects and keeps the three strongest owners of each pixel."""

    def __init__(self, shape, sky):
        self.shape, self.sky = tuple(shape), sky
        self.cube = np.zeros((len(sky.bands), *shape), np.float32)
        self.owner = np.zeros((N_OWNERS, *shape), np.int32)
        self.own_sn = np.zeros((N_OWNERS, *shape), np.float32)
        self.rows = []

    def add(self, stamp, x0, y0, factor=1.0, **row):
        """Add an object: a stamp (band, y, x)."""
        (ys, xs), there = self._overlap(stamp, x0, y0)
        if ys.start >= ys.stop or xs.start >= xs.stop:
            return
        part = stamp[:, *there]
        weight = np.asarray(factor * self.sky.depth, np.float32)
        part = weight[:, None, None] * part
        row['flux'] = part.sum(axis=(1, 2), dtype=float)
        self.rows.append(row)
        self.cube[:, ys, xs] += part
        insert_owner(self.owner[:, ys, xs], self.own_sn[:, ys, xs],
                     len(self.rows),
                     np.sqrt(np.einsum('byx,byx->yx', part, part)))

    def merge(self, stamps):
        """Stamps in one, (band, y, x), for an object that has many."""
        whole = np.zeros_like(self.cube)
        for stamp, x0, y0, *factor in stamps:
            here, there = self._overlap(stamp, x0, y0)
            whole[:, *here] += np.float32(factor or 1) * stamp[:, *there]
        return whole, 0, 0

    def _overlap(self, stamp, x0, y0):
        """The part of the scene that a stamp covers, and that of the stamp."""
        here, there = [], []
        for start, n, size in zip((y0, x0), stamp.shape[1:], self.shape):
            lo = min(max(start, 0), size)
            hi = max(min(start + n, size), lo)
            here.append(slice(lo, hi))
            there.append(slice(lo - start, hi - start))
        return here, there

    def scene(self, pixel_scale=None):
        """The finished `Scene`."""
        objects = {key: np.array([row[key] for row in self.rows])
                   for key in COLUMNS}
        objects['flux'] = np.array([row['flux'] for row in self.rows],
                                   np.float32).reshape(-1, len(self.cube))
        return Scene(self.cube, self.owner, self.own_sn, self.sky.bands,
                     self.sky.psf_fwhm, objects, pixel_scale)
