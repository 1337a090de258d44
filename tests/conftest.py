# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Fixtures for all tests.
"""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# small images gain nothing from threads, and threads that wait for a core
# of a busy machine cost ten times as much; before torch is imported
os.environ.setdefault('OMP_NUM_THREADS', '1')

# the suite draws the same few examples each time, what runs at night many
COMMON = {'deadline': None, 'print_blob': True,
          'suppress_health_check': list(HealthCheck)}
settings.register_profile('short', max_examples=12, derandomize=True,
                          database=None, **COMMON)
settings.register_profile('nightly', max_examples=int(os.environ.get(
    'HYPOTHESIS_EXAMPLES', 10_000)), **COMMON)
settings.load_profile(os.environ.get('HYPOTHESIS_PROFILE', 'short'))


@pytest.fixture(scope='session')
def data_dir():
    """The folder of real images, or the test is skipped."""
    default = Path(__file__).parents[2] / 'shared' / 'data'
    path = Path(os.environ.get('ASTRODINO_DATA', default))
    if not path.is_dir():
        pytest.skip(f'no real images at {path}; set ASTRODINO_DATA')
    return path
