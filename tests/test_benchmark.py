# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the benchmark module.
"""

import json
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from astropy.table import QTable, Table
from level_toys import small_model
from numpy.testing import assert_array_equal
from photutils.segmentation import SegmentationImage
from photutils.utils.exceptions import NoDetectionsWarning

from astrodino_seg import DinoSegmenter
from astrodino_seg.errors import AstroDinoUserWarning, ProgramError
from astrodino_seg.evaluate import benchmark
from astrodino_seg.evaluate.benchmark import (
    OBJECTS,
    _fingerprint,
    benchmark_tables,
    measure_scene,
    run_benchmark,
    split_scene,
    write_rst,
)
from astrodino_seg.plotting import plot_benchmark
from astrodino_seg.simulate import SceneLibrary
from astrodino_seg.simulate.scene_library import SPLITS

pytest.importorskip('galsim')
SIZE = 128


class Constant:
    """Finds one label above a limit in the first band."""

    def __init__(self, limit=5.0):
        self.limit = limit

    def __repr__(self):
        return f'Constant({self.limit})'

    def __call__(self, image):
        plane = image.cube[0] - np.median(image.cube[0])
        above = (plane > self.limit).astype(int)
        if not above.any():
            warnings.warn('nothing', NoDetectionsWarning)
            return None
        return SegmentationImage(above)


class Oracle:
    """Knows the truth of the split."""

    def __init__(self, library):
        self.known = {}
        for k in range(len(library)):
            image, truth = split_scene(library, k)
            self.known[image.cube.sum()] = truth.labels

    def __repr__(self):
        return 'Oracle()'

    def __call__(self, image):
        return SegmentationImage(self.known[image.cube.sum()].clip(0))


def run(path, finders, n=2, **kwargs):
    return run_benchmark(finders, path, n_scenes=n, size=SIZE,
                         split='validation', progress=False, **kwargs)


@pytest.fixture(scope='module')
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp('scenes')


@pytest.fixture(scope='module')
def library(cache):
    return SceneLibrary('validation', 3, path=cache, size=SIZE)


def test_split_scene_is_always_the_same(library):
    one, truth = split_scene(library, 1)
    again, _ = split_scene(SceneLibrary('validation', 3, size=SIZE), 1)
    # the cache keeps light in half precision
    noise = 1.4826 * np.median(np.abs(one.cube - np.median(one.cube)))
    assert np.abs(one.cube - again.cube).max() < 0.1 * noise + 1e-3 * (
        np.abs(one.cube).max())
    assert truth.labels.shape == (SIZE, SIZE)
    assert library.seed(1) == SPLITS['validation'][0] + 1


def test_the_truth_is_perfect(tmp_path, cache, library):
    results = run(tmp_path / 'r.jsonl', {'truth': Oracle(library)}, 3,
                  cache=cache)
    row = benchmark_tables(results, n_draws=5)['scores'][0]
    assert row['pq'] == row['f1'] == row['haigh_f'] == 1
    assert row['under_merging'] == row['over_merging'] == 0
    assert row['n_scenes'] == 3
    for key, perfect in (('ok', 1), ('frag', 0), ('sep', 1), ('lost', 0)):
        assert row[key] == perfect or np.isnan(row[key])


def test_nothing_found(library):
    image, truth = split_scene(library, 0)
    record = measure_scene(Constant(1e9), image, truth)
    assert record['n_predicted'] == 0
    assert set(record['objects']['iou']) == {0.0}
    assert 'classes' not in record


def test_a_program_that_fails(library):
    def fails(image):
        raise ProgramError('no licence')

    image, truth = split_scene(library, 0)
    with pytest.warns(AstroDinoUserWarning, match='found nothing: no lic'):
        record = measure_scene(fails, image, truth)
    assert record['n_predicted'] == 0


def test_classes_of_a_table(library):
    class Table:
        def segment(self, image):
            labels = truth.labels.clip(0)
            ids = np.unique(labels[labels > 0])
            table = QTable({'label': ids, 'class': ['galaxy'] * len(ids)})
            return SimpleNamespace(
                segmentation_image=SegmentationImage(labels), table=table)

    image, truth = split_scene(library, 0)
    classes = measure_scene(Table(), image, truth)['classes']
    real = truth.objects['cls'][np.isin(truth.objects['id'], truth.labels)]
    assert len(classes['galaxy']['iou']) == (real == 2).sum()
    assert classes['galaxy']['n_predicted'] == len(real)


def test_resumes(tmp_path, cache, monkeypatch):
    path = tmp_path / 'r.jsonl'
    whole = run(path, {'a': Constant(), 'b': Constant(9)}, 3, cache=cache)
    lines = path.read_text().splitlines(keepends=True)
    assert len(lines) == 6
    # killed while it wrote the fourth
    path.write_text(''.join(lines[:3]) + lines[3][:20])
    done = []
    work = benchmark._work
    monkeypatch.setattr(benchmark, '_work', lambda job: (
        done.append((job[-1], sorted(job[0]))), work(job))[1])
    again = run(path, {'a': Constant(), 'b': Constant(9)}, 3, cache=cache)
    assert done == [(1, ['b']), (2, ['a', 'b'])]
    for name in whole:
        for one, two in zip(whole[name], again[name]):
            assert {**one, 'seconds': 0} == {**two, 'seconds': 0}
    done.clear()
    run(path, {'a': Constant(), 'b': Constant(9)}, 3, cache=cache)
    assert done == []
    # other settings under the same name are not the same finder
    run(path, {'a': Constant(7)}, 1, cache=cache)
    assert done == [(0, ['a'])]


def test_fingerprint_of_weights(tmp_path):
    class Model:
        def __init__(self, model):
            self.model = model

        def __repr__(self):
            return 'Model()'

        def segment(self, image):
            return None

    for name, content in (('a', b'1'), ('b', b'2'), ('c', b'1')):
        (tmp_path / name).write_bytes(content)
    prints = [_fingerprint(Model(tmp_path / name)) for name in 'abc']
    assert prints[0] == prints[2] != prints[1]


def test_other_weights_of_one_network(tmp_path, cache):
    path = tmp_path / 'r.jsonl'
    for seed in (0, 1, 1):
        run(path, {'a': DinoSegmenter(model=small_model(seed))}, 1,
            cache=cache)
    assert len(path.read_text().splitlines()) == 2


def test_processes_do_not_matter(tmp_path, cache):
    finders = {'peaks': benchmark_finder()}
    one = run(tmp_path / 'one.jsonl', finders, cache=cache)
    two = run(tmp_path / 'two.jsonl', finders, cache=cache, n_processes=2)
    for a, b in zip(one['peaks'], two['peaks']):
        assert {**a, 'seconds': 0} == {**b, 'seconds': 0}


def benchmark_finder():
    from astrodino_seg.evaluate.baselines import PhotutilsFinder

    return PhotutilsFinder(n_sigma=3)


@pytest.mark.parametrize(('kwargs', 'match'), [
    ({'n_processes': 0}, 'n_processes must be positive, got 0'),
    ({'split': 'dev'}, "split must be one of .* got 'dev'"),
    ({'n_scenes': 0}, 'n_scenes must be'),
])
def test_bad_input(tmp_path, kwargs, match):
    with pytest.raises(ValueError, match=match):
        run_benchmark({'a': Constant()}, tmp_path / 'r.jsonl', **kwargs)
    assert not (tmp_path / 'r.jsonl').exists()


def test_tables_and_figure(tmp_path, cache):
    results = run(tmp_path / 'r.jsonl', {'a': Constant(), 'b': Constant(20)},
                  3, cache=cache)
    tables = benchmark_tables(results, n_draws=5)
    assert tables['scores']['finder'].tolist() == ['a', 'b']
    assert set(tables['curve']['finder']) == {'a', 'b'}
    record = json.loads((tmp_path / 'r.jsonl').read_text().splitlines()[0])
    assert record[0] == 'a'
    write_rst(tables, tmp_path / 't.rst')
    text = (tmp_path / 't.rst').read_text().splitlines()
    assert text[:5] == ['.. list-table::', '   :header-rows: 1', '',
                        '   * - finder', '     - pq']
    header = [line[7:] for line in text[3:text.index('   * - a')]]
    assert header == ['finder', *OBJECTS]
    first = tables['scores'][0]
    assert first['finder'] == 'a'
    assert text[text.index('   * - a') + 1].startswith(
        f'     - {first["pq"]:.3f} ± ')
    rows = [line[7:] for line in text if line.startswith('   * - ')]
    assert rows == ['finder', 'a', 'b'] * 2 + [
        'ok; frag by blendedness', 'a', 'b', 'ok; frag by kind', 'a', 'b']
    kinds = tables['bins']['kind'].tolist()
    kinds = [kind for kind in dict.fromkeys(kinds) if kind]
    last = text[text.index('   * - ok; frag by kind') + 1:][:len(kinds)]
    assert [line[7:].split(' (')[0] for line in last] == kinds
    by = text[text.index('   * - ok; frag by blendedness') + 1:][:4]
    assert by[0].startswith('     - 0 to 0.02 (')
    n_primaries = sum(int(one.split('(')[1][:-1]) for one in by)
    assert n_primaries == tables['scores']['n_primaries'][0] > 0
    assert_array_equal([p.name for p in tmp_path.glob('.*')], [])
    axes = plot_benchmark(tables).axes
    assert [line.get_label() for line in axes[0].containers] == ['a', 'b']
    one = tables['curve'][tables['curve']['finder'] == 'b']
    assert_array_equal(axes[1].lines[1].get_ydata(), one['f1'])


def test_no_large_galaxy():
    # a table of bins with no kind, a figure with no third panel
    scenes = [{'n_predicted': 0, 'seconds': 1.0, 'haigh': {
        'n_matched': 0, 'n_truth': 0, 'n_predicted': 0, 'under_merging': 0.0,
        'over_merging': 0.0, 'n_pixels': 4},
        'objects': dict.fromkeys(('sn', 'size', 'surface_brightness',
                                  'blendedness', 'kind', 'iou'), []),
        'primaries': dict.fromkeys((
            'sn', 'size', 'surface_brightness', 'blendedness', 'kind', 'iou',
            'ok', 'frag', 'n_fragments', 'flux_share', 'contam', 'lost',
            'mag_error', 'colour_error'), []),
        'companions': dict.fromkeys((
            'sn', 'size', 'surface_brightness', 'blendedness', 'kind',
            'separated'), [])}]
    tables = benchmark_tables({'a': scenes}, n_draws=3)
    assert isinstance(tables['scores'], Table)
    assert tables['scores']['pq'][0] == 0
    assert np.isnan(tables['scores']['ok'][0])
    assert len(plot_benchmark(tables).axes) == 3
