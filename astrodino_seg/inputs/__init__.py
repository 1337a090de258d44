# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
From an `~astrodino_seg.Image` to the planes of a network.

Names are imported at their first use (PEP 562).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    'channels': ['PreprocessSpec']})
