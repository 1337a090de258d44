# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What the tests of calibration and of the benchmarks' scripts share.
"""

import importlib
from pathlib import Path

import pytest
import torch
from level_toys import small_model

from astrodino_seg.models.decision import Decision
from astrodino_seg.predict.merge import (
    candidates,
    pair_features,
    seed_features,
)
from astrodino_seg.predict.pyramid import look

ROOT = Path(__file__).parents[1]


def script(name):
    """A module of the folder of benchmarks, as ``speed.field``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT)
        return importlib.import_module(f'benchmarks.{name}')


def finding_model(image):
    """
    A model of random weights that finds much in an image, at several levels,
    and joins some of it.
    """
    model = small_model()
    with torch.no_grad():
        pixel = model.head.pixel.bias.view(4, -1)
        pixel[:, 0] = -2.0                      # of the heatmap
        pixel[:, 1 + model.head.n_embedding] = -2.0      # of the rest
        size = model.head.n_embedding + 3
        model.head.seed_out.bias[size] += 0.7
    levels = look(model, model.planes(image))
    found = candidates(levels)
    told = (seed_features(levels, found), pair_features(levels, found),
            torch.from_numpy(found.i), torch.from_numpy(found.j))
    torch.manual_seed(3)
    decision = Decision(told[0].shape[1], told[1].shape[1], width=8)
    decision.of_seed.fit(told[0])
    decision.of_pair.fit(told[1])
    with torch.no_grad():
        # most seeds are real, and one pair in five is one object
        for answer, last, share in zip(
                decision(*told), (decision.seed_out, decision.pair_out),
                (0.2, 0.8)):
            factor = 1.5 / answer.std()
            last.weight *= factor
            last.bias *= factor
            last.bias -= factor * answer.quantile(share)
    model.put_decision(decision.eval())
    return model
