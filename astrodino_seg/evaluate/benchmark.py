# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Finders on simulated scenes with known truth: the tables of the docs. Of each
scene counts and lists are kept, which JSON can hold, so that a benchmark can
be stopped and resumed; `astrodino_seg.evaluate.tables` pools them.
"""

import json
import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from multiprocessing import get_context
from operator import itemgetter
from pathlib import Path

import numpy as np
from astropy.table import Table, vstack
from tqdm import tqdm

from astrodino_seg import __version__
from astrodino_seg.evaluate.compare import run_finder
from astrodino_seg.evaluate.matching import (
    SEPARATE_PIXELS,
    haigh_scores,
    match_classes,
    match_labels,
    measure_primaries,
)
from astrodino_seg.evaluate.tables import (
    EDGES,
    binned,
    bootstrap,
    curve,
    list_table,
    plus_minus,
    summary,
    with_errors,
)
from astrodino_seg.files import locked, sha256_of, whole_or_not
from astrodino_seg.image.filters import wavelength
from astrodino_seg.simulate import SceneLibrary, observe
from astrodino_seg.simulate.scene_library import VERSION
from astrodino_seg.truth import CLASSES

#: Columns of the tables for the docs: of all objects, of large galaxies.
OBJECTS = ('pq', 'sq', 'precision', 'recall', 'f1', 'haigh_f',
           'under_merging', 'over_merging', 'area_score', 'combined_a',
           'combined_b')
LARGE = ('ok', 'frag', 'n_fragments', 'flux_share', 'best_iou', 'contam',
         'lost', 'sep', 'mag_bias', 'mag_scatter', 'colour_bias')
SHOWN = (*OBJECTS, *LARGE, 'seconds')


def scene_scores(truth, labels, image, classes=None):
    """
    Measure the labels (y, x) of one simulated scene against its `Truth`.

    Of the image only the names of its bands are used; ``classes``, if given,
    are label to index into `CLASSES`, of all labels, or it is a `ValueError`.
    The record, for `json.dumps`, has `None` for what cannot be measured:

    - ``n_predicted``: labels, less those of void.
    - ``haigh``: the fields of `HaighScores`.
    - ``objects``: the objects with pixels; lists ``sn``, ``size`` (root of
      pixels over pi), ``surface_brightness`` (root mean square of the own
      S/N per pixel), ``blendedness``, ``kind`` and ``iou`` (of the match at
      IoU > 0.5, or 0).
    - ``primaries``: the same of the large galaxies, where ``iou`` is that of
      the best label, and ``ok``, ``frag``, ``n_fragments``, ``flux_share``,
      ``contam``, ``lost``, ``mag_error`` and ``colour_error`` (found less
      true, in magnitudes).
    - ``companions``: objects of at least 25 pixels with their peak on a
      primary other than themselves, and whether ``separated``.
    - ``classes``, if given: for the name of each, the list ``iou`` of its
      matches, ``n_truth`` and ``n_predicted``.
    """
    labels, o = np.asarray(labels), truth.objects
    match = match_labels(truth.labels, labels)
    area = dict(zip(*np.unique(truth.labels, return_counts=True)))
    n_pixels = np.array([area.get(k, 0) for k in o['id']], int)
    large = o['primary'] & (n_pixels > 0)
    on_large = o['on_primary'] & (n_pixels >= SEPARATE_PIXELS)
    rows, separated = measure_primaries(truth.labels, labels, truth.own_sn,
                                        o['id'][large], o['id'][on_large])
    objects = _properties(o, n_pixels > 0)
    iou = dict(zip(match.truth, match.iou))
    objects['iou'] = [float(iou.get(k, 0)) for k in o['id'][n_pixels > 0]]
    record = {
        'n_predicted': match.n_predicted,
        'haigh': asdict(haigh_scores(truth.labels, labels, truth.own_sn)),
        'objects': objects,
        'primaries': {**_properties(o, large), **_columns(rows),
                      **_photometry(truth, labels, rows, image.bands)},
        'companions': {**_properties(o, on_large), 'separated': separated}}
    if classes is not None:
        found = match_classes(truth.labels, labels,
                              dict(zip(o['id'], o['cls'])), classes)
        record['classes'] = {
            CLASSES[k]: {**asdict(one), 'iou': one.iou.tolist()}
            for k, one in found.items()}
    return record


def _properties(objects, which):
    """What objects are binned by."""
    n, sn = objects['n_pixels'][which], objects['sn'][which]
    return {'sn': sn.tolist(), 'size': np.sqrt(n / np.pi).tolist(),
            'surface_brightness': (sn / np.sqrt(n)).tolist(),
            'blendedness': objects['blendedness'][which].tolist(),
            'kind': objects['kind'][which].tolist()}


def _columns(rows):
    """The rows of `measure_primaries` as lists."""
    names = ('iou', 'ok', 'n_fragments', 'flux_share', 'lost')
    return {**{name: [row[name] for row in rows] for name in names},
            'contam': [row['contamination'] for row in rows],
            'frag': [row['n_fragments'] > 1 for row in rows]}


def reference_bands(names):
    """
    The indices of the band nearest to r, and of the two neighbours in
    wavelength nearest to g and r, or `None` if there is one band. Names that
    are not known are taken to go from blue to red.
    """
    waves = [wavelength(name) for name in names]
    if None in waves:
        waves = range(len(names))
    g, r = wavelength('g'), wavelength('r')
    reference = int(np.argmin([abs(wave - r) for wave in waves]))
    order = np.argsort(waves, kind='stable').tolist()
    pairs = zip(order, order[1:])
    return reference, min(pairs, default=None, key=lambda pair: abs(
        waves[pair[0]] - g) + abs(waves[pair[1]] - r))


def _photometry(truth, labels, rows, bands):
    """Errors of a perfect photometry within the best labels."""
    reference, colour = reference_bands(bands)
    flux = dict(zip(truth.objects['id'], truth.objects['flux']))
    out = {'mag_error': [], 'colour_error': []}
    for row in rows:
        found = truth.light[:, labels == row['best']].sum(
            axis=1, dtype=float) if row['best'] else np.nan
        with np.errstate(divide='ignore', invalid='ignore'):
            error = -2.5 * np.log10(found / flux[row['label']])
        out['mag_error'].append(_finite(error[reference]))
        out['colour_error'].append(None if colour is None else _finite(
            error[colour[0]] - error[colour[1]]))
    return out


def _finite(value):
    return float(value) if np.isfinite(value) else None


def split_scene(library, k):
    """Image and truth of observation ``k`` of a split: always the same."""
    return observe(library[k], [library.seed(k), 1])


def measure_scene(finder, image, truth):
    """
    The `scene_scores` of a finder on an image, with the classes where it tells
    them, and its ``seconds``.
    """
    labels, table, seconds = run_finder(repr(finder), finder, image,
                                        ignored=Warning)
    classes = None
    # a table of nothing has no columns
    if table is not None and {row['class'] for row in table} <= {*CLASSES}:
        classes = {int(row['label']): CLASSES.index(row['class'])
                   for row in table}
    return {**scene_scores(truth, labels, image, classes),
            'seconds': seconds}


def _fingerprint(finder):
    """What a record depends on: settings, weights and versions."""
    text = f'{finder!r}, version {__version__}, scenes {VERSION}'
    if hasattr(finder, 'segment'):
        from astrodino_seg.models.load import digest, weights_file

        model = getattr(finder, 'model', None)
        if model is None or isinstance(model, (str, os.PathLike)):
            text += f', {sha256_of(weights_file(model))}'
        else:
            text += f', {digest(model)}, {json.dumps(model.spec)}'
    return text


def _work(job):
    """The records of one scene, in a process of its own."""
    finders, split, size, cache, n_scenes, k = job
    library = SceneLibrary(split, n_scenes, path=cache, size=size)
    image, truth = split_scene(library, k)
    return k, {name: measure_scene(finder, image, truth)
               for name, finder in finders.items()}


def _one_thread():
    os.environ['OMP_NUM_THREADS'] = '1'


def read_lines(path):
    """The objects of a JSON lines file; a line cut by a kill is removed."""
    content = path.read_bytes() if path.exists() else b''
    whole = content[:content.rfind(b'\n') + 1]
    if len(whole) < len(content):
        os.truncate(path, len(whole))
    return [json.loads(line) for line in whole.splitlines()]


def run_benchmark(finders, path, *, n_scenes=200, split='benchmark',
                  size=512, cache=None, n_processes=1, progress=True):
    """
    Measure finders on scenes of a split. Each record is written down as soon
    as it is made, and a run that was killed goes on from there; those of other
    settings, weights, simulations or versions are not used.
    """
    if n_processes < 1:
        msg = f'n_processes must be positive, got {n_processes!r}'
        raise ValueError(msg)
    SceneLibrary(split, n_scenes, size=size)        # to fail before work
    with locked(path):
        return _resume(finders, Path(path), n_scenes, n_processes, progress,
                       (split, size, cache))


def _resume(finders, path, n_scenes, n_processes, progress, scenes):
    prints = {name: _fingerprint(one) for name, one in finders.items()}
    known = {name: {} for name in prints}
    for name, fingerprint, k, record in read_lines(path):
        if prints.get(name) == fingerprint:
            known[name][k] = record
    jobs = []
    for k in range(n_scenes):
        missing = {name: finder for name, finder in finders.items()
                   if k not in known[name]}
        if missing:
            jobs.append((missing, *scenes, n_scenes, k))
    bar = tqdm(total=n_scenes, initial=n_scenes - len(jobs), unit='scene',
               disable=not progress, desc='benchmark')
    with open(path, 'a') as stream:
        for k, records in _all(jobs, n_processes):
            for name, record in records.items():
                known[name][k] = record
                json.dump([name, prints[name], k, record], stream,
                          allow_nan=False)
                stream.write('\n')
            stream.flush()
            bar.update()
    bar.close()
    return {name: [ones[k] for k in range(n_scenes)]
            for name, ones in known.items()}


def _all(jobs, n_processes):
    if n_processes == 1 or len(jobs) < 2:
        yield from map(_work, jobs)
        return
    # a fork of a process with threads of OpenMP may hang
    with ProcessPoolExecutor(n_processes, mp_context=get_context('spawn'),
                             initializer=_one_thread) as pool:
        for one in as_completed([pool.submit(_work, job) for job in jobs]):
            yield one.result()


def benchmark_tables(results, n_draws=200):
    """Measures of all finders, with confidence intervals."""
    rows, bins, curves = [], [], []
    for name, scenes in results.items():
        row = {'finder': name, 'n_scenes': len(scenes),
               'n_primaries': sum(len(s['primaries']['ok'])
                                  for s in scenes),
               'n_companions': sum(len(s['companions']['separated'])
                                   for s in scenes)}
        rows.append(row | with_errors(
            _timed(scenes), bootstrap(scenes, _timed, n_draws)))
        for by in (*EDGES, 'kind'):
            one = binned(scenes, by, n_draws=n_draws)
            if len(one):
                one.add_columns([name, by], names=['finder', 'by'],
                                indexes=[0, 0])
                bins.append(one)
        curves.append(curve(scenes, n_draws=n_draws))
        curves[-1].add_column(name, index=0, name='finder')
    tables = {'scores': Table(rows=rows), 'bins': vstack(bins),
              'curve': vstack(curves)}
    for one in tables.values():
        for column in one.itercols():
            if column.dtype.kind == 'f':
                column[:] = np.round(column, 3)
    return tables


def _timed(scenes):
    """The `summary`, and the median time."""
    seconds = float(np.median([scene['seconds'] for scene in scenes]))
    return {**summary(scenes), 'seconds': seconds}


def write_rst(tables, path):
    """
    Write the tables of `benchmark_tables` for the docs, with a row a finder:
    the scores of all objects, those of large galaxies, and how many of these
    come out right (``ok``) and in pieces (``frag``), by blendedness and by
    kind.
    """
    scores, bins = tables['scores'], tables['bins']
    parts = [list_table(['finder', *keys], [
        [row['finder'], *(_with_error(row, key) for key in keys)]
        for row in scores]) for keys in (OBJECTS, LARGE)]
    for by, name in (
            ('blendedness', lambda row: f'{row["low"]:g} to {row["high"]:g}'),
            ('kind', itemgetter('kind'))):
        if by in bins['by']:
            parts.append(_binned_lines(bins[bins['by'] == by], by, name,
                                       scores['finder']))
    with whole_or_not(path) as part:
        part.write_text('\n\n'.join(map('\n'.join, parts)) + '\n')


def _binned_lines(bins, by, name, finders):
    """What comes out right and in pieces, a column a bin."""
    ones = {(row['finder'], name(row)): row for row in bins}
    names = list(dict.fromkeys(map(name, bins)))
    header = [f'{one} ({ones[finders[0], one]["n_primaries"]})'
              for one in names]
    return list_table([f'ok; frag by {by}', *header], [
        [finder, *(f'{_with_error(ones[finder, one], "ok")}; '
                   f'{ones[finder, one]["frag"]:.2f}' for one in names)]
        for finder in finders])


def _with_error(row, key):
    return plus_minus(row[key], row[f'{key}_low'], row[f'{key}_high'])
