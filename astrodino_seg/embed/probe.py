# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What a backbone has learned: classes told from frozen embeddings, and by
networks that are trained for them: a backbone, fine-tuned, and the supervised
baselines of timm.
"""

import copy
from functools import partial

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from astrodino_seg.embed.classifiers import (
    PROTOCOLS,
    ProbeResult,
    encode_labels,
    fit,
    labelled_splits,
    seed_splits,
)
from astrodino_seg.embed.dense import Inputs
from astrodino_seg.embed.embedding import embed
from astrodino_seg.embed.vectors import vectors_of
from astrodino_seg.errors import require
from astrodino_seg.inputs.rules import Photographic
from astrodino_seg.models.load import load_backbone

#: The numbers of the AstroDINO study; Adam's rate is its default.
STUDY = {'what': 'cls', 'size': 224, 'test_fraction': 0.2, 'hidden': 256,
         'n_epochs': 30, 'batch_size': 64, 'rate': 1e-3}
#: Names of timm.
BASELINES = ('efficientnet_b0', 'convnext_nano', 'resnet18', 'densenet121')
RATES = {'finetune': 1e-4}
RATE = 1e-3     # of the others, whose weights may be random


def evaluate(vectors, labels, *, protocol='mlp', splits=None, classes=None,
             seed=0, **options):
    """
    Train a probe on one part of a sample and test it on the other.

    The defaults are the study's: see `STUDY`.

    Parameters
    ----------
    vectors : array_like or `~astropy.table.Table`
        (n, d), or a table with a column ``embedding``.
    labels : array_like
        (n,) names or numbers of classes; see `encode_labels`.
    protocol : {'mlp', 'knn', 'linear'}, optional
        The probe.
    splits : sequence of tuple, optional
        Indices of train and test, as of `seed_splits` and `fold_splits`;
        five random ones of 80% and 20% if `None`.
    classes : sequence of str, optional
        The classes.
    seed : int, optional
        The k-th split is trained with this seed plus k.
    **options
        Of the probe: `mlp`, `knn` or `linear`.

    Returns
    -------
    result : `ProbeResult`
        What was predicted.

    Raises
    ------
    ValueError
        If rows have no vector, labels are outside the classes, or splits do
        not fit.
    ImportError
        If the probe needs scikit-learn and that cannot be imported.
    """
    if protocol not in PROTOCOLS:
        msg = f'protocol must be one of {list(PROTOCOLS)}, got {protocol!r}'
        raise ValueError(msg)
    vectors, good = vectors_of(vectors)
    if not good.all():
        msg = (f'vectors: {(~good).sum()} of {len(good)} rows have none, the '
               f'first is {np.flatnonzero(~good)[0]}; leave them out')
        raise ValueError(msg)
    truth, classes, splits = labelled_splits(labels, len(vectors), 'vectors',
                                             classes, splits, seed)
    predictions = [np.asarray(PROTOCOLS[protocol](
        vectors[train], truth[train], vectors[test],
        n_classes=len(classes), seed=seed + k, **options))
        for k, (train, test) in enumerate(splits)]
    return ProbeResult(protocol, classes, truth, splits, predictions)


def run_study(images, labels, backbone=None, *, classes=None, n_seeds=5,
              seed=0, **options):
    """
    Classify images as the study does, with ``n_seeds`` splits, each trained
    with a seed of its own; ``options`` are of `embed`. Gives a `ProbeResult`,
    and the (n, d) vectors.
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


def tsne(vectors, *, perplexity=30.0, seed=0):
    """
    Place vectors (n, d) in a plane, (n, 2) (van der Maaten & Hinton 2008).
    """
    vectors, good = vectors_of(vectors)
    if len(vectors) < 4 or not good.all():
        msg = (f'vectors: t-SNE needs 4 rows or more that all have one, got '
               f'{good.sum()} of {len(good)}')
        raise ValueError(msg)
    manifold = require('sklearn.manifold', 'probe')
    return manifold.TSNE(
        perplexity=min(perplexity, (len(vectors) - 1) / 3), init='pca',
        random_state=seed).fit_transform(vectors)


