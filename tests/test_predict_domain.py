# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests of what the segmenter says of images that its model does not cope with.
"""

import copy

import numpy as np
import pytest
from astropy.io import fits
from benchmark_toys import finding_model, script
from level_toys import make_level
from numpy.testing import assert_array_equal
from photutils.utils.exceptions import NoDetectionsWarning

from astrodino_seg import DinoSegmenter, OutOfDomainWarning, as_image
from astrodino_seg.catalog import FLAGS
from astrodino_seg.cli import main
from astrodino_seg.datasets import demo_image
from astrodino_seg.models.decision import read_calibration
from astrodino_seg.mosaic import segment_mosaic
from astrodino_seg.predict.decode import weigh
from astrodino_seg.predict.domain import SIGNS, distances, reason, signs_of

#: Of these any image has too few objects, or enough.
LOST = {'limit': 0.0, 'signs': {'crowd': [9.0, 1.0, 1.0, 0.0]}}
FINE = {'limit': 1e6, 'signs': {}}
WORDS = 'hardly any objects are found'


@pytest.fixture(scope='module')
def image():
    demo = demo_image()
    return as_image(demo.cube[:, 90:218, 260:388], bands=demo.bands)


@pytest.fixture(scope='module')
def finder(image):
    model = finding_model(image)

    def make(domain):
        one = copy.deepcopy(model)
        one.calibration = {'domain': domain}
        return DinoSegmenter(model=one, bfloat16=False)
    return make


@pytest.fixture(scope='module')
def fine(finder, image):
    return finder(FINE).segment(image)


@pytest.fixture(scope='module')
def lost(finder, image):
    with pytest.warns(OutOfDomainWarning, match=WORDS) as caught:
        result = finder(LOST).segment(image)
    assert len(caught) == 1
    return result


def test_no_label_changes(fine, lost):
    assert_array_equal(lost.segmentation_image.data,
                       fine.segmentation_image.data)
    for name in fine.table.colnames:
        if name != 'flags':
            assert_array_equal(lost.table[name], fine.table[name])


def test_labels_alone_are_told_too(finder, fine, image):
    with pytest.warns(OutOfDomainWarning, match=WORDS):
        labels = finder(LOST)(image)
    assert_array_equal(labels.data, fine.segmentation_image.data)


def test_a_script_can_ask(finder, fine, lost, image):
    assert lost.lost == lost.table.meta['lost'] == WORDS
    assert_array_equal(lost.table['flags'] & ~FLAGS['out_of_domain'],
                       fine.table['flags'])
    assert (lost.table['flags'] & FLAGS['out_of_domain'] > 0).all()
    assert f'out_of_domain={FLAGS["out_of_domain"]}' in (
        fine.table.meta['flags'])
    assert fine.lost == ''
    assert 'lost' not in fine.table.meta
    assert finder(None).segment(image).lost is None     # it cannot tell


def test_edited_labels_are_of_the_same_image(lost):
    edited = lost.edit(delete=1)
    assert edited.lost == edited.table.meta['lost'] == WORDS
    assert (edited.table['flags'] & FLAGS['out_of_domain'] > 0).all()


def test_each_of_many_is_told(finder, image):
    with pytest.warns(OutOfDomainWarning) as caught:
        results = list(finder(LOST).segment_many([image, image]))
    assert [one.lost for one in results] == [WORDS] * 2
    assert len(caught) == 2


def test_the_command_and_blocks_pass_it_on(finder, image, tmp_path, capsys):
    model = finder(LOST).model
    model.save(tmp_path / 'model.safetensors')
    fits.writeto(tmp_path / 'field.fits', image.cube[1])
    assert main(['segment', str(tmp_path / 'field.fits'), '-q', '--no-png',
                 '--model', str(tmp_path / 'model.safetensors'), '-o',
                 str(tmp_path / 'field')]) == 0
    assert WORDS in capsys.readouterr().err
    with pytest.warns(OutOfDomainWarning, match=WORDS):
        segment_mosaic(tmp_path / 'field.fits', tmp_path / 'mosaic',
                       finder(LOST), block=256, margin=64)


def test_noise_without_objects_is_told_too(finder):
    noise = np.random.default_rng(1).normal(size=(96, 96))
    one = finder({'limit': 0.0, 'signs': {'crowd': [-9.0, 1.0, 0.0, 1.0]}})
    one.min_seed = 1 - 1e-9
    with pytest.warns(OutOfDomainWarning), pytest.warns(NoDetectionsWarning):
        assert one.segment(noise) is None


# ----------------------------------------------------------------- reasons

def test_farther_is_never_less():
    domain = {'limit': 2.5, 'signs': {'equal': [0.1, 0.1, 0, 1.0],
                                      'heat': [0.7, 0.2, 1.0, 0]}}
    said = [reason({'equal': equal, 'heat': 0.7}, domain)
            for equal in np.linspace(0, 1, 50)]
    assert said[0] == ''
    assert said[-1] == SIGNS['equal'][1]
    assert sorted(said) == said
    both = reason({'equal': 0.4, 'heat': 0.1}, domain)
    assert both == f'{SIGNS["equal"][1]}, and {SIGNS["heat"][0]}'
    # what cannot be told is as usual
    assert reason({'equal': np.nan}, domain) == ''


@pytest.mark.parametrize('value', [
    {}, {'limit': 1.0}, {'limit': np.nan, 'signs': {}}, [1.0],
    {'limit': 1.0, 'signs': {'sky': [1, 2, 3]}},
    {'limit': 1.0, 'signs': {'sky': [1, 2, 3, None]}}])
def test_bad_domain(value):
    with pytest.raises(ValueError, match='^domain of a calibration must be'):
        read_calibration({'domain': value})


# ------------------------------------------------------------------- signs

def signs(plane, centres=()):
    level = make_level(1, plane.shape, centres, 5.0)
    channels = np.ones((5, *plane.shape), np.float32)
    channels[:4] = np.arcsinh(plane)
    return signs_of([level._replace(channels=channels)], weigh(
        [level], None))


def test_signs_of_pixels():
    rng = np.random.default_rng(2)
    noise = rng.normal(size=(96, 96))
    y, x = np.mgrid[:96, :96]
    white = signs(noise)
    assert white['one_way'] < 0.1
    for angle in (0, 0.6, 2.0, np.pi / 2):
        wave = 30 * np.sin((x * np.cos(angle) + y * np.sin(angle)) / 3)
        assert signs(noise + wave)['one_way'] > 0.8
    assert signs(np.round(noise))['equal'] > 0.2 > 0.01 > white['equal']
    smooth = np.kron(rng.normal(size=(12, 12)), np.ones((8, 8)))
    assert signs(smooth + 0.1 * noise)['rough'] < white['rough'] - 0.5
    assert signs(noise - 20 * (x > 80))['negative'] > (
        white['negative'] + 1)


def test_signs_of_seeds():
    rng = np.random.default_rng(3)
    noise = rng.normal(size=(96, 96))
    few, many = (signs(noise, rng.uniform(5, 90, (n, 2))) for n in (2, 60))
    assert many['crowd'] > few['crowd'] + 1
    assert np.isnan(signs(noise)['heat'])       # of none


def test_of_few_pixels_nothing_is_said():
    assert signs(np.zeros((20, 20))) is None


# --------------------------------------------------------------------- fit

def test_fit_finds_what_fails():
    lost = script('trust.lost')
    rng = np.random.default_rng(4)

    def some(kind, equal, pq, n=40):
        return [{'kind': kind, 'name': str(k), 'pq': pq, 'n_truth': 9,
                 'n_labels': 9, 'signs': {**{
                     name: rng.normal() for name in SIGNS}, 'equal': value}}
                for k, value in enumerate(rng.normal(equal, 1, n))]

    records = some('a', 0, 0.8) + some('b', 8, 0.1) + some('c', 50, 0.35)
    domain = lost.fit(records)
    said = [reason(one['signs'], domain) for one in records]
    assert np.mean([one != '' for one in said[:40]]) < 0.06
    assert np.mean([SIGNS['equal'][1] in one for one in said[40:80]]) > 0.9
    # what is neither good nor failed has no part in it
    assert lost.fit(records[:80]) == domain
    values = np.array(list(domain['signs'].values()))
    assert (values[:, 2:] >= 0).all()
    assert distances({}, *values[:, :2].T).sum() == 0
