# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Small files of all kinds that commands read, and commands in processes of their
own, which are forked so that nothing is imported again.
"""

import gzip
import os
import resource
import signal
import sys
import time
import traceback
import warnings
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS

import astrodino_seg.train  # noqa: F401  for all that are forked
from astrodino_seg import DinoSegmenter
from astrodino_seg.cli import main
from astrodino_seg.image import as_image, write_label_map
from astrodino_seg.models import Backbone
from astrodino_seg.models.instance import Model

SIDE = 40
VIT = {'dim': 24, 'depth': 1, 'n_heads': 3}
TRAIN = """
[model]
start = "model.safetensors"
[[images]]
image = "image.fits"
labels = "labels.fits"
classes = "galaxy"
[[images]]
image = "image.fits"
labels = "labels.fits"
classes = "star"
[head]
n_steps = 4
n_items = 1
crop_size = 32
save_every = 2
seed = 3
threads = 1
n_workers = 0
progress = false
"""
PRETRAIN = """
[model.vit]
patch_size = 8
dim = 24
depth = 1
n_heads = 3
[[images]]
kind = "folder"
path = "images"
[views]
global_size = 32
local_size = 16
n_local = 2
[objective]
kind = "dino"
n_prototypes = 16
hidden = 8
bottleneck = 4
[fit]
n_steps = 4
batch_size = 4
save_every = 2
n_workers = 0
device = "cpu"
threads = 1
"""
EDITS = """action,labels,x,y,ra,dec,class
reclassify,1,,,,,star
delete,,20,20,,,
draw,,5 5 12,5 12 5,,,galaxy
"""
REGIONS = """# Region file format: DS9
image
polygon(5,5,5,12,12,12) # text={draw galaxy}
circle(15,21,6) # text={delete}
"""


def make_files(folder):
    """Fill a folder with a whole file of each kind."""
    folder = Path(folder)
    (folder / 'images').mkdir(parents=True)
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:SIDE, :SIDE]
    light = 80 * np.exp(-((x - 14)**2 + (y - 20)**2) / 18) + 200 * np.exp(
        -((x - 30)**2 + (y - 12)**2) / 4)
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval = ['RA---TAN', 'DEC--TAN'], [150, 2]
    wcs.wcs.crpix, wcs.wcs.cdelt = [20, 20], [-1e-4, 1e-4]
    header = wcs.to_header()
    header['BANDS'], header['BUNIT'] = 'gri', 'nJy'
    cube = (light + rng.normal(size=(3, SIDE, SIDE))).astype(np.float32)
    fits.HDUList([
        fits.PrimaryHDU(cube, header),
        fits.ImageHDU((rng.random((SIDE, SIDE)) < 0.01).astype('u1'),
                      name='MASK'),
        fits.ImageHDU(np.ones_like(cube), name='ERR')]).writeto(
            folder / 'image.fits')
    (folder / 'image.fits.gz').write_bytes(gzip.compress(
        (folder / 'image.fits').read_bytes()))
    for k in range(3):
        fits.writeto(folder / 'images' / f'{k}.fits', cube[k], header)
    fits.writeto(folder / 'mask.fits', (rng.random((SIDE, SIDE)) < 0.02
                                        ).astype('i4'))
    fits.writeto(folder / 'error.fits', np.ones((SIDE, SIDE), np.float32))
    np.savez(folder / 'image.npz', g=cube[0], r=cube[1])
    labels = np.where(light > 3, 1 + (x > 22), 0)
    write_label_map(folder / 'labels.fits', labels,
                    as_image(cube, wcs=wcs, bands='gri'))
    table = Table({'id': [1, 2], 'x': [14., 30.], 'y': [20., 12.]})
    for ending in ('csv', 'ecsv', 'fits', 'vot'):
        table.write(folder / f'table.{ending}', **(
            {'format': 'votable'} if ending == 'vot' else {}))
    (folder / 'edits.csv').write_text(EDITS)
    (folder / 'edits.reg').write_text(REGIONS)
    torch.manual_seed(0)
    Model(vit={**VIT, 'patch_border': 8},
          head={'widths': [8, 8, 8, 8], 'n_middle': 8}).save(
              folder / 'model.safetensors')
    encoder = Backbone.from_spec(vit={'dim': 64, 'depth': 1, 'n_heads': 1,
                                      'patch_size': 8})
    encoder.save(folder / 'encoder.safetensors')
    torch.save({'teacher': encoder.vit.state_dict()}, folder / 'encoder.pth')
    (folder / 'train.toml').write_text(TRAIN)
    torch.set_num_threads(1)        # what has threads must not be forked
    DinoSegmenter().segment(as_image(cube))     # imported for all of them
    (folder / 'pretrain.toml').write_text(PRETRAIN)


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    status: int         # less than 0: the signal that killed it
    output: str
    seconds: float
    cpu_seconds: float
    n_bytes: int        # that its memory grew by


def run_forked(argv, folder, *, kill_after=None, wall=150, cpu=15,
               memory=4 * 2**30):
    """
    Run ``astrodino`` with arguments in a folder, in a process of its own.

    It is killed after ``kill_after`` seconds; and after ``wall`` seconds, or
    ``cpu`` seconds of the processor; more ``memory`` in bytes it does not get.
    """
    log = Path(folder) / '.output'
    log.touch()
    begin = time.monotonic()
    end = begin + min(wall, kill_after if kill_after is not None else wall)
    pages = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    with warnings.catch_warnings():
        # of threads, which have nothing to do here
        warnings.simplefilter('ignore', DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        _become(argv, folder, log, cpu, memory)
    while True:
        ended, status, usage = os.wait4(pid, os.WNOHANG)
        if ended:
            break
        if time.monotonic() > end:
            os.kill(pid, signal.SIGKILL)
            ended, status, usage = os.wait4(pid, 0)
            break
        time.sleep(0.003)
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)      # its own children
    output = log.read_text(errors='replace')
    log.unlink()
    return Ended(os.waitstatus_to_exitcode(status), output,
                 time.monotonic() - begin,
                 usage.ru_utime + usage.ru_stime,
                 max(usage.ru_maxrss * 1024 - pages, 0))


def _become(argv, folder, log, cpu, memory):
    """Be the command, and end."""
    status = 70
    try:
        os.setsid()
        os.chdir(folder)
        file = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        os.dup2(file, 1)
        os.dup2(file, 2)
        sys.stdout = os.fdopen(1, 'w', closefd=False)
        sys.stderr = os.fdopen(2, 'w', buffering=1, closefd=False)
        resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu + 5))
        size = int(Path('/proc/self/statm').read_text().split()[0])
        size = size * resource.getpagesize() + memory
        resource.setrlimit(resource.RLIMIT_AS, (size, size))
        status = main([str(arg) for arg in argv])
    except SystemExit as wish:
        status = wish.code
    except BaseException:       # noqa: BLE001  as Python does at its end
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status if isinstance(status, int) else 1)
