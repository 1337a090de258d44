# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The page on training on labels: its code runs, its numbers are the code's.
"""

import re
import textwrap
import tomllib
from inspect import signature
from pathlib import Path

import pytest
import torch
from photutils.utils.exceptions import NoDetectionsWarning
from test_backbones import dinov2

import astrodino_seg
from astrodino_seg import load_model
from astrodino_seg.inputs.rules import Photographic, WithNoiseUnits
from astrodino_seg.models.foreign import NAMES
from astrodino_seg.models.semantic import HEADS, SemanticModel
from astrodino_seg.train import (
    fit_decision,
    fit_head,
    fit_model,
    train_from_config,
)
from astrodino_seg.train.data import LEAST_CROP
from astrodino_seg.train.recipe import TABLES

ROOT = Path(__file__).parents[1]
PAGE = ROOT / 'docs' / 'training' / 'labels.rst'


@pytest.mark.slow
@pytest.mark.filterwarnings(f'ignore::{NoDetectionsWarning.__module__}.'
                            'NoDetectionsWarning')
def test_snippets(tmp_path, monkeypatch):
    """All of them, one after the other, on fewer and smaller scenes."""
    pytest.importorskip('galsim')
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r'code-block:: python\n\n((?:    .*\n|\n)+)',
                        PAGE.read_text())
    assert len(blocks) == 3
    code = '\n'.join(map(textwrap.dedent, blocks))
    for old, new in (('size=256', 'size=96'), ('range(10)', 'range(3)'),
                     ('n_steps=100', 'n_steps=2')):
        assert old in code
        code = code.replace(old, new)
    exec(compile(code, PAGE.name, 'exec'), {})
    assert isinstance(load_model('semantic/model.safetensors'),
                      SemanticModel)


@pytest.mark.slow
def test_grouping_head_on_another_backbone(tmp_path):
    """Its recipe, on weights in a file, fewer scenes and fewer steps."""
    pytest.importorskip('galsim')
    block, = re.findall(r'code-block:: toml\n\n((?:    .*\n|\n)+)',
                        PAGE.read_text())
    torch.save(dinov2(), tmp_path / 'dinov2.pth')
    name = 'vit_small_patch14_dinov2.lvd142m'
    assert any(re.fullmatch(pattern, name) for pattern in NAMES['timm'])
    code = textwrap.dedent(block)
    for old, new in ((name, str(tmp_path / 'dinov2.pth')),
                     ('n_scenes = 100_000\nsize = 304',
                      'n_scenes = 12\nsize = 96'),
                     ('n_steps = 20_000', 'n_steps = 1\ncrop_size = 64'),
                     ('n_scenes = 1500', 'n_scenes = 10')):
        assert old in code
        code = code.replace(old, new)
    config = tomllib.loads(code)
    # nothing is found after one step, so that there is nothing to decide
    assert set(config.pop('decision')) == {'n_scenes'}
    model = train_from_config(config, tmp_path / 'run')
    saved = load_model(tmp_path / 'run' / 'model.safetensors')
    assert saved.planes == model.planes == WithNoiseUnits(Photographic())


def test_pixels_that_are_left():
    assert f'as long as {LEAST_CROP} pixels a side are left' in (
        PAGE.read_text().replace('\n', ' '))


def test_cost():
    ratio = sum(scale**2 for scale in HEADS['ms'][1])
    assert f'{ratio:g} times' in PAGE.read_text()


@pytest.mark.parametrize('path', [path for path in sorted(
    (Path(astrodino_seg.__file__).parent / 'train' / 'recipes').iterdir())
    if '[views]' not in path.read_text()], ids=lambda path: path.stem)
def test_recipes(path):
    """Their tables and keys are known, and the page tells of each table."""
    recipe = tomllib.loads(path.read_text())
    assert set(recipe) <= set(TABLES)
    for name, functions in (('fit', [fit_model]), ('decision', [fit_decision]),
                            ('head', [fit_head, fit_model])):
        known = {key for one in functions for key in signature(one).parameters}
        assert set(recipe.get(name, ())) <= known | {'threads'}
    for name in TABLES:
        assert f'[{name}]' in PAGE.read_text()
