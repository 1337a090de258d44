# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests of how the network is run, in tiles, at each level.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from level_toys import SMALL, small_model
from numpy.testing import assert_allclose, assert_array_equal
from test_backbones import dinov2

from astrodino_seg.image import as_image
from astrodino_seg.inputs.rules import WithNoiseUnits
from astrodino_seg.models import load_backbone
from astrodino_seg.models.backbone import has_bfloat16
from astrodino_seg.models.head import InstanceHead
from astrodino_seg.models.load import Model
from astrodino_seg.predict import pyramid
from astrodino_seg.predict.pyramid import look
from astrodino_seg.predict.tiles import CONTEXT, taper, tiles


def planes(shape=(64, 80), seed=0):
    rng = np.random.default_rng(seed)
    out = rng.normal(0, 1, (5, *shape)).astype(np.float32)
    out[-1] = 1
    return out


def parts(level):
    return level.embedding, level.sky, level.logits, level.vote


@pytest.mark.parametrize('shape', [(64, 64), (50, 61), (5, 7), (1, 1)])
def test_any_shape(shape):
    """Padded to whole patches, two at least, and cut again."""
    model, x = small_model(), planes(shape)
    level = look(model, x)[0]
    padded = np.pad(x, [(0, 0), *((0, max(-(-side // 16), 2) * 16 - side)
                                  for side in shape)])
    with torch.no_grad():
        maps = model(torch.from_numpy(padded)[None],
                     torch.zeros(1, dtype=torch.long))
    embedding, rest, classes, vote = model.head.split_pixels(maps.pixels[0])
    ny, nx = shape
    assert_allclose(level.sky, rest[:ny, :nx], atol=1e-5)
    assert_allclose(level.embedding, embedding[:ny, :nx], atol=1e-5)
    assert_allclose(level.vote, vote[:ny, :nx], atol=1e-4)
    assert_allclose(level.probabilities,
                    classes.softmax(-1).permute(2, 0, 1)[:, :ny, :nx],
                    atol=1e-5)
    assert_array_equal(level.channels, x)


def test_input_unchanged():
    x = planes()
    before = x.copy()
    look(small_model(), x)
    assert_array_equal(x, before)


def test_other_planes():
    with pytest.raises(ValueError, match='channels must be the 5 planes of '
                                         'the model, got 4'):
        look(small_model(), planes()[:4])


def test_progress(capsys):
    look(small_model(), planes(), progress=True)
    assert 'segmenting' in capsys.readouterr().err
    look(small_model(), planes())
    assert capsys.readouterr().err == ''


def test_bfloat16():
    """As exact as its eight bits, and float32 where steps would show."""
    model, x = small_model(), planes((96, 80))
    exact = look(model, x)[0]
    model.in_bfloat16 = True
    found = look(model, x)[0]
    differ = False
    for one, wanted in zip(parts(found), parts(exact)):
        assert one.dtype == np.float32
        scale = np.abs(wanted).max()
        assert np.median(np.abs(one - wanted)) < 2**-6 * scale
        differ |= bool((one != wanted).any())
    assert differ
    vote = torch.from_numpy(found.vote)
    assert (vote != vote.bfloat16()).any()


@pytest.mark.parametrize('axis', [-1, -2])
def test_symmetric(axis):
    """The mean over flips, which is flipped as the image is."""
    model, x = small_model(), planes((64, 80))
    some = (), (-1,), (-2,), (-2, -1)
    level, turned = (look(model, one, min_heat=0.01, symmetric=True)[0]
                     for one in (x, np.flip(x, axis).copy()))
    assert_allclose(level.sky, np.mean(
        [np.flip(look(model, np.flip(x, axes).copy())[0].sky, axes)
         for axes in some], axis=0), atol=1e-5)
    assert_allclose(np.flip(turned.sky, axis), level.sky, atol=1e-5)
    sign = np.where(np.array([-1, -2]) == axis, -1, 1)
    assert_allclose(np.flip(turned.vote, axis - 1), sign * level.vote,
                    atol=1e-4)
    place, offset = np.stack([level.x, level.y], -1), (sign < 0) * [79, 63]
    there = turned.x[:, None], turned.y[:, None]
    same = np.hypot(*(a - b for a, b in zip(
        there, (sign * place + offset).T))).argmin(axis=0)
    assert len(np.unique(same)) == len(level.x) == len(turned.x) > 5
    assert_allclose(turned.centre[same], sign * level.centre + offset,
                    atol=1e-3)
    for key in ('heat', 'kernel', 'radius', 'classes', 'descriptor'):
        assert_allclose(getattr(turned, key)[same], getattr(level, key),
                        atol=1e-4)
    assert_allclose(turned.matrix[same], level.matrix * [1, -1, 1],
                    rtol=1e-3, atol=1e-6)


def test_has_bfloat16(monkeypatch):
    monkeypatch.setattr(torch.cpu, '_is_avx512_bf16_supported', lambda: True)
    assert has_bfloat16('cpu')
    assert not has_bfloat16('cuda')
    # it is private, and may go
    monkeypatch.delattr(torch.cpu, '_is_avx512_bf16_supported')
    assert not has_bfloat16('cpu')


def test_average_of_tokens(monkeypatch):
    """Tokens are the weighted mean over the tiles that hold them."""
    shape, size, seen = (320, 32), 176, []

    def tokens(x):
        out = torch.ones(len(x), 48, x.shape[2] // 16, x.shape[3] // 16)
        return out * x.mean(dim=(1, 2, 3), keepdim=True)

    model = small_model()
    cells = InstanceHead.cells
    monkeypatch.setattr(model, 'tokens', tokens)
    monkeypatch.setattr(
        model.head, 'cells',
        lambda x, tokens, binned: [seen.append(tokens), cells(
            model.head, x, tokens, binned)][1])
    look(model, planes(shape), tile_size=size)
    cut = tiles(shape, size=size, margin=CONTEXT)
    assert len(cut) > 2
    top, norm = np.zeros((2, 20))
    for tile in cut:
        weight = taper(tile, shape)[:, 0]
        rows = slice(tile.outer[0].start // 16, tile.outer[0].stop // 16)
        top[rows] += planes(shape)[:, *tile.outer].mean() * weight
        norm[rows] += weight
    assert_allclose(seen[0][0, 5, :, 0], top / norm, rtol=1e-5)


def test_reach():
    """The margin of tiles holds all that the head's convolutions see."""
    torch.manual_seed(0)
    head = InstanceHead(in_channels=5, token_dim=8,
                        **SMALL['head']).double().eval()
    with torch.no_grad():
        for param in head.parameters():
            param.abs_().add_(0.05)
    x = torch.ones(1, 5, 16, 352, dtype=torch.double, requires_grad=True)
    tokens = torch.ones(1, 8, 1, 22, dtype=torch.double, requires_grad=True)
    maps = head(x, tokens, torch.zeros(1, dtype=torch.long))
    total = (maps.pixels[:, :, 160:176].sum()
             + maps.heat[:, :, 160:176].sum())
    for stride, part in zip((2, 4, 8, 16), maps.pyramid):
        total = total + part[..., 160 // stride:176 // stride].sum()
    total.backward()
    seen = np.flatnonzero(x.grad.abs().sum(dim=(0, 1, 2)))
    reach = max(160 - seen.min(), seen.max() - 175)
    assert 0 < reach <= pyramid.REACH
    cells = np.flatnonzero(tokens.grad.abs().sum(dim=(0, 1, 2)))
    assert 16 * (10 - cells.min()) <= pyramid.REACH


def test_backbone_of_others(tmp_path):
    """Planes of its own, of patches that do not divide 16, at all levels."""
    torch.save(dinov2(), tmp_path / 'dinov2.pth')
    backbone = load_backbone(tmp_path / 'dinov2.pth')
    model = Model.from_backbone(backbone, SMALL['head'])
    assert isinstance(model.planes, WithNoiseUnits)
    model.save(tmp_path / 'model.safetensors')
    from astrodino_seg import load_model
    again = load_model(tmp_path / 'model.safetensors')
    image = as_image(np.random.default_rng(0).normal(0, 1, (3, 100, 120)))
    x = again.planes(image)
    assert len(x) == 5 + 3
    levels = look(again, x)
    assert [level.factor for level in levels] == [1, 2, 4]
    assert_array_equal(levels[0].channels, x[:5])
    for one, other in zip(levels, look(model, x)):
        assert_array_equal(one.sky, other.sky)


def test_threads():
    """The same answer whatever the number of threads, which is left alone."""
    model, channels, before = small_model(), planes((200, 216)), \
        torch.get_num_threads()
    found = []
    try:
        for n in (1, 3):
            torch.set_num_threads(n)
            found.append(look(model, channels, tile_size=176))
            assert torch.get_num_threads() == n
            with ThreadPoolExecutor(1) as pool:     # and of later threads
                assert pool.submit(torch.get_num_threads).result() == n
    finally:
        torch.set_num_threads(before)
    for one, other in zip(*found, strict=True):
        for a, b in zip(one[1:], other[1:], strict=True):
            assert_array_equal(a, b)


def test_error_in_a_thread(monkeypatch):
    """What goes wrong in a thread is not lost, nor the number of threads."""
    model, before = small_model(), torch.get_num_threads()
    monkeypatch.setattr(model, 'tokens', lambda x: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        look(model, planes())
    assert torch.get_num_threads() == before


def test_narrow_image():
    """Next to nothing in width, it is the same at each look."""
    model = small_model()
    model.in_bfloat16 = has_bfloat16('cpu')
    channels = planes((160, 10))
    found = []
    for k in range(4):
        junk = np.full(10**6, [np.nan, 1e3][k % 2], np.float32)
        del junk
        found.append(look(model, channels)[0].probabilities)
    for other in found[1:]:
        assert_array_equal(found[0], other)
    model.in_bfloat16 = False
    assert_allclose(found[0], look(model, channels)[0].probabilities,
                    atol=0.05)


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
