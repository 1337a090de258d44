# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Total magnitudes of one spiral in images of DES, Pan-STARRS and SDSS.

    python -m benchmarks.photometry.spiral [--data FOLDER] [--model FILE]
        [--docs docs/using/photometry]

The folder of the images is ``--data``, or the environment variable
ASTRODINO_DATA. Each tool's magnitudes g, r, i and z are brought to the system
of SDSS; with --docs, the folder gets ``spiral.txt``.
"""

import argparse
import warnings
from pathlib import Path

import numpy as np
from astropy.io import fits

from astrodino_seg.evaluate.tables import list_table
from benchmarks.common import fields, parse_with_data, read_field
from benchmarks.photometry.tools import tools

BANDS = 'griz'
SURVEYS = 'SDSS', 'DES', 'PS1'
#: Pixels about the middle, where the galaxy's label is the most frequent one.
MIDDLE = 3


def zero_point(folder, survey, band):
    """The AB magnitude of a flux of one, by the header."""
    if survey == 'SDSS':        # nanomaggies
        return 22.5
    header = fits.getheader(
        folder / f'spiral_with_star/{survey}_{band}.fits', 0)
    return (header['MAGZERO'] if survey == 'DES'
            else 25 + 2.5 * np.log10(header['EXPTIME']))


def as_sdss(survey, mags):
    """Magnitudes g, r, i and z in the system of SDSS."""
    g, r, i, z = mags
    if survey == 'DES':
        # DES DR2 (Abbott et al. 2021, ApJS, 255, 20), by stars of Stripe 82
        return np.array([g + 0.060 * (g - i) - 0.005,
                         r + 0.150 * (r - i) + 0.014,
                         i + 0.167 * (r - i) - 0.027,
                         z + 0.054 * (r - i) - 0.024])
    if survey == 'PS1':         # Tonry et al. 2012, ApJ, 750, 99, table 6
        powers = (g - r)**np.arange(3)
        return mags + np.array([[0.013, 0.145, 0.019],
                                [-0.001, 0.004, 0.007],
                                [-0.005, 0.011, 0.010],
                                [0.013, -0.039, -0.012]]) @ powers
    return mags


def measure(tool, folder, survey):
    """Magnitudes of SDSS's system, and their errors (band,)."""
    image = read_field(fields(folder)[f'spiral_{survey}'][0])
    found = tool(image)
    ny, nx = image.shape
    part = found.labels[ny // 2 - MIDDLE:ny // 2 + MIDDLE + 1,
                        nx // 2 - MIDDLE:nx // 2 + MIDDLE + 1]
    k = np.bincount(part[part > 0]).argmax() - 1
    at = [image.bands.index(band) for band in BANDS]
    flux, error = found.flux[at, k], found.error[at, k]
    mags = -2.5 * np.log10(flux) + [zero_point(folder, survey, band)
                                    for band in BANDS]
    return as_sdss(survey, mags), 2.5 / np.log(10) * error / flux


def main():
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('--model')
    parser.add_argument('--docs', type=Path)
    args = parse_with_data(parser)
    warnings.simplefilter('ignore')
    rows = []
    for name, tool in tools('scenes', args.model).items():
        found = {one: measure(tool, args.data, one) for one in SURVEYS}
        mags, errors = found['SDSS']
        rows.append([name, 'SDSS', *(f'{m:.3f} ± {e:.3f}' for m, e in zip(
            mags, errors))])
        for survey in SURVEYS[1:]:
            other, error = found[survey]
            rows.append([name, f'{survey} - SDSS', *(
                f'{m:+.3f} ± {np.hypot(e, s):.3f}' for m, e, s in zip(
                    other - mags, errors, error))])
    lines = list_table(['tool', 'survey', *BANDS], rows)
    print(*lines, sep='\n')
    if args.docs:
        (args.docs / 'spiral.txt').write_text(
            '.. python -m benchmarks.photometry.spiral\n\n'
            + '\n'.join(lines) + '\n')


if __name__ == '__main__':
    main()
