# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The commands that the docs show are understood.
"""

import re
import shlex
from pathlib import Path

import pytest

from astrodino_seg.cli import _parser

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
