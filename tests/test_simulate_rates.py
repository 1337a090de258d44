# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests of the tables of ingredients.
"""

import numpy as np
import pytest

from astrodino_seg.simulate import CONDITIONS, CONTENT
from astrodino_seg.simulate.compose import DRAWN
from astrodino_seg.simulate.scene import Rate, happens, merge_rates

#: Left out by default, so that seeds give what they gave before.
NEW_CONTENT = {'any_psf', 'bright_knots', 'clusters', 'faint_disc', 'filling',
               'moderate', 'nucleus', 'star_field'}
NEW_CONDITIONS = {'bad_lines', 'counts', 'edge', 'filled', 'negated',
                  'pedestal', 'photographic', 'quantised', 'saturated_odd',
                  'scattered', 'single_band', 'smooth_noise', 'source_noise',
                  'stretched'}


def test_merge():
    known = {'one': Rate(2.5, 'a'), 'two': Rate(1, 'b')}
    assert merge_rates(None, known) == {'one': 2.5, 'two': 1}
    assert merge_rates({}, known) == {'one': 2.5, 'two': 1}
    merged = merge_rates({'two': 0}, known)
    assert merged == {'one': 2.5, 'two': 0.0}
    assert isinstance(merged['two'], float)
    assert known['two'].value == 1          # the table stays


@pytest.mark.parametrize('known', [CONTENT, CONDITIONS])
def test_tables(known):
    """Every ingredient has a default and says what it is."""
    for rate in known.values():
        assert rate.value >= 0
        assert len(rate.what) > 5
    absent = {name for name, rate in known.items() if rate.value == 0}
    assert absent == (NEW_CONTENT if known is CONTENT else NEW_CONDITIONS)
    assert merge_rates(None, known) == {
        name: rate.value for name, rate in known.items()}


def test_happens():
    """As often as the rate says; a rate of 0 draws nothing."""
    rng, other = np.random.default_rng(0), np.random.default_rng(0)
    assert not any(happens(rng, 0.0) for _ in range(9))
    assert rng.random() == other.random()
    assert all(happens(rng, 1.0) for _ in range(9))
    assert abs(np.mean([happens(rng, .3) for _ in range(2000)]) - .3) < .05


def test_names():
    # so that one option of the command is enough
    assert not set(CONTENT) & set(CONDITIONS)
    assert set(DRAWN) <= set(CONTENT)
    # shares of the kinds of large galaxies
    assert 0.8 < sum(CONTENT[kind].value for kind in DRAWN) < 1.3


@pytest.mark.parametrize('value', [-0.1, float('nan'), float('inf'), 'many',
                                   None, [1]])
def test_bad_value(value):
    with pytest.raises(ValueError, match=(
            r"rates\['star'\] must be a number of 0 or more, got ")):
        merge_rates({'star': value}, CONTENT)


def test_unknown_name():
    with pytest.raises(ValueError, match=(
            r"rates must be some of \['any_psf', .*, got 'quasar'")):
        merge_rates({'quasar': 1}, CONTENT)
