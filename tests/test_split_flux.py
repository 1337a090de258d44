# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for what ``benchmarks/split_flux.py``, ``parts.py`` and ``adapt.py``
compute.
"""

import importlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from astrodino_seg.calibration import Calibration
from astrodino_seg.grouping import Grouping
from astrodino_seg.shares import FluxShares

FOLDER = Path(__file__).parents[1] / 'benchmarks'
with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(FOLDER)
    adapt, parts, split_flux = map(importlib.import_module,
                                   ('adapt', 'parts', 'split_flux'))


def shared_scene(monkeypatch, part):
    """
    Two objects in three columns of 4 pixels; the middle one is shared, and
    said to be so with ``part`` for the first.
    """
    labels = np.repeat([[1, 1, 2]], 4, axis=0)
    owners = np.zeros((3, 4, 3), int)
    owners[0], owners[1, :, 1] = labels * 10, 20
    shares = np.zeros((3, 4, 3))
    shares[0], shares[0, :, 1], shares[1, :, 1] = 1, 0.7, 0.3
    light = np.repeat([[4., 10., 5.]], 4, axis=0)
    truth = SimpleNamespace(
        labels=labels * 10, owners=owners, shares=shares,
        light=np.stack([light, 0 * light]), objects={
            'id': np.array([10, 20]), 'cls': np.array([2, 2]),
            'blendedness': np.array([0.05, 0.4]),
            'primary': np.array([True, False]),
            'flux': np.array([[44., 0], [32., 0]])})
    said = np.zeros((3, 4, 3))
    said[0], said[0, :, 1], said[1, :, 1] = 1, part, 1 - part
    grouping = Grouping(labels, labels, {}, np.arange(2), np.ones(2),
                        np.ones(2, int), np.array([1, 2]))
    monkeypatch.setattr(split_flux, 'group', lambda *args, **kwargs: (
        grouping, None))
    monkeypatch.setattr(split_flux, 'share_flux', lambda *args, **kwargs:
                        FluxShares(owners // 10, said))
    return SimpleNamespace(truth=truth,
                           image=SimpleNamespace(bands=('r', 'z')))


def test_split_flux_errors(monkeypatch):
    """Sums over labels and over shares by hand."""
    maps = shared_scene(monkeypatch, 0.7)
    found = split_flux.errors_of(maps, Calibration(), 1.0)
    assert_allclose(found['label'], -2.5 * np.log10([56 / 44, 20 / 32]))
    assert_allclose(found['split'], 0, atol=1e-12)
    values = split_flux.statistic([found, found])
    assert_allclose(values['large galaxies', 'label'],
                    -2.5 * np.log10(56 / 44))
    assert values['large galaxies', 'n'] == 2
    assert values['0.1 to 0.3', 'n'] == 0


@pytest.mark.parametrize('power', [0.6, 1.0, 1.8])
def test_the_power_is_found(monkeypatch, power):
    """Shares that are the true ones to some power."""
    said = 0.7**(1 / power) / (0.7**(1 / power) + 0.3**(1 / power))
    maps = shared_scene(monkeypatch, said)
    found, true = split_flux.pixels_of(maps, Calibration(),
                                       np.random.default_rng(0))
    assert_allclose(true, np.repeat([[.7], [.3], [0]], 4, axis=1))
    network = SimpleNamespace(calibration=Calibration(),
                              scenes=lambda split, n: [maps] * n)
    assert_allclose(split_flux.fit(network, 2), power, rtol=1e-3)


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


def test_parts_read_the_true_centres(monkeypatch):
    """They are seeds of full heat, within the image."""
    seen = {}

    def read(model, maps, planes, x, y, heat):
        seen.update(x=x, y=y, heat=heat)
        return 'prediction'

    monkeypatch.setattr(parts, 'predict_maps', lambda model, planes: None)
    monkeypatch.setattr(parts, 'read_prediction', read)
    maps = parts.Network.look.__globals__['SceneMaps'](
        None, SimpleNamespace(objects={'x': np.array([-3., 4.25]),
                                       'y': np.array([2., 99.])}),
        np.zeros((20, 30), bool), 'own', 'binned')
    network = SimpleNamespace(model=SimpleNamespace(planes=lambda _: None))
    found = parts.true_centres(network, maps)
    assert found.prediction == 'prediction'
    assert found.coarse == ()
    assert_array_equal(seen['x'], torch.tensor([0, 4.25]))
    assert_array_equal(seen['y'], torch.tensor([2., 19]))
    assert (seen['heat'] == 1).all()
