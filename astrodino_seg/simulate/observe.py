# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
An observation of a noiseless scene: noise, artifacts, gaps, and the truth.

The truth follows the observation, because what can be seen depends on the
noise: an object's region is where it has the largest own S/N and that S/N is
at least `ISOPHOTE` per pixel.
"""

from typing import NamedTuple

import numpy as np
from astropy.wcs import WCS
from scipy.ndimage import gaussian_filter

from astrodino_seg.image import Image
from astrodino_seg.simulate.artifacts import (
    FWHM,
    add_bad_lines,
    count,
    draw_artifacts,
    draw_edge,
    draw_masks,
    fill,
    odd_cores,
    photographic,
    quantise,
    smooth_noise,
    stretch,
)
from astrodino_seg.simulate.scene import (
    CONDITIONS,
    happens,
    insert_owner,
    log_uniform,
    merge_rates,
)
from astrodino_seg.simulate.sky import draw_background
from astrodino_seg.truth import make_truth


def observe(scene, seed, *, depth=None, bands=None, rates=None):
    """
    Observe a scene.

    Parameters
    ----------
    scene : `~astrodino_seg.simulate.scene.Scene`
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
        `~astrodino_seg.simulate.scene.CONDITIONS`. 0 leaves it out.

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
        depth = draw_depth(rng)
    cube = np.float32(depth) * scene.cube[bands]
    noise_map = _depth_map(rng, cube.shape[1:], rates)
    detector = _draw_detector(rng, rates)
    negated = happens(rng, rates['negated'])
    blank = negated and rng.random() < .5
    # the share of each pixel's S/N that the chosen bands hold
    part = _own_sn(cube, detector.gain)
    whole = _own_sn(scene.cube, 0)
    ratio = part / np.maximum(whole, 1e-6) / noise_map
    own_sn, owner = scene.own_sn * ratio, scene.owner.copy()
    saturation = 10**rng.uniform(3, 4.6) * max(depth, 1)
    odd = happens(rng, rates['saturated_odd']) and cube.max() > 50
    if odd:
        saturation = min(saturation, rng.uniform(.1, .7) * cube.max())

    objects = {k: list(v) for k, v in scene.objects.items()}
    objects['flux'] = list(depth * _flux(scene)[:, bands])
    stars = np.stack([scene.objects['x'], scene.objects['y']], axis=-1)[
        np.asarray(scene.objects['cls']) == 1]
    for one in draw_artifacts(rng, cube, scene.psf_fwhm[bands], stars,
                              saturation, rates):
        _add_artifact(one, cube, owner, own_sn, noise_map, detector.gain,
                      objects)
    if blank:
        cube[:] = 0
    light = cube.copy()

    mask, gaps, beyond = _lose(rng, cube.shape, rates)
    if not odd:
        _saturate(rng, cube, mask, saturation, rates)
    cube, sky = _expose(rng, cube, noise_map, detector, rates)
    if rates['bad_lines']:
        add_bad_lines(rng, cube, sky, rng.poisson(rates['bad_lines']))
    if odd and not detector.plate:
        odd_cores(rng, cube, light, saturation, sky)
    cube = _read_out(rng, cube, detector, rates)
    if negated:
        owner[:], own_sn[:] = 0, 0
        objects = {k: [] for k in objects}
        if not blank:
            cube, light = -cube, -light
    dead = mask.copy()
    for where in (gaps, beyond):
        if where is not None:
            fill(rng, cube, where & ~mask, smooth=where is gaps)
            dead |= where
    cube[mask] = 0
    names = list(scene.bands)
    image = Image(cube, mask, wcs=_wcs(cube.shape[1:], scene.pixel_scale),
                  bands=tuple(names[b] for b in bands))
    return image, make_truth(light, owner, own_sn, dead.all(axis=0), objects)


def draw_depth(rng):
    """Mostly survey depth; the rest as deep as nearby galaxies look."""
    high = 2 if rng.random() < .7 else 50
    return log_uniform(rng, .5, high)


