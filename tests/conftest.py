# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Fixtures for all tests.
"""

import os
from pathlib import Path

import pytest

# small images gain nothing from threads, and threads that wait for a core
# of a busy machine cost ten times as much; before torch is imported
os.environ.setdefault('OMP_NUM_THREADS', '1')


@pytest.fixture(scope='session')
def data_dir():
    """The folder of real images, or the test is skipped."""
    default = Path(__file__).parents[2] / 'shared' / 'data'
    path = Path(os.environ.get('ASTRODINO_DATA', default))
    if not path.is_dir():
        pytest.skip(f'no real images at {path}; set ASTRODINO_DATA')
    return path
