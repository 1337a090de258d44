# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Some files that are changed, and some commands that are killed;
``benchmarks/trust`` tries many more.
"""

import os

import pytest
from benchmark_toys import script

pytestmark = pytest.mark.skipif(not hasattr(os, 'fork'),
                                reason='commands are run in forked processes')


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp('trust') / 'files'
    script('trust.forked').make_files(folder)
    return folder


@pytest.mark.parametrize(('kind', 'seed'), [
    ('image.fits', 0), ('labels.fits', 0), ('encoder.safetensors', 0),
    ('train.toml', 0), ('table.csv', 0), ('edits.reg', 0)])
def test_changed_file(whole, kind, seed):
    what, ended = script('trust.files').try_one(kind, seed, whole)
    assert what in ('refused', 'used'), ended


def test_killed(whole):
    kills = script('trust.kills').Kills('embed', whole)
    assert set(kills.whole) == {'x.fits'}
    for share in (0.5, 0.95):
        _, wrong = kills.kill(share * kills.seconds)
        assert not wrong
