# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
An observation of a noiseless scene: noise, artifacts, gaps, and the truth.

The truth follows the observation, because what can be seen depends on the
noise: an object's region is where it has the largest own S/N and that S/N is
at least `ISOPHOTE` per pixel.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter, zoom

from astrodino_seg.image import Image
from astrodino_seg.simulate.scene import insert_owner

__all__ = ['ISOPHOTE', 'MIN_PIXELS', 'MIN_SN', 'Truth', 'observe']

#: Own S/N per pixel (all bands together) down to which a pixel belongs to
#: an object. It lies well below the usual detection threshold, because a
#: total flux needs the outskirts.
ISOPHOTE = 0.5
#: Objects with less total S/N or fewer pixels are void.
MIN_SN = 7.0
MIN_PIXELS = 12
#: A resolved galaxy with at least this total S/N and this many pixels of its
#: own in view is a primary: large enough to be cut in pieces.
PRIMARY_SN = 30.0
PRIMARY_PIXELS = 300


@dataclass
class Truth:
    """
    What is known of an observed scene.

    Attributes
    ----------
    labels : `~numpy.ndarray`
        (y, x) int32: 0 sky, object ids as in ``objects``, -1 void (masked,
        or of an object too faint to be asked for).
    own_sn : `~numpy.ndarray`
        (y, x) float32: S/N of the owner alone, the root of the sum of
        squares over the bands.
    objects : dict of `~numpy.ndarray`
        One entry an object that is asked for:

        - ``id``, int: its label.
        - ``x``, ``y``, float: pixels.
        - ``cls``, int: index into `~astrodino_seg.simulate.scene.CLASSES`.
        - ``kind``, str; ``re``, float, pixels: as in the scene.
        - ``primary``, bool: a large galaxy, resolved, and above `PRIMARY_SN`
          and `PRIMARY_PIXELS`.
        - ``sn``, float: its total S/N, over its region.
        - ``n_pixels``, int: of its region, masked ones included.
        - ``flux``, (object, band) float: the sum of its own noiseless light
          within the frame, in the unit of the image; NaN if the scene does
          not tell.
        - ``blendedness``, float in [0, 1): 1 - own / all, where own is the
          sum over its region of its own S/N, and all that of the three
          strongest objects there (as `Bosch et al. 2018
          <https://doi.org/10.1093/pasj/psx080>`_ do with the flux of the
          child and of its blend).
        - ``on_primary``, bool: its peak, the pixel of its region with its
          highest own S/N, lies where a primary that is not itself is above
          `ISOPHOTE`.
        - ``overlaps``, int: the id of the strongest other object that is
          asked for and is above `ISOPHOTE` at its peak; 0 if there is none.
    light : `~numpy.ndarray`
        (band, y, x) float32: the noiseless light of all objects, artifacts
        included, in the unit of the image; before saturation, masks, sky
        and noise.
    owners : `~numpy.ndarray`
        (3, y, x) int16: the objects with the largest own S/N in each pixel,
        largest first; 0 is none. Some may be too faint to be in ``objects``.
    shares : `~numpy.ndarray`
        (3, y, x) float32: their shares of the sum of the three's own S/N;
        1 in all, or 0 where there is no light.
    """

    labels: np.ndarray
    own_sn: np.ndarray
    objects: dict
    light: np.ndarray
    owners: np.ndarray
    shares: np.ndarray


def _noise(rng, shape, correlation):
    noise = rng.standard_normal(shape, dtype=np.float32)
    if correlation > 0:
        # resampled pixels: the noise of sums over many pixels stays, that
        # of one pixel falls
        noise = gaussian_filter(noise, (0, correlation, correlation))
    return noise


def _line(size, x, y, angle, length, width, n_shape):
    yy, xx = np.mgrid[:n_shape[0], :n_shape[1]].astype(np.float32)
    along = (xx - x) * np.cos(angle) + (yy - y) * np.sin(angle)
    across = -(xx - x) * np.sin(angle) + (yy - y) * np.cos(angle)
    return (np.exp(-across**2 / (2 * width**2))
            / (1 + np.exp(np.clip((np.abs(along) - length) / .3, -50, 50))))


