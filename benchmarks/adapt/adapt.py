# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What ten labelled scenes of an instrument that is new are worth.

    python -m benchmarks.adapt.adapt FOLDER [--model grouping_tiny]
        [--steps 100] [--sets 3] [--scenes 24]

For each instrument (bands, PSF, depth, crowding) the panoptic quality of the
model on scenes that it was not adapted on, before and after `fit_head` with
the backbone frozen; and that of a linear head, trained on the same ten
scenes. Two of the ten decide when to stop. All is repeated with ``--sets``
other tens, of which the table ``adapt.txt`` in FOLDER has the means, and the
gain with half the distance from the 16th to the 84th percentile over
bootstraps of the held-out scenes and of the sets.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from astrodino_seg import load_model
from astrodino_seg.evaluate.tables import list_table
from astrodino_seg.models import load_backbone
from astrodino_seg.models.semantic import SemanticModel
from astrodino_seg.simulate import make_scene, observe
from astrodino_seg.train import as_labelled, fit_head
from astrodino_seg.train.labelled import match_scenes

#: Seeds of the scenes: those to adapt on, and those that are held out.
FIRST, HELD_OUT = 1_050_000, 1_060_000
NAMES = np.array(['sky', 'star', 'galaxy', 'artifact'])
#: Name to arguments of `make_scene` and the depth of the observations.
INSTRUMENTS = {
    'infrared, wide PSF, shallow': (
        {'band_set': 'jwst', 'psf_fwhm': 7.5, 'density': 4.0}, 0.4),
    'undersampled, one band': (
        {'band_set': 'r', 'psf_fwhm': 1.3, 'density': 6.0}, 1.0),
    'crowded, one band': (
        {'band_set': 'r', 'psf_fwhm': 4.0, 'density': 15.0}, 3.0)}
RATES = dict.fromkeys(['correlated_noise', 'gap', 'uneven_depth', 'stripes'],
                      0)


def labelled(instrument, n, first, size=256):
    """``n`` labelled images of an instrument."""
    kind, depth = INSTRUMENTS[instrument]
    out = []
    for seed in range(first, first + n):
        image, truth = observe(make_scene(seed, size=size, **kind), seed,
                               depth=depth, rates=RATES)
        classes = dict(zip(truth.objects['id'].tolist(),
                           NAMES[truth.objects['cls']]))
        out.append(as_labelled(image, truth.labels, classes=classes))
    return out


def quality(parts):
    """Panoptic quality of (..., scene, 2) of `match_scenes`."""
    total, count = np.moveaxis(parts.sum(axis=-2), -1, 0)
    return 2 * total / count


def gain_error(before, after, n_draws=500):
    """Half the 68% interval of the mean gain; (scene, 2), (set, scene, 2)."""
    rng = np.random.default_rng(0)
    n_sets, n = after.shape[:2]
    gains = []
    for _ in range(n_draws):
        some = rng.integers(0, n, n)
        sets = rng.integers(0, n_sets, n_sets)
        gains.append(quality(after[sets][:, some]).mean()
                     - quality(before[some]))
    return np.ptp(np.percentile(gains, [16, 84])) / 2


def adapt(name, first, args, test):
    """Matches after, seconds it took, and matches of a linear head."""
    train = labelled(name, 10, first)
    model = load_model(args.model)
    linear = SemanticModel.from_backbone(load_backbone(args.model))
    with tempfile.TemporaryDirectory() as out:
        start = time.monotonic()
        fit_head(model, train, out=f'{out}/a', n_steps=args.steps,
                 crop_size=192, validate_every=25, progress=False)
        seconds = time.monotonic() - start
        fit_head(linear, train, out=f'{out}/b', n_steps=2 * args.steps,
                 crop_size=192, progress=False)
    return match_scenes(model, test), seconds, match_scenes(linear, test)


def main():
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder', type=Path)
    parser.add_argument('--model', default='grouping_tiny')
    parser.add_argument('--steps', type=int, default=100)
    parser.add_argument('--sets', type=int, default=3,
                        help='of ten scenes to adapt on')
    parser.add_argument('--scenes', type=int, default=24, help='held out')
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    rows = []
    for name in INSTRUMENTS:
        test = labelled(name, args.scenes, HELD_OUT)
        before = match_scenes(load_model(args.model), test)
        after, seconds, linear = zip(*(
            adapt(name, FIRST + 10 * k, args, test)
            for k in range(args.sets)))
        after = np.array(after)
        gain = quality(after).mean() - quality(before)
        rows.append([name, f'{quality(before):.3f}',
                     f'{quality(after).mean():.3f}',
                     f'{gain:+.3f} ± {gain_error(before, after):.3f}',
                     f'{quality(np.array(linear)).mean():.3f}'])
        print(*rows[-1], f'{np.median(seconds):.0f} s', flush=True)
    lines = list_table(['instrument', 'PQ before', 'PQ after', 'gain',
                        'linear head'], rows)
    (args.folder / 'adapt.txt').write_text('\n'.join(lines) + '\n')


if __name__ == '__main__':
    main()
