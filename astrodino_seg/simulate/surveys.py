# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Through what a scene is seen: bands, their PSFs and their relative depths.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from numbers import Real

import numpy as np

__all__ = ['BAND_SETS', 'MIN_FWHM', 'Sky', 'check_bands', 'draw_sky']

#: Sets of bands that scenes are drawn in, with wavelengths in micron.
BAND_SETS = {
    'griz': {'g': .48, 'r': .62, 'i': .75, 'z': .87},
    'grz': {'g': .48, 'r': .64, 'z': .91},
    'ugriz': {'u': .36, 'g': .48, 'r': .62, 'i': .75, 'z': .88},
    'griZ': {'g': .48, 'r': .62, 'i': .75, 'Z': .88},
    'ugrizy': {'u': .36, 'g': .48, 'r': .62, 'i': .75, 'z': .87, 'y': .98},
    'ZYJHKs': {'Z': .88, 'Y': 1.02, 'J': 1.25, 'H': 1.65, 'Ks': 2.15},
    'ugriZYJHKs': {'u': .36, 'g': .48, 'r': .62, 'i': .75, 'Z': .88,
                   'Y': 1.02, 'J': 1.25, 'H': 1.65, 'Ks': 2.15},
    'hst': {'F606W': .59, 'F814W': .81, 'F125W': 1.25, 'F160W': 1.54},
    'jwst': {'F115W': 1.15, 'F277W': 2.76, 'F444W': 4.40},
    'jwst6': {'F090W': .90, 'F115W': 1.15, 'F150W': 1.50, 'F200W': 1.99,
              'F277W': 2.76, 'F444W': 4.40},
    'r': {'r': .62},
}
#: How often each is drawn.
SHARES = {'griz': .24, 'grz': .17, 'ugriz': .07, 'griZ': .16, 'ugrizy': .05,
          'ZYJHKs': .04, 'ugriZYJHKs': .07, 'hst': .04, 'jwst': .06,
          'jwst6': .04, 'r': .06}
#: Sets whose PSFs widen with the wavelength, as telescopes in space have.
DIFFRACTION = ('hst', 'jwst', 'jwst6')
#: No PSF is drawn narrower or wider than these, pixels.
MIN_FWHM, MAX_FWHM = 1.5, 8.0
#: Nor, of any width, than these.
ANY_FWHM = 0.8, 12.0


@dataclass(frozen=True)
class Sky:
    """
    Through what a scene is seen.

    Attributes
    ----------
    bands : dict
        Band name to wavelength in micron.
    psf_fwhm : `~numpy.ndarray`
        Pixels, one a band.
    beta : float
        Exponent of the Moffat PSF.
    depth : `~numpy.ndarray`
        S/N of the same flux in each band, with a root mean square of one.
    optics : dict
        ``aureole``, ``spikes`` and ``halo`` of stars.
    """

    bands: dict
    psf_fwhm: np.ndarray
    beta: float
    depth: np.ndarray
    optics: dict

    @cached_property
    def wavelengths(self):
        """Of the bands, in micron."""
        return np.array(list(self.bands.values()))

    @cached_property
    def mean_fwhm(self):
        """The mean of ``psf_fwhm``, pixels."""
        return self.psf_fwhm.mean()

    @cached_property
    def groups(self):
        """The different PSF widths, and the index of each band's."""
        return np.unique(self.psf_fwhm, return_inverse=True)


