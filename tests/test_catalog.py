# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the catalog module.
"""

import astropy.units as u
import numpy as np
import pytest
from astropy.wcs import WCS
from numpy.testing import assert_allclose, assert_array_equal
from photutils.segmentation import SegmentationImage, SourceCatalog

from astrodino_seg.catalog import CLASS_NAMES, FLAGS, make_table
from astrodino_seg.errors import AstroDinoUserWarning
from astrodino_seg.image import Image
from astrodino_seg.inputs.background import SIDES
from astrodino_seg.inputs.channels import Normalised
from astrodino_seg.predict.decode import Grouping

SHAPE = 30, 40
CLASSES = np.array([[.7, .2, .1], [.1, .8, .1], [.2, .3, .5]])


def make_wcs():
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = 'RA---TAN', 'DEC--TAN'
    wcs.wcs.crval = 150, 2
    wcs.wcs.crpix = 20, 15
    wcs.wcs.cdelt = -1 / 3600, 1 / 3600
    return wcs


def labels():
    out = np.zeros(SHAPE, np.int32)
    out[4:9, 6:14] = 1
    out[15:22, 20:24] = 2
    out[24:28, 30:36] = 3
    return out


def table_of(groups, *, cube=None, mask=None, unit=None, wcs=None,
             background=3.0, sigma=2.0, n_bands=2, fragments=None,
             confidence=None, correlation=1.0, shares=None):
    rng = np.random.default_rng(5)
    if cube is None:
        cube = rng.uniform(0, 20, (n_bands, *SHAPE)) + background
        cube += 20 * (groups > 0)
    mask = np.zeros(cube.shape, bool) if mask is None else mask
    image = Image(cube=np.where(mask, 0, cube).astype(np.float32), mask=mask,
                  bands=('g', 'r')[:len(cube)], unit=unit, wcs=wcs)
    back = np.full(cube.shape, background, np.float32)
    noise = np.where(mask, np.inf, sigma).astype(np.float32)
    sn = ((image.cube - back) / noise).sum(axis=0) / np.sqrt(len(cube))
    channels = np.arcsinh(np.repeat(sn[None], 5, axis=0))
    n = groups.max()
    grouping = Grouping(groups, groups, {}, np.arange(n),
                        np.linspace(1, .5, n) if confidence is None
                        else np.array(confidence), np.ones(n, int)
                        if fragments is None else fragments)
    table = make_table(image, Normalised(
        channels, back, noise, np.full((len(cube), len(SIDES)), correlation)),
        grouping, np.resize(CLASSES, (n, 3)), shares)
    return image, sn, table


def test_against_photutils():
    image, sn, table = table_of(labels())
    segm = SegmentationImage(labels())
    oracle = SourceCatalog(sn.astype(float), segm)
    assert_array_equal(table['label'], oracle.labels)
    assert_allclose(table['x_centroid'], oracle.x_centroid, rtol=1e-4)
    assert_allclose(table['y_centroid'], oracle.y_centroid, rtol=1e-4)
    assert_allclose(table['area'].value, [40, 28, 24])
    assert table['area'].unit == u.pix**2
    for b, band in enumerate('gr'):
        oracle = SourceCatalog(image.cube[b].astype(float) - 3, segm,
                               error=np.full(SHAPE, 2.0))
        assert_allclose(table[f'flux_{band}'], oracle.segment_flux,
                        rtol=1e-5)
        assert_allclose(table[f'flux_err_{band}'], oracle.segment_flux_err,
                        rtol=1e-6)


def test_columns():
    _, _, table = table_of(labels(), fragments=np.array([1, 3, 1]))
    assert table.colnames == [
        'label', 'class', 'p_star', 'p_galaxy', 'p_artifact',
        'group_confidence', 'n_fragments', 'area', 'x_centroid',
        'y_centroid', 'flux_g', 'flux_err_g', 'flux_r', 'flux_err_r',
        'flags']
    assert list(table['class']) == ['star', 'galaxy', 'artifact']
    assert table['class'].tolist() == [CLASS_NAMES[k]
                                       for k in CLASSES.argmax(axis=1)]
    for k, name in enumerate(CLASS_NAMES):
        assert_allclose(table[f'p_{name}'], CLASSES[:, k])
    assert_allclose(table['group_confidence'], [1, .75, .5])
    assert_array_equal(table['n_fragments'], [1, 3, 1])
    assert table.meta == {
        'flags': 'edge=1, masked=2, disjoint=4, saturated=8, uncovered=16, '
                 'part_covered=32, blended=64, low_confidence=128, '
                 'edited=256, cut=512, out_of_domain=1024',
        'bands': 'g,r'}
    assert_array_equal(table['flags'], 0)


def test_unit_and_wcs():
    wcs = make_wcs()
    _, _, plain = table_of(labels())
    _, _, table = table_of(labels(), unit=u.nJy, wcs=wcs)
    for name in ('flux_g', 'flux_err_r'):
        assert table[name].unit == u.nJy
        assert getattr(plain[name], 'unit', None) is None
        assert_allclose(table[name].value, plain[name])
    sky = wcs.pixel_to_world(plain['x_centroid'], plain['y_centroid'])
    assert sky.separation(table['sky_centroid']).max() < 1 * u.uas
    # the convention of pixels: crpix counts from one
    assert_allclose(wcs.world_to_pixel(table['sky_centroid']),
                    [plain['x_centroid'], plain['y_centroid']], atol=1e-6)
    assert 'sky_centroid' not in plain.colnames


def test_round_trip(tmp_path):
    _, _, table = table_of(labels(), unit=u.nJy, wcs=make_wcs())
    table.write(tmp_path / 'table.ecsv')
    again = type(table).read(tmp_path / 'table.ecsv')
    assert again.colnames == table.colnames
    assert_allclose(again['flux_g'].value, table['flux_g'].value)
    assert again.meta == table.meta


def test_no_light():
    """A label without positive S/N has its centroid in its middle."""
    cube = np.full((1, *SHAPE), -10.0)
    _, _, table = table_of(labels(), cube=cube)
    assert_allclose(table['x_centroid'], [9.5, 21.5, 32.5], rtol=1e-6)
    assert_allclose(table['y_centroid'], [6, 18, 25.5], rtol=1e-6)


def test_masked():
    """Masked pixels of a band count in no sum."""
    mask = np.zeros((2, *SHAPE), bool)
    mask[0, 4:9, 6:8] = True               # 10 pixels of label 1
    image, _, table = table_of(labels(), mask=mask)
    inside = (labels() == 1) & ~mask[0]
    assert_allclose(table['flux_g'][0],
                    (image.cube[0].astype(float)[inside] - 3).sum(),
                    rtol=1e-6)
    assert_allclose(table['flux_err_g'][0], 2 * np.sqrt(30))
    assert_allclose(table['flux_err_r'][0], 2 * np.sqrt(40))
    assert_array_equal(table['flags'], [
        FLAGS['masked'] | FLAGS['part_covered'], 0, 0])


def test_uncovered_band():
    """A band that never saw an object has no flux of it."""
    mask = np.zeros((2, *SHAPE), bool)
    mask[1] = labels() == 2
    _, _, table = table_of(labels(), mask=mask)
    assert_array_equal(np.isnan(table['flux_r']), [False, True, False])
    assert_array_equal(np.isnan(table['flux_err_r']), [False, True, False])
    assert np.isfinite(table['flux_g']).all()
    assert table['flags'][1] & FLAGS['uncovered']
    assert not table['flags'][1] & FLAGS['part_covered']
    assert not table['flags'][0] & FLAGS['uncovered']


def test_sky_without_a_frame():
    """Nothing is lost because there are no positions on the sky."""
    wcs = make_wcs()
    wcs.wcs.ctype = ['HPLN-TAN', 'HPLT-TAN']
    with pytest.warns(AstroDinoUserWarning, match='no positions on the sky'):
        _, _, table = table_of(labels(), wcs=wcs)
    assert 'sky_centroid' not in table.colnames
    assert len(table) == 3


def flags_of(groups, **kwargs):
    return table_of(groups, **kwargs)[2]['flags']


@pytest.mark.parametrize('where', [(3, 5), (3, 9), (3, 14), (6, 5), (6, 14),
                                   (9, 5), (9, 9), (9, 14)])
def test_flag_next_to_mask(where):
    """One pixel of distance, diagonals too, still counts."""
    mask = np.zeros((1, *SHAPE), bool)
    mask[0, *where] = mask[0, 12, 30] = True
    assert_array_equal(flags_of(labels(), mask=mask, n_bands=1),
                       [FLAGS['masked'], 0, 0])
    mask[0, *where] = False
    mask[0, 2, 4] = True
    assert_array_equal(flags_of(labels(), mask=mask, n_bands=1), 0)


@pytest.mark.parametrize('where', [np.s_[0, 7], np.s_[29, 7], np.s_[8, 0],
                                   np.s_[8, 39]])
def test_flag_edge(where):
    groups = labels()
    groups[groups == 1] = 0
    groups[where] = 1
    assert_array_equal(flags_of(groups), [FLAGS['edge'], 0, 0])


def test_flag_disjoint():
    groups = labels()
    groups[9, 14] = 1                      # touches by a corner
    assert_array_equal(flags_of(groups), 0)
    groups[11, 16] = 1
    assert_array_equal(flags_of(groups), [FLAGS['disjoint'], 0, 0])


@pytest.mark.parametrize(('n_flat', 'level', 'flagged'), [
    (4, 1000, True), (3, 1000, False), (6, 350, False)])
def test_flag_saturated(n_flat, level, flagged):
    """A plateau of four pixels more than 200 times the noise of 2."""
    groups = labels()
    cube = np.full((2, *SHAPE), 3.0)
    cube[1, 17, 20:20 + min(n_flat, 4)] += level
    cube[1, 18, 20:20 + max(n_flat - 4, 0)] += level
    cube[1, 16, 20:24] += 0.9 * level
    assert_array_equal(flags_of(groups, cube=cube),
                       [0, FLAGS['saturated'] * flagged, 0])

def star(background=3.0, peak=9000, width=2.5):
    """An unsaturated star in the middle of the second label."""
    y, x = np.indices(SHAPE)
    return background + peak * np.exp(
        -((y - 17.6)**2 + (x - 21.4)**2) / 2 / width**2)


@pytest.mark.parametrize(('kind', 'flagged'), [
    ('star', False), ('broad', False), ('uneven plateau', True),
    ('bleed', True), ('hole', True), ('masked pixel', False),
    ('faint hole', False)])
def test_patterns_of_saturation(kind, flagged):
    """Plateaux uneven by 10%, columns that bleed, holes that are masked."""
    cube = np.full((2, *SHAPE), 3.0)
    groups = np.zeros(SHAPE, int)
    groups[10:26, 12:32] = 1
    cube[1] = star(width=6 if kind == 'broad' else 2.5)
    mask = np.zeros(cube.shape, bool)
    rng = np.random.default_rng(2)
    if kind == 'uneven plateau':
        cube[1] = np.minimum(cube[1], 4500 * rng.uniform(.93, 1, SHAPE))
    elif kind == 'bleed':
        cube[1] = np.minimum(cube[1], 6000 * rng.uniform(.96, 1, SHAPE))
        cube[1, 11:25, 21] = rng.uniform(5500, 6000, 14)
    elif kind == 'hole':
        mask[1] = cube[1] > 5000
    elif kind == 'masked pixel':
        mask[1, 18, 21] = True
    elif kind == 'faint hole':
        mask[1, 11:14, 13:16] = True
    flags = flags_of(groups, cube=cube, mask=mask)
    assert bool(flags[0] & FLAGS['saturated']) == flagged


def test_flag_blended():
    """Labels that touch, by an edge or a corner."""
    for pixels in ([(9, 9), (9, 10)], [(9, 9), (10, 10)], [(9, 10), (10, 9)],
                   [(9, 9), (10, 9)]):
        groups = np.zeros(SHAPE, int)
        for label, where in enumerate([*pixels, (20, 20)], start=1):
            groups[where] = label
        assert_array_equal(flags_of(groups) & FLAGS['blended'],
                           [FLAGS['blended'], FLAGS['blended'], 0])


def test_flag_low_confidence():
    assert_array_equal(flags_of(labels(), confidence=[.49, .5, .1]),
                       [FLAGS['low_confidence'], 0, FLAGS['low_confidence']])


def test_flags_add_up():
    groups = labels()
    groups[0, 0] = 2
    assert len(set(FLAGS.values())) == len(FLAGS)
    assert flags_of(groups)[1] == FLAGS['edge'] + FLAGS['disjoint']
    assert all(bin(bit).count('1') == 1 for bit in FLAGS.values())
