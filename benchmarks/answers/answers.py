# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The answers of the package as arrays, to be compared before and after a change.

Usage: ``python answers.py OUT.npz [--data FOLDER]``, and
``python answers.py --compare A.npz B.npz [--rtol 1e-5]``; see ``README.md``.
"""

import argparse
import os
import sys
import tempfile
import time
import warnings
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from importlib import import_module
from io import StringIO
from pathlib import Path

os.environ['OMP_NUM_THREADS'] = '1'         # before torch is imported
os.environ.setdefault('MPLBACKEND', 'agg')

import numpy as np
import torch

#: Where each name may be; the first module that has it counts.
HOMES = {
    'DinoSegmenter': ['astrodino_seg'],
    'as_image': ['astrodino_seg'],
    'load_model': ['astrodino_seg'],
    'main': ['astrodino_seg.cli'],
    'demo_image': ['astrodino_seg.datasets'],
    'write_image': ['astrodino_seg.image'],
    'rgb_image': ['astrodino_seg.plotting'],
    'SceneLibrary': ['astrodino_seg.simulate'],
    'observe': ['astrodino_seg.simulate'],
    'attention_maps': ['astrodino_seg.embed'],
    'cutouts': ['astrodino_seg.embed'],
    'label_cutouts': ['astrodino_seg.embed'],
    'embed': ['astrodino_seg.embed'],
    'Backbone': ['astrodino_seg.models'],
    'DINO': ['astrodino_seg.train', 'astrodino_seg.pretrain'],
    'ViewDataset': ['astrodino_seg.train', 'astrodino_seg.pretrain'],
    'pretrain': ['astrodino_seg.train', 'astrodino_seg.pretrain'],
    'as_labelled': ['astrodino_seg.train'],
    'fit_decision': ['astrodino_seg.train'],
    'fit_head': ['astrodino_seg.train'],
}

N_SCENES, SCENE_SIZE = 10, 304
LARGEST = 800           # side of a real field, pixels
VIT = {'patch_size': 8, 'dim': 24, 'depth': 2, 'n_heads': 3,
       'n_registers': 1}
N_STEPS, BATCH_SIZE = 6, 8


def get(name):
    """The object of a name in `HOMES`."""
    for home in HOMES[name]:
        try:
            module = import_module(home)
        except ModuleNotFoundError as err:
            if not home.startswith(str(err.name)):
                raise                       # a library is missing, no home
            continue
        if hasattr(module, name):
            return getattr(module, name)
    msg = f'{name} is in none of {HOMES[name]}; add its new home to HOMES'
    raise ImportError(msg)


# ------------------------------------------------------------- the parts

def of_result(result, *, maps=False):
    """Labels, classes and columns of a `SegmentationResult`, as arrays."""
    if result is None:
        return {'n_labels': np.array(0)}
    out = {'labels': result.segmentation_image.data,
           'fragments': result.fragments.data,
           'class_map': result.class_map}
    for name in result.table.colnames:
        column = result.table[name]
        if name == 'sky_centroid':
            out['ra'], out['dec'] = column.icrs.ra.deg, column.icrs.dec.deg
        else:
            out[name] = np.asarray(getattr(column, 'value', column))
    if maps:
        out.update(probabilities=result.probabilities,
                   background=thin(result.background),
                   noise=thin(result.noise))
    return out


def thin(cube):
    """Every 16th pixel of every 16th row."""
    return np.asarray(cube)[..., ::16, ::16]


def part(image, x, y, size):
    """A square part about a pixel."""
    ny, nx = image.shape
    half = size // 2
    cut = np.s_[:, max(y - half, 0):y + half, max(x - half, 0):x + half]
    return replace(
        image, cube=image.cube[cut], mask=image.mask[cut],
        noise=None if image.noise is None else image.noise[cut],
        wcs=None if image.wcs is None else image.wcs[cut[1:]])


def demo(data):
    """The demo: labels, tables, pictures, command line."""
    image = get('demo_image')()
    result = get('DinoSegmenter')().segment(image)
    yield 'default', of_result(result, maps=True)
    yield 'rgb', {'image': thin(np.moveaxis(get('rgb_image')(
        image, result.background, result.noise), -1, 0))}
    yield 'options', of_result(get('DinoSegmenter')(
        n_sigma=3, merge=0.6, bin_factor=2, tile_size=256,
        bfloat16=False).segment(image))
    for name in ('linear_tiny', 'ms_tiny'):
        yield name, of_result(get('DinoSegmenter')(model=name).segment(image))
    with tempfile.TemporaryDirectory() as folder:
        yield 'cli', of_command(image, Path(folder))


def of_command(image, folder):
    """What ``astrodino segment`` writes, picture included."""
    from astropy.io import fits
    from astropy.table import QTable
    from matplotlib.image import imread

    get('write_image')(folder / 'in.fits', image)
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        status = get('main')(['segment', str(folder / 'in.fits'), '-q', '-o',
                              str(folder / 'out')])
    table = QTable.read(folder / 'out_catalog.ecsv')
    with fits.open(folder / 'out_segm.fits') as hdus:
        maps = {f'hdu_{k}': np.array(hdu.data.astype(hdu.data.dtype.type))
                for k, hdu in enumerate(hdus) if hdu.is_image
                and hdu.data is not None}
    picture = imread(folder / 'out.png')
    return {'status': np.array(status), **maps, 'picture': np.round(
        255 * picture).astype(np.uint8), **{
            name: np.asarray(getattr(table[name], 'value', table[name]))
            for name in table.colnames if name != 'sky_centroid'}}


def scenes(data):
    """Simulated scenes, and what the default segmenter makes of them."""
    library = get('SceneLibrary')('benchmark', N_SCENES, size=SCENE_SIZE)
    finder = get('DinoSegmenter')()
    for k in range(N_SCENES):
        image, truth = get('observe')(library[k], [library.seed(k), 1])
        yield f'{k}', {'cube': thin(image.cube), 'truth': truth.labels,
                       **of_result(finder.segment(image))}


def fields(data):
    """Real fields, one of each of six folders; those that are there."""
    finder = get('DinoSegmenter')()
    for name, read in FIELDS.items():
        if data is None or not (data / name).is_dir():
            print(f'fields/{name}: skipped, no such folder')
            continue
        image = read(data / name)
        yield name, {'cube': thin(image.cube),
                     **of_result(finder.segment(image))}


def of_bands(folder, pattern, bands, **kwargs):
    """An image of one file a band."""
    return get('as_image')({band: folder / pattern.format(band)
                            for band in bands}, **kwargs)


def hsc(folder):
    """A blend with its variance."""
    with np.load(folder / 'hsc_cosmos_35.npz') as arrays:
        error = (np.sqrt(arrays['variance']) if 'variance' in arrays
                 else None)
        return get('as_image')(arrays['images'], error=error, bands=[
            str(one) for one in arrays['filters']])


def jwst(folder):
    """Three bands, of files named in small letters."""
    image = get('as_image')({
        band: folder / f'{band.lower()}_sci.fits'
        for band in ('F115W', 'F444W', 'F770W')})
    return part(image, 410, 500, LARGEST)


def kids(folder):
    """A spiral in four bands; cut before they are put together."""
    cut = {band: part(get('as_image')(folder / f'{band}.fits'), 1206, 477,
                      LARGEST) for band in 'griZ'}
    return get('as_image')(np.concatenate([cut[b].cube for b in cut]),
                           bands=list(cut), wcs=cut['g'].wcs)


def spiral(folder):
    """DES; the WCS of one band for all."""
    return of_bands(folder, 'DES_{}.fits', 'griz',
                    wcs=get('as_image')(folder / 'DES_r.fits').wcs)


FIELDS = {
    'legacy': lambda folder: part(get('as_image')(
        folder / 'decals_dr5_example_a.fits'), 254, 254, LARGEST),
    'hsc': hsc,
    'kids_viking': kids,
    'sdss_ngc6976': lambda folder: part(of_bands(
        folder, 'reprojected_sdss_{}.fits.bz2', 'gri'), 341, 248, LARGEST),
    'jwst_uds': jwst,
    'spiral_with_star': spiral,
}


def attention(data):
    """Attention maps of the demo."""
    image = get('demo_image')()
    for name, options in (('cls', {}), ('at', {'at': (224, 224)}),
                          ('rollout', {'use_rollout': True, 'size': 224})):
        maps = get('attention_maps')(image, **options)
        yield name, {'heads': maps.heads, 'prefix': maps.prefix,
                     'combined': maps.combined().data}


def embeddings(data):
    """Vectors of cutouts of the demo, around positions and labels."""
    image = get('demo_image')()
    pieces = get('cutouts')(image, [[224, 224], [20, 400]], 96)
    labels = np.zeros(image.shape, int)
    labels[200:250, 190:260], labels[60:90, 300:320] = 1, 2
    yield 'positions', {what: get('embed')(pieces, what=what)
                        for what in ('cls', 'patch', 'both')}
    yield 'labels', {'both': get('embed')(get('label_cutouts')(
        image, labels, mask_others=True), what='both')}


class Killed(Exception):
    """Stands for what ends a run."""


class Killer(torch.utils.data.Dataset):
    """Items of another dataset, up to one that ends the run."""

    def __init__(self, views, last):
        self.views, self.last = views, last

    def __len__(self):
        return len(self.views)

    def __getitem__(self, index):
        if index == self.last:
            raise Killed
        return self.views[index]


def weights(module, before=None):
    """
    All numbers of a network, or of its tensors that have changed, sorted:
    they do not tell how its parts are named or ordered.
    """
    values = {key: value.detach().cpu().double().numpy().ravel()
              for key, value in module.state_dict().items()}
    if before is not None:
        old = before.state_dict()
        values = {key: value for key, value in values.items()
                  if key not in old or not np.array_equal(
                      old[key].double().numpy().ravel(), value)}
    return np.sort(np.concatenate(list(values.values())))


def pretraining(data):
    """A run of a few steps, unbroken and after it was broken off."""
    image = get('demo_image')()
    crops = [part(image, x, y, 128) for y in (100, 300) for x in (100, 300)]

    def run(folder, *, seed=0, last=None):
        torch.manual_seed(seed)
        encoder = get('Backbone').from_spec(vit=VIT)
        views = get('ViewDataset')(
            crops, encoder.preprocess, N_STEPS * BATCH_SIZE, global_size=32,
            local_size=16, n_local=3, seed=0)
        get('pretrain')(
            encoder, Killer(views, last), out=folder, n_steps=N_STEPS,
            batch_size=BATCH_SIZE, save_every=2, log_every=1, n_workers=0,
            device='cpu', progress=False,
            objective=get('DINO')(n_prototypes=32, hidden=16, bottleneck=8))
        return {'weights': weights(encoder.vit), 'vectors': get('embed')(
            crops, Path(folder) / 'backbone.safetensors', what='both')}

    with tempfile.TemporaryDirectory() as folder:
        yield 'whole', run(folder)
    with tempfile.TemporaryDirectory() as folder:
        try:
            run(folder, last=3 * BATCH_SIZE + 3)
        except Killed:          # the checkpoint of step 2 counts from now on
            pass
        else:
            msg = 'the run was not broken off'
            raise RuntimeError(msg)
        yield 'resumed', run(folder, seed=5)


def training(data):
    """Heads and a decision, fitted to a few labelled images."""
    image = get('demo_image')()
    found = get('DinoSegmenter')(bfloat16=False).segment(image)
    labels = found.segmentation_image.data
    classes = dict(zip(found.table['label'].tolist(),
                       found.table['class'].tolist()))
    labelled = []
    for k in range(10):
        x, y = 64 + 32 * k, 64 + 32 * (7 * k % 10)
        cut = labels[y - 64:y + 64, x - 64:x + 64]
        labelled.append(get('as_labelled')(
            part(image, x, y, 128), cut,
            classes={n: classes[n] for n in np.unique(cut[cut > 0])}))

    def fitted(model, before):
        return {'weights': weights(model, before), **of_result(
            get('DinoSegmenter')(model=model, bfloat16=False).segment(
                part(image, 224, 224, 192)))}

    for name, kind, n_steps, rate in (('linear', 'linear_tiny', 8, 1e-3),
                                      ('ms', 'ms_tiny', 8, 1e-4),
                                      ('instance', None, 4, None)):
        model, before = (get('load_model')(kind) for _ in range(2))
        with tempfile.TemporaryDirectory() as folder:
            get('fit_head')(model, labelled[:4], out=folder, n_steps=n_steps,
                            n_items=1, crop_size=96, validation=None,
                            peak_rate=rate, seed=0, progress=False)
        yield name, fitted(model, before)
    model, before = (get('load_model')() for _ in range(2))
    get('fit_decision')(model, labelled, n_epochs=60, seed=0, bfloat16=False,
                        progress=False)
    yield 'decision', fitted(model, before)


PARTS = (demo, scenes, fields, attention, embeddings, pretraining, training)


# --------------------------------------------------------------- the face

def collect(data):
    """All answers, as a flat dict of arrays."""
    torch.set_num_threads(1)
    out = {}
    for make in PARTS:
        start = time.perf_counter()
        for name, arrays in make(data):
            out.update({f'{make.__name__}/{name}/{key}': np.asarray(value)
                        for key, value in arrays.items()})
        print(f'{make.__name__}: {time.perf_counter() - start:.1f} s',
              flush=True)
    wrong = [key for key, value in out.items() if value.dtype.kind == 'O']
    if wrong:
        msg = f'no plain arrays: {wrong}'
        raise TypeError(msg)
    return out


def difference(one, two, rtol):
    """How two arrays differ, in words; '' if they do not."""
    if one.shape != two.shape:
        return f'shape {one.shape}, {two.shape}'
    if one.dtype.kind not in 'fc' or two.dtype.kind not in 'fc':
        off = one != two
        size = (np.abs(one.astype(float) - two.astype(float)).max(initial=0)
                if one.dtype.kind in 'biu' and two.dtype.kind in 'biu'
                else np.nan)
    else:
        one, two = one.astype(float), two.astype(float)
        same = (one == two) | (np.isnan(one) & np.isnan(two))
        with np.errstate(invalid='ignore'):
            gap = np.where(same, 0, np.abs(one - two))
        finite = np.abs(one[np.isfinite(one)])
        typical = np.median(finite) if finite.size else 0.0
        off = ~(same | (gap <= rtol * (np.abs(one) + typical))
                & np.isfinite(one))
        size = gap.max(initial=0)
    return (f'max abs diff {size:.3g}, share {off.mean():.3g} of {off.size}'
            if off.any() else '')


def compare(first, second, rtol):
    """Print a line for each key that differs; return their number."""
    n_off = 0
    with np.load(first) as one, np.load(second) as two:
        keys = sorted(set(one.files) | set(two.files))
        for key in keys:
            if key not in one.files or key not in two.files:
                text = f'only in {first if key in one.files else second}'
            else:
                text = difference(one[key], two[key], rtol)
            if text:
                n_off += 1
                print(f'{key}: {text}')
    print(f'{n_off} of {len(keys)} arrays differ')
    return n_off


def main(argv=None):
    """Write the answers, or compare two files of them."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0])
    add = parser.add_argument
    add('out', nargs='?', metavar='OUT.npz', help='the file to write')
    add('--data', type=Path, default=os.environ.get('ASTRODINO_DATA'),
        help='folder of real images (ASTRODINO_DATA); none: left out')
    add('--compare', nargs=2, metavar=('A.npz', 'B.npz'))
    add('--rtol', type=float, default=1e-5, help='%(default)s')
    args = parser.parse_args(argv)
    if (args.out is None) == (args.compare is None):
        parser.error('give either OUT.npz or --compare A.npz B.npz')
    if args.compare:
        return int(compare(*args.compare, args.rtol) > 0)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        answers = collect(args.data)
    np.savez_compressed(args.out, **answers)
    print(f'{len(answers)} arrays in {args.out}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
