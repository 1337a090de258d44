# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The runner of all training: devices and processes, checkpoint, log, averages. A
loop asks it for the steps that are left; around each the runner counts, logs,
measures, saves and stops. What is drawn at random in a step depends on the
seed and the number of the step alone, so that a run that was killed goes on
from its last checkpoint as if nothing had happened.
"""

import copy
import json
import math
import os
import platform
import shutil
import time
from contextlib import suppress
from functools import wraps
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from astrodino_seg.errors import ModelFileError, require
from astrodino_seg.files import locked, whole_or_not

#: Name and version of the format of checkpoints.
FORMAT = 'astrodino_seg/training-2'
#: Settings of checkpoints of before, which do not tell one run from another.
OLD_SETTINGS = {'n_items', 'crop_size', 'seed', 'n_steps'}


def one_at_a_time(fit):
    """A training that no other may do into the same ``out`` meanwhile."""
    @wraps(fit)
    def alone(*args, out, **options):
        if int(os.environ.get('RANK', 0)):      # the first process asks
            return fit(*args, out=out, **options)
        folder, is_new = Path(out), not Path(out).exists()
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with locked(folder / 'checkpoint.pt'):
                return fit(*args, out=out, **options)
        finally:
            if is_new:
                with suppress(OSError):     # something is in it
                    folder.rmdir()
    return alone


def make_fabric(device='auto', bfloat16=None, *, share=True):
    """
    Start Lightning Fabric: one process, or those of ``torchrun`` if they are
    to share the work; in bfloat16 on CUDA devices only, if that is `None`.
    """
    if bfloat16 not in (None, True, False):
        msg = f'bfloat16 must be True, False or None, got {bfloat16!r}'
        raise ValueError(msg)
    fabric = require('lightning_fabric', 'train')
    n_local = int(os.environ.get('LOCAL_WORLD_SIZE', 0)) if share else 0
    n_all = int(os.environ.get('WORLD_SIZE', 1))
    kind, _, index = str(device).partition(':')
    if kind == 'auto':
        kind = 'cuda' if torch.cuda.is_available() else 'cpu'
    if kind == 'cuda' and not torch.cuda.is_available():
        msg = f'device: torch finds no GPU for {device!r}'
        raise ValueError(msg)
    if bfloat16 is None:
        bfloat16 = kind == 'cuda'
    fabric = fabric.Fabric(
        accelerator=kind, devices=[int(index)] if index else n_local or 1,
        num_nodes=n_all // n_local if n_local else 1,
        strategy='ddp' if n_local else 'auto',
        precision='bf16-mixed' if bfloat16 else '32-true')
    fabric.launch()
    return fabric


def device_name(device):
    """What a device is, in words."""
    if device.type == 'cuda':
        return torch.cuda.get_device_name(device)
    return f'{platform.machine()}, {torch.get_num_threads()} threads'


def seed_step(seed, step, rank):
    """Seed torch for a step of a process, whatever came before."""
    state = np.random.SeedSequence((seed, step, rank)).generate_state(1)
    torch.manual_seed(int(state[0]))


def start_average(model):
    """A copy of a model, without gradients, in evaluation mode."""
    return copy.deepcopy(model).requires_grad_(False).eval()


@torch.no_grad()
def move_average(average, model, decay):
    """
    Move each weight and buffer of the average towards the model: it becomes
    ``decay`` times itself plus ``1 - decay`` times the model's.
    """
    now = model.state_dict()
    for key, value in average.state_dict().items():
        if value.is_floating_point():
            value.lerp_(now[key], 1 - decay)
        else:
            value.copy_(now[key])


class Run:
    """
    A run of training, in memory and on disk.

    ``parts`` are what a checkpoint has of it, by name: modules, or others with
    ``state_dict`` and ``load_state_dict``. ``settings``, JSON, stand in the
    checkpoint; if ``same``, it must have been written with the same ones.
    ``measure`` and ``watch`` are called with the number of steps done and, the
    second, what was logged; what the first returns is logged. It is over at
    ``n_steps``, or if ``stopping.is_over``; ``stop_after`` so many seconds it
    stops at a checkpoint.
    """

    def __init__(self, out, fabric, parts, optimizer, settings, *, n_steps,
                 batch_size, save_every, same=False, log_every=1,
                 stop_after=None, stopping=None, measure=None, watch=None,
                 milestone=None, progress=True):
        self.out, self.fabric = Path(out), fabric
        self.parts, self.optimizer = parts, optimizer
        self.settings = json.loads(json.dumps(settings))
        self.n_steps, self.batch_size, self.same = n_steps, batch_size, same
        self.save_every, self.log_every = save_every, log_every
        self.stop_after, self.stopping = stop_after, stopping
        self.measure, self.watch = measure, watch
        self.milestone, self.progress = milestone, progress
        self.step, self.seconds = 0, 0.0
        self.path = self.out / 'checkpoint.pt'
        self.part = self.out / 'checkpoint.pt.part'
        self.log_path = self.out / 'log.jsonl'
        self.out.mkdir(parents=True, exist_ok=True)
        if fabric.is_global_zero:
            self._check_folder()
        self._resume()

    @property
    def is_over(self):
        """Whether no step is left."""
        return self.step >= self.n_steps or (
            self.stopping is not None and self.stopping.is_over)

    def steps(self):
        """Yield the number of each step that is left."""
        writes = self.fabric.is_global_zero
        board = self._open_log() if writes else None
        if self.step == 0 and self.measure is not None:
            self.measure(0)
        first, logged = self.seconds, self.step
        clock = time.monotonic() - self.seconds
        with tqdm(total=self.n_steps, initial=self.step, mininterval=5,
                  disable=not (self.progress and writes)) as bar:
            self._begin()
            while not self.is_over:
                yield self.step
                self.step += 1
                found = {} if self.measure is None else self.measure(
                    self.step)
                self.seconds = time.monotonic() - clock
                logs = self.step % self.log_every == 0
                saves = self.step % self.save_every == 0 or self.is_over
                if logs or saves:
                    self._check_finite()
                if logs:
                    values = self._means(self.step - logged, found)
                    logged = self.step
                    if writes:
                        self._write(board, values)
                    bar.set_postfix(
                        loss=f'{values["loss"]:.3f}', refresh=False,
                        images_s=f'{values["images_per_second"]:.0f}')
                    self._begin()
                if saves and writes:
                    self.save()
                if self.milestone is not None and writes:
                    self.milestone(self.step)
                bar.update()
                if saves and self.stop_after is not None and (
                        self.fabric.broadcast(
                            self.seconds - first > self.stop_after)):
                    break
        if board is not None:
            board.close()

    def load(self, batches):
        """The next of the batches; the time is counted as waiting for it."""
        begin = time.monotonic()
        batch = next(batches)
        self._waited += time.monotonic() - begin
        return batch

    def add(self, **values):
        """Count scalars of a step, or of a part of it, in the means."""
        for name, value in values.items():
            total, n = self._sums.get(name, (0, 0))
            self._sums[name] = total + value.detach(), n + 1
        if 'loss' in values:
            self._loss = values['loss'].detach()

    def note(self, gradient, **values):
        """Log values of this step beside the means."""
        self._others = {'gradient': gradient, **values}

    def _open_log(self):
        """
        Forget lines of steps that were lost with a killed run, and one that
        it broke off; a writer of TensorBoard's files, or `None`.
        """
        if self.log_path.exists():
            kept = []
            for line in self.log_path.read_text().splitlines():
                with suppress(ValueError, KeyError, TypeError):
                    if json.loads(line)['step'] <= self.step:
                        kept.append(f'{line}\n')
            with whole_or_not(self.log_path) as part:
                part.write_text(''.join(kept))
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return None
        return SummaryWriter(self.out, purge_step=self.step + 1)

    def _begin(self):
        self._sums, self._others, self._loss = {}, {}, None
        self._since, self._waited = time.monotonic(), 0.0

    def _means(self, n_steps, found):
        """What is logged: means over steps and processes, and the others."""
        took = max(time.monotonic() - self._since, 1e-9)
        means = torch.stack([total.float() / n
                             for total, n in self._sums.values()])
        means = self.fabric.all_reduce(means, reduce_op='mean').tolist()
        return {'seconds': self.seconds, **dict(zip(self._sums, means)),
                **{k: float(v) for k, v in self._others.items()}, **found,
                'images_per_second': n_steps * self.batch_size / took,
                'waiting': self._waited / took}

    def _write(self, board, values):
        line = {name: float(f'{v:.7g}') for name, v in values.items()}
        with open(self.log_path, 'a') as stream:
            stream.write(json.dumps({'step': self.step, **line}) + '\n')
        for name, value in values.items():
            if board is not None:
                board.add_scalar(name, value, self.step)
        if self.watch is not None:
            self.watch(self.step, values)

    def _check_finite(self):
        loss = float(self._loss)
        norm = float(self._others['gradient'])
        if not (math.isfinite(loss) and math.isfinite(norm)):
            msg = (f'step {self.step - 1}: the loss is {loss:g} and the norm '
                   f'of its gradient {norm:g}; lower peak_rate')
            raise FloatingPointError(msg)

    def _check_folder(self):
        """Check that checkpoints can be written, before time is spent."""
        try:
            self.part.touch()
            self.part.unlink()
        except OSError as err:
            msg = f'out: cannot write to {str(self.out)!r}: {err}'
            raise OSError(msg) from err
        tensors = [t for part in self.parts.values()
                   if isinstance(part, torch.nn.Module)
                   for t in (*part.parameters(), *part.buffers())]
        tensors += [p for group in self.optimizer.param_groups
                    for p in group['params'] * 2]
        need = 2 * sum(t.numel() * t.element_size() for t in tensors)
        free = shutil.disk_usage(self.out).free
        if free < need:         # the old one and its successor
            msg = (f'out: {free / 1e6:.0f} MB are free in {str(self.out)!r}, '
                   f'checkpoints need {need / 1e6:.0f} MB')
            raise OSError(msg)

    def save(self):
        """Replace the checkpoint, whole or not at all."""
        state = {'format': FORMAT, 'torch': str(torch.__version__),
                 'step': self.step, 'seconds': self.seconds,
                 'settings': self.settings,
                 'optimizer': self.optimizer.state_dict(),
                 **{k: part.state_dict() for k, part in self.parts.items()}}
        try:
            with open(self.part, 'wb') as stream:
                torch.save(state, stream)
                stream.flush()
                os.fsync(stream.fileno())
            self.part.replace(self.path)
        except (OSError, RuntimeError) as err:
            self.part.unlink(missing_ok=True)
            msg = f'out: no checkpoint at step {self.step}: {err}'
            raise OSError(msg) from err

    def _resume(self):
        """Go on from the checkpoint, if there is one."""
        name = str(self.path)
        if not self.path.exists():
            return
        try:
            state = torch.load(self.path, weights_only=True,
                               map_location='cpu')
        except Exception as err:  # noqa: BLE001  pickles raise anything
            msg = (f'out: {name!r} is not a readable checkpoint: '
                   f'{err!r:.200}')
            raise ModelFileError(msg) from err
        found = state.get('format') if isinstance(state, dict) else None
        if found != FORMAT:
            msg = (f'out: {name!r} has format {found!r}, this version reads '
                   f'{FORMAT!r}')
            raise ModelFileError(msg)
        old = state.get('settings', {})
        differ = list(_differences(old, self.settings))
        if self.same and differ and not old.keys() <= OLD_SETTINGS:
            msg = (f'out: {name!r} is of another run; give another folder. '
                   f'What differs: {"; ".join(differ)}')
            raise ValueError(msg)
        # rates and kernels are those of now
        groups = self.optimizer.state_dict()['param_groups']
        try:
            for key, part in self.parts.items():
                part.load_state_dict(state[key])
            self.optimizer.load_state_dict({
                'param_groups': groups, 'state': state['optimizer']['state']})
            self.step, self.seconds = state['step'], state['seconds']
        except (LookupError, TypeError, ValueError, RuntimeError) as err:
            msg = (f'out: {name!r} is of another run; give another folder: '
                   f'{err!r:.200}')
            raise ModelFileError(msg) from err


def _differences(old, new, name=''):
    """Yield what differs between two trees of JSON."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            yield from _differences(old.get(key), new.get(key),
                                    f'{name}.{key}' if name else key)
    elif old != new:
        yield f'{name} was {old!r}, is {new!r}'