def _choose_bands(rng, bands, n_all, rates):
    if bands is None:
        bands = np.arange(n_all)
        if rng.random() < rates['missing_bands']:
            n = rng.integers(1, n_all + 1)
            bands = np.sort(rng.choice(n_all, n, replace=False))
        if happens(rng, rates['single_band']):
            bands = [rng.integers(n_all)]
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


class Detector(NamedTuple):
    """What takes the light."""

    #: Whether it is a photographic plate.
    plate: bool = False
    #: Photons of the sky in a pixel if they are counted, or 0.
    counts: float = 0.0
    #: Variance for each unit of light, in that of the sky.
    gain: float = 0.0


def _draw_detector(rng, rates):
    if happens(rng, rates['photographic']):
        return Detector(plate=True)
    if happens(rng, rates['counts']):
        counts = log_uniform(rng, .05, 20)
        return Detector(counts=counts, gain=counts**-.5)
    if happens(rng, rates['source_noise']):
        return Detector(gain=log_uniform(rng, .02, 1))
    return Detector()


def _own_sn(light, gain):
    """S/N of all bands together, with photon noise."""
    sn = light
    if gain:
        sn = light / np.sqrt(1 + np.float32(gain) * light.clip(0))
    return np.sqrt(np.einsum('byx,byx->yx', sn, sn))


def _add_artifact(one, cube, owner, own_sn, noise_map, gain, objects):
    """Add its light, and an object, in place."""
    _, h, w = one.patch.shape
    part = slice(one.y0, one.y0 + h), slice(one.x0, one.x0 + w)
    cube[:, *part] += one.patch
    sn = _own_sn(one.patch, gain)
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


def _lose(rng, shape, rates):
    """
    A mask, and what is not masked but filled: gaps, and what is beyond the
    chip's edge; (band, y, x) each, or `None`.
    """
    mask, gaps, beyond = np.zeros(shape, bool), None, None
    draw_masks(rng, mask, rates)
    if happens(rng, rates['filled']):
        mask, gaps = np.zeros_like(mask), mask
    if happens(rng, rates['edge']):
        beyond = np.broadcast_to(draw_edge(rng, shape[1:]), shape)
        if rng.random() < .3:
            mask, beyond = mask | beyond, None
    return mask, gaps, beyond


def _expose(rng, cube, noise_map, detector, rates):
    """What is observed of the light, and of the sky alone."""
    if detector.plate or detector.counts:
        sky = draw_background(rng, cube.shape, rates)
        sky -= np.median(sky, axis=(1, 2), keepdims=True)
        if detector.plate:
            return photographic(rng, cube + sky, noise_map), sky
        image = count(rng, cube + sky, noise_map, detector.counts)
        return image, sky + np.float32(detector.counts**.5)
    noise = _noise(rng, cube.shape, rates)
    if detector.gain:
        noise *= np.sqrt(1 + np.float32(detector.gain) * cube.clip(0))
    noise *= noise_map
    cube += noise
    sky = draw_background(rng, cube.shape, rates)
    cube += sky
    return cube, sky


def _noise(rng, shape, rates):
    correlation = rng.uniform(.3, 1.3) * (rng.random()
                                          < rates['correlated_noise'])
    if happens(rng, rates['smooth_noise']):
        return smooth_noise(rng, shape, rng.uniform(1, 5) / FWHM)
    noise = rng.standard_normal(shape, dtype=np.float32)
    if correlation > 0:
        # resampled pixels: the noise of sums over many pixels stays, that
        # of one pixel falls
        noise = gaussian_filter(noise, (0, correlation, correlation),
                                truncate=3)
    return noise


def _read_out(rng, cube, detector, rates):
    """The numbers that are written."""
    if detector.counts:
        np.maximum(cube, 0, out=cube)
        quantise(cube, detector.counts**-.5)
    elif happens(rng, rates['quantised']):
        quantise(cube, log_uniform(rng, .3, 3))
    if happens(rng, rates['stretched']):
        cube = stretch(rng, cube)
    return cube


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
