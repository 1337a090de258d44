# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Statistics of simulated scenes beside those of real images.

    python -m benchmarks.realism.scene_statistics OUTPUT.png [--data FOLDER]
        [--scenes 60]

Both are put in noise units and searched by SEP in the same way. Drawn are the
numbers of sources above an S/N, their sizes over those of the sharpest, their
colours (from the bluest to the reddest band, about the image's median), the
power spectrum of the noise where there is no source, and the histogram of
pixels; the median of the images and the range from the 16th to the 84th
percentile. The folder of the real images is ``--data``, or the environment
variable ASTRODINO_DATA.
"""

import argparse
import warnings
from pathlib import Path

import numpy as np
import sep
from matplotlib.figure import Figure
from scipy.ndimage import binary_dilation

from astrodino_seg.image import Image, as_image
from astrodino_seg.inputs.channels import PreprocessSpec, normalise
from astrodino_seg.plotting import save_figure
from astrodino_seg.simulate import SceneLibrary, observe
from benchmarks.common import fields, parse_with_data
from benchmarks.realism.contact_sheet import REAL

SN = np.geomspace(5, 2000, 27)
SIZE = np.linspace(0.8, 6, 27)
COLOUR = np.linspace(-3, 3, 25)
PIXEL = np.linspace(-5, 12, 69)
PATCH = 32
PANELS = {
    'sources above S/N, per 100 x 100 pixels': SN,
    'half-light radius / that of the sharpest': SIZE[1:],
    'colour, mag about the median': COLOUR[1:],
    'power of the noise, over its mean': np.arange(1, PATCH // 2) / PATCH,
    'share of pixels': PIXEL[1:]}


def statistics(image):
    """One curve for each panel, NaN where there is too little."""
    known = normalise(image, PreprocessSpec())
    good = ~image.mask
    sn = np.where(good, (image.cube - known.background) / known.noise, 0)
    total = sn.sum(axis=0) / np.sqrt(np.maximum(good.sum(axis=0), 1))
    total = np.ascontiguousarray(total, np.float32)
    kernel = np.outer(*[np.exp(-np.arange(-3, 4)**2 / 4.)] * 2)
    found, labels = sep.extract(total, 1.5, err=1.0, minarea=5,
                                filter_kernel=kernel, segmentation_map=True)
    empty = ~binary_dilation(labels > 0, iterations=4) & good.all(axis=0)
    n_pixels = max(good.any(axis=0).sum(), 1)
    strength = found['flux'] / np.sqrt(found['npix'])
    counts = (strength[:, None] > SN).sum(axis=0) * 1e4 / n_pixels
    keep = (strength > 30) & (found['flag'] < 4)
    found = found[keep]
    radius, _ = sep.flux_radius(total, found['x'], found['y'],
                                6 * found['a'], 0.5, normflux=found['flux'])
    sharp = np.quantile(radius, .1) if len(radius) > 8 else np.nan
    return [counts, share(radius / sharp, SIZE), colours(sn, found),
            power(sn, empty), share(total[good.all(axis=0)], PIXEL)]


def share(values, bins):
    """Histogram of unit sum."""
    values = values[np.isfinite(values)]
    if len(values) < 8:
        return np.full(len(bins) - 1, np.nan)
    return np.histogram(values, bins)[0] / len(values)


def colours(sn, found):
    """Of sources that are bright in the first band and in the last."""
    flux = [sep.sum_circle(np.ascontiguousarray(band, np.float32),
                           found['x'], found['y'], 4.0)[0]
            for band in (sn[0], sn[-1])]
    both = (flux[0] > 15) & (flux[1] > 15)
    colour = -2.5 * np.log10(flux[0][both] / flux[1][both])
    if len(sn) < 2 or len(colour) < 8:
        return np.full(len(COLOUR) - 1, np.nan)
    return share(colour - np.median(colour), COLOUR)


def power(sn, empty):
    """Azimuthal mean of the power in patches without sources, by band."""
    spectra = []
    k = np.hypot(*np.meshgrid(*[np.fft.fftfreq(PATCH) * PATCH] * 2))
    ring = np.round(k).astype(int).ravel()
    for y in range(0, sn.shape[1] - PATCH, PATCH):
        for x in range(0, sn.shape[2] - PATCH, PATCH):
            part = slice(y, y + PATCH), slice(x, x + PATCH)
            if empty[part].mean() < .9:
                continue
            patch = np.where(empty[part], sn[:, *part], 0)
            spectrum = (np.abs(np.fft.fft2(patch))**2).mean(axis=0).ravel()
            mean = np.bincount(ring, spectrum) / np.bincount(ring)
            spectra.append(mean[1:PATCH // 2])
    if len(spectra) < 3:
        return np.full(PATCH // 2 - 1, np.nan)
    mean = np.mean(spectra, axis=0)
    return mean / mean.mean()


def simulated(n):
    """Images of the validation split at survey depth."""
    library = SceneLibrary('validation', n)
    rng = np.random.default_rng(0)
    for k in range(n):
        scene = library[k]
        depth = np.exp(rng.uniform(np.log(.5), np.log(3)))
        yield observe(scene, [library.seed(k), 1], depth=depth,
                      bands=range(len(scene.cube)))[0]


def real(folder):
    """Pieces of the real images, of the size of a scene or less."""
    sources = fields(folder)
    for name in REAL:
        image = as_image(sources[name][0])
        for y in range(0, max(image.shape[0] - 255, 1), 512):
            for x in range(0, max(image.shape[1] - 255, 1), 512):
                part = slice(y, y + 512), slice(x, x + 512)
                yield Image(image.cube[:, *part], image.mask[:, *part],
                            bands=image.bands)


def main():
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('output', type=Path)
    parser.add_argument('--scenes', type=int, default=60)
    args = parse_with_data(parser)
    warnings.simplefilter('ignore')
    figure = Figure(figsize=(20, 4.2), layout='constrained')
    axes = figure.subplots(1, len(PANELS))
    for name, colour, images in (
            ('simulated', 'C0', simulated(args.scenes)),
            ('real', 'C1', real(args.data))):
        curves = [statistics(image) for image in images]
        for axis, (title, x), values in zip(axes, PANELS.items(),
                                            zip(*curves)):
            low, middle, high = np.nanpercentile(values, [16, 50, 84],
                                                 axis=0)
            axis.plot(x, middle, color=colour, label=f'{name} '
                      f'({np.isfinite(values).all(axis=1).sum()})')
            axis.fill_between(x, low, high, color=colour, alpha=.25, lw=0)
            axis.set_title(title, fontsize=10)
    axes[0].set(xscale='log', yscale='log', ylim=(.02, 60))
    axes[4].set(yscale='log')
    for axis in axes:
        axis.legend()
    save_figure(figure, args.output, dpi=75)


if __name__ == '__main__':
    main()
