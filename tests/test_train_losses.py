# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the losses of training, against sums pixel by pixel.
"""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from level_toys import disc_truth, small_model
from numpy.testing import assert_allclose

from astrodino_seg.models.head import InstanceMaps, Seeds
from astrodino_seg.train import instance
from astrodino_seg.train.crops import make_crop
from astrodino_seg.train.instance import (
    centre_focal_loss,
    draw_members,
    importance,
    owner_loss,
)

FEW = settings(deadline=None, max_examples=20)


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
    weight = importance(torch.from_numpy(0.5 * np.log(area / np.pi)))
    assert_allclose(weight, [1, 1, 1.5, 3])


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
    found = owner_loss(
        torch.from_numpy(p).log(), torch.tensor([0, 1, 1]), rivals,
        shares.double(), torch.tensor([1., 2., 1.]).double())
    weight = np.array([1, 2, 1 + 3 * 4 * 0.3 * 0.7])
    terms = [np.log(p[0, 0]), np.log(p[1, 1]),
             0.85 * np.log(p[1, 2]) + 0.15 * np.log(p[2, 2])]
    assert_allclose(found, -(weight * terms).sum() / weight.sum(), rtol=1e-6)


def owners(decoys):
    """The object of each seed: a centre each, and so many decoys."""
    n = len(decoys)
    return torch.cat([torch.arange(n), torch.arange(n).repeat_interleave(
        torch.tensor(decoys, dtype=torch.long))])


@FEW
@given(st.lists(st.integers(0, 5), min_size=1, max_size=9),
       st.integers(0, 10**6))
def test_members(decoys, seed):
    """At least one seed an object, each once, all of them seeds."""
    owner = owners(decoys)
    found = draw_members(len(decoys), owner,
                         torch.Generator().manual_seed(seed))
    assert found.dtype == torch.int64
    assert (found.diff() > 0).all()
    assert found.min() >= 0
    assert found.max() < len(owner)
    assert set(owner[found].tolist()) == set(range(len(decoys)))


@pytest.mark.parametrize('decoys', [0, 1, 4])
def test_members_odds(decoys):
    """
    A decoy in 0.35 of the cases; a centre in 0.8, and where else there
    would be none. Four decoys: alone, without the centre, and together.
    """
    n = 4000
    owner = owners([decoys] * n)
    found = draw_members(n, owner, torch.Generator().manual_seed(0))
    drawn = torch.zeros(len(owner), dtype=torch.bool)
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


# ------------------------------------------------- masks from several seeds

def scattered():
    """Two objects, void, and five seeds: 2 + 1 of one, 1 + 1 of the other."""
    truth = disc_truth((32, 32), [(9, 8, 6, 9, 1), (20, 22, 8, 9, 2)])
    truth.labels[:, 29:] = -1
    o = truth.objects
    table = {'id': o['id'], 'cls': o['cls'], 'x': o['x'] + 0.3,
             'y': o['y'] - 0.2, 'radius': o['re'],
             'asked': np.ones(2, bool)}
    channels = 3 * np.random.default_rng(6).normal(size=(5, 32, 32))
    crop = make_crop(np.random.default_rng(0), channels.astype(np.float32),
                     False, truth.labels, {
                         'labels': truth.labels, 'own_sn': truth.own_sn,
                         'owners': truth.owners[:0],
                         'shares': truth.shares[:0]}, table)
    crop.seed_xy = torch.tensor([[9., 8], [20, 22], [12, 5], [19, 28],
                                 [5, 10]])
    crop.seed_object = torch.tensor([0, 1, 0, 1, 0])
    return crop


def scattered_maps(crop):
    """The maps of a small model whose votes are not zero."""
    model = small_model()
    torch.nn.init.normal_(model.head.pixel.weight, std=0.2)
    maps = model(crop.channels[None], torch.tensor([0]))
    one = InstanceMaps(maps.heat[0], maps.pixels[0],
                       tuple(level[0] for level in maps.pyramid))
    return model.head, one


def mask_losses(head, maps, crop, members, seed=0):
    generator = torch.Generator().manual_seed(seed)
    index, weight = instance._pixels(crop.labels, generator)
    seeds = head.read_seeds(maps.pyramid, *crop.seed_xy.T)
    seeds = Seeds(*(part[members] for part in seeds))
    found = instance._mask_losses(
        head, seeds, crop.seed_object[members],
        maps.pixels.flatten(0, 1)[index], index, weight,
        crop.labels.ravel()[index], crop)
    return seeds, found


def plain_scores(seeds, embedding, vote):
    """(S, y, x) score of each seed at each pixel's vote, in float64."""
    seeds = Seeds(*(part.detach().double().numpy() for part in seeds))
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


def plain_mask_losses(scores, owner, sky, vote, crop):
    """The mask losses over all pixels, pixel by pixel."""
    n = len(crop.cls)
    labels = crop.labels.numpy()
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
                 - crop.centre[k].numpy()) / np.exp(
                     float(crop.log_size[k]))
            d = abs(d)
            off.extend(np.where(d < 0.2, d**2 / 0.4, d - 0.1))
    dice = 1 - (2 * inside + 1) / (total + area + 1)
    importance = 1 + np.log(np.maximum(area / 100, 1))
    return {'mask': entropy / n_known,
            'dice': (dice * importance).sum() / importance.sum(),
            'vote': np.mean(off)}


