# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Measures, tables, and the traditional tools beside.

Names are imported at their first use (PEP 562).
"""

from astrodino_seg.lazy import attach

_HOME = {
    'FINDERS': 'baselines',
    'available_finders': 'baselines',
    'compare_finders': 'compare',
    'comparison_table': 'compare',
}

__all__ = [*_HOME]
__getattr__, __dir__ = attach(__name__, _HOME)
