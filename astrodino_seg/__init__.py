# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Segmentation of astronomical images with a Vision Transformer.

Names are imported at their first use (PEP 562), so that importing the package
imports neither torch nor photutils nor matplotlib.
"""

from importlib import import_module

from astrodino_seg.version import __version__

_HOME = {
    'AstroDinoUserWarning': 'errors',
    'AstroDinoWarning': 'errors',
    'BandWarning': 'errors',
    'DinoSegmenter': 'segmenter',
    'Image': 'image',
    'Model': 'models.instance',
    'ModelFileError': 'errors',
    'SegmentationResult': 'segmenter',
    'as_image': 'image',
    'detect_sources': 'segmenter',
    'load_model': 'models.load',
}

__all__ = ['__version__', *_HOME]


def __getattr__(name):
    if name not in _HOME:
        msg = f'module {__name__!r} has no attribute {name!r}'
        raise AttributeError(msg)
    value = getattr(import_module(f'{__name__}.{_HOME[name]}'), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted(set(globals()) | set(__all__))
