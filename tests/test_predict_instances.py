# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests of the sky beside the objects.
"""

import numpy as np
import pytest
from astropy import units as u
from astropy.nddata import block_reduce
from numpy.testing import assert_allclose, assert_array_equal
from photutils.background import Background2D
from scipy.ndimage import gaussian_filter

from astrodino_seg import DinoSegmenter, as_image, load_model
from astrodino_seg.inputs.channels import normalise
from astrodino_seg.predict.instances import _bin, _grow, find_objects, input_of


@pytest.fixture(scope='module')
def model():
    return load_model().fused()


@pytest.fixture(scope='module')
def finder():
    return DinoSegmenter()


def disc(scale, peak, n=512):
    """An exponential disc on a flat sky of 10 with noise 1."""
    y, x = np.mgrid[:n, :n]
    r = np.hypot(x - 250, (y - 262) / 0.7)
    light = gaussian_filter(peak * np.exp(-r / scale), 1.3)
    noise = np.random.default_rng(1).normal(size=(n, n))
    return light, as_image(light + 10 + noise)


@pytest.mark.parametrize(('scale', 'peak'), [(8, 50), (20, 50), (40, 5),
                                             (40, 50)])
def test_sky_beneath_a_disc(model, scale, peak):
    light, image = disc(scale, peak)
    before = normalise(image, model.preprocess).background[0] - 10
    after = input_of(model, image)[0].background[0] - 10
    on_disc = light > 0.1
    assert abs(after[on_disc].mean()) < 0.1
    assert abs(after[262, 250]) < 0.15
    if scale == 40:                     # what boxes alone make of it
        assert before[262, 250] > 0.5


def test_galaxy_larger_than_the_image(model):
    """Where all is galaxy, the darkest part stands for the sky."""
    light, image = disc(80, 50)
    objects = find_objects(model, [image])[0]
    assert 0.05 < (~objects).mean() < 0.3
    assert light[~objects].max() < np.quantile(light, 0.4)


def test_noise_is_sky(model):
    noise = np.random.default_rng(0).normal(size=(400, 444))
    objects = find_objects(model, [as_image(noise)])[0]
    assert objects.shape == (400, 444)
    assert objects.mean() < 0.1


def test_small_images_are_as_they_are(model):
    image = as_image(np.random.default_rng(0).normal(size=(40, 90)))
    assert find_objects(model, [image]) == [None]
    assert_array_equal(input_of(model, image)[1],
                       normalise(image, model.preprocess).channels)


def test_bin():
    rng = np.random.default_rng(0)
    cube, noise = rng.normal(size=(2, 24, 32)), rng.uniform(1, 2, (2, 24, 32))
    mask = np.zeros(cube.shape, bool)
    mask[0, :4, :4] = True
    mask[1, 8:10, 4:8] = mask[1, 8:9, 8:12] = True
    image = as_image(cube, mask=mask, error=noise)
    found = _bin(image, 4)
    masked = np.ma.masked_array(cube, mask)
    blocks = masked.reshape(2, 6, 4, 8, 4)
    wanted = blocks.mean(axis=(2, 4))
    assert_allclose(found.cube, wanted.filled(0), atol=1e-6)
    # half a block is enough, less is not
    assert found.mask.sum() == 1
    assert found.mask[0, 0, 0]
    whole = ~mask.reshape(2, 6, 4, 8, 4).any(axis=(2, 4))
    variance = np.array([block_reduce(one**2, 4) for one in noise])
    assert_allclose(found.noise[whole], (np.sqrt(variance) / 16)[whole],
                    rtol=1e-6)


def test_bin_of_an_odd_size():
    """What is left at the edge is the mean of what there is."""
    image = as_image(np.full((9, 14), 3.0))
    found = _bin(image, 4)
    assert found.shape == (3, 4)
    assert_allclose(found.cube[~found.mask], 3)
    # of the last row a quarter is there, of the last column one half
    assert_array_equal(found.mask[0], np.indices((3, 4))[0] == 2)


def test_grow():
    """A disc of 8 pixels grows by two, a single pixel by one."""
    y, x = np.mgrid[:60, :60]
    objects = np.hypot(x - 20, y - 20) <= 8
    objects[50, 50] = True
    found = _grow(objects)
    r = np.hypot(x - 20, y - 20)
    assert found[r <= 9].all()
    assert found[20, 29]
    assert not found[(r > 10.5) & (np.hypot(x - 50, y - 50) > 1)].any()
    assert found[49:52, 49:52].sum() == 5
    nothing = np.zeros((5, 5), bool)
    assert_array_equal(_grow(nothing), nothing)


# ------------------------------------------------------------- the user's

@pytest.fixture(scope='module')
def star():
    y, x = np.mgrid[:160, :160]
    light = 100 * np.exp(-((x - 70)**2 + (y - 90)**2) / 8)
    return light + np.random.default_rng(2).normal(size=light.shape)


def test_none(finder, star):
    """The flux is the sum of the pixels as they are."""
    result = finder.segment(star, background='none')
    assert (result.background == 0).all()
    inside = result.segmentation_image.data == 1
    assert_allclose(result.table['flux_band0'][0], star[inside].sum(),
                    rtol=1e-4)


def test_flat(finder, star):
    cube = np.stack([star + 40, star + 7])
    result = finder.segment(cube, background='flat')
    assert_allclose(result.background, np.broadcast_to(
        result.background[:, :1, :1], cube.shape))
    assert_allclose(result.background[:, 0, 0], [40, 7], atol=0.1)


@pytest.mark.parametrize('bands', [('g', 'r'), ('r', 'g')])
def test_given(finder, star, bands):
    """A number, one a band in the input's order, a dict, or an image."""
    cube = np.stack([star + 40, star + 7])
    wanted = {bands[0]: 40, bands[1]: 7}
    slope = np.linspace(0, 1, 160) * np.ones((160, 1))
    for background, values in (
            (3, {'g': 3, 'r': 3}), ([40, 7], wanted), (wanted, wanted),
            (slope, {'g': slope, 'r': slope}),
            ({b: v + slope for b, v in wanted.items()},
             {b: v + slope for b, v in wanted.items()})):
        result = finder.segment(cube, bands=bands, background=background)
        assert result.image.bands == ('g', 'r')
        for found, band in zip(result.background, 'gr'):
            assert_allclose(found, np.broadcast_to(values[band], found.shape),
                            rtol=1e-6)


def test_background_of_photutils(finder, star):
    one = Background2D(star + 12, 40)
    result = finder.segment(star + 12, background=one)
    assert_allclose(result.background[0], one.background, rtol=1e-6)
    assert finder(star + 12, background=one).n_labels >= 1


def test_models_with_planes_of_their_own(star):
    """They see the image less the background that was given."""
    model = load_model('ms_tiny')
    for offset in (0, 1e3):
        result = DinoSegmenter(model=model).segment(star + offset,
                                                    background=offset)
        assert_allclose(result.background, offset)


@pytest.mark.parametrize(('background', 'match'), [
    ('mesh', "background must be 'none', 'flat', a number or an image, got"),
    (np.zeros((4, 4)), r'background must be one value, an image of shape'),
    (np.nan, 'background must not be NaN'),
    (np.inf, 'background must be finite'),
    (3 * u.Jy, 'background has unit Jy but data has unit None'),
    ({'g': 1}, r"background is for the bands \['g'\], data has"),
])
def test_bad_background(finder, star, background, match):
    with pytest.raises(ValueError, match=match):
        finder(star, background=background)
