# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the command that draws the dial's curve.
"""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from benchmark_toys import script
from numpy.testing import assert_allclose

from astrodino_seg.evaluate.baselines import TUNED
from astrodino_seg.evaluate.benchmark import scene_scores
from astrodino_seg.evaluate.tables import summary
from astrodino_seg.simulate import make_scene, observe


@pytest.fixture(scope='module')
def dial():
    return script('dials.dial_curve')


def row(dial, *values):
    return dict(zip(dial.COUNTS, values))


def test_settings(dial):
    """Both ends of each dial, and what is used in other tables."""
    assert set(dial.DIALS) == set(dial.STYLES) == set(dial.TITLES)
    for name, (parameter, values) in dial.DIALS.items():
        assert list(values) == sorted(set(values))
        assert values[-1] == 1
        if name != 'dino':
            assert TUNED[name][parameter] in values
    assert 0 in dial.DIALS['dino'][1]


def test_shares_by_hand(dial):
    scenes = [row(dial, 2, 1, 1, 0, 4, 3), row(dial, 0, 0, 0, 0, 1, 0),
              row(dial, 3, 1, 0, 1, 0, 0)]
    assert dial.shares(scenes) == {'frag': 2 / 5, 'sep': 3 / 5, 'ok': 1 / 5,
                                   'lost': 1 / 5}
    found = dial.shares(scenes[1:2])
    assert np.isnan(found['frag'])
    assert found['sep'] == 0


def test_shares_are_those_of_the_benchmark(dial):
    image, truth = observe(make_scene(1_000_003, size=128), [1, 1])
    labels = np.where(truth.labels > 0, 1 + truth.labels // 2, 0)
    record = scene_scores(truth, labels, image)
    found, wanted = dial.shares([dial.counts(record)]), summary([record])
    for name in dial.SHARES:
        assert_allclose(found[name], wanted[name])


def test_counts_are_kept(dial, tmp_path):
    path = tmp_path / 'counts.csv'
    assert dial.read_counts(path) == {}
    rows = {3: row(dial, 2, 1, 1, 0, 4, 3), 1: row(dial, 5, 0, 2, 1, 7, 0)}
    for scene, one in rows.items():
        dial.add_counts(path, scene, one)
    assert dial.read_counts(path) == rows
    whole = path.read_text()
    # a kill has cut the last line
    path.write_text(whole + '4,1,2')
    assert dial.read_counts(path) == rows
    assert path.read_text() == whole
    path.write_text('scene,n_pri')
    assert dial.read_counts(path) == {}
    dial.add_counts(path, 3, rows[3])
    assert dial.read_counts(path) == {3: rows[3]}


@pytest.fixture
def toy(dial, monkeypatch):
    """Three settings of each finder, of which nothing is found but counts."""
    asked = []
    monkeypatch.setattr(dial, 'DIALS', {
        name: (parameter, (0.01, TUNED.get(name, {}).get('contrast', 0.5), 1))
        for name, (parameter, _) in dial.DIALS.items()})
    monkeypatch.setattr(dial, 'SceneLibrary', lambda *args, **kwargs: None)
    monkeypatch.setattr(dial, 'split_scene', lambda library, k: (k, k))
    monkeypatch.setattr(dial, 'detection_image', lambda image: (image, None))
    monkeypatch.setattr(dial, 'labels_by_network',
                        lambda network, looks, merge: merge)
    monkeypatch.setattr(dial, 'labels_by_tool',
                        lambda name, contrast, sn, mask: contrast)
    monkeypatch.setattr(dial, 'scene_scores', lambda truth, labels, image: (
        asked.append((truth, labels)) or labels))
    monkeypatch.setattr(dial, 'counts', lambda labels: row(
        dial, 10, round(10 * labels), 1, 0, 20, round(20 * labels)))
    return asked


def network(digest='one'):
    return SimpleNamespace(digest=digest, look=lambda *args: None)


def test_only_what_is_left_is_counted(dial, toy, tmp_path):
    first = dial.count_all(network(), 2, tmp_path, dial.DIALS)
    assert len(toy) == 2 * 9
    assert len(list(tmp_path.glob('*.csv'))) == 9
    assert dial.count_all(network(), 2, tmp_path, dial.DIALS) == first
    assert len(toy) == 2 * 9
    # one more scene; then other weights, which traditional tools have not
    dial.count_all(network(), 3, tmp_path, dial.DIALS)
    assert len(toy) == 3 * 9
    dial.count_all(network('other'), 3, tmp_path, dial.DIALS)
    assert len(toy) == 3 * 9 + 3 * 3
    # one line is lost
    path = next(tmp_path.glob('sep-*-contrast-1.csv'))
    path.write_text('\n'.join(path.read_text().splitlines()[:-1]) + '\n')
    dial.count_all(network(), 3, tmp_path, dial.DIALS)
    assert toy[-1] == (2, 1)
    assert len(toy) == 3 * 9 + 3 * 3 + 1


def test_command(dial, toy, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(dial, 'Network', lambda *args: network())
    monkeypatch.setattr(sys, 'argv', [
        'dial_curve', str(tmp_path), '--scenes', '3', '--merge', '0.4'])
    dial.main()
    out = capsys.readouterr().out
    assert 'Of 30 large galaxies and 60 companions in 3 scenes' in out
    # frag and sep are the setting itself, in each scene the same
    assert ('   * - dino\n     - merge 0.4 (used)\n     - 0.400 ± 0.000\n'
            '     - 0.400 ± 0.000\n') in out
    assert out.count('(used)') == 3
    assert (tmp_path / 'dial_curve.txt').read_text() in out + '\n'
    assert (tmp_path / 'dial_curve.png').stat().st_size > 5000
