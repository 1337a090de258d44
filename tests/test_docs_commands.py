# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The commands that the docs show are understood, and their code runs.
"""

import re
import shlex
import textwrap
from pathlib import Path

import pytest
from astropy.table import Table
from helpers import blobs

from astrodino_seg import DinoSegmenter
from astrodino_seg.catalog import FLAGS
from astrodino_seg.cli import _parser
from astrodino_seg.image import write_image

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / 'README.rst', *sorted((ROOT / 'docs').rglob('*.rst'))]


def commands(page):
    """All lines of literal blocks that run ``astrodino``."""
    text = page.read_text().replace('\\\n', ' ')
    return [shlex.split(line, comments=True)[1:] for line in re.findall(
        r'^ +(astrodino .*)$', text, re.MULTILINE)]


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_commands(page, capsys):
    for words in commands(page):
        try:
            _parser().parse_args(words)
        except SystemExit:
            pytest.fail(f'astrodino {" ".join(words)}: '
                        f'{capsys.readouterr().err}')


def test_there_are_commands():
    shown = {words[0] for page in PAGES for words in commands(page)}
    assert {'segment', 'embed', 'search', 'probe', 'attention', 'fetch',
            'pretrain'} <= shown


@pytest.mark.parametrize('name', ['README', 'docs/using/attention',
                                  'docs/using/compare',
                                  'docs/using/embeddings',
                                  'docs/using/photometry',
                                  'docs/using/quickstart',
                                  'docs/using/report'])
def test_blocks(name, tmp_path, monkeypatch):
    """All Python of a page, on images and weights that are there."""
    monkeypatch.chdir(tmp_path)
    image = blobs(slice(6, 102), slice(8, 104))
    segm = DinoSegmenter()(image)
    for path in ('cube.fits', 'field.fits', 'cutouts/one.fits'):
        Path(path).parent.mkdir(exist_ok=True)
        write_image(path, image)
    Table({'x': range(20, 80), 'y': range(20, 80)}).write('catalogue.csv')
    names = {'data': image, 'image': image, 'segm': segm,
             'threshold': 1.0, **dict(zip('griz', image.cube))}
    for block in re.findall(r'code-block:: python\n\n((?: {4}.*\n|\n)+)',
                            (ROOT / f'{name}.rst').read_text()):
        for old, new in (("'dino.pth'", 'None'), ('size=224', 'size=64'),
                         ("'vit_small_patch8_224.dino'", 'None'),
                         ('100gaussians_image()',
                          '100gaussians_image()[:128, :128]')):
            block = block.replace(old, new)
        exec(compile(textwrap.dedent(block), name, 'exec'), names)


def test_flags():
    """The quickstart has all bits of the table."""
    page = (ROOT / 'docs' / 'using' / 'quickstart.rst').read_text()
    found = re.findall(r'^``(\w+)`` +(\d+) ', page, re.M)
    assert {name: int(bit) for name, bit in found} == FLAGS


@pytest.mark.parametrize('page', PAGES[1:], ids=lambda page: page.name)
def test_references(page):
    """What a page refers to by a role is on the page of the API."""
    module = 'astrodino_seg'
    known = {line.split('(')[0] for line in (
        ROOT / 'tests' / 'api.txt').read_text().splitlines()}
    for current, name in re.findall(
            r'^\.\. currentmodule:: (\S+)|:(?:func|class|meth|exc|attr):'
            r'`~?([\w.]+)`', page.read_text(), re.M):
        module = current or module
        if name and name.split('.')[0] not in ('photutils', 'torch'):
            assert (name if name.startswith('astrodino_seg.')
                    else f'{module}.{name}') in known
