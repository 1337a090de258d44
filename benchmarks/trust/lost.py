# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Does the segmenter say when it is lost?

    python -m benchmarks.trust.lost FOLDER [--model FILE] [--write FILE]
        [--images 24] [--data FOLDER] [--docs docs/evidence/trust]

Images of many kinds (`benchmarks.trust.unlike`), scenes seen with a head of
random weights, and, with the folder of the real images, parts of these, are
segmented. An image has **failed** if PQ is below `FAILED`, or if it has no
objects and gets labels; it is **good** if PQ is above `GOOD`, or if it has
none and gets none; real ones are taken to be good, but for the centre of the
Galaxy. What lies between is neither, and so are stripes, chessboards, spectra,
clouds and photographs that get no labels.

To every other image of a kind, and to every other real image, the weights of
the signs of `astrodino_seg.predict.domain` are fitted: a logistic function, in
which all kinds of good ones, and of failed ones, count alike. The limit lets
all but `SHARE` of these good ones pass. What is told is of the rest, with 68%
intervals. A second table is that of fits that have seen no image of the kind.

``--write`` writes the model with the new limits; of a bundled one the
checksum, too. FOLDER keeps what was measured of each image, so that a run that
was stopped goes on; ``lost.txt`` is put there, or into ``--docs``.
"""

import argparse
import hashlib
import json
import warnings
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from astropy.stats import binom_conf_interval
from scipy.optimize import minimize
from scipy.special import expit

from astrodino_seg.evaluate.benchmark import read_lines
from astrodino_seg.evaluate.matching import match_labels
from astrodino_seg.evaluate.tables import list_table
from astrodino_seg.models.decision import read_calibration
from astrodino_seg.models.instance import Model
from astrodino_seg.models.load import digest, load_model
from astrodino_seg.predict.decode import decode, weigh
from astrodino_seg.predict.domain import (
    SIGNS,
    distances,
    of_noise,
    reason,
    signs_of,
)
from astrodino_seg.predict.instances import input_of
from astrodino_seg.predict.pyramid import look
from astrodino_seg.segmenter import DinoSegmenter
from benchmarks.common import add_data, fields, is_half, read_field
from benchmarks.trust.unlike import KINDS, SIDE, plain

FAILED, GOOD = 0.35, 0.5
#: Labels of an image without objects that make it a failed one.
N_FALSE = 2
#: Of these, images are of no use where nothing is found: they are neither.
NO_SKY = {'stripes', 'chessboards', 'spectra', 'clouds', 'photographs'}
UNTRAINED, REAL = 'a head of random weights', 'real images'
CENTRE = 'edge_gc_2mass_j'      # of the Galaxy, which is too crowded
#: Real images of these names show the same, in other bands or surveys.
SAME_SKY = 'kids', 'jwst', 'spiral'
#: Of the squares of the weights in the loss.
RIDGE = 0.003
#: Share of the good images that the limit may warn of.
SHARE = 0.01
#: Added to the scatter of a sign, for one that is always the same.
LEAST = 0.01


def untrained(path, seed):
    """The model of a file, with a head of random weights."""
    model = load_model(path)
    torch.manual_seed(seed)
    model.head = Model(**model.spec).head
    return model


def real(folder, n):
    """Yield name and part of real images, up to ``n`` of each."""
    for name, (source, _) in fields(folder).items():
        try:
            image = read_field(source)
        except ValueError:
            continue            # one that is corrupt
        ny, nx = (max(side // SIDE, 1) for side in image.shape)
        for k in range(min(n, ny * nx)):
            # spread over the image
            y, x = divmod(k * ny * nx // min(n, ny * nx), nx)
            where = np.s_[:, y * SIDE:(y + 1) * SIDE, x * SIDE:(x + 1) * SIDE]
            part = {key: getattr(image, key)[where] for key in (
                'cube', 'mask', 'noise') if getattr(image, key) is not None}
            if not part['mask'].all():
                yield f'{name} {k}', replace(image, wcs=None, **part)


def measured(model, image, truth):
    """The signs of an image, and how its labels are."""
    normalised, planes = input_of(model, image)
    levels = look(model, planes)
    weighed = weigh(levels, model.decision)
    labels = decode(levels, model.decision, image.shape, weighed=weighed,
                    mask=~np.isfinite(normalised.noise).any(axis=0)).groups
    signs = signs_of(levels, weighed)
    if signs is None:
        return None
    match = match_labels(truth, labels)
    return {'signs': {key: float(value) for key, value in {
        **signs, **of_noise(normalised)}.items()}, 'pq': float(match.pq),
        'n_truth': match.n_truth, 'n_labels': int(labels.max())}


def records(path, args):
    """What is measured of all images, with ``kind`` and ``name`` of each."""
    found = {(one['kind'], one['name']): one for one in read_lines(path)}
    model = DinoSegmenter(model=args.model)._fetch_model()

    def items():
        parts = real(args.data, 2) if args.data else iter(())
        for k in range(args.images):
            for name, part in islice(parts, 4):
                yield REAL, name, model, lambda part=part: (
                    part, np.full(part.shape, -1))
            for kind, make in KINDS.items():
                yield kind, str(k), model, lambda make=make, k=k: make(k)
            if k < args.images // 2:
                yield UNTRAINED, str(k), None, lambda k=k: plain(500 + k)

    with path.open('a') as stream:
        for kind, name, own, make in items():
            if (kind, name) not in found:
                if own is None:
                    own = DinoSegmenter(model=untrained(
                        args.model, int(name)))._fetch_model()
                one = {'kind': kind, 'name': name,
                       **(measured(own, *make()) or {'signs': None})}
                found[kind, name] = one
                stream.write(json.dumps(one) + '\n')
                stream.flush()
    return [one for one in found.values() if one['signs']]


def halves(some):
    """Every other image of a kind, and every other real one; and the rest."""
    names = {}
    for one in some:
        name = one['name'].split()[0]
        if name.startswith(SAME_SKY):
            name = name.split('_')[0]
        one['image'] = one['kind'], name
        names.setdefault(one['kind'], {})[one['image']] = None
    first = {name for mine in names.values() for name in list(mine)[::2]}
    return ([one for one in some if one['image'] in first],
            [one for one in some if one['image'] not in first])


def outcome(one):
    """Whether an image has failed, or `None` if it counts as neither."""
    kind = one['kind']
    if kind == REAL:
        return None if one['name'].startswith(CENTRE) else False
    if kind == UNTRAINED:
        return True
    if one['n_truth'] == 0:
        if one['n_labels'] >= N_FALSE:
            return True
        return None if kind in NO_SKY or one['n_labels'] else False
    return (True if one['pq'] < FAILED else
            False if one['pq'] > GOOD else None)


def fit(some):
    """The ``domain`` of a model, of `records`."""
    some = [one for one in some if outcome(one) is not None]
    failed = np.array([outcome(one) for one in some])
    values = np.array([[one['signs'][name] for name in SIGNS]
                       for one in some])
    centre = np.nanmedian(values[~failed], axis=0)
    scale = np.nanstd(values[~failed], axis=0) + LEAST
    far = np.array([distances(one['signs'], centre, scale).ravel()
                    for one in some])
    kinds = np.array([one['kind'] for one in some])
    weight = np.zeros(len(some))
    for has_failed in (True, False):
        names = set(kinds[failed == has_failed])
        for kind in names:
            same = (kinds == kind) & (failed == has_failed)
            weight[same] = 0.5 / len(names) / same.sum()
    columns = np.column_stack([far, np.ones(len(far))])

    def loss(w):
        total = columns @ w
        return (weight @ (np.logaddexp(0, total) - failed * total)
                + RIDGE * w[:-1] @ w[:-1],
                columns.T @ (weight * (expit(total) - failed))
                + 2 * RIDGE * np.append(w[:-1], 0))

    # what has no words says nothing
    bounds = [(0, None if words[side] else 0) for side in (0, 1)
              for words in SIGNS.values()]
    w = minimize(loss, np.zeros(columns.shape[1]), jac=True,
                 bounds=[*bounds, (None, None)]).x[:-1]
    limit = np.quantile((far @ w)[~failed], 1 - SHARE)
    rows = np.column_stack([centre, scale, *np.split(w, 2)])
    return {'limit': round(float(limit), 4), 'signs': {
        name: [round(float(one), 4) for one in row]
        for name, row in zip(SIGNS, rows)}}


def share(which):
    """How many of some, and the interval of their share, in words."""
    n, k = len(which), int(np.sum(which))
    if n == 0:
        return ''
    low, high = binom_conf_interval(k, n, interval='jeffreys')
    return f'{k} of {n} ({100 * low:.0f} to {100 * high:.0f}%)'


def table(some, warned):
    """The lines of a table, of records and whether each is warned of."""
    rows, kinds = [], list(dict.fromkeys(one['kind'] for one in some))
    for kind in [*kinds, 'all']:
        mine = [(one, said) for one, said in zip(some, warned)
                if kind in ('all', one['kind'])]
        pq = [one['pq'] for one, _ in mine if one['n_truth']]
        rows.append([kind, str(len(mine)), (
            f'{np.median(pq):.2f}' if pq and kind != 'all' else ''), *(
            share([said for one, said in mine if outcome(one) is which])
            for which in (True, None, False))])
    return list_table(['images', 'number', 'PQ', 'failed: warned',
                       'neither: warned', 'good: warned'], rows)


def left_out(first, rest):
    """Whether each of the rest is warned of by a fit without its kind."""
    domains = {kind: fit([one for one in first if one['kind'] != kind])
               for kind in {one['kind'] for one in rest}}
    return [bool(reason(one['signs'], domains[one['kind']])) for one in rest]


def write(path, domain):
    """Write the model of a file with its new limits."""
    model = load_model(path)
    model.calibration = asdict(replace(
        read_calibration(model.calibration), domain=domain))
    model.save(path, half=is_half(model))
    checksum = path.with_suffix('.sha256')
    if checksum.exists():
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        checksum.write_text(f'{sha256}  {path.name}\n')


def main():
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    add_data(parser)
    parser.add_argument('folder', type=Path)
    parser.add_argument('--model', help='a weights file; default: bundled')
    parser.add_argument('--write', type=Path, help='a weights file')
    parser.add_argument('--images', type=int, default=24, help='of each kind')
    parser.add_argument('--docs', type=Path, help='folder of the table')
    args = parser.parse_args()
    warnings.simplefilter('ignore')
    torch.set_num_threads(1)
    args.folder.mkdir(parents=True, exist_ok=True)
    model = load_model(args.model)
    model.calibration = None            # which has no part in the signs
    first, rest = halves(records(
        args.folder / f'lost-{digest(model)[:12]}.jsonl', args))
    domain = fit(first)
    lines = [*table(rest, [bool(reason(one['signs'], domain))
                           for one in rest]),
             '', f'Fitted to {len(first)} other images. Of a fit that has '
             'seen no image of the kind:', '',
             *table(rest, left_out(first, rest))]
    print('\n'.join(lines))
    (args.docs or args.folder).joinpath('lost.txt').write_text(
        '\n'.join(lines) + '\n')
    if args.write:
        write(args.write, domain)


if __name__ == '__main__':
    main()
