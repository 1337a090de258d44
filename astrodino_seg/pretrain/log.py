# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The log of a training: a CSV file, and TensorBoard where it is installed.
"""

import csv
import time
from contextlib import contextmanager
from pathlib import Path

import torch

__all__ = ['Log']


class Log:
    """
    Means over some steps and processes, written now and then.

    Parameters
    ----------
    folder : path-like
        Where ``log.csv`` and, if ``tensorboard`` can be imported, its event
        files go.
    start : int
        The step that the run begins with: what an earlier one has logged of
        later steps is forgotten.
    batch_size : int
        Items a step.
    fabric : `lightning_fabric.Fabric`
        The processes; the first writes.
    """

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
        """
        Write a line, of the steps since the last.

        Parameters
        ----------
        step : int
            How many steps are done.
        seconds : float
            How long they took.
        others : dict of str to float
            What is logged beside the means.

        Returns
        -------
        values : dict of str to float
            What was written.
        """
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
