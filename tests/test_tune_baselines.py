# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the command that tunes the baselines.
"""

import importlib
import json
import re
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from astrodino_seg.evaluate.baselines import FINDERS, TUNED
from astrodino_seg.simulate.scene_library import SPLITS

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope='module')
def tune():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT)         # its processes import it too
        yield importlib.import_module('benchmarks.finders.tune_baselines')


def write(path, rows):
    path.write_text(''.join(json.dumps(row) + '\n' for row in rows))


def test_every_tool_has_a_grid(tune):
    tools = {name for name in FINDERS if not name.endswith('-tuned')}
    assert set(tune.GRIDS) == tools
    assert set(TUNED) <= tools


@pytest.mark.parametrize('name', [name for name in FINDERS
                                  if not name.endswith('-tuned')])
def test_grids(tune, name):
    many = tune.settings_of(name)
    assert len(many) >= 30
    assert len({json.dumps(one) for one in many}) == len(many)
    default = FINDERS[name]()
    for one in many:
        FINDERS[name](**one)._validate()
        assert json.loads(json.dumps(one)) == one
    # the best cannot be worse than the tool as it comes
    assert {key: getattr(default, key) for key in tune.GRIDS[name]} in many


def test_budget_in_the_docs(tune):
    text = (ROOT / 'docs' / 'evidence' / 'baselines.rst').read_text()
    stated = re.findall(r'``(\w+)``\n     - (\d+)\n', text)
    assert {name: int(n) for name, n in stated} == {
        name: len(tune.settings_of(name)) for name in tune.GRIDS}


def test_a_cut_line_is_removed(tune, tmp_path):
    path = tmp_path / 'runs.jsonl'
    assert tune.read_lines(path) == []
    rows = [{'finder': 'sep', 'scene': k} for k in range(3)]
    write(path, rows)
    with path.open('a') as stream:
        stream.write('{"finder": "se')
    assert tune.read_lines(path) == rows
    assert path.read_text().count('\n') == 3
    assert path.read_text().endswith('}\n')


def test_only_what_is_left_is_run(tune):
    grid = tune.settings_of('detect')
    jobs = list(tune.jobs_left(['detect', 'sep'], 2, None, set()))
    assert [(k, name) for k, name, _, _ in jobs] == list(
        product((0, 1), ('detect', 'sep')))
    # as it is read: the order of the keys does not matter
    done = {tune.key_of({'finder': 'detect', 'scene': 0,
                         'settings': dict(reversed(list(one.items())))})
            for one in grid[:-2]}
    jobs = list(tune.jobs_left(['detect'], 1, 'folder', done))
    assert jobs == [(0, 'detect', grid[-2:], 'folder')]
    done |= {tune.key_of({'finder': 'detect', 'scene': 0, 'settings': one})
             for one in grid}
    assert not list(tune.jobs_left(['detect'], 1, None, done))


def runs_of(tune, name, n_scenes, iou, fails=()):
    """Rows in which setting ``k`` has the IoU ``iou(k)`` on each scene."""
    base = {'n': 4, 'n_ok': 1, 'n_primaries': 2, 'n_separated': 3,
            'n_companions': 4, 'seconds': 0.5}
    return [{'finder': name, 'scene': scene, 'settings': one,
             **base, **({'error': 'no', 'iou': 0} if (k, scene) in fails
                        else {'iou': iou(k)})}
            for k, one in enumerate(tune.settings_of(name))
            for scene in range(n_scenes)]


def test_best(tune):
    grid = tune.settings_of('detect')
    runs = runs_of(tune, 'detect', 3, lambda k: 1 - abs(k - 7) / 100)
    best = tune.best_of('detect', runs, 3)
    assert best == {'settings': grid[7], 'pq': 0.5, 'ok': 0.5, 'sep': 0.75,
                    'ok*sep': 0.375, 'seconds': 0.5, 'n_failed': 0,
                    'n_settings': len(grid), 'n_scenes': 3}
    assert tune.best_of('detect', runs[:-1], 3) is None
    assert tune.best_of('detect', runs[:-1], 2)['n_scenes'] == 2
    assert tune.best_of('sep', runs, 3) is None


def test_a_failure_has_found_nothing(tune):
    last = len(tune.settings_of('detect')) - 1
    runs = runs_of(tune, 'detect', 2, lambda k: k / 100, fails=[(last, 1)])
    best = tune.best_of('detect', runs, 2)
    assert best['settings'] == tune.settings_of('detect')[-2]
    assert best['n_failed'] == 0
    # but the best may have failed somewhere
    runs = runs_of(tune, 'detect', 2, lambda k: 1 + (k == last),
                   fails=[(last, 1)])
    runs[-2]['iou'] = 4
    best = tune.best_of('detect', runs, 2)
    assert best['settings'] == tune.settings_of('detect')[-1]
    assert best['n_failed'] == 1


def test_write_best(tune, tmp_path):
    tune.write_best({'sep': {'pq': 0.5}}, tmp_path / 'best.json')
    assert json.loads((tmp_path / 'best.json').read_text()) == {
        'sep': {'pq': 0.5}}
    assert [path.name for path in tmp_path.iterdir()] == ['best.json']


def test_run(tune, monkeypatch):
    # two settings by hand on one scene; PQ of 1 for the truth itself
    labels = np.zeros((40, 40), int)
    labels[5:12, 5:12], labels[25:32, 25:32] = 1, 2
    scene = None, labels, 10.0 * (labels > 0), np.zeros(labels.shape, bool)
    monkeypatch.setattr(tune, '_scene', lambda k, cache: scene)
    monkeypatch.setattr(
        tune, 'measure', lambda truth, found, image:
        {'same': bool(((truth > 0) == (found > 0)).all())})
    rows = tune.run((4, 'detect', [{'fwhm': 0}, {'n_pixels': 50}], None))
    assert [row['same'] for row in rows] == [True, False]
    assert all(row['finder'] == 'detect' and row['scene'] == 4
               and row['seconds'] >= 0 for row in rows)


def test_command(tune, monkeypatch, tmp_path, capsys):
    # all has been run before but the last setting of one scene
    runs, best = tmp_path / 'runs.jsonl', tmp_path / 'best.json'
    rows = runs_of(tune, 'detect', 2, lambda k: k / 100)
    write(runs, rows[:-1])
    monkeypatch.setenv('PATH', '')
    monkeypatch.setattr(tune, 'run_all', lambda path, jobs, processes:
                        write(path, rows) or jobs_seen.extend(jobs))
    jobs_seen = []
    monkeypatch.setattr(sys, 'argv', [
        'tune', str(runs), '--scenes', '2', '--only', 'detect', 'sextractor',
        '--best', str(best)])
    tune.main()
    assert jobs_seen == [(1, 'detect', tune.settings_of('detect')[-1:], None)]
    assert 'sextractor skipped: source-extractor' in capsys.readouterr().out
    written = json.loads(best.read_text())
    assert written['detect']['settings'] == tune.settings_of('detect')[-1]


@pytest.mark.slow
def test_a_scene(tune, tmp_path):
    runs = tmp_path / 'runs.jsonl'
    settings = tune.settings_of('detect')[:2]
    tune.run_all(runs, [(0, 'detect', settings, str(tmp_path))], 1)
    rows = tune.read_lines(runs)
    assert [row['settings'] for row in rows] == settings
    assert all(0 < 2 * row['iou'] / row['n'] < 1 for row in rows)
    # none of the benchmark
    name = next(path.name for path in tmp_path.glob('*.npz'))
    assert name.startswith('validation')
    assert SPLITS['validation'][1] <= SPLITS['benchmark'][0]
