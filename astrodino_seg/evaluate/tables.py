# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Quality over many simulated scenes, pooled from the records of
`~astrodino_seg.evaluate.benchmark.scene_scores`. Errors are the 16th and 84th
percentiles over bootstraps of the scenes (`Efron 1979
<https://doi.org/10.1214/aos/1176344552>`_), as the objects of one share its
PSF, depth and crowding.
"""

import numpy as np
from astropy.table import Table

from astrodino_seg.evaluate.matching import HaighScores, MatchScores
from astrodino_seg.truth import CLASSES

#: Limits of IoU for `curve`.
IOU_LIMITS = tuple(k / 100 for k in range(50, 100, 5))
#: Properties that `binned` takes, with the edges of their bins.
EDGES = {'sn': (7, 20, 60, 300, np.inf),
         'size': (0, 3, 6, 12, 25, np.inf),
         'surface_brightness': (0.5, 2, 5, 20, np.inf),
         'blendedness': (0, 0.02, 0.1, 0.3, 1)}
POPULATIONS = ('objects', 'primaries', 'companions')


def _mean(values):
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else np.nan


def _quantile(*levels):
    """The quantile, or half the distance between two, of finite values."""
    def statistic(values):
        values = values[np.isfinite(values)]
        if len(values) == 0:
            return np.nan
        found = np.quantile(values, levels)
        return float(found[0] if len(levels) == 1 else np.ptp(found) / 2)
    return statistic


# for each measure: of what, from which list, and how
_MEASURES = {
    'recall': ('objects', 'iou', lambda iou: _mean(iou > 0.5)),
    'sq': ('objects', 'iou', lambda iou: _mean(iou[iou > 0.5])),
    'ok': ('primaries', 'ok', _mean),
    'frag': ('primaries', 'frag', _mean),
    'n_fragments': ('primaries', 'n_fragments', _mean),
    'flux_share': ('primaries', 'flux_share', _mean),
    'best_iou': ('primaries', 'iou', _mean),
    'contam': ('primaries', 'contam', _mean),
    'lost': ('primaries', 'lost', _mean),
    'mag_bias': ('primaries', 'mag_error', _quantile(0.5)),
    'mag_scatter': ('primaries', 'mag_error', _quantile(0.16, 0.84)),
    'colour_bias': ('primaries', 'colour_error', _quantile(0.5)),
    'sep': ('companions', 'separated', _mean)}


def _column(scenes, population, name):
    """One list of all scenes; `None` becomes NaN."""
    return np.concatenate([np.asarray(scene[population][name], float)
                           for scene in scenes])


def _means(scenes):
    return {name: statistic(_column(scenes, population, column))
            for name, (population, column, statistic) in _MEASURES.items()}


def _matches(scenes, min_iou=0.5):
    """The matches of all objects of all scenes."""
    iou = _column(scenes, 'objects', 'iou')
    return MatchScores(iou[iou > min_iou], len(iou),
                       sum(scene['n_predicted'] for scene in scenes))


def _haigh(scenes):
    """Counts added up, and area errors averaged over pixels."""
    one = {key: np.array([scene['haigh'][key] for scene in scenes])
           for key in scenes[0]['haigh']}
    weight = one['n_pixels'] / max(one['n_pixels'].sum(), 1)
    for key in ('under_merging', 'over_merging'):
        one[key] = one[key] * weight
    pooled = HaighScores(**{k: v.sum().item() for k, v in one.items()})
    return {'haigh_f': pooled.f_score,
            'under_merging': pooled.under_merging,
            'over_merging': pooled.over_merging,
            'area_score': float(pooled.area_score),
            'combined_a': float(pooled.combined_a),
            'combined_b': float(pooled.combined_b)}


def _class_quality(scenes):
    """PQ of each class that occurs, where all scenes have classes."""
    if not all('classes' in scene for scene in scenes):
        return {}
    out = {}
    for name in CLASSES:
        ones = [scene['classes'][name] for scene in scenes
                if name in scene['classes']]
        if ones:
            out[f'pq_{name}'] = MatchScores(
                np.concatenate([one['iou'] for one in ones]),
                sum(one['n_truth'] for one in ones),
                sum(one['n_predicted'] for one in ones)).pq
    return out


def summary(scenes):
    """
    The measures of a set of scenes, as a dict of float; NaN where there is
    nothing to measure. Of all objects those of `MatchScores`, ``pq_star`` and
    so on where there are classes, and those of `HaighScores`; then those of
    large galaxies, and ``sep`` of companions.
    """
    scenes = _checked(scenes)
    match = _matches(scenes)
    return {'precision': match.precision, 'recall': match.recall,
            'f1': match.f1, 'sq': match.sq, 'pq': match.pq,
            **_class_quality(scenes), **_haigh(scenes),
            **{k: v for k, v in _means(scenes).items()
               if k not in ('recall', 'sq')}}


def _checked(scenes):
    scenes = list(scenes)
    if not scenes:
        msg = 'scenes must hold at least one scene, got none'
        raise ValueError(msg)
    return scenes


def bootstrap(scenes, statistic=summary, n_draws=200, seed=0):
    """
    Confidence intervals of one sigma, by ``n_draws`` bootstraps of the scenes,
    for each key of the ``statistic`` (scenes to a dict of float); draws where
    it is NaN are left out.
    """
    scenes = _checked(scenes)
    if n_draws < 1:
        msg = f'n_draws must be positive, got {n_draws!r}'
        raise ValueError(msg)
    rng = np.random.default_rng(seed)
    draws = [statistic([scenes[i] for i in rng.integers(
        0, len(scenes), len(scenes))]) for _ in range(n_draws)]
    out = {}
    for key in statistic(scenes):
        values = np.array([draw.get(key, np.nan) for draw in draws])
        values = values[np.isfinite(values)]
        out[key] = (tuple(np.percentile(values, [16, 84]).tolist())
                    if len(values) else (np.nan, np.nan))
    return out


def with_errors(values, intervals, names=None):
    """Values side by side with the ends of their intervals."""
    row = {}
    for key, name in (names or {key: key for key in values}).items():
        low, high = intervals[key]
        row |= {name: values[key], f'{name}_low': low, f'{name}_high': high}
    return row


def binned(scenes, by, edges=None, n_draws=200, seed=0):
    """
    A table of the measures, each with the ends ``_low`` and ``_high`` of its
    interval, in bins of a property of the objects: a key of `EDGES` or
    ``'kind'``. ``edges`` are those of other bins.
    """
    scenes, rows = _checked(scenes), []
    for row, belongs in _bins(scenes, by, edges):
        part = [_select(scene, by, belongs) for scene in scenes]
        for name in POPULATIONS:
            row[f'n_{name}'] = sum(len(one[name][by]) for one in part)
        row |= with_errors(_means(part),
                           bootstrap(part, _means, n_draws, seed))
        rows.append(row)
    return Table(rows=rows)


def _bins(scenes, by, edges):
    """First columns of the row of each bin, and what belongs to it."""
    if by == 'kind':
        kinds = {kind for scene in scenes for kind in scene['primaries'][by]}
        return [({'kind': kind}, lambda value, kind=kind: value == kind)
                for kind in sorted(kinds)]
    if by not in EDGES:
        msg = f"by must be one of {sorted([*EDGES, 'kind'])}, got {by!r}"
        raise ValueError(msg)
    edges = EDGES[by] if edges is None else edges
    if len(edges) < 2 or not (np.diff(edges) > 0).all():
        msg = f'edges must increase, got {edges!r}'
        raise ValueError(msg)
    return [({'low': float(low), 'high': float(high)},
             lambda value, low=low, high=high: low <= value < high)
            for low, high in zip(edges, edges[1:])]


def _select(scene, by, belongs):
    """The objects, primaries and companions of one bin."""
    out = {}
    for name in POPULATIONS:
        keep = np.array([belongs(v) for v in scene[name][by]], bool)
        out[name] = {key: np.array(values, None if key == 'kind' else float)[
            keep] for key, values in scene[name].items()}
    return out


def curve(scenes, limits=IOU_LIMITS, n_draws=200, seed=0):
    """
    A table of ``precision``, ``recall`` and ``f1``, with their intervals,
    against the ``iou`` that a match must exceed: from 0.5 on, no object has
    two candidates.
    """
    scenes = _checked(scenes)
    for limit in limits:
        if not 0.5 <= limit < 1:
            msg = f'limits must be in [0.5, 1), got {limit!r}'
            raise ValueError(msg)
    names = ('precision', 'recall', 'f1')

    def statistic(part):
        return {(name, limit): getattr(_matches(part, limit), name)
                for limit in limits for name in names}

    values = statistic(scenes)
    intervals = bootstrap(scenes, statistic, n_draws, seed)
    return Table(rows=[{'iou': limit, **with_errors(values, intervals, {
        (name, limit): name for name in names})} for limit in limits])


def list_table(header, rows):
    """Lines of a table in reStructuredText."""
    lines = ['.. list-table::', '   :header-rows: 1', '']
    for first, *others in [header, *rows]:
        lines += [f'   * - {first}',
                  *(f'     - {one}'.rstrip() for one in others)]
    return lines


def plus_minus(value, low, high):
    """A value and half the width of its interval, for such a table."""
    return f'{value:.3f} ± {(high - low) / 2:.3f}'
