# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Training of the grouping model on scenes with known truth: one straight loop.
"""

import json
import math
import os
import platform
import tempfile
import time
from inspect import signature
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from astrodino_seg.heads import DenseMaps
from astrodino_seg.model import Model, load_encoder
from astrodino_seg.simulate.scene_library import SceneLibrary
from astrodino_seg.train.losses import WEIGHTS, grouping_losses
from astrodino_seg.train.pairs import MIN_SCENES, fit_pairs
from astrodino_seg.train.targets import CropDataset

__all__ = ['fit_model', 'learning_rate', 'train_from_config']


def learning_rate(step, n_steps, *, peak, warmup=200):
    """
    Linear warm-up, then a cosine to a hundredth of the peak.

    Parameters
    ----------
    step, n_steps : int
        The step and how many there will be.
    peak : float
        The largest rate.
    warmup : int, optional
        Steps of warm-up.

    Returns
    -------
    rate : float
        The learning rate of this step.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(n_steps - warmup, 1)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))


def _average(average, model, decay):
    """Move the running average of weights and buffers towards the model."""
    with torch.no_grad():
        for key, value in model.state_dict().items():
            if value.is_floating_point():
                average[key].lerp_(value, 1 - decay)
            else:
                average[key].copy_(value)


def _save(path, state):
    handle, name = tempfile.mkstemp(dir=path.parent, suffix='.part')
    try:
        with os.fdopen(handle, 'wb') as stream:
            torch.save(state, stream)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _shorten(log, n_steps):
    """Drop the lines of steps that were lost with a killed run."""
    if log.exists():
        lines = log.read_text().splitlines()[:n_steps]
        log.write_text(''.join(f'{line}\n' for line in lines))


def _flatten(items):
    """A collate function: the crops of all items in one list."""
    return [crop for crops in items for crop in crops]


