# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
An observation of a noiseless scene: noise, artifacts, gaps, and the truth.

The truth follows the observation, because what can be seen depends on the
noise: an object's region is where it has the largest own S/N and that S/N is
at least `ISOPHOTE` per pixel.
"""

import numpy as np
from astropy.wcs import WCS
from scipy.ndimage import gaussian_filter

from astrodino_seg.image import Image
from astrodino_seg.simulate.artifacts import draw_artifacts, draw_masks
from astrodino_seg.simulate.rates import CONDITIONS, merge_rates
from astrodino_seg.simulate.scene import insert_owner
from astrodino_seg.simulate.truth import make_truth

__all__ = ['observe']


def observe(scene, seed, *, depth=None, bands=None, rates=None):
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
    rates : dict of float, optional
        How much of each ingredient, where it is not the default; see
        `~astrodino_seg.simulate.rates.CONDITIONS`. 0 leaves it out.

    Returns
    -------
    image : `~astrodino_seg.Image`
        With noise, artifacts, gaps and no uncertainty; with a WCS if the
        scene has a pixel scale.
    truth : `Truth`
        The truth of this observation.

    Raises
    ------
    ValueError
        If ``depth``, ``bands`` or ``rates`` is impossible.
    """
    rates = merge_rates(rates, CONDITIONS)
    rng = np.random.default_rng(seed)
    bands = _choose_bands(rng, bands, len(scene.cube), rates)
    if depth is not None and not 0 < depth < np.inf:
        msg = f'depth must be positive, got {depth!r}'
        raise ValueError(msg)
    if depth is None:
        # mostly survey depth; the rest as deep as nearby galaxies look
        high = 2 if rng.random() < .7 else 50
        depth = np.exp(rng.uniform(np.log(.5), np.log(high)))
    cube = np.float32(depth) * scene.cube[bands]
    noise_map = _depth_map(rng, cube.shape[1:], rates)
    # the share of each pixel's S/N that the chosen bands hold
    part = np.sqrt((cube**2).sum(axis=0))
    whole = np.sqrt((scene.cube**2).sum(axis=0))
    ratio = part / np.maximum(whole, 1e-6) / noise_map
    own_sn, owner = scene.own_sn * ratio, scene.owner.copy()
    saturation = 10**rng.uniform(3, 4.6) * max(depth, 1)

    objects = {k: list(v) for k, v in scene.objects.items()}
    objects['flux'] = list(depth * _flux(scene)[:, bands])
    stars = np.stack([scene.objects['x'], scene.objects['y']], axis=-1)[
        np.asarray(scene.objects['cls']) == 1]
    for one in draw_artifacts(rng, cube, scene.psf_fwhm[bands], stars,
                              saturation, rates):
        _add_artifact(one, cube, owner, own_sn, noise_map, objects)
    light = cube.copy()

    mask = np.zeros(cube.shape, bool)
    draw_masks(rng, mask, rates)
    _saturate(rng, cube, mask, saturation, rates)
    correlation = rng.uniform(.3, 1.3) * (rng.random()
                                          < rates['correlated_noise'])
    cube += noise_map * _noise(rng, cube.shape, correlation)
    cube += _background(rng, cube.shape, rates)
    cube[mask] = 0
    names = list(scene.bands)
    image = Image(cube, mask, wcs=_wcs(cube.shape[1:], scene.pixel_scale),
                  bands=tuple(names[b] for b in bands))
    return image, make_truth(light, owner, own_sn, mask.all(axis=0), objects)


def _choose_bands(rng, bands, n_all, rates):
    if bands is None:
        bands = np.arange(n_all)
        if rng.random() < rates['missing_bands']:
            n = rng.integers(1, n_all + 1)
            bands = np.sort(rng.choice(n_all, n, replace=False))
    chosen = list(bands)
    if (not chosen or len(set(chosen)) < len(chosen)
            or not set(chosen) <= set(range(n_all))):
        msg = f'bands must be some of 0 to {n_all - 1}, got {chosen}'
        raise ValueError(msg)
    return np.array(chosen, int)


def _flux(scene):
    """(object, band) flux; NaN for scenes made by hand without it."""
    shape = len(scene.objects['x']), len(scene.cube)
    return np.reshape(scene.objects.get('flux', np.full(shape, np.nan)),
                      shape)


def _add_artifact(one, cube, owner, own_sn, noise_map, objects):
    """Add its light, and an object, in place."""
    _, h, w = one.patch.shape
    part = slice(one.y0, one.y0 + h), slice(one.x0, one.x0 + w)
    cube[:, *part] += one.patch
    sn = np.sqrt((one.patch**2).sum(axis=0))
    y, x = np.unravel_index(sn.argmax(), sn.shape)
    new = {'x': x + one.x0, 'y': y + one.y0, 'cls': 3, 'kind': one.kind,
           're': 1., 'primary': False,
           'flux': one.patch.sum(axis=(1, 2), dtype=float)}
    for key, value in new.items():
        objects[key].append(value)
    insert_owner(owner[:, *part], own_sn[:, *part], len(objects['x']),
                 sn / noise_map[part])


def _depth_map(rng, shape, rates):
    """Relative noise over the field: steps."""
    depth = np.ones(shape, np.float32)
    if rng.random() < rates['uneven_depth']:
        depth[rng.integers(0, shape[0]):] *= rng.uniform(1, 1.8)
    if rng.random() < rates['uneven_depth']:
        depth[:, :rng.integers(0, shape[1])] *= rng.uniform(1, 1.8)
    return depth


def _saturate(rng, cube, mask, saturation, rates):
    """Pixels beyond saturation stay there, fall back, or are masked."""
    saturated = cube > saturation
    if rng.random() < rates['saturated_mask']:
        mask |= saturated
    hole = rng.random() < rates['saturated_hole']
    cube[saturated] = saturation * (rng.uniform(0, 1) if hole else 1)


def _noise(rng, shape, correlation):
    noise = rng.standard_normal(shape, dtype=np.float32)
    if correlation > 0:
        # resampled pixels: the noise of sums over many pixels stays, that
        # of one pixel falls
        noise = gaussian_filter(noise, (0, correlation, correlation),
                                truncate=3)
    return noise


def _background(rng, shape, rates):
    """A sky: offset, gradient and a slow wave, per band."""
    n_bands, ny, nx = shape
    coarse = rng.normal(size=(n_bands, 4, 4)) * rng.uniform(0, .4)
    coarse += (rng.uniform(-1, 1, (n_bands, 1, 1)) * np.arange(4)
               + rng.uniform(-1, 1, (n_bands, 1, 1)) * np.arange(4)[:, None])
    coarse = (rates['gradient'] * coarse
              + rng.uniform(-5, 50, (n_bands, 1, 1)))
    # bilinear, by its two matrices
    left, right = (np.maximum(1 - np.abs(
        np.linspace(0, 3, n)[:, None] - np.arange(4)), 0) for n in (ny, nx))
    return (left @ coarse @ right.T).astype(np.float32)


def _wcs(shape, pixel_scale):
    """A tangential projection, north up, about a point on the equator."""
    if pixel_scale is None:
        return None
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = 'RA---TAN', 'DEC--TAN'
    wcs.wcs.crval = 180, 0
    wcs.wcs.crpix = (shape[1] + 1) / 2, (shape[0] + 1) / 2
    wcs.wcs.cdelt = -pixel_scale / 3600, pixel_scale / 3600
    wcs.array_shape = shape
    return wcs
