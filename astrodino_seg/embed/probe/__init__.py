# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What a backbone has learned: classes told from frozen embeddings, from patch
tokens, and by networks that are trained for it. Needs scikit-learn (extra
``probe``) but for the last two.
"""

from astrodino_seg.embed.probe.classifiers import PROTOCOLS, knn, linear, mlp
from astrodino_seg.embed.probe.dense import (
    SegmentationScore,
    class_map,
    intersection_over_union,
    linear_segmentation,
    patch_maps,
    pca_rgb,
)
from astrodino_seg.embed.probe.figures import plot_confusion, plot_tsne, tsne
from astrodino_seg.embed.probe.networks import (
    BASELINES,
    FineTuned,
    evaluate_network,
    make_baseline,
)
from astrodino_seg.embed.probe.result import (
    ProbeResult,
    evaluate,
    mean_interval,
)
from astrodino_seg.embed.probe.splits import (
    encode_labels,
    fold_splits,
    seed_splits,
)
from astrodino_seg.embed.probe.study import STUDY, run_study

__all__ = ['BASELINES', 'PROTOCOLS', 'STUDY', 'FineTuned', 'ProbeResult',
           'SegmentationScore', 'class_map', 'encode_labels', 'evaluate',
           'evaluate_network', 'fold_splits', 'intersection_over_union',
           'knn', 'linear', 'linear_segmentation', 'make_baseline',
           'mean_interval', 'mlp', 'patch_maps', 'pca_rgb', 'plot_confusion',
           'plot_tsne', 'run_study', 'seed_splits', 'tsne']
