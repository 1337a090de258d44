# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Fixtures for all tests.
"""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope='session')
def data_dir():
    """The folder of real images, or the test is skipped."""
    default = Path(__file__).parents[2] / 'shared' / 'data'
    path = Path(os.environ.get('ASTRODINO_DATA', default))
    if not path.is_dir():
        pytest.skip(f'no real images at {path}; set ASTRODINO_DATA')
    return path
