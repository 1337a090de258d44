# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The morphology probe of the AstroDINO study, as one preset.
"""

from astrodino_seg.embed.embed import embed
from astrodino_seg.embed.probe.result import evaluate
from astrodino_seg.embed.probe.splits import encode_labels, seed_splits

__all__ = ['STUDY', 'run_study']

#: The numbers of the study; Adam's rate is its default.
STUDY = {'what': 'cls', 'size': 224, 'test_fraction': 0.2, 'hidden': 256,
         'n_epochs': 30, 'batch_size': 64, 'rate': 1e-3}


def run_study(images, labels, backbone=None, *, classes=None, n_seeds=5,
              seed=0, **options):
    """
    Classify images as the study does.

    Images are resized to 224 pixels and normalised as the backbone has it:
    with ImageNet's statistics if it was trained on photographs, in units of
    the noise if it is one of ours. The CLS token of the frozen network (384
    numbers of a ViT-S, 1024 of a ViT-L) is the input of a network of one
    hidden layer of 256 ReLU units, trained on 80% of the sample by Adam and
    cross-entropy in 30 epochs of batches of 64, and tested on 20%.

    Parameters
    ----------
    images : sequence
        As of `~astrodino_seg.embed.embed.embed`, for example
        `~astrodino_seg.datasets.Galaxy10`.
    labels : array_like
        (n,) classes.
    backbone : `~astrodino_seg.models.backbone.Backbone`, str or path, optional
        As of `~astrodino_seg.embed.embed.embed`.
    classes : sequence of str, optional
        The classes.
    n_seeds, seed : int, optional
        Number of splits, each trained with a seed of its own, and the first
        seed. The study has one.
    **options
        Of `~astrodino_seg.embed.embed.embed`: ``n_workers``, ``progress_bar``, and
        ``batch_size``, the images at a time, which changes nothing else.

    Returns
    -------
    result : `ProbeResult`
        What was predicted.
    vectors : `~numpy.ndarray`
        (n, d) the embeddings, as for `tsne`.

    Raises
    ------
    ValueError
        As of `~astrodino_seg.embed.embed.embed` and `evaluate`.
    """
    encode_labels(labels, classes)      # a bad label is told first
    vectors = embed(images, backbone, what=STUDY['what'], size=STUDY['size'],
                    **options)
    splits = seed_splits(len(vectors), n_seeds=n_seeds, seed=seed,
                         test_fraction=STUDY['test_fraction'])
    network = {key: STUDY[key] for key in
               ('hidden', 'n_epochs', 'batch_size', 'rate')}
    result = evaluate(vectors, labels, protocol='mlp', splits=splits,
                      classes=classes, seed=seed, **network)
    return result, vectors
