# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Speed and memory of a pretraining step, with and without its data.

    python -m benchmarks.speed.pretraining RECIPE [--steps 20] [--scenes 32]

Four numbers of the recipe's network, batch and precision on this machine:

- the rate of a large matrix product in the recipe's precision, which stands
  for the most that can be had;
- images/s of the step alone, on one batch that is already on the device, and
  what share of that rate its operations (counted by torch) are;
- items/s of the data alone, from the recipe's number of processes;
- images/s of the whole, by ``astrodino pretrain``, and the share of the time
  in which it waited for data.

Of simulated scenes, only ``--scenes`` are made, before the clock starts.
Times are medians over steps.
"""

import argparse
import copy
import json
import resource
import statistics
import sys
import tempfile
import time
import tomllib
from pathlib import Path

import torch
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

from astrodino_seg.models import Backbone
from astrodino_seg.train import ViewDataset, pretrain_from_config
from astrodino_seg.train.batches import Batches
from astrodino_seg.train.methods import Student, decay_groups
from astrodino_seg.train.recipe import make_objective, make_sources
from astrodino_seg.train.runner import make_fabric, move_average, start_average


def median_time(function, n, device):
    """Median seconds of `n` calls, after three that do not count."""
    times = []
    for _ in range(n + 3):
        start = time.perf_counter()
        function()
        if device.type == 'cuda':
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times[3:])


def matmul_rate(fabric, n):
    """Operations/s of a product of square matrices."""
    size = 8192 if fabric.device.type == 'cuda' else 2048
    a = torch.randn(size, size, device=fabric.device)
    b = torch.randn(size, size, device=fabric.device)
    with fabric.autocast():
        dtype = torch.matmul(a, b).dtype
    a, b = a.to(dtype), b.to(dtype)
    seconds = median_time(lambda: a @ b, n, fabric.device)
    print(f'matrix product: {2 * size**3 / seconds / 1e12:.3f} TFLOP/s in '
          f'{dtype}, {size} x {size}')
    return 2 * size**3 / seconds


def make_step(config, batch, fabric):
    """A function that does one whole step on a batch."""
    encoder = Backbone.from_spec(**config.get('model', {}))
    objective = fabric.to_device(make_objective(config.get('objective', {})))
    student = Student(encoder.vit, objective.projector,
                      patches=objective.patches, drop_path=0.1).train()
    model, optimizer = fabric.setup(
        student, torch.optim.AdamW(decay_groups(student)))
    teacher = start_average(student)
    batch = fabric.to_device(batch)

    def step():
        with torch.no_grad(), fabric.autocast():
            theirs = teacher(batch.global_views, mask=batch.mask, hide=False)
        loss, _ = objective(model(*batch), theirs, batch.mask, 0.05)
        fabric.backward(loss)
        fabric.clip_gradients(model, optimizer, max_norm=3.0)
        optimizer.step()
        optimizer.zero_grad()
        objective.end_step()
        move_average(teacher, student, 0.996)

    return step


def main():
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('recipe')
    parser.add_argument('--steps', type=int, default=20)
    parser.add_argument('--scenes', type=int, default=32)
    args = parser.parse_args()
    config = tomllib.loads(Path(args.recipe).read_text())
    fit = config['fit']
    torch.set_num_threads(fit.get('threads', torch.get_num_threads()))
    fabric = make_fabric(fit.get('device', 'auto'), fit.get('bfloat16'))
    rate = matmul_rate(fabric, args.steps)

    with tempfile.TemporaryDirectory() as folder:
        for k, table in enumerate(config['images']):
            if table['kind'] == 'scenes':
                table.update(n_scenes=args.scenes)
                if 'stamps' not in table:
                    table.update(path=f'{folder}/scenes{k}')
        images = make_sources(config['images'], 0)
        for k in range(len(images)):
            images[k]
        n_steps, batch_size = args.steps + 5, fit.get('batch_size', 64)
        encoder = Backbone.from_spec(**config.get('model', {}))
        views = ViewDataset(images, encoder.preprocess, n_steps * batch_size,
                            **config.get('views', {}))
        data = Batches(views, batch_size, encoder.vit.patch_size)
        loader = iter(DataLoader(data, batch_size=None,
                                 num_workers=fit.get('n_workers', 1)))
        batch = next(loader)
        start = time.perf_counter()
        n_batches = sum(1 for _ in loader)
        alone = n_batches * batch_size / (time.perf_counter() - start)

        step = make_step(config, batch, fabric)
        with FlopCounterMode(display=False) as counter:
            step()
        seconds = median_time(step, args.steps, fabric.device)
        flops = counter.get_total_flops()
        print(f'step alone: {batch_size / seconds:.1f} images/s, '
              f'{1e3 * seconds:.0f} ms of {batch_size}, '
              f'{flops / batch_size / 1e9:.1f} GFLOP an image, '
              f'{flops / seconds / rate:.2f} of the matrix product')
        print(f'data alone: {alone:.1f} items/s from '
              f'{fit.get("n_workers", 1)} processes')

        short = copy.deepcopy(config)
        short['fit'].update(n_steps=n_steps, log_every=1,
                            save_every=n_steps)
        pretrain_from_config(short, f'{folder}/run', progress=False)
        rows = [json.loads(line) for line in Path(
            folder, 'run', 'log.jsonl').read_text().splitlines()[5:]]
        whole = [row['images_per_second'] for row in rows]
        waiting = [row['waiting'] for row in rows]
        print(f'together: {statistics.median(whole):.1f} images/s, '
              f'{statistics.mean(waiting):.2f} of the time waiting for data')
    if fabric.device.type == 'cuda':
        print(f'peak memory of the device: '
              f'{torch.cuda.max_memory_allocated() / 2**30:.2f} GiB')
    usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f'peak memory of the process: {usage / 2**20:.2f} GiB')
    return 0


if __name__ == '__main__':
    sys.exit(main())
