# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Networks: a Vision Transformer with the rule for its input, and the heads that
say something of every pixel.

Names are imported at their first use (PEP 562).
"""

from astrodino_seg.lazy import attach

_HOME = {
    'Backbone': 'backbone',
    'Model': 'instance',
    'SemanticModel': 'semantic',
    'load_backbone': 'load',
    'load_model': 'load',
}

__all__ = [*_HOME]
__getattr__, __dir__ = attach(__name__, _HOME)
