# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Star, galaxy or artifact: how often the bundled model is right.

    python -m benchmarks.finders.classes [--scenes 24]

Objects of the validation split that are matched at IoU > 0.5, in bins of
their total S/N; and galaxies of S/N above 20 by their half-light radius in
units of the FWHM of the PSF, the mean over bands.
"""

import argparse

import numpy as np

from astrodino_seg.catalog import CLASS_NAMES
from astrodino_seg.evaluate.benchmark import split_scene
from astrodino_seg.evaluate.matching import match_labels
from astrodino_seg.segmenter import DinoSegmenter
from astrodino_seg.simulate import SceneLibrary


def main():
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--scenes', type=int, default=24)
    parser.add_argument('--cache', help='folder for rendered scenes')
    args = parser.parse_args()
    finder, rows = DinoSegmenter(), []
    library = SceneLibrary('validation', args.scenes, path=args.cache)
    for scene in range(args.scenes):
        image, truth = split_scene(library, scene)
        fwhm = library[scene].psf_fwhm.mean()
        result = finder.segment(image)
        match = match_labels(truth.labels, result.segmentation_image.data)
        row_of = {i: k for k, i in enumerate(truth.objects['id'])}
        for true, found in zip(match.truth, match.predicted):
            k = row_of[true]
            name = result.table['class'][found - 1]
            rows.append((truth.objects['cls'][k] - 1,
                         CLASS_NAMES.index(name), truth.objects['sn'][k],
                         truth.objects['re'][k] / fwhm))
    true, found, sn, size = np.array(rows).T
    for low, high in ((7, 20), (20, 60), (60, 300), (300, np.inf)):
        here = (sn >= low) & (sn < high)
        parts = [f'{name} {(found[here & (true == k)] == k).mean():.2f} of '
                 f'{(here & (true == k)).sum()}'
                 for k, name in enumerate(CLASS_NAMES)
                 if (here & (true == k)).any()]
        print(f'S/N {low} to {high}: right {", ".join(parts)}')
    bright = (sn >= 20) & (true == CLASS_NAMES.index('galaxy'))
    for low, high in ((0, .25), (.25, .5), (.5, 1), (1, np.inf)):
        here = bright & (size >= low) & (size < high)
        if here.any():
            print(f'galaxies of {low} to {high} FWHM: right '
                  f'{(found[here] == true[here]).mean():.3f} of {here.sum()}')
    known = (sn >= 20) & (true != CLASS_NAMES.index('artifact'))
    print(f'stars and galaxies of S/N above 20: right '
          f'{(found[known] == true[known]).mean():.3f} of {known.sum()}')


if __name__ == '__main__':
    main()