def fit_model(model, scenes, *, out, n_steps, n_items=2,
              crop_sizes=(256, 256, 448), peak_rate=1e-3, weight_decay=0.02,
              average_decay=0.998, own_seeds_from=0, freeze_backbone=False,
              bfloat16=False, save_every=200, n_workers=1, seed=0,
              progress=True):
    """
    Train all of a model on simulated scenes, but its pair score.

    That is fitted afterwards, by `~astrodino_seg.train.pairs.fit_pairs`;
    until then seeds are joined at random.

    The learning rate, the data and the choices of each step depend on the
    step and the seed alone, so a run that was killed goes on from its last
    checkpoint in ``out`` as if nothing had happened.

    Parameters
    ----------
    model : `~astrodino_seg.model.Model`
        The model; changed in place, in the end to the running average.
    scenes : sequence of `~astrodino_seg.simulate.Scene`
        What to train on.
    out : path-like
        Folder for the checkpoint, the log and the final weights.
    n_steps : int
        Optimiser steps.
    n_items : int, optional
        Observations a step.
    crop_sizes : sequence of int, optional
        See `~astrodino_seg.train.targets.CropDataset`.
    peak_rate, weight_decay : float, optional
        Of AdamW (Loshchilov & Hutter 2019).
    average_decay : float, optional
        Of the running average of the weights.
    own_seeds_from : int, optional
        The step from which the network's own seeds are decoys too; before
        it has learned, they are noise.
    freeze_backbone : bool, optional
        Whether the Vision Transformer stays as it is and the head alone is
        trained.
    bfloat16 : bool, optional
        Whether the network runs in bfloat16 (the losses and the weights stay
        float32): twice as fast where the processor has instructions for it.
    save_every : int, optional
        Steps between checkpoints.
    n_workers : int, optional
        Processes that make the data.
    seed : int, optional
        Seed of the data and of all choices.
    progress : bool, optional
        Whether to show a progress bar.

    Returns
    -------
    model : `~astrodino_seg.model.Model`
        The averaged model, in evaluation mode.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    checkpoint = out / 'checkpoint.pt'
    if freeze_backbone and 'vit' not in model.spec:
        msg = 'freeze_backbone: the model has no Vision Transformer'
        raise ValueError(msg)
    frozen = model.vit if freeze_backbone else torch.nn.Module()
    frozen.requires_grad_(False)
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=peak_rate,
        weight_decay=weight_decay)
    average = {k: v.clone() for k, v in model.state_dict().items()}
    start, seconds = 0, 0.0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state['model'])
        optimizer.load_state_dict(state['optimizer'])
        average = state['average']
        start, seconds = state['step'], state['seconds']
        _shorten(out / 'log.jsonl', start)
    data = CropDataset(scenes, model.preprocess, n_steps, n_items=n_items,
                       crop_sizes=crop_sizes, seed=seed)
    todo = Subset(data, range(start * n_items, len(data)))
    loader = DataLoader(todo, batch_size=n_items, num_workers=n_workers,
                        collate_fn=_flatten,
                        prefetch_factor=4 if n_workers else None)
    bar = tqdm(total=n_steps, initial=start, disable=not progress,
               mininterval=5)
    model.train().to(memory_format=torch.channels_last)
    frozen.eval()
    begin = time.monotonic() - seconds
    for step, crops in enumerate(loader, start=start):
        rate = learning_rate(step, n_steps, peak=peak_rate)
        for group in optimizer.param_groups:
            group['lr'] = rate
        generator = torch.Generator().manual_seed(seed * 10_000_019 + step)
        losses = _step(model, crops, generator,
                       own_seeds=step >= own_seeds_from,
                       bfloat16=bfloat16)
        optimizer.zero_grad()
        losses['total'].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 3.0)
        optimizer.step()
        _average(average, model, min(average_decay, (step + 1) / (step + 10)))
        values = {k: round(v.item(), 4) for k, v in losses.items()}
        seconds = time.monotonic() - begin
        with open(out / 'log.jsonl', 'a') as log:
            log.write(json.dumps({'step': step, 'seconds': round(seconds, 1),
                                  'rate': rate, **values}) + '\n')
        bar.set_postfix(loss=values['total'], refresh=False)
        bar.update()
        if (step + 1) % save_every == 0 or step + 1 == n_steps:
            _save(checkpoint, {'model': model.state_dict(),
                               'optimizer': optimizer.state_dict(),
                               'average': average, 'step': step + 1,
                               'seconds': seconds})
    bar.close()
    frozen.requires_grad_(True)
    model.load_state_dict(average)
    model.provenance.update(steps=n_steps, n_items=n_items,
                            crop_sizes=list(crop_sizes), seed=seed,
                            hours=round(seconds / 3600, 2),
                            machine=f'{platform.machine()}, '
                                    f'{torch.get_num_threads()} threads')
    model.eval().save(out / 'model.safetensors')
    return model


def _step(model, crops, generator, *, own_seeds=False, bfloat16=False):
    """Mean losses of a batch of crops; ``total`` is their weighted sum."""
    batch = torch.stack([crop.channels for crop in crops]).contiguous(
        memory_format=torch.channels_last)
    with torch.autocast('cpu', torch.bfloat16, enabled=bfloat16):
        maps = model(batch)
    sums = {}
    for k, crop in enumerate(crops):
        one = DenseMaps(*(part[k].float() for part in maps[:-1]),
                        tuple(level[k].float() for level in maps.pyramid))
        for name, value in grouping_losses(model.head, one, crop, generator,
                                           own_seeds=own_seeds).items():
            sums[name] = sums.get(name, 0) + value / len(crops)
    sums['total'] = sum(WEIGHTS[name] * value for name, value in sums.items())
    return sums


def _make_model(table):
    """A model as a recipe says, from random weights or with a backbone."""
    if 'backbone' not in table:
        return Model(**table)
    table = dict(table)
    path = os.fspath(table.pop('backbone'))
    given = sorted({'vit', 'unet', 'preprocess'} & set(table))
    if given:
        msg = (f'config: model has {given}, which are those of backbone='
               f'{path!r}')
        raise ValueError(msg)
    encoder = load_encoder(path)
    model = Model(**encoder.spec, **table)
    model.vit.load_state_dict(encoder.vit.state_dict())
    model.provenance['backbone'] = {'file': Path(path).name,
                                    **encoder.provenance}
    return model


def train_from_config(config, out):
    """
    Train a model as a recipe says.

    Parameters
    ----------
    config : dict
        Tables ``model`` (arguments of `~astrodino_seg.Model`, or
        ``backbone``, the path of a file that
        `~astrodino_seg.pretrain.pretrain` wrote, to start from), ``scenes``
        (``n_scenes``, ``size`` and ``path`` of
        `~astrodino_seg.simulate.SceneLibrary`), ``fit`` (arguments of
        `fit_model`, and ``threads``) and ``pairs`` (arguments of
        `~astrodino_seg.train.pairs.fit_pairs`, which comes last); see
        ``recipes`` beside this module.
    out : path-like
        Folder for checkpoint, log and weights.

    Returns
    -------
    model : `~astrodino_seg.model.Model`
        The trained model.

    Raises
    ------
    ValueError
        If a table or key is unknown, or a value is impossible.
    """
    known = {'model', 'scenes', 'fit', 'pairs'}
    if set(config) - known:
        msg = (f'config has unknown tables {sorted(set(config) - known)}; '
               f'known are {sorted(known)}')
        raise ValueError(msg)
    fit = dict(config.get('fit', {}))
    threads = fit.pop('threads', torch.get_num_threads())
    pairs = config.get('pairs', {})
    for name, given, function in (('fit', fit, fit_model),
                                  ('pairs', pairs, fit_pairs)):
        known = set(signature(function).parameters) - {'model', 'scenes',
                                                       'out'}
        if set(given) - known:
            msg = (f'config: {name} has unknown keys '
                   f'{sorted(set(given) - known)}; known are {sorted(known)}')
            raise ValueError(msg)
    try:
        torch.manual_seed(fit.get('seed', 0))
        model = _make_model(config.get('model', {}))
        scenes = SceneLibrary('train', **config['scenes'])
        n_steps = fit.pop('n_steps')
    except (KeyError, TypeError) as err:
        msg = f'config: {err}'
        raise ValueError(msg) from err
    n_pairs = min(len(scenes), pairs.get('n_scenes', len(scenes)))
    if n_pairs < MIN_SCENES:
        msg = (f'config: n_scenes must be {MIN_SCENES} or more, for the pairs '
               f'too, got {n_pairs}')
        raise ValueError(msg)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        model = fit_model(model, scenes, out=out, n_steps=n_steps, **fit)
        fit_pairs(model, scenes, **pairs).save(
            Path(out) / 'model.safetensors')
        return model
    finally:
        torch.set_num_threads(before)
