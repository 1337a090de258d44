# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests of galaxies of the COSMOS field.
"""

import numpy as np
import pytest
from astropy.io import fits
from astropy.modeling.models import Sersic2D
from astropy.table import Table
from numpy.testing import assert_allclose
from scipy.ndimage import center_of_mass
from simulate_helpers import EMPTY

from astrodino_seg.simulate import make_scene
from astrodino_seg.simulate.render import MAX_ZOOM, CosmosGalaxies
from astrodino_seg.simulate.scene_library import build_stamps

WAVES = np.array([0.48, 0.62, 0.87])


def write_folder(folder, images, mean=0.02, variance=1e-4, **columns):
    """The two files, of images in units of which the noise is 0.01."""
    rng = np.random.default_rng(0)
    hdus = [fits.PrimaryHDU()] + [fits.ImageHDU(
        (image + mean + rng.normal(0, np.sqrt(variance), image.shape)
         ).astype(np.float32), name=f'GAL{k}')
        for k, image in enumerate(images)]
    fits.HDUList(hdus).writeto(folder / 'galaxies_f814w.fits')
    n = len(images)
    Table({'IDENT': np.arange(n), 'NOISE_MEAN': np.full(n, mean),
           'NOISE_VARIANCE': np.full(n, variance), **columns}).write(
        folder / 'catalog.ecsv')
    return folder


def profile(re=8.0, q=0.6, shape=(101, 95), peak=3.0):
    """An exponential disc off the middle of its stamp."""
    y, x = np.mgrid[:shape[0], :shape[1]]
    image = Sersic2D(1, re / np.sqrt(q), 1, 48, 50, 1 - q, 0.5)(x, y)
    return peak * image / image.max()


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    neighbour = profile()
    neighbour[5:12, 80:87] = 1.0
    return write_folder(tmp_path_factory.mktemp('cosmos'),
                        [profile(), neighbour, profile(peak=0.02)])


def test_stamps(folder):
    """Size, axis ratio; without sky, noise, neighbours and faint ones."""
    stamps = CosmosGalaxies(folder).stamps
    assert len(stamps) == 2
    for image, radius, q in stamps:
        assert_allclose(radius, 8.0, rtol=0.12)
        assert_allclose(q, 0.6, atol=0.06)
        assert (image >= 0).all()
        # no noise and no edge where there is no galaxy
        assert image[:6].max() == image[-6:].max() == 0
        assert image[5:12, 80:87].max() < 1e-3
        # the flux that was put in, but for the outskirts
        assert_allclose(image.sum(), profile().sum(), rtol=0.12)


@pytest.mark.parametrize('re', [3.0, 8.0, 20.0, 200.0])
def test_draw(folder, re):
    galaxies = CosmosGalaxies(folder)
    for seed in range(4):
        cube, size, q = galaxies.draw(np.random.default_rng(seed), re, WAVES)
        assert cube.dtype == np.float32
        n = cube.shape[1]
        assert cube.shape == (3, n, n)
        assert n % 2 == 1
        assert (cube >= 0).all()
        assert_allclose(cube.sum(axis=(1, 2), dtype=float).mean(), 1,
                        rtol=1e-5)
        assert_allclose(q, 0.6, atol=0.06)
        # enlarged so far, and no farther; half of the light is within it
        natural = galaxies.stamps[0][1]
        assert_allclose(size, min(re, MAX_ZOOM * natural), rtol=0.05)
        middle = n // 2
        bright = cube[1] * (cube[1] > 0.2 * cube[1].max())
        assert_allclose(center_of_mass(bright), middle, atol=0.15 * size + 1)
        y, x = np.mgrid[:n, :n] - middle
        inside = cube[1][np.hypot(x, y) < size].sum() / cube[1].sum()
        assert_allclose(inside, 0.5, atol=0.1)


def test_colours(folder):
    """The same shape in all bands, but for young light, which is bluer."""
    galaxies = CosmosGalaxies(folder)
    for seed in range(6):
        cube, size, _ = galaxies.draw(np.random.default_rng(seed), 15.0,
                                      WAVES)
        assert cube[2].sum() > cube[0].sum()
        n = cube.shape[1]
        y, x = np.mgrid[:n, :n] - n // 2
        ring = cube[:, (np.hypot(x, y) > size) & (np.hypot(x, y) < 1.5 * size)
                    ].sum(axis=1)
        # what stands out above the smooth galaxy is its core here
        core = cube[:, np.hypot(x, y) < 0.3 * size].sum(axis=1)
        assert core[0] / core[2] >= ring[0] / ring[2] - 1e-6


def test_one_seed(folder):
    one, two, three = (CosmosGalaxies(folder).draw(
        np.random.default_rng(seed), 9.0, WAVES)[0] for seed in (1, 1, 2))
    assert np.array_equal(one, two)
    assert one.shape != three.shape or not np.array_equal(one, three)


def test_in_scenes(folder, tmp_path):
    """An ingredient where its folder is given, of the size it has."""
    rates = {**EMPTY, 'large': 4, 'cosmos': 1}
    scene = make_scene(0, size=160, band_set='r', psf_fwhm=2.0, rates=rates,
                       cosmos=folder)
    assert set(scene.objects['kind']) == {'cosmos'}
    natural = CosmosGalaxies(folder).stamps[0][1]
    assert (scene.objects['re'] <= 1.1 * MAX_ZOOM * natural).all()
    assert scene.objects['primary'].all()
    assert not len(make_scene(0, size=64, rates=rates).objects['x'])
    library = build_stamps(tmp_path, n_skies=1, n_large=1, n_small=1,
                           band_sets=['r'], rates=rates, cosmos=folder,
                           progress=False)
    assert library.source(0).kinds == {'cosmos', 'central'}
    assert set(make_scene(0, size=160, rates=rates, stamps=library).objects[
        'kind']) == {'cosmos'}


def test_bad_folder(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="cosmos: no file '.*f814w"):
        CosmosGalaxies(tmp_path / 'none')
    (tmp_path / 'galaxies_f814w.fits').write_bytes(
        (folder / 'galaxies_f814w.fits').read_bytes())
    with pytest.raises(FileNotFoundError, match="no file '.*catalog.ecsv'"):
        CosmosGalaxies(tmp_path)
    Table({'MAG': [20.0] * 3}).write(tmp_path / 'catalog.ecsv')
    with pytest.raises(ValueError, match="has no columns .'NOISE_MEAN'"):
        CosmosGalaxies(tmp_path)
    Table({'NOISE_MEAN': [0.0], 'NOISE_VARIANCE': [1.0]}).write(
        tmp_path / 'catalog.ecsv', overwrite=True)
    with pytest.raises(ValueError, match='has 3 extensions, .* has 1 rows'):
        CosmosGalaxies(tmp_path)
    (tmp_path / 'galaxies_f814w.fits').write_text('no image')
    with pytest.raises(ValueError, match='cannot be read as a FITS image'):
        CosmosGalaxies(tmp_path)


def test_only_faint_ones(tmp_path):
    write_folder(tmp_path, [profile(peak=0.02)])
    with pytest.raises(FileNotFoundError, match='no galaxy in .* is bright'):
        CosmosGalaxies(tmp_path)


def test_real(data_dir):
    """The stamps of GalSim's COSMOS sample."""
    folder = data_dir / 'cosmos_stamps'
    if not folder.is_dir():
        pytest.skip(f'no stamps at {folder}')
    galaxies = CosmosGalaxies(folder)
    assert len(galaxies.stamps) > 10
    for image, radius, q in galaxies.stamps:
        assert 1 <= radius < 0.5 * max(image.shape)
        assert 0.1 < q <= 1
        assert np.isfinite(image).all()
    for seed in range(5):
        cube, re, _ = galaxies.draw(np.random.default_rng(seed), 12.0, WAVES)
        assert re < 12.001
        rim = np.concatenate([cube[:, 0], cube[:, -1], cube[:, :, 0],
                              cube[:, :, -1]], axis=None)
        assert rim.max() < 1e-3 * cube.max()
