# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the train package.
"""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from astrodino_seg.heads import DenseMaps, Seeds
from astrodino_seg.model import Encoder, Model, load_model
from astrodino_seg.prediction import find_seeds
from astrodino_seg.preprocess import PreprocessSpec
from astrodino_seg.simulate import Scene
from astrodino_seg.train import (
    fit_model,
    losses,
    supervised,
    train_from_config,
)
from astrodino_seg.train.losses import (
    WEIGHTS,
    _importance,
    _with_own_seeds,
    centre_focal_loss,
    grouping_losses,
    heat_target,
)
from astrodino_seg.train.recipe import make_model
from astrodino_seg.train.supervised import learning_rate
from astrodino_seg.train.targets import (
    CropDataset,
    Sample,
    _dihedral,
    _turn_points,
    make_sample,
)

FEW = settings(deadline=None, max_examples=20)
SIZE = 96


def make_scene(seed, size=SIZE, n=7):
    """Gaussians with exact owners; needs no GalSim."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    width = rng.uniform(2, 5, n)
    width[0] = 11
    x0, y0 = rng.uniform(5, size - 6, (2, n))
    parts = rng.uniform(8, 40, n)[:, None, None] * np.exp(
        -((x - x0[:, None, None])**2 + (y - y0[:, None, None])**2)
        / (2 * width[:, None, None]**2))
    sn = np.sqrt(2) * parts
    order = np.argsort(-sn, axis=0)[:3]
    own = np.take_along_axis(sn, order, axis=0)
    return Scene(
        cube=np.stack([parts.sum(axis=0)] * 2).astype(np.float32),
        owner=np.where(own > 1e-3, order + 1, 0).astype(np.int16),
        own_sn=own.astype(np.float32), bands={'g': .48, 'r': .62},
        psf_fwhm=np.array([3.0, 3.0]),
        objects={'x': x0, 'y': y0, 'cls': rng.integers(1, 3, n),
                 'kind': np.array(['field'] * n), 're': width,
                 'primary': np.arange(n) == 0})


def tiny_model(seed=0):
    torch.manual_seed(seed)
    return Model(vit={'dim': 48, 'depth': 1, 'n_heads': 3},
                 head={'widths': (4, 8, 8, 8, 8)})


def crops(n=6, size=48, seed=0):
    data = CropDataset([make_scene(k) for k in range(3)], PreprocessSpec(),
                       n, n_items=1, crop_sizes=(size,), seed=seed)
    return [crop for k in range(n) for crop in data[k]]


# ---------------------------------------------------------------- targets

@FEW
@given(st.integers(0, 7), st.integers(0, 8), st.integers(0, 8))
def test_turn_points(turn, x, y):
    """Points go where a marked pixel of the array goes."""
    marked = np.zeros((2, 9, 9))
    marked[:, y, x] = 1
    new = _turn_points(turn, np.array([x]), np.array([y]), 9)
    assert_array_equal(np.argwhere(_dihedral(turn, marked)[1])[0],
                       [new[1][0], new[0][0]])


def test_eight_turns():
    image = np.arange(9).reshape(3, 3)
    assert len({_dihedral(k, image).tobytes() for k in range(8)}) == 8


def check_sample(sample, size):
    n = len(sample.cls)
    labels = sample.labels
    assert sample.channels.dtype == torch.float32
    assert labels.shape == sample.classes.shape == (size, size)
    assert labels.dtype == sample.classes.dtype == torch.int64
    assert sample.seed_xy.shape == (len(sample.seed_object), 2)
    assert sample.centre.shape == (n, 2)
    assert set(np.unique(labels)) - {-1, 0} == set(range(1, n + 1))
    # the centres first, one an object; every seed lies on its object
    assert_array_equal(sample.seed_object[:n], np.arange(n))
    x, y = sample.seed_xy.long().T
    assert_array_equal(labels[y, x], sample.seed_object + 1)
    assert_array_equal(sample.seed_xy, sample.seed_xy.round())
    for k in range(n):
        assert (sample.classes[labels == k + 1] == sample.cls[k]).all()
        assert (sample.seed_object[n:] == k).any()     # a decoy each
    assert_array_equal(labels == -1, sample.classes == -1)
    assert_array_equal(labels == 0, sample.classes == 0)


@pytest.mark.parametrize('seed', range(4))
def test_crops(seed):
    found = crops(seed=seed)
    assert len(found) == 12
    for sample in found:
        assert sample.channels.shape == (5, 48, 48)
        check_sample(sample, 48)
    assert max(len(sample.cls) for sample in found) > 2


def test_crops_follow_the_image():
    """
    Light lies where the labels and the centres are, however it was turned.
    """
    inside, outside, at_centre, count = [], [], [], 0
    for sample in crops(30):
        detection = sample.channels[0]
        if (sample.labels > 0).any() and (sample.labels == 0).any():
            inside.append(float(detection[sample.labels > 0].mean()))
            outside.append(float(detection[sample.labels == 0].mean()))
        for k, (x, y) in enumerate(sample.centre.round().long().tolist()):
            if 0 <= x < 48 and 0 <= y < 48 and sample.labels[y, x] == k + 1:
                own = detection[sample.labels == k + 1]
                at_centre.append(float((detection[y, x] >= own).float()
                                       .mean()))
                assert_array_equal(sample.seed_xy[k], [x, y])
                count += 1
    assert np.mean(inside) > np.mean(outside) + 0.7
    assert count > 60
    assert np.mean(at_centre) > 0.8


def test_sizes_in_turn():
    """Sides go in turn by step, and one large crop is worth two."""
    data = CropDataset([make_scene(0, size=352)], PreprocessSpec(), 4,
                       n_items=2, crop_sizes=(32, 336))
    assert len(data) == 8
    shapes = [[tuple(c.labels.shape) for c in data[k]] for k in range(4)]
    assert shapes == 2 * [[(32, 32)] * 2] + 2 * [[(336, 336)]]


def test_items_are_fixed():
    data = CropDataset([make_scene(k) for k in range(3)], PreprocessSpec(),
                       3, crop_sizes=(48,), seed=4)
    one, two = data[3], data[3]
    for a, b in zip(one, two):
        for part in vars(a):
            assert_array_equal(getattr(a, part), getattr(b, part))
    assert not np.array_equal(one[0].channels, data[2][0].channels)
    other = CropDataset(data.scenes, PreprocessSpec(), 3, crop_sizes=(48,),
                        seed=5)
    assert not np.array_equal(one[0].channels, other[3][0].channels)


