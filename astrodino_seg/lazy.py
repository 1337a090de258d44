# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Faces whose names are imported at their first use (PEP 562).
"""

import sys
from importlib import import_module


def attach(package, homes):
    """``__getattr__`` and ``__dir__`` of a package, by the homes of names."""
    def get(name):
        if name not in homes:
            msg = f'module {package!r} has no attribute {name!r}'
            raise AttributeError(msg)
        value = getattr(import_module(f'{package}.{homes[name]}'), name)
        setattr(sys.modules[package], name, value)
        return value

    return get, lambda: sorted({*vars(sys.modules[package]), *homes})
