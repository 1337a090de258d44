# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What backbones have learned, beside one that has learned nothing.

    python -m benchmarks.pretraining.evidence FOLDER NAME=FILE ...
        [--data FOLDER]

Each NAME=FILE is a backbone and its name in the tables; the file is what
``load_backbone`` takes. NAME#0, NAME#1, ... are one row. The architecture of
the first, with ``--random`` sets of random weights, is the row ``random``;
with ``--supervised`` it is also trained for each task, on the same splits,
which is the row ``supervised``. Measured are

- the kind of simulated galaxies that are bright and large enough to show it,
  as cutouts of eight half-light radii from scenes of the validation split,
  observed at survey depth;
- star, galaxy or artifact, as cutouts around objects of the same scenes;
- with ``--data`` (or the environment variable ASTRODINO_DATA), the ten classes
  of the pictures in ``galaxy_zoo_examples``, in repeated stratified folds;

each by nearest neighbours and by logistic regression of ``--what``; and linear
segmentation of the middle of scenes, as mIoU. Galaxies are drawn anew for each
of ``--skies`` skies, a sky is either in train or in test, and the 95%
confidence intervals are bootstraps over skies (for the pictures, over them;
for mIoU, the range over the splits). What a backbone has more than ``random``
has intervals of its own, of the differences on the same items. FOLDER, one for
each set of options, gets ``evidence.csv`` (what it has of an earlier run is
not measured again), ``evidence.rst`` and ``gains.rst``, and with real images
(``--data``, or ``--images``) ``features.png``: the principal components of
patch tokens as colours, and the mean attention of the CLS token.
"""

import argparse
import copy
import csv
import os
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure

from astrodino_seg.datasets import random_split
from astrodino_seg.datasets.folder import PictureFolder
from astrodino_seg.embed import (
    attention_maps,
    cutouts,
    embed,
    evaluate,
    evaluate_network,
    linear_segmentation,
)
from astrodino_seg.embed.classifiers import fold_splits, mean_interval
from astrodino_seg.embed.dense import Inputs, patch_maps, pca_rgb
from astrodino_seg.evaluate.tables import list_table
from astrodino_seg.image import as_image
from astrodino_seg.models import Backbone, load_backbone
from astrodino_seg.plotting import rgb_image, save_figure
from astrodino_seg.simulate import make_scene, observe
from astrodino_seg.simulate.galaxies import KINDS
from astrodino_seg.simulate.scene_library import SPLITS, build_stamps
from astrodino_seg.truth import CLASSES, pixel_classes
from benchmarks.common import add_data

MORPHOLOGIES = [kind for kind in KINDS if kind != 'central']
SCENE, SMALL = 512, 64      # pixels a side
#: Sides that the network sees; small objects are enlarged, as they are smaller
#: than a patch.
SHOWN = {'morphology': 128, 'class': 3 * SMALL, 'real': 224}
ENLARGED = 640      # of the real images whose tokens are drawn
SMALLEST, LARGEST = 5, 26        # half-light radius, in pixels
#: Kinds in equal shares, and no others upon them.
RATES = {**dict.fromkeys(MORPHOLOGIES, 1), **dict.fromkeys(
    ('cosmos', 'group', 'pair', 'companion'), 0), 'large': 5}
#: What has nothing to do with the object.
NOT_TOLD = dict.fromkeys(('missing_bands', 'gap', 'stripes'), 0)
MIN_SN, MIN_SN_KIND = 20, 100
N_SCENES = 40       # of each sky at most
FIELDS = ('backbone', 'task', 'probe', 'n', 'classes', 'score', 'std', 'low',
          'high', 'shares', 'groups')
LAST = 'segmentation'      # of the tasks
TITLES = {'morphology': 'kind of galaxy', 'class': 'object class',
          'real': 'real pictures', 'segmentation': 'segmentation'}


def make_scenes(sky, folder):
    """Yield image and truth of scenes of one sky's stamps."""
    first = SPLITS['validation'][0] + N_SCENES * sky
    stamps = build_stamps(folder, n_skies=1, n_large=80, rates=RATES,
                          first_seed=first, band_sets=['griz'],
                          progress=False)
    for seed in range(first, first + N_SCENES):
        scene = make_scene(seed, size=SCENE, stamps=stamps, rates=RATES)
        yield observe(scene, [seed, 1], depth=1.0, rates=NOT_TOLD)


