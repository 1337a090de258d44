# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What the tests of embeddings and probes share: a small random network, images.
"""

import numpy as np
import torch

from astrodino_seg.inputs.rules import NoiseUnits
from astrodino_seg.models.backbone import Backbone
from astrodino_seg.models.vit import VisionTransformer


def make_backbone(planes=None, **kwargs):
    """A network of two layers, whose CLS token depends on the image."""
    planes = planes or NoiseUnits()
    torch.manual_seed(3)
    vit = VisionTransformer(**{
        'patch_size': 8, 'in_channels': planes.n_planes, 'dim': 16,
        'depth': 2, 'n_heads': 2, 'n_registers': 1, 'pos_embed': 'none',
        'rope': True, **kwargs}).eval()
    with torch.no_grad():
        for parameter in vit.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return Backbone(vit, planes, 'toy')


def make_images(n=6, shape=(32, 40), n_bands=2, seed=0):
    """(n, band, y, x) noise with a source in each image."""
    rng = np.random.default_rng(seed)
    out = rng.normal(size=(n, n_bands, *shape)).astype(np.float32)
    y, x = np.indices(shape)
    for k, image in enumerate(out):
        image += 30 * np.exp(-((x - 5 - 4 * k)**2 + (y - 16)**2) / (4 + k))
    return out


class Same:
    """A rule that takes the pixels as they are."""

    def __init__(self, n_planes=1):
        self.n_planes = n_planes

    def __call__(self, image):
        return image.cube


def blobs(n, n_classes=3, dim=8, spread=0.4, seed=0):
    """Vectors about one centre a class, and their classes."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % n_classes
    centres = 2 * rng.normal(size=(n_classes, dim))
    noise = spread * rng.normal(size=(n, dim))
    return (centres[labels] + noise).astype(np.float32), labels
