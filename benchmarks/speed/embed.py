# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Images/s of ``embed``, with timm's own forward for the same network beside it.

    python -m benchmarks.speed.embed [--images 512] [--device cuda]

Cutouts of 160 x 160 pixels in three bands, of one large image, and a ViT-Small
with patches of 16 pixels and random weights, which timm's model gets too; the
outputs are compared first. Four numbers, medians over ``--runs`` that take
turns:

- what reading and normalising costs, without a network;
- the network of this package, on batches that are there already;
- that of timm, on the same;
- ``embed`` as users call it; and its peak memory for a quarter of the cutouts
  and for all of them, each in a process of its own.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

from astrodino_seg.embed import cutouts, embed
from astrodino_seg.embed.dense import Inputs
from astrodino_seg.image import as_image
from astrodino_seg.inputs.rules import NoiseUnits
from astrodino_seg.models import Backbone
from astrodino_seg.models.vit import VisionTransformer

SIZE, FIELD = 160, 2048
VIT = {'patch_size': 16, 'dim': 384, 'depth': 12, 'n_heads': 6,
       'grid_size': (SIZE // 16, SIZE // 16)}


def make_cutouts(n):
    """Cutouts of noise: what is in them makes no difference to the time."""
    rng = np.random.default_rng(0)
    image = as_image(rng.normal(size=(3, FIELD, FIELD)).astype(np.float32),
                     bands='grz')
    return cutouts(image, rng.uniform(0, FIELD - 1, (n, 2)), SIZE)


def make_backbone(device):
    """The network of this package."""
    torch.manual_seed(0)
    planes = NoiseUnits()
    vit = VisionTransformer(in_channels=planes.n_planes, **VIT)
    return Backbone(vit.eval().to(device), planes, 'ViT-S/16')


def make_timm(vit, device):
    """That of timm with the same weights, or None."""
    try:
        from timm.models.vision_transformer import (
            VisionTransformer as TimmTransformer,
        )
    except (ImportError, RuntimeError, OSError) as err:
        print(f'timm cannot be imported: {err}')
        return None
    model = TimmTransformer(
        img_size=SIZE, patch_size=16, in_chans=vit.in_channels, embed_dim=384,
        depth=12, num_heads=6, num_classes=0)
    model.load_state_dict(vit.state_dict())
    return model.eval().to(device)


def rate(function, n, device):
    """Images/s of a function that works on n of them."""
    start = time.perf_counter()
    function()
    if device != 'cpu':
        torch.cuda.synchronize()
    return n / (time.perf_counter() - start)


def run_once(args):
    """Embed once; print the peak memory."""
    images = make_cutouts(args.images)
    backbone = make_backbone(args.device)
    embed(images[:args.batch_size], backbone)
    before = peak_memory()
    embed(images, backbone, batch_size=args.batch_size,
          n_workers=args.workers)
    print(json.dumps({'before_mib': before, 'peak_mib': peak_memory()}))


def peak_memory():
    """MiB; on Linux without what a process inherits from its parent."""
    status = Path('/proc/self/status')
    if status.exists():
        words = status.read_text().split()
        return int(words[words.index('VmHWM:') + 1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main():
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add = parser.add_argument
    add('--images', type=int, default=512)
    add('--batch-size', type=int, default=32)
    add('--workers', type=int, default=0)
    add('--threads', type=int, default=2)
    add('--device', default='cpu')
    add('--runs', type=int, default=3)
    add('--once', action='store_true', help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.once:
        run_once(args)
        return
    images, backbone = make_cutouts(args.images), make_backbone(args.device)
    timm = make_timm(backbone.vit, args.device)
    inputs = Inputs(images, backbone.planes, patch_size=16)
    x = torch.stack([inputs[k].x for k in range(args.batch_size)]).to(
        args.device)
    n_batches = max(args.images // args.batch_size, 1)
    n = n_batches * args.batch_size

    @torch.inference_mode()
    def forward(model):
        for _ in range(n_batches):
            model(x)

    def read():
        for k in range(len(images)):
            inputs[k]

    tasks = {'normalising': read,
             'network': lambda: forward(backbone.vit.forward_features),
             'embed': lambda: embed(images, backbone,
                                    batch_size=args.batch_size,
                                    n_workers=args.workers)}
    if timm is not None:
        with torch.inference_mode():
            ours = backbone.vit.forward_features(x).cls
            difference = (ours - timm.forward_features(x)[:, 0]).abs().max()
        print(f'largest difference from timm: {difference:.1e}')
        tasks['timm'] = lambda: forward(timm.forward_features)
    counts = {name: n if name in ('network', 'timm') else len(images)
              for name in tasks}
    forward(backbone.vit.forward_features)      # warm
    rates = {name: [] for name in tasks}
    for _ in range(args.runs):
        for name, task in tasks.items():
            rates[name].append(rate(task, counts[name], args.device))
    for name, values in rates.items():
        print(f'{name}: {statistics.median(values):.1f} images/s '
              f'({min(values):.1f} to {max(values):.1f})')
    for name in ('network', 'embed') if timm is not None else ():
        ratios = [a / b for a, b in zip(rates[name], rates['timm'])]
        print(f'{name} / timm: {statistics.median(ratios):.2f} '
              f'({min(ratios):.2f} to {max(ratios):.2f}), {args.threads} '
              f'threads, {args.workers} workers, {args.device}')
    for n_images in (args.images // 4, args.images):
        options = {'images': n_images, 'batch-size': args.batch_size,
                   'threads': args.threads, 'device': args.device,
                   'workers': args.workers}
        command = [sys.executable, __file__, '--once']
        for key, value in options.items():
            command += [f'--{key}', str(value)]
        out = subprocess.run(command, check=True, capture_output=True,
                             text=True).stdout
        memory = json.loads(out.splitlines()[-1])
        print(f'{n_images} cutouts: peak {memory["peak_mib"]:.0f} MiB, after '
              f'the first batch {memory["before_mib"]:.0f} MiB')


if __name__ == '__main__':
    main()
