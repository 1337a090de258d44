# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the module networks of the probe package.
"""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from embed_toys import Same, make_backbone
from torch import nn

from astrodino_seg.embed import evaluate_network
from astrodino_seg.embed.probe import BASELINES, FineTuned, make_baseline

try:
    import timm
except (ImportError, RuntimeError) as err:      # see `errors.require`
    timm, NO_TIMM = None, f'timm cannot be imported ({type(err).__name__})'
else:
    NO_TIMM = ''


def images(n, seed=0):
    """Sources on the left and in the middle: turning makes no difference."""
    rng = np.random.default_rng(seed)
    y, x = np.indices((32, 32)) - 15.5
    labels = np.arange(n) % 2
    ring = (np.abs(np.hypot(x, y) - 12) < 2) * 8.0
    dot = (np.hypot(x, y) < 5) * 8.0
    return [(ring if label else dot) + rng.normal(size=(1, 32, 32))
            for label in labels], labels


def tiny(name, pretrained, num_classes):
    assert name == 'resnet18'
    assert not pretrained
    return nn.Sequential(nn.Conv2d(3, 8, 5, 2), nn.BatchNorm2d(8), nn.ReLU(),
                         nn.Conv2d(8, 8, 5, 2), nn.ReLU(),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(8, num_classes))


def test_finetune():
    backbone = make_backbone(Same())
    before = [p.clone() for p in backbone.vit.parameters()]
    data, labels = images(48)
    splits = [(np.arange(32), np.arange(32, 48))]
    options = {'backbone': backbone, 'splits': splits, 'size': 32,
               'n_epochs': 12, 'batch_size': 8, 'rate': 3e-3}
    result = evaluate_network(data, labels, **options)
    assert result.name == 'finetune'
    assert result.accuracy > 0.9
    # a copy was trained
    assert all(map(torch.equal, before, backbone.vit.parameters()))
    few = {**options, 'n_epochs': 2}
    torch.manual_seed(3)
    first = evaluate_network(data, labels, **few)
    torch.manual_seed(4)
    again = evaluate_network(data, labels, **few)
    assert np.array_equal(first.predictions, again.predictions)


def test_finetuned_network():
    backbone = make_backbone(Same())
    network = FineTuned(backbone.vit, 7)
    x = torch.randn(2, 1, 16, 24)
    wanted = backbone.vit.forward_features(x).cls @ network.out.weight.T
    assert torch.allclose(network(x), wanted + network.out.bias, atol=1e-6)
    network(x).sum().backward()
    assert network.vit.patch_embed.proj.weight.grad.abs().sum() > 0
    assert backbone.vit.patch_embed.proj.weight.grad is None


def test_baseline(monkeypatch):
    monkeypatch.setitem(sys.modules, 'timm', SimpleNamespace(
        create_model=tiny))
    data, labels = images(48)
    result = evaluate_network(
        data, labels, 'resnet18', size=32, n_epochs=12, batch_size=8,
        splits=[(np.arange(33), np.arange(33, 48))], rate=1e-2)
    assert result.accuracy > 0.9
    assert result.confusion.sum() == 15


def test_without_timm(monkeypatch):
    monkeypatch.setitem(sys.modules, 'timm', None)
    data, labels = images(6)
    with pytest.raises(ImportError, match='timm is needed for this'):
        evaluate_network(data, labels, 'resnet18')


@pytest.mark.skipif(timm is None, reason=NO_TIMM)
@pytest.mark.parametrize(('name', 'millions'), zip(
    BASELINES, (4.0, 15.0, 11.2, 7.0)))
def test_real_baselines(name, millions):
    # sizes as published, less the 1000 classes of ImageNet
    network = make_baseline(name, 10).eval()
    n = sum(p.numel() for p in network.parameters())
    assert abs(n / 1e6 - millions) < 0.1
    assert network(torch.randn(1, 3, 64, 64)).shape == (1, 10)


def test_bad_input():
    data, labels = images(6)
    backbone = make_backbone(Same())
    with pytest.raises(ValueError, match='5 labels and 6 images'):
        evaluate_network(data, labels[:5], backbone=backbone)
    data[2] = np.zeros((1, 32, 32))
    with pytest.raises(ValueError, match=r'images\[2\]: there is nothing'):
        evaluate_network(data, labels, backbone=backbone, size=32,
                         n_epochs=1)
