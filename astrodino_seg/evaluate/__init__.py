# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Measures, tables, and the traditional tools beside.

Names are imported at their first use (PEP 562).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    'baselines': ['available_finders'],
    'compare': ['compare_finders', 'comparison_table']})
