# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Training and pretraining as a recipe says.
"""

import os
from collections.abc import Mapping
from inspect import signature
from pathlib import Path

import torch
from astropy.table import Table

from astrodino_seg.datasets import FolderImages
from astrodino_seg.image import read_label_map
from astrodino_seg.inputs.channels import PreprocessSpec
from astrodino_seg.inputs.rules import NoiseUnits
from astrodino_seg.models.backbone import load_backbone
from astrodino_seg.models.head import InstanceHead
from astrodino_seg.models.load import Encoder, Model, load_model
from astrodino_seg.models.semantic import HEADS, SemanticModel
from astrodino_seg.simulate import SceneLibrary
from astrodino_seg.train.decision import HELD, fit_decision
from astrodino_seg.train.images import Mixture, ObservedScenes
from astrodino_seg.train.labelled import as_labelled
from astrodino_seg.train.methods import DINO, SimDINO
from astrodino_seg.train.ssl import check_counts, check_table, pretrain
from astrodino_seg.train.supervised import fit_head, fit_model
from astrodino_seg.train.views import ViewDataset

__all__ = ['pretrain_from_config', 'train_from_config']

#: Name of the head that is not one of `~astrodino_seg.models.semantic.HEADS`.
GROUPING = 'grouping'
TABLES = ('model', 'scenes', 'images', 'fit', 'head', 'decision')


def train_from_config(config, out):
    """
    Train a model as a recipe says.

    Parameters
    ----------
    config : dict
        * ``model``: see `make_model`.
        * ``scenes``: ``n_scenes``, ``size``, ``path``, ``stamps`` and
          ``rates`` of `~astrodino_seg.simulate.SceneLibrary`; or
        * ``images``: a list of tables, see `make_images`.
        * ``fit``: arguments of `fit_model`, to train all of a model, and
          ``threads``; or
        * ``head``: those of `~astrodino_seg.train.fit_head`, to adapt one or
          to train a semantic head, and ``threads``. In both, ``teacher`` is
          a bundled model's name or a file.
        * ``decision``: arguments of `~astrodino_seg.train.fit_decision`,
          which then comes last, for a `~astrodino_seg.Model`.

        See ``recipes`` beside this module.
    out : path-like
        Folder for checkpoint, log and weights.

    Returns
    -------
    model : Model or SemanticModel
        The trained model.

    Raises
    ------
    ValueError
        If a table or key is unknown, or a value is impossible.
    """
    _check_tables(config)
    name = 'head' if 'head' in config else 'fit'
    fit = dict(config.get(name, {}))
    threads = fit.pop('threads', torch.get_num_threads())
    _check_keys(name, fit, fit_model, *([fit_head] if name == 'head' else []))
    before = torch.get_num_threads()
    try:
        torch.manual_seed(fit.get('seed', 0))
        model = make_model(config.get('model', {}))
        data = (make_images(config['images']) if 'images' in config
                else SceneLibrary('train', **config['scenes']))
        if 'teacher' in fit:
            fit['teacher'] = load_model(fit['teacher'])
        if name == 'fit':
            n_steps = fit.pop('n_steps')
    except (KeyError, TypeError) as err:
        msg = f'config: {err}'
        raise ValueError(msg) from err
    if 'decision' in config:
        fit['decision'] = _check_decision(config['decision'], model, data)
    torch.set_num_threads(threads)
    try:
        if name == 'head':
            return fit_head(model, data, out=out, **fit)
        return fit_model(model, data, out=out, n_steps=n_steps, **fit)
    finally:
        torch.set_num_threads(before)


def make_model(table):
    """Make the model of a recipe."""
    table = dict(table)
    if 'start' in table:
        start = table.pop('start')
        if table:
            msg = f'config: model has start={start!r} and {sorted(table)} too'
            raise ValueError(msg)
        return load_model(start)
    head = _read_head(table)
    if 'backbone' not in table:
        if head in HEADS:
            msg = f'config: head={head!r} needs a backbone'
            raise ValueError(msg)
        return Model(**table)
    path = os.fspath(table.pop('backbone'))
    backbone = load_backbone(path)
    if head in HEADS:
        return SemanticModel.from_backbone(backbone, **table)
    own = {'vit', 'planes'}
    if isinstance(backbone.planes, NoiseUnits):
        own.add('preprocess')
    given = sorted(own & set(table))
    if given:
        msg = (f'config: model has {given}, which are those of backbone='
               f'{path!r}')
        raise ValueError(msg)
    return Model.from_backbone(backbone, **table)


def _read_head(table):
    """The name of the head; that of the grouping head leaves the table."""
    head = table.get('head', {})
    if isinstance(head, Mapping):
        _check_keys('model.head', head, InstanceHead)
        return GROUPING
    if head not in (GROUPING, *HEADS):
        msg = (f'config: head must be one of {[GROUPING, *HEADS]} or a table, '
               f'got {head!r}')
        raise ValueError(msg)
    if head == GROUPING:
        del table['head']
    return head


def make_images(tables):
    """Read the labelled images of a recipe."""
    images = []
    for k, table in enumerate(tables):
        _check_keys(f'images[{k}]', table, as_labelled)
        table = dict(table)
        if 'void' in table:
            table['void'] = read_label_map(table['void']) != 0
        classes = table.get('classes')
        if isinstance(classes, str) and Path(classes).is_file():
            table['classes'] = Table.read(classes)
        try:
            images.append(as_labelled(**table))
        except (TypeError, ValueError) as err:
            msg = f'images[{k}]: {err}'
            raise ValueError(msg) from err
    return images


def _check_tables(config):
    unknown = sorted(set(config) - set(TABLES))
    if unknown:
        msg = (f'config has unknown tables {unknown}; known are '
               f'{sorted(TABLES)}')
        raise ValueError(msg)
    for one, other in (('scenes', 'images'), ('fit', 'head')):
        if one in config and other in config:
            msg = f'config has both {one!r} and {other!r}'
            raise ValueError(msg)


def _check_keys(name, given, *functions):
    known = {key for function in functions
             for key in signature(function).parameters}
    known -= {'model', 'scenes', 'data', 'out', 'options', 'in_channels',
              'token_dim', 'decision'}
    if name == 'fit':
        known -= {'validation'}
    if set(given) - known:
        msg = (f'config: {name} has unknown keys '
               f'{sorted(set(given) - known)}; known are {sorted(known)}')
        raise ValueError(msg)


def _check_decision(table, model, data):
    """The table, if there will be a decision."""
    _check_keys('decision', table, fit_decision)
    if not isinstance(model, Model):
        msg = 'config: decision: a semantic model has none'
        raise ValueError(msg)
    n_scenes = min(len(data), table.get('n_scenes', len(data)))
    if n_scenes < HELD:
        msg = (f'config: n_scenes must be {HELD} or more, for the decision '
               f'too, got {n_scenes}')
        raise ValueError(msg)
    return dict(table)


OBJECTIVES = {'dino': DINO, 'simdino': SimDINO}
SOURCES = ('scenes', 'folder')
SIZES = ('patch_size', 'dim', 'depth', 'n_heads')
PRETRAIN_TABLES = ('model', 'images', 'views', 'objective', 'fit')


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
          `~astrodino_seg.train.ViewDataset` but the images, the
          preprocessing, their number and the seed.
        * ``objective``: a ``kind``, ``'dino'`` or ``'simdino'``, and arguments
          of `~astrodino_seg.train.DINO` or
          `~astrodino_seg.train.SimDINO`.
        * ``fit``: arguments of `~astrodino_seg.train.pretrain`, and
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
    unknown = sorted(set(config) - set(PRETRAIN_TABLES))
    if unknown:
        msg = (f'config has unknown keys {unknown}; known are '
               f'{list(PRETRAIN_TABLES)}')
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
        images = make_sources(config.get('images', []), seed)
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
    """Make the encoder, with random weights."""
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
    """Make the objective."""
    kind, table = take_kind('objective', table, OBJECTIVES, 'dino')
    check_table('objective', table, OBJECTIVES[kind])
    return OBJECTIVES[kind](**table)


def make_sources(tables, seed):
    """Open the sources of images."""
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
