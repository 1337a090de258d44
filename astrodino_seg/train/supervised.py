# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Training of a model on scenes or images of known truth.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from numbers import Real

import numpy as np
import torch
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from astrodino_seg.models.semantic import SemanticModel
from astrodino_seg.simulate.scene import Scene
from astrodino_seg.train.data import ClassCrops, LevelCrops
from astrodino_seg.train.decision import fit_decision
from astrodino_seg.train.instance import CLASS_WEIGHTS, WEIGHTS, level_losses
from astrodino_seg.train.labelled import LabelledImage, as_labelled
from astrodino_seg.train.runner import Run, make_optimizer
from astrodino_seg.train.schedules import SCHEDULES
from astrodino_seg.train.semantic import TokenCrops, semantic_losses
from astrodino_seg.train.validation import EarlyStopping

__all__ = ['fit_head', 'fit_model']


def _flatten(items):
    """A collate function: the crops of all items in one list."""
    return [crop for crops in items for crop in crops]


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
        `~astrodino_seg.train.schedules.cosine_rate` and
        `~astrodino_seg.train.schedules.steady_rate`.
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
    teacher = _check(model, teacher, schedule, decision, device)
    fixed = _prepare(model, freeze_backbone, device)
    groups, factors = parameter_groups(model, layer_decay)
    run = Run(out, model, make_optimizer(groups, peak_rate, weight_decay),
              EarlyStopping(validation, validate_every, patience), {
                  'n_items': n_items, 'crop_size': crop_size, 'seed': seed})
    run.resume(device)
    kind = ClassCrops if isinstance(model, SemanticModel) else LevelCrops
    data = kind(scenes, model.planes, n_steps * n_items, crop_size=crop_size,
                rates=rates, seed=seed)
    if freeze_backbone and kind is ClassCrops:
        data = TokenCrops(model, data, teacher, n_items=n_items,
                          n_pool=n_pool)
        n_workers = 0
    run.begin(fixed)
    for step, crops in enumerate(
            _batches(data, n_items, run, n_steps, n_workers, progress),
            start=run.step):
        rate = SCHEDULES[schedule](step, n_steps, peak=peak_rate,
                                   warmup=warmup)
        for group, factor in zip(run.optimizer.param_groups, factors):
            group['lr'] = factor * rate
        generator = torch.Generator().manual_seed(seed * 10_000_019 + step)
        losses = _step(model, crops, generator,
                       own_seeds=step >= own_seeds_from,
                       class_weights=class_weights, teacher=teacher,
                       bfloat16=bfloat16, device=device)
        run.update(losses, rate, average_decay)
        last = run.step == n_steps or run.stopping.is_over
        if run.step % save_every == 0 or last:
            run.save()
        if run.step % milestone_every == 0:
            run.write_average()
        if last:
            break
        if (stop_after is not None and run.step % save_every == 0
                and run.lasted > stop_after):
            break
    is_over = run.step == n_steps or run.stopping.is_over
    run.finish(fixed)
    if is_over:
        if decision is not None:
            fit_decision(model, scenes, **{
                'rates': rates, 'bfloat16': bfloat16, 'progress': progress,
                **decision})
        model.save(run.out / 'model.safetensors')
    return model


def parameter_groups(model, layer_decay):
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


def _prepare(model, freeze_backbone, device):
    """Put the model where it is trained; returns what stays as it is."""
    fixed = [model.vit] if freeze_backbone else []
    if not isinstance(model, SemanticModel):
        # what was fitted to the old weights is not true of the new
        model.calibration = None
        if model.decision is not None:
            fixed.append(model.decision)
    model.to(device, memory_format=torch.channels_last)
    for part in fixed:
        part.requires_grad_(False)
    return fixed


def _batches(data, n_items, run, n_steps, n_workers, progress):
    """The crops of each step that is left, with a progress bar."""
    end = run.step if run.stopping.is_over else n_steps
    todo = Subset(data, range(run.step * n_items, end * n_items))
    loader = DataLoader(todo, batch_size=n_items, num_workers=n_workers,
                        collate_fn=_flatten,
                        prefetch_factor=8 if n_workers else None)
    return tqdm(loader, total=n_steps, initial=run.step,
                disable=not progress, mininterval=5)


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


#: Least side of a crop, pixels.
STEP = 16


