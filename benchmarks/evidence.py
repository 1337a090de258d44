# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What backbones have learned, beside one that has learned nothing.

    python benchmarks/evidence.py FOLDER NAME=FILE ... [--data FOLDER]

Each NAME=FILE is a backbone and its name in the tables; the file is what
``load_backbone`` takes, or ``bundled``. The architecture of the first, with
``--random`` sets of random weights, is the row ``random``. Measured are

- the kind of simulated galaxies, as cutouts of scenes of the validation split
  observed at survey depth;
- star, galaxy or artifact, as cutouts around objects of the same scenes;
- with ``--data`` (or the environment variable ASTRODINO_DATA), the ten classes
  of the pictures in ``galaxy_zoo_examples``, in repeated stratified folds;

each by nearest neighbours and by logistic regression of ``--what``, with 95%
confidence intervals over the sample; and linear segmentation of the same
scenes, as mIoU with its range over the splits. A scene is either in train or
in test. FOLDER gets ``evidence.csv``, ``evidence.rst``, and with real images
(``--data``, or ``--images``) ``features.png``: the principal components of
patch tokens as colours, and the mean attention of the CLS token.
"""

import argparse
import copy
import csv
import os
import warnings
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from astrodino_seg.attention import attention_maps
from astrodino_seg.backbones import Backbone, load_backbone
from astrodino_seg.cutouts import cutouts
from astrodino_seg.datasets import PictureFolder, random_split
from astrodino_seg.embed import embed
from astrodino_seg.image import as_image
from astrodino_seg.plotting import rgb_image, save_figure
from astrodino_seg.probe import (
    class_map,
    evaluate,
    fold_splits,
    linear_segmentation,
    patch_maps,
    pca_rgb,
)
from astrodino_seg.simulate import KINDS, SPLITS, make_scene, observe

MORPHOLOGIES = [kind for kind in KINDS if kind != 'central']
CLASSES = ('star', 'galaxy', 'artifact')
SCENE, SMALL = 160, 64      # pixels a side
#: What would hide the galaxy that is asked for.
NOT_LARGE = dict.fromkeys(('cosmos', 'group', 'pair', 'companion'), 0)
#: What has nothing to do with the object.
NOT_TOLD = dict.fromkeys(('missing_bands', 'gap', 'stripes'), 0)
MIN_SN = 20
FIELDS = ('backbone', 'task', 'probe', 'n', 'classes', 'score', 'std', 'low',
          'high')
TITLES = {'morphology': 'kind of galaxy', 'class': 'object class',
          'real': 'real pictures', 'segmentation': 'segmentation'}


def make_scenes():
    """Yield image and truth of scenes of the validation split, without end."""
    for seed in range(*SPLITS['validation']):
        scene = make_scene(seed, size=SCENE, band_set='griz', rates={
            **dict.fromkeys(MORPHOLOGIES, 1), **NOT_LARGE, 'large': 1.5})
        yield observe(scene, [seed, 1], depth=1.0, rates=NOT_TOLD)


def inside(objects, margin):
    """Which objects are this far from the edges."""
    return np.all([(objects[axis] >= margin) & (objects[axis] < SCENE - margin)
                   for axis in 'xy'], axis=0)


def simulated(n_each, n_pairs):
    """Images, labels and scene numbers of both tasks; pairs to segment."""
    tasks = {'morphology': [], 'class': []}
    wanted = {name: dict.fromkeys(classes, n_each) for name, classes in (
        ('morphology', MORPHOLOGIES), ('class', CLASSES))}
    pairs = []
    for k, (image, truth) in enumerate(make_scenes()):
        objects = truth.objects
        where = np.stack([objects['x'], objects['y']], axis=-1)
        good = objects['sn'] >= MIN_SN
        if len(pairs) < n_pairs:
            pairs.append((image, class_map(truth)))
        for name, label, rows in (
                ('morphology', objects['kind'],
                 good & objects['primary'] & inside(objects, SCENE / 5)),
                ('class', np.array(['', *CLASSES])[objects['cls']],
                 good & inside(objects, 3 * SMALL / 8))):
            seen = set()        # of each class one a scene
            for row in np.random.default_rng(k).permutation(
                    np.flatnonzero(rows)):
                kind = str(label[row])
                if kind in seen or not wanted[name].get(kind):
                    continue
                seen.add(kind)
                wanted[name][kind] -= 1
                one = (image if name == 'morphology' else
                       cutouts(image, where[[row]], SMALL)[0])
                tasks[name].append((one, kind, k))
        if not any(n for each in wanted.values() for n in each.values()):
            break
    return {name: tuple(zip(*items)) for name, items in tasks.items()}, pairs


def splits_by_scene(scene_of, n_seeds):
    """Rows of train and test; all of a scene are in one of the two."""
    scene_of = np.asarray(scene_of)
    scenes = np.unique(scene_of)
    out = []
    for seed in range(n_seeds):
        _, test = random_split(len(scenes), seed=seed)
        in_test = np.isin(scene_of, scenes[test])
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
    return Backbone(vit, backbone.planes, f'random#{seed}')


def probes(backbone, task, images, labels, splits, args, size):
    """Yield a row of results for each probe."""
    vectors = embed(images, backbone, what=args.what, size=size)
    good = np.isfinite(vectors).all(axis=1)
    if not good.all():
        print(f'{backbone.name}, {task}: {(~good).sum()} left out')
    kept = np.cumsum(good) - 1
    splits = [tuple(kept[part[good[part]]] for part in split)
              for split in splits]
    for probe in ('knn', 'linear'):
        result = evaluate(vectors[good], np.asarray(labels)[good],
                          protocol=probe, splits=splits)
        low, high = result.interval()
        yield {'backbone': backbone.name, 'task': task, 'probe': probe,
               'n': len(result.truth), 'classes': len(result.classes),
               'score': result.accuracy, 'std': result.std, 'low': low,
               'high': high}


def segmentation(backbone, pairs, args):
    """A row of results: mIoU of each split."""
    scores = []
    for seed in range(args.seeds):
        train, test = random_split(len(pairs), seed=seed)
        scores.append(linear_segmentation(
            [pairs[k] for k in train], [pairs[k] for k in test], backbone,
            seed=seed).miou)
    return {'backbone': backbone.name, 'task': 'segmentation',
            'probe': 'linear', 'n': len(pairs), 'classes': 4,
            'score': np.mean(scores),
            'std': np.std(scores, ddof=1) if len(scores) > 1 else np.nan,
            'low': np.min(scores), 'high': np.max(scores)}


def measure(backbones, args):
    """Yield all rows."""
    tasks, pairs = simulated(args.galaxies, args.pairs)
    zoo = args.data and args.data / 'galaxy_zoo_examples'
    for backbone in backbones:
        for name, (images, labels, scene_of) in tasks.items():
            yield from probes(backbone, name, images, labels,
                              splits_by_scene(scene_of, args.seeds), args,
                              None)
        yield segmentation(backbone, pairs, args)
        if zoo and zoo.is_dir():
            pictures = PictureFolder(zoo)
            splits = fold_splits(pictures.labels, n_repeats=args.repeats)
            yield from probes(backbone, 'real', pictures, pictures.labels,
                              splits, args, 224)


def table(rows):
    """The results in reStructuredText; sets of random weights are one row."""
    columns = list(dict.fromkeys((row['task'], row['probe']) for row in rows))
    names = list(dict.fromkeys(row['backbone'].split('#')[0] for row in rows))
    lines = ['.. list-table::', '   :header-rows: 1', '', '   * - backbone']
    lines += [f'     - {TITLES[task]}, {probe}' for task, probe in columns]
    for name in names:
        lines.append(f'   * - {name}')
        for column in columns:
            some = [row for row in rows
                    if row['backbone'].split('#')[0] == name
                    and (row['task'], row['probe']) == column]
            score = np.mean([row['score'] for row in some])
            low, high = (np.mean([row[key] for row in some])
                         for key in ('low', 'high'))
            lines.append(f'     - {score:.3f} ({low:.3f} to {high:.3f})')
    return '\n'.join(lines) + '\n'


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
            list(patch_maps(images.values(), backbone)))
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
    add('--data', type=Path, default=os.environ.get('ASTRODINO_DATA'))
    add('--images', nargs='*', help='FITS files; bands with commas between')
    add('--galaxies', type=int, default=100, help='of each kind')
    add('--pairs', type=int, default=100, help='scenes to segment')
    add('--seeds', type=int, default=5, help='splits of the scenes')
    add('--repeats', type=int, default=10, help='of folds of the pictures')
    add('--random', type=int, default=2, help='sets of random weights')
    add('--what', default='both', choices=('cls', 'patch', 'both'))
    args = parser.parse_args()
    warnings.simplefilter('ignore')
    trained = []
    for one in args.backbones:
        name, _, path = one.partition('=')
        one = load_backbone(None if path == 'bundled' else path)
        trained.append(Backbone(one.vit, one.planes, name))
    backbones = [untrained(trained[0], seed) for seed in range(args.random)]
    backbones += trained
    args.output.mkdir(parents=True, exist_ok=True)
    rows = []
    with open(args.output / 'evidence.csv', 'w', newline='') as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        for row in measure(backbones, args):
            writer.writerow({key: f'{value:.4f}' if isinstance(
                value, float) else value for key, value in row.items()})
            file.flush()
            rows.append(row)
            print(', '.join(f'{key} {row[key]:.3f}' if isinstance(
                row[key], float) else str(row[key]) for key in FIELDS),
                flush=True)
    (args.output / 'evidence.rst').write_text(table(rows))
    images = real_images(args)
    if images:
        first = 1 if args.random else 0
        save_figure(draw(backbones[:first] + trained, images),
                    args.output / 'features.png')


if __name__ == '__main__':
    main()
