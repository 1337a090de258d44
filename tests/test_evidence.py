# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for what ``evidence.py`` and ``ablations.py`` of the benchmarks compute.
"""

import argparse
import tomllib
from inspect import signature
from pathlib import Path

import numpy as np
import pytest
from benchmark_toys import script
from numpy.testing import assert_allclose

import astrodino_seg
from astrodino_seg.train import fit_decision, fit_model
from astrodino_seg.train.recipe import TABLES, make_model

ablations, evidence = map(script, (
    'ablations.ablations', 'pretraining.evidence'))
RECIPE = (Path(astrodino_seg.__file__).parent / 'train' / 'recipes'
          / 'grouping_tiny.toml')


def made_up(name, shares, groups=None, task='class'):
    """A row of the table of evidence."""
    shares = np.asarray(shares, float)
    groups = range(len(shares)) if groups is None else groups
    return {'backbone': name, 'task': task, 'probe': 'knn', 'n': len(shares),
            'classes': 3, 'score': np.nanmean(shares), 'std': 0.0,
            'low': 0.1, 'high': 0.9, 'shares': evidence.dump(shares),
            'groups': ' '.join(map(str, groups))}


def test_gain_is_paired():
    """The mean difference of the items that both were tested on."""
    random = [made_up('random#0', [0, 1, 0, 1]),
              made_up('random#1', [0, 1, 1, 0])]
    own = [made_up('x', [0.5, 1, 1, np.nan])]
    gain, low, high = evidence.gain_of(own, random)
    assert_allclose(gain, (0.5 + 0 + 0.5) / 3, rtol=1e-3)
    assert low < gain < high


def test_gain_of_groups():
    """Nothing scatters if all groups have the same difference."""
    groups = [99998, 99998, 99999, 99999]       # not rounded to one
    _, low, high = evidence.gain_of(
        [made_up('x', [1, 0.5, 0.5, 1], groups)],
        [made_up('random', [0, 0.5, 0.5, 0], groups)])
    assert_allclose((low, high), (0.5, 0.5))


def test_gain_of_the_segmentation():
    """The range over the splits."""
    found = evidence.gain_of(
        [made_up('x', [0.3, 0.5, 0.4], task='segmentation')],
        [made_up('random', [0.2, 0.3, 0.4], task='segmentation')])
    assert_allclose(found, (0.1, 0, 0.2), atol=1e-12)


def test_rows_in_a_file(tmp_path):
    """Those of a backbone that was not finished are measured again."""
    rows = [made_up('x', [0.25, np.nan]),
            made_up('x', [0.5], task=evidence.LAST), made_up('half', [1, 0])]
    evidence.write_rows(tmp_path / 'rows.csv', rows)
    found = evidence.read_rows(tmp_path / 'rows.csv', evidence.LAST)
    assert [one['backbone'] for one in found] == ['x', 'x']
    assert [one['shares'] for one in found] == ['0.25 nan', '0.5']


def test_tables():
    rows = [made_up('random#0', [0, 1]), made_up('random#1', [1, 1]),
            made_up('x', [1, 1])]
    text = evidence.table(rows, evidence.score_of)
    assert '   * - random\n     - 0.750 (0.100 to 0.900)' in text
    gains = evidence.table(rows, evidence.gain_of, '+')
    assert '* - random' not in gains
    assert '   * - x\n     - +0.250' in gains
    # without random weights there are scores, and no gains
    assert '1.000' in evidence.table(rows[2:], evidence.score_of)
    assert '     -' in evidence.table(rows[2:], evidence.gain_of, '+')


def test_skies_are_in_train_or_in_test():
    sky_of = np.random.default_rng(0).integers(0, 20, 500)
    for train, test in evidence.splits_by_sky(sky_of, 20, 3):
        assert not set(sky_of[train]) & set(sky_of[test])
        assert len(train) + len(test) == 500


@pytest.mark.parametrize('name', sorted(set(ablations.VARIANTS) - {'dino'}))
def test_variants(name):
    """Each makes a model, and differs from the recipe in what it says."""
    args = argparse.Namespace(steps=40, dino=None)
    base = tomllib.loads(RECIPE.read_text())
    config = ablations.variant(base, name, 3, args)
    full = ablations.variant(base, 'full', 3, args)
    assert config['fit']['n_steps'] == 40
    assert config['fit']['seed'] == 3
    assert (config == full) == (name == 'full')
    # of nothing that a recipe cannot have
    assert set(config) <= set(TABLES)
    assert set(config['fit']) <= {*signature(fit_model).parameters,
                                  'threads'}
    assert set(config.get('decision', {})) <= set(
        signature(fit_decision).parameters)
    assert ('decision' in config) == isinstance(
        config['model'].get('head', {}), dict)
    model = make_model(config['model'])
    start = make_model(full['model'])
    if name != 'random':
        for key, value in start.vit.state_dict().items():
            assert (model.vit.state_dict()[key] == value).all()
    if name == 'random':
        assert model.spec['vit'].items() <= start.spec['vit'].items()
        assert (model.vit.patch_embed.proj.weight
                != start.vit.patch_embed.proj.weight).any()


def test_another_recipe_is_refused(tmp_path):
    (tmp_path / 'recipe.json').write_text('{}')
    with pytest.raises(SystemExit, match='is of another recipe'):
        ablations.train({'fit': {}}, tmp_path)
