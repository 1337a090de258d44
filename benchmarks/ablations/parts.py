# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What parts of the finished model are worth, and what the number of bands is.

    python -m benchmarks.ablations.parts FOLDER [--model FILE] [--scenes 40]
        [--band-scenes 24]

On scenes of the benchmark split: as the segmenter does it; with the truth in
the place of the decision, which joins the seeds of one true object and drops
those on nothing; with the true centres in the place of the network's own
seeds, each at the level that fits the size of its object; and with the finest
level alone. And on other scenes, of nine bands (u to Ks), seen in one, three,
four and all of them; image and truth are else the same. FOLDER gets the scores
of each scene, so that what was finished is not done again, and the tables
``parts.txt`` and ``bands.txt``, with half the distance from the 16th to the
84th percentile over bootstraps of the scenes.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from astrodino_seg.evaluate.benchmark import scene_scores
from astrodino_seg.evaluate.tables import (
    bootstrap,
    list_table,
    plus_minus,
    summary,
)
from astrodino_seg.files import whole_or_not
from astrodino_seg.image import Image
from astrodino_seg.inputs.channels import bin_channels
from astrodino_seg.models.instance import CALLED
from astrodino_seg.predict.decode import compose, decode, paint_levels
from astrodino_seg.predict.instances import input_of
from astrodino_seg.predict.tiles import STEP
from astrodino_seg.simulate import make_scene, observe
from astrodino_seg.simulate.scene_library import SPLITS
from astrodino_seg.train.decision import seed_truth
from benchmarks.common import DEFAULTS, Network, keep

COLUMNS = ('pq', 'f1', 'ok', 'frag', 'sep', 'contam')
NINE = 'ugriZYJHKs'
#: Indices of the bands that are observed, by their number.
BANDS = {1: [2], 3: [1, 2, 3], 4: [1, 2, 3, 4], 9: list(range(9))}
#: Of the benchmark split, far behind the scenes of other tables.
FIRST_OF_NINE = SPLITS['benchmark'][0] + 50_000


# ---------------------------------------------------- truth for a part

def true_grouping(looks):
    """Labels of what the seeds paint, if the truth decides about them."""
    shape = looks.dead.shape
    true = seed_truth(looks.levels, looks.truth, shape)
    used = true > 0
    owner = compose(paint_levels(looks.levels, used, shape), shape, true)
    labels = np.append(0, np.where(used, true, 0))[owner]
    labels[looks.dead] = 0
    n = labels.max(initial=0)
    return np.append(0, np.where(keep(labels, n), np.arange(1, n + 1),
                                 0))[labels]


def true_centres(model, looks):
    """
    Labels of what the true centres paint, none of which are joined.

    Each is a seed of the level that calls objects of its size: the finest
    where they are less than `CALLED` pixels in radius.
    """
    o = looks.truth.objects
    radius = np.sqrt(o['n_pixels'] / np.pi)
    n = model.head.in_channels
    levels, planes, left = [], input_of(model, looks.image)[1], radius > 0
    for level in looks.levels:
        if levels:
            planes = bin_channels(planes, 2, n)
        here = left & (radius / level.factor < CALLED[1])
        if level is looks.levels[-1]:
            here = left
        x, y = (((o[key][here] + 0.5) / level.factor - 0.5).clip(0, side - 1)
                for key, side in zip('xy', level.sky.shape[::-1]))
        levels.append(seeds_at(model, level, planes, x, y))
        left = left & ~here
    return decode(levels, None, looks.dead.shape, merge=0, min_seed=0,
                  mask=looks.dead, n_pixels=DEFAULTS.n_pixels,
                  keep=keep).groups


def seeds_at(model, level, planes, x, y):
    """A level with certain seeds at some positions, and no others."""
    ny, nx = level.sky.shape
    x, y = (torch.from_numpy(p.astype(np.float32)) for p in (x, y))
    padded = F.pad(torch.from_numpy(planes), (0, -nx % STEP, 0, -ny % STEP))
    with torch.inference_mode(), torch.autocast('cpu', torch.bfloat16,
                                                enabled=model.in_bfloat16):
        maps = model(padded[None], torch.tensor([int(level.factor > 1)]))
    with torch.inference_mode():
        seeds = model.head.read_seeds([one[0] for one in maps.pyramid], x, y)
        parts = {'x': x, 'y': y, 'heat': torch.ones(len(x)),
                 'radius': seeds.radius,
                 'classes': seeds.classes.softmax(dim=-1)}
        parts |= {key: getattr(seeds, key) for key in (
            'kernel', 'centre', 'matrix', 'falloff', 'descriptor')}
    return level._replace(**{k: v.numpy() for k, v in parts.items()})


# -------------------------------------------------------------- records

def parts(network, n_scenes, merge):
    """Yield name and record of each scene of the first table."""
    for looks in network.scenes('benchmark', n_scenes):
        finest = looks._replace(levels=looks.levels[:1])
        for name, labels in (
                ('default', network.group(looks, merge=merge).groups),
                ('true grouping', true_grouping(looks)),
                ('true centres', true_centres(network.model, looks)),
                ('finest level only',
                 network.group(finest, merge=merge).groups)):
            yield name, scene_scores(looks.truth, labels, looks.image)


def bands(network, n_scenes, merge):
    """Yield number of bands and record of each scene of the second table."""
    for seed in range(FIRST_OF_NINE, FIRST_OF_NINE + n_scenes):
        whole, truth = observe(make_scene(seed, band_set=NINE), [seed, 1],
                               bands=BANDS[9], depth=1.0)
        names = list(whole.bands)
        for n, which in BANDS.items():
            image = Image(whole.cube[which], whole.mask[which], whole.noise,
                          bands=[names[k] for k in which], unit=whole.unit)
            grouping = network.group(network.look(image, truth), merge=merge)
            yield n, scene_scores(truth, grouping.groups, whole)


def kept(path, records):
    """Records by name; those of an earlier run come from a file."""
    if not path.exists():
        lines = [json.dumps([name, one]) for name, one in records()]
        with whole_or_not(path) as part:
            part.write_text('\n'.join(lines))
    found = {}
    for name, one in map(json.loads, path.read_text().splitlines()):
        found.setdefault(name, []).append(one)
    return found


def table(found, title):
    """Scores of each name in reStructuredText."""
    rows = []
    for name, scenes in found.items():
        values, ends = summary(scenes), bootstrap(scenes)
        rows.append([name, *(plus_minus(values[key], *ends[key])
                             for key in COLUMNS)])
    return '\n'.join(list_table([title, *COLUMNS], rows)) + '\n'


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
    args.folder.mkdir(parents=True, exist_ok=True)
    network = Network(args.model, args.folder)
    for title, make, n in (('parts', parts, args.scenes),
                           ('bands', bands, args.band_scenes)):
        name = f'{title}-{network.digest}-{n}-{args.merge:g}.jsonl'
        found = kept(args.folder / name,
                     lambda make=make, n=n: make(network, n, args.merge))
        text = table(found, title)
        (args.folder / f'{title}.txt').write_text(text)
        print(text)


if __name__ == '__main__':
    main()
