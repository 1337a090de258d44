# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for what ``parts.py`` and ``adapt.py`` of the benchmarks compute.
"""

from types import SimpleNamespace

import numpy as np
import pytest
from benchmark_toys import finding_model, script
from level_toys import disc_truth, make_level
from numpy.testing import assert_allclose, assert_array_equal

from astrodino_seg.image import Image
from astrodino_seg.predict.pyramid import look

adapt, parts = map(script, ('adapt.adapt', 'ablations.parts'))


def test_adapt_gain_error():
    """Nothing scatters where all scenes and sets gain alike; else it does."""
    before = np.tile([3., 10.], (6, 1))
    after = np.tile([4., 10.], (2, 6, 1))
    assert_allclose(adapt.quality(before), 0.6)
    assert_allclose(adapt.quality(after), [0.8, 0.8])
    assert adapt.gain_error(before, after) == 0
    after[1, :, 0] = 2                      # one set gains, the other loses
    # the mean of two draws is -0.2, 0, 0, or 0.2
    assert_allclose(adapt.gain_error(before, after), 0.2)


# ------------------------------------------------------------------- parts

def toy(discs, levels, dead=None, shape=(80, 120)):
    truth = disc_truth(shape, discs)
    dead = np.zeros(shape, bool) if dead is None else dead
    return parts.Network.look.__globals__['SceneLooks'](
        None, truth, dead, levels)


def test_true_grouping():
    """The pieces of an object are one; what is on the sky is nothing."""
    discs = [(30, 40, 18, 9, 2), (80, 40, 8, 9, 1)]
    level = make_level(1, (80, 120), [(22, 40), (38, 40), (80, 40),
                                      (100, 20)], [9, 9, 8, 6])
    coarse = make_level(2, (40, 60), [(14.75, 19.75)], 8)
    looks = toy(discs, [level, coarse])
    found = parts.true_grouping(looks)
    assert set(np.unique(found)) == {0, 1, 2}
    assert not found[10:30, 92:110].any()
    truth = looks.truth.labels
    assert (found == truth)[truth > 0].mean() > 0.8
    # each to its own, whatever paints it
    assert ((found == truth) | (found == 0) | (truth == 0)).all()
    dead = np.zeros((80, 120), bool)
    dead[:, 60:] = True
    assert set(np.unique(parts.true_grouping(
        looks._replace(dead=dead)))) == {0, 1}


def test_too_small_is_nothing():
    discs = [(30, 40, 18, 9, 2), (80, 40, 8, 9, 1)]
    level = make_level(1, (80, 120), [(30, 40), (80, 40)], [18, 0.8])
    assert set(np.unique(parts.true_grouping(toy(discs, [level])))) == {0, 1}


@pytest.fixture(scope='module')
def image():
    rng = np.random.default_rng(5)
    cube = rng.normal(0, 1, (1, 192, 224)).astype(np.float32)
    return Image(cube, np.zeros(cube.shape, bool), np.ones_like(cube),
                 bands=['r'])


def test_seeds_at_are_those_of_the_network(image):
    """At the network's own peaks, what it has found there itself."""
    model = finding_model(image)
    planes = model.planes(image)
    fine = look(model, planes)[0]
    found = parts.seeds_at(model, fine, planes, fine.x, fine.y)
    assert len(found.x) > 20
    for key in ('kernel', 'centre', 'matrix', 'falloff', 'radius',
                'classes', 'descriptor'):
        assert_allclose(getattr(found, key), getattr(fine, key), atol=1e-3,
                        rtol=1e-4)
    assert (found.heat == 1).all()
    assert_array_equal(found.sky, fine.sky)


def test_true_centres(image, monkeypatch):
    """Each is a seed once, where it is, at the level of its size."""
    model, seen = finding_model(image), []
    discs = [(40, 60, 8, 9, 1), (110, 100, 34, 9, 2), (180, 20, 12, 9, 2),
             (150, 130, 56, 5, 2)]
    truth = disc_truth((192, 224), discs)
    radius = np.sqrt(truth.objects['n_pixels'] / np.pi)
    assert radius[1] > 26 > radius[0]
    looks = toy(discs, look(model, model.planes(image)), shape=(192, 224))
    looks = looks._replace(image=image, truth=truth)

    def seeds_at(model, level, planes, x, y):
        assert planes.shape[1:] == level.sky.shape
        seen.append((level.factor, x, y))
        return make_level(level.factor, level.sky.shape,
                          np.stack([x, y], -1), 5)

    monkeypatch.setattr(parts, 'seeds_at', seeds_at)
    labels = parts.true_centres(model, looks)
    wanted = {1: [], 2: [], 4: [], 8: []}
    for (x, y, *_), r in zip(discs, radius):
        factor = 1 if r < 26 else 2 if r < 52 else 4
        wanted[factor].append(((x + .5) / factor - .5, (y + .5) / factor - .5))
    assert [one for one, *_ in seen] == [level.factor
                                         for level in looks.levels]
    for factor, x, y in seen:
        assert_allclose(np.stack([x, y], -1).reshape(-1, 2),
                        np.reshape(wanted[factor], (-1, 2)))
    # nothing is joined
    assert labels.max() == len(discs)
    for x, y, *_ in discs:
        assert labels[y, x] > 0


def test_parts_of_a_scene(image, monkeypatch):
    """Four records of each scene, the last without the binned image."""
    model, asked = finding_model(image), []
    discs = [(40, 60, 8, 9, 1), (110, 100, 34, 9, 2)]
    looks = toy(discs, look(model, model.planes(image)), shape=(192, 224))
    looks = looks._replace(image=image)

    def group(one, *, merge):
        asked.append(len(one.levels))
        return SimpleNamespace(groups=np.zeros((192, 224), int))

    monkeypatch.setattr(parts, 'scene_scores',
                        lambda truth, labels, image: labels.max())
    network = SimpleNamespace(model=model, group=group,
                              scenes=lambda split, n: [looks] * n)
    names = [name for name, _ in parts.parts(network, 2, 0.5)]
    assert names == 2 * ['default', 'true grouping', 'true centres',
                         'finest level only']
    assert asked == 2 * [len(looks.levels), 1]
    assert asked[0] > 1
