# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What the tests of pretraining share: views of made-up images, a small run.
"""

import torch
from torch.nn import functional as F
from torch.utils.data import Dataset

from astrodino_seg.models import Backbone
from astrodino_seg.train import DINO, pretrain
from astrodino_seg.train.views import Views

VIT = {'patch_size': 8, 'dim': 24, 'depth': 2, 'n_heads': 3,
       'n_registers': 1}
N_STEPS, BATCH_SIZE = 6, 8


class ToyViews(Dataset):
    """Noisy views of smooth random images; each image is an item."""

    def __init__(self, n_items, *, n_channels=5, sizes=(32, 16), noise=0.3):
        self.n_items, self.n_channels = n_items, n_channels
        self.sizes, self.noise = sizes, noise

    def __len__(self):
        return self.n_items

    def __getitem__(self, index):
        rng = torch.Generator().manual_seed(index)
        image = F.interpolate(
            torch.randn(1, self.n_channels, 4, 4, generator=rng),
            size=self.sizes[0], mode='bilinear')[0]
        views = []
        for n, size in zip((2, 3), self.sizes):
            noise = torch.randn(n, *image.shape, generator=rng)
            views.append((image + self.noise * noise)[..., :size, :size])
        return Views(*views)


def toy_run(out, *, views=None, seed=0, **kwargs):
    """A run of a few steps on one core, without a bar."""
    torch.manual_seed(seed)
    encoder = Backbone.from_spec(vit=VIT)
    options = {'n_steps': N_STEPS, 'batch_size': BATCH_SIZE, 'save_every': 2,
               'log_every': 1, 'n_workers': 0, 'device': 'cpu',
               'progress': False, **kwargs}
    options.setdefault('objective', DINO(n_prototypes=32, hidden=16,
                                         bottleneck=8))
    if views is None:
        views = ToyViews(options['n_steps'] * options['batch_size'])
    return pretrain(encoder, views, out=out, **options)
