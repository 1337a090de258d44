# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Total fluxes of galaxies that are alone and of simulated scenes, beside the
truth and beside other tools.

    python -m benchmarks.photometry.total_flux OUT [--draws 8] [--scenes 60]
        [--every 1] [--model FILE] [--docs docs/using/photometry]

OUT is a folder for the records of each tool, which a further run goes on with:
remove those of ``astrodino`` for another model. With --docs, the folder gets
``total_flux.txt`` and ``bias.png``. Tools that are not on this machine are
left out.
"""

import argparse
import json
import warnings
from itertools import product
from pathlib import Path

import numpy as np

from astrodino_seg.evaluate.benchmark import (
    read_lines,
    reference_bands,
    split_scene,
)
from astrodino_seg.evaluate.matching import match_labels
from astrodino_seg.evaluate.tables import list_table
from astrodino_seg.image import as_image
from astrodino_seg.simulate import SceneLibrary
from benchmarks.photometry.galaxies import (
    DEPTHS,
    INDICES,
    PEAKS,
    SIDES,
    catalogue,
    cosmos,
    sersic,
)
from benchmarks.photometry.tools import tools

#: Objects of less blendedness are not blended.
ALONE = 0.02
#: Of magnitudes, of a relative error.
MAGNITUDES = 2.5 / np.log(10)


def of_galaxy(tool, image, light):
    """
    The record of a galaxy: what is found by what is true, and the noise of its
    flux, were its form known.
    """
    found = tool(as_image(image))
    true = light.sum()
    record = {'limit': float(1 / np.sqrt((light**2).sum()))}
    at = np.unravel_index(light.argmax(), light.shape)
    k = 0 if found is None else int(found.labels[at])
    if k:
        bright = np.sort(light.ravel())[::-1].cumsum()
        half = np.sqrt(np.searchsorted(bright, true / 2) / np.pi)
        flux = found.flux[0, k - 1]
        record |= {'total': flux / true,
                   'pull': (flux - true) / found.error[0, k - 1],
                   'half': found.half[k - 1] / half,
                   'label': found.isophotal[0, k - 1] / true}
    return {key: float(one) for key, one in record.items()}


def of_scene(tool, image, truth):
    """
    The records of the objects that a tool finds, of those that lie neither on
    the edge nor at invalid pixels; it is ``lost`` otherwise.
    """
    photometry = tool(image)
    objects = truth.objects
    edge = np.ones(image.shape, bool)
    edge[1:-1, 1:-1] = False
    cut = set(truth.labels[edge | image.mask.any(axis=0)].tolist())
    found = {}
    if photometry is not None:
        match = match_labels(truth.labels, photometry.labels)
        found = dict(zip(match.truth.tolist(), match.predicted.tolist()))
    b, colour = reference_bands(image.bands)
    out = []
    for j, one in enumerate(objects['id'].tolist()):
        true = objects['flux'][j]
        if one in cut or objects['cls'][j] > 2 or not (true > 0).all():
            continue
        record = {'sn': objects['sn'][j], 'galaxy': objects['cls'][j] == 2,
                  'blendedness': objects['blendedness'][j]}
        if one in found:
            flux, error, label = (part[:, found[one] - 1] for part in (
                photometry.flux, photometry.error, photometry.isophotal))
            record |= {'label': magnitude(label[b] / true[b]),
                       'total': magnitude(flux[b] / true[b]),
                       'pull': (flux[b] - true[b]) / error[b]}
            if colour is not None:
                first, second = (magnitude(flux[i] / true[i]) for i in colour)
                with np.errstate(invalid='ignore'):     # of two without flux
                    record['colour'] = first - second
        out.append({key: float(one) for key, one in record.items()})
    return out


def magnitude(ratio):
    """Of the found by the true flux; infinite of what has none."""
    with np.errstate(divide='ignore', invalid='ignore'):
        return -2.5 * np.log10(np.maximum(ratio, 0))


def middle(values, digits=3):
    """Median, and its bootstrapped error."""
    values = np.array([v for v in values if not np.isnan(v)])
    if len(values) < 2:
        return '--'
    rng = np.random.default_rng(0)
    medians = np.median(rng.choice(values, (400, len(values))), axis=1)
    low, high = np.percentile(medians, (16, 84), method='nearest')
    return (f'{np.median(values):.{digits}f} ± '
            f'{(high - low) / 2:.{digits}f}')


def spread(values, digits=3):
    """Half of the distance between the 16th and the 84th percentile."""
    values = np.array([v for v in values if not np.isnan(v)])
    if len(values) < 2:
        return '--'
    low, high = np.percentile(values, (16, 84), method='nearest')
    return f'{(high - low) / 2:.{digits}f}'


def cells(records, name):
    """By (profile, scale, S/N), the records of a tool."""
    out = {}
    for job, record in records[name]:
        if job[0] == 'sersic':
            out.setdefault(tuple(job[1:4]), []).append(record)
    return out


def bias_table(records):
    """A row for each kind of galaxy: magnitudes less the true ones."""
    rows = []
    of = {name: cells(records, name) for name in records}
    for cell in product(INDICES, SIDES, PEAKS):
        row = [INDICES[cell[0]], *cell[1:]]
        for name in records:
            some = of[name].get(cell, [])
            found = [magnitude(r['total']) for r in some if 'total' in r]
            lost = len(some) - len(found)
            row.append(middle(found, 2) + (f' ({lost} lost)' if lost else ''))
        rows.append(row)
    return ['profile', 'scale', 'S/N', *records], rows


def alone_table(records):
    """A row for each kind and tool."""
    fits = catalogue()
    bulge = (fits['n'] > 2) | (fits['bulge_share'] > 0.2)
    kinds = {name: lambda job, index=index: job[:2] == ['sersic', index]
             and job[2] <= 40 for index, name in INDICES.items()}
    kinds |= {f'{name}, scale 80': lambda job, index=index:
              job[:3] == ['sersic', index, 80]
              for index, name in INDICES.items()}
    kinds |= {f'COSMOS, {depth}': lambda job, depth=depth:
              job[0] == 'cosmos' and job[2] == depth for depth in DEPTHS}
    kinds['COSMOS, deep, with a bulge'] = lambda job: (
        job[0] == 'cosmos' and job[2] == 'deep' and bulge[job[1]])
    rows = []
    for (kind, belongs), name in product(kinds.items(), records):
        some = [r for job, r in records[name] if belongs(job)]
        found = [r for r in some if 'total' in r]
        rows.append([kind, name, f'{len(found)} of {len(some)}',
                     middle([magnitude(r['total']) for r in found]),
                     spread([magnitude(r['total']) for r in found]),
                     spread([(r['total'] - 1) / r['limit'] for r in found], 1),
                     middle([r['half'] for r in found]),
                     middle([r['pull'] for r in found], 2),
                     spread([r['pull'] for r in found], 2)])
    return ['galaxies', 'tool', 'found', 'bias', 'scatter', 'of the noise',
            'half-light', 'pull', 'width'], rows


def scene_table(records):
    """A row for each kind of object and tool."""
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
    for (kind, belongs), name in product(kinds.items(), records):
        some = [r for _, r in records[name] if belongs(r)]
        found = [r for r in some if 'total' in r]
        rows.append([kind, name, f'{len(found)} of {len(some)}'] + [
            part([r[key] for r in found]) for key in ('label', 'total')
            for part in (middle, spread)] + [
            middle([r['colour'] for r in found if 'colour' in r]),
            middle([r['pull'] for r in found], 2),
            spread([r['pull'] for r in found], 2)])
    return ['objects', 'tool', 'found', 'label: bias', 'scatter',
            'total: bias', 'scatter', 'colour bias', 'pull', 'width'], rows


def draw_bias(records, path):
    """The figure of bias by size and surface brightness, for every tool."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.5), layout='constrained')
    axes = figure.subplots(len(INDICES), len(PEAKS), sharex=True,
                           sharey='row')
    for (index, row) in zip(INDICES, axes):
        for peak, ax in zip(PEAKS, row):
            ax.axhspan(-0.03, 0.03, color='0.9')
            for shift, name in zip((0.94, 0.98, 1.02, 1.06), records):
                x, y, low, high = [], [], [], []
                for scale in SIDES:
                    found = [magnitude(r['total']) for r in cells(
                        records, name).get((index, scale, peak), [])
                        if 'total' in r]
                    if found:
                        x.append(shift * scale)
                        y.append(np.median(found))
                        low.append(y[-1] - min(found))
                        high.append(max(found) - y[-1])
                ax.errorbar(x, y, (low, high), fmt='o-', ms=3, lw=1,
                            label=name)
            ax.set_xscale('log')
            ax.set_xticks(list(SIDES), [str(one) for one in SIDES],
                          minor=False)
            ax.minorticks_off()
            ax.set_title(f'{INDICES[index]}, central S/N {peak}', fontsize=9)
        row[0].set_ylim((-0.35, 1.2) if index == 1 else (-0.5, 2.2))
        row[0].set_ylabel('total less true [mag]')
    for ax in axes[-1]:
        ax.set_xlabel('scale [pixels]')
    axes[0, 0].legend(fontsize=8)
    figure.savefig(path, dpi=110)