def test_crop_larger_than_scene():
    data = CropDataset([make_scene(0)], PreprocessSpec(), 1,
                       crop_sizes=(112,))
    match = 'crop_sizes must be at most the side of the scenes, 96, got 112'
    with pytest.raises(ValueError, match=match):
        data[0]


def hand_sample(labels, owners=None, shares=None, **objects):
    """A sample of given labels and objects on flat channels."""
    labels = np.asarray(labels)
    channels = np.zeros((5, *labels.shape), np.float32)
    n = len(objects.get('id', ()))
    objects = {'id': np.arange(1, n + 1), 'x': np.zeros(n), 'y': np.zeros(n),
               'cls': np.ones(n, int), 'n_pixels': np.full(n, 99),
               **{k: np.array(v) for k, v in objects.items()}}
    own_sn = np.where(labels > 0, 1 + np.arange(labels.size).reshape(
        labels.shape) / labels.size, 0)
    return make_sample(np.random.default_rng(0), channels, labels, own_sn,
                       objects, owners, shares)


def test_make_sample_hand():
    """A visible centre, one beyond the crop, a sliver, and void."""
    labels = np.zeros((16, 16), int)
    labels[2:6, 2:6] = 4
    labels[10:16, 0:5] = 2
    labels[0, 10:15] = 7                   # five pixels are too few
    labels[8, 8:16] = -1
    sample = hand_sample(labels, id=[2, 4, 7], x=[-9., 3.4, 12.],
                         y=[12., 3.6, 0.], cls=[2, 1, 1],
                         n_pixels=[400, 16, 5])
    check_sample(sample, 16)
    assert_array_equal(sample.labels == 1, labels == 2)
    assert_array_equal(sample.labels == 2, labels == 4)
    assert_array_equal(sample.labels == -1, (labels == -1) | (labels == 7))
    # the brightest own pixel where the centre is outside
    assert_array_equal(sample.seed_xy[:2], [[4, 15], [3, 4]])
    assert_allclose(sample.centre, [[-9, 12], [3.4, 3.6]], rtol=1e-6)
    assert_allclose(sample.log_size,
                    np.log(np.sqrt(np.array([400, 16]) / np.pi)), rtol=1e-6)
    assert_array_equal(sample.cls, [2, 1])


def test_empty_sample():
    sample = hand_sample(np.zeros((16, 16), int))
    check_sample(sample, 16)
    assert sample.seed_xy.shape == sample.centre.shape == (0, 2)


def test_many_objects():
    """Objects beyond the limit are void."""
    labels = 1 + np.arange(32 * 32).reshape(32, 32) // 8
    sample = hand_sample(labels, id=np.arange(1, 129))
    check_sample(sample, 32)
    assert len(sample.cls) == 90
    assert (sample.labels == -1).sum() == 38 * 8


# ----------------------------------------------------------------- losses

def test_heat_target():
    """Exactly one at the centres; elsewhere the largest Gaussian."""
    xy = torch.tensor([[10.0, 7], [13, 7], [30, 21], [0, 0]])
    log_size = torch.tensor([1.0, 0.0, 4.0, 2.0])
    target = heat_target(xy, log_size, (12, 18)).double().numpy()
    rows, columns = [3, 3, 10, 0], [5, 6, 15, 0]
    assert (target[rows, columns] == 1).all()
    assert (target == 1).sum() == 4
    y, x = np.mgrid[:12, :18]
    sigma = np.clip(0.06 * np.exp([1.0, 0.0, 4.0, 2.0]), 0.8, 3)
    gauss = np.array([np.exp(-((y - r)**2 + (x - c)**2) / (2 * s**2))
                      for r, c, s in zip(rows, columns, sigma)])
    wanted = gauss.max(axis=0)
    far = wanted < np.exp(-4.5)            # cut beyond 3 sigma
    assert_allclose(target[~far], wanted[~far], rtol=1e-5)
    assert (target[far] <= wanted[far] * 1.001).all()
    assert (heat_target(xy[:0], log_size[:0], (4, 5)) == 0).all()


