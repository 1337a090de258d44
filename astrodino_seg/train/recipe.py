# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Training and pretraining as a recipe says: tables, as of a TOML file, whose
keys are the arguments of functions.
"""

import os
from collections.abc import Mapping
from contextlib import contextmanager
from inspect import signature
from pathlib import Path

import torch

from astrodino_seg.datasets import FolderImages
from astrodino_seg.datasets.tables import read_table
from astrodino_seg.errors import check
from astrodino_seg.image import read_label_map
from astrodino_seg.inputs.channels import PreprocessSpec
from astrodino_seg.inputs.rules import NoiseUnits
from astrodino_seg.models.backbone import Backbone
from astrodino_seg.models.decision import Decision
from astrodino_seg.models.head import InstanceHead
from astrodino_seg.models.instance import Model
from astrodino_seg.models.load import load_backbone, load_model
from astrodino_seg.models.semantic import HEADS, SemanticModel
from astrodino_seg.models.vit import VisionTransformer
from astrodino_seg.simulate import SceneLibrary
from astrodino_seg.train.batches import Mixture, ObservedScenes
from astrodino_seg.train.decision import fit_decision
from astrodino_seg.train.head import fit_head
from astrodino_seg.train.labelled import as_labelled
from astrodino_seg.train.methods import DINO, SimDINO
from astrodino_seg.train.ssl import pretrain
from astrodino_seg.train.supervised import fit_model
from astrodino_seg.train.totals import fit_totals
from astrodino_seg.train.views import ViewDataset

#: Name of the head that is not one of `~astrodino_seg.models.semantic.HEADS`.
GROUPING = 'grouping'
TABLES = ('model', 'scenes', 'images', 'fit', 'head', 'decision', 'totals')
#: What is fitted last.
LAST = {'decision': fit_decision, 'totals': fit_totals}
PRETRAIN_TABLES = ('model', 'images', 'views', 'objective', 'fit')
OBJECTIVES = {'dino': DINO, 'simdino': SimDINO}
SOURCES = {'scenes': SceneLibrary, 'folder': FolderImages}


def train_from_config(config, out):
    """
    Train a model into a folder as a recipe says, a dict of the tables:

    * ``model``: ``start``, a bundled model's name or a file, of a model to go
      on with; or ``backbone``, what `~astrodino_seg.models.load_backbone`
      takes, with ``head = 'linear'`` or ``'ms'`` and perhaps ``scales``, or
      with ``head = 'grouping'`` or arguments of the grouping head in ``head``
      and perhaps ``preprocess``, if it has planes of its own; or arguments of
      `~astrodino_seg.Model`, from random weights.
    * ``scenes``: arguments of `~astrodino_seg.simulate.SceneLibrary`; or
    * ``images``: a list of tables, each the arguments of `as_labelled`:
      ``image`` (a path, or a table or list of paths of bands), ``labels`` (the
      path of a label map), and perhaps ``classes`` (a class for all, or the
      path of a table with columns ``label`` and ``class``), ``void`` (the path
      of a map of int that is not 0 where nothing is said) and ``partial``.
    * ``fit``: arguments of `fit_model`, to train all of a model, and
      ``threads``; or
    * ``head``: those of `fit_head`, to adapt one or to train a semantic head,
      and ``threads``. In both, ``teacher`` is a bundled model's name or a
      file.
    * ``decision`` and ``totals``: arguments of `fit_decision` and of
      `fit_totals`, which then come last, for a `~astrodino_seg.Model`.

    Raises `ValueError` if a table or key is unknown, or a value impossible.
    """
    _checks(config, TABLES, ('model', 'scenes', 'fit', 'head',
                                   *LAST))
    for one, other in (('scenes', 'images'), ('fit', 'head')):
        if one in config and other in config:
            msg = f'config has both {one!r} and {other!r}'
            raise ValueError(msg)
    name = 'head' if 'head' in config else 'fit'
    fit = dict(config.get(name, {}))
    functions, given = [fit_model], ['validation']
    if name == 'head':
        functions, given = [fit_model, fit_head], []
    check(name, fit, *functions, extra=['threads'],
          without=[*given, 'model', 'scenes', 'data', 'out', *LAST],
          needs=['n_steps'] if name == 'fit' else [])
    for part, function in LAST.items():
        check(part, config.get(part, {}), function,
              without=['model', 'scenes', 'held'])
    if 'images' not in config:
        check('scenes', config.get('scenes', {}), SceneLibrary,
              without=['split'], needs=['n_scenes'])
    with _as_told(fit):
        model = make_model(config.get('model', {}))
        data = (make_images(config['images'], fit.get('class_names'))
                if 'images' in config
                else SceneLibrary('train', **config['scenes']))
        if 'teacher' in fit:
            fit['teacher'] = load_model(fit['teacher'])
        fit.update({part: config[part] for part in LAST.keys() & config})
        return functions[-1](model, data, out=out, **fit)


def pretrain_from_config(config, out, *, progress=True):
    """
    Pretrain an encoder into a folder as a recipe says, a dict of the tables:

    * ``model``: arguments of
      `~astrodino_seg.models.Backbone.from_spec`.
    * ``images``: a list of tables, each with a ``kind``: ``'scenes'`` takes
      arguments of `~astrodino_seg.simulate.SceneLibrary`, the split being
      ``'train'``; ``'folder'`` those of
      `~astrodino_seg.datasets.FolderImages`. If one has a ``share`` of the
      items, all have.
    * ``views``: arguments of `ViewDataset` but the images, the preprocessing,
      their number and the seed.
    * ``objective``: a ``kind``, ``'dino'`` or ``'simdino'``, and arguments of
      `DINO` or `SimDINO`.
    * ``fit``: arguments of `pretrain`, and ``threads``.

    Raises `ValueError` if a table or key is unknown, or a value impossible.
    """
    _checks(config, PRETRAIN_TABLES, ('model', 'views', 'objective',
                                            'fit'))
    views, fit = config.get('views', {}), dict(config.get('fit', {}))
    check('fit', fit, pretrain, extra=['threads'], needs=['n_steps'],
          without=['encoder', 'views', 'out', 'objective', 'source',
                   'progress'])
    check('views', views, ViewDataset,
          without=['images', 'spec', 'n_items', 'seed'])
    objective = make_objective(config.get('objective', {}))
    with _as_told(fit):
        encoder = make_encoder(config.get('model', {}))
        seed = fit.get('seed', 0)
        images = make_sources(config.get('images', []), seed)
        batch_size = fit.get('batch_size', signature(pretrain).parameters[
            'batch_size'].default)
        data = ViewDataset(images, encoder.preprocess,
                           fit['n_steps'] * batch_size, seed=seed, **views)
        return pretrain(
            encoder, data, out=out, objective=objective, progress=progress,
            source={'images': config['images'], 'n_images': len(images),
                    'views': views}, **fit)


@contextmanager
def _as_told(fit):
    """Threads and the seed as a table says; takes the threads out of it."""
    before = torch.get_num_threads()
    torch.set_num_threads(fit.pop('threads', before))
    torch.manual_seed(fit.get('seed', 0))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _checks(config, known, tables):
    unknown = sorted(set(config) - set(known))
    if unknown:
        msg = (f'config has unknown tables {unknown}; known are '
               f'{sorted(known)}')
        raise ValueError(msg)
    for name in tables:
        if not isinstance(config.get(name, {}), Mapping):
            msg = f'{name} must be a table, got {config[name]!r}'
            raise ValueError(msg)


def make_model(table):
    """The model of a recipe, see `train_from_config`."""
    table = dict(table)
    if 'start' in table:
        start = table.pop('start')
        if table:
            msg = f'model has start={start!r} and {sorted(table)} too'
            raise ValueError(msg)
        return load_model(start)
    head = _read_head(table)
    if 'backbone' not in table:
        if head in HEADS:
            msg = f'model: head={head!r} needs a backbone'
            raise ValueError(msg)
        check('model', table, Model)
        for name, kind in (('vit', VisionTransformer),
                           ('preprocess', PreprocessSpec),
                           ('decision', Decision)):
            check(f'model.{name}', table.get(name, {}), kind)
        return Model(**table)
    path = os.fspath(table.pop('backbone'))
    backbone = load_backbone(path)
    if head in HEADS:
        check('model', table, SemanticModel.from_backbone,
              without=['backbone'])
        return SemanticModel.from_backbone(backbone, **table)
    own = {'vit', 'planes'}
    if isinstance(backbone.planes, NoiseUnits):
        own.add('preprocess')
    given = sorted(own & set(table))
    if given:
        msg = f'model has {given}, which are those of backbone={path!r}'
        raise ValueError(msg)
    check('model', table, Model.from_backbone, without=['backbone'])
    return Model.from_backbone(backbone, **table)


def _read_head(table):
    """The name of the head; that of the grouping head leaves the table."""
    head = table.get('head', {})
    if isinstance(head, Mapping):
        check('model.head', head, InstanceHead,
              without=['in_channels', 'token_dim'])
        return GROUPING
    if head not in (GROUPING, *HEADS):
        msg = (f'model: head must be one of {[GROUPING, *HEADS]} or a table, '
               f'got {head!r}')
        raise ValueError(msg)
    if head == GROUPING:
        del table['head']
    return head


def make_images(tables, class_names=None):
    """The labelled images of a recipe, see `train_from_config`."""
    images = []
    for k, table in enumerate(tables):
        check(f'images[{k}]', table, as_labelled, needs=['image', 'labels'])
        table = dict(table)
        if class_names is not None:
            table.setdefault('class_names', class_names)
        if 'void' in table:
            table['void'] = read_label_map(table['void']) != 0
        classes = table.get('classes')
        if isinstance(classes, str) and Path(classes).is_file():
            table['classes'] = read_table(classes)
        try:
            images.append(as_labelled(**table))
        except (TypeError, ValueError) as err:
            msg = f'images[{k}]: {err}'
            raise ValueError(msg) from err
    return images


def make_encoder(table):
    """The encoder of a recipe, with random weights; the default if empty."""
    check('model', table, Backbone.from_spec,
          without=['planes', 'name', 'provenance'])
    check('model.vit', table.get('vit', {}), VisionTransformer)
    check('model.preprocess', table.get('preprocess', {}), PreprocessSpec)
    return Backbone.from_spec(**table)


def make_objective(table):
    """The objective of a recipe; DINO with its defaults if empty."""
    kind, table = _take_kind('objective', table, OBJECTIVES, 'dino')
    return OBJECTIVES[kind](**table)


def _take_kind(name, table, kinds, default=None, **options):
    """The kind of a table, and the table without it, checked."""
    table = dict(table)
    kind = table.pop('kind', default)
    if kind not in kinds:
        msg = f'{name}: kind must be one of {sorted(kinds)}, got {kind!r}'
        raise ValueError(msg)
    check(name, table, kinds[kind], **options)
    return kind, table


def make_sources(tables, seed):
    """The images of all sources of a recipe; ``seed`` is of scenes' noise."""
    if not (tables and isinstance(tables, list)):
        msg = 'images: no source; give one or more tables [[images]]'
        raise ValueError(msg)
    sources, shares = [], []
    for table in tables:
        kind, table = _take_kind('images', table, SOURCES, extra=['share'],
                                 without=['split'])
        shares.append(table.pop('share', None))
        sources.append(
            FolderImages(**table) if kind == 'folder' else
            ObservedScenes(SceneLibrary('train', **table), seed=seed))
    if None in shares:
        if any(share is not None for share in shares):
            msg = 'images: all sources have a share, or none has'
            raise ValueError(msg)
        shares = None
    return Mixture(sources, shares)
