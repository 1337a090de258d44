# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
A run of training: its optimiser, its average, its checkpoint and its log.
"""

import json
import os
import platform
import tempfile
import time
from copy import deepcopy
from pathlib import Path

import torch

__all__ = ['Run', 'make_optimizer']


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


def make_optimizer(groups, rate, weight_decay):
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


class Run:
    """
    What changes from step to step, in memory and on disk.

    Parameters
    ----------
    out : path-like
        Folder for the checkpoint, the log and the average.
    model : `~torch.nn.Module`
        What is trained.
    optimizer : `~torch.optim.Optimizer`
        Of its parameters.
    stopping : `~astrodino_seg.train.validation.EarlyStopping`
        When it is over before its last step.
    told : dict
        What else the provenance is to tell.

    Attributes
    ----------
    step : int
        Steps so far.
    seconds : float
        What they took.
    average : dict of `~torch.Tensor`
        The running average of the weights.
    """

    def __init__(self, out, model, optimizer, stopping, told):
        self.out, self.model, self.optimizer = Path(out), model, optimizer
        self.stopping, self.told = stopping, told
        self.average = {k: v.clone() for k, v in model.state_dict().items()}
        self.step, self.seconds = 0, 0.0

    def resume(self, device):
        """Go on from the checkpoint, if there is one."""
        self.out.mkdir(parents=True, exist_ok=True)
        path = self.out / 'checkpoint.pt'
        if path.exists():
            state = torch.load(path, weights_only=True, map_location=device)
            self.model.load_state_dict(state['model'])
            _load_optimizer(self.optimizer, state['optimizer'])
            self.average, self.step = state['average'], state['step']
            self.seconds = state['seconds']
            self.stopping.load(state.get('stopping'))
            _shorten(self.out / 'log.jsonl', self.step)

    def begin(self, fixed):
        """Start the clock; what is fixed is not in training mode."""
        if self.step == 0:
            self.stopping.look(self.model, self.average, 0)
        self.model.train()
        for part in fixed:
            part.eval()
        self.first = self.seconds
        self.clock = time.monotonic() - self.seconds

    @property
    def lasted(self):
        """Seconds since it began or went on."""
        return self.seconds - self.first

    def update(self, losses, rate, decay):
        """One step of the optimiser, and a line in the log."""
        self.optimizer.zero_grad()
        losses['total'].backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), 3.0)
        self.optimizer.step()
        line = {'step': self.step, 'seconds': 0, 'rate': rate,
                'norm': round(norm.item(), 2),
                **{k: round(v.item(), 4) for k, v in losses.items()}}
        self.step += 1
        _average(self.average, self.model,
                 min(decay, self.step / (self.step + 9)))
        line |= self.stopping.look(self.model, self.average, self.step)
        self.seconds = time.monotonic() - self.clock
        line['seconds'] = round(self.seconds, 1)
        with open(self.out / 'log.jsonl', 'a') as log:
            log.write(json.dumps(line) + '\n')

    def save(self):
        """Write the checkpoint."""
        _save(self.out / 'checkpoint.pt', {
            'model': self.model.state_dict(),
            'optimizer': self.optimizer.state_dict(),
            'average': self.average, 'step': self.step,
            'stopping': self.stopping.state(), 'seconds': self.seconds})

    def tell(self):
        """For the provenance."""
        return {'steps': self.step, **self.told, **self.stopping.summary(),
                'hours': round(self.seconds / 3600, 2),
                'machine': f'{platform.machine()}, '
                           f'{torch.get_num_threads()} threads'}

    def write_average(self):
        """Write the running average."""
        other = deepcopy(self.model)
        other.load_state_dict(self.average)
        other.provenance.update(self.tell())
        other.cpu().save(self.out / 'average.safetensors')

    def finish(self, fixed):
        """The model has the average, or the best of it, on the CPU."""
        for part in fixed:
            part.requires_grad_(True)
        best = self.stopping.best
        self.model.load_state_dict(self.average if best is None else best)
        self.model.provenance.update(self.tell())
        self.model.cpu().eval()