def take(image, truth, wanted):
    """Yield task, class and cutout of objects of the classes wanted."""
    objects = truth.objects
    where = np.stack([objects['x'], objects['y']], axis=-1)
    re, fits = objects['re'], objects['re'] <= LARGEST
    large = (fits & (re >= SMALLEST) & objects['primary']
             & (objects['sn'] >= MIN_SN_KIND))
    names = np.array(CLASSES)[objects['cls']]
    for task, labels, rows, size in (
            ('morphology', objects['kind'], large, 8 * re),
            ('class', names, fits & (objects['sn'] >= MIN_SN),
             np.full(len(re), SMALL))):
        edge = np.minimum(where, SCENE - where).min(axis=1)
        for row in np.flatnonzero(rows & (edge > size / 2)):
            label = str(labels[row])
            if wanted[task].get(label):
                wanted[task][label] -= 1
                yield task, label, cutouts(image, where[[row]],
                                           int(size[row]))[0]


def simulated(n_each, n_pairs, n_skies):
    """Images, labels and sky numbers of both tasks; pairs to segment."""
    tasks, pairs = {'morphology': [], 'class': []}, []
    for sky in range(n_skies):
        wanted = {name: dict.fromkeys(classes, n_each // n_skies)
                  for name, classes in (('morphology', MORPHOLOGIES),
                                        ('class', CLASSES[1:]))}
        with TemporaryDirectory() as folder:
            for k, (image, truth) in enumerate(make_scenes(sky, folder)):
                if k < n_pairs // n_skies:
                    middle = np.s_[SCENE // 4:3 * SCENE // 4]
                    pairs.append((
                        cutouts(image, [[SCENE / 2] * 2], SCENE // 2)[0],
                        pixel_classes(truth.labels, truth.objects)[
                            middle, middle]))
                for task, label, one in take(image, truth, wanted):
                    tasks[task].append((one, label, sky))
                if not any(sum(each.values()) for each in wanted.values()):
                    break
    return {name: tuple(zip(*items)) for name, items in tasks.items()}, pairs


def splits_by_sky(sky_of, n_skies, n_seeds):
    """Rows of train and test; all of a sky are in one of the two."""
    sky_of = np.asarray(sky_of)
    out = []
    for seed in range(n_seeds):
        _, test = random_split(n_skies, seed=seed)
        in_test = np.isin(sky_of, test)
        out.append((np.flatnonzero(~in_test), np.flatnonzero(in_test)))
    return out


def untrained(backbone, seed):
    """The same network with random weights."""
    vit = copy.deepcopy(backbone.vit)
    torch.manual_seed(seed)
    for module in vit.modules():
        if hasattr(module, 'reset_parameters'):
            module.reset_parameters()
    vit.init_weights()
    return Backbone(vit, backbone.planes, backbone.name)


class Ready:
    """The rule for images that hold the planes of a network already."""

    def __init__(self, n_planes):
        self.n_planes = n_planes

    def __call__(self, image):
        return image.cube


def make_ready(images, backbone, size):
    """The input of a backbone as images, to be made once."""
    inputs = Inputs(images, backbone.planes, size=size,
                    patch_size=backbone.vit.patch_size)
    return [as_image(inputs[k].x.numpy()) for k in range(len(images))]


class Task(NamedTuple):
    """
    What is to be told.

    Attributes
    ----------
    images, labels : sequence
        The sample.
    groups : `~numpy.ndarray`
        Numbers of what is drawn together: skies, or pictures.
    splits : list of tuple
        Rows of train and test.
    """

    images: object
    labels: object
    groups: object
    splits: list


def row(name, kind, probe, result, task):
    """A row of the results of a `~astrodino_seg.embed.probe.ProbeResult`."""
    low, high = result.interval(groups=task.groups)
    return {'backbone': name, 'task': kind, 'probe': probe,
            'n': len(result.truth), 'classes': len(result.classes),
            'score': result.accuracy, 'std': result.std, 'low': low,
            'high': high, 'shares': dump(result.shares),
            'groups': ' '.join(map(str, task.groups))}


def dump(values):
    """Numbers as one string, for a field of the table."""
    return ' '.join(f'{value:.4g}' for value in values)


def probes(backbone, kind, task, args):
    """Yield a row of results for each probe."""
    vectors = embed(task.images, backbone, what=args.what)
    for probe in ('knn', 'linear'):
        yield row(backbone.name, kind, probe, evaluate(
            vectors, task.labels, protocol=probe, splits=task.splits), task)


def supervised(backbone, kind, task, args):
    """The row of the same network, trained from its random weights."""
    return row('supervised', kind, 'linear', evaluate_network(
        task.images, task.labels, backbone=backbone, splits=task.splits,
        size=None, n_epochs=args.epochs, batch_size=32, rate=5e-4), task)


def segmentation(backbone, pairs, args, *, frozen=True):
    """A row of results: mIoU of each split."""
    scores = []
    sky_of = np.arange(len(pairs)) * args.skies // len(pairs)
    splits = splits_by_sky(sky_of, args.skies, args.seeds)
    for seed, (train, test) in enumerate(splits):
        scores.append(linear_segmentation(
            [pairs[k] for k in train], [pairs[k] for k in test], backbone,
            n_epochs=args.epochs, rate=1e-2 if frozen else 5e-4,
            frozen=frozen, seed=seed).miou)
    return {'backbone': backbone.name if frozen else 'supervised',
            'task': 'segmentation',
            'probe': 'linear', 'n': len(pairs), 'classes': 4,
            'score': np.mean(scores),
            'std': np.std(scores, ddof=1) if len(scores) > 1 else np.nan,
            'low': np.min(scores), 'high': np.max(scores),
            'shares': dump(scores), 'groups': ''}


def read_tasks(args):
    """The three tasks by name, and the pairs."""
    found, pairs = simulated(args.galaxies, args.pairs, args.skies)
    tasks = {name: Task(images, labels, np.array(sky_of),
                        splits_by_sky(sky_of, args.skies, args.seeds))
             for name, (images, labels, sky_of) in found.items()}
    zoo = args.data and args.data / 'galaxy_zoo_examples'
    if zoo and zoo.is_dir():
        pictures = PictureFolder(zoo)
        tasks['real'] = Task(
            pictures, pictures.labels, np.arange(len(pictures)),
            fold_splits(pictures.labels, n_repeats=args.repeats))
    return {name: task for name, task in tasks.items()
            if name in args.tasks}, pairs


def open_backbone(name, files):
    """A backbone by its name in the tables."""
    kind, _, seed = name.partition('#')
    source = next(iter(files.values())) if kind == 'random' else files[name]
    backbone = load_backbone(source)
    if kind == 'random':
        backbone = untrained(backbone, int(seed))
    return Backbone(backbone.vit, backbone.planes, name)


def measure(names, files, args):
    """Yield all rows; a backbone is read when its turn comes."""
    tasks, pairs = read_tasks(args)
    ready, made_for = {}, None
    for name in names:
        backbone = open_backbone(name, files)
        vit = backbone.vit
        if made_for != (backbone.planes, vit.patch_size):
            made_for = backbone.planes, vit.patch_size
            ready = {kind: task._replace(images=make_ready(
                task.images, backbone, SHOWN[kind]))
                for kind, task in tasks.items()}
            ready_pairs = list(zip(make_ready(
                [image for image, _ in pairs], backbone, None),
                [classes for _, classes in pairs]))
        backbone = Backbone(vit, Ready(vit.in_channels), backbone.name)
        for kind, task in ready.items():
            yield from probes(backbone, kind, task, args)
            if args.supervised and name == 'random#0':
                few = task.splits[:5 if kind == 'real' else 3]
                yield supervised(backbone, kind, task._replace(splits=few),
                                 args)
        if LAST not in args.tasks:
            continue
        yield segmentation(backbone, ready_pairs, args)
        if args.supervised and name == 'random#0':
            yield segmentation(backbone, ready_pairs, args, frozen=False)


def read_rows(path, last):
    """
    Rows of an earlier run, of the backbones that it was done with: they
    have the last of the tasks.
    """
    if not path.exists():
        return []
    with open(path, newline='') as stream:
        rows = list(csv.DictReader(stream))
    done = {one['backbone'] for one in rows if one['task'] == last}
    return [{**one, **{key: float(one[key]) for key in FIELDS[5:9]}}
            for one in rows if one['backbone'] in done]


def write_rows(path, rows):
    """Write the rows to another name, then rename it."""
    temporary = path.with_suffix('.part')
    with open(temporary, 'w', newline='') as stream:
        writer = csv.DictWriter(stream, FIELDS)
        writer.writeheader()
        writer.writerows({key: f'{value:.4f}' if isinstance(value, float)
                          else value for key, value in one.items()}
                         for one in rows)
    temporary.replace(path)


def by_cell(rows):
    """Rows by name, task and probe; seeds of a name are together."""
    cells = {}
    for one in rows:
        key = one['backbone'].split('#')[0], (one['task'], one['probe'])
        cells.setdefault(key, []).append(one)
    return cells


def score_of(rows, _):
    """Score, low and high of a cell: the means of its seeds."""
    return [np.mean([one[key] for one in rows])
            for key in ('score', 'low', 'high')]


def gain_of(rows, random):
    """What a cell has more than random weights, and the interval of that."""
    own, other = (np.mean([np.array(one['shares'].split(), float)
                           for one in some], axis=0)
                  for some in (rows, random))
    if rows[0]['task'] == LAST:
        return (own - other).mean(), *np.sort(own - other)[[0, -1]]
    return (np.nanmean(own - other),
            *mean_interval(own - other,
                           groups=rows[0]['groups'].split()))


def table(rows, measure, sign=''):
    """One of the two measures above in reStructuredText."""
    cells = by_cell(rows)
    names, columns = (list(dict.fromkeys(part)) for part in zip(*cells))

    def cell(name, column):
        some, random = (cells.get((key, column)) for key in (name, 'random'))
        return '{:{s}.3f} ({:{s}.3f} to {:{s}.3f})'.format(
            *measure(some, random), s=sign) if some and (
                random or not sign) else ''

    header = [f'{TITLES[task]}, {probe}' for task, probe in columns]
    return '\n'.join(list_table(['backbone', *header], [
        [name, *(cell(name, column) for column in columns)]
        for name in names if not sign or name != 'random'])) + '\n'


def real_images(args):
    """Name to image: those that were named, or three of the data folder."""
    if args.images:
        return {Path(one.split(',')[0]).stem: as_image(
            one.split(',') if ',' in one else one) for one in args.images}
    if args.data is None:
        return {}
    kids = as_image({b: args.data / f'kids_viking/{b}.fits' for b in 'griZ'})
    jwst = as_image({b: args.data / f'jwst_uds/{b.lower()}_sci.fits'
                     for b in ('F115W', 'F444W', 'F770W')})
    return {'KiDS': cutouts(kids, [(1206, 477)], 320)[0],
            'M51': as_image(args.data / 'single_band/M51.fits'),
            'JWST': cutouts(jwst, [(400, 310)], 320)[0]}


def draw(backbones, images):
    """Rows are images; columns the picture, and two for each backbone."""
    shape = len(images), 1 + 2 * len(backbones)
    figure = Figure(figsize=(2.2 * shape[1], 2.4 * shape[0]),
                    layout='constrained')
    axes = figure.subplots(*shape, squeeze=False)
    columns = {'': [rgb_image(image) for image in images.values()]}
    for backbone in backbones:
        columns[f'{backbone.name}: tokens'] = pca_rgb(
            list(patch_maps(images.values(), backbone, size=ENLARGED)))
        columns[f'{backbone.name}: attention'] = [
            attention_maps(image, backbone).mean for image in images.values()]
    for line, (title, pictures) in zip(axes.T, columns.items()):
        line[0].set_title(title, fontsize='small')
        for axis, picture in zip(line, pictures):
            axis.imshow(picture, origin='lower', interpolation='nearest')
            axis.set(xticks=[], yticks=[])
    for axis, name in zip(axes[:, 0], images):
        axis.set_ylabel(name)
    return figure


def main():
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add = parser.add_argument
    add('output', type=Path)
    add('backbones', nargs='+', metavar='NAME=FILE')
    add_data(parser)
    add('--images', nargs='*', help='FITS files; bands with commas between')
    add('--draw', nargs='*', metavar='NAME', help='in the figure; or all')
    add('--galaxies', type=int, default=100, help='of each kind')
    add('--pairs', type=int, default=40, help='scenes to segment')
    add('--seeds', type=int, default=5, help='splits of the scenes')
    add('--epochs', type=int, default=15, help='of training, where there is')
    add('--supervised', action='store_true',
        help='train the first set of random weights for each task, too')
    add('--tasks', nargs='+', choices=TITLES, default=[*TITLES],
        help='some of them; all by default')
    add('--skies', type=int, default=20,
        help='skies that the galaxies are drawn for')
    add('--repeats', type=int, default=10, help='of folds of the pictures')
    add('--random', type=int, default=2, help='sets of random weights')
    add('--what', default='both', choices=('cls', 'patch', 'both'))
    args = parser.parse_args()
    if args.skies > min(args.galaxies, args.pairs):
        parser.error(f'--skies must be at most --galaxies and --pairs, got '
                     f'{args.skies}')
    warnings.simplefilter('ignore')
    files = dict(one.split('=', 1) for one in args.backbones)
    names = [f'random#{seed}' for seed in range(args.random)] + list(files)
    for name in files.values():
        if os.sep in name and not Path(name).parent.is_dir():
            parser.error(f'no file {name}')
    args.output.mkdir(parents=True, exist_ok=True)
    last = [name for name in TITLES if name in args.tasks][-1]
    rows = read_rows(args.output / 'evidence.csv', last)
    done = {one['backbone'] for one in rows}
    todo = [name for name in names if name not in done]
    write_rows(args.output / 'evidence.csv', rows)
    for one in measure(todo, files, args) if todo else ():
        rows.append(one)
        write_rows(args.output / 'evidence.csv', rows)
        print(*[one[key] for key in FIELDS[:9]], sep=', ', flush=True)
    for name, one in (('evidence', table(rows, score_of)),
                      ('gains', table(rows, gain_of, '+'))):
        (args.output / f'{name}.rst').write_text(one)
    images = real_images(args)
    if images:      # of each name one
        first = {name.split('#')[0]: name for name in reversed(names)
                 if not args.draw or name.split('#')[0] in args.draw}
        save_figure(draw([open_backbone(name, files) for name in
                          reversed(first.values())], images),
                    args.output / 'features.png')


if __name__ == '__main__':
    main()
