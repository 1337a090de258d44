# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests of bands, PSFs and depths.
"""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from astrodino_seg.image.filters import order_bands, wavelength
from astrodino_seg.simulate import CONTENT
from astrodino_seg.simulate.scene import merge_rates
from astrodino_seg.simulate.sky import (
    BAND_SETS,
    DIFFRACTION,
    MAX_FWHM,
    MIN_FWHM,
    SHARES,
    draw_sky,
)

RATES = merge_rates(None, CONTENT)


def draw(seed=0, rates=RATES, **kwargs):
    return draw_sky(np.random.default_rng(seed), rates, **kwargs)


def test_band_sets():
    """From one to nine bands, in order, at their wavelengths."""
    assert {len(bands) for bands in BAND_SETS.values()} >= {1, 3, 4, 5, 6, 9}
    assert SHARES.keys() == BAND_SETS.keys()
    assert_allclose(sum(SHARES.values()), 1)
    for bands in BAND_SETS.values():
        assert order_bands(list(bands)) == tuple(range(len(bands)))
        assert_allclose([wavelength(name) for name in bands],
                        list(bands.values()), rtol=0.05)


@pytest.mark.parametrize('name', list(BAND_SETS))
def test_promises(name):
    for seed in range(10):
        sky = draw(seed, band_set=name)
        assert sky.bands == BAND_SETS[name]
        assert sky.psf_fwhm.shape == sky.depth.shape == (len(sky.bands),)
        assert (sky.psf_fwhm >= MIN_FWHM).all()
        assert (sky.psf_fwhm <= MAX_FWHM).all()
        assert_allclose((sky.depth**2).mean(), 1)
        assert (sky.depth > 0).all()
        assert sky.beta > 1
        assert_allclose(sky.mean_fwhm, np.mean(sky.psf_fwhm))
        widths, group = sky.groups
        assert_array_equal(widths[group], sky.psf_fwhm)
        assert len(set(widths)) == len(widths) <= 3 or name in DIFFRACTION


def test_tables_are_not_shared():
    draw(band_set='r').bands['x'] = 1.0
    assert BAND_SETS['r'] == {'r': .62}


@pytest.mark.parametrize('name', DIFFRACTION)
def test_diffraction(name):
    """The PSF widens with the wavelength; sharp ones are a pixel wide."""
    for seed in range(10):
        sky = draw(seed, band_set=name)
        inner = sky.psf_fwhm[sky.psf_fwhm > MIN_FWHM]
        assert (np.diff(inner) > 0).all()
        # proportional, but for the pixel
        ratio = np.sqrt(inner**2 - 1) / sky.wavelengths[-len(inner):]
        assert_allclose(ratio, ratio[-1])


def test_ground():
    """Depths fall in the ultraviolet and the infrared, on average."""
    depth = np.mean([draw(seed, band_set='ugriZYJHKs').depth
                     for seed in range(80)], axis=0)
    assert (depth[[0, 5, 6, 7, 8]] < depth[1:4].min()).all()
    widths = [len(draw(seed, band_set='ugrizy').groups[0])
              for seed in range(30)]
    assert set(widths) == {1, 2, 3}        # nights


def test_everything_is_drawn():
    names = {tuple(draw(seed).bands) for seed in range(300)}
    assert names == {tuple(bands) for bands in BAND_SETS.values()}


def test_given():
    sky = draw(band_set={'a': .5, 'b': 1}, psf_fwhm=[2, 3.5])
    assert sky.bands == {'a': .5, 'b': 1}
    assert_array_equal(sky.wavelengths, [.5, 1])
    assert_array_equal(sky.psf_fwhm, [2, 3.5])
    assert_array_equal(draw(band_set='grz', psf_fwhm=1).psf_fwhm, [1, 1, 1])


def test_optics():
    """Spikes and haloes of stars come with their rates, or not at all."""
    for seed in range(20):
        none = draw(seed, {**RATES, 'spikes': 0, 'halo': 0}).optics
        assert none['spikes'][0] == none['halo'][1] == 0
        every = draw(seed, {**RATES, 'spikes': 1, 'halo': 1}).optics
        assert every['spikes'][0] in (2, 3)
        assert every['spikes'][2] > 0
        assert every['halo'][1] > 0


@pytest.mark.parametrize(('kwargs', 'match'), [
    ({'band_set': 'xyz'}, "band_set must be one of .*, got 'xyz'"),
    ({'band_set': ['g', 'r']}, 'band_set must be one of'),
    ({'band_set': 3}, 'band_set must be one of .*, got 3'),
    ({'band_set': {}}, 'band_set must have at least one band, got {}'),
    ({'band_set': {'g': -.5}}, 'band_set must have positive wavelengths'),
    ({'band_set': {'g': 0}}, 'band_set must have positive wavelengths'),
    ({'band_set': {'g': 'blue'}}, 'band_set must have positive wavelengths'),
    ({'band_set': {'g': np.nan}}, 'band_set must have positive wavelengths'),
    ({'psf_fwhm': .9}, 'psf_fwhm must be at least one pixel, got 0.9'),
    ({'psf_fwhm': -3}, 'psf_fwhm must be at least one pixel'),
    ({'psf_fwhm': np.nan}, 'psf_fwhm must be at least one pixel'),
    ({'psf_fwhm': np.inf}, 'psf_fwhm must be at least one pixel'),
    ({'psf_fwhm': [2, .5, 2], 'band_set': 'grz'},
     r'psf_fwhm must be at least one pixel, got \[2, 0.5, 2\]'),
    ({'psf_fwhm': [2, 3], 'band_set': 'grz'},
     'psf_fwhm must be one number or one for each of the 3 bands'),
    ({'psf_fwhm': [], 'band_set': 'grz'}, 'psf_fwhm must be one number')])
def test_bad_sky(kwargs, match):
    with pytest.raises(ValueError, match=match):
        draw(**kwargs)
