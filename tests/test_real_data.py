# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Real images of many surveys: small parts are segmented, and the result holds.

Skipped where the images are missing; see ``conftest.py``.
"""

import warnings
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import astropy.units as u
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from photutils.segmentation import SourceCatalog, detect_sources
from photutils.utils.exceptions import NoDetectionsWarning
from scipy import ndimage

from astrodino_seg import DinoSegmenter, as_image
from astrodino_seg.catalog import CLASS_NAMES
from astrodino_seg.errors import AstroDinoUserWarning
from astrodino_seg.evaluate.baselines import PhotutilsFinder
from astrodino_seg.plotting import rgb_image

NINE = ('u', 'g', 'r', 'i', 'Z', 'Y', 'J', 'H', 'Ks')
LEGACY = ('cluster_ring_grz', 'cutout_59.1067_-30.4848_grz_invvar_psf',
          'dr10_griz_192.6009_-28.2675', 'decals_dr5_example_a',
          'decals_dr5_example_b')
EDGE_CASES = ('G.fits.fz', 'R.fits.fz', 'gc_2mass_j.fits',
              'image_with_distortion_map.fits', 'pole.fits', 'razero.fits',
              'sipsample.fits', 'small_MI_corrupt_img.fits', 'tanflip.fits',
              'tnx.fits', 'tpv.fits.gz')
#: files that hold no image, and what the refusal says
REFUSED = {'jwst_uds/LW_seg.fits': 'has no science image',
           'jwst_uds/f770w_wht.fits': 'has no science image',
           'legacy/dr10_tractor_192.6009_-28.2675.fits': 'no science image',
           'single_band/M51_table.fits': 'has no science image',
           'jwst_uds/photometry.cat': 'cannot be read as a FITS image',
           'jwst_uds/LICENSE': 'cannot be read as a FITS image',
           'hsc/hsc_cosmos.npz': 'which are not all',
           'kids_viking': 'is a directory'}


def part(image, x, y, size):
    """A square part about a pixel."""
    ny, nx = image.shape
    half = size // 2
    xs = slice(max(x - half, 0), min(x + half, nx))
    ys = slice(max(y - half, 0), min(y + half, ny))
    return replace(
        image, cube=image.cube[:, ys, xs], mask=image.mask[:, ys, xs],
        noise=None if image.noise is None else image.noise[:, ys, xs],
        wcs=None if image.wcs is None else image.wcs[ys, xs])


def middle(image, size=160):
    return part(image, image.shape[1] // 2, image.shape[0] // 2, size)


@pytest.fixture(scope='module')
def kids(data_dir):
    """KiDS and VIKING around a spiral, by the bands asked for."""
    planes = {}

    def read(bands, x, y, size):
        for band in bands:
            if band not in planes:
                path = data_dir / 'kids_viking' / f'{band}.fits'
                # of the detector of this band a strip is missing
                with pytest.warns(AstroDinoUserWarning, match='0.2% of band i'
                                  ) if band == 'i' else nullcontext():
                    planes[band] = as_image(path)
        cubes = {band: part(planes[band], x, y, size) for band in bands}
        return as_image(np.concatenate([cubes[b].cube for b in bands]),
                        bands=bands, wcs=cubes[bands[0]].wcs)
    return read


def of_bands(folder, pattern, bands, **kwargs):
    return as_image({b: folder / pattern.format(b) for b in bands}, **kwargs)


def hsc(data_dir, name):
    with np.load(data_dir / 'hsc' / name) as arrays:
        error = None
        if 'variance' in arrays:
            error = np.sqrt(arrays['variance'])
        return as_image(arrays['images'], error=error,
                        bands=[str(one) for one in arrays['filters']])


def check(image):
    """Segment, and check all that does not depend on the image."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', NoDetectionsWarning)
        result = DinoSegmenter().segment(image)
    if result is None:
        return None
    segm, table = result.segmentation_image, result.table
    assert segm.data.dtype == np.int32
    assert segm.shape == image.shape
    assert_array_equal(segm.labels, np.arange(1, segm.n_labels + 1))
    assert_array_equal(table['label'], segm.labels)
    assert not segm.data[image.mask.all(axis=0)].any()
    assert_array_equal(result.fragments.data > 0, segm.data > 0)
    assert np.isfinite(table['x_centroid']).all()
    assert set(table['class']) <= set(CLASS_NAMES)
    for band, data, back, noise in zip(image.bands, image.cube,
                                       result.background, result.noise):
        light = np.where(np.isfinite(noise), data - back, 0).astype(float)
        flux = u.Quantity(table[f'flux_{band}']).value
        assert_allclose(flux, ndimage.sum_labels(light, segm.data,
                                                 segm.labels), rtol=1e-4,
                        atol=1e-5 * np.abs(light).max())
        assert np.isfinite(u.Quantity(table[f'flux_err_{band}'])).all()
    if image.wcs is not None:
        sky = table['sky_centroid']
        x, y = image.wcs.world_to_pixel(sky)
        assert_allclose(x, table['x_centroid'], atol=0.01)
        assert_allclose(y, table['y_centroid'], atol=0.01)
    rgb = rgb_image(image, result.background, result.noise)
    assert rgb.shape == (*image.shape, 3)
    assert len(SourceCatalog(image.cube[0], segm).to_table()) == len(table)
    return result


