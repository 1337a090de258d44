# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the pretrain.schedules module, at steps computed by hand.
"""

import math

import pytest

from astrodino_seg.train.schedules import cosine, learning_rate, ramp


def test_ramp():
    assert [ramp(step, 4, 0.04, 0.08) for step in (0, 1, 2, 4, 9)] == (
        pytest.approx([0.04, 0.05, 0.06, 0.08, 0.08]))
    assert ramp(0, 0, 0.04, 0.07) == 0.07           # no warm-up


def test_cosine():
    # 0, 60, 90, 180 degrees of 7 steps
    found = [cosine(step, 7, 0.996, 1.0) for step in (0, 2, 3, 6)]
    assert found == pytest.approx([0.996, 0.997, 0.998, 1.0])
    assert cosine(6, 7, 0.04, 0.4) == 0.4
    assert cosine(0, 1, 0.2, 0.3) == 0.2


def test_learning_rate():
    rates = [learning_rate(step, 11, peak=0.8, warmup=3, end=0.2)
             for step in range(11)]
    assert rates[:4] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert rates[10] == pytest.approx(0.2)
    middle = 0.2 + 0.6 * 0.5 * (1 + math.cos(math.pi * 4 / 7))
    assert rates[7] == pytest.approx(middle)
    assert rates[3:] == sorted(rates[3:], reverse=True)
    assert learning_rate(0, 5, peak=0.8, warmup=0) == 0.8
