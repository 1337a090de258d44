# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The page on training on labels: its code runs, its numbers are the code's.
"""

import re
import textwrap
import tomllib
from pathlib import Path

import pytest
from photutils.utils.exceptions import NoDetectionsWarning

import astrodino_seg
from astrodino_seg import load_model
from astrodino_seg.semantic import HEADS, SemanticModel
from astrodino_seg.train.recipe import TABLES

ROOT = Path(__file__).parents[1]
PAGE = ROOT / 'docs' / 'training.rst'


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


def test_cost():
    ratio = sum(scale**2 for scale in HEADS['ms'][1])
    assert f'{ratio:g} times' in PAGE.read_text()


@pytest.mark.parametrize('path', sorted(
    (Path(astrodino_seg.__file__).parent / 'train' / 'recipes').iterdir()),
    ids=lambda path: path.stem)
def test_recipes(path):
    """Their tables are known, and the page tells of each table."""
    assert set(tomllib.loads(path.read_text())) <= set(TABLES)
    for name in TABLES:
        assert f'[{name}]' in PAGE.read_text()
