# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for ``astrodino compare`` and ``astrodino benchmark``.
"""

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import QTable, Table
from astropy.wcs import WCS
from numpy.testing import assert_array_equal
from PIL import Image as Picture

from astrodino_seg.cli import main
from astrodino_seg.cli.compare import choose_finders
from astrodino_seg.evaluate.baselines import PhotutilsFinder
from astrodino_seg.image import as_image, read_label_map

pytest.importorskip('matplotlib')
SHAPE = (120, 150)


def make_scene(tmp_path, *places):
    """Two bands with blobs, their file and that of their labels."""
    rng = np.random.default_rng(5)
    y, x = np.mgrid[:SHAPE[0], :SHAPE[1]]
    light = np.zeros(SHAPE)
    truth = np.zeros(SHAPE, np.int32)
    for k, (x0, y0) in enumerate(places, start=1):
        blob = 60 * np.exp(-((x - x0)**2 + (y - y0)**2) / (2 * 5**2))
        light += blob
        truth[blob > 1] = k
    cube = light + rng.normal(size=(2, *SHAPE))
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = 'RA---TAN', 'DEC--TAN'
    wcs.wcs.crval, wcs.wcs.crpix = (150, 2), (75, 60)
    wcs.wcs.cdelt = -1e-4, 1e-4
    path, labels = tmp_path / 'cube.fits', tmp_path / 'truth.fits'
    fits.writeto(path, cube.astype(np.float32), wcs.to_header())
    fits.writeto(labels, truth, wcs.to_header())
    return path, labels


@pytest.fixture
def scene(tmp_path):
    return make_scene(tmp_path, (40, 50), (100, 70))


def test_compare(scene, tmp_path, capsys):
    path, truth = scene
    status = main(['compare', str(path), '--finders', 'photutils,detect',
                   '--bands', 'gr', '--truth', str(truth),
                   '-o', str(tmp_path / 'field')])
    assert status == 0
    names = {p.name for p in tmp_path.glob('field*')}
    assert names == {'field_compare.png', 'field_compare.ecsv',
                     'field_compare.html', 'field_matched.ecsv',
                     'field_photutils_segm.fits', 'field_detect_segm.fits'}
    labels = read_label_map(tmp_path / 'field_photutils_segm.fits')
    image = as_image(path, bands='gr')
    assert_array_equal(labels, PhotutilsFinder()(image).data)
    header = fits.getheader(tmp_path / 'field_photutils_segm.fits')
    assert header['CRVAL1'] == 150
    told = ' '.join(header['HISTORY'])
    assert f'{path.name} sha256 ' in told
    assert 'finder=PhotutilsFinder' in told
    assert 'weights' not in told
    table = QTable.read(tmp_path / 'field_compare.ecsv')
    assert table['finder'].tolist() == ['photutils', 'detect']
    assert table['n_labels'].tolist() == [labels.max()] * 2
    assert table['f1'].tolist() == [1, 1]
    matched = QTable.read(tmp_path / 'field_matched.ecsv')
    assert matched['detect_label'].tolist() == [1, 2]
    page = (tmp_path / 'field_compare.html').read_text()
    assert '"name": "truth"' in page
    with Picture.open(tmp_path / 'field_compare.png') as picture:
        assert min(picture.size) > 300
    assert 'photutils' in capsys.readouterr().out


def test_truth_of_sparse_ids(scene, tmp_path):
    """As those of a survey, up to 2**32."""
    path, truth = scene
    labels = fits.getdata(truth).astype(np.int64)
    fits.writeto(tmp_path / 'sparse.fits', labels * (2**31 - 9))
    assert main(['compare', str(path), '--finders', 'detect', '--bands', 'gr',
                 '--truth', str(tmp_path / 'sparse.fits'), '--closeups', '0',
                 '-o', str(tmp_path / 'sparse')]) == 0
    assert QTable.read(tmp_path / 'sparse_compare.ecsv')['f1'].tolist() == [1]


def test_compare_draws_what_differs(tmp_path):
    path, _ = make_scene(tmp_path, (60, 60), (78, 60))     # they touch
    assert main(['compare', str(path), '--finders', 'detect,photutils',
                 '-o', str(tmp_path / 'field')]) == 0
    table = QTable.read(tmp_path / 'field_compare.ecsv')
    assert table['n_labels'].tolist() == [1, 2]
    assert table['n_split'].tolist() == [0, 1]
    with Picture.open(tmp_path / 'field_closeups.png') as picture:
        width, height = picture.size
    assert width > 2 * height                  # one row of three panels


def test_options_of_finders(tmp_path):
    """What follows a name is for it alone, over what is for all."""
    path, _ = make_scene(tmp_path, (60, 60), (78, 60))     # they touch
    assert main(['compare', str(path), '--n-sigma', '5', '--finders',
                 'photutils,photutils:contrast=1:n_sigma=3,detect',
                 '-o', str(tmp_path / 'field')]) == 0
    table = QTable.read(tmp_path / 'field_compare.ecsv')
    assert table['finder'].tolist() == [
        'photutils', 'photutils_contrast_1_n_sigma_3', 'detect']
    assert table['n_labels'].tolist() == [2, 1, 1]
    areas = [(read_label_map(tmp_path / f'field_{name}_segm.fits') > 0).sum()
             for name in table['finder']]
    assert areas[1] > areas[0] == areas[2]
    header = fits.getheader(
        tmp_path / 'field_photutils_contrast_1_n_sigma_3_segm.fits')
    assert 'n_sigma=3' in ' '.join(header['HISTORY'])


def test_compare_lists(capsys):
    assert main(['compare', '--list']) == 0
    lines = capsys.readouterr().out.splitlines()
    names = [line.split(':')[0] for line in lines]
    assert names[0] == 'dino'
    assert {'photutils', 'detect', 'mtobjects'} <= set(names)


def test_compare_keeps_what_exists(scene, tmp_path, capsys):
    path, _ = scene
    old = tmp_path / 'field_compare.png'
    old.write_text('old')
    args = ['compare', str(path), '--finders', 'detect', '-o',
            str(tmp_path / 'field')]
    assert main(args) == 1
    assert 'field_compare.png exists' in capsys.readouterr().err
    assert old.read_text() == 'old'
    assert main([*args, '--overwrite']) == 0
    assert old.read_bytes().startswith(b'\x89PNG')


@pytest.mark.parametrize(('args', 'message'), [
    (['compare'], 'no image was named'),
    (['compare', 'CUBE', '--finders', 'magic'],
     "no finder 'magic': known are dino"),
    (['compare', 'CUBE', '--finders', 'detect:depth=3'],
     "detect has no option 'depth=3'; it has n_sigma"),
    (['compare', 'CUBE', '--finders', 'detect:n_sigma=high'],
     "must be a positive number, got 'high'"),
    (['compare', 'CUBE', '--finders', 'dino', '--merge', '2'],
     'merge must be a number in [0, 1]'),
    (['compare', 'CUBE', '--finders', 'detect', '--truth', 'missing.fits'],
     'missing.fits'),
    (['benchmark', '--finders', 'magic'], "no finder 'magic'"),
    (['benchmark', '--finders', 'detect', '--scenes', '0'], 'n_scenes'),
])
def test_mistakes(scene, tmp_path, monkeypatch, capsys, args, message):
    monkeypatch.chdir(tmp_path)
    args = [str(scene[0]) if one == 'CUBE' else one for one in args]
    before = set(tmp_path.glob('*.*'))
    assert main(args) == 1
    err = capsys.readouterr().err
    assert message in err
    assert err.count('\n') == 1
    assert set(tmp_path.glob('*.*')) == before


def test_choose_finders_keeps_order():
    assert list(choose_finders('detect, dino')) == ['detect', 'dino']
    assert next(iter(choose_finders(None))) == 'dino'


def test_benchmark(tmp_path, monkeypatch, capsys):
    pytest.importorskip('galsim')
    from astrodino_seg.evaluate import benchmark

    small = benchmark.run_benchmark
    monkeypatch.setattr(benchmark, 'run_benchmark', lambda *args, **kwargs:
                        small(*args, **{**kwargs, 'size': 128}))
    folder = tmp_path / 'out'
    args = ['benchmark', '--finders', 'photutils', '--scenes', '2', '-q',
            '-o', str(folder)]
    assert main(args) == 0
    assert {p.name for p in folder.iterdir()} == {
        'records.jsonl', 'scores.csv', 'bins.csv', 'curve.csv', 'scores.rst',
        'benchmark.png'}
    scores = Table.read(folder / 'scores.csv')
    assert scores['n_scenes'].tolist() == [2]
    assert 0 <= scores['pq'][0] <= 1
    assert 'photutils' in capsys.readouterr().out
    before = (folder / 'records.jsonl').read_text()
    assert main(args) == 0                      # nothing to do again
    assert (folder / 'records.jsonl').read_text() == before
