# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the compare module.
"""

import astropy.units as u
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from photutils.segmentation import SegmentationImage

from astrodino_seg.errors import AstroDinoUserWarning, ProgramError
from astrodino_seg.evaluate.compare import (
    Comparison,
    _Overlap,
    compare_finders,
    comparison_table,
    matched_table,
    most_different,
)

SHAPE = (60, 90)


def boxes(*parts):
    """Labels 1, 2, ... in boxes (y0, y1, x0, x1)."""
    labels = np.zeros(SHAPE, np.int32)
    for k, (y0, y1, x0, x1) in enumerate(parts, start=1):
        labels[y0:y1, x0:x1] = k
    return labels


WHOLE = boxes((10, 30, 10, 50), (40, 50, 60, 80))
HALVES = boxes((10, 30, 10, 30), (10, 30, 30, 50), (40, 50, 60, 80))


def comparison(maps, flux=None, truth=None):
    flux = np.ones(SHAPE) if flux is None else flux
    return Comparison(None, flux, maps, dict.fromkeys(maps, 0.5), truth)


def finder_of(labels):
    return lambda image: SegmentationImage(labels) if labels.any() else None


def picture():
    data = np.random.default_rng(1).normal(size=SHAPE) + 7
    data[WHOLE == 1] += 30
    data[WHOLE == 2] += 50
    return data


def test_runs_each_finder():
    seen = []

    def finder(image):
        seen.append(image)
        return SegmentationImage(WHOLE)

    empty = finder_of(np.zeros(SHAPE, int))
    result = compare_finders(picture(), {'a': finder, 'b': empty})
    assert list(result.maps) == list(result.seconds) == ['a', 'b']
    assert seen[0] is result.image
    assert_array_equal(result.maps['a'], WHOLE)
    assert_array_equal(result.maps['b'], 0)
    # the box of 200 pixels that are 50 brighter
    assert_allclose(result.flux[WHOLE == 2].sum(), 1e4, rtol=0.05)
    assert result.truth is None


@pytest.mark.parametrize(('finders', 'truth', 'match'), [
    ({}, None, 'finders must hold'),
    ({'a': finder_of(WHOLE)}, np.zeros((3, 4), int), r'truth must .*\(3, 4\)'),
])
def test_bad_input(finders, truth, match):
    with pytest.raises(ValueError, match=match):
        compare_finders(picture(), finders, truth=truth)


def test_a_program_that_fails():
    def fails(image):
        raise ProgramError('no licence')

    with pytest.warns(AstroDinoUserWarning, match='b failed .* no licence'):
        result = compare_finders(picture(), {'a': finder_of(WHOLE),
                                             'b': fails})
    assert_array_equal(result.maps['b'], 0)


def test_another_error_is_told():
    # as of a network that finds no memory
    def fails(image):
        raise RuntimeError('out of memory')

    with pytest.raises(RuntimeError, match='out of memory'):
        compare_finders(picture(), {'a': fails})


def test_masked_pixels_have_no_flux():
    data = picture()
    data[:5] = np.nan
    result = compare_finders(data, {'a': finder_of(WHOLE)})
    assert_array_equal(result.flux[:5], 0)


def test_split():
    table = comparison_table(comparison({'a': WHOLE, 'b': HALVES}))
    a, b = table
    assert (a['n_labels'], a['n_matched'], a['n_split'], a['n_merged']) == (
        2, 2, 0, 0)
    # halves have an IoU of exactly one half, which is not above it
    assert (b['n_labels'], b['n_matched'], b['n_split'], b['n_merged']) == (
        3, 1, 1, 0)
    assert_allclose(b['flux_ratio'], 1)


def test_merged_is_the_mirror_of_split():
    table = comparison_table(comparison({'b': HALVES, 'a': WHOLE}))
    assert (table['n_split'][1], table['n_merged'][1]) == (0, 1)


def test_matched_table():
    image = picture()
    result = compare_finders(image * u.Jy, {
        'whole': finder_of(WHOLE), 'halves': finder_of(HALVES)})
    table = matched_table(result)
    assert table['label'].tolist() == [1, 2]
    assert table['area'].value.tolist() == [800, 200]
    assert table['halves_label'].tolist() == [2, 3]     # the last of two
    assert_allclose(table['halves_iou'], [0.5, 1])
    assert table['halves_pieces'].tolist() == [2, 1]
    assert table['halves_merged'].tolist() == [0, 1]
    sky = result.background[0]
    light = [(image - sky)[WHOLE == 1].sum(), (image - sky)[WHOLE == 2].sum()]
    assert_allclose(table['flux'].to_value('Jy'), light, rtol=1e-5)
    assert_allclose(table['halves_flux'].to_value('Jy'),
                    [(image - sky)[HALVES == 2].sum(), light[1]], rtol=1e-5)
    back = matched_table(result, 'halves')
    assert back['whole_label'].tolist() == [1, 1, 2]
    assert back['whole_merged'].tolist() == [2, 2, 1]
    assert back['whole_pieces'].tolist() == [0, 0, 1]


def test_matched_with_nothing():
    result = compare_finders(picture(), {
        'a': finder_of(WHOLE), 'b': finder_of(np.zeros(SHAPE, int))})
    table = matched_table(result)
    assert table['b_label'].tolist() == table['b_merged'].tolist() == [0, 0]
    assert np.isnan(table['b_flux']).all()
    assert len(matched_table(result, 'b')) == 0


def test_light_pieces_do_not_count():
    crumb = WHOLE.copy()
    crumb[10:12, 10:13] = 3                     # 6 of 800 pixels
    table = comparison_table(comparison({'a': WHOLE, 'b': crumb}))
    assert table['n_split'][1] == 0
    flux = np.where(crumb == 3, 100.0, 1.0)     # but now most of the light
    table = comparison_table(comparison({'a': WHOLE, 'b': crumb}, flux))
    assert table['n_split'][1] == 1


def test_flux_ratio():
    small = boxes((10, 30, 10, 40), (40, 50, 60, 80))
    table = comparison_table(comparison({'a': WHOLE, 'b': small}))
    # 600 of 800 pixels, and all of the other
    assert_allclose(table['flux_ratio'][1], np.median([0.75, 1]))
    low, high = np.percentile([0.75, 1], [16, 84])
    assert_allclose(table['flux_scatter'][1], (high - low) / 2)


def test_nothing_found():
    none = np.zeros(SHAPE, int)
    table = comparison_table(comparison({'a': WHOLE, 'b': none}))
    assert table['n_labels'][1] == table['n_matched'][1] == 0
    assert np.isnan(table['flux_ratio'][1])
    table = comparison_table(comparison({'a': none, 'b': WHOLE}))
    assert table['n_labels'].tolist() == [0, 2]


def test_truth():
    table = comparison_table(comparison({'a': WHOLE, 'b': HALVES},
                                        truth=WHOLE))
    assert table['f1'][0] == table['pq'][0] == 1
    # one match of two true and three found objects
    assert_allclose(table['f1'][1], 2 / 5)


def test_overlap_by_hand():
    over = _Overlap(WHOLE, HALVES, np.full(SHAPE, 2.0))
    assert over.area[0].tolist()[1:] == [800, 200]
    assert over.flux[1].tolist()[1:] == [800, 800, 400]
    assert over.best_iou()[1:].tolist() == [0.5, 1]
    assert over.n_pieces(0)[1:].tolist() == [2, 1]
    assert over.n_pieces(1)[1:].tolist() == [0, 0, 1]


def test_most_different():
    one = comparison({'a': WHOLE, 'b': HALVES})
    (x0, x1, y0, y1), = most_different(one)
    assert x0 <= 10
    assert x1 >= 50
    assert y0 <= 10
    assert y1 >= 30
    assert x1 - x0 <= SHAPE[1]
    assert most_different(one, 0) == []
    assert most_different(comparison({'a': WHOLE, 'b': WHOLE})) == []
    assert most_different(comparison({'a': WHOLE})) == []
    assert most_different(comparison({'a': 0 * WHOLE, 'b': WHOLE})) == []


def test_most_different_is_ranked_by_flux():
    flux = np.where(WHOLE == 2, 100.0, 1.0)
    none = np.zeros(SHAPE, int)
    zooms = most_different(comparison({'a': WHOLE, 'b': none}, flux))
    first, second = (set(np.unique(WHOLE[y0:y1, x0:x1]).tolist())
                     for x0, x1, y0, y1 in zooms)
    assert first == {0, 2}
    assert 1 in second
    for x0, x1, y0, y1 in zooms:
        assert 0 <= x0 < x1 <= SHAPE[1]
        assert 0 <= y0 < y1 <= SHAPE[0]
