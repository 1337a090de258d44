# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the scores module.
"""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.ndimage import label

from astrodino_seg.evaluate.benchmark import reference_bands, scene_scores
from astrodino_seg.evaluate.tables import (
    EDGES,
    IOU_LIMITS,
    binned,
    bootstrap,
    curve,
    summary,
)
from astrodino_seg.simulate import make_scene, observe
from astrodino_seg.truth import Truth

FEW = settings(deadline=None, max_examples=20)
GR = SimpleNamespace(bands=('g', 'r'))
#: Measures that are 1, and those that are 0, if all is right.
ONES = ('precision', 'recall', 'f1', 'sq', 'pq', 'haigh_f', 'area_score',
        'combined_b', 'ok', 'n_fragments', 'flux_share', 'best_iou', 'sep')
ZEROS = ('under_merging', 'over_merging', 'frag', 'contam', 'lost')


def make_truth(labels, colours, kinds, on_primary=(), primary=(1,)):
    """A truth of flat objects of the given (g, r) light per pixel."""
    ids = np.unique(labels[labels > 0])
    light = np.zeros((2, *labels.shape), np.float32)
    for k in ids:
        light[:, labels == k] = np.array(colours[k])[:, None]
    n_pixels = np.array([(labels == k).sum() for k in ids], int)
    flux = np.array([n * np.array(colours[k]) for k, n in zip(
        ids, n_pixels)]).reshape(-1, 2)
    own_sn = np.sqrt((light**2).sum(axis=0))
    objects = {
        'id': ids, 'cls': np.array([1 if kinds[k] == 'star' else 2
                                    for k in ids]),
        'kind': np.array([kinds[k] for k in ids]), 'n_pixels': n_pixels,
        'sn': np.hypot(*flux.T) / np.sqrt(n_pixels), 'flux': flux,
        'primary': np.isin(ids, primary),
        'on_primary': np.isin(ids, on_primary),
        'blendedness': np.arange(len(ids)) / 10}
    return Truth(labels, own_sn, objects, light, labels[None],
                 np.ones((1, *labels.shape)))


def galaxy():
    """A galaxy (1) of 870 pixels, a star of 30 (2) on it, a small one (3)."""
    labels = np.zeros((40, 60), int)
    labels[5:35, 5:35] = 1
    labels[18:23, 18:24] = 2
    labels[10:14, 50:55] = 3
    return make_truth(labels, {1: (1, 2), 2: (8, 4), 3: (1, 1)},
                      {1: 'spiral', 2: 'star', 3: 'field'}, on_primary=[2])


def scored(truth, labels, **kwargs):
    record = scene_scores(truth, labels, GR, **kwargs)
    again = json.loads(json.dumps(record, allow_nan=False))
    assert again == record
    return again


def simulated(seed):
    pytest.importorskip('galsim')
    return observe(make_scene(seed, size=128, density=1.0), seed)


# ------------------------------------------------------------------ extremes

def check_right(found):
    for key in ONES:
        assert found[key] == 1 or np.isnan(found[key]), key
    for key in ZEROS:
        assert_allclose(found[key], 0, atol=1e-6, err_msg=key)
    assert_allclose(found['combined_a'], np.sqrt(2))


def test_truth_itself():
    truth = galaxy()
    found = summary([scored(truth, truth.labels)])
    check_right(found)
    assert not np.isnan(list(found.values())).any()
    # all of its light is within its region
    assert_allclose([found['mag_bias'], found['colour_bias']], 0, atol=1e-6)


def test_truth_of_scenes():
    """The truth map is right, and one label for all that touches is not."""
    right, merged = [], []
    for seed in range(5):
        image, truth = simulated(seed)
        labels = np.maximum(truth.labels, 0)
        right.append(scene_scores(truth, labels, image, dict(
            zip(truth.objects['id'], truth.objects['cls']))))
        one = label(truth.labels != 0, np.ones((3, 3)))[0]
        merged.append(scene_scores(truth, one, image))
        json.dumps([right[-1], merged[-1]], allow_nan=False)
    found = summary(right)
    check_right(found)
    assert found['pq_star'] == found['pq_galaxy'] == 1
    assert sum(len(one['companions']['separated']) for one in right) > 5
    found = summary(merged)
    assert found['sep'] == 0
    assert_allclose(found['frag'], 0)
    assert found['over_merging'] > 0.05
    assert found['under_merging'] < 0.02       # sky in place of void
    assert found['ok'] < 0.5


def test_merged():
    truth = galaxy()
    record = scored(truth, (truth.labels > 0) & (truth.labels < 3))
    found = summary([record])
    assert found['sep'] == 0
    assert found['frag'] == found['lost'] == found['ok'] == 0
    # of root of sum of squares of light, not of flux
    one, star = 870 * np.sqrt(5), 30 * np.sqrt(80)
    assert_allclose(found['contam'], star / (one + star))
    assert_allclose(found['best_iou'], 870 / 900)
    assert_allclose([found['precision'], found['recall']], [1, 1 / 3])
    assert_allclose(found['mag_bias'], -2.5 * np.log10(
        (870 * 2 + 30 * 4) / (870 * 2)))
    assert_allclose(found['colour_bias'], -2.5 * np.log10(
        (870 + 30 * 8) / 870 / ((870 * 2 + 30 * 4) / (870 * 2))))
    n = 40 * 60
    assert_allclose(found['over_merging'], (
        30 * 870 / 900 + 870 * 30 / 900       # in one label
        + 2 * 20 * (n - 920) / (n - 900)) / n)     # and one in the sky
    assert found['under_merging'] == 0


def test_shredded():
    truth = galaxy()
    labels = np.where(truth.labels == 1, 10 + np.arange(40)[:, None] // 20,
                      truth.labels)            # 438 and 432 pixels
    found = summary([scored(truth, labels)])
    assert found['frag'] == found['sep'] == 1
    assert found['n_fragments'] == 2
    assert_allclose(found['flux_share'], 438 / 870)
    assert_allclose(found['mag_bias'], 2.5 * np.log10(870 / 438))
    assert_allclose(found['colour_bias'], 0, atol=1e-6)
    assert_allclose(found['under_merging'], 2 * 438 * 432 / 870 / (40 * 60))
    assert found['over_merging'] == 0
    # 438 of 870 pixels are a match
    assert_allclose([found['precision'], found['recall']], [3 / 4, 1])


def test_nothing_found():
    truth = galaxy()
    record = scored(truth, 0 * truth.labels)
    assert record['primaries']['mag_error'] == [None]
    found = summary([record])
    assert found['lost'] == 1
    assert found['f1'] == found['sep'] == found['haigh_f'] == 0
    assert np.isnan([found[key] for key in (
        'mag_bias', 'mag_scatter', 'colour_bias')]).all()


def test_nothing_there():
    truth = make_truth(np.zeros((9, 9), int), {}, {})
    found = summary([scored(truth, truth.labels)])
    assert np.isnan(found['ok'])
    assert found['pq'] == 0
    low, high = bootstrap([scored(truth, truth.labels)])['ok']
    assert np.isnan([low, high]).all()


def test_masked_object():
    """What is masked altogether is not asked for."""
    truth = galaxy()
    truth.labels[truth.labels == 2] = -1
    record = scored(truth, np.maximum(truth.labels, 0))
    assert record['objects']['kind'] == ['spiral', 'field']
    assert record['companions']['separated'] == []
    assert summary([record])['recall'] == 1


@FEW
@given(st.permutations(range(1, 5)))
def test_relabelled(numbers):
    truth = galaxy()
    labels = np.where(truth.labels == 1, 1 + 3 * (np.arange(60) // 15 % 2),
                      truth.labels)
    a, b = (summary([scored(truth, one)]) for one in (
        labels, np.array([0, *numbers])[labels]))
    for key, value in a.items():
        assert_allclose(b[key], value, err_msg=key)


def test_properties():
    record = scored(galaxy(), galaxy().labels)
    one = {key: values[1] for key, values in record['objects'].items()}
    assert_allclose(one['size'], np.sqrt(30 / np.pi))
    assert_allclose(one['surface_brightness'], np.sqrt(80))
    assert_allclose(one['sn'], np.sqrt(30 * 80))
    assert one['blendedness'] == 0.1
    assert one['kind'] == 'star'
    assert record['companions']['kind'] == ['star']
    assert record['primaries']['kind'] == ['spiral']


def test_bad_shape():
    with pytest.raises(ValueError, match='predicted must have the shape'):
        scene_scores(galaxy(), np.zeros((3, 4), int), GR)
    with pytest.raises(ValueError, match=r'predicted_class .* not \[2, 3\]'):
        scene_scores(galaxy(), galaxy().labels, GR, {1: 2})


@pytest.mark.parametrize(('names', 'reference', 'colour'), [
    ('griz', 1, (0, 1)), ('zrg', 1, (2, 1)), ('iz', 0, (0, 1)),
    ('ugi', 1, (1, 2)), ('r', 0, None), ('ab', 1, (0, 1)),
    (['F444W', 'F115W', 'F277W'], 1, (1, 2)), (['band0'], 0, None)])
def test_reference_bands(names, reference, colour):
    assert reference_bands(tuple(names)) == (reference, colour)


def test_one_band():
    truth = galaxy()
    truth.light, truth.objects['flux'] = (
        truth.light[1:], truth.objects['flux'][:, 1:])
    record = scene_scores(truth, truth.labels, SimpleNamespace(bands=('r',)))
    assert record['primaries']['colour_error'] == [None]
    assert_allclose(record['primaries']['mag_error'], 0, atol=1e-6)


# ------------------------------------------------------------ many scenes

def made_up(iou, n_predicted, ok=(), mag=(), sep=(), sn=None):
    """A record with the given lists."""
    n = len(iou)
    common = {'kind': 'star', 'size': 2.0, 'surface_brightness': 3.0,
              'blendedness': 0.0, 'sn': 10.0}

    def lists(n):
        return {key: [value] * n for key, value in common.items()}

    primaries = lists(len(ok)) | {
        'ok': list(ok), 'frag': [not one for one in ok],
        'mag_error': list(mag) or [None] * len(ok)}
    for key in ('n_fragments', 'flux_share', 'iou', 'contam', 'lost',
                'colour_error'):
        primaries[key] = [0.0] * len(ok)
    return {'n_predicted': n_predicted,
            'haigh': {'n_matched': 1, 'n_truth': 2, 'n_predicted': 2,
                      'under_merging': .1, 'over_merging': .2,
                      'n_pixels': 100},
            'objects': lists(n) | {'iou': list(iou), 'sn': sn or [10.] * n},
            'primaries': primaries,
            'companions': lists(len(sep)) | {'separated': list(sep)}}


def test_pooled():
    """Counts are added up before ratios are taken."""
    scenes = [made_up([.6, .8, 0], 2, [True], [.1], [True]),
              made_up([.7], 8, [False] * 3, [None, .3, .9], [False, False])]
    found = summary(scenes)
    assert_allclose(found['precision'], 3 / 10)
    assert_allclose(found['recall'], 3 / 4)
    assert_allclose(found['f1'], 6 / 14)
    assert_allclose(found['pq'], 2 * (.6 + .8 + .7) / 14)
    assert_allclose(found['sq'], .7)
    assert_allclose(found['ok'], 1 / 4)
    assert_allclose(found['frag'], 3 / 4)
    assert_allclose(found['sep'], 1 / 3)
    assert_allclose(found['mag_bias'], .3)
    # quantiles of .1, .3, .9: 0.32 of the way to the neighbour
    assert_allclose(found['mag_scatter'],
                    (.3 + .68 * .6 - (.1 + .32 * .2)) / 2)


def test_pooled_haigh():
    one, two = made_up([], 0), made_up([], 0)
    two['haigh'] = {'n_matched': 3, 'n_truth': 4, 'n_predicted': 3,
                    'under_merging': .5, 'over_merging': 0.0,
                    'n_pixels': 300}
    found = summary([one, two])
    assert_allclose(found['haigh_f'], 2 * 4 / (6 + 5))
    assert_allclose(found['under_merging'], (.1 + 3 * .5) / 4)
    assert_allclose(found['over_merging'], .2 / 4)


def test_pooled_classes():
    truth = galaxy()
    codes = {1: 2, 2: 1, 3: 2}
    scenes = [scored(truth, truth.labels, classes=codes),
              scored(truth, truth.labels, classes={1: 2, 2: 2, 3: 2})]
    found = summary(scenes)
    assert_allclose(found['pq_star'], 2 / 3)       # 1 TP, 1 FN
    assert_allclose(found['pq_galaxy'], 8 / 9)     # 4 TP, 1 FP
    assert 'pq_artifact' not in found
    assert 'pq_star' not in summary([*scenes, scored(truth, truth.labels)])


def test_bootstrap_width():
    """The standard error of a share, and none where scenes are alike."""
    rng = np.random.default_rng(1)
    scenes = [made_up([.7], 1, [bool(rng.random() < .3)])
              for _ in range(400)]
    share = summary(scenes)['ok']
    intervals = bootstrap(scenes, n_draws=300)
    low, high = intervals['ok']
    assert low < share < high
    assert_allclose((high - low) / 2, np.sqrt(share * (1 - share) / 400),
                    rtol=0.15)
    assert intervals['recall'] == (1, 1)
    assert bootstrap(scenes[:9], n_draws=5, seed=1) == bootstrap(
        scenes[:9], n_draws=5, seed=1)


def test_bootstrap_draws_scenes():
    """Objects of one scene come and go together."""
    scenes = [made_up([.9] * 100, 100), made_up([0] * 100, 0)] * 8
    low, high = bootstrap(scenes, n_draws=300)['recall']
    # sixteen scenes, and not 1600 objects, which would have 0.0125
    assert_allclose((high - low) / 2, 0.5 / 4, rtol=0.2)


def test_binned():
    sn = [8., 20., 59.9, 1000.]
    scenes = [made_up([.9, .6, 0, .8], 3, sn=sn, ok=[True]),
              made_up([0, 0, .7, .7], 3, sn=sn, ok=[False], sep=[True])]
    table = binned(scenes, 'sn')
    assert_array_equal(table['low'], EDGES['sn'][:-1])
    assert_array_equal(table['high'], EDGES['sn'][1:])
    assert_array_equal(table['n_objects'], [2, 4, 0, 2])
    assert_array_equal(table['n_primaries'], [2, 0, 0, 0])   # S/N 10
    assert_array_equal(table['n_companions'], [1, 0, 0, 0])
    assert_allclose(table['recall'], [.5, .5, np.nan, 1])
    assert_allclose(table['sq'], [.9, .65, np.nan, .75])
    assert_allclose(table['ok'], [.5] + 3 * [np.nan])
    assert_allclose(table['sep'], [1] + 3 * [np.nan])
    # one scene or the other, or both, have it right
    assert_allclose([table['ok_low'][0], table['ok_high'][0]], [0, 1])
    assert_allclose([table['recall_low'][3], table['recall_high'][3]], 1)
    one, = binned(scenes, 'sn', [0, 100])
    assert one['n_objects'] == 6
    assert_allclose(one['recall'], 3 / 6)


@pytest.mark.parametrize('by', EDGES)
def test_bins_hold_all(by):
    image, truth = simulated(2)
    record = scene_scores(truth, np.maximum(truth.labels, 0), image)
    table = binned([record], by, n_draws=2)
    assert table['n_objects'].sum() == len(truth.objects['id'])
    assert table['n_primaries'].sum() == truth.objects['primary'].sum()


def test_by_kind():
    scenes = [made_up([.9], 1, ok=[True, False]), made_up([0], 1, ok=[True])]
    scenes[0]['primaries']['kind'] = ['spiral', 'edge_on']
    scenes[0]['objects']['kind'] = ['spiral']
    table = binned(scenes, 'kind')
    assert table['kind'].tolist() == ['edge_on', 'spiral', 'star']
    assert table['n_primaries'].tolist() == [1, 1, 1]
    assert_allclose(table['ok'], [0, 1, 1])
    assert_allclose(table['recall'], [np.nan, 1, 0])


def test_curve():
    scenes = [made_up([.52, .97, 0, .81], 5), made_up([.66], 1)]
    table = curve(scenes)
    assert table['iou'].tolist() == list(IOU_LIMITS)
    n = np.array([4, 3, 3, 3, 2, 2, 2, 1, 1, 1])
    assert_allclose(table['precision'], n / 6)
    assert_allclose(table['recall'], n / 5)
    assert_allclose(table['f1'], 2 * n / 11)
    assert (table['recall_low'] <= table['recall']).all()
    assert (table['recall'] <= table['recall_high']).all()
    assert curve(scenes, [0.8])['recall'].tolist() == [2 / 5]


def test_errors():
    scenes = [made_up([.9], 1)]
    for function in (summary, bootstrap, curve):
        with pytest.raises(ValueError, match='at least one scene'):
            function([])
    with pytest.raises(ValueError, match='at least one scene'):
        binned([], 'sn')
    with pytest.raises(ValueError, match='n_draws must be positive, got 0'):
        bootstrap(scenes, n_draws=0)
    with pytest.raises(ValueError, match="by must be one of .* got 'mass'"):
        binned(scenes, 'mass')
    with pytest.raises(ValueError, match=r'edges must increase, got \[2, 1'):
        binned(scenes, 'sn', [2, 1])
    with pytest.raises(ValueError, match=r'limits .* \[0.5, 1\), got 0.4'):
        curve(scenes, [0.4])
