# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What comes out goes into photutils, regions, SEP and matplotlib as it is.
"""

import subprocess
import sys
import warnings

import astropy.units as u
import numpy as np
import pytest
from astropy.nddata import NDData
from numpy.testing import assert_allclose, assert_array_equal
from photutils.aperture import CircularAperture, aperture_photometry
from photutils.segmentation import (
    SegmentationImage,
    SourceCatalog,
    deblend_sources,
)
from regions import PolygonPixelRegion, Regions
from scipy import ndimage

from astrodino_seg import DinoSegmenter, as_image
from astrodino_seg.catalog import FLAGS
from astrodino_seg.datasets import demo_image


@pytest.fixture(scope='module')
def image():
    demo = demo_image()
    ys, xs = slice(60, 188), slice(230, 358)
    return as_image(demo.cube[:, ys, xs], wcs=demo.wcs[ys, xs],
                    bands=demo.bands)


@pytest.fixture(scope='module')
def result(image):
    return DinoSegmenter().segment(image)


@pytest.fixture
def segm(result):
    return result.segmentation_image.copy()


@pytest.fixture(scope='module')
def data(image, result):
    """The r band less its background."""
    return (image.cube[1] - result.background[1]).astype(float)


# ------------------------------------------------------------- photutils

def test_source_catalog(data, segm, result):
    catalog = SourceCatalog(data, segm, error=result.noise[1])
    table = catalog.to_table()
    assert_array_equal(table['label'], result.table['label'])
    assert_array_equal(catalog.area.value, result.table['area'].value)
    assert_allclose(catalog.segment_flux, result.table['flux_r'], rtol=1e-4,
                    atol=0.01)
    bright = result.table['flux_r'] > 20 * result.table['flux_err_r']
    assert bright.any()
    assert np.isfinite(catalog.kron_flux[bright]).all()
    assert np.isfinite(catalog.semimajor_axis[bright].value).all()
    assert 'sky_centroid' in table.colnames
    assert set(table['sky_centroid']) == {None}


def test_source_catalog_with_wcs(data, segm, image, result):
    catalog = SourceCatalog(data * u.nJy, segm, wcs=image.wcs)
    table = catalog.to_table(columns=['label', 'segment_flux',
                                      'sky_centroid'])
    assert table['segment_flux'].unit == u.nJy
    # S/N of all bands against flux of one: near for what is bright and alone
    good = ((result.table['flux_r'] > 50 * result.table['flux_err_r'])
            & (result.table['flags'] & sum(FLAGS[name] for name in (
                'edge', 'masked', 'disjoint', 'saturated')) == 0))
    assert good.any()
    apart = result.table['sky_centroid'].separation(table['sky_centroid'])
    assert (apart[good] < 2 * 0.262 * u.arcsec).all()


def test_source_catalog_of_nddata(image, result, segm):
    # the whole way with units: in as NDData, out as a table
    data = NDData(image.cube[1], unit='nJy', wcs=image.wcs)
    found = DinoSegmenter()(data, 20 * u.nJy)
    table = SourceCatalog(data.data * data.unit, found,
                          wcs=data.wcs).to_table()
    assert len(table) == found.n_labels


def test_source_catalog_of_fragments(data, result):
    catalog = SourceCatalog(data, result.fragments)
    assert_array_equal(catalog.labels, result.fragments.labels)
    parents = result.fragments.parent_to_deblended_labels
    for label, children in parents.items():
        area = catalog.select_labels(children).area.value.sum()
        assert area == result.table['area'][label - 1].value


def test_disjoint_labels_are_flagged(data, segm, result):
    # shape parameters of several islands mean little, and the flag says so
    for label, flags in zip(segm.labels, result.table['flags']):
        _, n = ndimage.label(segm.data == label, np.ones((3, 3), int))
        assert bool(flags & FLAGS['disjoint']) == (n > 1)


def test_apertures(data, result):
    places = np.transpose([result.table['x_centroid'],
                           result.table['y_centroid']])
    table = aperture_photometry(data, CircularAperture(places, r=3))
    assert len(table) == len(result.table)


def test_deblending_again(data, segm, result):
    # it may split what was grouped, but it works; photutils takes labels in
    # one piece, and a flag tells the others
    whole = result.table['flags'] & FLAGS['disjoint'] == 0
    assert np.count_nonzero(whole) > 0.5 * len(whole)
    segm.keep_labels(segm.labels[whole], relabel=True)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        parts = deblend_sources(np.maximum(data, 0.01), segm, n_pixels=5,
                                progress_bar=False)
    assert isinstance(parts, SegmentationImage)
    assert_array_equal(parts.data > 0, segm.data > 0)
    assert parts.n_labels >= segm.n_labels


def test_deblended_fragments_are_those_of_photutils(result):
    # the map from parents to children has the form that photutils gives it
    fragments = result.fragments
    children = np.concatenate(
        list(fragments.parent_to_deblended_labels.values()) or [[]])
    assert_array_equal(fragments.deblended_labels, np.sort(children))
    for child, parent in fragments.deblended_label_to_parent.items():
        inside = fragments.data == child
        assert set(result.segmentation_image.data[inside]) == {parent}


def test_editing(segm, result):
    n = segm.n_labels
    first = int(segm.labels[0])
    segm.remove_label(first)
    assert segm.n_labels == n - 1
    segm.relabel_consecutive()
    assert_array_equal(segm.labels, np.arange(1, n))
    segm.remove_border_labels(1, relabel=True)
    segm.reassign_labels(segm.labels[:2], 77)
    # a copy of the user is the user's
    assert result.segmentation_image.n_labels == n


def test_source_mask(segm):
    mask = segm.make_source_mask(size=3)
    assert mask[segm.data > 0].all()
    cutout = segm.segments[0].make_cutout(segm.data)
    assert cutout.shape == segm.segments[0].data.shape


# --------------------------------------------------- regions, matplotlib

def test_to_regions(segm, result):
    groups = segm.to_regions(group=True)
    assert len(groups) == segm.n_labels
    for group, label, flags in zip(groups, segm.labels,
                                   result.table['flags']):
        parts = group if isinstance(group, Regions) else [group]
        assert all(isinstance(one, PolygonPixelRegion) for one in parts)
        # polygons are joined by edges, the flag is set by corners too
        assert not flags & FLAGS['disjoint'] or len(parts) > 1
        drawn = sum(one.to_mask(mode='center').to_image(segm.shape)
                    for one in parts) > 0
        assert drawn[segm.data == label].mean() > 0.99
    assert len(segm.to_regions()) >= segm.n_labels
    sky = groups[0] if not isinstance(groups[0], Regions) else groups[0][0]
    assert sky.to_sky(result.image.wcs).vertices.isscalar is False


def test_plot_patches(segm):
    # with matplotlib's Agg, and no window
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure()
    canvas = FigureCanvasAgg(figure)
    axis = figure.subplots()
    axis.imshow(segm.data, cmap=segm.cmap, origin='lower')
    patches = segm.plot_patches(ax=axis, edgecolor='white')
    assert len(patches) >= segm.n_labels
    canvas.draw()
    assert np.asarray(canvas.buffer_rgba()).std() > 0


# ------------------------------------------------------------------- SEP

@pytest.fixture
def sep():
    return pytest.importorskip('sep')


def test_sep_extract(sep, data, segm, result):
    objects, labels = sep.extract(data, 1.5, err=1.0,
                                  segmentation_map=segm.data)
    assert len(objects) == segm.n_labels
    assert_array_equal(labels, segm.data)
    assert_array_equal(objects['npix'], segm.areas)


def test_sep_photometry(sep, data, segm, result):
    table = result.table
    good = table['flags'] == 0
    x, y = (np.asarray(table[name])[good] for name in ('x_centroid',
                                                       'y_centroid'))
    seg_id = segm.labels[good].astype(np.int32)
    flux, _, flag = sep.sum_circle(data, x, y, 4.0, segmap=segm.data,
                                   seg_id=seg_id)
    assert np.isfinite(flux).all()
    catalog = SourceCatalog(data, segm)
    a, b = (np.maximum(axis.value[good], 0.7) for axis in (
        catalog.semimajor_axis, catalog.semiminor_axis))
    theta = catalog.orientation.to_value('rad')[good]
    kron, _ = sep.kron_radius(data, x, y, a, b, theta, 6.0,
                              segmap=segm.data, seg_id=seg_id)
    assert kron.shape == x.shape


def test_sep_background(sep, image, segm, result):
    # masked by what was found, the background is the sky
    back = sep.Background(image.cube[1], mask=segm.data > 0, bw=32, bh=32)
    ours = np.median(result.background[1])
    assert abs(back.globalback - ours) < 2 * back.globalrms


# ------------------------------------------- what never has to be there

def test_without_timm_and_torchvision():
    code = """
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in ('timm', 'torchvision', 'galsim'):
            raise RuntimeError(f'{name} must not be imported')

sys.meta_path.insert(0, Block())
from astrodino_seg import DinoSegmenter
from astrodino_seg.datasets import demo_image
segm = DinoSegmenter()(demo_image())
assert segm.n_labels > 20
assert not {'timm', 'torchvision', 'matplotlib.pyplot'} & set(sys.modules)
"""
    subprocess.run([sys.executable, '-W', 'error', '-W',
                    'ignore::RuntimeWarning', '-c', code], check=True)
