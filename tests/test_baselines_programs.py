# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for baselines that are programs: with small programs in their place that
note what they are given, and with themselves where they are installed.
"""

import json
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from photutils.utils.exceptions import NoDetectionsWarning
from scipy import ndimage

import astrodino_seg
from astrodino_seg.errors import MissingToolError, ProgramError
from astrodino_seg.evaluate.baselines import (
    MTObjectsFinder,
    NoiseChiselFinder,
    SEPFinder,
    SExtractorFinder,
    find_program,
    run_program,
)
from astrodino_seg.evaluate.finders import detection_image
from astrodino_seg.image import as_image

SAMPLE = Path(astrodino_seg.__file__).parent / 'data' / 'demo_griz.fits.fz'

SEXTRACTOR = """
import json, sys
import numpy as np
from astropy.io import fits
from scipy import ndimage
lines = [line.split() for line in open(sys.argv[3])]
settings = {line[0]: line[1] for line in lines}
data = fits.getdata(sys.argv[1])
notes = {'argv': sys.argv[1:], 'settings': settings, 'type': str(data.dtype),
         'sum': float(data.sum()), 'filter': open(
    settings['FILTER_NAME']).read(), 'columns': open(
    settings['PARAMETERS_NAME']).read()}
json.dump(notes, open(NOTES, 'w'))
labels = ndimage.label(data > float(settings['DETECT_THRESH']))[0]
fits.writeto(settings['CHECKIMAGE_NAME'], labels.astype('i4'))
"""
NOISECHISEL = """
import json, sys
import numpy as np
from astropy.io import fits
assert 'labels.fits' not in sys.argv[1]
data = fits.getdata(sys.argv[1])
json.dump({'argv': sys.argv[1:], 'blank': int(np.isnan(data).sum())},
          open(NOTES, 'w'))
fits.writeto('found.fits', (data > 2).astype('u1'))
"""
SEGMENT = """
import json, sys
from astropy.io import fits
from scipy import ndimage
notes = json.load(open(NOTES))
json.dump(notes | {'segment': sys.argv[1:]}, open(NOTES, 'w'))
objects = ndimage.label(fits.getdata(sys.argv[1]))[0].astype('i4')
hdus = [fits.PrimaryHDU(), fits.ImageHDU(objects * 0 + 1, name='CLUMPS'),
        fits.ImageHDU(objects, name='OBJECTS')]
fits.HDUList(hdus).writeto('labels.fits')
"""
MTOBJECTS = """
import json, sys
from types import SimpleNamespace
import numpy as np
from astropy.io import fits
from scipy import ndimage

def setup():
    options = dict(zip(sys.argv[2::2], sys.argv[3::2]))
    json.dump(options, open(NOTES, 'w'))
    data = fits.getdata(sys.argv[1]).astype(np.float)
    return data, SimpleNamespace(out=options['-out'])

def preprocess_image(data, settings):
    return data

def build_max_tree(data, settings):
    return 'tree'

def filter_tree(tree, data, settings):
    labels = ndimage.label(data > 2)[0] - 1
    return 10 * labels + 9 * (labels < 0), None   # -1, 0, 10, 20 ...
