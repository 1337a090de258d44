# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the datasets package: Galaxy10 in its three layouts.
"""

import pickle
from io import BytesIO

import numpy as np
import pytest
from helpers import check_promises
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image as Picture

from astrodino_seg.datasets import Galaxy10
from astrodino_seg.datasets.pictures import GALAXY10_CLASSES

h5py = pytest.importorskip('h5py')
pa = pytest.importorskip('pyarrow')
pq = pytest.importorskip('pyarrow.parquet')

N = 7
RNG = np.random.default_rng(4)
PIXELS = RNG.integers(0, 256, (N, 16, 16, 3), dtype=np.uint8)
COLUMNS = {'ans': np.array([3, 0, 9, 5, 1, 8, 2], np.uint8),
           'ra': RNG.uniform(0, 360, N), 'dec': RNG.uniform(-20, 80, N),
           'redshift': np.array([0.1, np.nan, 0.02, 0.05, 0.07, 0.2, 0.03]),
           'pxscale': np.full(N, 0.262)}


def write_hdf5(path, rows=slice(None), **extra):
    """The layout of ``Galaxy10_DECals.h5``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, 'w') as file:
        file['images'] = PIXELS[rows]
        for name, values in (COLUMNS | extra).items():
            if values is not None:
                file[name] = values[rows]
    return path


def write_gz10(folder):
    """The HDF5 layout of the Multimodal Universe: a file a HEALPix cell."""
    for cell, rows in ((1042, [4, 0]), (17, [1, 2, 3, 5, 6])):
        rows = sorted(rows)
        write_hdf5(folder / f'healpix={cell}' / '001-of-001.h5', rows,
                   object_id=np.arange(N), healpix=np.full(N, cell))
    return folder, [0, 4, 1, 2, 3, 5, 6]


def encode(pixels, kind='PNG'):
    stream = BytesIO()
    Picture.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def write_parquet(path, rows=slice(None), **extra):
    """The layout of the same on the Hugging Face hub."""
    columns = {
        'gz10_label': COLUMNS['ans'].astype(np.int32)[rows],
        'redshift': COLUMNS['redshift'].astype(np.float32)[rows],
        'object_id': [str(k) for k in np.arange(N)[rows]],
        'rgb_image': [{'bytes': encode(one), 'path': None}
                      for one in PIXELS[rows]],
        'rgb_pixel_scale': COLUMNS['pxscale'].astype(np.float32)[rows]}
    pq.write_table(pa.table(columns | extra), path, row_group_size=3)
    return path


def check(galaxies, order):
    """All pixels, labels and numbers, in some order of the rows."""
    assert len(galaxies) == len(order)
    assert_array_equal(galaxies.labels, COLUMNS['ans'][order])
    assert galaxies.labels.dtype == np.int64
    table = galaxies.table
    assert table['class'].tolist() == [
        GALAXY10_CLASSES[label] for label in COLUMNS['ans'][order]]
    assert_allclose(table['redshift'], COLUMNS['redshift'][order], rtol=1e-6)
    assert_allclose(table['pixel_scale'], 0.262, rtol=1e-6)
    for i in (*range(len(order)), 0, -1):
        assert_array_equal(galaxies.rgb(i), PIXELS[order[i]])
        image = galaxies[i]
        check_promises(image)
        assert image.bands == ('g', 'r', 'z')
        assert_array_equal(image.cube, np.moveaxis(
            PIXELS[order[i]][..., ::-1], -1, 0))


def test_hdf5(tmp_path):
    path = write_hdf5(tmp_path / 'Galaxy10_DECals.h5')
    galaxies = Galaxy10(path)
    check(galaxies, np.arange(N))
    assert_array_equal(galaxies.table['ra'], COLUMNS['ra'])
    assert_array_equal(galaxies.table['dec'], COLUMNS['dec'])
    assert 'object_id' not in galaxies.table.colnames
    assert repr(galaxies) == '<Galaxy10: 7 images>'
    with pytest.raises(IndexError):
        galaxies[N]
    check(pickle.loads(pickle.dumps(galaxies)), np.arange(N))


def test_gz10_hdf5(tmp_path):
    folder, order = write_gz10(tmp_path / 'datafiles')
    galaxies = Galaxy10(folder)
    check(galaxies, order)
    assert galaxies.table['object_id'].tolist() == [str(k) for k in order]
    assert_array_equal(galaxies.table['ra'], COLUMNS['ra'][order])


def test_gz10_parquet(tmp_path):
    path = write_parquet(tmp_path / 'train-00000-of-00001.parquet')
    galaxies = Galaxy10(path)
    check(galaxies, np.arange(N))
    assert 'ra' not in galaxies.table.colnames
    assert galaxies.table['object_id'].tolist() == list('0123456')
    # any order, over the row groups
    order = RNG.permutation(N)
    check(galaxies[order], order)
    check(pickle.loads(pickle.dumps(galaxies)), np.arange(N))


def test_gz10_parquet_with_positions(tmp_path):
    for k, rows in enumerate((slice(0, 4), slice(4, N))):
        write_parquet(tmp_path / f'train-0000{k}-of-00002.parquet', rows,
                      ra=COLUMNS['ra'].astype(np.float32)[rows],
                      dec=COLUMNS['dec'].astype(np.float32)[rows])
    galaxies = Galaxy10(tmp_path)
    check(galaxies, np.arange(N))
    assert_allclose(galaxies.table['dec'], COLUMNS['dec'], rtol=1e-6)


