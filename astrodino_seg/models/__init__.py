# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Networks: a Vision Transformer with the rule for its input, and the heads that
say something of every pixel.

Names are imported at their first use (PEP 562).
"""

from importlib import import_module

_HOME = {
    'Backbone': 'backbone',
    'Model': 'instance',
    'SemanticModel': 'semantic',
    'load_backbone': 'load',
    'load_model': 'load',
}

__all__ = [*_HOME]


def __getattr__(name):
    if name not in _HOME:
        msg = f'module {__name__!r} has no attribute {name!r}'
        raise AttributeError(msg)
    return getattr(import_module(f'{__name__}.{_HOME[name]}'), name)
