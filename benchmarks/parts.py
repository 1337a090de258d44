# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What parts of the finished model are worth, and what the number of bands is.

    python benchmarks/parts.py FOLDER [--model FILE] [--scenes 40]
        [--band-scenes 24]

On scenes of the benchmark split: as the segmenter does it; without the look
at the binned image; and with the true centres in the place of the network's
own. And on other scenes, of nine bands (u to Ks), seen in one, three, four
and all of them; image and truth are else the same. FOLDER gets what the
network says of each scene, so that a run that was stopped goes on from there,
and the tables ``parts.txt`` and ``bands.txt``, with half the distance from the
16th to the 84th percentile over bootstraps of the scenes.
"""

import argparse
import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from cached_maps import DEFAULTS, Network, group

from astrodino_seg.image import Image
from astrodino_seg.inference import predict_maps
from astrodino_seg.prediction import read_prediction
from astrodino_seg.score_tables import bootstrap, summary
from astrodino_seg.scores import scene_scores
from astrodino_seg.simulate import SPLITS, make_scene, observe
from astrodino_seg.simulate.scene_library import VERSION

COLUMNS = ('pq', 'f1', 'ok', 'frag', 'sep', 'contam')
NINE = 'ugriZYJHKs'
#: Indices of the bands that are observed, by their number.
BANDS = {1: [2], 3: [1, 2, 3], 4: [1, 2, 3, 4], 9: list(range(9))}
#: Of the benchmark split, far behind the scenes of other tables.
FIRST_OF_NINE = SPLITS['benchmark'][0] + 50_000


def true_centres(network, maps):
    """The scene with the true centres as seeds, none of them joined."""
    planes = network.model.planes(maps.image)
    o = maps.truth.objects
    seeds = [torch.tensor(np.clip(o[key], 0, n - 1.0)).float()
             for key, n in zip('xy', maps.dead.shape[::-1])]
    with torch.inference_mode():
        prediction = read_prediction(
            network.model, predict_maps(network.model, planes), planes,
            *seeds, torch.ones(len(o['x'])))
    return maps._replace(prediction=prediction, coarse=())


def parts(network, n_scenes, merge):
    """Yield name and record of each scene of the first table."""
    for maps in network.scenes('benchmark', n_scenes):
        for name, one, dial in (
                ('default', maps, merge),
                ('without the binned image', maps._replace(coarse=()),
                 merge),
                ('true centres', true_centres(network, maps), 0.0)):
            grouping, _ = group(one, merge=dial,
                                calibration=network.calibration)
            yield name, scene_scores(maps.truth, grouping.groups, maps.image)


def bands(network, n_scenes, merge):
    """Yield number of bands and record of each scene of the second table."""
    for seed in range(FIRST_OF_NINE, FIRST_OF_NINE + n_scenes):
        whole, truth = observe(make_scene(seed, band_set=NINE), [seed, 1],
                               bands=BANDS[9], depth=1.0)
        names = list(whole.bands)
        for n, which in BANDS.items():
            image = Image(whole.cube[which], whole.mask[which], whole.noise,
                          bands=[names[k] for k in which], unit=whole.unit)
            maps = network.look(image, truth, f'nine-{seed:06d}-{n}')
            grouping, _ = group(maps, merge=merge,
                                calibration=network.calibration)
            yield n, scene_scores(truth, grouping.groups, whole)


def kept(path, records):
    """Records by name; those of an earlier run come from a file."""
    if not path.exists():
        lines = [json.dumps([name, one]) for name, one in records()]
        temporary = path.with_suffix('.part')
        temporary.write_text('\n'.join(lines))
        temporary.replace(path)
    found = {}
    for line in path.read_text().splitlines():
        name, one = json.loads(line)
        found.setdefault(name, []).append(one)
    return found


def table(found, title):
    """Scores of each name in reStructuredText."""
    lines = ['.. list-table::', '   :header-rows: 1', '', f'   * - {title}',
             *(f'     - {key}' for key in COLUMNS)]
    for name, scenes in found.items():
        values, ends = summary(scenes), bootstrap(scenes, summary, 200)
        lines.append(f'   * - {name}')
        lines += [f'     - {values[key]:.3f} ± '
                  f'{(ends[key][1] - ends[key][0]) / 2:.3f}'
                  for key in COLUMNS]
    return '\n'.join(lines) + '\n'


def main():
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('folder', type=Path)
    parser.add_argument('--model')
    parser.add_argument('--scenes', type=int, default=40)
    parser.add_argument('--band-scenes', type=int, default=24)
    parser.add_argument('--merge', type=float, default=DEFAULTS.merge)
    args = parser.parse_args()
    network = Network(args.model, args.folder)
    for title, make, n in (('parts', parts, args.scenes),
                           ('bands', bands, args.band_scenes)):
        made_of = f'{network.digest}, {network.calibration}, {VERSION}'
        made_of = hashlib.sha256(made_of.encode()).hexdigest()[:8]
        name = f'{title}-{made_of}-{n}-{args.merge:g}.jsonl'
        found = kept(args.folder / name,
                     lambda make=make, n=n: make(network, n, args.merge))
        text = table(found, title)
        (args.folder / f'{title}.txt').write_text(text)
        print(text)


if __name__ == '__main__':
    main()
