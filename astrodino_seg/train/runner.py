# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Runs of training: processes and devices, checkpoints, the log, averages.
"""

import csv
import json
import os
import platform
import shutil
import tempfile
import time
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from astrodino_seg.errors import ModelFileError, require


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
    """What changes from step to step, in memory and on disk."""

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


#: Name and version of the format.
FORMAT = 'astrodino_seg/pretraining-1'


class Checkpoint:
    """The checkpoint of a run."""

    def __init__(self, path, modules, optimizer, settings):
        self.path = Path(path)
        self.modules = modules
        self.optimizer = optimizer
        self.settings = json.loads(json.dumps(settings))

    def check_folder(self):
        """Check that checkpoints can be written, before any time is spent."""
        part = self._part()
        try:
            part.touch()
            part.unlink()
        except OSError as err:
            msg = f'out: cannot write to {str(self.path.parent)!r}: {err}'
            raise OSError(msg) from err
        n_bytes = sum(p.numel() * p.element_size()
                      for module in self.modules.values()
                      for p in (*module.parameters(), *module.buffers()))
        n_bytes += sum(2 * p.numel() * p.element_size()
                       for group in self.optimizer.param_groups
                       for p in group['params'])
        free = shutil.disk_usage(self.path.parent).free
        if free < 2 * n_bytes:
            msg = (f'out: {free / 1e6:.0f} MB are free in '
                   f'{str(self.path.parent)!r}, checkpoints need '
                   f'{2 * n_bytes / 1e6:.0f} MB')
            raise OSError(msg)

    def _part(self):
        return self.path.with_name(self.path.name + '.part')

    def write(self, step, seconds):
        """Replace the checkpoint."""
        tensors = {f'{name}.{key}': value
                   for name, module in self.modules.items()
                   for key, value in module.state_dict().items()}
        state = self.optimizer.state_dict()['state']
        tensors.update({f'optimizer.{i}.{key}': value
                        for i, values in state.items()
                        for key, value in values.items()})
        metadata = {'format': FORMAT, 'step': json.dumps(step),
                    'seconds': json.dumps(seconds),
                    'settings': json.dumps(self.settings),
                    'torch': torch.__version__}
        part = self._part()
        try:
            with open(part, 'wb') as stream:
                stream.write(save({k: v.contiguous().cpu()
                                   for k, v in tensors.items()}, metadata))
                stream.flush()
                os.fsync(stream.fileno())
            part.replace(self.path)
        except OSError as err:
            part.unlink(missing_ok=True)
            msg = f'out: no checkpoint at step {step}: {err}'
            raise OSError(msg) from err

    def read(self):
        """Go on from the checkpoint, if there is one."""
        if not self.path.exists():
            return 0, 0.0
        name = str(self.path)
        try:
            with safe_open(self.path, 'pt') as f:
                metadata = f.metadata() or {}
                keys = f.keys()
                tensors = {key: f.get_tensor(key) for key in keys}
        except (SafetensorError, OSError) as err:
            msg = f'out: {name!r} is not a readable checkpoint: {err}'
            raise ModelFileError(msg) from err
        if metadata.get('format') != FORMAT:
            msg = (f'out: {name!r} has format {metadata.get("format")!r}, '
                   f'this version reads {FORMAT!r}')
            raise ModelFileError(msg)
        differences = list(_differences(json.loads(metadata['settings']),
                                        self.settings))
        if differences:
            msg = (f'out: {name!r} is of another run; give another folder. '
                   f'What differs: {"; ".join(differences)}')
            raise ValueError(msg)
        self._load(tensors)
        return json.loads(metadata['step']), json.loads(metadata['seconds'])

    def _load(self, tensors):
        parts = {}
        for key, value in tensors.items():
            owner, _, key = key.partition('.')
            parts.setdefault(owner, {})[key] = value
        for name, module in self.modules.items():
            module.load_state_dict(parts.get(name, {}))
        state = {}
        for key, value in parts.get('optimizer', {}).items():
            i, _, key = key.partition('.')
            state.setdefault(int(i), {})[key] = value.clone()
        groups = self.optimizer.state_dict()['param_groups']
        self.optimizer.load_state_dict({'state': state,
                                        'param_groups': groups})


def _differences(old, new, name=''):
    """Yield what differs between two trees of JSON."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            yield from _differences(old.get(key), new.get(key),
                                    f'{name}.{key}' if name else key)
    elif old != new:
        yield f'{name} was {old!r}, is {new!r}'


