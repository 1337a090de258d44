# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Views of pretraining as the model sees them: rows are images, columns views.

    python -m benchmarks.pretraining.views OUTPUT.png [--data FOLDER] [--each]

Simulated scenes, and with ``--data`` (or the environment variable
ASTRODINO_DATA) pieces of the real KiDS field. The first column is the parent
crop as it was observed, then come two global and some local views; with
``--each``, the parent crop's middle as each degradation alone leaves it. The
colours are those of the model's slots, at one stretch in units of the noise.
"""

import argparse
import warnings
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from astrodino_seg.image import Image, as_image
from astrodino_seg.inputs.channels import PreprocessSpec
from astrodino_seg.plotting import rgb_image, save_figure
from astrodino_seg.simulate import SceneLibrary
from astrodino_seg.train import ObservedScenes, ViewDataset
from astrodino_seg.train.exposures import bright_blocks, expose
from astrodino_seg.train.views import RATES, make_view
from benchmarks.common import add_data

SPEC = PreprocessSpec()


def picture(channels, stretch):
    """A colour picture of channels, grey where no band is valid."""
    slots = np.sinh(channels[1:-1]) * SPEC.softening
    image = Image(slots, np.zeros(slots.shape, bool))
    zero, one = np.zeros_like(slots), np.ones_like(slots)
    rgb = rgb_image(image, zero, one, stretch=stretch)
    rgb[channels[-1] == 0] = 90
    return rgb


def sheet(data, n_rows):
    """Title and pictures of each column: the views of the first items."""
    items = [data[k] for k in range(n_rows)]
    yield 'parent crop', [data.parent(k) for k in range(n_rows)]
    for title, parts in (('global', [v.global_views for v in items]),
                         ('local', [v.local_views for v in items])):
        for column in zip(*parts):
            yield title, [view.numpy() for view in column]


def sheet_of_each(data, n_rows, size=128):
    """Title and pictures of each column: one degradation, nothing else."""
    off = dict.fromkeys(RATES, 0)
    exposures = [expose(data.images[k % len(data.images)], SPEC)
                 for k in range(n_rows)]
    brightest = []
    for k, one in enumerate(exposures):
        yx, weight = bright_blocks(one)
        rng = np.random.default_rng([data.seed, k])
        middle = yx[rng.choice(len(yx), p=weight**2 / (weight**2).sum())]
        limit = np.array(one.signal.shape[1:]) - size
        brightest.append(np.rint(np.clip(middle - size / 2, 0, limit)))
    for name in ['nothing', 'zoom in', 'zoom out', *RATES]:
        if name in ('aim', 'rescale'):
            continue
        side = {'zoom in': size // 2, 'zoom out': 2 * size}.get(name, size)
        yield name, [make_view(
            np.random.default_rng([data.seed, k]), one,
            start + (size - side) / 2, side, size,
            {**off, name: 1} if name in RATES else off, SPEC)
            for k, (one, start) in enumerate(zip(exposures, brightest))]


def main():
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('output', type=Path)
    add_data(parser)
    parser.add_argument('--rows', type=int, default=4)
    parser.add_argument('--stretch', type=float, default=12)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--each', action='store_true')
    parser.add_argument('--cache', help='folder for rendered scenes')
    args = parser.parse_args()
    warnings.simplefilter('ignore')
    scenes = SceneLibrary('train', 8 * args.rows, path=args.cache)
    sources = [ObservedScenes(scenes, seed=args.seed)]
    if args.data is not None and (args.data / 'kids_viking').is_dir():
        sources.insert(0, [as_image({
            band: args.data / f'kids_viking/{band}.fits'
            for band in 'griZ'})])
    columns = {}
    for source in sources:
        data = ViewDataset(source, SPEC, args.rows, seed=args.seed,
                           rates={'aim': 1})
        make = sheet_of_each if args.each else sheet
        for k, (title, views) in enumerate(make(data, args.rows)):
            columns.setdefault((k, title), []).extend(views)
    n_rows = len(sources) * args.rows
    figure = Figure(figsize=(1.6 * len(columns), 1.6 * n_rows),
                    layout='constrained')
    axes = figure.subplots(n_rows, len(columns), squeeze=False)
    for line, ((_, title), views) in zip(axes.T, columns.items()):
        line[0].set_title(title)
        for axis, view in zip(line, views):
            axis.imshow(picture(view, args.stretch), origin='lower',
                        interpolation='nearest')
            axis.axis('off')
    save_figure(figure, args.output, dpi=90)


if __name__ == '__main__':
    main()