def collect(path, jobs):
    """(job, record) of the file, or made and written there."""
    known = {json.dumps(one['job']): one['records']
             for one in read_lines(path)}
    out = []
    with path.open('a') as file:
        for job, make in jobs:
            key = json.dumps(job)
            if key not in known:
                known[key] = make()
                print(json.dumps({'job': job, 'records': known[key]}),
                      file=file, flush=True)
            out.extend((job, one) for one in known[key])
    return out


def galaxy_jobs(tool, n_draws, every):
    """What is measured of galaxies that are alone."""
    draw = {'sersic': sersic, 'cosmos': cosmos}
    jobs = [['sersic', *one] for one in product(INDICES, SIDES, PEAKS,
                                                range(n_draws))]
    jobs += [['cosmos', k, depth] for k in range(0, len(catalogue()), every)
             for depth in DEPTHS]
    return [(job, lambda job=job: [of_galaxy(
        tool, *draw[job[0]](*job[1:]))]) for job in jobs]


def main():
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('out', type=Path)
    parser.add_argument('--draws', type=int, default=8)
    parser.add_argument('--scenes', type=int, default=60)
    parser.add_argument('--every', type=int, default=1,
                        help='of so many COSMOS galaxies one is taken')
    parser.add_argument('--split', default='benchmark')
    parser.add_argument('--model')
    parser.add_argument('--docs', type=Path)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter('ignore')
    alone = {name: collect(args.out / f'alone-{name}.jsonl',
                           galaxy_jobs(tool, args.draws, args.every))
             for name, tool in tools('alone', args.model).items()}
    library = SceneLibrary(args.split, args.scenes)
    scenes = {name: collect(args.out / f'scenes-{name}.jsonl', [
        ([k], lambda k=k, tool=tool: of_scene(tool, *split_scene(library, k)))
        for k in range(args.scenes)])
        for name, tool in tools('scenes', args.model).items()}
    text = (f'.. python -m benchmarks.photometry.total_flux OUT --draws '
            f'{args.draws} --scenes {args.scenes} --every {args.every}\n\n')
    for title, table in (
            (f'Galaxies alone, {args.draws} draws of each discs and de '
             f'Vaucouleurs galaxy, scales to 40 pixels where none is named',
             alone_table(alone)),
            (f'Objects of {args.scenes} scenes: magnitudes less the true ones',
             scene_table(scenes)),
            (f'Each kind of galaxy alone, {args.draws} draws: total magnitude '
             f'less the true one', bias_table(alone))):
        lines = [f'{title}:', '', *list_table(*table), '']
        print(*lines, sep='\n')
        text += '\n'.join(lines) + '\n'
    if args.docs:
        (args.docs / 'total_flux.txt').write_text(text)
        draw_bias(alone, args.docs / 'bias.png')


if __name__ == '__main__':
    main()
