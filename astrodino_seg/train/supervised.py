# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Training of a model on scenes with known truth: one straight loop.
"""

import json
import math
import os
import platform
import tempfile
import time
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from astrodino_seg.heads import DenseMaps
from astrodino_seg.semantic import SemanticModel
from astrodino_seg.train.losses import (
    CLASS_WEIGHTS,
    WEIGHTS,
    class_loss,
    grouping_losses,
    imitation_loss,
)
from astrodino_seg.train.targets import CropDataset
from astrodino_seg.train.tokens import TokenCrop, TokenCrops, teach
from astrodino_seg.train.validation import EarlyStopping

__all__ = ['fit_model', 'learning_rate']


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
              warmup=200, average_decay=0.998, own_seeds_from=0,
              freeze_backbone=False, n_pool=48, layer_decay=1.0,
              class_weights=CLASS_WEIGHTS, teacher=None, validation=None,
              validate_every=100, patience=5, bfloat16=False, save_every=200,
              n_workers=1, seed=0, progress=True):
    """
    Train all of a model on scenes of known truth, but its pair score.

    That is fitted afterwards, by `~astrodino_seg.train.pairs.fit_pairs`;
    until then seeds are joined at random.

    The learning rate, the data and the choices of each step depend on the
    step and the seed alone, so a run that was killed goes on from its last
    checkpoint in ``out`` as if nothing had happened.

    Parameters
    ----------
    model : Model or SemanticModel
        The model; changed in place, in the end to the running average.
    scenes : sequence of `~astrodino_seg.simulate.Scene` or \
            `~astrodino_seg.train.LabelledImage`
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
    warmup : int, optional
        Steps in which the learning rate rises to its peak.
    average_decay : float, optional
        Of the running average of the weights.
    own_seeds_from : int, optional
        The step from which the network's own seeds are decoys too; before
        it has learned, they are noise.
    freeze_backbone : bool, optional
        Whether the Vision Transformer stays as it is and the head alone is
        trained.
    n_pool : int, optional
        Observations whose tokens are kept, if the backbone is frozen and the
        head a semantic one: all steps draw from these.
    layer_decay : float, optional
        The learning rate of each layer of the transformer is this factor
        less than that of the layer above (Bao et al. 2022, arXiv:2106.08254).
    class_weights : sequence of float, optional
        See `~astrodino_seg.train.losses.class_loss`.
    teacher : Model or SemanticModel, optional
        A model of the same input, whose classes, and whose heatmap if both
        have one, are imitated in all pixels.
    validation : sequence, optional
        As ``scenes``. The panoptic quality of the running average on them is
        measured before the first step and then again and again, and the
        weights are in the end those with the largest.
    validate_every : int, optional
        Steps between measurements.
    patience : int, optional
        Training ends after so many measurements of a smaller quality.
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
    model : Model or SemanticModel
        The averaged model, in evaluation mode.

    Raises
    ------
    ValueError
        If the teacher has another input.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    checkpoint = out / 'checkpoint.pt'
    _check_teacher(teacher, model)
    # what was fitted to the old weights is not true of the new
    model.provenance.pop('calibration', None)
    frozen = model.vit if freeze_backbone else torch.nn.Module()
    frozen.requires_grad_(False)
    groups, factors = _parameter_groups(model, layer_decay)
    optimizer = torch.optim.AdamW(groups, lr=peak_rate,
                                  weight_decay=weight_decay)
    average = {k: v.clone() for k, v in model.state_dict().items()}
    stopping = EarlyStopping(validation, validate_every, patience)
    start, seconds = 0, 0.0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state['model'])
        optimizer.load_state_dict(state['optimizer'])
        average = state['average']
        start, seconds = state['step'], state['seconds']
        stopping.load(state.get('stopping'))
        _shorten(out / 'log.jsonl', start)
    data = CropDataset(scenes, model.planes, n_steps, n_items=n_items,
                       crop_sizes=crop_sizes, seed=seed)
    if freeze_backbone and isinstance(model, SemanticModel):
        data = TokenCrops(model, data, teacher, n_pool=n_pool)
        n_workers = 0
    end = start if stopping.is_over else n_steps
    todo = Subset(data, range(start * n_items, end * n_items))
    loader = DataLoader(todo, batch_size=n_items, num_workers=n_workers,
                        collate_fn=_flatten,
                        prefetch_factor=4 if n_workers else None)
    bar = tqdm(total=n_steps, initial=start, disable=not progress,
               mininterval=5)
    if start == 0:
        stopping.look(model, average, 0)
    model.train().to(memory_format=torch.channels_last)
    frozen.eval()
    begin = time.monotonic() - seconds
    for step, crops in enumerate(loader, start=start):
        rate = learning_rate(step, n_steps, peak=peak_rate, warmup=warmup)
        for group, factor in zip(optimizer.param_groups, factors):
            group['lr'] = factor * rate
        generator = torch.Generator().manual_seed(seed * 10_000_019 + step)
        losses = _step(model, crops, generator,
                       own_seeds=step >= own_seeds_from,
                       class_weights=class_weights, teacher=teacher,
                       bfloat16=bfloat16)
        optimizer.zero_grad()
        losses['total'].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 3.0)
        optimizer.step()
        _average(average, model, min(average_decay, (step + 1) / (step + 10)))
        values = {k: round(v.item(), 4) for k, v in losses.items()}
        values |= stopping.look(model, average, step + 1)
        seconds = time.monotonic() - begin
        with open(out / 'log.jsonl', 'a') as log:
            log.write(json.dumps({'step': step, 'seconds': round(seconds, 1),
                                  'rate': rate, **values}) + '\n')
        bar.set_postfix(loss=values['total'], refresh=False)
        bar.update()
        last = step + 1 == n_steps or stopping.is_over
        if (step + 1) % save_every == 0 or last:
            _save(checkpoint, {'model': model.state_dict(),
                               'optimizer': optimizer.state_dict(),
                               'average': average, 'step': step + 1,
                               'stopping': stopping.state(),
                               'seconds': seconds})
        if last:
            break
    bar.close()
    frozen.requires_grad_(True)
    model.load_state_dict(average if stopping.best is None
                          else stopping.best)
    model.provenance.update(steps=n_steps, n_items=n_items,
                            crop_sizes=list(crop_sizes), seed=seed,
                            **stopping.summary(),
                            hours=round(seconds / 3600, 2),
                            machine=f'{platform.machine()}, '
                                    f'{torch.get_num_threads()} threads')
    model.eval().save(out / 'model.safetensors')
    return model


