# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the datasets package: layouts of the Multimodal Universe.
"""

import warnings

import astropy.units as u
import numpy as np
import pytest
from helpers import check_promises
from numpy.testing import assert_allclose, assert_array_equal

from astrodino_seg.datasets import MultimodalImages
from astrodino_seg.datasets.multimodal import record_image, record_metadata
from astrodino_seg.errors import SkippedWarning

h5py = pytest.importorskip('h5py')
N, SIZE = 3, 8
SURVEYS = {'legacysurvey': ['des-g', 'des-r', 'des-i', 'des-z'],
           'hsc': ['hsc-g', 'hsc-r', 'hsc-i', 'hsc-z', 'hsc-y'],
           'jwst': ['f090w', 'f115w', 'f150w', 'f200w', 'f277w', 'f356w',
                    'f444w']}


def make_columns(survey):
    """The columns of an HDF5 file, as the scripts of the dataset write it."""
    rng = np.random.default_rng(7)
    bands = SURVEYS[survey]
    shape = (N, len(bands), SIZE, SIZE)
    flux = rng.normal(size=shape).astype(np.float32)
    ivar = rng.uniform(1, 9, shape).astype(np.float32)
    good = np.ones(shape, bool)     # what they call mask
    good[:, :, 0, :2] = False
    ivar[:, 1, 3, 3] = 0
    if survey == 'legacysurvey':    # one mask for all bands
        good = good[:, 0]
    if survey == 'hsc':             # numpy.nan_to_num of 1 / 0
        ivar[:, 0, 5, 5] = np.nan_to_num(np.float32(np.inf))
    if survey == 'jwst':
        flux[:, 2, 6, 6] = np.nan
    name = 'image_flux' if survey == 'jwst' else 'image_array'
    return {'object_id': np.array([f'0001p00{k}-{k}' for k in range(N)], 'S'),
            'ra': rng.uniform(0, 360, N), 'EBV': rng.uniform(0, 1, N),
            'TYPE': np.array(['SER', 'DEV', 'REX'], 'S'),
            'image_band': np.array([bands] * N, 'S'),
            name: flux, 'image_ivar': ivar, 'image_mask': good,
            'image_psf_fwhm': rng.uniform(1, 2, shape[:2]),
            'image_scale': np.full(shape[:2], 0.262, np.float32),
            'catalog_FLUX_G': rng.normal(size=(N, 20))}


def expected(columns, i):
    """The mask of a row by hand."""
    flux = columns.get('image_flux', columns.get('image_array'))[i]
    ivar, good = columns['image_ivar'][i], columns['image_mask'][i]
    mask = ~(np.broadcast_to(good, flux.shape) & (ivar > 0) & (ivar < 1e30)
             & np.isfinite(flux))
    return flux, ivar, mask


def check(image, columns, i, survey):
    check_promises(image)
    flux, ivar, mask = expected(columns, i)
    assert_array_equal(image.mask, mask)
    assert_array_equal(image.cube, np.where(mask, 0, flux))
    assert_allclose(image.noise[~mask], ivar[~mask]**-0.5, rtol=1e-6)
    assert image.bands == tuple(SURVEYS[survey])
    assert image.unit == (u.Unit('nmgy') if survey == 'legacysurvey' else None)
    assert image.wcs is None


def check_metadata(metadata, columns, i, survey):
    assert metadata['object_id'] == f'0001p00{i}-{i}'
    assert_allclose(metadata['EBV'], columns['EBV'][i], rtol=1e-6)
    assert type(metadata['EBV']) is float
    assert list(metadata['psf_fwhm']) == SURVEYS[survey]
    assert_allclose(list(metadata['psf_fwhm'].values()),
                    columns['image_psf_fwhm'][i], rtol=1e-6)
    assert_allclose(list(metadata['scale'].values()), 0.262, rtol=1e-6)
    assert 'image' not in metadata
    assert 'catalog_FLUX_G' not in metadata


# -------------------------------------------------------------------- HDF5
@pytest.mark.parametrize('survey', SURVEYS)
def test_hdf5(tmp_path, survey):
    columns = make_columns(survey)
    for k, rows in ((1042, slice(0, 1)), (1043, slice(1, N))):
        folder = tmp_path / f'healpix={k}'
        folder.mkdir()
        with h5py.File(folder / '001-of-001.hdf5', 'w') as file:
            for name, values in columns.items():
                file[name] = values[rows]
    images = MultimodalImages(tmp_path)
    pairs = list(images.records())
    assert len(pairs) == N
    for i, (image, metadata) in enumerate(pairs):
        check(image, columns, i, survey)
        check_metadata(metadata, columns, i, survey)
        assert metadata['TYPE'] == ['SER', 'DEV', 'REX'][i]
        assert metadata['ra'] == columns['ra'][i]
    # again, and from the start
    assert_array_equal(next(iter(images)).cube, pairs[0][0].cube)


def test_bad_hdf5(tmp_path):
    path = tmp_path / 'one.hdf5'
    with h5py.File(path, 'w') as file:
        for name, values in make_columns('hsc').items():
            file[name] = values
    content = path.read_bytes()
    path.write_bytes(content[:-100])
    with pytest.raises(ValueError, match=r"one\.hdf5' cannot be read: "):
        list(MultimodalImages(tmp_path))
    with h5py.File(path, 'w') as file:
        file['image_band'] = [1]
    with pytest.raises(ValueError, match=r"has no \['image_array', "):
        list(MultimodalImages(path))


# --------------------------------------------------- the datasets library
def make_dataset(datasets, survey, columns):
    """The features of the scripts of the dataset, and what they yield."""
    plane = datasets.Array2D(shape=(SIZE, SIZE), dtype='float32')
    logical = datasets.Array2D(shape=(SIZE, SIZE), dtype='bool')
    number, text = datasets.Value('float32'), datasets.Value('string')
    features = datasets.Features({
        'image': datasets.Sequence(feature={
            'band': text, 'flux': plane, 'mask': logical, 'ivar': plane,
            'psf_fwhm': number, 'scale': number}),
        'EBV': number, 'object_id': text})
    rows = []
    for i in range(N):
        flux, ivar, _ = expected(columns, i)
        good = np.broadcast_to(columns['image_mask'][i], flux.shape)
        rows.append({
            'image': {'band': SURVEYS[survey], 'flux': list(flux),
                      'mask': list(good), 'ivar': list(ivar),
                      'psf_fwhm': columns['image_psf_fwhm'][i],
                      'scale': columns['image_scale'][i]},
            'EBV': columns['EBV'][i],
            # the scripts call str of bytes
            'object_id': str(columns['object_id'][i].item())})
    table = {key: [row[key] for row in rows] for key in features}
    return datasets.Dataset.from_dict(table, features=features)


@pytest.fixture
def datasets(monkeypatch, tmp_path):
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    datasets = pytest.importorskip('datasets')
    shown = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    monkeypatch.setattr(datasets.config, 'HF_DATASETS_CACHE',
                        tmp_path / 'cache')
    yield datasets
    if not shown:
        datasets.enable_progress_bars()


@pytest.mark.parametrize('survey', SURVEYS)
def test_datasets_library(tmp_path, datasets, survey):
    columns = make_columns(survey)
    dataset = make_dataset(datasets, survey, columns)
    assert dataset[0]['object_id'] == "b'0001p000-0'"
    dataset.save_to_disk(tmp_path / 'saved')
    (tmp_path / 'parquet').mkdir()
    dataset.to_parquet(tmp_path / 'parquet' / 'train-00000-of-00001.parquet')
    for images in (MultimodalImages(dataset),           # lists
                   MultimodalImages(dataset.with_format('numpy')),
                   MultimodalImages(dataset.to_iterable_dataset()),
                   MultimodalImages(tmp_path / 'saved'),
                   MultimodalImages(tmp_path / 'parquet'),
                   MultimodalImages(str(tmp_path / 'parquet'),
                                    streaming=False)):
        pairs = list(images.records())
        assert len(pairs) == N
        for i, (image, metadata) in enumerate(pairs):
            check(image, columns, i, survey)
            check_metadata(metadata, columns, i, survey)


def test_hub(datasets, monkeypatch):
    asked = []

    def load_dataset(path, **options):
        asked.append((path, options))
        return datasets.Dataset.from_dict({'rgb_image': [
            np.zeros((4, 4, 3), np.uint8)]}, features=datasets.Features(
                {'rgb_image': datasets.Image()}))

    monkeypatch.setattr(datasets, 'load_dataset', load_dataset)
    images = MultimodalImages('MultimodalUniverse/gz10', split='test',
                              name='gz10_rgb_images')
    assert next(iter(images)).bands == ('g', 'r', 'z')
    assert asked == [('MultimodalUniverse/gz10', {
        'split': 'test', 'streaming': True, 'name': 'gz10_rgb_images'})]


def test_no_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder '/"):
        list(MultimodalImages(tmp_path / 'nowhere'))
    with pytest.raises(FileNotFoundError, match='no file .h5, .hdf5, .parq'):
        list(MultimodalImages(tmp_path))


# ----------------------------------------------------------------- records
def test_list_of_bands():
    # as earlier versions of the library give it
    flux = np.arange(2 * 9, dtype=np.float32).reshape(2, 3, 3)
    record = {'image': [{'band': 'hsc-z', 'flux': flux[0]},
                        {'band': 'hsc-g', 'flux': flux[1]}]}
    image = record_image(record)
    assert image.bands == ('hsc-g', 'hsc-z')
    assert image.noise is None
    assert_array_equal(image.cube, flux[::-1])
    assert record_metadata(record) == {}


def test_colours():
    rgb = np.random.default_rng(1).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    record = {'rgb_image': rgb, 'gz10_label': np.int32(4),
              'object_id': np.str_('12'), 'redshift': np.float32(0.25)}
    image = record_image(record)
    assert image.bands == ('g', 'r', 'z')
    assert_array_equal(image.cube, np.moveaxis(rgb[..., ::-1], -1, 0))
    assert record_metadata(record) == {'gz10_label': 4, 'object_id': '12',
                                       'redshift': 0.25}


@pytest.mark.parametrize(('record', 'match'), [
    ({'spectrum': 1}, r"neither image nor rgb_image; it has \['spectrum'\]"),
    ({'image': {'band': ['g'], 'array': 1}}, r"image has no \['flux'\]"),
    ({'rgb_image': np.zeros((4, 4), np.uint8)}, r'must be uint8 of shape'),
    ({'rgb_image': np.zeros((4, 4, 3))}, r'must be uint8 of shape'),
    ({'image': {'band': ['g'], 'flux': np.ones((1, 3, 3)),
                'mask': np.zeros((1, 3, 3), bool)}}, 'no valid pixels')])
def test_bad_records(record, match):
    with pytest.raises(ValueError, match=match):
        record_image(record)


def test_bad_records_are_counted():
    good = {'rgb_image': np.full((4, 4, 3), 9, np.uint8)}
    source = [good, {}, good, {'rgb_image': np.zeros((4, 4), np.uint8)}]
    with pytest.warns(SkippedWarning, match='records left out: 2,') as caught:
        assert len(list(MultimodalImages(source))) == 2
    assert [i for i, _ in caught[0].message.skipped] == [1, 3]
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert len(list(MultimodalImages([good, good]))) == 2