def fit_head(model, data, *, out, n_steps=200, validation=0.2, partial=False,
             freeze_backbone=True, class_weights='balanced', crop_size=None,
             peak_rate=None, **options):
    """
    Train a model's head on labelled images or simulated scenes.

    The backbone stays as it is unless ``freeze_backbone=False``, so that a
    handful of images are enough. So does the decision of a model that has
    one, which takes more of them (`~astrodino_seg.train.fit_decision`). A run
    that was killed goes on from ``out``.

    Parameters
    ----------
    model : Model or SemanticModel
        The model to adapt or to train; changed in place.
    data : sequence
        Each item is a pair (image, labels), a triple with the classes, or a
        dict of the arguments of `~astrodino_seg.train.as_labelled`; or what
        that returns, or a `~astrodino_seg.simulate.Scene`, of which
        observations are made anew at each step.
    out : path-like
        Folder for the checkpoint, the log and ``model.safetensors``.
    n_steps : int, optional
        Optimiser steps.
    validation : float, sequence or `None`, optional
        The share of ``data``, its last items, that is held out, or other
        data: the panoptic quality on these decides which weights are kept
        and when to stop. Without it, the last weights are taken.
    partial : bool, optional
        Whether only some objects are labelled, so that pixels without a label
        are void; for pairs and triples.
    freeze_backbone : bool, optional
        Whether the Vision Transformer stays as it is. If not, its layers
        learn more slowly the deeper they lie below the head, by
        ``layer_decay``, 0.75 unless given. The tokens of a frozen one are
        computed once for a semantic head.
    class_weights : {'balanced'} or sequence of float, optional
        Weights of the pixels of sky, star, galaxy and artifact; see
        `balanced_weights`.
    crop_size : int, optional
        Side of the crops; 256, or less if an image is smaller, by default.
    peak_rate : float, optional
        Learning rate; by default 2e-4 for a `~astrodino_seg.Model`, which is
        trained already, and 1e-2 for a semantic head, or 1e-3 with its
        backbone.
    **options
        Other arguments of `~astrodino_seg.train.fit_model`.

    Returns
    -------
    model : Model or SemanticModel
        The model, in evaluation mode.

    Raises
    ------
    TypeError
        If ``data`` or an item of it is of another type.
    ValueError
        If an item cannot be used, or nothing is left to train on.
    """
    data = _labelled(data, partial, 'data')
    if isinstance(validation, Real):
        if not 0 < validation < 1:
            msg = f'validation must be in (0, 1), got {validation!r}'
            raise ValueError(msg)
        n = len(data) - max(round(validation * len(data)), 1)
        held = Subset(data, range(n, len(data)))
        data = Subset(data, range(n))
    else:
        held = (None if validation is None
                else _labelled(validation, partial, 'validation'))
    if len(data) == 0:
        msg = 'data: no image is left to train on; validation=None holds none'
        raise ValueError(msg)
    if isinstance(class_weights, str):
        if class_weights != 'balanced':
            msg = ("class_weights must be 'balanced' or four numbers, got "
                   f'{class_weights!r}')
            raise ValueError(msg)
        class_weights = balanced_weights(data)
    semantic = isinstance(model, SemanticModel)
    if peak_rate is None:
        peak_rate = ((1e-2 if freeze_backbone else 1e-3) if semantic
                     else 2e-4)
    defaults = {'warmup': min(20, n_steps // 10 + 1), 'average_decay': 0.98,
                'validate_every': max(n_steps // 8, 1), 'n_workers': 0,
                'layer_decay': 1.0 if freeze_backbone else 0.75}
    return fit_model(model, data, out=out, n_steps=n_steps,
                     crop_size=crop_size or _crop_size(data),
                     peak_rate=peak_rate, freeze_backbone=freeze_backbone,
                     class_weights=class_weights, validation=held,
                     **{**defaults, **options})


def balanced_weights(data):
    """Weights of the classes of pixels, so that the rare count more."""
    count = np.zeros(5)
    for k in range(len(data)):
        one = data[k]
        if not isinstance(one, LabelledImage):
            return CLASS_WEIGHTS
        labels = one.truth.labels
        cls = np.append(0, one.truth.objects['cls'])
        count += np.bincount(cls[labels[labels >= 0]], minlength=5)
    count = count[:4]
    if not count[1:].any():
        return CLASS_WEIGHTS
    return tuple((count.max() / count.clip(min=1)).clip(max=100)**0.5)


def _labelled(data, partial, name):
    """The items as `LabelledImage` or `Scene`."""
    if hasattr(data, '__getitem__') and not isinstance(data, Sequence):
        return data                         # a library of scenes
    if not isinstance(data, Sequence) or isinstance(data, str):
        msg = f'{name} must be a sequence, got {type(data).__name__}'
        raise TypeError(msg)
    out = []
    for k, item in enumerate(data):
        try:
            if isinstance(item, LabelledImage | Scene):
                out.append(item)
            elif isinstance(item, Mapping):
                out.append(as_labelled(**{'partial': partial, **item}))
            elif isinstance(item, tuple | list) and len(item) in (2, 3):
                image, labels, *classes = item
                out.append(as_labelled(image, labels, partial=partial,
                                       classes=classes[0] if classes
                                       else None))
            else:
                msg = ('must be a pair (image, labels), a triple with '
                       f'classes, a dict or a scene, got {item!r:.60}')
                raise TypeError(msg)
        except (TypeError, ValueError) as err:
            msg = f'{name}[{k}]: {err}'
            raise type(err)(msg) from err
    return out


def _crop_size(data):
    """256 or the largest multiple of 16 that all images have."""
    first = [data[k] for k in range(min(len(data), 64))]
    side = min(min(one.image.shape if isinstance(one, LabelledImage)
                   else one.cube.shape[1:]) for one in first)
    if side < STEP:
        msg = f'data: images must have {STEP} pixels a side, got {side}'
        raise ValueError(msg)
    return min(256, side // STEP * STEP)
