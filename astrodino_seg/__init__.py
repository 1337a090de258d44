# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Segmentation of astronomical images with a Vision Transformer.

Names are imported at their first use (PEP 562), so that importing the package
imports neither torch nor photutils nor matplotlib.
"""

from astrodino_seg.lazy import attach
from astrodino_seg.version import __version__

_HOME = {
    'AstroDinoUserWarning': 'errors',
    'AstroDinoWarning': 'errors',
    'BandWarning': 'errors',
    'DinoSegmenter': 'segmenter',
    'Image': 'image',
    'Model': 'models.instance',
    'ModelFileError': 'errors',
    'SegmentationResult': 'result',
    'as_image': 'image',
    'detect_sources': 'segmenter',
    'load_model': 'models.load',
}

__all__ = ['__version__', *_HOME]
__getattr__, __dir__ = attach(__name__, _HOME)