def test_jpeg(tmp_path):
    smooth = np.full((16, 16, 3), (200, 120, 40), np.uint8)
    path = write_parquet(tmp_path / 'one.parquet', slice(0, 1), rgb_image=[
        {'bytes': encode(smooth, 'JPEG'), 'path': None}])
    assert_allclose(Galaxy10(path).rgb(0).astype(int), smooth, atol=3)


def test_parts(tmp_path):
    galaxies = Galaxy10(write_hdf5(tmp_path / 'all.h5'))
    check(galaxies[2:5], [2, 3, 4])
    check(galaxies[galaxies.labels > 4], [2, 3, 5])
    check(galaxies[[6, 1]][::-1], [1, 6])


def test_the_ten_classes():
    # as Leung & Bovy number them
    assert len(GALAXY10_CLASSES) == 10
    assert GALAXY10_CLASSES[4] == 'cigar shaped smooth'
    assert GALAXY10_CLASSES[9] == 'edge-on with bulge'


# ------------------------------------------------------------- bad files
@pytest.mark.parametrize('kind', ['h5', 'parquet'])
def test_label_outside_the_classes(tmp_path, kind):
    labels = np.array([3, 0, 10, 5, 1, 255, 2])
    path = tmp_path / f'bad.{kind}'
    if kind == 'h5':
        write_hdf5(path, ans=labels)
    else:
        write_parquet(path, gz10_label=labels)
    with pytest.raises(ValueError, match=rf"bad\.{kind}' has 2 labels that "
                                         r'are none of .*10.*in row 2$'):
        Galaxy10(path)


@pytest.mark.parametrize('keep', [0.0, 0.02, 0.5, 0.999])
@pytest.mark.parametrize('kind', ['h5', 'parquet'])
def test_truncated(tmp_path, kind, keep):
    path = tmp_path / f'short.{kind}'
    write_hdf5(path) if kind == 'h5' else write_parquet(path)
    content = path.read_bytes()
    path.write_bytes(content[:int(keep * len(content))])
    with pytest.raises(ValueError, match=rf"short\.{kind}' cannot be read: "):
        Galaxy10(path)


def test_damaged_image(tmp_path):
    path = write_parquet(tmp_path / 'bad.parquet', slice(0, 3), rgb_image=[
        {'bytes': encode(PIXELS[0]), 'path': None},
        {'bytes': encode(PIXELS[1])[:200], 'path': None},
        {'bytes': None, 'path': 'elsewhere.png'}])
    galaxies = Galaxy10(path)
    assert_array_equal(galaxies.rgb(0), PIXELS[0])
    for i in (1, 2):
        with pytest.raises(ValueError, match=r"bad\.parquet' cannot be read"):
            galaxies[i]


def test_other_layouts(tmp_path):
    write_hdf5(tmp_path / 'no_labels.h5', ans=None)
    with pytest.raises(ValueError, match='has no ans or gz10_label; it has'):
        Galaxy10(tmp_path / 'no_labels.h5')
    with h5py.File(tmp_path / 'no_images.h5', 'w') as file:
        file['ans'] = COLUMNS['ans']
    with pytest.raises(ValueError, match='has no images or rgb_image'):
        Galaxy10(tmp_path / 'no_images.h5')
    with h5py.File(tmp_path / 'float.h5', 'w') as file:
        file['images'] = PIXELS / 255
    with pytest.raises(ValueError, match='must be uint8 .* got float64'):
        Galaxy10(tmp_path / 'float.h5')
    write_hdf5(tmp_path / 'uneven.h5')
    with h5py.File(tmp_path / 'uneven.h5', 'a') as file:
        del file['ra']
        file['ra'] = COLUMNS['ra'][:3]
    with pytest.raises(ValueError, match='differ in length'):
        Galaxy10(tmp_path / 'uneven.h5')
    write_hdf5(tmp_path / 'none.h5', slice(0, 0))
    with pytest.raises(ValueError, match='has no images$'):
        Galaxy10(tmp_path / 'none.h5')
    pq.write_table(pa.table({'x': [1]}), tmp_path / 'other.parquet')
    with pytest.raises(ValueError, match='has no images or rgb_image'):
        Galaxy10(tmp_path / 'other.parquet')
    labels = pa.array([1, None, 2, 3, 4, 5, 6])
    write_parquet(tmp_path / 'null.parquet', gz10_label=labels)
    with pytest.raises(ValueError, match="1 values of 'gz10_label' are miss"):
        Galaxy10(tmp_path / 'null.parquet')


def test_no_files(tmp_path):
    with pytest.raises(FileNotFoundError, match='no such file or folder'):
        Galaxy10(tmp_path / 'nowhere.h5')
    with pytest.raises(FileNotFoundError, match='no file .h5, .hdf5, .parq'):
        Galaxy10(tmp_path)
    (tmp_path / 'list.csv').write_text('x\n1\n')
    with pytest.raises(ValueError, match='is none of .h5, .hdf5, .parquet'):
        Galaxy10(tmp_path / 'list.csv')