def n_within(segm, x, y, radius):
    """The number of labels within a circle."""
    row, column = np.indices(segm.shape)
    inside = np.hypot(column - x, row - y) < radius
    return np.count_nonzero(np.unique(segm.data[inside]))


# --------------------------------------------------------- each survey

@pytest.mark.parametrize('bands', [('g', 'r', 'i', 'Z'), NINE, ('r',)],
                         ids=''.join)
@pytest.mark.parametrize(('x', 'y'), [(1206, 477), (1341, 1668), (671, 759),
                                      (60, 60)],
                         ids=['spiral', 'merger', 'saturated', 'corner'])
def test_kids_viking(kids, bands, x, y):
    image = kids(bands, x, y, 160)
    assert image.bands == bands
    result = check(image)
    assert result.segmentation_image.n_labels > 2


def test_spiral_is_not_shredded(kids):
    image = kids(('g', 'r', 'i', 'Z'), 1206, 477, 300)
    ours, theirs = DinoSegmenter()(image), PhotutilsFinder()(image)
    for radius in (30, 50, 70):
        assert n_within(ours, 150, 150, radius) <= n_within(
            theirs, 150, 150, radius)
    # the disc is there, as one label that is no whole frame
    disc = (ours.data == ours.data[150, 150]).sum()
    assert ours.data[150, 150] > 0
    assert 1000 < disc < 30_000


def test_saturated_star(kids):
    # cut into few labels, the one in the middle being the brightest
    image = kids(('g', 'r', 'i', 'Z'), 671, 759, 200)
    result = check(image)
    label = result.segmentation_image.data[100, 100]
    assert label > 0
    flux = result.table['flux_r']
    assert flux[label - 1] == flux.max()


@pytest.mark.parametrize('bands', [('F115W', 'F444W', 'F770W'), ('F444W',)],
                         ids=''.join)
@pytest.mark.parametrize(('x', 'y'), [(400, 500), (150, 800)])
def test_jwst(data_dir, bands, x, y):
    image = as_image({band: data_dir / f'jwst_uds/{band.lower()}_sci.fits'
                      for band in bands})
    assert image.bands == bands
    result = check(part(image, x, y, 200))
    assert result.table[f'flux_{bands[0]}'].unit == 10 * u.nJy
    # what photutils sees far above the noise has a label
    k = bands.index('F444W')
    light = result.image.cube[k] - result.background[k]
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', NoDetectionsWarning)
        bright = detect_sources(light, 7 * result.noise[k], n_pixels=5)
    for label in () if bright is None else bright.labels:
        assert result.segmentation_image.data[bright.data == label].any()


def test_jwst_on_two_grids(data_dir):
    folder = data_dir / 'jwst_uds'
    image = as_image({'F444W': folder / 'f444w_sci.fits',
                      'F770W': folder / 'f770w_80mas_sci.fits'})
    assert image.shape == (1000, 820) or image.shape == (820, 1000)
    assert check(middle(image)) is not None


@pytest.mark.parametrize('name', ['hsc_cosmos_35.npz', 'hsc_cosmos.npz'])
def test_hsc(data_dir, name):
    image = hsc(data_dir, name)
    result = check(image)
    with np.load(data_dir / 'hsc' / name) as arrays:
        catalogue = arrays['catalog']
    # sources of the catalogue that came with it lie on labels
    x, y = (np.clip(np.round(catalogue[k]).astype(int), 0, n - 1)
            for k, n in zip('xy', image.shape[::-1]))
    assert (result.segmentation_image.data[y, x] > 0).mean() > 0.6


