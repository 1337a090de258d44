# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Checkpoints of a pretraining: one safetensors file that describes itself.

Tensors are the parameters of student and teacher, the centres and the moments
of AdamW, by name; JSON in the file's metadata holds the step, the time and the
settings of the run. All random numbers of a step are drawn from the seed and
the step's number: these two are the whole state of the generators.

The file is written under another name, brought to the disk and renamed: a run
that is killed at any moment leaves the last one whole.
"""

import json
import os
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from astrodino_seg.errors import ModelFileError

__all__ = ['FORMAT', 'Checkpoint']

#: Name and version of the format.
FORMAT = 'astrodino_seg/pretraining-1'


class Checkpoint:
    """
    The checkpoint of a run.

    Parameters
    ----------
    path : path-like
        The file; its folder exists.
    modules : dict of str to `~torch.nn.Module`
        What has parameters and buffers to be kept.
    optimizer : `~torch.optim.Optimizer`
        Its state is kept, but not its rates, which depend on the step alone.
    settings : dict
        What the run was started with: JSON. A run goes on only from a
        checkpoint with the same.
    """

    def __init__(self, path, modules, optimizer, settings):
        self.path = Path(path)
        self.modules = modules
        self.optimizer = optimizer
        self.settings = json.loads(json.dumps(settings))

    def check_folder(self):
        """
        Check that checkpoints can be written, before any time is spent.

        Raises
        ------
        OSError
            If the folder cannot be written to, or the disk has no space for
            two checkpoints, the old one and its successor.
        """
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
        """
        Replace the checkpoint.

        Parameters
        ----------
        step : int
            How many steps are done.
        seconds : float
            How long they took.

        Raises
        ------
        OSError
            If it cannot be written; the old one is still there.
        """
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
        """
        Go on from the checkpoint, if there is one.

        Returns
        -------
        step : int
            How many steps are done.
        seconds : float
            How long they took.

        Raises
        ------
        ModelFileError
            If the file is corrupt or foreign.
        ValueError
            If it is that of another run; what differs is said.
        """
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
