# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Calibrate a model on the training split, and measure it on the validation's.

    python -m benchmarks.calibration.calibration FOLDER [--model FILE]
        [--write FILE] [--star-odds X] [--merge M] [--fit-scenes 100]
        [--scenes 40] [--docs docs/evidence/calibration]

Fitted are a temperature for the classes, and a straight line for the log-odds
that a label is one object, of its weakest grouping decision and its leading
seed; see `astrodino_seg.models.decision`. ``--write`` writes the model with
these, which ``bundle_model.py`` keeps. The confidence is that of labels made
with ``--merge`` and ``--min-seed``. What the model's decision says of seeds
and of pairs is only measured: it was fitted to be probable itself. With
``--star-odds`` it gets other prior odds first, those of the sky and not of the
scenes, where its pairs are then less probable
(`astrodino_seg.predict.decode.as_frequent`).

FOLDER keeps the rendered scenes; it gets ``calibration.json``,
``reliability.png`` and ``calibration.txt``, of which ``--docs`` is another
folder for the last two. Errors are the 16th and 84th percentiles over
bootstraps of the scenes.
"""

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit, log_softmax

from astrodino_seg.evaluate.matching import Overlap, measure_primaries
from astrodino_seg.evaluate.tables import (
    bootstrap,
    list_table,
    plus_minus,
)
from astrodino_seg.models.decision import (
    Calibration,
    Decision,
    features_of,
)
from astrodino_seg.models.load import load_model
from astrodino_seg.plotting import save_figure
from astrodino_seg.predict.decode import weigh
from astrodino_seg.train.decision import seed_truth
from benchmarks.common import DEFAULTS, Network, is_half

N_BINS = 10
#: What is measured, and what it is called in the table.
QUANTITIES = {'class': 'class of a label',
              'seed': 'seed is of an object',
              'pair': 'two seeds are one object',
              'confidence': 'label is one object'}
DRAWN = {'class': ('probability of the class', 'share that is right'),
         'confidence': ('grouping confidence',
                        'share that is one object')}
#: Grey and blue are told apart by all, and in print.
STYLES = {'before': {'color': '0.55', 'marker': 's', 'mfc': 'white'},
          'after': {'color': '#0072B2', 'marker': 'o'}}


# ---------------------------------------------------------------- fits

def fit_temperature(logits, classes):
    """The temperature of the least log loss, for (n, k) logits."""
    rows = np.arange(len(classes))

    def loss(log_t):
        return -log_softmax(logits / np.exp(log_t),
                            axis=1)[rows, classes].mean()

    found = minimize_scalar(loss, bounds=np.log([0.05, 20]),
                            method='bounded')
    return float(np.exp(found.x))


def fit_line(features, outcome):
    """
    Weights and bias of (n, k) features for the log-odds of an outcome.

    The outcomes count as Platt has them, not quite 0 and 1, so that weights
    stay finite where the features tell all.
    """
    outcome = np.asarray(outcome, bool)
    columns = np.column_stack([features, np.ones(len(outcome))])
    n_yes = outcome.sum()
    wanted = np.where(outcome, (n_yes + 1) / (n_yes + 2),
                      1 / (len(outcome) - n_yes + 2))

    def loss(weights):
        total = columns @ weights
        return (np.mean(np.logaddexp(0, total) - wanted * total),
                columns.T @ (expit(total) - wanted) / len(total))

    return minimize(loss, np.zeros(columns.shape[1]), jac=True,
                    tol=1e-9).x.tolist()


# ------------------------------------------------------------- measures

def bin_edges(p):
    """Edges of bins with as many of the probabilities ``p`` in each."""
    edges = np.quantile(p, np.linspace(0, 1, N_BINS + 1))
    edges[[0, -1]] = -np.inf, np.inf
    return np.unique(edges)


def reliability(p, outcome, edges):
    """Mean probability, share of the outcome, and number in each bin."""
    which = np.searchsorted(edges, p, side='right') - 1
    n = np.bincount(which, minlength=len(edges) - 1)
    with np.errstate(invalid='ignore'):
        return tuple(np.bincount(which, values, len(n)) / n
                     for values in (p, outcome)) + (n,)


def calibration_error(p, outcome, edges):
    """Expected calibration error: the mean distance, weighted by number."""
    mean, share, n = reliability(p, outcome, edges)
    filled = n > 0
    return float((n * np.abs(mean - share))[filled].sum() / n.sum())


def log_loss(p, outcome):
    """Mean log loss in nats."""
    p = np.clip(p, 1e-12, 1 - 1e-12)
    return float(-np.log(np.where(outcome, p, 1 - p)).mean())


def pooled(scenes, key):
    """Probability and outcome of all scenes."""
    return (np.concatenate([scene[key][0] for scene in scenes]),
            np.concatenate([scene[key][1] for scene in scenes]).astype(float))


def measure(scenes, key):
    """Measures of one quantity, with errors; scenes as of `rated`."""
    edges = bin_edges(pooled(scenes, key)[0])

    def statistic(part):
        p, outcome = pooled(part, key)
        share = reliability(p, outcome, edges)[1]
        return {'ece': calibration_error(p, outcome, edges),
                'loss': log_loss(p, outcome), **dict(enumerate(share))}

    p, outcome = pooled(scenes, key)
    mean, share, _ = reliability(p, outcome, edges)
    intervals = bootstrap(scenes, statistic)
    low, high = np.array([intervals[k] for k in range(len(share))]).T
    return {'n': len(p), 'mean': mean, 'share': share,
            'low': np.minimum(low, share), 'high': np.maximum(high, share),
            'ece': calibration_error(p, outcome, edges),
            'ece_interval': intervals['ece'], 'loss': log_loss(p, outcome)}


# --------------------------------------------------------------- scenes

def decisions(network, looks, min_seed):
    """
    Probability and outcome, where the truth is known, of the seeds of a scene,
    and of the pairs that grouping uses.
    """
    found, real, same = weigh(looks.levels, network.model.decision)
    true = seed_truth(looks.levels, looks.truth, looks.dead.shape)
    known = true >= 0
    used = (true > 0) & (real >= min_seed)
    both = used[found.i] & used[found.j]
    return ((real[known], true[known] > 0),
            (same[both], (true[found.i] == true[found.j])[both]))


def right_labels(truth, labels):
    """
    Which labels are one object, and which count at all.

    A label is one object if it is the best one of a true object that comes
    out right (``ok`` of `measure_primaries`): in one piece, with IoU above
    0.5, and with less than a tenth of the light from others. One that is
    mostly void does not count.
    """
    overlap = Overlap(truth.labels, labels)
    matched = overlap.match(0.5)[1]
    rows, _ = measure_primaries(truth.labels, labels, truth.own_sn,
                                overlap.objects())
    right = np.zeros(labels.max() + 1, bool)
    right[[row['best'] for row in rows if row['ok']]] = True
    return right[1:], np.isin(np.arange(1, len(right)),
                              overlap.labels(matched))


def labels_of(network, looks, merge, min_seed):
    """
    Of the labels of a scene: (n, 3) probabilities and true classes of those
    that match an object (IoU > 0.5), and of all that count the weakest
    decision, the leading seed, and whether they are one object.
    """
    grouping = network.group(looks, merge=merge, min_seed=min_seed)
    overlap = Overlap(looks.truth.labels, grouping.groups)
    t, p, _ = overlap.match(0.5)
    true = dict(zip(looks.truth.objects['id'], looks.truth.objects['cls']))
    classes, heat = (np.concatenate([getattr(level, key) for level
                                     in looks.levels])[grouping.seed_of]
                     for key in ('classes', 'heat'))
    right, counts = right_labels(looks.truth, grouping.groups)
    return {'p': classes[p - 1],
            'classes': np.array([true[k] for k in t], int) - 1,
            'decision': grouping.confidence[counts], 'heat': heat[counts],
            'right': right[counts]}


def fit(network, n_scenes, merge, min_seed):
    """The calibration."""
    records = [labels_of(network, looks, merge, min_seed)
               for looks in network.scenes('train', n_scenes)]
    found = {key: np.concatenate([one[key] for one in records])
             for key in records[0]}
    confidence = fit_line(features_of(found['decision'], found['heat']),
                          found['right'])
    return replace(
        network.calibration, confidence=tuple(confidence),
        class_temperature=fit_temperature(
            np.log(found['p'].clip(1e-30)), found['classes']),
        fit={'n_scenes': n_scenes, 'n_classes': len(found['classes']),
             'n_labels': len(found['right']), 'merge': round(merge, 4),
             'min_seed': min_seed})


def rated(network, looks, calibration):
    """Before and after, probability and outcome of each quantity."""
    fitted = calibration.fit
    found = labels_of(network, looks, fitted['merge'], fitted['min_seed'])
    out = {}
    for when, one in (('before', Calibration()), ('after', calibration)):
        p = one.class_probabilities(found['p'])
        out[when] = {
            'class': (p.max(axis=1), p.argmax(axis=1) == found['classes']),
            'confidence': (one.confidences(found['decision'], found['heat']),
                           found['right'])}
    out['before']['seed'], out['before']['pair'] = decisions(
        network, looks, fitted['min_seed'])
    return out


def measure_all(records):
    """Measures by quantity and when; records are a list of `rated`."""
    return {key: {when: measure([one[when] for one in records], key)
                  for when in STYLES if key in records[0][when]}
            for key in QUANTITIES}


# -------------------------------------------------------------- products

def draw(measures, n_scenes):
    """The reliability figure: classes and grouping side by side."""
    figure = Figure(figsize=(9, 4.6), layout='constrained')
    for axis, (key, names) in zip(figure.subplots(1, 2), DRAWN.items()):
        low = 1.0
        for when, style in STYLES.items():
            one = measures[key][when]
            axis.errorbar(
                one['mean'], one['share'],
                [one['share'] - one['low'], one['high'] - one['share']],
                linestyle='none', markersize=6, elinewidth=1.2, **style,
                label=f'{when} calibration: ECE {one["ece"]:.3f}')
            low = min(low, one['mean'].min(), one['low'].min())
        low = max(0, np.floor(10 * low - 0.2) / 10)
        axis.plot([low, 1], [low, 1], color='0.3', lw=1, ls='--', zorder=0)
        axis.set(xlim=(low, 1.02), ylim=(low, 1.02), aspect='equal',
                 xlabel=names[0], ylabel=names[1])
        axis.set_title(f'{one["n"]} labels of {n_scenes} scenes',
                       fontsize='medium')
        axis.legend(loc='upper left', frameon=False)
        axis.grid(alpha=0.25)
    return figure


def table(measures, calibration, n_scenes):
    """The lines of the table for the docs."""
    header = ['probability that', 'number', *(
        f'{name}, {when}' for name in ('ECE', 'log loss') for when in STYLES)]
    rows = []
    for key, title in QUANTITIES.items():
        one = measures[key]
        rows.append([title, one['before']['n'], *(
            plus_minus(one[when]['ece'], *one[when]['ece_interval'])
            if when in one else '' for when in STYLES), *(
            f'{one[when]["loss"]:.3f}' if when in one else ''
            for when in STYLES)])
    decision, heat, bias = calibration.confidence
    fitted = calibration.fit
    return [*list_table(header, rows), '', (
        f'Measured on {n_scenes} scenes of the validation split, fitted to '
        f'{fitted["n_scenes"]} of the training split: a temperature of '
        f'{calibration.class_temperature:.3f} for the classes '
        f'({fitted["n_classes"]} labels), and {decision:.3f} times the '
        f'log-odds of the decision {heat:+.3f} times those of the seed '
        f'{bias:+.3f} for the confidence ({fitted["n_labels"]} labels). '
        f'``merge`` was {fitted["merge"]:.3g}.')]


def main():
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder', type=Path)
    parser.add_argument('--model', help='a weights file; default: bundled')
    parser.add_argument('--write', type=Path,
                        help='file for the calibrated model')
    parser.add_argument('--star-odds', type=float,
                        help='of the decision, from now on; needs --write')
    parser.add_argument('--merge', type=float, default=DEFAULTS.merge)
    parser.add_argument('--min-seed', type=float, default=DEFAULTS.min_seed)
    parser.add_argument('--fit-scenes', type=int, default=100)
    parser.add_argument('--scenes', type=int, default=40)
    parser.add_argument('--docs', type=Path, help='folder for the products')
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    if args.star_odds is not None:
        if not args.write:
            parser.error('--star-odds needs --write')
        model = load_model(args.model)
        old = model.decision
        new = Decision(**{**old.spec, 'star_odds': args.star_odds})
        new.load_state_dict(old.state_dict())
        model.put_decision(new.eval())
        model.save(args.write, half=is_half(model))
        args.model = args.write
    network = Network(args.model, args.folder)
    calibration = fit(network, args.fit_scenes, args.merge, args.min_seed)
    values = asdict(calibration)
    print(json.dumps(values, indent=1))
    (args.folder / 'calibration.json').write_text(json.dumps(values))
    if args.write:
        model = load_model(args.model)
        model.calibration = values
        model.save(args.write, half=is_half(model))
    measures = measure_all([
        rated(network, looks, calibration)
        for looks in network.scenes('validation', args.scenes)])
    lines = table(measures, calibration, args.scenes)
    print('\n'.join(lines))
    docs = args.docs or args.folder
    (docs / 'calibration.txt').write_text('\n'.join(lines) + '\n')
    save_figure(draw(measures, args.scenes), docs / 'reliability.png')


if __name__ == '__main__':
    main()
