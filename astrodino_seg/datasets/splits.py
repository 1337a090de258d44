# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Splits of a sample into one to train on and one to test on.
"""

import astropy.units as u
import numpy as np
from astropy_healpix import HEALPix

__all__ = ['random_split', 'sky_split']


def random_split(n, *, test_fraction=0.2, seed=0):
    """
    Split at random.

    Parameters
    ----------
    n : int
        The size of the sample.
    test_fraction : float, optional
        The share to test on, rounded to whole items; at least one item is in
        each part.
    seed : int, optional
        Seed of the choice.

    Returns
    -------
    train, test : int64 `~numpy.ndarray`
        The indices of each part, sorted.

    Raises
    ------
    ValueError
        If there are fewer than two items, or the share is not between 0 and
        1.
    """
    n_test = _n_test(n, test_fraction)
    order = np.random.default_rng(seed).permutation(n)
    return np.sort(order[n_test:]), np.sort(order[:n_test])


def sky_split(ra, dec, *, test_fraction=0.2, nside=16, seed=0):
    """
    Split by position: what is in one cell of the sky is in one part.

    Galaxies of one cluster, or of one exposure, look alike for reasons other
    than their class. A random split has such pairs in both parts.

    Parameters
    ----------
    ra, dec : array_like or `~astropy.units.Quantity`
        Positions (ICRS), in degrees if they have no unit.
    test_fraction : float, optional
        The share to test on. Whole cells are taken at random until taking
        one more would be further from it.
    nside : int, optional
        Of the HEALPix cells (Gorski et al. 2005, ApJ 622, 759), a power of
        two. The default, cells of 3.7 degrees, is that of the Multimodal
        Universe.
    seed : int, optional
        Seed of the choice.

    Returns
    -------
    train, test : int64 `~numpy.ndarray`
        The indices of each part, sorted.

    Raises
    ------
    ValueError
        If positions are not finite or not on the sky, if they are all in one
        cell, or if the share is not between 0 and 1.
    """
    ra, dec = (np.atleast_1d(u.Quantity(one, u.deg)) for one in (ra, dec))
    if ra.ndim > 1 or ra.shape != dec.shape:
        msg = (f'ra and dec must be of one shape (n,), got {ra.shape} and '
               f'{dec.shape}')
        raise ValueError(msg)
    on_sky = np.isfinite(ra) & (np.abs(dec) <= 90 * u.deg)
    if not on_sky.all():
        msg = (f'{(~on_sky).sum()} positions are not on the sky, the first '
               f'in row {np.flatnonzero(~on_sky)[0]}')
        raise ValueError(msg)
    n_test = _n_test(len(ra), test_fraction)
    cells = HEALPix(nside, order='nested').lonlat_to_healpix(ra, dec)
    cells, member, counts = np.unique(cells, return_inverse=True,
                                      return_counts=True)
    if len(cells) < 2:
        msg = f'all positions are in one cell of nside={nside}'
        raise ValueError(msg)
    order = np.random.default_rng(seed).permutation(len(cells))
    sizes = np.cumsum(counts[order])[:-1]  # one cell at least to train on
    n_cells = 1 + np.argmin(np.abs(sizes - n_test))
    in_test = np.isin(member, order[:n_cells])
    return np.flatnonzero(~in_test), np.flatnonzero(in_test)


def _n_test(n, test_fraction):
    """The number of items to test on."""
    if not 0 < test_fraction < 1:
        msg = f'test_fraction must be between 0 and 1, got {test_fraction}'
        raise ValueError(msg)
    if n < 2:
        msg = f'a split needs two items or more, got {n}'
        raise ValueError(msg)
    return int(np.clip(round(n * test_fraction), 1, n - 1))
