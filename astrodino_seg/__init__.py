# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Segmentation of astronomical images with a Vision Transformer.

Names are imported at their first use (PEP 562), so that importing the package
imports neither torch nor photutils nor matplotlib.
"""

from importlib import metadata

import lazy_loader

try:
    __version__ = metadata.version(__name__)
except metadata.PackageNotFoundError:       # a checkout on the path
    __version__ = 'unknown'

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    'errors': ['AstroDinoUserWarning', 'BandWarning', 'ModelFileError',
               'OutOfDomainWarning'],
    'image': ['Image', 'as_image'],
    'models.instance': ['Model'],
    'models.load': ['load_model'],
    'result': ['SegmentationResult'],
    'segmenter': ['DinoSegmenter', 'detect_sources']})
