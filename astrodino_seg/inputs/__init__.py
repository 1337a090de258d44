# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
From an `~astrodino_seg.Image` to the planes of a network.

Names are imported at their first use (PEP 562).
"""

from astrodino_seg.lazy import attach

_HOME = {'PreprocessSpec': 'channels'}

__all__ = [*_HOME]
__getattr__, __dir__ = attach(__name__, _HOME)
