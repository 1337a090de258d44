# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests of scenes, their owners and the tables of ingredients.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from simulate_helpers import make_canvas

from astrodino_seg.simulate import CONDITIONS, CONTENT
from astrodino_seg.simulate.compose import DRAWN
from astrodino_seg.simulate.scene import (
    Rate,
    happens,
    insert_owner,
    merge_rates,
)

FEW = settings(deadline=None, max_examples=20)


@FEW
@given(st.integers(0, 10**6), st.integers(1, 7))
def test_owners(seed, n):
    """The three strongest of each pixel, against a sort of all."""
    rng = np.random.default_rng(seed)
    canvas = make_canvas((12, 12))
    every = np.zeros((n, 2, 12, 12))
    number = 0
    for _ in range(n):
        h, w = rng.integers(1, 15, 2)
        x0, y0 = rng.integers(-14, 14, 2)
        stamp = rng.uniform(0.1, 9, (2, h, w)).astype(np.float32)
        full = np.zeros((2, 60, 60))
        full[:, 20 + y0:20 + y0 + h, 20 + x0:20 + x0 + w] = stamp
        canvas.add(stamp, x0, y0, x=0)
        if full[:, 20:32, 20:32].any():    # else it is not in the scene
            every[number] = full[:, 20:32, 20:32]
            number += 1
    assert len(canvas.rows) == number
    assert_allclose(canvas.cube, every.sum(axis=0), rtol=1e-5)
    sn = np.concatenate([np.sqrt((every**2).sum(axis=1)),
                         np.zeros((3, 12, 12))])
    order = np.argsort(-sn, axis=0, kind='stable')[:3]
    wanted = np.take_along_axis(sn, order, axis=0)
    assert_allclose(canvas.own_sn, wanted, rtol=1e-5)
    assert_array_equal(canvas.owner, np.where(wanted > 0, order + 1, 0))


def test_insert_owner():
    """First, second, third, or not among the three."""
    owner = np.tile(np.array([7, 8, 9], np.int32)[:, None, None], (1, 1, 4))
    own_sn = np.tile(np.array([6, 4, 2], np.float32)[:, None, None],
                     (1, 1, 4))
    insert_owner(owner, own_sn, 10, np.float32([[7, 5, 3, 1]]))
    assert_array_equal(owner[:, 0].T, [[10, 7, 8], [7, 10, 8], [7, 8, 10],
                                       [7, 8, 9]])
    assert_array_equal(own_sn[:, 0].T, [[7, 6, 4], [6, 5, 4], [6, 4, 3],
                                        [6, 4, 2]])


def test_many_objects():
    """More than a 16-bit integer can number."""
    canvas = make_canvas((4, 4))
    canvas.rows = [{}] * 70_000
    canvas.add(np.ones((2, 1, 1), np.float32), 2, 1)
    assert canvas.owner[0, 1, 2] == 70_001


def test_flux_in_the_frame():
    """A stamp that is cut by the edges counts as far as it is seen."""
    canvas = make_canvas((10, 10))
    stamp = np.ones((2, 6, 6), np.float32)
    stamp[1] = 3
    for x, y in ((2, 2), (-4, 2), (8, -5), (-6, 0)):
        canvas.add(stamp, x, y)
    # the last lies outside and is no object
    assert_allclose([row['flux'] for row in canvas.rows],
                    [[36, 108], [12, 36], [2, 6]])


def test_depth_and_factor():
    """Bands count by their depth, in light and in S/N alike."""
    canvas = make_canvas((8, 9))
    canvas.sky.depth[:] = 1.2, 0.5
    stamp = np.ones((2, 3, 3), np.float16)
    canvas.add(stamp, 1, 1, 10.0)
    assert_allclose(canvas.cube[:, 2, 2], [12, 5])
    assert_allclose(canvas.own_sn[0, 2, 2], 13)
    assert_allclose(canvas.rows[0]['flux'], [108, 45])
    assert canvas.cube.dtype == np.float32
    assert (stamp == 1).all()


def test_scene():
    canvas = make_canvas((8, 9))
    row = {'x': 2.5, 'y': 3, 'cls': 2, 'kind': 'field', 're': 1.5,
           'primary': False}
    canvas.add(np.ones((2, 3, 3), np.float32), 1, 2, **row)
    scene = canvas.scene(0.3)
    assert scene.pixel_scale == 0.3
    assert scene.bands == {'g': .48, 'r': .62}
    assert {k: v[0] for k, v in scene.objects.items() if k != 'flux'} == row
    assert_allclose(scene.objects['flux'], [[9, 9]])
    assert scene.objects['flux'].dtype == np.float32
    nothing = make_canvas((8, 9)).scene()
    assert {len(v) for v in nothing.objects.values()} == {0}
    assert nothing.objects['flux'].shape == (0, 2)
    assert nothing.pixel_scale is None


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