def plain_parts(head, maps):
    """Embedding (E, y, x), score of the rest (y, x) and vote (2, y, x)."""
    embedding, rest, _, vote = (part.detach().double().numpy() for part in
                                head.split_pixels(maps.pixels))
    return embedding.transpose(2, 0, 1), rest, vote.transpose(2, 0, 1)


@pytest.mark.parametrize('members', [
    [0, 1], [0, 1, 2, 3, 4], [2, 3], [4, 0, 3, 2, 1]],
    ids=['centres', 'all', 'decoys', 'any order'])
def test_mask_losses(members):
    """An object's score is that of its best seed, by brute force."""
    crop = scattered()
    head, maps = scattered_maps(crop)
    embedding, rest, vote = plain_parts(head, maps)
    assert vote.std() > 1
    seeds, found = mask_losses(head, maps, crop, members)
    owner = crop.seed_object[members].numpy()
    scores = plain_scores(seeds, embedding, vote)
    if len(members) == 5:                  # no seed is best everywhere
        assert len(np.unique(scores[owner == 0].argmax(0))) == 3
    wanted = plain_mask_losses(scores, owner, rest, vote, crop)
    assert set(found) == set(wanted)
    for key, value in wanted.items():
        assert_allclose(found[key].item(), value, rtol=1e-4)


def test_mask_losses_are_sampled(monkeypatch):
    """With fewer pixels the losses are those of all, but for noise."""
    crop = scattered()
    head, maps = scattered_maps(crop)
    members = [0, 1, 2, 3, 4]
    monkeypatch.setattr(instance, 'MOST', 40)
    monkeypatch.setattr(instance, 'REST_PIXELS', 200)
    every = [mask_losses(head, maps, crop, members, seed=k)
             for k in range(60)]
    embedding, rest, vote = plain_parts(head, maps)
    wanted = plain_mask_losses(
        plain_scores(every[0][0], embedding, vote),
        crop.seed_object.tolist(), rest, vote, crop)
    for key in ('mask', 'dice'):
        values = np.array([found[key].item() for _, found in every])
        assert values.std() > 0
        error = 4 * values.std() / np.sqrt(60)
        assert abs(values.mean() - wanted[key]) < error + 0.01 * wanted[key]


# ----------------------------------------------------------------- pairs

class PairHead:
    """Scores that fall with the distance, and remembers what is asked."""

    def split_pixels(self, values):
        return values[:, :1], values[:, 1], None, values[:, 2:]

    def score(self, seeds, embedding, x, y):
        return 3 - torch.hypot(x - seeds[:, :1], y - seeds[:, 1:])

    def pair_logits(self, seeds, claims, i, j, x, y):
        self.asked = torch.stack([i, j], dim=-1).tolist()
        self.claims, self.position = torch.stack(claims, -1), (x, y)
        return 0.1 * (i - 2 * j).float()


def pair_case(n=30):
    """Seeds, two of each object, and what their pixels say."""
    rng = torch.Generator().manual_seed(0)
    xy = torch.randint(0, 200, (2 * n, 2), generator=rng).float()
    values = torch.cat([torch.zeros(2 * n, 2),
                        30 * torch.randn(2 * n, 2, generator=rng)], dim=1)
    return xy, torch.arange(n).repeat(2), values, xy + 3


def pairs_by_loops(xy, own, values, centre):
    """Which pairs decoding asks about, by what they say of each other."""
    voted, out = (xy + values[:, 2:]).numpy(), {}
    for i in range(len(xy)):
        for j in range(i + 1, len(xy)):
            claims = [3 - np.hypot(*(voted[b] - centre[a].numpy()))
                      for a, b in ((i, j), (j, i))]
            same = bool(own[i] == own[j])
            apart = np.hypot(*(xy[i] - xy[j]).numpy())
            if same or max(claims) > -4 or apart < 12:
                out[i, j] = same, claims
    return voted, out


def pair_loss(head, xy, own, values, centre, n_max, seed=0):
    return instance._pair_loss(head, centre, values, xy, own,
                               torch.Generator().manual_seed(seed),
                               n_max=n_max)


def test_pair_loss():
    """All pairs that are asked about, with claims where the seeds vote."""
    case, head = pair_case(), PairHead()
    found = pair_loss(head, *case, n_max=10**6)
    voted, wanted = pairs_by_loops(*case)
    assert 40 < len(wanted) < 59 * 30
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
    case, head, asked = pair_case(), PairHead(), []
    _, wanted = pairs_by_loops(*case)
    for seed in range(2):
        pair_loss(head, *case, n_max=8, seed=seed)
        asked.append(set(map(tuple, head.asked)))
        assert len(asked[-1]) == len(head.asked)
        answers = [wanted[pair][0] for pair in asked[-1]]
        assert (answers.count(True), answers.count(False)) == (8, 8)
    assert asked[0] != asked[1]
