# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Fragmentation against separation, as the dials of three finders are turned.

    python -m benchmarks.dials.dial_curve FOLDER [--model FILE] [--scenes 40]
        [--merge M] [--docs docs/evidence/calibration]

On scenes of the benchmark split ``merge`` of ``DinoSegmenter`` is swept, and
the contrast of photutils' deblending and of SEP, whose other settings are the
tuned ones. ``frag`` is the share of large galaxies that are cut in pieces,
``sep`` that of companions on them that have a label of their own
(``docs/evidence/measures.rst``). The network runs once a scene. FOLDER keeps
the rendered scenes, and the counts of each finder and setting as a CSV file
with a row a scene. A run that was stopped goes on from there.
FOLDER also gets ``dial_curve.png`` and ``dial_curve.txt``, of which ``--docs``
is another folder. ``--merge`` is the value that is marked, if it is not the
segmenter's default.
"""

import argparse
import csv
import hashlib
import os
import warnings
from functools import cache
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from astrodino_seg.evaluate.baselines import FINDERS, TUNED
from astrodino_seg.evaluate.benchmark import scene_scores, split_scene
from astrodino_seg.evaluate.finders import detection_image
from astrodino_seg.evaluate.tables import (
    bootstrap,
    list_table,
    plus_minus,
)
from astrodino_seg.plotting import save_figure
from astrodino_seg.simulate import SceneLibrary
from astrodino_seg.simulate.scene_library import VERSION
from benchmarks.common import DEFAULTS, Network

CONTRASTS = (0.0001, 0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0)
#: By finder: the name of its dial, and what is tried.
DIALS = {'dino': ('merge', (0.0, 0.1, 0.2, 0.3, 0.5, 0.65, 0.8, 0.9, 0.95,
                            0.98, 1.0)),
         'photutils': ('contrast', CONTRASTS),
         'sep': ('contrast', CONTRASTS)}
COUNTS = ('n_primaries', 'n_frag', 'n_ok', 'n_lost', 'n_companions',
          'n_separated')
#: Shares that are shown, each of which counts.
SHARES = {'frag': ('n_frag', 'n_primaries'),
          'sep': ('n_separated', 'n_companions'),
          'ok': ('n_ok', 'n_primaries'), 'lost': ('n_lost', 'n_primaries')}
#: Colours that all can tell apart (Okabe & Ito), and markers besides.
STYLES = {'dino': {'color': '#0072B2', 'marker': 'o'},
          'photutils': {'color': '#D55E00', 'marker': 's'},
          'sep': {'color': '#009E73', 'marker': '^'}}
#: Where the setting is written beside a point, in typographic points.
PLACES = {'dino': (6, -13), 'photutils': (-9, 6), 'sep': (9, 6)}
TITLES = {'dino': 'DinoSegmenter, merge', 'photutils': 'photutils, contrast',
          'sep': 'SEP, contrast'}


# ---------------------------------------------------------------- counts

def counts(record):
    """What the curve needs of a record of `scene_scores`."""
    large, others = record['primaries'], record['companions']
    return {'n_primaries': len(large['ok']), 'n_frag': sum(large['frag']),
            'n_ok': sum(large['ok']), 'n_lost': sum(large['lost']),
            'n_companions': len(others['separated']),
            'n_separated': sum(others['separated'])}


def read_counts(path):
    """Counts by scene; a line that a kill cut off is removed."""
    if not path.exists():
        return {}
    content = path.read_bytes()
    whole = content[:content.rfind(b'\n') + 1]
    if len(whole) < len(content):
        os.truncate(path, len(whole))
    rows = csv.DictReader(whole.decode().splitlines())
    return {int(row['scene']): {key: int(row[key]) for key in COUNTS}
            for row in rows}


def add_counts(path, scene, row):
    """Append the counts of a scene."""
    new = not path.exists() or not path.stat().st_size
    with open(path, 'a', newline='') as stream:
        writer = csv.DictWriter(stream, ['scene', *COUNTS])
        if new:
            writer.writeheader()
        writer.writerow({'scene': scene, **row})


def shares(scenes):
    """The shares over all scenes; NaN where there is nothing to count."""
    total = {key: sum(scene[key] for scene in scenes) for key in COUNTS}
    return {name: total[part] / total[whole] if total[whole] else np.nan
            for name, (part, whole) in SHARES.items()}


# ---------------------------------------------------------------- finders

def made_of(text):
    """A short name for all that the counts depend on."""
    text = f'{text}, scenes {VERSION}'
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def labels_by_network(network, looks, merge):
    """The labels of `~astrodino_seg.DinoSegmenter`."""
    return network.group(looks, merge=merge).groups


def labels_by_tool(name, contrast, sn, mask):
    """The labels of a tool with its tuned settings but for the contrast."""
    finder = FINDERS[f'{name}-tuned'](contrast=contrast)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        found = finder.find(sn, mask)
    return np.zeros(sn.shape, int) if found is None else found.data


def count_all(network, n_scenes, folder, dials):
    """Counts of all finders and settings, by these and by scene."""
    same = {'dino': f'{DEFAULTS!r}, {network.digest}',
            **{name: TUNED[name] for name in ('photutils', 'sep')}}
    paths = {(name, value): folder
             / f'{name}-{made_of(same[name])}-{dial}-{value:g}.csv'
             for name, (dial, values) in dials.items() for value in values}
    known = {one: read_counts(path) for one, path in paths.items()}
    library = SceneLibrary('benchmark', n_scenes, path=folder / 'scenes')
    for k in range(n_scenes):
        missing = [one for one, rows in known.items() if k not in rows]
        if not missing:
            continue
        image, truth = split_scene(library, k)
        detection = cache(lambda image=image: detection_image(image))
        looks = cache(lambda image=image, truth=truth: network.look(
            image, truth))
        for name, value in missing:
            labels = (labels_by_network(network, looks(), value)
                      if name == 'dino'
                      else labels_by_tool(name, value, *detection()))
            row = counts(scene_scores(truth, labels, image))
            add_counts(paths[name, value], k, row)
            known[name, value][k] = row
        print(f'scene {k + 1}/{n_scenes}', end='\r', flush=True)
    print()
    return {one: [rows[k] for k in range(n_scenes)]
            for one, rows in known.items()}


# --------------------------------------------------------------- products

def curves(results):
    """By finder, for each setting the shares and their intervals."""
    out = {name: [] for name in DIALS}
    for (name, value), scenes in results.items():
        out[name].append({'value': value, **shares(scenes),
                          'intervals': bootstrap(scenes, shares)})
    return out


def chosen(name, merge):
    """The setting of a finder that is used."""
    return merge if name == 'dino' else TUNED[name]['contrast']


def nearest(rows, value):
    """The row with the setting nearest to one that is used."""
    return min(rows, key=lambda row: abs(row['value'] - value))


def draw(found, merge, n_scenes, n_primaries, n_companions):
    """The figure: frag against sep, a curve for each finder."""
    figure = Figure(figsize=(7.2, 5.4), layout='constrained')
    axis = figure.subplots()
    for name, rows in found.items():
        style = STYLES[name]
        x, y = (np.array([row[key] for row in rows])
                for key in ('sep', 'frag'))
        ends = [np.abs([[row['intervals'][key][side] - row[key]
                         for row in rows] for side in (0, 1)])
                for key in ('sep', 'frag')]
        axis.errorbar(x, y, ends[1], ends[0], fmt='none', elinewidth=0.8,
                      ecolor=style['color'], alpha=0.4)
        axis.plot(x, y, **style, ms=5, lw=1.6, label=TITLES[name])
        used = nearest(rows, chosen(name, merge))
        axis.plot(used['sep'], used['frag'], **style, ms=12, mfc='white',
                  mew=2.2, ls='none', zorder=3)
        for row in {id(one): one for one in (rows[0], used, rows[-1])
                    }.values():
            axis.annotate(f'{row["value"]:g}', (row['sep'], row['frag']),
                          PLACES[name], textcoords='offset points',
                          ha='right' if PLACES[name][0] < 0 else 'left',
                          color=style['color'])
    axis.set(xlabel='companions kept apart (sep)',
             ylabel='large galaxies cut in pieces (frag)')
    axis.set_title(f'{n_primaries} large galaxies and {n_companions} '
                   f'companions of {n_scenes} scenes', fontsize='medium')
    axis.margins(0.08)
    axis.set_ylim(bottom=0)
    axis.grid(alpha=0.25)
    axis.plot([], [], 'o', ms=12, mfc='white', mew=2.2, color='0.4',
              label='the setting that is used')
    axis.legend(loc='upper left', frameon=False)
    axis.annotate('better', (0.97, 0.04), (0.84, 0.13), color='0.35',
                  xycoords='axes fraction', arrowprops={
                      'arrowstyle': '->', 'color': '0.35'})
    return figure


def table(found, merge, n_scenes, n_primaries, n_companions):
    """The lines of the table for the docs."""
    lines = []
    for name, rows in found.items():
        used = nearest(rows, chosen(name, merge))
        for row in rows:
            star = ' (used)' if row is used else ''
            lines.append([name, f'{DIALS[name][0]} {row["value"]:g}{star}',
                          *(plus_minus(row[key], *row['intervals'][key])
                            for key in SHARES)])
    return [*list_table(['finder', 'setting', *SHARES], lines), '',
            f'Of {n_primaries} large galaxies and {n_companions} '
            f'companions in {n_scenes} scenes of the benchmark split.']


def main():
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder', type=Path)
    parser.add_argument('--model', help='a weights file; default: bundled')
    parser.add_argument('--scenes', type=int, default=40)
    parser.add_argument('--merge', type=float, default=DEFAULTS.merge)
    parser.add_argument('--docs', type=Path, help='folder for the products')
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    dial, values = DIALS['dino']
    dials = DIALS | {'dino': (dial, sorted({*values, args.merge}))}
    results = count_all(Network(args.model, args.folder), args.scenes,
                        args.folder, dials)
    first = next(iter(results.values()))
    sizes = [args.scenes, *(sum(row[key] for row in first)
                            for key in ('n_primaries', 'n_companions'))]
    found = curves(results)
    docs = args.docs or args.folder
    lines = table(found, args.merge, *sizes)
    print('\n'.join(lines))
    (docs / 'dial_curve.txt').write_text('\n'.join(lines) + '\n')
    save_figure(draw(found, args.merge, *sizes), docs / 'dial_curve.png')


if __name__ == '__main__':
    main()
