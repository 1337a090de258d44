# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Traditional tools as callables, `~astrodino_seg.Image` to
`~photutils.segmentation.SegmentationImage`, for comparison.

All of them look at the same detection image, the bands' S/N added up, and
differ only in what they do with it.
"""

from functools import partial

from astrodino_seg.evaluate.baselines.base import detection_image
from astrodino_seg.evaluate.baselines.libraries import (
    PeakFinder,
    PhotutilsFinder,
    RegionFinder,
    SEPFinder,
)
from astrodino_seg.evaluate.baselines.programs import (
    MTObjectsFinder,
    NoiseChiselFinder,
    SExtractorFinder,
)

__all__ = ['FINDERS', 'available_finders']

#: Settings of best panoptic quality on the validation split, by
#: ``benchmarks/finders/tune_baselines.py``: of all settings of its grid, on 12
#: scenes.
TUNED = {
    'detect': {'n_sigma': 1.5, 'n_pixels': 20, 'fwhm': 3.0},
    'photutils': {'n_sigma': 1.5, 'n_pixels': 20, 'contrast': 0.1},
    'sep': {'n_sigma': 1.5, 'n_pixels': 15, 'contrast': 0.02, 'fwhm': 2.0},
    'peaks': {'detector': 'find_peaks', 'n_sigma': 1.5, 'n_pixels': 10,
              'min_separation': 10.0},
    'regions': {'n_sigma': 1.5, 'n_pixels': 30, 'saddle': 0.5,
                'prominence': 0.25},
    'sextractor': {'n_sigma': 1.5, 'n_pixels': 15, 'contrast': 0.005},
    'noisechisel': {'tile_size': 20, 'qthresh': 0.9, 'detgrowquant': 1.0,
                    'objbordersn': 0.1},
    'mtobjects': {'move_factor': 1.0, 'min_distance': 0.0, 'gain': 1.0},
}

_DEFAULT = {
    'detect': partial(PhotutilsFinder, deblend=False),
    'photutils': PhotutilsFinder,
    'sep': SEPFinder,
    'peaks': PeakFinder,
    'regions': RegionFinder,
    'sextractor': SExtractorFinder,
    'noisechisel': NoiseChiselFinder,
    'mtobjects': MTObjectsFinder,
}

#: By name, what makes a finder when called: the tools with their own
#: defaults, and with ``-tuned`` after the name with the settings of `TUNED`.
FINDERS = _DEFAULT | {f'{name}-tuned': partial(_DEFAULT[name], **settings)
                      for name, settings in TUNED.items()}


def available_finders():
    """
    The baselines that can be run here, and why others cannot.

    Returns
    -------
    finders : dict
        By name, a finder: what `FINDERS` makes.
    missing : dict
        By name, a sentence that says what is missing.
    """
    finders, missing = {}, {}
    for name, make in FINDERS.items():
        finder = make()
        try:
            finder.require()
        except ImportError as err:
            missing[name] = str(err)
        else:
            finders[name] = finder
    return finders, missing