def _artifacts(rng, cube, psf_fwhm):
    """Satellite trails and cosmic rays, each a list of (band, image)."""
    shape = cube.shape[1:]
    found = []
    if rng.random() < 0.12:
        image = 10**rng.uniform(0, 1.5) * _line(
            shape[0], *rng.uniform(0, shape[1], 2), rng.uniform(0, np.pi),
            1e4, psf_fwhm.mean() / 2.35, shape)
        found.append((rng.integers(len(cube)), image, 'trail'))
    for _ in range(rng.poisson(3 * (rng.random() < .5))):
        x, y = rng.uniform(0, shape[1]), rng.uniform(0, shape[0])
        half, image = 16, np.zeros(shape, np.float32)
        ys = slice(max(int(y) - half, 0), int(y) + half)
        xs = slice(max(int(x) - half, 0), int(x) + half)
        part = image[ys, xs]
        part += 10**rng.uniform(1, 2.3) * _line(
            0, x - xs.start, y - ys.start, rng.uniform(0, np.pi),
            rng.uniform(.6, 8), .45, part.shape)
        found.append((rng.integers(len(cube)), image, 'cosmic_ray'))
    return found


def _depth(rng, shape):
    """Relative noise over the field: steps, and a slow change."""
    depth = np.ones(shape, np.float32)
    if rng.random() < 0.25:
        edge = rng.integers(0, shape[0])
        depth[edge:] *= rng.uniform(1, 1.8)
    if rng.random() < 0.25:
        depth[:, :rng.integers(0, shape[1])] *= rng.uniform(1, 1.8)
    return depth


def _gaps(rng, mask):
    """Chip gaps and dead corners, in one band or all."""
    n_bands, ny, nx = mask.shape
    for _ in range(rng.poisson(0.35)):
        band = slice(None) if rng.random() < .4 else rng.integers(n_bands)
        start, width = rng.integers(0, ny), rng.integers(2, 40)
        if rng.random() < .5:
            mask[band, start:start + width] = True
        else:
            mask[band, :, start:start + width] = True


def _background(rng, shape):
    """A sky: offset, gradient and a slow wave, per band."""
    n_bands, ny, nx = shape
    coarse = rng.normal(size=(n_bands, 4, 4)) * rng.uniform(0, .4)
    coarse += rng.uniform(-5, 50, (n_bands, 1, 1))
    coarse += (rng.uniform(-1, 1, (n_bands, 1, 1)) * np.arange(4)
               + rng.uniform(-1, 1, (n_bands, 1, 1)) * np.arange(4)[:, None])
    return zoom(coarse, (1, ny / 4, nx / 4), order=1, mode='nearest',
                grid_mode=True)


def observe(scene, seed, *, depth=None, bands=None):
    """
    Observe a scene.

    Parameters
    ----------
    scene : `~astrodino_seg.simulate.Scene`
        What there is.
    seed : int or sequence of int
        Seed of noise and artifacts; the same seed gives the same image.
    depth : float, optional
        Factor on every S/N; drawn between 0.5 and 2, or 50 in three of
        ten scenes, if `None`.
    bands : sequence of int, optional
        Which bands to observe; a random subset if `None`.

    Returns
    -------
    image : `~astrodino_seg.Image`
        With noise, artifacts, gaps and no uncertainty.
    truth : `Truth`
        The truth of this observation.

    Raises
    ------
    ValueError
        If ``depth`` or ``bands`` is impossible.
    """
    rng = np.random.default_rng(seed)
    n_all = len(scene.cube)
    if bands is None:
        bands = np.arange(n_all)
        if rng.random() < .3:
            n = rng.integers(1, n_all + 1)
            bands = np.sort(rng.choice(n_all, n, replace=False))
    bands = np.asarray(bands)
    if bands.size == 0 or not set(bands.tolist()) <= set(range(n_all)):
        msg = f'bands must be some of 0 to {n_all - 1}, got {bands.tolist()}'
        raise ValueError(msg)
    if depth is not None and not depth > 0:
        msg = f'depth must be positive, got {depth!r}'
        raise ValueError(msg)
    if depth is None:
        # mostly survey depth; the rest as deep as nearby galaxies look
        high = 2 if rng.random() < .7 else 50
        depth = np.exp(rng.uniform(np.log(.5), np.log(high)))
    cube = depth * scene.cube[bands]
    noise_map = _depth(rng, cube.shape[1:])
    # the share of each pixel's S/N that the chosen bands hold
    part = np.sqrt((cube**2).sum(axis=0))
    whole = np.sqrt((scene.cube**2).sum(axis=0))
    ratio = part / np.maximum(whole, 1e-6) / noise_map
    own_sn, owner = scene.own_sn * ratio, scene.owner.copy()

    objects = {k: list(v) for k, v in scene.objects.items()}
    objects['flux'] = list(depth * _flux(scene)[:, bands])
    for b, image, kind in _artifacts(rng, cube, scene.psf_fwhm[bands]):
        cube[b] += image
        y, x = np.unravel_index(image.argmax(), image.shape)
        new = {'x': x, 'y': y, 'cls': 3, 'kind': kind, 're': 1.,
               'primary': False,
               'flux': image.sum() * (np.arange(len(bands)) == b)}
        for key, value in new.items():
            objects[key].append(value)
        insert_owner(owner, own_sn, len(objects['x']), image / noise_map)
    light = cube.astype(np.float32)

    mask = np.zeros(cube.shape, bool)
    _gaps(rng, mask)
    saturation = 10**rng.uniform(3, 4.6) * max(depth, 1)
    saturated = cube > saturation
    if rng.random() < .3:
        mask |= saturated
    # pixels beyond saturation stay there, or fall back
    cube[saturated] = saturation * (rng.uniform(0, 1) if rng.random() < .3
                                    else 1)
    correlation = rng.uniform(.4, 1.4) * (rng.random() < .45)
    cube = cube + noise_map * _noise(rng, cube.shape, correlation)
    cube += _background(rng, cube.shape)
    cube[mask] = 0
    names = list(scene.bands)
    image = Image(cube.astype(np.float32), mask,
                  bands=tuple(names[b] for b in bands))
    return image, _truth(light, owner, own_sn, mask.all(axis=0), objects)