class Log:
    """Means over some steps and processes, written now and then."""

    def __init__(self, folder, start, batch_size, fabric):
        self.path = Path(folder) / 'log.csv'
        self.batch_size = batch_size
        self.fabric = fabric
        self.board = None
        if fabric.is_global_zero:
            if self.path.exists():
                _forget(self.path, start)
            self.board = _tensorboard(folder, start)
        self._last = start
        self._begin()

    def _begin(self):
        self._sums, self._n = {}, 0
        self._since, self._waited = time.monotonic(), 0.0

    @contextmanager
    def waiting(self):
        """Count the time within as waiting for data."""
        begin = time.monotonic()
        yield
        self._waited += time.monotonic() - begin

    def add(self, **values):
        """Count scalars, each a `~torch.Tensor`, in the means."""
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0) + value.detach()
        self._n += 1

    def write(self, step, seconds, others):
        """Write a line, of the steps since the last."""
        took = max(time.monotonic() - self._since, 1e-9)
        means = torch.stack([v.float() for v in self._sums.values()]) / self._n
        means = self.fabric.all_reduce(means, reduce_op='mean').tolist()
        values = {
            'seconds': seconds, **dict(zip(self._sums, means)),
            **{name: float(value) for name, value in others.items()},
            'images_per_second':
                (step - self._last) * self.batch_size / took,
            'waiting': self._waited / took}
        if self.fabric.is_global_zero:
            _append(self.path, step, values)
            for name, value in values.items():
                if self.board is not None:
                    self.board.add_scalar(name, value, step)
        self._last = step
        self._begin()
        return values

    def close(self):
        """Finish the files."""
        if self.board is not None:
            self.board.close()


def _append(path, step, values):
    """Add a line, and the names of the columns before the first."""
    is_new = not path.exists() or path.stat().st_size == 0
    with open(path, 'a', newline='') as stream:
        writer = csv.writer(stream, lineterminator='\n')
        if is_new:
            writer.writerow(['step', *values])
        writer.writerow([step, *(f'{value:.7g}'
                                 for value in values.values())])


def _forget(path, start):
    """Leave out lines of later steps, and one that a killed run broke off."""
    head, *lines = path.read_text().splitlines() or ['']
    kept = [line for line in lines if line.count(',') == head.count(',')
            and int(line.split(',')[0]) <= start]
    part = path.with_suffix('.part')
    lines = [head, *kept] if kept else []
    part.write_text(''.join(f'{line}\n' for line in lines))
    part.replace(path)


def _tensorboard(folder, start):
    """A writer of TensorBoard's files, or `None`."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(folder, purge_step=start + 1)


def make_fabric(device='auto', bfloat16=None):
    """Start Lightning Fabric: one process, or those of ``torchrun``."""
    if bfloat16 not in (None, True, False):
        msg = f'bfloat16 must be True, False or None, got {bfloat16!r}'
        raise ValueError(msg)
    fabric = require('lightning_fabric', 'pretrain')
    n_local = int(os.environ.get('LOCAL_WORLD_SIZE', 0))
    n_all = int(os.environ.get('WORLD_SIZE', 1))
    if device == 'auto':
        device = 'cuda' if torch.cuda.is_available() else 'cpu'
    if device == 'cuda' and not torch.cuda.is_available():
        msg = "device: torch finds no GPU for 'cuda'"
        raise ValueError(msg)
    if bfloat16 is None:
        bfloat16 = device == 'cuda'
    fabric = fabric.Fabric(
        accelerator=device, devices=n_local or 1,
        num_nodes=n_all // n_local if n_local else 1,
        strategy='ddp' if n_local else 'auto',
        precision='bf16-mixed' if bfloat16 else '32-true')
    fabric.launch()
    return fabric


def seed_step(seed, step, rank):
    """Seed torch for a step of a process, whatever came before."""
    state = np.random.SeedSequence((seed, step, rank)).generate_state(1)
    torch.manual_seed(int(state[0]))


def device_name(device):
    """What a device is, in words."""
    if device.type == 'cuda':
        return torch.cuda.get_device_name(device)
    return f'{platform.machine()}, {torch.get_num_threads()} threads'
