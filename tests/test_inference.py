# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the inference module.
"""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal
from skimage.feature import peak_local_max

from astrodino_seg import inference, prediction
from astrodino_seg.heads import Seeds
from astrodino_seg.inference import has_bfloat16, predict, predict_maps
from astrodino_seg.model import Model, load_model
from astrodino_seg.painting import paint
from astrodino_seg.pairs import pair_features, seed_looks, valleys
from astrodino_seg.prediction import Prediction, find_seeds, read_prediction
from astrodino_seg.tiling import taper, tiles

FEW = settings(deadline=None, max_examples=30)


def make_model(seed=0):
    """A small model whose layers all matter, and that finds seeds."""
    torch.manual_seed(seed)
    model = Model(vit={'dim': 48, 'depth': 1, 'n_heads': 3},
                  head={'widths': (4, 8, 8, 8, 8)})
    with torch.no_grad():
        for param in model.vit.parameters():
            param.add_(0.1 * torch.randn_like(param))
        model.head.heat[1].bias.fill_(0.0)
        model.head.heat[1].weight.mul_(10)
        model.head.vote.weight.normal_(0, 0.3)     # zero in a new head
        # seeds that hold their own against the sky
        model.head.seed_out.bias[model.head.n_embedding] += 3
        # pair probabilities far from 0.5, from features that are scaled
        model.pairs.mean.normal_()
        model.pairs.scale.uniform_(1, 3)
        model.pairs.net[4].weight.mul_(100)
        model.pairs.net[4].bias.fill_(-10)
    return model.eval().requires_grad_(False)


MODEL = make_model()


def channels(shape, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(5, *shape)).astype(np.float32)


def all_maps(maps):
    return [*maps[:5], *maps.pyramid]


def local_model():
    """A model whose tokens see their own patch and the prefix only."""
    model = make_model()
    torch.nn.init.zeros_(model.vit.blocks[0].attn.proj.weight)
    return model


# ------------------------------------------------------------------- maps

@pytest.mark.parametrize('shape', [(64, 96), (50, 61), (5, 7), (1, 1),
                                   (17, 3)])
def test_one_tile(shape):
    """One tile is the model itself on the image padded with zeros."""
    x = channels(shape)
    ny, nx = shape
    padded = np.zeros((1, 5, -(-ny // 16) * 16, -(-nx // 16) * 16), 'f4')
    padded[0, :, :ny, :nx] = x
    maps = predict_maps(MODEL, x)
    with torch.no_grad():
        wanted = MODEL(torch.from_numpy(padded))
    assert maps.embedding.shape == (12, ny, nx)
    assert maps.sky.shape == (1, ny, nx)
    assert maps.classes.shape == (4, ny, nx)
    assert maps.vote.shape == (2, ny, nx)
    for found, whole in zip(all_maps(maps), all_maps(wanted)):
        _, h, w = found.shape
        assert_allclose(found, whole[0, :, :h, :w], atol=1e-5)


@pytest.mark.parametrize('shape', [(320, 80), (112, 301)])
def test_head_in_tiles(monkeypatch, shape):
    """
    The tiles of the head leave no trace: their margins hold all that its
    convolutions see.
    """
    x = channels(shape)
    whole = predict_maps(MODEL, x)
    monkeypatch.setattr(inference, 'MAP_TILE', 240)
    assert len(tiles(shape, size=240, margin=inference.REACH)) >= 7
    for found, wanted in zip(all_maps(predict_maps(MODEL, x)),
                             all_maps(whole)):
        assert_allclose(found, wanted, atol=2e-6)


def test_margin_is_needed(monkeypatch):
    """Without margins the test above would fail."""
    x = channels((320, 240))
    whole = predict_maps(MODEL, x)
    monkeypatch.setattr(inference, 'MAP_TILE', 240)
    monkeypatch.setattr(inference, 'REACH', 0)
    found = predict_maps(MODEL, x)
    assert (found.embedding - whole.embedding).abs().max() > 1e-2


@pytest.mark.parametrize('shape', [(50, 61), (65, 16), (200, 33)])
@pytest.mark.parametrize('size', [16, 64])
def test_strips(monkeypatch, shape, size):
    """
    Nor do the strips at full resolution; with a smaller margin they would.
    """
    x = channels(shape)
    monkeypatch.setattr(inference, 'STRIP', 1024)
    whole = all_maps(predict_maps(MODEL, x))
    monkeypatch.setattr(inference, 'STRIP', size)
    for found, wanted in zip(all_maps(predict_maps(MODEL, x)), whole):
        assert_allclose(found, wanted, atol=2e-6)
    monkeypatch.setattr(inference, 'STRIP_MARGIN', 0)
    off = [(found - wanted).abs().max() for found, wanted in zip(
        all_maps(predict_maps(MODEL, x)), whole)]
    assert (max(off) > 1e-3) == (shape[0] > size)


def test_reach():
    """
    `REACH` is how far the maps of a cell of 16 pixels see, rounded up.

    With positive weights and inputs every path through the network has a
    gradient, however small.
    """
    head = make_model().head.double()
    with torch.no_grad():
        for param in head.parameters():
            param.abs_().add_(0.05)
    x = torch.ones(1, 5, 16, 352, dtype=torch.double, requires_grad=True)
    tokens = torch.ones(1, 48, 1, 22, dtype=torch.double, requires_grad=True)
    maps = head(x, tokens)
    cell = slice(160, 176)
    total = (maps.embedding[..., cell].sum() + maps.sky[..., cell].sum()
             + maps.classes[..., cell].sum() + maps.vote[..., cell].sum())
    for stride, part in zip((2, 2, 4, 8, 16), [maps.heat, *maps.pyramid]):
        total = total + part[..., 160 // stride:176 // stride].sum()
    total.backward()
    seen = np.flatnonzero(x.grad.abs().sum(dim=(0, 1, 2)))
    reach = max(160 - seen.min(), seen.max() - 175)
    assert inference.REACH - 16 < reach <= inference.REACH
    cells = np.flatnonzero(tokens.grad.abs().sum(dim=(0, 1, 2)))
    assert 16 * (10 - cells.min()) <= inference.REACH
    assert 16 * (cells.max() - 10) <= inference.REACH


def test_bfloat16():
    """As exact as its eight bits, and float32 where steps would show."""
    model, x = load_model(), channels((96, 112))
    exact = predict_maps(model, x)
    assert not model.in_bfloat16
    model.in_bfloat16 = True
    found = predict_maps(model, x)
    differ = False
    assert {part.dtype for part in found[:-1]} == {torch.float32}
    assert {part.dtype for part in found.pyramid} == {torch.bfloat16}
    for one, wanted in zip(all_maps(found), all_maps(exact)):
        scale = wanted.abs().max()
        assert (one - wanted).abs().max() < 0.1 * scale
        assert (one - wanted).abs().median() < 2**-8 * scale
        differ |= bool((one != wanted).any())
    assert differ
    for last in (found.heat, found.vote):
        assert (last != last.bfloat16()).any()


def test_has_bfloat16(monkeypatch):
    monkeypatch.setattr(torch.cpu, '_is_avx512_bf16_supported', lambda: True)
    assert has_bfloat16('cpu')
    assert not has_bfloat16('cuda')
    # it is private, and may go
    monkeypatch.delattr(torch.cpu, '_is_avx512_bf16_supported')
    assert not has_bfloat16('cpu')


@pytest.mark.parametrize('tile_size', [176, 256])
def test_local_tokens_in_tiles(tile_size):
    """Tokens that do not see the tile are averaged to themselves."""
    model, x = local_model(), channels((300, 280))
    for found, wanted in zip(
            all_maps(predict_maps(model, x, tile_size=tile_size)),
            all_maps(predict_maps(model, x))):
        assert_allclose(found, wanted, atol=5e-6)


@pytest.mark.parametrize('tile_size', [176, 256])
def test_tokens_in_tiles(tile_size):
    """Tokens that see their tile differ by a little from tile to tile."""
    x = channels((300, 280))
    for found, wanted in zip(
            all_maps(predict_maps(MODEL, x, tile_size=tile_size)),
            all_maps(predict_maps(MODEL, x))):
        error = (found - wanted).abs().max() / wanted.std()
        assert error < 0.2


def test_average_of_tokens(monkeypatch):
    """Tokens are the weighted mean over the tiles that hold them."""
    shape, size = (320, 16), 176
    values = iter(range(100))
    seen = []

    def tokens(x):
        return torch.full((1, 48, x.shape[2] // 16, x.shape[3] // 16),
                          float(next(values)))

    model = make_model()
    coarse = model.head.coarse
    monkeypatch.setattr(model, 'tokens', tokens)
    monkeypatch.setattr(
        model.head, 'coarse',
        lambda x, tokens: [seen.append(tokens), coarse(x, tokens)][1])
    predict_maps(model, channels(shape), tile_size=size)
    cut = tiles(shape, size=size, margin=inference.CONTEXT)
    assert len(cut) > 2
    top, norm = np.zeros((2, 20))
    for k, tile in enumerate(cut):
        weight = taper(tile, shape)[:, 0]
        rows = slice(tile.outer[0].start // 16, tile.outer[0].stop // 16)
        top[rows] += k * weight
        norm[rows] += weight
    assert_allclose(seen[0][0, 5, :, 0], top / norm, rtol=1e-5)
    steps = np.diff(top / norm)
    assert steps.min() >= 0                # smoothly from tile to tile
    assert steps.max() < 0.5


def test_input_unchanged():
    x = channels((40, 50))
    before = x.copy()
    predict(MODEL, x)
    assert_array_equal(x, before)


def test_progress(capsys):
    predict_maps(MODEL, channels((16, 16)), progress=True)
    assert 'segmenting' in capsys.readouterr().err
    predict_maps(MODEL, channels((16, 16)))
    assert capsys.readouterr().err == ''


# ------------------------------------------------------------------ seeds

def brute_force_seeds(heat, min_heat):
    """Cells that no neighbour exceeds, by loops."""
    p = 1 / (1 + np.exp(-heat.astype(float)))
    found = []
    for y, x in np.ndindex(heat.shape):
        around = heat[max(y - 1, 0):y + 2, max(x - 1, 0):x + 2]
        if heat[y, x] == around.max() and p[y, x] >= min_heat:
            found.append((2 * x + 0.5, 2 * y + 0.5, p[y, x]))
    return sorted(found)


@FEW
@given(arrays(np.int8, (7, 9), elements=st.integers(-6, 6)),
       st.sampled_from([0.2, 0.4, 0.7]))
def test_find_seeds(heat, min_heat):
    heat = heat.astype(np.float32)
    x, y, value = find_seeds(torch.from_numpy(heat), min_heat)
    assert (value.diff() <= 0).all()
    found = sorted(zip(x.tolist(), y.tolist(), value.tolist()))
    wanted = brute_force_seeds(heat, min_heat)
    assert [f[:2] for f in found] == [w[:2] for w in wanted]
    assert_allclose([f[2] for f in found], [w[2] for w in wanted], rtol=1e-5)


def test_find_seeds_skimage():
    rng = np.random.default_rng(0)
    heat = rng.normal(size=(60, 80)).astype(np.float32)
    x, y, _ = find_seeds(torch.from_numpy(heat), 0.6)
    wanted = peak_local_max(heat, min_distance=1, exclude_border=False,
                            threshold_abs=np.log(0.6 / 0.4))
    found = np.stack([y, x], axis=-1)
    assert len(wanted) > 50
    assert set(map(tuple, found)) == set(map(tuple, 2 * wanted + 0.5))


def test_no_maximum():
    none = find_seeds(torch.full((5, 5), -20.0), 0.3)
    assert [len(part) for part in none] == [0, 0, 0]


# ------------------------------------------------------------- prediction

def check_prediction(found, shape):
    n = len(found.x)
    assert isinstance(found, Prediction)
    assert all(isinstance(part, np.ndarray) for part in found)
    assert found.embedding.shape == (*shape, 12)
    assert found.sky.shape == shape
    assert found.probabilities.shape == (4, *shape)
    assert found.vote.shape == (*shape, 2)
    assert_allclose(found.probabilities.sum(axis=0), 1, rtol=1e-5)
    for part in (found.x, found.y, found.heat, found.kernel, found.centre,
                 found.matrix, found.falloff, found.radius, found.classes):
        assert len(part) == n
        assert np.isfinite(part).all()
    assert_allclose(found.classes.sum(axis=1), 1, rtol=1e-5)
    assert ((found.x >= 0) & (found.x <= shape[1] - 1)).all()
    assert ((found.y >= 0) & (found.y <= shape[0] - 1)).all()
    assert found.pairs.shape == (len(found.same), 2)
    assert found.pairs.dtype.kind == 'i'
    assert (found.pairs[:, 0] < found.pairs[:, 1]).all()
    assert len(np.unique(found.pairs, axis=0)) == len(found.pairs)
    assert ((found.same >= 0) & (found.same <= 1)).all()
    assert found.embedding.dtype == found.sky.dtype == np.float32
    assert found.vote.dtype == np.float32


@pytest.mark.parametrize('shape', [(64, 96), (45, 61), (5, 7), (1, 1),
                                   (3, 50)])
def test_predict(shape):
    found = predict(MODEL, channels(shape), min_heat=0.1)
    check_prediction(found, shape)
    assert (np.diff(found.heat) <= 0).all()
    assert (found.heat >= 0.1).all()
    if shape == (64, 96):
        assert len(found.x) > 20
        assert len(found.pairs) > 20


def test_no_seeds():
    found = predict(MODEL, channels((40, 50)), min_heat=1.1)
    check_prediction(found, (40, 50))
    assert len(found.x) == len(found.pairs) == 0
    assert not paint(found).any()


IMAGE = channels((160, 512))
MAPS = predict_maps(MODEL, IMAGE)


def heats(n):
    return torch.linspace(0.9, 0.5, n)


def read(maps, *xy, model=MODEL, image=IMAGE):
    with torch.inference_mode():
        return read_prediction(model, maps, image,
                               *torch.tensor(xy).float().T, heats(len(xy)))


def test_one_seed():
    found = read(MAPS, (30.5, 40.5))
    check_prediction(found, (160, 512))
    assert len(found.x) == 1
    assert found.pairs.shape == (0, 2)
    assert len(found.same) == 0


def test_beyond_the_edge():
    """A seed between the last pixel and the padding is moved inside."""
    image = channels((33, 45))
    found = read(predict_maps(MODEL, image), (44.5, 32.5), image=image)
    check_prediction(found, (33, 45))
    assert_array_equal([found.x[0], found.y[0]], [44, 32])


def asked_by_loops(maps, xy, radius, seeds):
    """All pairs by the rule: near, and near enough or claimed."""
    out = {}
    n = len(xy)
    for i in range(n):
        for j in range(i + 1, n):
            apart = np.hypot(*(xy[i] - xy[j]))
            reach = np.clip(6 * radius, 24, 400)
            if apart > max(reach[i], reach[j]):
                continue
            claims = []
            for a, b in ((i, j), (j, i)):
                ix, iy = xy[b].astype(int)
                one = Seeds(*(part[a:a + 1] for part in seeds))
                vote = maps.vote[:, iy, ix]
                score = MODEL.head.score(
                    one, maps.embedding[:, iy, ix, None],
                    ix + vote[:1], iy + vote[1:])
                claims.append(float(score - maps.sky[0, iy, ix]))
            if max(claims) > -4 or apart < 24:
                out[i, j] = claims
    return out


def score_by_hand(score, features):
    """Probabilities by a `PairScore`, in float64 by NumPy."""
    state = {k: v.double().numpy() for k, v in score.state_dict().items()}
    hidden = (features.double().numpy() - state['mean']) / state['scale']
    for layer in (0, 2):
        hidden = np.maximum(hidden @ state[f'net.{layer}.weight'].T
                            + state[f'net.{layer}.bias'], 0)
    logits = hidden @ state['net.4.weight'].T + state['net.4.bias']
    return 1 / (1 + np.exp(-logits[:, 0]))


def test_pairs():
    """
    Which pairs, by loops; their features from claims by loops and from the
    image that the maps were made of; their score by NumPy.
    """
    rng = np.random.default_rng(8)
    xy = np.stack([rng.uniform(0, 511, 40), rng.uniform(0, 159, 40)],
                  axis=-1).astype(np.float32)
    found = read(MAPS, *xy.tolist())
    check_prediction(found, (160, 512))
    seeds = MODEL.head.read_seeds(MAPS.pyramid, *torch.from_numpy(xy).T)
    wanted = asked_by_loops(MAPS, xy, found.radius, seeds)
    assert set(map(tuple, found.pairs.tolist())) == set(wanted)
    assert 0 < len(wanted) < 40 * 39 / 2
    i, j = torch.from_numpy(found.pairs).T
    claims = torch.tensor([wanted[tuple(p)] for p in found.pairs.tolist()])
    ix, iy = xy.astype(int).T
    vote = MAPS.vote[:, iy, ix]
    assert vote.abs().max() > 1
    x, y = torch.from_numpy(xy).T
    image = torch.from_numpy(IMAGE)
    features = pair_features(
        MODEL.head, seeds, tuple(claims.T), seed_looks(image, x, y),
        valleys(image, x, y, i, j), heats(40), i, j, x + vote[0],
        y + vote[1])
    wanted = score_by_hand(MODEL.pairs, features)
    assert wanted.std() > 0.1
    assert_allclose(found.same, wanted, atol=1e-4)
    assert_allclose(found.radius, seeds.log_size.clamp(-1, 6).exp(),
                    rtol=1e-4)


@pytest.mark.parametrize('sky', [100.0, -100.0])
def test_pairs_by_distance(sky):
    """
    If no seed claims another's place, those within 24 pixels are compared;
    if all do, those within six radii.
    """
    rng = np.random.default_rng(9)
    xy = np.stack([rng.uniform(0, 511, 60), rng.uniform(0, 159, 60)],
                  axis=-1).astype(np.float32)
    maps = MAPS._replace(sky=torch.full_like(MAPS.sky, sky))
    model = make_model()
    model.head.seed_out.bias[model.head.n_embedding + 3] += 1.5     # size
    found = read(maps, *xy.tolist(), model=model)
    assert (found.radius > 10).all()
    apart = np.hypot(*(xy[:, None] - xy).transpose(2, 0, 1))
    reach = np.clip(6 * found.radius, 24, 400)
    near = apart < 24 if sky > 0 else apart <= np.maximum(reach,
                                                          reach[:, None])
    wanted = np.argwhere(np.triu(near, 1))
    assert len(wanted) > 10
    assert_array_equal(np.unique(found.pairs, axis=0), wanted)


@pytest.mark.parametrize('n', [90, 300])
def test_pairs_in_a_crowd(n):
    """
    Where all are within reach of each other and too many, each is compared
    with the nearest hundred.
    """
    xy = np.random.default_rng(3).uniform(0, 200, (n, 2)).astype(np.float32)
    x, y = torch.from_numpy(xy).T
    apart = np.hypot(*(xy[:, None] - xy).astype(float).transpose(2, 0, 1))
    rank = apart.argsort(axis=1).argsort(axis=1)
    near = (rank <= 100) | (rank <= 100).T
    assert near.all() == (n == 90)
    found = prediction._near(x, y, torch.full((n,), 60.0))
    assert_array_equal(np.stack(found, axis=1),
                       np.argwhere(np.triu(near, 1)))


def test_pairs_see_the_image():
    """Of another image, with the same maps, the pairs are the same."""
    xy = [(30.5, 40.5), (40.5, 50.5), (300.5, 100.5), (310.5, 90.5)]
    one, two = read(MAPS, *xy), read(MAPS, *xy, image=channels((160, 512), 1))
    assert_array_equal(one.pairs, two.pairs)
    assert len(one.pairs) >= 2
    assert (abs(one.same - two.same) > 1e-4).all()


def test_painted_scores():
    """Grouping computes the score as the head does."""
    found = read(MAPS, (30.5, 40.5), (60.5, 50.5), (300.5, 100.5))
    y, x = np.mgrid[:160, :512].reshape(2, -1).astype(np.float32)
    seeds = MODEL.head.read_seeds(MAPS.pyramid, torch.from_numpy(found.x),
                                  torch.from_numpy(found.y))
    assert_array_equal(found.vote, MAPS.vote.permute(1, 2, 0))
    vote = MAPS.vote.flatten(1)
    score = MODEL.head.score(seeds, MAPS.embedding.flatten(1),
                             torch.from_numpy(x) + vote[0],
                             torch.from_numpy(y) + vote[1])
    best = np.concatenate([MAPS.sky.flatten(1), score]).argmax(axis=0)
    owner = paint(found)
    assert (owner == best.reshape(160, 512)).mean() > 0.9999
    assert len(np.unique(owner)) > 1
