# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
How many objects change where nothing has changed but the way of looking.

    python -m benchmarks.trust.stability [--scenes 8] [--crops 4]
        [--data FOLDER] [--output FOLDER]

Scenes of the validation split, and with the folder of the real images crops of
its KiDS field, are segmented as they are; shifted, which is cut at two edges;
flipped and turned; in other tiles and by two threads; as ``symmetric`` of the
segmenter too, and by tuned photutils. Objects are counted once for each look.
An object is changed if no label has an IoU of 0.9 with it, and lost if none
has one of 0.1; PQ is that of the changed answer, where the answer to the
untouched image is the truth. Objects that touch the edge of what both show are
void. Errors are of bootstraps of the scenes, or of the crops.
"""

import argparse
import time
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from astrodino_seg.evaluate.baselines import FINDERS
from astrodino_seg.evaluate.benchmark import split_scene
from astrodino_seg.evaluate.matching import Overlap, match_labels
from astrodino_seg.evaluate.tables import bootstrap, list_table, plus_minus
from astrodino_seg.image import as_image
from astrodino_seg.image.sources import cut_out
from astrodino_seg.segmenter import DinoSegmenter
from astrodino_seg.simulate import SceneLibrary
from benchmarks.common import add_data, fields

SIDE = 512
TILE = 192
#: What is done to the last two axes of images and of labels.
CHANGES = {
    'shift (5, 7)': [lambda one: one[..., 5:, 7:]],
    'shift (16, 16)': [lambda one: one[..., 16:, 16:]],
    'flips': [partial(np.flip, axis=axis) for axis in (-2, -1)],
    'quarter turns': [partial(np.rot90, k=k, axes=(-2, -1)) for k in (1, 3)]}
TILED, THREADED = f'tiles of {TILE} pixels', 'two threads'
COLUMNS = ('changed', 'lost', 'PQ')


def turned(image, turn):
    """An image after a change of its pixels' places."""
    arrays = {name: np.ascontiguousarray(turn(getattr(image, name)))
              for name in ('cube', 'mask', 'noise')
              if getattr(image, name) is not None}
    return replace(image, wcs=None, **arrays)


def labels_of(finder, image):
    """Labels (y, x) of an image."""
    found = finder(image)
    return np.zeros(image.shape, int) if found is None else found.data


def compare(own, other):
    """What became of objects: two label maps (y, x) of the same sky."""
    edges = np.unique([*own[0], *own[-1], *own[:, 0], *own[:, -1]])
    own = np.where(np.isin(own, edges[edges > 0]), -1, own)
    overlap, match = Overlap(own, other), match_labels(own, other)
    truth, _, _, iou = overlap.pairs()
    best = np.zeros(overlap.shape[0])
    np.maximum.at(best, truth, iou)
    return {'best': best[overlap.objects()], 'matched': match.iou,
            'n_predicted': match.n_predicted}


def looks(image, tool):
    """Yield change and `compare` of an image."""
    own = labels_of(tool, image)
    for change, turns in CHANGES.items():
        for turn in turns:
            yield change, compare(turn(own), labels_of(
                tool, turned(image, turn)))
    if isinstance(tool, DinoSegmenter):
        tool.tile_size, before = TILE, tool.tile_size
        yield TILED, compare(own, labels_of(tool, image))
        tool.tile_size = before
        torch.set_num_threads(2)
        yield THREADED, compare(own, labels_of(tool, image))
        torch.set_num_threads(1)


def statistic(scenes):
    """Shares of objects, and PQ, of some scenes' comparisons."""
    best, matched = (np.concatenate([one[key] for some in scenes
                                     for one in some])
                     for key in ('best', 'matched'))
    n_predicted = sum(one['n_predicted'] for some in scenes for one in some)
    return dict(zip(COLUMNS, (
        float(np.mean(best < 0.9)), float(np.mean(best < 0.1)),
        2 * matched.sum() / max(len(best) + n_predicted, 1))))


def table(title, images, tools):
    """Lines of a table in reStructuredText."""
    found, seconds = {}, dict.fromkeys(tools, 0)
    for image in images:
        for name, tool in tools.items():
            scene, start = {}, time.process_time()
            for change, one in looks(image, tool):
                scene.setdefault(change, []).append(one)
            n_looks = 1 + sum(map(len, scene.values()))
            seconds[name] += (time.process_time() - start) / n_looks
            for change, some in scene.items():
                found.setdefault((change, name), []).append(some)
    rows = []
    for change, name in sorted(found, key=lambda one: [
            *CHANGES, TILED, THREADED].index(one[0])):
        scenes = found[change, name]
        values, ends = statistic(scenes), bootstrap(scenes, statistic)
        rows.append([change, name, str(sum(len(one['best']) for some in scenes
                                           for one in some)),
                     *(plus_minus(values[key], *ends[key])
                       for key in COLUMNS)])
    taken = ', '.join(f'{name} {one / len(scenes):.1f} s'
                      for name, one in seconds.items())
    return [f'{title} of {SIDE} x {SIDE} pixels: {len(scenes)}. Time of the '
            f'processor for a look: {taken}.', '',
            *list_table(['change', 'finder', 'objects', *COLUMNS], rows)]


def crops(folder, n):
    """Yield images of the middle of the KiDS field."""
    source = fields(folder)['kids_griZ'][0]
    for k in range(n):
        y, x = (SIDE // 2 + SIDE * one for one in divmod(k, 2))
        yield as_image(cut_out(source, (slice(y, y + SIDE),
                                        slice(x, x + SIDE))))


def main():
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add_data(parser)
    parser.add_argument('--scenes', type=int, default=8)
    parser.add_argument('--crops', type=int, default=4)
    parser.add_argument('--model')
    parser.add_argument('--output', type=Path, help='folder of the table')
    args = parser.parse_args()
    warnings.simplefilter('ignore')
    torch.set_num_threads(1)
    tools = {'``DinoSegmenter``': DinoSegmenter(model=args.model),
             '``symmetric=True``': DinoSegmenter(model=args.model,
                                                 symmetric=True),
             'photutils, tuned': FINDERS['photutils-tuned']()}
    library = SceneLibrary('validation', args.scenes)
    lines = table('Scenes', (split_scene(library, k)[0]
                             for k in range(args.scenes)), tools)
    if args.data:
        lines += ['', *table('Crops of the KiDS field',
                             crops(args.data, args.crops), tools)]
    print('\n'.join(lines))
    if args.output:
        args.output.mkdir(parents=True, exist_ok=True)
        (args.output / 'stability.txt').write_text('\n'.join(lines) + '\n')


if __name__ == '__main__':
    main()