def _flux(scene):
    """(object, band) flux; NaN for scenes made by hand without it."""
    shape = len(scene.objects['x']), len(scene.cube)
    return np.reshape(scene.objects.get('flux', np.full(shape, np.nan)),
                      shape)


def _truth(light, owner, own_sn, dead, objects):
    labels = np.where(own_sn[0] >= ISOPHOTE, owner[0], 0)
    everything = own_sn.sum(axis=0)
    n = len(objects['x'])

    def per_object(weight=None):
        weight = None if weight is None else weight.ravel()
        return np.bincount(labels.ravel(), weight, minlength=n + 1)

    counts, total = per_object(), np.sqrt(per_object(own_sn[0]**2))
    blended = 1 - per_object(own_sn[0]) / np.maximum(
        per_object(everything), 1e-30)
    wanted = (total >= MIN_SN) & (counts >= MIN_PIXELS)
    wanted[0] = True
    labels = np.where(wanted[labels] & ~dead, labels, -1)
    ids = np.flatnonzero(wanted[1:]) + 1
    objects = {k: np.array(v) for k, v in objects.items()}
    objects['flux'] = objects['flux'].reshape(n, len(light))
    objects['primary'] = (objects['primary'].astype(bool)
                          & (total[1:] >= PRIMARY_SN)
                          & (counts[1:] >= PRIMARY_PIXELS))
    under = _under_peak(ids, labels, owner, own_sn)
    asked = np.where(wanted[under], under, 0)
    table = {k: v[ids - 1] for k, v in objects.items()}
    table.update(id=ids, sn=total[ids], n_pixels=counts[ids],
                 blendedness=np.clip(blended[ids], 0, 1),
                 on_primary=np.append(False, objects['primary'])[under].any(
                     axis=0),
                 overlaps=np.where(asked[0] > 0, asked[0], asked[1]))
    shares = np.divide(own_sn, everything, where=everything > 0,
                       out=np.zeros_like(own_sn))
    return Truth(labels.astype(np.int32), own_sn[0].astype(np.float32),
                 table, light, owner, shares.astype(np.float32))


def _under_peak(ids, labels, owner, own_sn):
    """(2, object) ids of what shines below each object's peak; 0 is none."""
    inside = np.flatnonzero(labels > 0)
    order = inside[np.lexsort((own_sn[0].ravel()[inside],
                               labels.ravel()[inside]))]
    ranked = labels.ravel()[order]
    seen = np.isin(ids, ranked)
    peak = order[np.searchsorted(ranked, ids[seen], side='right') - 1]
    below = np.where(own_sn[1:] >= ISOPHOTE, owner[1:], 0).reshape(2, -1)
    under = np.zeros((2, len(ids)), int)
    under[:, seen] = below[:, peak]
    return under
