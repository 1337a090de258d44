# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Training of a model on scenes or images of known truth.
"""

import math
from copy import deepcopy

import torch
from torch.utils.data import DataLoader, Subset

from astrodino_seg.errors import check
from astrodino_seg.models.load import digest
from astrodino_seg.models.semantic import SemanticModel
from astrodino_seg.train.data import (
    ClassCrops,
    LevelCrops,
    TokenCrops,
    enough_scenes,
    fingerprint,
)
from astrodino_seg.train.decision import fit_decision
from astrodino_seg.train.instance import CLASS_WEIGHTS, WEIGHTS, level_losses
from astrodino_seg.train.labelled import EarlyStopping
from astrodino_seg.train.losses import semantic_losses
from astrodino_seg.train.runner import (
    Run,
    device_name,
    make_fabric,
    move_average,
    one_at_a_time,
    start_average,
)
from astrodino_seg.train.totals import fit_totals


def cosine_rate(step, n_steps, *, peak, warmup=200):
    """Linear warm-up, then a cosine to a hundredth of the peak."""
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(n_steps - warmup, 1)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))


def steady_rate(step, n_steps, *, peak, warmup=500, cooldown=0.2):
    """
    Warm up, stay, and fall to nothing at the end (`Hu et al. 2024
    <https://arxiv.org/abs/2404.06395>`_), so that a run can be made longer.
    """
    left = (n_steps - step) / max(cooldown * n_steps, 1)
    return peak * min((step + 1) / max(warmup, 1), 1.0, left)


#: How the learning rate goes: functions of the step, which counts from 0.
SCHEDULES = {'cosine': cosine_rate, 'steady': steady_rate}


def _flatten(items):
    """A collate function: the crops of all items in one list."""
    return [crop for crops in items for crop in crops]


@one_at_a_time
def fit_model(model, scenes, *, out, n_steps, n_items=2, crop_size=256,
              rates=None, schedule='cosine', peak_rate=1e-3,
              weight_decay=0.02, warmup=200, average_decay=0.998,
              own_seeds_from=0, freeze_backbone=False, n_pool=48,
              layer_decay=1.0, class_weights=CLASS_WEIGHTS, teacher=None,
              validation=None, validate_every=100, patience=5,
              decision=None, totals=None, device='cpu', bfloat16=False,
              save_every=200, milestone_every=2000, stop_after=None,
              n_workers=1, seed=0, progress=True):
    """
    Train all of a model on scenes of known truth.

    The learning rate, the data and the choices of each step depend on the
    step and the seed alone, so a run that was killed goes on from its last
    checkpoint in ``out`` as if nothing had happened.

    Parameters
    ----------
    model : Model or SemanticModel
        The model; changed in place, in the end to the running average. The
        decision and the totals of a `~astrodino_seg.Model` are left as they
        are, unless ``decision`` and ``totals`` are given.
    scenes : sequence of `~astrodino_seg.simulate.scene.Scene` or \
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
        How the learning rate goes after its warm-up: by a cosine to a
        hundredth of its peak; or it stays, and falls to nothing in the last
        fifth of the steps, so that a run can be made longer.
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
    totals : dict, optional
        The same of `~astrodino_seg.train.fit_totals`, after that.
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
        If the teacher has another input, an option is impossible, or what is
        in ``out`` is of another run: of other data or options. Only the
        number of steps of the ``'steady'`` schedule may become larger.
    """
    teacher = _check(model, scenes, teacher, schedule,
                     {'decision': decision, 'totals': totals})
    told = {'n_items': n_items, 'crop_size': crop_size, 'seed': seed}
    settings = {**told, 'peak_rate': peak_rate, 'weight_decay': weight_decay,
                'warmup': warmup, 'average_decay': average_decay,
                'own_seeds_from': own_seeds_from, 'n_pool': n_pool,
                'layer_decay': layer_decay, 'validate_every': validate_every,
                'patience': patience}
    check('fit', {**settings, 'n_steps': n_steps, 'n_workers': n_workers,
                  'save_every': save_every,
                  'milestone_every': milestone_every}, fit_model)
    fabric = make_fabric(device, bfloat16, share=False)
    fixed = _prepare(model, freeze_backbone, fabric.device)
    if teacher is not None:
        teacher = teacher.to(fabric.device)
    groups, factors = parameter_groups(model, layer_decay)
    optimizer = make_optimizer(groups, peak_rate, weight_decay)
    average = start_average(model)
    stopping = EarlyStopping(validation, validate_every, patience)
    settings.update(
        schedule=schedule, rates=rates, freeze_backbone=freeze_backbone,
        class_weights=list(class_weights), model=model.spec,
        data=fingerprint(scenes),
        teacher=None if teacher is None else digest(teacher)[:16],
        validation=None if validation is None else fingerprint(validation))
    if schedule != 'steady':            # can be made longer
        settings['n_steps'] = n_steps

    def provenance():
        return {'steps': run.step, **told, **stopping.summary(),
                'hours': round(run.seconds / 3600, 2),
                'machine': device_name(fabric.device)}

    def milestone(step):
        if step % milestone_every == 0:
            other = deepcopy(average)
            other.provenance.update(provenance())
            other.cpu().save(run.out / 'average.safetensors')

    run = Run(out, fabric, {'model': model, 'average': average,
                            'stopping': stopping}, optimizer, settings,
              same=True, n_steps=n_steps, batch_size=n_items,
              save_every=save_every, stop_after=stop_after,
              stopping=stopping, milestone=milestone,
              measure=lambda step: stopping.look(average, step),
              progress=progress)
    semantic = isinstance(model, SemanticModel)
    data = (ClassCrops if semantic else LevelCrops)(
        scenes, model.planes, n_steps * n_items, crop_size=crop_size,
        rates=rates, seed=seed)
    if freeze_backbone and semantic:
        data = TokenCrops(model, data, teacher, n_items=n_items,
                          n_pool=n_pool)
        n_workers = 0
    end = run.step if run.is_over else n_steps
    todo = Subset(data, range(run.step * n_items, end * n_items))
    batches = iter(DataLoader(
        todo, batch_size=n_items, num_workers=n_workers, collate_fn=_flatten,
        prefetch_factor=8 if n_workers else None))
    options = {'class_weights': class_weights, 'teacher': teacher,
               'autocast': fabric.autocast, 'device': fabric.device}
    model.train()
    for part in fixed:
        part.eval()

    for step in run.steps():
        rate = SCHEDULES[schedule](step, n_steps, peak=peak_rate,
                                   warmup=warmup)
        for group, factor in zip(optimizer.param_groups, factors):
            group['lr'] = factor * rate
        crops = run.load(batches)
        generator = torch.Generator().manual_seed(seed * 10_000_019 + step)
        if semantic:
            losses = semantic_losses(model, crops, generator, **options)
        else:
            losses = level_losses(model, crops, generator,
                                  own_seeds=step >= own_seeds_from, **options)
        total = sum(WEIGHTS.get(name, 1.0) * value
                    for name, value in losses.items())
        optimizer.zero_grad()
        fabric.backward(total)
        norm = fabric.clip_gradients(model, optimizer, max_norm=3.0,
                                     error_if_nonfinite=False)
        optimizer.step()
        move_average(average, model,
                     min(average_decay, (step + 1) / (step + 10)))
        run.add(loss=total, **losses)
        run.note(norm, learning_rate=rate)

    for part in fixed:
        part.requires_grad_(True)
    model.load_state_dict(stopping.best or average.state_dict())
    model.provenance.update(provenance())
    model.cpu().eval()
    if run.is_over:
        for fit_last, given in ((fit_decision, decision),
                                (fit_totals, totals)):
            if given is not None:
                fit_last(model, scenes, **{
                    'rates': rates, 'bfloat16': bfloat16,
                    'progress': progress, **given})
        model.save(run.out / 'model.safetensors')
    return model


def make_optimizer(groups, rate, weight_decay):
    """AdamW, in one kernel where torch has it for these parameters."""
    options = {'lr': rate, 'weight_decay': weight_decay}
    try:
        return torch.optim.AdamW(groups, fused=True, **options)
    except RuntimeError:
        return torch.optim.AdamW(groups, **options)


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
        fixed += [one for one in (model.decision, model.totals)
                  if one is not None]
    model.to(device, memory_format=torch.channels_last)
    for part in fixed:
        part.requires_grad_(False)
    return fixed


def _check(model, scenes, teacher, schedule, last):
    """The teacher, ready to run; raise if options do not go together."""
    if schedule not in SCHEDULES:
        msg = f'schedule must be one of {[*SCHEDULES]}, got {schedule!r}'
        raise ValueError(msg)
    for name, options in last.items():
        if options is None:
            continue
        if isinstance(model, SemanticModel):
            msg = f'{name}: a semantic model has none'
            raise ValueError(msg)
        enough_scenes(scenes, options.get('n_scenes', len(scenes)),
                      f'{name}: ')
    if teacher is None:
        return None
    if model.planes != teacher.planes:
        msg = (f'teacher must have the input {model.planes!r}, got '
               f'{teacher.planes!r}')
        raise ValueError(msg)
    if model.classes != teacher.classes:
        msg = (f'teacher must tell {model.classes[1:]}, it tells '
               f'{teacher.classes[1:]}')
        raise ValueError(msg)
    return deepcopy(teacher).eval()