class FineTuned(nn.Module):
    """A copy of a Vision Transformer, and a linear layer on its CLS token."""

    def __init__(self, vit, n_classes):
        super().__init__()
        self.vit = copy.deepcopy(vit).requires_grad_(True)
        self.out = nn.Linear(vit.dim, n_classes)

    def forward(self, x):
        """Logits (B, class) of (B, plane, y, x)."""
        return self.out(self.vit.forward_features(x).cls)


def make_baseline(name, n_classes, *, pretrained=False):
    """A supervised baseline of timm."""
    timm = require('timm')
    return timm.create_model(name, pretrained=pretrained,
                             num_classes=n_classes)


def evaluate_network(images, labels, network='finetune', *, backbone=None,
                     pretrained=False, splits=None, classes=None, size=224,
                     n_epochs=30, batch_size=64, rate=None, augment=True,
                     n_workers=0, device='cpu', seed=0, progress_bar=False):
    """
    Train a network on images with labels, and test it.

    Parameters
    ----------
    images : sequence
        As of `~astrodino_seg.embed.embed`.
    labels : array_like
        (n,) classes.
    network : str, optional
        ``'finetune'`` trains all of the backbone and a linear layer; others
        are names as of `make_baseline`, which see the images as photographs
        (`~astrodino_seg.inputs.rules.Photographic`).
    backbone : `~astrodino_seg.models.Backbone`, str or path, optional
        What to fine-tune; ignored for the others.
    pretrained : bool, optional
        As of `make_baseline`; ignored by ``'finetune'``.
    splits, classes, seed
        As of `evaluate`.
    size : int, optional
        Side that images are resized to.
    n_epochs, batch_size : int, optional
        Passes through the sample, and images a step.
    rate : float, optional
        Of Adam; 1e-4 to fine-tune and 1e-3 else if `None`.
    augment : bool, optional
        Whether training images are turned by right angles and mirrored.
    n_workers : int, optional
        Processes that read and prepare images.
    device : str, optional
        Where to train.
    progress_bar : bool, optional
        Whether to show one for each split.

    Returns
    -------
    result : `ProbeResult`
        What was predicted.

    Raises
    ------
    ValueError
        If there is nothing in an image, or as of `evaluate`.
    ImportError
        If a baseline needs timm and that cannot be imported.
    """
    truth, classes, splits = labelled_splits(labels, len(images), 'images',
                                             classes, splits, seed)
    if network == 'finetune':
        backbone = load_backbone(backbone)
        inputs = Inputs(images, backbone.planes, size=size,
                        patch_size=backbone.vit.patch_size)
        make = partial(FineTuned, backbone.vit, len(classes))
    else:
        inputs = Inputs(images, Photographic(), size=size)
        make = partial(make_baseline, network, len(classes),
                       pretrained=pretrained)
    loader = partial(DataLoader, batch_size=batch_size, num_workers=n_workers)
    predictions = []
    for k, (train, test) in enumerate(splits):
        with torch.random.fork_rng():
            torch.manual_seed(seed + k)
            model = make().to(device)
            # a last batch of one image has no variance to normalise with
            batches = loader(_Labelled(inputs, truth, train, augment),
                             shuffle=True,
                             drop_last=len(train) > batch_size)
            epochs = tqdm(range(n_epochs), disable=not progress_bar,
                          desc=f'{network}, split {k + 1} of {len(splits)}')
            fit(model, (_on(batches, device) for _ in epochs),
                rate=rate or RATES.get(network, RATE))
        batches = loader(_Labelled(inputs, truth, test, False))
        with torch.inference_mode():
            predictions.append(np.concatenate([
                model(x).argmax(dim=1).cpu().numpy()
                for x, _ in _on(batches, device)]))
    return ProbeResult(network, classes, truth, splits, predictions)


def _on(batches, device):
    return ((x.to(device), y.to(device)) for x, y in batches)


class _Labelled(Dataset):
    """Inputs with their labels; some of them."""

    def __init__(self, inputs, truth, rows, augment):
        self.inputs, self.truth = inputs, torch.from_numpy(truth)
        self.rows, self.augment = rows, augment

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, k):
        i = int(self.rows[k])
        x = self.inputs[i].x
        if x is None:
            msg = f'images[{i}]: there is nothing in it'
            raise ValueError(msg)
        if self.augment:
            turns = int(torch.randint(8, ()))
            x = torch.rot90(x, turns % 4, (1, 2))
            x = x.flip(2) if turns > 3 else x
        return x, self.truth[i]
