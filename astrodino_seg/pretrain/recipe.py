# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Pretraining as a recipe says.
"""

from inspect import signature

import torch

from astrodino_seg.datasets import FolderImages
from astrodino_seg.inputs.channels import PreprocessSpec
from astrodino_seg.models.load import Encoder
from astrodino_seg.pretrain.checks import check_counts, check_table
from astrodino_seg.pretrain.data import Mixture, ObservedScenes, ViewDataset
from astrodino_seg.pretrain.loop import pretrain
from astrodino_seg.pretrain.objectives import DINO, SimDINO
from astrodino_seg.simulate import SceneLibrary

__all__ = ['pretrain_from_config']

OBJECTIVES = {'dino': DINO, 'simdino': SimDINO}
SOURCES = ('scenes', 'folder')
SIZES = ('patch_size', 'dim', 'depth', 'n_heads')
TABLES = ('model', 'images', 'views', 'objective', 'fit')


def pretrain_from_config(config, out, *, progress=True):
    """
    Pretrain an encoder as a recipe says.

    Parameters
    ----------
    config : dict
        * ``model``: arguments of `~astrodino_seg.models.load.Encoder`.
        * ``images``: a list of tables, each with a ``kind``. The kind
          ``'scenes'`` takes arguments of
          `~astrodino_seg.simulate.SceneLibrary`, the split being ``'train'``;
          ``'folder'`` those of `~astrodino_seg.datasets.FolderImages`. If one
          has a ``share`` of the items, all have.
        * ``views``: arguments of
          `~astrodino_seg.pretrain.data.ViewDataset` but the images, the
          preprocessing, their number and the seed.
        * ``objective``: a ``kind``, ``'dino'`` or ``'simdino'``, and arguments
          of `~astrodino_seg.pretrain.objectives.DINO` or
          `~astrodino_seg.pretrain.objectives.SimDINO`.
        * ``fit``: arguments of `~astrodino_seg.pretrain.pretrain`, and
          ``threads``.

        See ``recipes`` beside this module.
    out : path-like
        Folder for checkpoint, log and weights.
    progress : bool, optional
        Whether to show a progress bar.

    Returns
    -------
    encoder : `~astrodino_seg.models.load.Encoder`
        The trained encoder.

    Raises
    ------
    ValueError
        If a table or key is unknown, or a value is impossible.
    OSError
        If images cannot be read, or ``out`` cannot be written to.
    """
    unknown = sorted(set(config) - set(TABLES))
    if unknown:
        msg = f'config has unknown keys {unknown}; known are {list(TABLES)}'
        raise ValueError(msg)
    fit, views = config.get('fit', {}), config.get('views', {})
    check_table('fit', fit, pretrain, extra=['threads'], without=[
        'encoder', 'views', 'out', 'objective', 'source', 'progress'])
    check_table('views', views, ViewDataset,
                without=['images', 'spec', 'n_items', 'seed'])
    fit = {'batch_size': signature(pretrain).parameters['batch_size'].default,
           'threads': torch.get_num_threads(), 'n_steps': None, **fit}
    check_counts(**{name: fit[name] for name in (
        'n_steps', 'batch_size', 'threads')})
    objective = make_objective(config.get('objective', {}))
    threads, seed = fit.pop('threads'), fit.get('seed', 0)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        torch.manual_seed(seed)
        encoder = make_encoder(config.get('model', {}))
        images = make_images(config.get('images', []), seed)
        data = ViewDataset(images, encoder.preprocess,
                           fit['n_steps'] * fit['batch_size'], seed=seed,
                           **views)
    except TypeError as err:
        msg = f'config: {err}'
        raise ValueError(msg) from err
    else:
        return pretrain(
            encoder, data, out=out, objective=objective, progress=progress,
            source={'images': config['images'], 'n_images': len(images),
                    'views': views}, **fit)
    finally:
        torch.set_num_threads(before)


def make_encoder(table):
    """
    Make the encoder, with random weights.

    Parameters
    ----------
    table : dict
        The recipe's; the default one if empty.

    Returns
    -------
    encoder : `~astrodino_seg.models.load.Encoder`
        The encoder.

    Raises
    ------
    ValueError
        If a key is unknown or a value impossible.
    """
    check_table('model', table, Encoder, without=['provenance'])
    vit, preprocess = table.get('vit', {}), table.get('preprocess', {})
    check_table('model.preprocess', preprocess, PreprocessSpec)
    check_counts(**{name: vit[name] for name in SIZES if name in vit})
    return Encoder(**table)


def take_kind(name, table, kinds, default=None):
    """Return the kind of a table, and the table without it."""
    if not isinstance(table, dict):
        msg = f'{name} must be a table, got {table!r}'
        raise ValueError(msg)
    table = dict(table)
    kind = table.pop('kind', default)
    if kind not in kinds:
        msg = f'{name}: kind must be one of {sorted(kinds)}, got {kind!r}'
        raise ValueError(msg)
    return kind, table


def make_objective(table):
    """
    Make the objective.

    Parameters
    ----------
    table : dict
        The recipe's table; DINO with its defaults if empty.

    Returns
    -------
    objective : `~torch.nn.Module`
        One of `OBJECTIVES`.

    Raises
    ------
    ValueError
        If a key is unknown or a value impossible.
    """
    kind, table = take_kind('objective', table, OBJECTIVES, 'dino')
    check_table('objective', table, OBJECTIVES[kind])
    return OBJECTIVES[kind](**table)


def make_images(tables, seed):
    """
    Open the sources of images.

    Parameters
    ----------
    tables : list of dict
        The recipe's.
    seed : int
        Seed of the noise of simulated scenes.

    Returns
    -------
    images : sequence of `~astrodino_seg.Image`
        The images of all sources.

    Raises
    ------
    ValueError
        If there is no source, a key is unknown or a value impossible.
    """
    if not (tables and isinstance(tables, list)):
        msg = 'images: no source; give one or more tables [[images]]'
        raise ValueError(msg)
    sources, shares = [], []
    for table in tables:
        kind, table = take_kind('images', table, SOURCES)
        shares.append(table.pop('share', None))
        if not isinstance(shares[-1], (float, int, type(None))):
            msg = f'images: share must be a number, got {shares[-1]!r}'
            raise ValueError(msg)
        if kind == 'scenes':
            check_table('images', table, SceneLibrary, without=['split'])
            source = ObservedScenes(SceneLibrary('train', **table), seed=seed)
        else:
            check_table('images', table, FolderImages)
            source = FolderImages(**table)
        sources.append(source)
    if None in shares:
        if any(share is not None for share in shares):
            msg = 'images: all sources have a share, or none has'
            raise ValueError(msg)
        shares = None
    return Mixture(sources, shares)