def test_heat_target_is_found():
    """Seeds found in a perfect heatmap are the centres."""
    xy = torch.tensor([[10.0, 7], [31, 20], [21, 2]])
    target = heat_target(xy, torch.tensor([1.0, 3.0, 2.0]), (16, 24))
    x, y, _ = find_seeds(torch.logit(target, 1e-6), 0.9)
    found = sorted(zip((x - 0.5).tolist(), (y - 0.5).tolist()))
    assert found == sorted((2 * (a // 2), 2 * (b // 2))
                           for a, b in xy.tolist())


@FEW
@given(st.integers(0, 10**6), st.integers(0, 7))
def test_focal_loss(seed, n):
    """Equation 1 of Zhou et al. (2019), pixel by pixel, with weights."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 4, (6, 8))
    target = rng.uniform(0, 0.99, (6, 8))
    target.flat[rng.choice(48, n, replace=False)] = 1
    ignore = rng.random((6, 8)) < 0.2
    weight = rng.uniform(0, 5, (6, 8))
    terms = np.zeros((6, 8))
    for k, (value, wanted, skip) in enumerate(zip(
            logits.flat, target.flat, ignore.flat)):
        p = np.clip(1 / (1 + np.exp(-value)), 1e-5, 1 - 1e-5)
        if wanted == 1:
            terms.flat[k] = (1 - p)**2 * np.log(p)
        elif not skip:
            terms.flat[k] = (1 - wanted)**4 * p**2 * np.log(1 - p)
    tensors = [torch.from_numpy(a) for a in (logits, target, ignore, weight)]
    assert_allclose(centre_focal_loss(*tensors[:3]),
                    -terms.sum() / max(n, 4), rtol=1e-9)
    assert_allclose(centre_focal_loss(*tensors),
                    -(weight * terms).sum() / max(n, 4), rtol=1e-9)


def test_large_objects_weigh_more():
    """1 up to 100 pixels, then one half more for each factor e in area."""
    area = np.array([10, 100, 100 * np.e, 100 * np.e**4])
    weight = _importance(torch.from_numpy(0.5 * np.log(area / np.pi)))
    assert_allclose(weight, [1, 1, 1.5, 3])


def maps_of(model, sample):
    maps = model(sample.channels[None])
    return DenseMaps(*(part[0] for part in maps[:-1]),
                     tuple(level[0] for level in maps.pyramid))


def losses_of(model, sample, seed=0):
    return grouping_losses(model.head, maps_of(model, sample), sample,
                           torch.Generator().manual_seed(seed))


def test_losses_are_finite():
    model = tiny_model()
    for sample in crops(3):
        found = losses_of(model, sample)
        assert set(found) <= set(WEIGHTS)
        if len(sample.cls):
            assert set(found) == set(WEIGHTS)
        for value in found.values():
            assert value.shape == ()
            assert torch.isfinite(value)
            assert value >= 0
        total = sum(WEIGHTS[k] * v for k, v in found.items())
        model.zero_grad()
        total.backward()
        for param in model.parameters():
            assert param.grad is None or torch.isfinite(param.grad).all()


@pytest.mark.parametrize('labels', [
    np.zeros((32, 32)), np.full((32, 32), -1),
    np.where(np.arange(32) < 31, -1, 0) * np.ones((32, 1))],
    ids=['sky', 'void', 'nearly void'])
def test_losses_without_objects(labels):
    model = tiny_model()
    found = losses_of(model, hand_sample(labels.astype(int)))
    assert all(torch.isfinite(value) for value in found.values())
    sum(found.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters()
               if p.grad is not None)


def test_void_is_not_learned(monkeypatch):
    """What the maps say in void pixels has no part in the losses."""
    labels = np.zeros((32, 32), int)
    labels[:, 20:] = -1
    labels[4:12, 4:12] = 1
    sample = hand_sample(labels, id=[1], x=[8.], y=[8.])
    model = tiny_model().eval()
    maps = maps_of(model, sample)
    void = sample.labels < 0
    other = maps._replace(
        embedding=torch.where(void, 7.0, maps.embedding),
        sky=torch.where(void, -9.0, maps.sky),
        classes=torch.where(void, 5.0, maps.classes),
        heat=torch.where(void[::2, ::2], 3.0, maps.heat),
        vote=torch.where(void, -11.0, maps.vote))
    one, two = (grouping_losses(model.head, m, sample,
                                torch.Generator().manual_seed(0))
                for m in (maps, other))
    for key in one:
        assert_allclose(one[key].item(), two[key].item(), rtol=1e-5)


def test_perfect_mask():
    """The mask losses vanish for a perfect score, and not for others."""
    labels = np.zeros((32, 32), int)
    labels[4:12, 4:12] = 1
    labels[16:30, 10:30] = 2
    sample = hand_sample(labels, id=[1, 2], x=[8., 20.], y=[8., 22.])
    sky = torch.where(sample.labels == 0, 30.0, 0.0)[None]

    class Head:
        """Scores that know the labels."""

        @staticmethod
        def score(seeds, embedding, x, y):
            here = sample.labels[y.long(), x.long()]
            return 30.0 * (here == torch.tensor([[1], [2]])).float()

    maps = DenseMaps(None, torch.zeros(3, 32, 32), sky, None,
                     torch.zeros(2, 32, 32), ())
    generator = torch.Generator().manual_seed(0)
    owner = torch.arange(2)
    found = losses._mask_losses(Head, None, owner, maps, sample, generator)
    assert found['mask'] < 1e-6
    assert abs(found['dice']) < 1e-3
    worse = maps._replace(sky=torch.full_like(sky, 90.0))
    found = losses._mask_losses(Head, None, owner, worse, sample, generator)
    assert found['mask'] > 5
    assert found['dice'] > 0.9
    # with votes it is the score of elsewhere that counts
    away = maps._replace(vote=torch.zeros(2, 32, 32))
    away.vote[0, :, :20] = 5               # x
    there = np.concatenate([labels[:, 5:25], labels[:, 20:]], axis=1)
    ties = np.where(labels == 0, np.where(there > 0, np.log(2), 0),
                    np.where(there == 0, np.log(3), 0))
    assert (there != labels).sum() > 100
    assert (there[labels > 0] * labels[labels > 0] != 2).all()
    found = losses._mask_losses(Head, None, owner, away, sample, generator)
    assert_allclose(found['mask'].item(), ties.mean(), rtol=1e-5)


# ------------------------------------------------- masks from several seeds

def scattered_sample():
    """Two objects, void, and five seeds: 2 + 1 of one, 1 + 1 of the other."""
    labels = np.zeros((32, 32), int)
    labels[4:12, 4:14] = 1
    labels[15:30, 8:30] = 2
    labels[:, 31] = -1
    sample = hand_sample(labels, id=[1, 2], x=[8.3, 20.], y=[7.8, 22.4],
                         cls=[1, 2])
    noise = torch.randn(sample.channels.shape,
                        generator=torch.Generator().manual_seed(6))
    return replace(sample, channels=3 * noise,
                   seed_xy=torch.tensor([[8., 8], [20, 22], [12, 5],
                                         [11, 28], [5, 10]]),
                   seed_object=torch.tensor([0, 1, 0, 1, 0]))


def voting_model():
    """A small model whose votes are not zero."""
    model = tiny_model().eval()
    torch.nn.init.normal_(model.head.vote.weight, std=0.2)
    torch.nn.init.normal_(model.head.vote.bias, std=0.2)
    return model


def read_seeds(model, maps, sample, members):
    seeds = model.head.read_seeds(maps.pyramid, *sample.seed_xy.T)
    return Seeds(*(part[members] for part in seeds))


def plain_scores(seeds, maps):
    """(S, y, x) score of each seed at each pixel's vote, in float64."""
    seeds = Seeds(*(part.detach().double().numpy() for part in seeds))
    embedding, vote = (part.detach().double().numpy()
                       for part in (maps.embedding, maps.vote))
    y, x = np.mgrid[:embedding.shape[1], :embedding.shape[2]]
    out = []
    for k in range(len(seeds.centre)):
        dx = x + vote[0] - seeds.centre[k, 0]
        dy = y + vote[1] - seeds.centre[k, 1]
        xx, xy, yy = seeds.matrix[k]
        q = np.minimum(xx * dx**2 + 2 * xy * dx * dy + yy * dy**2, 1e4)
        u, v = seeds.falloff[k]
        out.append(np.tensordot(seeds.kernel[k, :-1], embedding, 1)
                   + seeds.kernel[k, -1] - u * np.sqrt(q + 1e-4)
                   - v * np.log(1 + q))
    return np.array(out)


def plain_mask_losses(scores, owner, maps, sample):
    """The mask losses over all pixels, pixel by pixel."""
    n = len(sample.cls)
    labels, sky = sample.labels.numpy(), maps.sky[0].detach().numpy()
    vote = maps.vote.detach().double().numpy()
    entropy, n_known, off = 0.0, 0, []
    inside, total, area = np.zeros((3, n))
    for y, x in np.ndindex(labels.shape):
        label = labels[y, x]
        if label < 0:
            continue
        best = [float(sky[y, x])] + [
            max(s for s, o in zip(scores[:, y, x], owner) if o == k)
            for k in range(n)]
        p = np.exp(best) / np.exp(best).sum()
        entropy -= np.log(p[label])
        n_known += 1
        total += p[1:]
        if label > 0:
            k = label - 1
            inside[k] += p[label]
            area[k] += 1
            d = (np.array([x, y]) + vote[:, y, x]
                 - sample.centre[k].numpy()) / np.exp(
                     float(sample.log_size[k]))
            d = abs(d)
            off.extend(np.where(d < 0.2, d**2 / 0.4, d - 0.1))
    dice = 1 - (2 * inside + 1) / (total + area + 1)
    importance = 1 + np.log(np.maximum(area / 100, 1))
    return {'mask': entropy / n_known,
            'dice': (dice * importance).sum() / importance.sum(),
            'vote': np.mean(off)}


@pytest.mark.parametrize('members', [
    [0, 1], [0, 1, 2, 3, 4], [2, 3], [4, 0, 3, 2, 1]],
    ids=['centres', 'all', 'decoys', 'any order'])
def test_mask_losses(members):
    """An object's score is that of its best seed, by brute force."""
    model, sample = voting_model(), scattered_sample()
    maps = maps_of(model, sample)
    assert maps.vote.std() > 1
    seeds = read_seeds(model, maps, sample, members)
    owner = sample.seed_object[members]
    found = losses._mask_losses(model.head, seeds, owner, maps, sample,
                                torch.Generator().manual_seed(0))
    scores = plain_scores(seeds, maps)
    if len(members) == 5:                  # no seed is best everywhere
        assert len(np.unique(scores[owner.numpy() == 0].argmax(0))) == 3
    wanted = plain_mask_losses(scores, owner.tolist(), maps, sample)
    assert set(found) == set(wanted)
    for key, value in wanted.items():
        assert_allclose(found[key].item(), value, rtol=1e-4)


def test_mask_losses_are_sampled(monkeypatch):
    """With fewer pixels the losses are those of all, but for noise."""
    model, sample = voting_model(), scattered_sample()
    maps = maps_of(model, sample)
    seeds = read_seeds(model, maps, sample, slice(None))
    monkeypatch.setattr(losses, 'OBJECT_PIXELS', 60)
    monkeypatch.setattr(losses, 'SKY_PIXELS', 200)
    every = [losses._mask_losses(model.head, seeds, sample.seed_object, maps,
                                 sample, torch.Generator().manual_seed(k))
             for k in range(60)]
    wanted = plain_mask_losses(plain_scores(seeds, maps),
                               sample.seed_object.tolist(), maps, sample)
    for key in ('mask', 'dice'):
        values = np.array([one[key].item() for one in every])
        assert values.std() > 0
        error = 4 * values.std() / np.sqrt(60)
        assert abs(values.mean() - wanted[key]) < error + 0.01 * wanted[key]


def test_owner_loss_by_hand():
    """
    A pixel of the sky, one of an object alone, and one that is shared: the
    target is half the owner's and half as the light is shared, and it counts
    up to four times.
    """
    p = np.array([[.7, .2, .1], [.1, .6, .2], [.2, .2, .7]])
    p /= p.sum(axis=0)
    rivals = torch.tensor([[0, 0, 2], [0, 0, 0]])
    shares = torch.tensor([[0, 0, 0.3], [0, 0, 0]])
    found = losses.owner_loss(
        torch.from_numpy(p).log(), torch.tensor([0, 1, 1]), rivals,
        shares.double(), torch.tensor([1., 2., 1.]).double())
    weight = np.array([1, 2, 1 + 3 * 4 * 0.3 * 0.7])
    terms = [np.log(p[0, 0]), np.log(p[1, 1]),
             0.85 * np.log(p[1, 2]) + 0.15 * np.log(p[2, 2])]
    assert_allclose(found, -(weight * terms).sum() / weight.sum(), rtol=1e-6)


def test_shares_of_a_sample():
    """Rivals by their index; who is not asked for has no share."""
    labels = np.zeros((16, 16), int)
    labels[:8], labels[8:12] = 5, 3
    owners = np.zeros((3, 16, 16), int)
    owners[0] = labels
    owners[1, :8] = 3
    owners[2, :8] = 9                      # too faint to be asked for
    owners[0, 12:] = 9                     # below the isophote: sky
    shares = np.zeros((3, 16, 16), np.float32)
    shares[:, :8] = np.reshape([.6, .2, .2], (3, 1, 1))
    shares[0, 8:] = 1
    sample = hand_sample(labels, id=[3, 5], x=[5., 5.], y=[10., 4.],
                         owners=owners, shares=shares)
    assert sample.rivals.shape == sample.shares.shape == (2, 16, 16)
    assert_array_equal(sample.rivals[0], np.where(labels == 5, 1, 0))
    assert (sample.rivals[1] == 0).all()
    assert_allclose(sample.shares[0], np.where(labels == 5, 0.25, 0),
                    rtol=1e-6)
    assert (sample.shares[1] == 0).all()


def test_shares_are_flipped_too():
    """In crops of scenes the owner has the most, and rivals are others."""
    n_shared = 0
    for sample in crops(6):
        own = 1 - sample.shares.sum(dim=0)
        assert (sample.shares <= own + 1e-6).all()
        assert (sample.shares[:, sample.labels <= 0] == 0).all()
        there = sample.rivals > 0
        assert (sample.rivals != sample.labels)[there].all()
        n_shared += int((sample.shares > 0.1).sum())
    assert n_shared > 100


def test_vote_loss():
    """Zero where the votes hit the true centres, whatever the sky says."""
    model, sample = tiny_model(), scattered_sample()
    maps = maps_of(model, sample)
    seeds = read_seeds(model, maps, sample, [0, 1])

    def loss(vote):
        return losses._mask_losses(
            model.head, seeds, torch.arange(2), maps._replace(vote=vote),
            sample, torch.Generator().manual_seed(0))['vote'].item()

    y, x = torch.meshgrid(torch.arange(32), torch.arange(32), indexing='ij')
    centre = sample.centre[(sample.labels - 1).clamp(min=0)]
    true = centre.permute(2, 0, 1) - torch.stack([x, y])
    assert loss(true) < 1e-10
    sky = sample.labels <= 0
    assert loss(torch.where(sky, 99.0, true)) < 1e-10
    # half a radius to the right is 0.5 - 0.1 in x and none in y
    radius = sample.log_size.exp()[(sample.labels - 1).clamp(min=0)]
    beside = true + torch.stack([0.5 * radius, 0 * radius])
    assert_allclose(loss(beside), 0.2, rtol=1e-4)
    assert_allclose(loss(true - (beside - true)), 0.2, rtol=1e-4)


def test_mask_gradients():
    """Finite, and every taking part seed, the votes and the sky have one."""
    model, sample = voting_model(), scattered_sample()
    maps = maps_of(model, sample)
    vote, sky = maps.vote.detach(), maps.sky.detach()
    maps = maps._replace(vote=vote.requires_grad_(),
                         sky=sky.requires_grad_())
    seeds = read_seeds(model, maps, sample, slice(None))
    kernel = seeds.kernel.detach().requires_grad_()
    found = losses._mask_losses(
        model.head, seeds._replace(kernel=kernel), sample.seed_object, maps,
        sample, torch.Generator().manual_seed(0))
    sum(found.values()).backward()
    for grad in (vote.grad, sky.grad, kernel.grad):
        assert torch.isfinite(grad).all()
    assert kernel.grad.any(dim=1).all()
    known = sample.labels >= 0
    assert (sky.grad[0] != 0)[known].all()
    assert not vote.grad[:, ~known].any()
    assert (vote.grad != 0).any(dim=0)[sample.labels > 0].all()
    for param in model.head.parameters():
        assert param.grad is None or torch.isfinite(param.grad).all()


# ------------------------------------------------------- what takes part

def nothing_shared(size):
    """Rivals and shares where they are not known."""
    return torch.zeros(0, size, size).long(), torch.zeros(0, size, size)


def crowd(n, decoys):
    """A sample of ``n`` objects with so many decoys each."""
    owner = torch.cat([torch.arange(n), torch.arange(n).repeat_interleave(
        torch.as_tensor(decoys))])
    return Sample(torch.zeros(5, 4, 4), torch.zeros(4, 4, dtype=torch.long),
                  torch.zeros(4, 4, dtype=torch.long),
                  torch.zeros(len(owner), 2), owner, torch.zeros(n, 2),
                  torch.zeros(n), torch.ones(n, dtype=torch.long),
                  *nothing_shared(4))


@FEW
@given(st.lists(st.integers(0, 5), min_size=1, max_size=9),
       st.integers(0, 10**6))
def test_members(decoys, seed):
    """At least one seed an object, each once, all of them seeds."""
    sample = crowd(len(decoys), decoys)
    found = losses._members(sample, torch.Generator().manual_seed(seed))
    assert found.dtype == torch.int64
    assert (found.diff() > 0).all()
    assert found.min() >= 0
    assert found.max() < len(sample.seed_object)
    assert set(sample.seed_object[found].tolist()) == set(range(len(decoys)))


@pytest.mark.parametrize('decoys', [0, 1, 4])
def test_members_odds(decoys):
    """
    A decoy in 0.35 of the cases; a centre in 0.8, and where else there
    would be none. Four decoys: alone, without the centre, and together.
    """
    n = 4000
    sample = crowd(n, [decoys] * n)
    found = losses._members(sample, torch.Generator().manual_seed(0))
    drawn = torch.zeros(len(sample.seed_object), dtype=torch.bool)
    drawn[found] = True
    centre, rest = drawn[:n].numpy(), drawn[n:].reshape(n, decoys).numpy()
    none = 0.65**decoys
    assert_allclose(centre.mean(), 0.8 + 0.2 * none, atol=0.025)
    assert centre[~rest.any(axis=1)].all()
    if decoys:
        assert_allclose(rest.mean(), 0.35, atol=0.025)
        several = drawn[:n].numpy() & rest.any(axis=1)
        assert_allclose(several.mean(), 0.8 * (1 - none), atol=0.025)
        assert_allclose((~centre).mean(), 0.2 * (1 - none), atol=0.025)


def test_pixels(monkeypatch):
    """
    Small objects are drawn whole; the weights of the pixels drawn of larger
    ones add up to their areas on average; void is not drawn.
    """
    monkeypatch.setattr(losses, 'OBJECT_PIXELS', 100)
    monkeypatch.setattr(losses, 'SKY_PIXELS', 300)
    labels = torch.zeros(64, 64, dtype=torch.long)
    labels[:20, :20], labels[30:40, 30:40] = 1, 2      # 400, and just 100
    labels[50:, 50:], labels[:30, 40:] = 3, -1         # 196
    labels[30, :3] = 4
    flat = labels.ravel()
    area = np.array([(flat == k).sum() for k in range(5)])
    sums, counts = [], []
    for seed in range(200):
        index, weight = losses._pixels(labels,
                                       torch.Generator().manual_seed(seed))
        assert (index.diff() > 0).all()
        drawn = flat[index].numpy()
        assert drawn.min() == 0
        sums.append(np.bincount(drawn, weight, minlength=5))
        counts.append(np.bincount(drawn, minlength=5))
        for k, each in enumerate(np.maximum(area / [300, 100, 100, 100, 100],
                                            1)):
            assert_allclose(weight[drawn == k], each, rtol=1e-5)
    counts, sums = np.array(counts), np.array(sums)
    for k in (2, 4):
        assert (counts[:, k] == area[k]).all()
        assert_allclose(sums[:, k], area[k])
    for k, wanted in ((0, 300), (1, 100), (3, 100)):
        assert_allclose(counts[:, k].mean(), wanted, rtol=0.03)
        assert_allclose(sums[:, k].mean(), area[k], rtol=0.03)
        assert counts[:, k].std() > 0


def test_pixels_without_sky():
    labels = torch.full((8, 8), -1)
    labels[2:5, 2:5] = 1
    index, weight = losses._pixels(labels, torch.Generator().manual_seed(0))
    assert_array_equal(index, (labels.ravel() > 0).nonzero()[:, 0])
    assert_array_equal(weight, np.ones(9))


def test_class_weights():
    """Pixels of stars and artifacts count four times, void not at all."""
    labels = np.zeros((32, 32), int)
    labels[2:8, 2:8], labels[10:20, 10:20], labels[25:, 25:] = 1, 2, 3
    labels[:, 22:24] = -1
    sample = hand_sample(labels, id=[1, 2, 3], x=[4., 15, 28],
                         y=[4., 15, 28], cls=[1, 2, 3])
    model = tiny_model().eval()
    logits = maps_of(model, sample).classes.detach().double().numpy()
    log_p = logits - np.log(np.exp(logits).sum(axis=0))
    top = norm = 0.0
    for y, x in np.ndindex(labels.shape):
        if labels[y, x] >= 0:              # the classes are the labels here
            weight = (1, 4, 1, 4)[labels[y, x]]
            top -= weight * log_p[labels[y, x], y, x]
            norm += weight
    assert_allclose(losses_of(model, sample)['classes'].item(), top / norm,
                    rtol=1e-5)


class PairHead:
    """Scores that fall with the distance, and remembers what is asked."""

    def score(self, seeds, embedding, x, y):
        return 3 - torch.hypot(x - seeds[:, :1], y - seeds[:, 1:])

    def pair_logits(self, seeds, claims, i, j, x, y):
        self.asked = torch.stack([i, j], dim=-1).tolist()
        self.claims, self.position = torch.stack(claims, -1), (x, y)
        return 0.1 * (i - 2 * j).float()


def pair_case(n=30, seed=0):
    rng = torch.Generator().manual_seed(seed)
    sample = replace(
        crowd(n, [1] * n),
        seed_xy=torch.randint(0, 200, (2 * n, 2), generator=rng).float())
    vote = 30 * torch.randn(2, 200, 200, generator=rng)
    maps = DenseMaps(None, torch.zeros(1, 200, 200),
                     torch.zeros(1, 200, 200), None, vote, ())
    centre = sample.seed_xy + 3
    return sample, maps, centre


def pairs_by_loops(sample, maps, centre):
    """Which pairs inference asks about, by what they say of each other."""
    xy, out = sample.seed_xy.numpy(), {}
    voted = np.array([(x + float(maps.vote[0, int(y), int(x)]),
                       y + float(maps.vote[1, int(y), int(x)]))
                      for x, y in xy])
    for i in range(len(xy)):
        for j in range(i + 1, len(xy)):
            claims = [3 - np.hypot(*(voted[b] - centre[a].numpy()))
                      for a, b in ((i, j), (j, i))]
            same = bool(sample.seed_object[i] == sample.seed_object[j])
            if same or max(claims) > -4 or np.hypot(*(xy[i] - xy[j])) < 24:
                out[i, j] = same, claims
    return voted, out


def test_pair_loss():
    """All pairs that are asked about, with claims where the seeds vote."""
    sample, maps, centre = pair_case()
    head = PairHead()
    found = losses._pair_loss(head, centre, maps, sample,
                              torch.Generator().manual_seed(0), n_max=10**6)
    voted, wanted = pairs_by_loops(sample, maps, centre)
    assert 60 < len(wanted) < 59 * 30
    assert sorted(map(tuple, head.asked)) == sorted(wanted)
    assert_allclose(torch.stack(head.position, -1), voted, rtol=1e-5)
    loss = []
    for (i, j), claims in zip(head.asked, head.claims):
        same, by_hand = wanted[i, j]
        assert_allclose(claims, by_hand, rtol=1e-3, atol=1e-3)
        p = 1 / (1 + np.exp(-0.1 * (i - 2 * j)))
        loss.append(-np.log(p if same else 1 - p))
    assert_allclose(found.item(), np.mean(loss), rtol=1e-5)


def test_pair_loss_is_balanced():
    """Of either answer at most ``n_max``, and not the first ones."""
    sample, maps, centre = pair_case()
    head, asked = PairHead(), []
    _, wanted = pairs_by_loops(sample, maps, centre)
    for seed in range(2):
        losses._pair_loss(head, centre, maps, sample,
                          torch.Generator().manual_seed(seed), n_max=12)
        asked.append(set(map(tuple, head.asked)))
        assert len(asked[-1]) == len(head.asked)
        answers = [wanted[pair][0] for pair in asked[-1]]
        assert (answers.count(True), answers.count(False)) == (12, 12)
    assert asked[0] != asked[1]
    losses._pair_loss(head, centre, maps, sample,
                      torch.Generator().manual_seed(0), n_max=50)
    answers = [wanted[tuple(pair)][0] for pair in head.asked]
    assert (answers.count(True), answers.count(False)) == (30, 50)


def test_loss_falls():
    """A few steps on one crop."""
    model, sample = tiny_model(), crops(1, size=32)[0]
    assert len(sample.cls) > 0
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    values = []
    for _ in range(20):
        found = losses_of(model, sample)
        total = sum(WEIGHTS[k] * v for k, v in found.items())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        values.append(total.item())
    assert np.mean(values[-3:]) < 0.7 * values[0]


# --------------------------------------------------------------- the loop

def test_learning_rate():
    def rate(step):
        return learning_rate(step, 1200, peak=2.0, warmup=200)

    assert_allclose(rate(0), 0.01)
    assert_allclose(rate(99), 1.0)
    assert_allclose(rate(199), 2.0)
    assert_allclose(rate(200), 2.0)
    assert_allclose(rate(700), 0.02 + 0.99)      # half of the cosine
    assert_allclose(rate(1200), 0.02)
    every = np.array([rate(k) for k in range(1200)])
    assert (np.diff(every[:200]) > 0).all()
    assert (np.diff(every[200:]) < 0).all()


def fit(out, n_steps=6, **kwargs):
    return fit_model(tiny_model(), [make_scene(k) for k in range(2)],
                     out=out, n_steps=n_steps, **{
                         'n_items': 1, 'crop_sizes': (32, 48), 'seed': 3,
                         'n_workers': 0, 'progress': False,
                         'save_every': 2, **kwargs})


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize('bfloat16', [False, True])
def test_resume(tmp_path, one_thread, monkeypatch, bfloat16):
    """A run that was killed ends with the weights of one that was not."""
    whole = fit(tmp_path / 'whole', bfloat16=bfloat16)
    step, count = supervised._step, []

    def killed(*args, **kwargs):
        count.append(1)
        if len(count) == 6:
            raise KeyboardInterrupt
        return step(*args, **kwargs)

    with monkeypatch.context() as context:
        context.setattr(supervised, '_step', killed)
        with pytest.raises(KeyboardInterrupt):
            fit(tmp_path / 'killed', bfloat16=bfloat16)
    assert not (tmp_path / 'killed' / 'model.safetensors').exists()
    torch.manual_seed(99)                  # of no importance
    again = fit(tmp_path / 'killed', bfloat16=bfloat16)
    logs = [[json.loads(line) for line in (tmp_path / name / 'log.jsonl')
             .read_text().splitlines()] for name in ('whole', 'killed')]
    assert [line['step'] for line in logs[0]] == [0, 1, 2, 3, 4, 5]
    assert [line['step'] for line in logs[1]] == [0, 1, 2, 3, 4, 5]
    for key, value in whole.state_dict().items():
        assert_array_equal(again.state_dict()[key], value)
    for key in ('total', 'heat', 'rate'):
        assert logs[0][-1][key] == logs[1][-1][key]


def test_bfloat16(one_thread):
    """
    Losses and gradients close to those in float32; weights and losses are
    float32 in either case.
    """
    batch = [one for one in crops(4) if len(one.cls) > 1][:3]
    assert len(batch) == 3
    found, grads = [], []
    for bfloat16 in (False, True):
        model = tiny_model().train()
        values = supervised._step(model, batch,
                                  torch.Generator().manual_seed(0),
                                  own_seeds=True, bfloat16=bfloat16)
        assert set(values) == {*WEIGHTS, 'total'}
        assert all(value.dtype == torch.float32 for value in values.values())
        values['total'].backward()
        trained = [param for name, param in model.named_parameters()
                   if not name.startswith('pairs.')]
        assert all(param.dtype == param.grad.dtype == torch.float32
                   for param in trained)
        # the pair score is fitted later
        assert len(trained) == len(list(model.parameters())) - 6
        assert all(param.grad is None for param in model.pairs.parameters())
        found.append({k: v.item() for k, v in values.items()})
        grads.append(torch.cat([param.grad.ravel() for param in trained]))
    one, two = found
    assert one != two                      # it is not without effect
    for key, value in one.items():
        assert_allclose(two[key], value, rtol=0.03)
    assert torch.isfinite(grads[1]).all()
    assert torch.cosine_similarity(*grads, dim=0) > 0.95


def test_total(one_thread):
    """The weighted sum of the means over the crops."""
    batch, model = crops(2)[:2], tiny_model().train()
    found = supervised._step(model, batch, torch.Generator().manual_seed(0))
    assert_allclose(found['total'].item(), sum(
        WEIGHTS[k] * v.item() for k, v in found.items() if k != 'total'),
        rtol=1e-5)


def test_fit(tmp_path, one_thread):
    """What is left: the averaged weights, a log, and where it came from."""
    model = fit(tmp_path, n_steps=3)
    assert not model.training
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        'checkpoint.pt', 'log.jsonl', 'model.safetensors']
    saved = load_model(tmp_path / 'model.safetensors')
    for key, value in model.state_dict().items():
        assert_array_equal(saved.state_dict()[key], value)
    assert saved.provenance['steps'] == 3
    assert saved.provenance['seed'] == 3
    assert saved.provenance['crop_sizes'] == [32, 48]
    state = torch.load(tmp_path / 'checkpoint.pt', weights_only=True)
    assert state['step'] == 3
    changed = [key for key, value in tiny_model().state_dict().items()
               if not torch.equal(value, model.state_dict()[key])]
    assert len(changed) > 50
    # a finished run is not gone on with
    fit(tmp_path, n_steps=3)
    assert len((tmp_path / 'log.jsonl').read_text().splitlines()) == 3


def test_average(tmp_path, one_thread, monkeypatch):
    """The running average, from the weights of every step."""
    seen, average = [], supervised._average

    def watch(state, model, decay):
        seen.append((model.state_dict()['vit.cls_token'].clone(), decay))
        return average(state, model, decay)

    monkeypatch.setattr(supervised, '_average', watch)
    model = fit(tmp_path, n_steps=4, average_decay=0.25)
    value = tiny_model().state_dict()['vit.cls_token']
    decays = [min(0.25, (k + 1) / (k + 10)) for k in range(4)]
    for (weights, decay), wanted in zip(seen, decays):
        assert_allclose(decay, wanted)
        value = decay * value + (1 - decay) * weights
    assert_allclose(model.state_dict()['vit.cls_token'], value, rtol=1e-4,
                    atol=1e-9)


# ----------------------------------------------------------------- config

@pytest.mark.parametrize(('config', 'match'), [
    ({'scene': {}}, r"config has unknown tables \['scene'\]; known are"),
    ({'fit': {'n_steps': 1}}, "config: 'scenes'"),
    ({'scenes': {}}, 'config: .*n_scenes'),
    ({'scenes': {'n_scenes': 1}}, 'config: .*n_steps'),
    ({'scenes': {'n_scenes': 0}}, r'n_scenes must be in \[1, 1000000\]'),
    ({'scenes': {'n_scenes': 1, 'colour': 1}}, 'config: .*colour'),
    ({'scenes': {'n_scenes': 1}, 'fit': {'n_steps': 1, 'colour': 1}},
     'config: .*colour'),
    ({'scenes': {'n_scenes': 1}, 'fit': {'n_steps': 1},
      'pairs': {'colour': 1, 'model': 2}},
     r"config: pairs has unknown keys \['colour', 'model'\]; known are"),
    ({'scenes': {'n_scenes': 1}, 'model': {'vit': {'dim': 47}}},
     'dim must be a multiple of n_heads=3'),
    ({'scenes': {'n_scenes': 1}, 'model': {'colour': 1}},
     'config: .*colour')])
def test_bad_config(tmp_path, one_thread, config, match):
    with pytest.raises(ValueError, match=match):
        train_from_config(config, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_config(tmp_path, one_thread):
    """A whole recipe, with scenes from the simulator."""
    pytest.importorskip('galsim')
    config = {
        'model': {'vit': {'dim': 48, 'depth': 1, 'n_heads': 3},
                  'head': {'widths': [4, 8, 8, 8, 8]}},
        'scenes': {'n_scenes': 11, 'size': 64, 'path': str(tmp_path / 's')},
        'fit': {'n_steps': 2, 'n_items': 1, 'crop_sizes': [32],
                'n_workers': 0, 'threads': 1, 'seed': 1,
                'progress': False},
        # so short a training finds faint seeds only
        'pairs': {'min_heat': 0.0, 'n_epochs': 1, 'seed': 2,
                  'progress': False}}
    before = json.dumps(config)
    one = train_from_config(config, tmp_path / 'a')
    two = train_from_config(config, tmp_path / 'b')
    assert json.dumps(config) == before
    for key, value in one.state_dict().items():
        assert_array_equal(two.state_dict()[key], value)
    assert len(list((tmp_path / 's').iterdir())) == 11
    # the pair score is in the file
    assert one.pairs.mean.abs().max() > 0.1
    saved = load_model(tmp_path / 'a' / 'model.safetensors')
    for key, value in one.state_dict().items():
        assert_array_equal(saved.state_dict()[key], value)
    assert saved.provenance == one.provenance
    assert saved.provenance['pairs']['seed'] == 2


def test_sample_is_plain():
    """Samples go from process to process as tensors."""
    assert all(isinstance(part, torch.Tensor)
               for part in vars(crops(1)[0]).values())
    assert isinstance(crops(1)[0], Sample)


def test_own_seeds():
    """Peaks of the heatmap on an object become its decoys, others not."""
    labels = torch.zeros(32, 32, dtype=torch.long)
    labels[8:16, 8:16], labels[20:24, 20:24] = 2, -1
    sample = Sample(torch.zeros(5, 32, 32), labels, labels.clamp(max=1),
                    torch.tensor([[4., 4.], [12., 12.]]),
                    torch.tensor([0, 1]), torch.zeros(2, 2), torch.zeros(2),
                    torch.tensor([1, 2]), *nothing_shared(32))
    heat = torch.full((16, 16), -9.)
    for row, column in ((5, 6), (11, 11), (2, 14)):  # object, void, sky
        heat[row, column] = 2.
    found = _with_own_seeds(heat, sample, torch.Generator().manual_seed(0))
    assert found.seed_xy.tolist() == [[4, 4], [12, 12], [12.5, 10.5]]
    assert found.seed_object.tolist() == [0, 1, 1]
    assert len(sample.seed_xy) == 2        # the sample is left as it is


def test_too_few_scenes_for_the_pairs_is_told_before_training(tmp_path):
    config = {'scenes': {'n_scenes': 20, 'size': 64},
              'fit': {'n_steps': 1}, 'pairs': {'n_scenes': 9}}
    with pytest.raises(ValueError, match='n_scenes must be 10 .* got 9'):
        train_from_config(config, tmp_path / 'run')
    assert not (tmp_path / 'run').exists()


# ------------------------------------------------- a pretrained backbone

@pytest.fixture
def backbone(tmp_path):
    """The file of an encoder, none of whose weights are those of a start."""
    torch.manual_seed(11)
    encoder = Encoder(vit={'dim': 48, 'depth': 1, 'n_heads': 3},
                      preprocess={'softening': 2.0},
                      provenance={'n_steps': 7})
    with torch.no_grad():
        for param in encoder.parameters():
            param.add_(torch.randn_like(param))
    encoder.save(tmp_path / 'backbone.safetensors')
    return tmp_path / 'backbone.safetensors', encoder


def test_start_from_a_backbone(backbone):
    path, encoder = backbone
    table = {'backbone': str(path), 'head': {'widths': [4, 8, 8, 8, 8]}}
    model = make_model(table)
    assert table['backbone'] == str(path)       # the recipe is left as it is
    assert model.vit.spec == encoder.vit.spec
    assert model.preprocess == PreprocessSpec(softening=2.0)
    assert model.provenance['backbone'] == {
        'file': 'backbone.safetensors', 'n_steps': 7}
    for key, value in encoder.vit.state_dict().items():
        assert_array_equal(model.vit.state_dict()[key], value)


@pytest.mark.parametrize('key', ['vit', 'preprocess'])
def test_a_backbone_has_its_own_spec(backbone, tmp_path, key):
    config = {'model': {'backbone': str(backbone[0]), key: {}},
              'scenes': {'n_scenes': 20}, 'fit': {'n_steps': 1}}
    with pytest.raises(ValueError, match=f'.{key}.*are those of backbone='):
        train_from_config(config, tmp_path / 'run')


def test_no_backbone(tmp_path):
    config = {'model': {'backbone': str(tmp_path / 'absent')},
              'scenes': {'n_scenes': 20}, 'fit': {'n_steps': 1}}
    with pytest.raises(FileNotFoundError, match='absent'):
        train_from_config(config, tmp_path / 'run')


def test_frozen_backbone(tmp_path, one_thread):
    """The transformer stays as it is, and the head learns."""
    start = tiny_model().state_dict()
    whole = fit(tmp_path / 'a', n_steps=4, freeze_backbone=True)
    for key, value in whole.state_dict().items():
        if key.startswith('vit.'):
            assert_array_equal(value, start[key])
    assert not torch.equal(whole.head.seed_out.weight,
                           start['head.seed_out.weight'])
    assert all(p.requires_grad for p in whole.parameters())
    state = torch.load(tmp_path / 'a' / 'checkpoint.pt', weights_only=True)
    n_head = sum(not name.startswith('vit.') for name, _ in
                 whole.named_parameters())
    assert len(state['optimizer']['param_groups'][0]['params']) == n_head