"""


@pytest.fixture
def scene():
    """A detection image of four objects, of which one is masked."""
    sn = np.zeros((40, 50))
    sn[5:10, 5:12] = 5
    sn[20:30, 8:20] = 9
    sn[15:20, 30:45] = 3
    mask = np.zeros(sn.shape, bool)
    mask[30:, 40:] = True
    return sn, mask, ndimage.label(sn > 2)[0]


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """A function that puts a program on the path, alone with others such."""
    folder = tmp_path / 'bin'
    folder.mkdir()
    monkeypatch.setenv('PATH', str(folder))

    def make(name, text):
        path = folder / name
        path.write_text(f'#!{sys.executable}\n'
                        f'NOTES = {str(tmp_path / "notes")!r}\n{text}')
        path.chmod(0o755)
        return str(path)

    return make


@pytest.fixture
def notes(tmp_path):
    return lambda: json.loads((tmp_path / 'notes').read_text())


@pytest.fixture(autouse=True)
def nothing_is_left_behind(tmp_path, monkeypatch):
    folder = tmp_path / 'temporary'
    folder.mkdir()
    monkeypatch.setattr(tempfile, 'tempdir', str(folder))
    yield
    assert not list(folder.iterdir())


# -------------------------------------------------------- running programs

def test_find_program(programs):
    path = programs('b', '')
    assert find_program('a', 'b') == path
    with pytest.raises(MissingToolError, match=r'^a \(nor c, d\) is not on '):
        find_program('a', 'c', 'd')


def test_failure(programs, tmp_path):
    path = programs('bad', 'import sys\nprint("out")\n'
                    'print("first\\nlast", file=sys.stderr)\nsys.exit(3)')
    with pytest.raises(ProgramError, match='^bad failed with status 3: last$'):
        run_program([path], tmp_path, 60)
    with pytest.raises(ProgramError, match='^bad .* with status 3: first$'):
        run_program([path], tmp_path, 60, line=0)
    path = programs('mute', 'raise SystemExit(1)')
    with pytest.raises(ProgramError, match='mute failed .* 1: no message$'):
        run_program([path], tmp_path, 60)


def test_timeout(programs, tmp_path):
    path = programs('slow', 'import time\ntime.sleep(60)')
    with pytest.raises(ProgramError, match=r'^slow was not done after 0\.2 s'):
        run_program([path], tmp_path, 0.2)


def test_not_a_program(tmp_path):
    (tmp_path / 'text').write_text('')
    (tmp_path / 'text').chmod(0o755)
    with pytest.raises(ProgramError, match='^text cannot be run'):
        run_program([str(tmp_path / 'text')], tmp_path, 60)


# --------------------------------------------------- with stand-ins for them

@pytest.mark.parametrize('name', ['source-extractor', 'sextractor', 'sex'])
def test_sextractor(programs, notes, scene, name):
    programs(name, SEXTRACTOR)
    sn, mask, expected = scene
    finder = SExtractorFinder(n_sigma=2.5, n_pixels=7, contrast=0.02,
                              n_levels=16, clean=False)
    assert_array_equal(finder.find(sn, mask).data, expected)
    seen = notes()
    assert seen['argv'] == ['sn.fits', '-c', 'detect.sex']
    assert seen['type'] == '>f4'
    assert seen['sum'] == sn.sum()
    assert seen['columns'].split() == ['NUMBER']
    assert seen['filter'].split('\n')[0] == 'CONV NORM'
    assert_array_equal(np.loadtxt(seen['filter'].split('\n')[1:]) * 16,
                       [[1, 2, 1], [2, 4, 2], [1, 2, 1]])
    expected = {
        'DETECT_THRESH': '2.5', 'DETECT_MINAREA': '7', 'CLEAN': 'N',
        'DEBLEND_MINCONT': '0.02', 'DEBLEND_NTHRESH': '16', 'FILTER': 'Y',
        'THRESH_TYPE': 'ABSOLUTE', 'BACK_TYPE': 'MANUAL', 'BACK_VALUE': '0.0',
        'WEIGHT_TYPE': 'NONE', 'CHECKIMAGE_TYPE': 'SEGMENTATION'}
    assert expected.items() <= seen['settings'].items()


def test_sextractor_without_filter(programs, notes, scene):
    programs('source-extractor', SEXTRACTOR)
    SExtractorFinder(fwhm=0).find(*scene[:2])
    assert notes()['settings']['FILTER'] == 'N'


def test_sextractor_fails(programs, scene):
    programs('source-extractor', 'raise ValueError("no good")')
    with pytest.raises(ProgramError, match='status 1: ValueError: no good$'):
        SExtractorFinder().find(*scene[:2])


def test_nothing_is_run_for_nothing(programs):
    programs('source-extractor', 'raise ValueError("it was run")')
    with pytest.warns(NoDetectionsWarning):
        assert SExtractorFinder()(as_image(np.zeros((30, 40)))) is None


def test_noisechisel(programs, notes, scene):
    programs('astnoisechisel', NOISECHISEL)
    programs('astsegment', SEGMENT)
    sn, mask, expected = scene
    finder = NoiseChiselFinder(tile_size=20, qthresh=0.4, dthresh=0.1,
                               snquant=0.98, detgrowquant=0.8,
                               clump_snquant=0.9, gthresh=1.0,
                               objbordersn=2.0)
    assert_array_equal(finder.find(sn, mask).data, expected)
    seen = notes()
    assert seen['blank'] == mask.sum() > 0
    assert seen['argv'][0] == 'sn.fits'
    assert {'--hdu=0', '--tilesize=20,20', '--qthresh=0.4', '--dthresh=0.1',
            '--snquant=0.98', '--detgrowquant=0.8'} <= set(seen['argv'])
    assert seen['segment'][0] == 'found.fits'
    assert {'--snquant=0.9', '--gthresh=1.0',
            '--objbordersn=2.0'} <= set(seen['segment'])
    areas = np.bincount(expected.ravel())[1:]
    assert sorted(areas) == [35, 75, 120]
    assert NoiseChiselFinder(n_pixels=40).find(sn, mask).n_labels == 2


def test_noisechisel_without_segment(programs, scene):
    programs('astnoisechisel', NOISECHISEL)
    with pytest.raises(MissingToolError, match='^astsegment is not on the'):
        NoiseChiselFinder().find(*scene[:2])


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    folder = tmp_path / 'a checkout'
    (folder / 'mtolib' / 'lib').mkdir(parents=True)
    (folder / 'mtolib' / 'lib' / 'mt_objects.so').write_text('')
    (folder / 'mtolib' / '__init__.py').write_text('')
    (folder / 'mtolib' / 'main.py').write_text(
        f'NOTES = {str(tmp_path / "notes")!r}\n{MTOBJECTS}')
    monkeypatch.setenv('ASTRODINO_MTOBJECTS', str(folder))
    return folder


def test_mtobjects(checkout, notes, scene):
    sn, mask, expected = scene
    finder = MTObjectsFinder(move_factor=0.3, min_distance=0.5)
    assert_array_equal(finder.find(sn, mask).data, expected)
    seen = notes()
    assert seen.pop('-out').endswith('.npy')
    assert seen == {'-bg_mean': '0', '-bg_variance': '1',
                    '-move_factor': '0.3', '-min_distance': '0.5'}
    MTObjectsFinder(gain=2.5).find(sn, mask)
    assert notes()['-gain'] == '2.5'


def test_mtobjects_not_compiled(checkout, scene):
    (checkout / 'mtolib' / 'lib' / 'mt_objects.so').unlink()
    with pytest.raises(MissingToolError, match='not compiled'):
        MTObjectsFinder().find(*scene[:2])
    (checkout / 'mtolib' / 'main.py').unlink()
    with pytest.raises(MissingToolError, match='not a checkout of MTObjects'):
        MTObjectsFinder().find(*scene[:2])


# ------------------------------------------------------------ with themselves

@pytest.fixture(scope='module')
def demo():
    return as_image(SAMPLE)


def or_skip(finder):
    try:
        finder.require()
    except MissingToolError as err:
        pytest.skip(str(err))
    return finder


def test_real_sextractor_is_like_sep(demo):
    found = or_skip(SExtractorFinder())(demo)
    sep = SEPFinder()(demo)
    either = (found.data > 0) | (sep.data > 0)
    assert ((found.data > 0) == (sep.data > 0))[either].mean() > 0.98
    assert abs(found.n_labels - sep.n_labels) <= 0.05 * sep.n_labels


@pytest.mark.parametrize('cls', [NoiseChiselFinder, MTObjectsFinder])
def test_real_and_faint(demo, cls):
    # both find what is bright, and more of it than a threshold does
    found = or_skip(cls())(demo)
    sn, _ = detection_image(demo)
    assert (found.data > 0)[sn > 5].mean() > 0.99
    assert (found.data > 0).sum() > (SEPFinder()(demo).data > 0).sum()
    assert 30 < found.n_labels < 200


def test_real_noisechisel_on_noise():
    finder = or_skip(NoiseChiselFinder())
    noise = np.random.default_rng(3).normal(size=(512, 512))
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', NoDetectionsWarning)
        found = finder.find(noise, np.zeros(noise.shape, bool))
    assert found is None or (found.data > 0).mean() < 0.01


def test_real_noisechisel_is_too_small():
    finder = or_skip(NoiseChiselFinder())
    noise = np.random.default_rng(3).normal(size=(40, 40))
    with pytest.raises(ProgramError, match='^astnoisechisel failed'):
        finder.find(noise, np.zeros(noise.shape, bool))
