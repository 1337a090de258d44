# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Traditional tools as callables, `~astrodino_seg.Image` to
`~photutils.segmentation.SegmentationImage`, for comparison.

All of them look at the same detection image, the bands' S/N added up, and
differ only in what they do with it.
"""

from astrodino_seg.evaluate.baselines.detection import detection_image
from astrodino_seg.evaluate.baselines.extractor import (
    SEPFinder,
    SExtractorFinder,
)
from astrodino_seg.evaluate.baselines.mtobjects import MTObjectsFinder
from astrodino_seg.evaluate.baselines.noisechisel import NoiseChiselFinder
from astrodino_seg.evaluate.baselines.registry import (
    FINDERS,
    TUNED,
    available_finders,
)
from astrodino_seg.evaluate.baselines.threshold import PhotutilsFinder
from astrodino_seg.evaluate.baselines.watersheds import (
    PeakFinder,
    RegionFinder,
)

__all__ = ['FINDERS', 'TUNED', 'MTObjectsFinder', 'NoiseChiselFinder',
           'PeakFinder', 'PhotutilsFinder', 'RegionFinder', 'SEPFinder',
           'SExtractorFinder', 'available_finders', 'detection_image']
