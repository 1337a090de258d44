# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Some files that are changed, some commands that are killed, and a few images
segmented twice; ``benchmarks/trust`` tries many more.
"""

import os

import numpy as np
import pytest
from benchmark_toys import script
from numpy.testing import assert_allclose
from photutils.segmentation import detect_sources

from astrodino_seg import as_image

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


def test_soak(capsys):
    assert script('trust.soak').soak(3, 2) == 0
    rows = capsys.readouterr().out.splitlines()
    assert rows[0].split() == ['images', 'objects', 'MiB', 'seconds']
    assert [row.split()[0] for row in rows[1:]] == ['1', '2', '3', '2', '3']
    assert rows[3].split()[:2] == rows[5].split()[:2]


def test_compare_answers():
    """One object is kept, one moves, one goes, one is at the edge."""
    stability = script('trust.stability')
    own, other = np.zeros((2, 60, 60), int)
    for k, x in enumerate((0, 10, 25, 40), start=1):
        own[5:15, x:x + 10] = k
    other[5:15, 10:20] = 7
    other[10:20, 25:35] = 3
    found = stability.statistic([[stability.compare(own, other)]])
    assert_allclose([found[key] for key in stability.COLUMNS],
                    [2 / 3, 1 / 3, 2 / (3 + 2)])


def test_nothing_changes():
    """Pixels above a limit are the same however one looks."""
    stability = script('trust.stability')
    cube = np.zeros((1, 90, 130))
    for k in range(1, 8):
        cube[0, 10 * k:10 * k + k, 12 * k:12 * k + 2 * k] = 9
    found = list(stability.looks(
        as_image(cube), lambda image: detect_sources(image.cube[0], 5, 1)))
    assert [change for change, _ in found] == [
        'shift (5, 7)', 'shift (16, 16)', *['flips'] * 2,
        *['quarter turns'] * 2]
    for _, one in found:
        assert stability.statistic([[one]]) == {
            'changed': 0, 'lost': 0, 'PQ': 1}
