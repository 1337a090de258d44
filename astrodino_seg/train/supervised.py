# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Training of a model on scenes of known truth: one straight loop.
"""

import json
import os
import platform
import tempfile
import time
from copy import deepcopy
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from astrodino_seg.semantic import SemanticModel
from astrodino_seg.train.data import ClassCrops, LevelCrops
from astrodino_seg.train.decision import fit_decision
from astrodino_seg.train.instance import WEIGHTS, level_losses
from astrodino_seg.train.losses import CLASS_WEIGHTS
from astrodino_seg.train.rates import SCHEDULES, parameter_groups
from astrodino_seg.train.tokens import TokenCrops, semantic_losses
from astrodino_seg.train.validation import EarlyStopping

__all__ = ['fit_model']


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


def _optimizer(groups, rate, weight_decay):
    """AdamW, in one kernel where torch has it for these parameters."""
    options = {'lr': rate, 'weight_decay': weight_decay}
    try:
        return torch.optim.AdamW(groups, fused=True, **options)
    except RuntimeError:
        return torch.optim.AdamW(groups, **options)


def _load_optimizer(optimizer, state):
    """Go on from a checkpoint, on any device and in the same kernel."""
    for old, new in zip(state['param_groups'], optimizer.param_groups):
        old.update({key: new[key] for key in ('fused', 'foreach')})
    optimizer.load_state_dict(state)


def fit_model(model, scenes, *, out, n_steps, n_items=2, crop_size=256,
              rates=None, schedule='cosine', peak_rate=1e-3,
              weight_decay=0.02, warmup=200, average_decay=0.998,
              own_seeds_from=0, freeze_backbone=False, n_pool=48,
              layer_decay=1.0, class_weights=CLASS_WEIGHTS, teacher=None,
              validation=None, validate_every=100, patience=5,
              decision=None, device='cpu', bfloat16=False, save_every=200,
              milestone_every=2000, stop_after=None, n_workers=1, seed=0,
              progress=True):
    """
    Train all of a model on scenes of known truth.

    The learning rate, the data and the choices of each step depend on the
    step and the seed alone, so a run that was killed goes on from its last
    checkpoint in ``out`` as if nothing had happened.

    Parameters
    ----------
    model : Model or SemanticModel
        The model; changed in place, in the end to the running average. The
        decision of a `~astrodino_seg.Model` is left as it is, unless
        ``decision`` is given.
    scenes : sequence of `~astrodino_seg.simulate.Scene` or \
            `~astrodino_seg.train.LabelledImage`
        What to train on.
    out : path-like
        Folder for the checkpoint, the log and the weights:
        ``model.safetensors``, which is there when all is done, and the
        running average after every ``milestone_every`` steps in
        ``average.safetensors``.
    n_steps : int
        Optimiser steps.
    n_items : int, optional
        Observations a step, of two crops each.
    crop_size : int, optional
        Side of the crops in pixels, a multiple of 16.
    rates : dict of float, optional
        Of `~astrodino_seg.simulate.observe`, for scenes.
    schedule : {'cosine', 'steady'}, optional
        How the learning rate goes after its warm-up: see
        `~astrodino_seg.train.rates.learning_rate` and
        `~astrodino_seg.train.rates.rate_of_step`.
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
    decision : dict, optional
        Arguments of `~astrodino_seg.train.fit_decision`, which is then done
        last; ``rates`` and ``bfloat16`` are those here unless given.
    device : str, optional
        Where the network runs.
    bfloat16 : bool, optional
        Whether the network runs in bfloat16. Weights, losses, and the
        average remain float32.
    save_every, milestone_every : int, optional
        Steps between checkpoints, and between averaged weights.
    stop_after : float, optional
        Seconds after which to stop, at the next checkpoint, to go on another
        time.
    n_workers : int, optional
        Processes that make the data.
    seed : int, optional
        Seed of the data and of all choices.
    progress : bool, optional
        Whether to show a progress bar.

    Returns
    -------
    model : Model or SemanticModel
        The averaged model, in evaluation mode, on the CPU.

    Raises
    ------
    ValueError
        If the teacher has another input, or an option is impossible.
    """
    out = Path(out)
    teacher = _check(model, teacher, schedule, decision, device)
    out.mkdir(parents=True, exist_ok=True)
    # what was fitted to the old weights is not true of the new
    semantic = isinstance(model, SemanticModel)
    if not semantic:
        model.calibration = None
    model.to(device, memory_format=torch.channels_last)
    fixed = [part for part in (getattr(model, 'decision', None),
                               model.vit if freeze_backbone else None)
             if part is not None]
    for part in fixed:
        part.requires_grad_(False)
    groups, factors = parameter_groups(model, layer_decay)
    optimizer = _optimizer(groups, peak_rate, weight_decay)
    average = {k: v.clone() for k, v in model.state_dict().items()}
    stopping = EarlyStopping(validation, validate_every, patience)
    start, seconds = 0, 0.0
    checkpoint = out / 'checkpoint.pt'
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True, map_location=device)
        model.load_state_dict(state['model'])
        _load_optimizer(optimizer, state['optimizer'])
        average = state['average']
        start, seconds = state['step'], state['seconds']
        stopping.load(state.get('stopping'))
        _shorten(out / 'log.jsonl', start)
    options = {'crop_size': crop_size, 'rates': rates, 'seed': seed}
    if semantic:
        data = ClassCrops(scenes, model.planes, n_steps * n_items, **options)
    else:
        data = LevelCrops(scenes, model.preprocess, n_steps * n_items,
                          **options)
    if freeze_backbone and semantic:
        data = TokenCrops(model, data, teacher, n_items=n_items,
                          n_pool=n_pool)
        n_workers = 0
    end = start if stopping.is_over else n_steps
    loader = DataLoader(Subset(data, range(start * n_items, end * n_items)),
                        batch_size=n_items, num_workers=n_workers,
                        collate_fn=_flatten,
                        prefetch_factor=8 if n_workers else None)
    bar = tqdm(total=n_steps, initial=start, disable=not progress,
               mininterval=5)
    if start == 0:
        stopping.look(model, average, 0)
    model.train()
    for part in fixed:
        part.eval()

    def tell(done):
        return {'steps': done, 'n_items': n_items, 'crop_size': crop_size,
                'seed': seed, **stopping.summary(),
                'hours': round(seconds / 3600, 2),
                'machine': f'{platform.machine()}, '
                           f'{torch.get_num_threads()} threads'}

    begin, first, is_over = time.monotonic() - seconds, seconds, True
    for step, crops in enumerate(loader, start=start):
        rate = SCHEDULES[schedule](step, n_steps, peak=peak_rate,
                                   warmup=warmup)
        for group, factor in zip(optimizer.param_groups, factors):
            group['lr'] = factor * rate
        generator = torch.Generator().manual_seed(seed * 10_000_019 + step)
        losses = _step(model, crops, generator,
                       own_seeds=step >= own_seeds_from,
                       class_weights=class_weights, teacher=teacher,
                       bfloat16=bfloat16, device=device)
        optimizer.zero_grad()
        losses['total'].backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 3.0)
        optimizer.step()
        done = step + 1
        _average(average, model, min(average_decay, done / (step + 10)))
        values = {k: round(v.item(), 4) for k, v in losses.items()}
        values |= stopping.look(model, average, done)
        seconds = time.monotonic() - begin
        with open(out / 'log.jsonl', 'a') as log:
            log.write(json.dumps({'step': step, 'seconds': round(seconds, 1),
                                  'rate': rate, 'norm': round(norm.item(), 2),
                                  **values}) + '\n')
        bar.set_postfix(loss=values['total'], refresh=False)
        bar.update()
        last = done == n_steps or stopping.is_over
        if done % save_every == 0 or last:
            _save(checkpoint, {'model': model.state_dict(),
                               'optimizer': optimizer.state_dict(),
                               'average': average, 'step': done,
                               'stopping': stopping.state(),
                               'seconds': seconds})
        if done % milestone_every == 0:
            _milestone(model, average, out, tell(done))
        if last:
            break
        if (stop_after is not None and done % save_every == 0
                and seconds - first > stop_after):
            is_over = False
            break
    bar.close()
    for part in fixed:
        part.requires_grad_(True)
    model.load_state_dict(average if stopping.best is None
                          else stopping.best)
    model.cpu().eval()
    if is_over:
        model.provenance.update(tell(n_steps))
        if decision is not None:
            fit_decision(model, scenes, **{
                'rates': rates, 'bfloat16': bfloat16, 'progress': progress,
                **decision})
        model.save(out / 'model.safetensors')
    return model


def _check(model, teacher, schedule, decision, device):
    """The teacher, ready to run; raise if options do not go together."""
    if schedule not in SCHEDULES:
        msg = f'schedule must be one of {[*SCHEDULES]}, got {schedule!r}'
        raise ValueError(msg)
    if decision is not None and isinstance(model, SemanticModel):
        msg = 'decision: a semantic model has none'
        raise ValueError(msg)
    if teacher is None:
        return None
    if model.planes != teacher.planes:
        msg = (f'teacher must have the input {model.planes!r}, got '
               f'{teacher.planes!r}')
        raise ValueError(msg)
    return deepcopy(teacher).to(device).eval()


def _milestone(model, average, out, provenance):
    """Write the running average."""
    other = deepcopy(model)
    other.load_state_dict(average)
    other.provenance.update(provenance)
    other.cpu().save(out / 'average.safetensors')


def _step(model, crops, generator, *, own_seeds=True, **options):
    """Mean losses of a batch of crops; ``total`` is their weighted sum."""
    if isinstance(model, SemanticModel):
        sums = semantic_losses(model, crops, generator, **options)
    else:
        sums = level_losses(model, crops, generator, own_seeds=own_seeds,
                            **options)
    sums['total'] = sum(WEIGHTS.get(name, 1.0) * value
                        for name, value in sums.items())
    return sums
