# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What it is worth to split the light of objects that overlap.

    python -m benchmarks.split_flux.split_flux FOLDER [--model FILE]
        [--write FILE] [--fit-scenes 40] [--scenes 100]
        [--docs docs/evidence/benchmarks]

The power of the shares (`astrodino_seg.predict.masks`) is fitted to the true
shares of contested pixels in scenes of the validation split, by least squares;
``--write`` writes the model with it in its calibration. On scenes of the
benchmark split the light of the noiseless image, in the band nearest to r, is
then summed over the label of each object, and over its shares, and compared
with its true flux within the frame. Objects are those that a label matches
with an IoU above 0.5, artifacts left out. FOLDER keeps the rendered scenes.
The table ``split_flux.txt`` goes there, or to the folder ``--docs``: by
blendedness, and for large galaxies, the median of the magnitude error (found
less true, positive where light is missed) and that of its absolute value, with
half the distance from the 16th to the 84th percentile over bootstraps of the
scenes.
"""

import argparse
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from astrodino_seg.evaluate.matching import match_labels
from astrodino_seg.evaluate.scores import reference_bands
from astrodino_seg.evaluate.tables import (
    bootstrap,
    list_table,
    plus_minus,
)
from astrodino_seg.models.load import load_model
from astrodino_seg.predict.masks import share_flux
from benchmarks.common import Network, is_half

N_PIXELS = 20_000       # of each scene that the power is fitted to
POWERS = np.geomspace(0.5, 2, 7)        # that are tried; 1 is the middle one
CONTESTED = 0.98        # least share of an owner without rivals
ROWS = {'blendedness below 0.1': lambda o: o['blendedness'] < 0.1,
        '0.1 to 0.3': lambda o: ((o['blendedness'] >= 0.1)
                                 & (o['blendedness'] < 0.3)),
        '0.3 and more': lambda o: o['blendedness'] >= 0.3,
        'large galaxies': lambda o: o['primary']}
WAYS = ('label', 'split')


def found_in(network, looks):
    """Labels and matches of a scene."""
    grouping = network.group(looks)
    return grouping, match_labels(looks.truth.labels, grouping.groups)


def shares_of(looks, grouping, match, power):
    """(3, y, x) shares, and the true ones of the same objects."""
    shares = share_flux(looks.levels, grouping, power=power)
    true_id = np.full(len(grouping.seed_of) + 1, -1)
    true_id[match.predicted] = match.truth
    truth = looks.truth
    return shares.shares, np.array([
        np.where(truth.owners == one, truth.shares, 0).sum(axis=0)
        for one in true_id[shares.labels]])


def contested(looks, grouping, found, true, rng):
    """Indices of pixels that several objects have a part of."""
    use = ((grouping.groups > 0) & (looks.truth.labels > 0)
           & (true.sum(axis=0) > CONTESTED)
           & ((found[0] < CONTESTED) | (true.max(axis=0) < CONTESTED)))
    use = np.flatnonzero(use)
    return rng.choice(use, min(len(use), N_PIXELS), replace=False)


def losses(network, looks, rng):
    """Number of contested pixels, and squared error of each power in them."""
    grouping, match = found_in(network, looks)
    pixels = contested(looks, grouping,
                       *shares_of(looks, grouping, match, 1.0), rng)
    out = [len(pixels)]
    for power in POWERS:
        found, true = (part.reshape(3, -1)[:, pixels] for part in
                       shares_of(looks, grouping, match, power))
        true = true / np.maximum(true.sum(axis=0), 1e-30)
        out.append(np.sum((found - true)**2) / 3)
    return np.array(out)


def fit(network, n_scenes):
    """The power of the least squares, between those that are tried."""
    rng = np.random.default_rng(0)
    n, *total = sum(losses(network, looks, rng)
                    for looks in network.scenes('validation', n_scenes))
    loss = np.array(total) / n
    k = int(loss.argmin())
    power = POWERS[k]
    if 0 < k < len(POWERS) - 1:         # the parabola through three
        below, here, above = loss[k - 1:k + 2]
        shift = (below - above) / (2 * (below - 2 * here + above))
        power *= (POWERS[1] / POWERS[0])**shift
    print(f'power {power:.3f}: mean squared error {loss[k]:.4f} or less, with '
          f'a power of 1 {loss[len(loss) // 2]:.4f}; {n:.0f} pixels')
    return float(power)


def errors_of(network, looks, power):
    """Magnitude errors of a scene's objects, and what they are binned by."""
    grouping, match = found_in(network, looks)
    shares = share_flux(looks.levels, grouping, power=power)
    truth, o = looks.truth, looks.truth.objects
    band = reference_bands(looks.image.bands)[0]
    n = len(grouping.seed_of)
    sums = {'label': np.bincount(grouping.groups.ravel(),
                                 truth.light[band].ravel(), n + 1)[1:],
            'split': shares.total(truth.light[band], n)}
    row = {k: j for j, k in enumerate(o['id'])}
    rows = np.array([row[k] for k in match.truth], int)
    flux = o['flux'][rows, band]
    good = (flux > 0) & (o['cls'][rows] != 3)
    rows, labels = rows[good], match.predicted[good]
    return {**{way: -2.5 * np.log10(np.maximum(total[labels - 1], 1e-30)
                                    / flux[good])
               for way, total in sums.items()},
            'objects': {key: o[key][rows] for key in ('blendedness',
                                                      'primary')}}


def statistic(scenes):
    """Medians of the errors and of their sizes, by row and way."""
    out = {}
    for name, which in ROWS.items():
        parts = [which(scene['objects']) for scene in scenes]
        for way in WAYS:
            error = np.concatenate([scene[way][part] for scene, part
                                    in zip(scenes, parts)])
            error = error if len(error) else [np.nan]
            out[name, way] = np.median(error)
            out[name, way, 'size'] = np.median(np.abs(error))
        out[name, 'n'] = sum(part.sum() for part in parts)
    return out


def table(scenes):
    """The errors in reStructuredText."""
    values, ends = statistic(scenes), bootstrap(scenes, statistic)
    header = ['objects', 'number', *(
        f'median of {what} (mag), {way}' for what in ('Δm', 'abs(Δm)')
        for way in WAYS)]
    rows = []
    for name in ROWS:
        keys = [(name, way) for way in WAYS]
        keys += [(name, way, 'size') for way in WAYS]
        rows.append([name, values[name, 'n'], *(
            plus_minus(values[key], *ends[key]) for key in keys)])
    return '\n'.join(list_table(header, rows)) + '\n'


def main():
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder', type=Path)
    parser.add_argument('--model', help='a weights file; default: bundled')
    parser.add_argument('--write', type=Path, help='file for the model')
    parser.add_argument('--fit-scenes', type=int, default=40)
    parser.add_argument('--scenes', type=int, default=100)
    parser.add_argument('--docs', type=Path, help='folder for the table')
    args = parser.parse_args()
    network = Network(args.model, args.folder)
    power = fit(network, args.fit_scenes)
    if args.write:
        model = load_model(args.model)
        model.calibration = asdict(replace(network.calibration,
                                           share_power=power))
        model.save(args.write, half=is_half(model))
    text = table([errors_of(network, looks, power)
                  for looks in network.scenes('benchmark', args.scenes)])
    (args.docs or args.folder).joinpath('split_flux.txt').write_text(text)
    print(text)


if __name__ == '__main__':
    main()
