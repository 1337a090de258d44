# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests of the training of the pyramid's model, and of its decision.
"""

import copy
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from level_toys import SMALL, disc_truth, make_level, small_model
from torch.nn import functional as F

from astrodino_seg.models.decision import Decision
from astrodino_seg.models.head import InstanceMaps
from astrodino_seg.models.instance import Model
from astrodino_seg.predict.merge import candidates
from astrodino_seg.simulate import make_scene
from astrodino_seg.train import as_labelled, fit_decision
from astrodino_seg.train.crops import make_crop
from astrodino_seg.train.decision import (
    Graph,
    Points,
    _fit,
    _together,
    graph_of_scene,
    seed_truth,
)
from astrodino_seg.train.instance import (
    _class_loss,
    _pixels,
    _with_peaks,
    heat_target,
    instance_losses,
    level_losses,
)


@pytest.fixture(scope='module')
def scenes():
    pytest.importorskip('galsim')
    return [make_scene(k, size=80, psf_fwhm=2.5, band_set='grz')
            for k in range(12)]


def toy_crop(discs=((20, 22, 8, 9, 2), (44, 40, 5, 9, 1)), side=64):
    """A crop of discs, noiseless, in units of the noise."""
    truth = disc_truth((side, side), discs)
    o = truth.objects
    channels = np.zeros((5, side, side), np.float32)
    channels[:4] = np.arcsinh(truth.own_sn)
    channels[4] = 1
    table = {'id': o['id'], 'cls': o['cls'], 'x': o['x'], 'y': o['y'],
             'radius': o['re'], 'asked': np.ones(len(o['id']), bool)}
    return make_crop(np.random.default_rng(0), channels, False, truth.labels,
                     {name: getattr(truth, name) for name in (
                         'labels', 'own_sn', 'owners', 'shares')}, table)


def losses_of(model, crop, seed=0):
    maps = model(crop.channels[None], torch.tensor([crop.binned]))
    one = InstanceMaps(maps.heat[0], maps.pixels[0],
                       tuple(level[0] for level in maps.pyramid))
    return instance_losses(model.head, one, crop,
                           torch.Generator().manual_seed(seed),
                           own_seeds=True)


# --------------------------------------------------------------- losses

def test_heat_target():
    """The formula, pixel by pixel."""
    xy = torch.tensor([[10., 8.], [13., 8.]])
    log_size = torch.tensor([3., 20.]).log()
    target = heat_target(xy, log_size, (24, 30))
    y, x = np.mgrid[:24, :30]
    wanted = np.max([np.exp(-((x - cx)**2 + (y - cy)**2) / (2 * s**2))
                     for (cx, cy), s in zip(xy.numpy(), (1.0, 2.4))], axis=0)
    wanted[wanted < np.exp(-9 / 2)] = 0             # each is cut at 3 sigma
    near = wanted > .05
    np.testing.assert_allclose(target[near], wanted[near], atol=1e-5)
    assert target[8, 10] == target[8, 13] == 1


def test_pixels_stand_for_all():
    """The weights of what is drawn add up to the areas."""
    labels = torch.zeros(200, 200, dtype=torch.long)
    labels[:60, :60] = 1
    labels[100:104, 100:104] = 2
    labels[150:] = -1
    index, weight = _pixels(labels, torch.Generator().manual_seed(0))
    drawn = labels.ravel()[index]
    assert (drawn >= 0).all()
    for k, area in ((0, 30000 - 3600 - 16), (1, 3600), (2, 16)):
        assert weight[drawn == k].sum() == pytest.approx(area, rel=.1)
    assert (drawn == 2).sum() == 16
    assert len(index) < 4000


def test_class_loss():
    """Against torch, and an object of no known class."""
    logits = torch.randn(50, 4)
    classes = torch.randint(0, 4, (50,))
    weights = torch.tensor([1., 4., 1., 4.])
    found = _class_loss(logits, classes, torch.ones(50))
    assert torch.allclose(found, F.cross_entropy(logits, classes, weights))
    some = _class_loss(logits, torch.full((50,), 4), torch.ones(50))
    wanted = -torch.log(1 - logits.softmax(1)[:, 0])
    assert torch.allclose(some, wanted.mean(), atol=1e-5)


def test_all_is_taught():
    """Every parameter of the network has a gradient."""
    model = small_model().train()
    total = sum(losses_of(model, toy_crop()).values())
    assert torch.isfinite(total)
    total.backward()
    still = [name for name, p in model.named_parameters()
             if p.grad is None or not p.grad.any()]
    # of two rows of the level's embedding one was asked for
    assert still == []


@pytest.mark.parametrize('discs', [(), ((20, 22, 8, 9, 2),)])
def test_few_objects(discs):
    losses = losses_of(small_model(), toy_crop(discs))
    assert {'heat', 'classes', 'mask'} <= set(losses)
    assert all(torch.isfinite(v) for v in losses.values())


def test_void_is_not_asked():
    crop = toy_crop()
    crop.labels[:] = -1
    losses = losses_of(small_model(), crop)
    assert set(losses) == {'heat'}


def test_not_asked_is_not_punished():
    """The heatmap on an object that may be called or not costs nothing."""
    crop = toy_crop()
    crop.asked[0] = False
    heat = torch.full((64, 64), -6.0)
    x, y = crop.seed_xy[1].long()
    heat[y, x] = 6
    high = heat.clone()
    high[22, 20] = 6
    model = small_model()
    maps = model(crop.channels[None], torch.tensor([0]))
    found = [instance_losses(model.head, InstanceMaps(
        h, maps.pixels[0], tuple(level[0] for level in maps.pyramid)), crop,
        torch.Generator().manual_seed(0))['heat'].item()
        for h in (heat, high)]
    assert found[0] == pytest.approx(found[1])


def test_learns():
    """A few discs, again and again."""
    torch.manual_seed(0)
    model = Model(**SMALL).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    totals = []
    for k in range(40):
        losses = losses_of(model, toy_crop(), seed=k)
        total = sum(losses.values())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(total.item())
    assert np.mean(totals[-5:]) < 0.5 * np.mean(totals[:5])


def test_crops_of_two_sizes():
    """They are batches of their own, and count alike."""
    model = small_model()
    one, two = toy_crop(), toy_crop([(20, 22, 8, 9, 2)], side=48)
    found = level_losses(model, [one, two], torch.Generator().manual_seed(0),
                         own_seeds=False)
    generator = torch.Generator().manual_seed(0)
    parts = [level_losses(model, [crop], generator, own_seeds=False)
             for crop in (one, two)]
    assert set(found) == set(parts[0]) == set(parts[1])
    for name, value in found.items():
        wanted = (parts[0][name] + parts[1][name]) / 2
        assert torch.allclose(value, wanted, rtol=1e-4), name


def test_own_peaks_are_decoys():
    """Peaks of the heatmap on an object, and not those on sky and void."""
    crop = toy_crop()
    crop.labels[:, 60:] = -1
    heat = torch.full((64, 64), -9.)
    for y, x in ((26, 23), (5, 5), (40, 62)):       # object, sky, void
        heat[y, x] = 2.
    xy, own = _with_peaks(heat, crop, torch.Generator().manual_seed(0))
    n = len(crop.seed_xy)
    assert xy[n:].tolist() == [[23, 26]]
    assert own[n:].tolist() == [0]
    assert torch.equal(xy[:n], crop.seed_xy)


def test_bfloat16():
    """Losses and gradients close to those in float32."""
    found, grads = [], []
    for bfloat16 in (False, True):
        autocast = partial(torch.autocast, 'cpu', torch.bfloat16, bfloat16)
        model = small_model().train()
        losses = level_losses(model, [toy_crop()],
                              torch.Generator().manual_seed(0),
                              own_seeds=False, autocast=autocast)
        sum(losses.values()).backward()
        found.append({k: v.item() for k, v in losses.items()})
        grads.append(torch.cat([p.grad.ravel() for p in model.parameters()
                                if p.grad is not None]))
        assert grads[-1].dtype == torch.float32
    assert found[0] != found[1]             # it is not without effect
    for key, value in found[0].items():
        assert found[1][key] == pytest.approx(value, rel=.05, abs=.02), key
    assert torch.cosine_similarity(*grads, dim=0) > 0.95


# ------------------------------------------------------------- decision

def test_seed_truth():
    """By what each seed paints: two on one disc, one on sky, one on void."""
    dead = np.zeros((100, 100), bool)
    dead[:, 90:] = True
    truth = disc_truth((100, 100), [(50, 50, 12, 9, 2), (20, 80, 6, 9, 1)],
                       dead)
    fine = make_level(1, (100, 100), [(46, 50), (20, 80), (20, 20), (95, 50)],
                      [5, 5, 5, 3])
    coarse = make_level(2, (50, 50), [(25, 25)], 6)
    owner = seed_truth([fine, coarse], truth, (100, 100))
    assert owner.tolist() == [1, 2, 0, -1, 1]
    # in a binned image what is drawn far too large is of nothing
    wide = make_level(2, (50, 50), [(25, 25)], 10)
    owner = seed_truth([fine, wide], truth, (100, 100))
    assert owner.tolist() == [1, 2, 0, -1, 0]


def graph(seeds, pairs, i, j, real, same):
    """A `Graph` in which all is known."""
    return Graph(seeds=seeds, pairs=pairs, i=i, j=j, real=real.float(),
                 same=same.float(), seed_weight=torch.ones(len(seeds)),
                 pair_weight=torch.ones(len(pairs)))


def fitted(graphs, held=None, **options):
    every = graphs[0]
    torch.manual_seed(0)
    decision = Decision(every.seeds.shape[1], every.pairs.shape[1], width=16)
    _fit(decision, graphs, _together(held or graphs), **{
        'n_epochs': 6, 'peak_rate': 5e-3, 'seed': 0, 'weight_decay': .01,
        'dropout': .1, **options})
    return decision


def answers_of(decision, one):
    with torch.no_grad():
        return decision(one.seeds, one.pairs, one.i, one.j)


def share_right(logits, wanted):
    return ((logits > 0) == (wanted > 0)).float().mean().item()


def test_fit_separates():
    """Two normal distributions: as well as their overlap allows."""
    rng = torch.Generator().manual_seed(0)
    graphs = []
    for _ in range(100):
        same = torch.rand(100, generator=rng) < .5
        pairs = torch.randn(100, 3, generator=rng)
        pairs[:, 1] += 2 * same
        # all pairs are apart, so that there is nothing else to learn from
        i, j = torch.arange(200).view(2, 100)
        graphs.append(graph(torch.zeros(200, 2), pairs, i, j,
                            torch.ones(200), same))
    decision = fitted(graphs[:80])
    right = [share_right(answers_of(decision, one)[1], one.same)
             for one in graphs[80:]]
    # a threshold half way is right with the probability Phi(1) = 0.841
    assert np.mean(right) == pytest.approx(.841, abs=.03)


def test_others_are_heard():
    """
    Seeds are real beside a marked one, and pairs are one object if a third
    seed, which both are paired with, is marked: neither shows in itself.
    """
    rng = torch.Generator().manual_seed(0)
    graphs = []
    for _ in range(120):
        centre = torch.arange(0, 60, 3)         # of 20 triangles
        marked = torch.rand(20, generator=rng) < .5
        seeds = torch.zeros(60, 1)
        seeds[centre] = marked.float()[:, None]
        i = torch.cat([centre, centre, centre + 1])
        j = torch.cat([centre + 1, centre + 2, centre + 2])
        graphs.append(graph(
            seeds, torch.zeros(60, 1), i, j, marked.repeat_interleave(3),
            torch.cat([torch.zeros(40, dtype=bool), marked])))
    decision = fitted(graphs, n_epochs=12, dropout=0)
    real, same = answers_of(decision, graphs[0])
    assert share_right(real, graphs[0].real) > .99
    assert share_right(same, graphs[0].same) > .99


@pytest.fixture
def two():
    """A decision, and two graphs of random values."""
    rng = torch.Generator().manual_seed(1)
    torch.manual_seed(1)
    out = []
    for n, n_pairs in ((7, 12), (5, 6)):
        i, j = torch.combinations(torch.arange(n))[:n_pairs].T
        out.append(graph(torch.randn(n, 3, generator=rng),
                         torch.randn(n_pairs, 2, generator=rng), i, j,
                         torch.ones(n), torch.ones(n_pairs)))
    return Decision(3, 2, width=8).eval(), out


def test_images_do_not_hear_each_other(two):
    decision, graphs = two
    apart = [torch.cat(part) for part in zip(
        *(answers_of(decision, one) for one in graphs))]
    for one, other in zip(answers_of(decision, _together(graphs)), apart):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_order_and_chunks_do_not_matter(two, monkeypatch):
    decision, (one, _) = two
    real, same = answers_of(decision, one)
    order = torch.tensor([3, 0, 6, 1, 5, 2, 4])
    place = order.argsort()
    turned = torch.randperm(12)
    found = answers_of(decision, graph(
        one.seeds[order], one.pairs[turned], place[one.i][turned],
        place[one.j][turned], one.real, one.same))
    np.testing.assert_allclose(found[0], real[order], atol=1e-6)
    np.testing.assert_allclose(found[1], same[turned], atol=1e-6)
    monkeypatch.setattr('astrodino_seg.models.decision.CHUNK', 5)
    for a, b in zip(answers_of(decision, one), (real, same)):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_no_pairs():
    decision = Decision(3, 2, width=8)
    none = torch.zeros(0, dtype=torch.int64)
    real, same = decision(torch.zeros(1, 3), torch.zeros(0, 2), none, none)
    assert real.shape == (1,)
    assert same.shape == (0,)


def test_fit_decision(scenes):
    model = small_model()
    before = copy.deepcopy(model.state_dict())
    torch.nn.init.constant_(model.head.pixel.bias, -1.0)
    before['head.pixel.bias'] = model.head.pixel.bias.detach().clone()
    out = fit_decision(model, scenes, n_scenes=10, n_epochs=1,
                       bfloat16=False, progress=False)
    assert out is model
    assert model.decision is not None
    found = model.provenance['decision']
    assert found['n_scenes'] == 9
    assert 0 <= found['seed_right'] <= 1
    for key, value in before.items():
        assert torch.equal(value, model.state_dict()[key]), key
    # the next goes on from there
    first = copy.deepcopy(model.decision.state_dict())
    fit_decision(model, scenes, n_scenes=10, n_epochs=1, peak_rate=1e-9,
                 bfloat16=False, seed=1, progress=False)
    assert model.provenance['decision']['n_scenes_before'] == 9
    for key, value in model.decision.state_dict().items():
        np.testing.assert_allclose(value, first[key], atol=1e-6)


def test_too_few_scenes(scenes):
    with pytest.raises(ValueError, match='n_scenes must be 10 or more, got 3'):
        fit_decision(small_model(), scenes[:3])


def test_labelled_images():
    """What a decision is fitted to may be labelled images."""
    rng = np.random.default_rng(0)
    labels = np.zeros((64, 64), int)
    labels[20:40, 10:32], labels[20:40, 32:54] = 1, 2
    image = rng.normal(size=(2, 64, 64)) + 20 * (labels > 0)
    model = small_model()
    torch.nn.init.constant_(model.head.pixel.bias, -1.0)
    fit_decision(model, 10 * [as_labelled(image, labels)], n_epochs=1,
                 bfloat16=False, progress=False)
    assert model.provenance['decision']['n_pairs'] > 0


def points(*rows):
    """Points of rows (x, y, radius, owner, large)."""
    columns = np.array(rows, float).T
    return Points(x=columns[0], y=columns[1], radius=columns[2],
                  owner=columns[3].astype(int), large=columns[4] > 0)


def test_points_of_seeds():
    """The nearest point, near enough and of a like size, or nobody knows."""
    fine = make_level(1, (100, 100), [
        (50, 50), (51, 51), (30, 31), (33, 70), (70, 70), (20, 20)],
        [5, 2, 4, 4, 20, 5])
    coarse = make_level(4, (25, 25), [(12, 12)], 20)
    known = points((50, 50, 5, 1, 1), (30, 30, 4, 2, 0), (30, 70, 4, 3, 0),
                   (70, 70, 5, 4, 0))
    owner, large = known.of_seeds(candidates([fine, coarse]))
    # the fourth is 3 pixels off, the fifth far larger, the sixth far from all;
    # that of the binned image is at 49.5 and on the large galaxy
    assert owner.tolist() == [1, 1, 2, -1, -1, -1, 1]
    assert large.tolist() == [True, True, *4 * [False], True]


def test_fit_to_points():
    """What is known at points counts, and says nothing of empty places."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:64, :64]
    image = as_labelled(rng.normal(size=(64, 64)) + 30 * np.exp(
        -((x - 20)**2 + (y - 30)**2) / 50), np.zeros((64, 64), int)).image
    model = small_model()
    torch.nn.init.constant_(model.head.pixel.bias, -1.0)
    seen = graph_of_scene(model, image, points((0, 0, 1, 1, 1)))
    assert not seen.seed_weight.any()
    ys, xs = np.mgrid[:64:2, :64:2].reshape(2, -1)
    every = points(*np.stack([xs, ys, 0 * xs + 1, 1 + (xs > 31), 0 * xs + 1],
                             axis=-1))
    one = SimpleNamespace(image=image, truth=every)
    told = graph_of_scene(model, image, every)
    known = told.pair_weight > 0
    assert known.any()
    fit_decision(model, 10 * [one], held=[one], n_epochs=1, peak_rate=0.01,
                 bfloat16=False, progress=False)
    first = copy.deepcopy(model.decision.state_dict())
    fit_decision(model, 10 * [one], held=[one], n_epochs=1, share=0.0,
                 bfloat16=False, progress=False)
    for key, value in model.decision.state_dict().items():
        np.testing.assert_array_equal(value, first[key])


def test_nothing_to_decide():
    """Sky without a pair of seeds."""
    none = as_labelled(np.random.default_rng(0).normal(size=(64, 64)),
                       np.zeros((64, 64), int))
    with pytest.raises(ValueError, match='0 pairs are too few'):
        fit_decision(small_model(), 10 * [none], bfloat16=False,
                     progress=False)
