# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The processes of a run: Lightning Fabric, devices and seeds.
"""

import os
import platform

import numpy as np
import torch

from astrodino_seg.errors import require

__all__ = ['device_name', 'make_fabric', 'seed_step']


def make_fabric(device='auto', bfloat16=None):
    """
    Start Lightning Fabric: one process, or those of ``torchrun``.

    Parameters
    ----------
    device : str, optional
        Fabric's accelerator.
    bfloat16 : bool, optional
        Whether networks run in bfloat16; if `None`, on CUDA devices only.

    Returns
    -------
    fabric : `lightning_fabric.Fabric`
        Launched.

    Raises
    ------
    ImportError
        If Fabric is not installed.
    ValueError
        If there is no such device, or ``bfloat16`` is none of these.
    """
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
