# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Total fluxes of isolated galaxies and of simulated scenes, beside the truth.

    python -m benchmarks.photometry.total_flux OUT [--draws 8] [--scenes 60]
        [--model FILE] [--docs docs/using/photometry]

OUT is a folder for ``discs.jsonl`` and ``scenes.jsonl``, which a further run
goes on with; with --docs, the folder gets ``total_flux.txt``.
"""

import argparse
import json
import warnings
from itertools import product
from pathlib import Path

import numpy as np
from photutils.background import Background2D
from photutils.segmentation import SourceCatalog, SourceFinder
from scipy.ndimage import gaussian_filter
from scipy.special import gammaincinv

from astrodino_seg import DinoSegmenter
from astrodino_seg.evaluate.benchmark import (
    read_lines,
    reference_bands,
    split_scene,
)
from astrodino_seg.evaluate.matching import match_labels
from astrodino_seg.evaluate.tables import list_table
from astrodino_seg.simulate import SceneLibrary

SIDES = {3: 128, 8: 192, 20: 384, 40: 512, 80: 900}
INDICES = {1: 'exponential', 4: 'de Vaucouleurs'}
PEAKS = 5, 10, 50
#: Axis ratio, and sigma of the PSF in pixels.
RATIO, PSF = 0.7, 1.3
OVERSAMPLE = 5
#: Objects of less blendedness are not blended.
ALONE = 0.02
#: As photutils is tuned for the other tables.
N_SIGMA, BOX = 1.5, 128


def draw(index, scale, peak, seed):
    """
    A galaxy on a sky of 10, its light and its centre.

    ``scale`` is that of the exponential, or the half-light radius.
    """
    n = SIDES[scale]
    rng = np.random.default_rng([index, scale, peak, seed])
    centre = n / 2 + rng.uniform(-6, 6, 2)
    y, x = ((np.arange(n * OVERSAMPLE) + 0.5) / OVERSAMPLE - 0.5 - c
            for c in centre)
    # the core alone needs fine pixels, and they are averaged in all
    r = np.hypot(x, y[:, None] / RATIO) / scale
    b = 1 if index == 1 else gammaincinv(2 * index, 0.5)
    light = np.exp(-b * r**(1 / index)).reshape(
        n, OVERSAMPLE, n, OVERSAMPLE).mean(axis=(1, 3))
    light = gaussian_filter(light, PSF)
    light *= peak / light.max()
    return light + 10 + rng.normal(size=(n, n)), light, centre


def value(quantity):
    """A float, of whatever has a unit or none."""
    return float(getattr(quantity, 'value', quantity))


def of_disc(finder, index, scale, peak, seed):
    """The record of one galaxy."""
    image, light, (y, x) = draw(index, scale, peak, seed)
    at = round(y), round(x)
    true = light.sum()
    out = {'index': index, 'scale': scale, 'peak': peak, 'seed': seed}
    result = finder.segment(image)
    k = 0 if result is None else int(result.segmentation_image.data[at])
    if k:
        row = result.table[k - 1]
        bright = np.sort(light.ravel())[::-1].cumsum()
        half = np.sqrt(np.searchsorted(bright, true / 2) / np.pi)
        out.update(label=row['flux_band0'] / true,
                   total=row['total_flux_band0'] / true,
                   pull=(row['total_flux_band0'] - true)
                   / row['total_flux_err_band0'],
                   half=value(row['half_light_radius']) / half)
    sky = Background2D(image, BOX)
    data = image - sky.background
    found = SourceFinder(n_pixels=5, progress_bar=False)(
        gaussian_filter(data, PSF), N_SIGMA * sky.background_rms / 3)
    k = 0 if found is None else int(found.data[at])
    if k:
        catalog = SourceCatalog(data, found, convolved_data=gaussian_filter(
            data, PSF))
        out['kron'] = catalog.kron_flux[k - 1] / true
    return {key: float(one) for key, one in out.items()}


def of_scene(finder, library, k):
    """The records of the objects of a scene."""
    image, truth = split_scene(library, k)
    result = finder.segment(image)
    if result is None:
        return []
    match = match_labels(truth.labels, result.segmentation_image.data)
    objects, table = truth.objects, result.table
    where = {one: j for j, one in enumerate(objects['id'].tolist())}
    b, colour = reference_bands(image.bands)
    out = []
    for one, label in zip(match.truth.tolist(), match.predicted.tolist()):
        j, row = where[one], table[label - 1]
        true = objects['flux'][j]
        if objects['cls'][j] > 2 or row['flags'] & 3 or not (true > 0).all():
            continue
        flux, total, error = (np.array([value(row[f'{name}_{band}'])
                                        for band in image.bands])
                              for name in ('flux', 'total_flux',
                                           'total_flux_err'))
        record = {'scene': k, 'sn': objects['sn'][j],
                  'blendedness': objects['blendedness'][j],
                  'galaxy': objects['cls'][j] == 2,
                  'label': magnitude(flux[b], true[b]),
                  'total': magnitude(total[b], true[b]),
                  'pull': (total[b] - true[b]) / error[b]}
        if colour is not None:
            i, j = colour
            record['colour'] = (magnitude(total[i], true[i])
                                - magnitude(total[j], true[j]))
        out.append({key: float(one) for key, one in record.items()})
    return out


def magnitude(found, true):
    """By how much it is too faint."""
    return -2.5 * np.log10(found / true) if found > 0 else np.nan


def middle(values, digits=3):
    """Median, and its bootstrapped error."""
    values = np.array([v for v in values if np.isfinite(v)])
    if len(values) < 2:
        return '--'
    rng = np.random.default_rng(0)
    error = np.median(rng.choice(values, (400, len(values))), axis=1).std()
    return f'{np.median(values):.{digits}f} ± {error:.{digits}f}'


def spread(values):
    """Half of the distance between the 16th and the 84th percentile."""
    values = np.array([v for v in values if np.isfinite(v)])
    low, high = np.percentile(values, (16, 84))
    return f'{(high - low) / 2:.3f}'


def disc_table(records):
    """A row for each kind of galaxy."""
    rows = []
    for index, scale, peak in product(INDICES, SIDES, PEAKS):
        some = [r for r in records if (r['index'], r['scale'], r['peak'])
                == (index, scale, peak)]
        found = [r for r in some if 'label' in r]
        if not some:
            continue
        rows.append([INDICES[index], scale, peak,
                     f'{len(found)} of {len(some)}'] + [
            middle([r[key] for r in found if key in r], 2)
            for key in ('label', 'total', 'half')] + [
            middle([r['kron'] for r in some if 'kron' in r], 2)])
    return ['profile', 'scale', 'S/N', 'found', 'label', 'total',
            'half-light', 'Kron'], rows


def scene_table(records):
    """A row for each kind of object."""
    kinds = {
        'alone': lambda r: r['blendedness'] < ALONE,
        'alone, S/N > 100': lambda r: (r['blendedness'] < ALONE
                                       and r['sn'] > 100),
        'alone, S/N < 30': lambda r: r['blendedness'] < ALONE
        and r['sn'] < 30,
        'galaxies alone': lambda r: r['blendedness'] < ALONE and r['galaxy'],
        'stars alone': lambda r: r['blendedness'] < ALONE and not r['galaxy'],
        'blended': lambda r: r['blendedness'] >= ALONE}
    rows = []
    for name, belongs in kinds.items():
        some = [r for r in records if belongs(r)]
        rows.append([name, len(some)] + [
            part([r[key] for r in some]) for key in ('label', 'total')
            for part in (middle, spread)] + [
            middle([r['colour'] for r in some if 'colour' in r]),
            middle([r['pull'] for r in some], 2),
            spread([r['pull'] for r in some])])
    return ['objects', 'n', 'label: bias', 'scatter', 'total: bias', 'scatter',
            'colour bias', 'pull', 'width'], rows


def collect(path, jobs):
    """Records, of the file or made and written there."""
    known = {tuple(one['job']): one['records'] for one in read_lines(path)}
    with path.open('a') as file:
        for job, make in jobs:
            if job not in known:
                known[job] = make()
                print(json.dumps({'job': job, 'records': known[job]}),
                      file=file, flush=True)
    return [one for job, _ in jobs for one in known[job]]


def main():
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('out', type=Path)
    parser.add_argument('--draws', type=int, default=8)
    parser.add_argument('--scenes', type=int, default=60)
    parser.add_argument('--split', default='benchmark')
    parser.add_argument('--model')
    parser.add_argument('--docs', type=Path)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    finder = DinoSegmenter(model=args.model)
    warnings.simplefilter('ignore')
    discs = collect(args.out / 'discs.jsonl', [
        (job, lambda job=job: [of_disc(finder, *job)])
        for job in product(INDICES, SIDES, PEAKS, range(args.draws))])
    library = SceneLibrary(args.split, args.scenes)
    scenes = collect(args.out / 'scenes.jsonl', [
        ((k,), lambda k=k: of_scene(finder, library, k))
        for k in range(args.scenes)])
    text = (f'.. python -m benchmarks.photometry.total_flux OUT --draws '
            f'{args.draws} --scenes {args.scenes}\n\n')
    for title, table in (
            (f'Isolated galaxies, {args.draws} draws each: of the true flux '
             f'(medians)', disc_table(discs)),
            (f'Objects of {args.scenes} scenes: magnitudes less the true ones',
             scene_table(scenes))):
        lines = [f'{title}:', '', *list_table(*table), '']
        print(*lines, sep='\n')
        text += '\n'.join(lines) + '\n'
    if args.docs:
        (args.docs / 'total_flux.txt').write_text(text)


if __name__ == '__main__':
    main()
