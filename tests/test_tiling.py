# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the tiling module.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from astrodino_seg.predict.pyramid import taper, tiles

FEW = settings(deadline=None, max_examples=40)
SIDE = st.integers(1, 300)


@st.composite
def layouts(draw):
    """Sizes, margins and steps that are allowed."""
    step = draw(st.sampled_from([1, 2, 16]))
    margin = draw(st.integers(0, 64 // step)) * step
    return {'size': 2 * margin + 16 * draw(st.integers(1, 12)),
            'margin': margin, 'step': step}


@FEW
@given(SIDE, SIDE, layouts())
def test_cover_once(ny, nx, layout):
    step, margin = layout['step'], layout['margin']
    count = np.zeros((ny, nx), int)
    for tile in tiles((ny, nx), **layout):
        count[tile.core] += 1
        for outer, core, inner, n in zip(*tile, (ny, nx)):
            assert 0 <= outer.start <= core.start < core.stop <= outer.stop
            assert outer.stop <= n
            assert outer.stop - outer.start <= layout['size']
            assert outer.start % step == core.start % step == 0
            # all but the image's own edges have their margin
            assert outer.start == 0 or core.start - outer.start >= margin
            assert outer.stop == n or outer.stop - core.stop >= margin
            assert inner.start == core.start - outer.start
            assert inner.stop - inner.start == core.stop - core.start
    assert (count == 1).all()


@FEW
@given(SIDE, SIDE, layouts())
def test_rebuild(ny, nx, layout):
    """What is read in tiles and kept in cores is the image."""
    image = np.arange(ny * nx).reshape(ny, nx)
    out = np.zeros_like(image)
    for tile in tiles(image.shape, **layout):
        out[tile.core] = image[tile.outer][tile.inner]
    assert_array_equal(out, image)


def test_one_tile():
    tile, = tiles((640, 100), size=640)
    assert tile.outer == tile.core == tile.inner == (slice(0, 640),
                                                     slice(0, 100))


def test_hand():
    """80 pixels do not fit in 64; 64 - 2 * 16 are left in each of three."""
    found = [(t.outer[0].start, t.core[0].start, t.core[0].stop,
              t.outer[0].stop)
             for t in tiles((80, 48), size=64, margin=16, step=16)]
    assert found == [(0, 0, 32, 48), (16, 32, 64, 80), (48, 64, 80, 80)]


@FEW
@given(SIDE, layouts())
def test_few_and_even(n, layout):
    """No more tiles than needed, and of nearly one size."""
    step, margin, size = (layout[k] for k in ('step', 'margin', 'size'))
    cores = [t.core[1].stop - t.core[1].start
             for t in tiles((1, n), **layout)]
    assert len(cores) <= max(-(-n // (size - 2 * margin)), 1)
    assert len(set(cores[:-1])) <= 1
    assert (len(cores) == 1) == (n <= size)


@FEW
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 6),
       st.integers(0, 4))
def test_taper_positive(rows, columns, n, margin):
    """Every cell has a positive weight, so averages are defined."""
    shape = 16 * rows, 16 * columns
    total = np.zeros((rows, columns))
    for tile in tiles(shape, size=16 * (2 * margin + n), margin=16 * margin):
        weight = taper(tile, shape)
        assert weight.dtype == np.float32
        assert (weight > 0).all()
        assert (weight <= 1).all()
        ys, xs = (slice(s.start // 16, s.stop // 16) for s in tile.outer)
        assert weight.shape == total[ys, xs].shape
        total[ys, xs] += weight
    assert (total > 0).all()


def test_taper_sum():
    """Where tiles follow each other evenly, their weights add up to one."""
    shape = 4 * 64, 2 * 64
    total = np.zeros([n // 16 for n in shape])
    cut = tiles(shape, size=112, margin=16)
    for tile in cut:
        ys, xs = (slice(s.start // 16, s.stop // 16) for s in tile.outer)
        total[ys, xs] += taper(tile, shape)
    assert len(cut) == 8
    assert_allclose(total, 1, rtol=1e-6)


def test_taper_hand():
    first, last = tiles((96, 32), size=80, margin=16)
    up = [0.25, 0.75]          # two cells of overlap
    assert_allclose(taper(first, (96, 32))[:, 0], [1, 1, *up[::-1]])
    assert_allclose(taper(last, (96, 32))[:, 1], [*up, 1, 1])
    whole, = tiles((64, 32), size=64, margin=16)
    assert_array_equal(taper(whole, (64, 32)), np.ones((4, 2)))


@pytest.mark.parametrize(('size', 'margin'), [
    (96, 48), (100, 16), (16, 16), (96, 8)])
def test_bad_size(size, margin):
    match = (r'size and margin must be multiples of 16, and size at least '
             rf'.* got size={size}, margin={margin}$')
    with pytest.raises(ValueError, match=match):
        tiles((500, 500), size=size, margin=margin)
