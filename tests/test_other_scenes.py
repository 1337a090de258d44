# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the command that scores finders on scenes of another generator.
"""

import sys

import numpy as np
import pytest
from benchmark_toys import script
from numpy.testing import assert_allclose, assert_array_equal
from simulate_helpers import check_truth

galsim = pytest.importorskip('galsim')


@pytest.fixture(scope='module')
def other():
    return script('finders.other_scenes')


def test_scene(other):
    image, truth = other.other_scene(4)
    check_truth(image, truth)
    again, _ = other.other_scene(4)
    assert_array_equal(image.cube, again.cube)
    assert truth.objects['primary'].any()
    assert set(truth.objects['kind'][truth.objects['primary']]) <= set(
        other.KINDS)
    # a flat sky, white noise and the light of the truth
    noise = image.cube - truth.light - 100
    assert_allclose(noise.mean(axis=(1, 2)), 0, atol=0.02)
    assert_allclose(noise.std(axis=(1, 2)), 1, atol=0.02)
    steps = noise[:, 1:] - noise[:, :-1]
    assert_allclose(steps.std(axis=(1, 2)), 2**0.5, atol=0.02)


def test_knots(other):
    """Points of the share that is asked for, about the disc's centre."""
    rng, deviate = np.random.default_rng(0), galsim.BaseDeviate(5)
    parts = other.large(rng, deviate, 'knotty', 20.0)
    assert_allclose(sum(share for _, share, _ in parts), 1)
    knots, share, _ = parts[2]
    assert 0.05 <= share <= 0.4
    points = knots.points
    assert 10 <= len(points) < 80
    # half of an exponential disc is within its half-light radius
    assert 10 < np.median(np.hypot(*points.T)) < 30
    assert len(other.large(rng, deviate, 'smooth', 20.0)) == 2


def test_command(other, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', [
        'other_scenes', str(tmp_path), 'photutils', '--scenes', '2'])
    other.main()
    text = (tmp_path / 'scores.rst').read_text()
    assert '   * - photutils\n' in text
    assert text in capsys.readouterr().out
    assert (tmp_path / 'scores.csv').exists()