def _parameter_groups(model, layer_decay):
    """
    Groups of parameters for the optimiser, and the factor on the rate of
    each: that of a layer of the transformer falls with its depth.
    """
    if layer_decay == 1:
        return [p for p in model.parameters() if p.requires_grad], [1.0]
    depth = len(model.vit.blocks)
    groups = {}
    for name, param in model.named_parameters():
        part = name.split('.')
        below = 0
        if part[0] == 'vit' and part[1] == 'blocks':
            below = depth - int(part[2])
        elif part[0] == 'vit' and part[1] != 'norm':
            below = depth + 1               # patches, positions, CLS token
        if param.requires_grad:
            groups.setdefault(below, []).append(param)
    return ([{'params': groups[below]} for below in sorted(groups)],
            [layer_decay**below for below in sorted(groups)])


def _check_teacher(teacher, model):
    """Raise if the two do not have the same input."""
    if teacher is None:
        return
    if model.planes != teacher.planes:
        msg = (f'teacher must have the input {model.planes!r}, got '
               f'{teacher.planes!r}')
        raise ValueError(msg)
    teacher.eval()


def _step(model, crops, generator, *, own_seeds=False,
          class_weights=CLASS_WEIGHTS, teacher=None, bfloat16=False):
    """Mean losses of a batch of crops; ``total`` is their weighted sum."""
    cached = isinstance(crops[0], TokenCrop)
    batch = torch.stack([crop.tokens if cached else crop.channels
                         for crop in crops]).contiguous(
        memory_format=torch.channels_last)
    with torch.autocast('cpu', torch.bfloat16, enabled=bfloat16):
        if cached:
            maps = model.logits(batch.float(), crops[0].classes.shape)
        elif isinstance(model, SemanticModel):
            k = torch.randint(len(model.scales), (), generator=generator)
            maps = model(batch, model.scales[k])
        else:
            maps = model(batch)
    if isinstance(model, SemanticModel):
        own = (maps.float(),)
        sums = {'classes': class_loss(
            *own, torch.stack([crop.classes for crop in crops]),
            class_weights)}
    else:
        own = maps.classes.float(), maps.heat.float()
        sums = _grouping(model, maps, crops, generator, own_seeds=own_seeds,
                         class_weights=class_weights)
    if teacher is not None:
        sums['teacher'] = imitation_loss(own, (
            (torch.stack([crop.taught for crop in crops]).float(),)
            if cached else teach(teacher, batch)))
    sums['total'] = sum(WEIGHTS.get(name, 1.0) * value
                        for name, value in sums.items())
    return sums


def _grouping(model, maps, crops, generator, **options):
    """Mean losses of the grouping head over a batch of crops."""
    sums = {}
    for k, crop in enumerate(crops):
        one = DenseMaps(*(part[k].float() for part in maps[:-1]),
                        tuple(level[k].float() for level in maps.pyramid))
        for name, value in grouping_losses(model.head, one, crop, generator,
                                           **options).items():
            sums[name] = sums.get(name, 0) + value / len(crops)
    return sums
