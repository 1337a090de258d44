# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for mosaics: blocks, seams, files, going on, and a cluster.

The field is round sources at known places, some of them on the seams.
"""

import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import NDData, StdDevUncertainty
from astropy.table import QTable
from helpers import make_wcs
from numpy.testing import assert_allclose, assert_array_equal
from photutils.utils.exceptions import NoDetectionsWarning

import astrodino_seg
from astrodino_seg import DinoSegmenter, as_image
from astrodino_seg.catalog import FLAGS
from astrodino_seg.image import cut_out, grid_of, read_label_map
from astrodino_seg.mosaic import segment_mosaic

SAMPLE = Path(astrodino_seg.__file__).parent / 'data' / 'demo_griz.fits.fz'
SHAPE = 192, 384        # three blocks with cores of 128 pixels
SMALL = {'block': 256, 'margin': 64, 'error': 1.0, 'background': 'none'}
PLACES = [(x, y) for y in (24, 62, 100, 141, 168)
          for x in (2, 40, 90, 127.5, 168, 210, 255.5, 300, 340, 381)]
WINDOW = slice(30, 90), slice(100, 223)


@pytest.fixture(scope='module')
def field():
    """(y, x) float32: unit noise, and sources of peak 30."""
    yy, xx = np.mgrid[:SHAPE[0], :SHAPE[1]]
    out = np.random.default_rng(0).normal(size=SHAPE)
    for k, (x, y) in enumerate(PLACES):
        r2 = (xx - x)**2 + (yy - y)**2
        out += 30 * np.exp(-r2 / 2 / (2 + k % 3)**2)
    return out.astype(np.float32)


@pytest.fixture(scope='module')
def wcs():
    return make_wcs(0.25, SHAPE)


@pytest.fixture(scope='module')
def done(field, wcs, tmp_path_factory):
    """Labels and table of the field, by blocks."""
    return products(segment_mosaic(
        field, tmp_path_factory.mktemp('mosaic') / 'a', wcs=wcs, **SMALL))


def products(result):
    labels = read_label_map(result.labels)
    table = QTable.read(result.catalog)
    assert result.n_labels == len(table)
    if len(table):
        assert result.n_cut == (table['flags'] & FLAGS['cut'] > 0).sum()
    return labels, table


def test_each_source_is_one_label(done, field):
    """On seams, too; and no label is anything else."""
    labels, table = done
    found = [labels[int(y), int(x)] for x, y in PLACES]
    assert sorted(found) == table['label'].tolist() == [
        *range(1, len(PLACES) + 1)]
    rows = table[np.array(found) - 1]
    inside = rows['flags'] & FLAGS['edge'] == 0
    x, y = np.array(PLACES).T
    assert_allclose(rows['x_centroid'][inside], x[inside], atol=0.5)
    assert_allclose(rows['y_centroid'][inside], y[inside], atol=0.5)
    whole = rows['flags'] & FLAGS['cut'] == 0
    assert whole.all()
    flux = np.bincount(labels.ravel(), field.ravel())[1:]
    assert_allclose(table['flux_band0'], flux, rtol=1e-4)
    assert_array_equal(table['area'].value, np.bincount(labels.ravel())[1:])


def test_flags_and_positions_are_of_the_mosaic(done, wcs):
    labels, table = done
    border = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0],
                                       labels[:, -1]]))
    assert_array_equal(np.flatnonzero(table['flags'] & FLAGS['edge']) + 1,
                       border[border > 0])
    sky = wcs.pixel_to_world(table['x_centroid'], table['y_centroid'])
    assert table['sky_centroid'].separation(sky).arcsec.max() < 1e-6


def test_as_good_as_whole(done, field):
    """Labels are those of the whole image, but for pixels at their rims."""
    labels, _ = done
    whole = DinoSegmenter()(field, error=1.0, background='none').data
    assert whole.max() == labels.max()
    assert ((labels > 0) != (whole > 0)).mean() < 0.01
    pairs = {(a, b) for a, b in zip(labels.ravel(), whole.ravel()) if a and b}
    assert len(pairs) == whole.max()


class Stopping(DinoSegmenter):
    """It is interrupted before some call, and counts them."""

    calls, last = 0, 1

    def segment(self, *args, **kwargs):
        if Stopping.calls == Stopping.last:
            raise KeyboardInterrupt
        Stopping.calls += 1
        return super().segment(*args, **kwargs)


def test_goes_on(done, field, wcs, tmp_path):
    """What was done is not done again, and other data are refused."""
    np.save(tmp_path / 'field.npy', field)

    def run(**changes):
        return segment_mosaic(tmp_path / 'field.npy', tmp_path / 'a',
                              Stopping(), wcs=wcs, **{**SMALL, **changes})

    with pytest.raises(KeyboardInterrupt):
        run()
    assert not (tmp_path / 'a_segm.fits').exists()
    with pytest.raises(ValueError, match='other data or settings'):
        run(error=2.0)
    Stopping.last = None
    labels, table = products(run(catalog_format='fits'))
    assert Stopping.calls == 3
    assert_array_equal(labels, done[0])
    assert_allclose(table['flux_band0'], done[1]['flux_band0'])
    assert sorted(os.listdir(tmp_path)) == ['a_catalog.fits', 'a_segm.fits',
                                            'field.npy']


def test_nothing_there(tmp_path):
    """A block without a valid pixel, and no objects."""
    data = np.random.default_rng(1).normal(size=(192, 320))
    data[:, :260] = np.nan
    with pytest.warns(NoDetectionsWarning):
        result = segment_mosaic(data, tmp_path / 'b', block=192, margin=64,
                                error=1.0, threshold=50)
    labels, table = products(result)
    assert not labels.any()
    assert len(table) == 0


@pytest.mark.parametrize('kind', ['fits', 'npy', 'zarr', 'dask', 'nddata',
                                  'image', 'bands'])
def test_cut_out(kind, tmp_path):
    """A window is what it is in the whole, whatever holds the image."""
    image = as_image(SAMPLE)
    data = {'fits': SAMPLE, 'image': image,
            'bands': dict(zip(image.bands, image.cube)),
            'nddata': NDData(image.cube, uncertainty=StdDevUncertainty(
                np.full(image.cube.shape, 2.0)), wcs=image.wcs)}.get(kind)
    if kind == 'npy':
        data = tmp_path / 'a.npy'
        np.save(data, image.cube)
    elif kind == 'zarr':
        zarr = pytest.importorskip('zarr')
        data = tmp_path / 'a.zarr'
        zarr.save_array(data, image.cube)
    elif kind == 'dask':
        data = pytest.importorskip('dask.array').from_array(image.cube)
    part = as_image(cut_out(data, WINDOW))
    assert_array_equal(part.cube, image.cube[:, *WINDOW])
    assert grid_of(data).shape == image.shape
    if kind in ('fits', 'nddata', 'image'):
        assert part.sky(10, 20).separation(image.sky(110, 50)).arcsec < 1e-6
        assert grid_of(data).sky(3, 4).separation(
            image.sky(3, 4)).arcsec < 1e-6
    if kind == 'nddata':
        assert_array_equal(part.noise, np.full(part.cube.shape, 2))


def test_planes_of_a_file_are_cut(tmp_path):
    """Masks and errors beside; a window that is bad throughout is so."""
    rng = np.random.default_rng(2)
    data, error = rng.normal(size=(2, 80, 100)).astype(np.float32)
    bad = np.zeros((80, 100), np.uint8)
    bad[:, 50:] = 1
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(data, name='SCI'),
                  fits.ImageHDU(abs(error), name='ERR'),
                  fits.ImageHDU(bad, name='MASK')]).writeto(
                      tmp_path / 'a.fits')
    whole = as_image(tmp_path / 'a.fits')
    window = slice(10, 40), slice(30, 60)
    part = as_image(cut_out(tmp_path / 'a.fits', window))
    assert_array_equal(part.mask, whole.mask[:, *window])
    good = ~part.mask
    assert_array_equal(part.noise[good], whole.noise[:, *window][good])
    with pytest.raises(ValueError, match='no valid pixels'):
        as_image(cut_out(tmp_path / 'a.fits', (slice(0, 9), slice(60, 90))))


def test_bands_on_several_grids():
    with pytest.raises(ValueError, match='one pixel grid'):
        grid_of({'g': np.ones((9, 9)), 'r': np.ones((8, 9))})


@pytest.mark.filterwarnings('ignore:.*use of fork.*:DeprecationWarning')
def test_cluster(done, field, wcs, tmp_path):
    """A worker is killed: nothing is lost nor twice, and labels are equal."""
    distributed = pytest.importorskip('distributed')
    dask = pytest.importorskip('dask')
    array = pytest.importorskip('dask.array').from_array(field, 128)
    parts = tmp_path / 'a_parts'
    # forked, they need not import again
    how = {'distributed.worker.multiprocessing-method': 'fork'}
    with dask.config.set(how), distributed.LocalCluster(
            2, threads_per_worker=1, dashboard_address=None) as cluster, \
            distributed.Client(cluster) as client:
        pids = client.run(os.getpid)

        def kill():
            while not list(parts.glob('0*.npz')):
                time.sleep(0.01)
            os.kill(next(iter(pids.values())), signal.SIGKILL)

        thread = threading.Thread(target=kill, daemon=True)
        thread.start()
        labels, table = products(segment_mosaic(
            array, tmp_path / 'a', wcs=wcs, scheduler=client, **SMALL))
        thread.join()
    assert_array_equal(labels, done[0])
    assert_allclose(table['flux_band0'], done[1]['flux_band0'])
