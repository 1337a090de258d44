# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Quality on the validation split for the seed limit and the merge dial.

    python benchmarks/tune_segmenter.py [--scenes 30] [--model FILE]

The dense maps of each scene are made once; with ``--true-seeds`` the seeds
are the true centres, which tells errors of the masks from those of the seeds.
"""

import argparse
import itertools

import numpy as np
import torch

from astrodino_seg.benchmark import split_scene
from astrodino_seg.grouping import segment_maps
from astrodino_seg.inference import predict_maps
from astrodino_seg.model import load_model
from astrodino_seg.prediction import WEAK_HEAT, read_prediction, seeds_of
from astrodino_seg.score_tables import summary
from astrodino_seg.scores import scene_scores
from astrodino_seg.simulate import SceneLibrary

COLUMNS = ('pq', 'f1', 'ok', 'frag', 'n_fragments', 'contam', 'lost', 'sep')
MIN_SEED = (0.15, 0.2, 0.25, 0.3, 0.4)
MERGE = (0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.85, 0.9, 0.95)


def main():
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--scenes', type=int, default=30)
    parser.add_argument('--model')
    parser.add_argument('--cache', help='folder for rendered scenes')
    parser.add_argument('--true-seeds', action='store_true')
    args = parser.parse_args()
    model = load_model(args.model).fused()
    settings = list(itertools.product(MIN_SEED, MERGE))
    if args.true_seeds:
        settings = [(0.0, 0.0)]
    results = {one: [] for one in settings}
    library = SceneLibrary('validation', args.scenes, path=args.cache)
    for k in range(args.scenes):
        image, truth = split_scene(library, k)
        channels = model.planes(image)
        with torch.inference_mode():
            maps = predict_maps(model, channels)
            if args.true_seeds:
                o = truth.objects
                seeds = [torch.tensor(np.clip(v, 0, n - 1.0)).float()
                         for v, n in ((o['x'], image.shape[1]),
                                      (o['y'], image.shape[0]))]
                seeds.append(torch.ones(len(o['x'])))
            else:
                seeds = seeds_of(maps, WEAK_HEAT)
            prediction = read_prediction(model, maps, channels, *seeds)
        for limit, merge in settings:
            labels = segment_maps(prediction, merge=merge,
                                  min_seed=limit).groups
            results[limit, merge].append(scene_scores(truth, labels, image))
    print('min_seed merge ' + ' '.join(COLUMNS))
    for (limit, merge), scenes in results.items():
        value = summary(scenes)
        print(limit, merge, ' '.join(f'{value[k]:.3f}' for k in COLUMNS))


if __name__ == '__main__':
    main()
