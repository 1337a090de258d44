# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Self-supervised pretraining: one straight loop.
"""

import copy
import math
import warnings
from inspect import signature

import torch
from torch.utils.data import DataLoader

from astrodino_seg.errors import CollapseWarning, check
from astrodino_seg.train.batches import Batches
from astrodino_seg.train.methods import DINO, Student, decay_groups
from astrodino_seg.train.runner import (
    Run,
    device_name,
    make_fabric,
    move_average,
    one_at_a_time,
    seed_step,
    start_average,
)

MIN_SPREAD = 0.02       # of unit features, where 1 fills all directions
MIN_INFORMATION = 0.02  # of what the batch could hold


@one_at_a_time
def pretrain(encoder, views, *, out, n_steps, batch_size=64, n_parts=1,
             objective=None, peak_rate=5e-4, warmup=0.1,
             weight_decay=(0.04, 0.4), momentum=(0.996, 1.0),
             temperature=(0.04, 0.07), temperature_warmup=0.3,
             frozen_prototypes=0.01, drop_path=0.1, max_gradient=3.0,
             mask_share=0.5, mask_ratio=(0.1, 0.5), bfloat16=None,
             device='auto', save_every=200, log_every=10,
             stop_after=None, n_workers=1, seed=0, source=None, progress=True):
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
    encoder : `~astrodino_seg.models.Backbone`
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
    stop_after : float, optional
        Seconds after which to stop, at the next checkpoint, to go on another
        time.
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
    encoder : `~astrodino_seg.models.Backbone`
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
    check('pretrain', {**settings, 'save_every': save_every,
                       'log_every': log_every, 'n_workers': n_workers},
          pretrain)
    if mask_ratio[0] > mask_ratio[1]:
        msg = f'mask_ratio must be a range, got {mask_ratio!r}'
        raise ValueError(msg)
    check_views(views, encoder, n_steps * batch_size)
    settings.update(objective=describe(objective), encoder=encoder.spec,
                    source=source or {})

    fabric = make_fabric(device, bfloat16)
    if batch_size % (n_parts * fabric.world_size):
        msg = (f'batch_size must be a multiple of n_parts={n_parts} times '
               f'{fabric.world_size} processes, got {batch_size}')
        raise ValueError(msg)
    torch.manual_seed(seed)
    student = Student(copy.deepcopy(encoder.vit), objective.projector,
                      patches=objective.patches, drop_path=drop_path).train()
    adamw = torch.optim.AdamW(decay_groups(student))
    model, optimizer = fabric.setup(student, adamw)
    teacher = start_average(student)
    objective = fabric.to_device(objective)
    run = Run(out, fabric, {'student': student, 'teacher': teacher,
                            'objective': objective}, adamw, settings,
              same=True, n_steps=n_steps, batch_size=batch_size,
              save_every=save_every, log_every=log_every,
              stop_after=stop_after, progress=progress,
              watch=CollapseMonitor(warmup * n_steps))
    batches = iter(DataLoader(
        Batches(views, batch_size, encoder.vit.patch_size,
                n_parts=n_parts, mask_ratio=mask_ratio, seed=seed,
                mask_share=mask_share if objective.patches else 0,
                rank=fabric.global_rank, n_processes=fabric.world_size),
        batch_size=None, num_workers=n_workers,
        sampler=range(run.step * n_parts, n_steps * n_parts),
        pin_memory=fabric.device.type == 'cuda'))

    for step in run.steps():
        rates = {
            'learning_rate': warmup_cosine(step, n_steps, peak=peak_rate,
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
            batch = fabric.to_device(run.load(batches))
            with torch.no_grad(), fabric.autocast():
                theirs = teacher(batch.global_views, mask=batch.mask,
                                 hide=False)
            with fabric.no_backward_sync(model, enabled=part < n_parts - 1):
                ours = model(*batch)
                loss, parts = objective(ours, theirs, batch.mask,
                                        rates['temperature'])
                fabric.backward(loss / n_parts)
            run.add(loss=loss, **parts)
        if step < round(frozen_prototypes * n_steps):
            student.freeze_prototypes()
        norm = fabric.clip_gradients(model, optimizer, max_norm=max_gradient,
                                     error_if_nonfinite=False)
        optimizer.step()
        optimizer.zero_grad()
        objective.end_step()
        move_average(teacher, student, rates['momentum'])
        run.note(norm, **rates)

    encoder.vit.load_state_dict(
        {k: v.cpu() for k, v in teacher.vit.state_dict().items()})
    encoder.provenance.update(
        run.settings, hours=round(run.seconds / 3600, 3),
        machine=f'{fabric.world_size} x {device_name(fabric.device)}')
    if fabric.is_global_zero and run.is_over:
        encoder.save(run.out / 'backbone.safetensors')
    fabric.barrier()
    return encoder.cpu().eval()


# what changes is a function of the step, which counts from 0

def ramp(step, n_steps, start, end):
    """A straight line, then constant."""
    if step >= n_steps:
        return end
    return start + (end - start) * step / n_steps


def cosine(step, n_steps, start, end):
    """Half a period of a cosine."""
    progress = min(step / max(n_steps - 1, 1), 1.0)
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * progress))


def warmup_cosine(step, n_steps, *, peak, warmup, end=1e-6):
    """Linear warm-up, then a cosine."""
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    return cosine(step - warmup, n_steps - warmup, peak, end)


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


class CollapseMonitor:
    """
    Warn, once for each sign that the student has found a trivial answer: one
    prototype for all images, or all alike for all (Caron et al. 2021, section
    5.3), so that the teacher tells nothing of the image, and features do not
    differ.
    """

    def __init__(self, warmup):
        self.warmup = warmup
        self._told = set()

    def __call__(self, step, values):
        """Look at what was logged."""
        if step < self.warmup:
            return
        for sign, text in _signs(values):
            if sign not in self._told:
                self._told.add(sign)
                warnings.warn(f'step {step}: {text}', CollapseWarning)


def _signs(values):
    """Yield the name of each sign of collapse, and what it means."""
    spread = values['feature_std']
    if not spread >= MIN_SPREAD:
        yield 'features', (
            f'the features are the same for all images (spread {spread:.2g} '
            f'of 1): the training has collapsed. Lower the peak rate or the '
            f"teacher's temperature, or raise the teacher's momentum")
    if 'information' in values and not (
            values['information'] >= MIN_INFORMATION):
        entropy = values['teacher_entropy']
        if entropy > 0.5:
            yield 'uniform', (
                f'the teacher gives all prototypes alike to every image '
                f'(entropy {entropy:.2f} of its largest value): lower the '
                f"teacher's temperature")
        else:
            yield 'single', (
                f'the teacher gives the same prototypes to every image '
                f'(entropy {entropy:.2f} of its largest value): centre with '
                f"'sinkhorn', or raise the teacher's temperature")
