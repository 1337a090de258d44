# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The page on simulated scenes says what the code does.
"""

import re
import runpy
from pathlib import Path

import pytest

from astrodino_seg import truth
from astrodino_seg.cli import _parser
from astrodino_seg.simulate import CONDITIONS, CONTENT
from astrodino_seg.simulate.sky import BAND_SETS

DOCS = Path(__file__).parents[1] / 'docs' / 'training'


@pytest.fixture(scope='module')
def page():
    return ' '.join((DOCS / 'simulate.rst').read_text().split())


def test_ingredients():
    """The tables are those of the code; if not, run the script."""
    written = (DOCS / 'simulate' / 'ingredients.txt').read_text()
    made = runpy.run_path(DOCS / 'simulate' / 'ingredients.py')['tables']()
    assert written == made
    for known in (CONTENT, CONDITIONS):
        for name, rate in known.items():
            row = (f'   * - ``{name}``\n     - {rate.value:g}\n'
                   f'     - {rate.what}\n')
            assert written.count(row) == 1
    assert written.count('   * - ``') == len(CONTENT) + len(CONDITIONS)


def test_numbers(page):
    assert f'at least {truth.ISOPHOTE:g} (``ISOPHOTE``)' in page
    assert (f'total S/N below {truth.MIN_SN:g} or fewer than '
            f'{truth.MIN_PIXELS} pixels') in page
    assert (f'S/N of at least {truth.PRIMARY_SN:g} and '
            f'{truth.PRIMARY_PIXELS} pixels') in page


def test_rates_of_the_examples(page):
    named = re.findall(r"'(\w+)': \d", page)
    assert named
    named += re.findall(r'--rate (\w+)=', page)
    assert set(named) <= {*CONTENT, *CONDITIONS}
    sets = re.findall(r"band_set='(\w+)'|--bands (\w+)", page)
    assert {one or other for one, other in sets} <= set(BAND_SETS)


def test_commands(page):
    """The commands of the page are understood."""
    commands = ['simulate -o field --seed 3 --bands griz',
                'segment field_image.fits',
                'compare field_image.fits --truth field_truth.fits',
                'stamps FOLDER --skies 32 --cosmos COSMOS']
    for command in commands:
        assert f'astrodino {command}' in page
        _parser().parse_args(command.split())
