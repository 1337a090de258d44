# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Self-supervised pretraining: one straight loop.
"""

import copy
import math
import time
from inspect import signature
from numbers import Integral, Real
from pathlib import Path

import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from astrodino_seg.train.batches import Batches
from astrodino_seg.train.methods import (
    DINO,
    CollapseMonitor,
    Student,
    decay_groups,
    make_teacher,
    update_teacher,
)
from astrodino_seg.train.runner import (
    Checkpoint,
    Log,
    device_name,
    make_fabric,
    seed_step,
)
from astrodino_seg.train.schedules import cosine, learning_rate, ramp

__all__ = ['pretrain']


def pretrain(encoder, views, *, out, n_steps, batch_size=64, n_parts=1,
             objective=None, peak_rate=5e-4, warmup=0.1,
             weight_decay=(0.04, 0.4), momentum=(0.996, 1.0),
             temperature=(0.04, 0.07), temperature_warmup=0.3,
             frozen_prototypes=0.01, drop_path=0.1, max_gradient=3.0,
             mask_share=0.5, mask_ratio=(0.1, 0.5), bfloat16=None,
             device='auto', save_every=200, log_every=10, n_workers=1,
             seed=0, source=None, progress=True):
    """
    Train an encoder on images without labels.

    A student learns to say of any view of an image what its teacher, a running
    average of the student, says of another (Caron et al. 2021,
    `arXiv:2104.14294 <https://arxiv.org/abs/2104.14294>`_; Oquab et al. 2023,
    `arXiv:2304.07193 <https://arxiv.org/abs/2304.07193>`_).

    What is drawn at random in a step depends on the step and the seed alone: a
    run that was killed goes on from its last checkpoint in ``out`` as if
    nothing had happened. Started by ``torchrun``, the processes share each
    batch between them. The global random state of torch is changed.

    Parameters
    ----------
    encoder : `~astrodino_seg.models.load.Encoder`
        What is trained; changed in place, in the end to the teacher's.
    views : `~torch.utils.data.Dataset`
        ``n_steps * batch_size`` items or more, each a
        `~astrodino_seg.train.views.Views`.
    out : path-like
        Folder for checkpoint, log and ``backbone.safetensors``.
    n_steps : int
        Steps of the optimiser.
    batch_size : int, optional
        Items a step, of all processes and parts.
    n_parts : int, optional
        Parts that each process takes its share of a batch in, one after the
        other, to save memory (gradient accumulation).
    objective : `~torch.nn.Module`, optional
        `~astrodino_seg.train.DINO`, the default, or
        `~astrodino_seg.train.SimDINO`.
    peak_rate, warmup : float, optional
        Largest learning rate of AdamW (Loshchilov & Hutter 2019), and the
        share of the steps in which it rises.
    weight_decay, momentum : tuple of float, optional
        First and last value of AdamW's weight decay and of the teacher's
        momentum; between, they follow a cosine.
    temperature : tuple of float, optional
        First and last value of the teacher's temperature.
    temperature_warmup : float, optional
        The share of the steps in which it changes, linearly.
    frozen_prototypes : float, optional
        The share of the steps in which the prototypes stay as they were drawn.
    drop_path : float, optional
        The student's stochastic depth in its last layer.
    max_gradient : float, optional
        The norm that gradients are clipped to.
    mask_share, mask_ratio : float and tuple of float, optional
        Share of the global views with hidden patches, and the range of their
        share; ignored if the objective does not ask for patches.
    bfloat16 : bool, optional
        Whether the networks run in bfloat16 (losses and weights stay float32).
        If `None`, on CUDA devices only.
    device : str, optional
        ``'cpu'``, ``'cuda'`` or what else Lightning Fabric calls an
        accelerator; the best at hand by default.
    save_every, log_every : int, optional
        Steps between checkpoints, and between lines of the log.
    n_workers : int, optional
        Processes that make the data.
    seed : int, optional
        Seed of all that is drawn but the views and the encoder's weights.
    source : dict, optional
        What is to be written into the checkpoint and the encoder's file beside
        the settings, of the data above all; JSON.
    progress : bool, optional
        Whether to show a progress bar.

    Returns
    -------
    encoder : `~astrodino_seg.models.load.Encoder`
        The teacher, in evaluation mode, on the CPU.

    Raises
    ------
    ValueError
        If an argument is impossible, the views do not fit the encoder, or the
        checkpoint in ``out`` is that of another run.
    OSError
        If ``out`` cannot be written to, or the disk is full.
    FloatingPointError
        If the loss is no longer finite.

    Warns
    -----
    CollapseWarning
        If the features or the teacher's answers no longer depend on the image.
    """
    objective = DINO() if objective is None else objective
    settings = {
        'n_steps': n_steps, 'batch_size': batch_size, 'n_parts': n_parts,
        'peak_rate': peak_rate, 'warmup': warmup,
        'weight_decay': weight_decay, 'momentum': momentum,
        'temperature': temperature, 'temperature_warmup': temperature_warmup,
        'frozen_prototypes': frozen_prototypes, 'drop_path': drop_path,
        'max_gradient': max_gradient, 'mask_share': mask_share,
        'mask_ratio': mask_ratio, 'seed': seed}
    check_table('pretrain', settings, pretrain)
    check_settings(settings)
    check_counts(save_every=save_every, log_every=log_every)
    check_counts(0, n_workers=n_workers)
    check_views(views, encoder, n_steps * batch_size)
    settings.update(objective=describe(objective), encoder=encoder.spec,
                    source=source or {})

    fabric = make_fabric(device, bfloat16)
    if batch_size % (n_parts * fabric.world_size):
        msg = (f'batch_size must be a multiple of n_parts={n_parts} times '
               f'{fabric.world_size} processes, got {batch_size}')
        raise ValueError(msg)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    student = Student(copy.deepcopy(encoder.vit), objective.projector,
                      patches=objective.patches, drop_path=drop_path).train()
    adamw = torch.optim.AdamW(decay_groups(student))
    model, optimizer = fabric.setup(student, adamw)
    teacher = make_teacher(student)
    objective = fabric.to_device(objective)
    checkpoint = Checkpoint(
        out / 'checkpoint.safetensors', {
            'student': student, 'teacher': teacher, 'objective': objective},
        adamw, settings)
    if fabric.is_global_zero:
        checkpoint.check_folder()
    start, seconds = checkpoint.read()
    data = Batches(views, batch_size, encoder.vit.patch_size,
                   n_parts=n_parts, mask_ratio=mask_ratio, seed=seed,
                   mask_share=mask_share if objective.patches else 0,
                   rank=fabric.global_rank, n_processes=fabric.world_size)
    batches = iter(DataLoader(
        data, batch_size=None, num_workers=n_workers,
        sampler=range(start * n_parts, n_steps * n_parts),
        pin_memory=fabric.device.type == 'cuda'))
    log = Log(out, start, batch_size, fabric)
    monitor = CollapseMonitor(warmup * n_steps)
    bar = tqdm(total=n_steps, initial=start, mininterval=5,
               disable=not (progress and fabric.is_global_zero))
    begin = time.monotonic() - seconds

    for step in range(start, n_steps):
        rates = {
            'learning_rate': learning_rate(step, n_steps, peak=peak_rate,
                                           warmup=round(warmup * n_steps)),
            'weight_decay': cosine(step, n_steps, *weight_decay),
            'momentum': cosine(step, n_steps, *momentum),
            'temperature': ramp(step, round(temperature_warmup * n_steps),
                                *temperature)}
        for group in adamw.param_groups:
            group['lr'] = rates['learning_rate']
            group['weight_decay'] = rates['weight_decay'] * group['decays']
        seed_step(seed, step, fabric.global_rank)
        for part in range(n_parts):
            with log.waiting():
                batch = fabric.to_device(next(batches))
            with torch.no_grad(), fabric.autocast():
                theirs = teacher(batch.global_views, mask=batch.mask,
                                 hide=False)
            with fabric.no_backward_sync(model, enabled=part < n_parts - 1):
                ours = model(*batch)
                loss, parts = objective(ours, theirs, batch.mask,
                                        rates['temperature'])
                fabric.backward(loss / n_parts)
            log.add(loss=loss, **parts)
        if step < round(frozen_prototypes * n_steps):
            student.freeze_prototypes()
        norm = fabric.clip_gradients(model, optimizer, max_norm=max_gradient,
                                     error_if_nonfinite=False)
        optimizer.step()
        optimizer.zero_grad()
        objective.end_step()
        update_teacher(teacher, student, rates['momentum'])

        done = step + 1
        seconds = time.monotonic() - begin
        saves = done % save_every == 0 or done == n_steps
        if saves or done % log_every == 0:
            check_finite(step, loss, norm)
        if done % log_every == 0:
            values = log.write(done, seconds, {'gradient': norm, **rates})
            if fabric.is_global_zero:
                monitor(step, values)
            bar.set_postfix(loss=f'{values["loss"]:.3f}', refresh=False,
                            images_s=f'{values["images_per_second"]:.0f}')
        if saves and fabric.is_global_zero:
            checkpoint.write(done, seconds)
        bar.update()

    bar.close()
    log.close()
    encoder.vit.load_state_dict(
        {k: v.cpu() for k, v in teacher.vit.state_dict().items()})
    encoder.provenance.update(
        settings, hours=round(seconds / 3600, 3),
        machine=f'{fabric.world_size} x {device_name(fabric.device)}')
    if fabric.is_global_zero:
        encoder.save(out / 'backbone.safetensors')
    fabric.barrier()
    return encoder.cpu().eval()


SHARES = ('warmup', 'temperature_warmup', 'frozen_prototypes', 'drop_path',
          'mask_share')
#: The range that both ends of a schedule, or of an interval, are in.
RANGES = {'weight_decay': (0, math.inf), 'momentum': (0, 1),
          'temperature': (1e-4, math.inf), 'mask_ratio': (0, 1)}


def check_table(name, table, function, *, without=(), extra=()):
    """Check that a table of a recipe can be the arguments of a function."""
    if not isinstance(table, dict):
        msg = f'{name} must be a table, got {table!r}'
        raise ValueError(msg)
    known = {key: parameter.default for key, parameter
             in signature(function).parameters.items() if key not in without}
    known.update(dict.fromkeys(extra))
    unknown = sorted(set(table) - set(known))
    if unknown:
        msg = f'{name} has unknown keys {unknown}; known are {sorted(known)}'
        raise ValueError(msg)
    for key, value in table.items():
        kind, found = _kind(known[key]), _kind(value)
        if kind == 'a number' and found == 'an integer':
            continue
        if None not in (kind, found) and kind != found:
            msg = f'{name}: {key} must be {kind}, got {value!r}'
            raise ValueError(msg)


def _kind(value):
    """What a value is, in words; `None` if it may be anything."""
    if isinstance(value, bool):
        return 'true or false'
    if isinstance(value, Integral):
        return 'an integer'
    if isinstance(value, Real):
        return 'a number'
    if isinstance(value, str):
        return 'a string'
    if isinstance(value, (tuple, list)):
        numbers = all(isinstance(v, Real) for v in value)
        return f'{len(value)} numbers' if numbers else 'a list'
    return None


def check_counts(least=1, **counts):
    """Raise `ValueError` for what is no integer, or too small a one."""
    for name, value in counts.items():
        if not (isinstance(value, Integral) and value >= least):
            kind = ('a positive integer' if least == 1
                    else f'an integer of {least} or more')
            msg = f'{name} must be {kind}, got {value!r}'
            raise ValueError(msg)


def check_settings(settings):
    """Check the arguments of `~astrodino_seg.train.pretrain`."""
    check_counts(**{name: settings[name] for name in
                    ('n_steps', 'batch_size', 'n_parts')})
    check_counts(0, seed=settings['seed'])
    for name in ('peak_rate', 'max_gradient'):
        if not settings[name] > 0:
            msg = f'{name} must be positive, got {settings[name]!r}'
            raise ValueError(msg)
    for name in SHARES:
        if not 0 <= settings[name] <= 1:
            msg = f'{name} must be in [0, 1], got {settings[name]!r}'
            raise ValueError(msg)
    for name, (low, high) in RANGES.items():
        values = settings[name]
        if len(values) != 2 or not all(low <= v <= high for v in values):
            msg = (f'{name} must be two numbers in [{low}, {high}], got '
                   f'{values!r}')
            raise ValueError(msg)
    least, most = settings['mask_ratio']
    if least > most:
        msg = f'mask_ratio must be a range, got {settings["mask_ratio"]!r}'
        raise ValueError(msg)


def check_views(views, encoder, n_items):
    """Check that views can be the input of an encoder."""
    if len(views) < n_items:
        msg = (f'views has {len(views)} items; n_steps * batch_size = '
               f'{n_items} are needed')
        raise ValueError(msg)
    spec = getattr(views, 'spec', encoder.preprocess)
    if spec != encoder.preprocess:
        msg = (f'views are made with {spec}, the encoder has '
               f'{encoder.preprocess}')
        raise ValueError(msg)
    for name, view in zip(('global', 'local'), views[0]):
        _, n_channels, *size = view.shape
        if n_channels != encoder.vit.in_channels:
            msg = (f'views: the {name} ones have {n_channels} channels, the '
                   f'encoder takes {encoder.vit.in_channels}')
            raise ValueError(msg)
        if any(n % encoder.vit.patch_size for n in size):
            msg = (f'views: the sides of the {name} ones must be multiples '
                   f'of patch_size={encoder.vit.patch_size}, got {size[0]}')
            raise ValueError(msg)


def describe(thing):
    """
    The arguments that an object was made with, which it stores by their names.
    """
    names = signature(type(thing)).parameters
    return {'kind': type(thing).__name__,
            **{name: getattr(thing, name) for name in names}}


def check_finite(step, loss, norm):
    """Stop a training that has failed."""
    loss, norm = loss.item(), norm.item()
    if not (math.isfinite(loss) and math.isfinite(norm)):
        msg = (f'step {step}: the loss is {loss:g} and the norm of its '
               f'gradient {norm:g}; lower peak_rate')
        raise FloatingPointError(msg)
