# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Networks: a Vision Transformer with the rule for its input, and the heads that
say something of every pixel.

Names are imported at their first use (PEP 562).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    'backbone': ['Backbone'],
    'instance': ['Model'],
    'load': ['load_backbone', 'load_model'],
    'semantic': ['SemanticModel']})
