# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Views of one image for self-supervised learning, made for astronomy.

A view is what another survey might have taken of the same piece of sky:
resampled, turned, behind more dust, shallower, through worse seeing, with
other bands (see `~astrodino_seg.pretrain.camera` and
`~astrodino_seg.pretrain.degrade`). All happens in units of the noise, band by
band; the bands are folded into the model's channels last, by the function
that folds them in use. Colours change only as dust and depth change them,
and there are no statistics of photographs.
"""

import numpy as np

from astrodino_seg.image.filters import wavelength
from astrodino_seg.inputs.channels import fold, signal_to_noise
from astrodino_seg.pretrain.camera import (
    Exposure,
    fill_noise,
    resample,
    rotate,
    turn,
)
from astrodino_seg.pretrain.degrade import (
    choose_bands,
    cut_gaps,
    drop_bands,
    lower_depth,
    offset_sky,
    psf_sigma,
    redden,
)

__all__ = ['RATES', 'bright_blocks', 'check_rates', 'draw_square', 'expose',
           'make_view']

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
BLOCK = 16              # pixels


def check_rates(rates):
    """
    Complete the rates of degradations, or say what is wrong with them.

    Parameters
    ----------
    rates : dict or `None`
        Some of the keys of `RATES`, with a probability each.

    Returns
    -------
    rates : dict
        All of `RATES`, those given replaced.

    Raises
    ------
    ValueError
        If a key is unknown, or a rate is not in [0, 1].
    """
    rates = dict(rates or {})
    unknown = sorted(set(rates) - set(RATES))
    if unknown:
        msg = f'rates has unknown keys {unknown}; known are {sorted(RATES)}'
        raise ValueError(msg)
    for name, rate in rates.items():
        if not 0 <= rate <= 1:
            msg = f'rates: {name} must be in [0, 1], got {rate!r}'
            raise ValueError(msg)
    return {**RATES, **rates}


def expose(image, spec):
    """
    Bring an image into units of its noise, once for all of its views.

    Parameters
    ----------
    image : `~astrodino_seg.Image`
        The image.
    spec : `~astrodino_seg.inputs.channels.PreprocessSpec`
        The model's preprocessing.

    Returns
    -------
    exposure : `~astrodino_seg.pretrain.camera.Exposure`
        Of unit noise.
    """
    sn, valid = signal_to_noise(image, spec)
    waves = [wavelength(name) for name in image.bands]
    return Exposure(sn, valid, np.ones((len(sn), 1, 1), np.float32),
                    _grain(sn, valid),
                    np.array([np.nan if w is None else w for w in waves]))


def _grain(sn, valid):
    """How far noise is correlated; see `Exposure`."""
    grains = [0.0]
    for values, good in zip(sn, valid):
        step = max(round((good.sum() / 1e5)**0.5), 1)
        for v, g in ((values, good), (values.T, good.T)):
            spread = []
            for lag in (1, 8):      # differences take the light away
                near, far = slice(None, -lag), slice(lag, None)
                both = (g[::step, near] & g[::step, far])
                change = (v[::step, near] - v[::step, far])[both]
                spread.append(np.median(np.abs(change)) if len(change) > 99
                              else 0)
            if min(spread) > 0:
                alike = np.clip(1 - (spread[0] / spread[1])**2, 1e-9, 0.9)
                grains.append(0.5 / np.sqrt(-np.log(alike)))
    return float(np.median(grains[1:] or grains))


def bright_blocks(exposure):
    """
    Find where something shines.

    Parameters
    ----------
    exposure : `~astrodino_seg.pretrain.camera.Exposure`
        Of unit noise.

    Returns
    -------
    yx : `~numpy.ndarray`
        (n, 2) middles, in pixels, of the blocks of 16 pixels a side whose
        S/N, all bands together, is above 5.
    weight : `~numpy.ndarray`
        (n,) arcsinh of what is above.
    """
    n_valid = exposure.valid.sum(axis=0)
    sn = exposure.signal.sum(axis=0) / np.sqrt(np.maximum(n_valid, 1))
    ny, nx = (n // BLOCK for n in sn.shape)
    blocks = sn[:ny * BLOCK, :nx * BLOCK].reshape(ny, BLOCK, nx, BLOCK)
    excess = blocks.sum(axis=(1, 3)) / BLOCK - 5
    found = np.argwhere(excess > 0)
    return (found + 0.5) * BLOCK, np.arcsinh(excess[tuple(found.T)])


def draw_square(rng, low, high, side, bright=None):
    """
    Draw where in a rectangle a square lies.

    Parameters
    ----------
    rng : `numpy.random.Generator`
        What is drawn from.
    low, high : `~numpy.ndarray`
        (y, x) of the rectangle's corners.
    side : float
        Of the square; at most that of the rectangle.
    bright : tuple, optional
        As `bright_blocks` returns, to have one of those in the square, if
        there is any in the rectangle.

    Returns
    -------
    corner : `~numpy.ndarray`
        (y, x) of the lower corner of the square, float64.
    """
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
    """
    Make one view.

    Parameters
    ----------
    rng : `numpy.random.Generator`
        What is drawn from.
    exposure : `~astrodino_seg.pretrain.camera.Exposure`
        The image.
    start : `~numpy.ndarray`
        (y, x) of the lower corner, in pixels, of the piece of sky that the
        view shows.
    side : float
        Its side in pixels.
    size : int
        Side of the view in pixels of its own. If it is ``side``, and
        ``start`` is whole, pixels are copied, not resampled.
    rates : dict
        As `check_rates` returns.
    spec : `~astrodino_seg.inputs.channels.PreprocessSpec`
        The model's preprocessing.

    Returns
    -------
    channels : `~numpy.ndarray`
        (channel, size, size) float32.
    """
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
