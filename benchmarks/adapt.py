# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What ten labelled scenes of an instrument that is new are worth.

    python benchmarks/adapt.py [--model grouping_tiny] [--steps 100]

For each instrument (bands, PSF, depth, crowding) the panoptic quality of the
model on scenes that it was not adapted on, before and after `fit_head` with
the backbone frozen; and that of a linear head, trained on the same ten
scenes. Two of the ten decide when to stop.
"""

import argparse
import tempfile
import time

import numpy as np
import torch

from astrodino_seg import load_model
from astrodino_seg.backbones import load_backbone
from astrodino_seg.semantic import SemanticModel
from astrodino_seg.simulate import make_scene, observe
from astrodino_seg.train import as_labelled, fit_head, panoptic_quality

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


def main():
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--model', default='grouping_tiny')
    parser.add_argument('--steps', type=int, default=100)
    parser.add_argument('--scenes', type=int, default=12,
                        help='held out')
    args = parser.parse_args()
    torch.set_num_threads(1)
    print('instrument before after seconds linear')
    for name in INSTRUMENTS:
        train = labelled(name, 10, FIRST)
        test = labelled(name, args.scenes, HELD_OUT)
        model = load_model(args.model)
        before = panoptic_quality(model, test)
        linear = SemanticModel.from_backbone(load_backbone(args.model))
        with tempfile.TemporaryDirectory() as out:
            start = time.monotonic()
            fit_head(model, train, out=f'{out}/a', n_steps=args.steps,
                     crop_sizes=[192], validate_every=25, progress=False)
            seconds = time.monotonic() - start
            fit_head(linear, train, out=f'{out}/b', n_steps=2 * args.steps,
                     crop_sizes=[192], progress=False)
        print(f'{name}: {before:.3f} {panoptic_quality(model, test):.3f} '
              f'{seconds:.0f} {panoptic_quality(linear, test):.3f}',
              flush=True)


if __name__ == '__main__':
    main()