def test_hsc_spiral(data_dir):
    image = as_image(data_dir / 'hsc/hsc_ra=150.24071_dec=2.06514.fits')
    result = check(image)
    segm = result.segmentation_image
    # it fills the frame, and is one
    centre = segm.data[27, 27]
    assert centre > 0
    assert segm.areas[centre - 1] > 0.5 * segm.areas.sum()


@pytest.mark.parametrize('name', LEGACY)
def test_legacy_surveys(data_dir, name):
    image = as_image(data_dir / f'legacy/{name}.fits')
    result = check(middle(image))
    assert result.segmentation_image.n_labels > 1
    assert (image.noise is not None) == ('invvar' in name)


@pytest.mark.parametrize('survey', ['DES', 'PS1', 'SDSS'])
def test_spiral_with_star(data_dir, survey):
    folder = data_dir / 'spiral_with_star'
    # the WCS of the SDSS bands are not theirs, so that of one is for all
    image = of_bands(folder, survey + '_{}.fits', 'griz',
                     wcs=as_image(folder / f'{survey}_r.fits').wcs)
    result = check(image)
    ours, theirs = result.segmentation_image, PhotutilsFinder()(image)
    scale = image.wcs.proj_plane_pixel_scales()[0].to_value('arcsec')
    # the same galaxy is whole in each survey
    galaxy = ours.data[120, 120]
    assert galaxy > 0
    assert ours.areas[galaxy - 1] * scale**2 > 300      # square arcsec
    assert n_within(ours, 120, 120, 25 / scale) <= n_within(
        theirs, 120, 120, 25 / scale)


@pytest.mark.parametrize(('x', 'y'), [(341, 248), (120, 120)])
def test_sdss_trio(data_dir, x, y):
    image = of_bands(data_dir / 'sdss_ngc6976',
                     'reprojected_sdss_{}.fits.bz2', 'gri')
    assert image.bands == ('g', 'r', 'i')
    result = check(part(image, x, y, 220))
    assert result.segmentation_image.n_labels > 5
    assert result.table['flux_g'].unit == u.Unit('nmgy')


def test_m51(data_dir):
    # the classic case of shredding, in one band of 16-bit numbers
    image = as_image(data_dir / 'single_band/M51.fits')
    assert image.wcs is None
    result = check(image)
    theirs = PhotutilsFinder()(image)
    assert result.segmentation_image.n_labels < theirs.n_labels
    segm = result.segmentation_image
    assert segm.areas.max() > 0.05 * segm.data.size


@pytest.mark.parametrize('name', ['HST-HDFS.fits', 'image.fits'])
def test_single_band(data_dir, name):
    result = check(middle(as_image(data_dir / 'single_band' / name), 200))
    assert result.segmentation_image.n_labels > 2


# ------------------------------------------------- odd files, and no images

@pytest.mark.parametrize('name', EDGE_CASES)
def test_edge_cases(data_dir, name):
    image = as_image(data_dir / 'edge_cases' / name)
    result = check(middle(image, 180))
    if name != 'image_with_distortion_map.fits':        # which is empty
        assert result.segmentation_image.n_labels > 0
        assert PhotutilsFinder()(middle(image, 180)) is not None


@pytest.mark.parametrize('name', REFUSED)
def test_refused(data_dir, name):
    path = data_dir / name
    assert path.exists()
    for finder in (DinoSegmenter(), as_image):
        with pytest.raises(ValueError, match=REFUSED[name]) as caught:
            finder(path)
        text = str(caught.value)
        assert Path(name).name in text
        assert '\n' not in text


def test_flipped_parity(data_dir):
    # the WCS of a flipped copy leads to the same places on the sky
    image = of_bands(data_dir / 'spiral_with_star', 'DES_{}.fits', 'gr')
    flipped = as_image(image.cube[:, :, ::-1], error=image.noise[:, :, ::-1],
                       bands=image.bands)
    one, other = check(image), check(flipped)
    back = other.segmentation_image.data[:, ::-1] > 0
    assert (back == (one.segmentation_image.data > 0)).mean() > 0.8
