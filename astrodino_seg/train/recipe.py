# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Training as a recipe says.
"""

import os
from collections.abc import Mapping
from inspect import signature
from pathlib import Path

import torch
from astropy.table import Table

from astrodino_seg.image import read_label_map
from astrodino_seg.inputs.rules import NoiseUnits
from astrodino_seg.models.backbone import load_backbone
from astrodino_seg.models.head import InstanceHead
from astrodino_seg.models.load import Model, load_model
from astrodino_seg.models.semantic import HEADS, SemanticModel
from astrodino_seg.simulate.scene_library import SceneLibrary
from astrodino_seg.train.adapt import fit_head
from astrodino_seg.train.decision import HELD, fit_decision
from astrodino_seg.train.labelled import as_labelled
from astrodino_seg.train.supervised import fit_model

__all__ = ['make_images', 'make_model', 'train_from_config']

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
    """
    Make the model of a recipe.

    Parameters
    ----------
    table : dict
        One of:

        * ``start``: a bundled model's name, or a file, of a model to go on
          with;
        * ``backbone``: what `~astrodino_seg.models.backbone.load_backbone` takes,
          with ``head = 'linear'`` or ``'ms'`` and perhaps ``scales``;
        * ``backbone``, with ``head = 'grouping'`` or arguments of the
          grouping head (`~astrodino_seg.models.head.InstanceHead`) in
          ``head``; and perhaps ``preprocess``, if it has planes of its own;
        * arguments of `~astrodino_seg.Model`, from random weights.

    Returns
    -------
    model : Model or SemanticModel
        The model.

    Raises
    ------
    ValueError
        If keys do not go together, or a head is unknown.
    """
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
    """
    Read the labelled images of a recipe.

    Parameters
    ----------
    tables : list of dict
        Of each image the arguments of `~astrodino_seg.train.as_labelled`:
        ``image`` (a path, or a table or list of paths of bands), ``labels``
        (the path of a label map), and perhaps ``classes`` (a class for all,
        or the path of a table with columns ``label`` and ``class``),
        ``void`` (the path of a map of int that is not 0 where nothing is
        said) and ``partial``.

    Returns
    -------
    images : list of `~astrodino_seg.train.LabelledImage`
        The images.

    Raises
    ------
    ValueError
        If a key is unknown or missing, or a file cannot be used.
    """
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
