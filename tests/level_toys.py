# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What the tests of the pyramid's levels share.
"""

from contextlib import contextmanager
from unittest.mock import patch

import numpy as np
import torch

from astrodino_seg.models.instance import Model
from astrodino_seg.predict.pyramid import Level
from astrodino_seg.simulate.scene import insert_owner
from astrodino_seg.truth import make_truth

SMALL = {'vit': {'dim': 48, 'depth': 1, 'n_heads': 3, 'patch_border': 8},
         'head': {'widths': [8, 12, 16, 16], 'n_middle': 12}}


def small_model(seed=0):
    """A model of random weights."""
    torch.manual_seed(seed)
    return Model(**SMALL).eval()


def make_level(factor, shape, centres, radius, *, heat=None, height=4.0,
               descriptor=None):
    """
    A level whose seeds paint round discs: score = height - distance / radius
    * height, against a rest of 0.
    """
    n = len(centres)
    centre = np.array(centres, np.float32).reshape(n, 2)
    radius = np.broadcast_to(np.float32(radius), n).copy()
    kernel = np.zeros((n, 3), np.float32)
    kernel[:, 2] = height
    matrix = np.zeros((n, 3), np.float32)
    matrix[:, 0] = matrix[:, 2] = 1 / radius**2
    falloff = np.tile(np.float32([height, 0]), (n, 1))
    return Level(
        factor, np.zeros((5, *shape), np.float32),
        np.zeros((*shape, 2), np.float32), np.zeros(shape, np.float32),
        np.full((4, *shape), 0.25, np.float32),
        np.zeros((*shape, 2), np.float32), centre[:, 0], centre[:, 1],
        np.full(n, 0.9, np.float32) if heat is None else np.float32(heat),
        kernel, centre, matrix, falloff,
        np.zeros((n, 3), np.float32) if descriptor is None
        else np.float32(descriptor), radius,
        np.full((n, 3), 1 / 3, np.float32))


def disc_truth(shape, discs, dead=None):
    """
    The truth of round discs of one S/N each: (x, y, radius, S/N, class).
    """
    y, x = np.mgrid[:shape[0], :shape[1]]
    owner, own_sn = np.zeros((3, *shape), np.int32), np.zeros((3, *shape))
    for k, (cx, cy, radius, sn, _) in enumerate(discs, start=1):
        insert_owner(owner, own_sn, k,
                     sn * (np.hypot(x - cx, y - cy) <= radius))
    table = np.array(discs, float).reshape(-1, 5)
    objects = {'x': table[:, 0], 'y': table[:, 1], 're': table[:, 2],
               'cls': table[:, 4].astype(int),
               'kind': np.array(['disc'] * len(table)),
               'primary': table[:, 2] > 10,
               'flux': np.ones((len(table), 1))}
    dead = np.zeros(shape, bool) if dead is None else dead
    return make_truth(own_sn[:1].astype(np.float32), owner, own_sn, dead,
                      {k: list(v) for k, v in objects.items()})


@contextmanager
def killed_at(n):
    """A training within is killed at its nth step."""
    count, step = [], torch.optim.AdamW.step

    def killed(self, *args, **kwargs):
        count.append(1)
        if len(count) == n:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    with patch.object(torch.optim.AdamW, 'step', killed):
        yield