def draw_sky(rng, rates, *, band_set=None, psf_fwhm=None):
    """
    Draw bands, PSFs and depths.

    Parameters
    ----------
    rng : `numpy.random.Generator`
        Source of all randomness.
    rates : dict of float
        With ``spikes``, ``halo`` and perhaps ``any_psf``.
    band_set : str or dict, optional
        A key of `BAND_SETS`, or names with wavelengths in micron; drawn if
        `None`.
    psf_fwhm : float or sequence of float, optional
        Pixels, for all bands or one each; drawn if `None`.

    Returns
    -------
    sky : `Sky`
        The conditions.

    Raises
    ------
    ValueError
        If ``band_set`` is unknown or empty, or ``psf_fwhm`` is below a
        pixel or not one for each band.
    """
    if band_set is None:
        band_set = str(rng.choice(list(SHARES), p=list(SHARES.values())))
    space = isinstance(band_set, str) and band_set in DIFFRACTION
    bands = check_bands(band_set)
    wave = np.array(list(bands.values()), float)
    if psf_fwhm is None:
        draw = _diffraction if space else _seeing
        psf_fwhm = draw(rng, wave).clip(MIN_FWHM, MAX_FWHM)
        # seeds give the skies that they gave before there was this
        if rates.get('any_psf') and rng.random() < rates['any_psf']:
            wanted = np.exp(rng.uniform(*np.log(ANY_FWHM)))
            psf_fwhm = (wanted / psf_fwhm.mean() * psf_fwhm).clip(*ANY_FWHM)
    else:
        psf_fwhm = _check_fwhm(psf_fwhm, len(bands))
    # the blue end and the infrared are shallower from the ground
    trend = np.interp(wave, [.36, .45, .7, .9, 1.1], [.45, 1, 1, .65, .5])
    depth = (1 if space else trend) * rng.lognormal(0, .3, len(bands))
    depth = depth / np.sqrt((depth**2).mean())
    optics = _optics(rng, float(psf_fwhm.mean()), rates, space)
    return Sky(bands, psf_fwhm, rng.uniform(2.4, 4.5), depth, optics)


def check_bands(band_set):
    """
    The bands of a band set.

    Parameters
    ----------
    band_set : str or dict
        A key of `BAND_SETS`, or names with wavelengths in micron.

    Returns
    -------
    bands : dict
        Band name to wavelength in micron.

    Raises
    ------
    ValueError
        If it is unknown or empty, or a wavelength is not positive.
    """
    if not isinstance(band_set, Mapping):
        if not isinstance(band_set, str) or band_set not in BAND_SETS:
            msg = (f'band_set must be one of {sorted(BAND_SETS)}, got '
                   f'{band_set!r}')
            raise ValueError(msg)
        return dict(BAND_SETS[band_set])
    if not band_set:
        msg = f'band_set must have at least one band, got {band_set!r}'
        raise ValueError(msg)
    if not all(isinstance(wave, Real) and 0 < wave < np.inf
               for wave in band_set.values()):
        msg = f'band_set must have positive wavelengths, got {band_set!r}'
        raise ValueError(msg)
    return dict(band_set)


def _check_fwhm(psf_fwhm, n_bands):
    given = np.asarray(psf_fwhm, float)
    if given.shape not in ((), (n_bands,)):
        msg = (f'psf_fwhm must be one number or one for each of the '
               f'{n_bands} bands, got {psf_fwhm!r}')
        raise ValueError(msg)
    if not ((given >= 1) & np.isfinite(given)).all():
        msg = f'psf_fwhm must be at least one pixel, got {psf_fwhm!r}'
        raise ValueError(msg)
    return np.broadcast_to(given, n_bands).copy()


def _seeing(rng, wave):
    """Each band was taken in one of up to three nights."""
    fwhm = np.exp(rng.uniform(np.log(1.6), np.log(6.5)))
    nights = fwhm * np.append(1, rng.uniform(.75, 1.35, rng.integers(0, 3)))
    return rng.choice(nights, len(wave))


def _diffraction(rng, wave):
    """Proportional to the wavelength, and the width of a pixel."""
    reddest = np.exp(rng.uniform(np.log(2.2), np.log(5.5)))
    return np.hypot(1.0, reddest * wave / wave.max())


def _optics(rng, fwhm, rates, space):
    spikes = (0, 0., 0., 1., 1.)
    if rng.random() < (2 if space else 1) * rates['spikes']:
        spikes = (3 if space else int(rng.choice([2, 2, 3])),
                  rng.uniform(0, np.pi), rng.uniform(.002, .03),
                  rng.uniform(6, 30) * fwhm / 3,
                  rng.uniform(.3, .6) * fwhm / 1.5)
    halo = (rng.uniform(15, 70),
            rng.uniform(.002, .02) * (rng.random() < rates['halo']))
    return {'aureole': rng.uniform(0, .04), 'spikes': spikes, 'halo': halo}
