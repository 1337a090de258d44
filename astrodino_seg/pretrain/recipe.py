# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Pretraining as a recipe says.
"""

from inspect import signature

import torch

from astrodino_seg.datasets import FolderImages
from astrodino_seg.model import Encoder
from astrodino_seg.pretrain.data import Mixture, ObservedScenes, ViewDataset
from astrodino_seg.pretrain.loop import pretrain
from astrodino_seg.pretrain.objectives import DINO, SimDINO
from astrodino_seg.simulate import SceneLibrary

__all__ = ['pretrain_from_config']

OBJECTIVES = {'dino': DINO, 'simdino': SimDINO}
SOURCES = ('scenes', 'folder')


def pretrain_from_config(config, out, *, progress=True):
    """
    Pretrain an encoder as a recipe says.

    Parameters
    ----------
    config : dict
        * ``model``: arguments of `~astrodino_seg.model.Encoder`.
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
    encoder : `~astrodino_seg.model.Encoder`
        The trained encoder.

    Raises
    ------
    ValueError
        If a table or key is unknown, or a value is impossible.
    OSError
        If images cannot be read, or ``out`` cannot be written to.
    """
    check_keys('config', config, ('model', 'images', 'views', 'objective',
                                  'fit'))
    fit, views = dict(config.get('fit', {})), config.get('views', {})
    threads = fit.pop('threads', torch.get_num_threads())
    check_keys('fit', fit, arguments(pretrain) - {
        'encoder', 'views', 'out', 'objective', 'source', 'progress'})
    check_keys('views', views, arguments(ViewDataset) - {
        'images', 'spec', 'n_items', 'seed'})
    if not (isinstance(threads, int) and threads > 0):
        msg = f'threads must be a positive integer, got {threads!r}'
        raise ValueError(msg)
    objective = make_objective(config.get('objective', {}))
    seed = fit.get('seed', 0)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        torch.manual_seed(seed)
        encoder = Encoder(**config.get('model', {}))
        images = make_images(config.get('images', []), seed)
        n_items = fit['n_steps'] * fit.get('batch_size', signature(
            pretrain).parameters['batch_size'].default)
        data = ViewDataset(images, encoder.preprocess, n_items, seed=seed,
                           **views)
    except KeyError as err:
        msg = f'config: fit needs {err}'
        raise ValueError(msg) from err
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


def arguments(function):
    """The names of the arguments of a function or class, a set."""
    return set(signature(function).parameters)


def check_keys(name, table, known):
    """Raise `ValueError` for a key of a table that is not known."""
    unknown = sorted(set(table) - set(known))
    if unknown:
        msg = f'{name} has unknown keys {unknown}; known are {sorted(known)}'
        raise ValueError(msg)


def take_kind(name, table, kinds):
    """Return the kind of a table, and the table without it."""
    table = dict(table)
    kind = table.pop('kind', None)
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
    kind, table = take_kind('objective', {'kind': 'dino', **table},
                            OBJECTIVES)
    check_keys('objective', table, arguments(OBJECTIVES[kind]))
    try:
        return OBJECTIVES[kind](**table)
    except TypeError as err:
        msg = f'objective: {err}'
        raise ValueError(msg) from err


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
    if not tables:
        msg = 'images: no source; give one or more tables [[images]]'
        raise ValueError(msg)
    sources, shares = [], []
    for table in tables:
        kind, table = take_kind('images', table, SOURCES)
        shares.append(table.pop('share', None))
        if kind == 'scenes':
            check_keys('images', table, arguments(SceneLibrary) - {'split'})
            source = ObservedScenes(SceneLibrary('train', **table), seed=seed)
        else:
            check_keys('images', table, arguments(FolderImages))
            source = FolderImages(**table)
        sources.append(source)
    if None in shares:
        if any(share is not None for share in shares):
            msg = 'images: all sources have a share, or none has'
            raise ValueError(msg)
        shares = None
    return Mixture(sources, shares)
