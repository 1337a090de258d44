# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Measures, tables, and the traditional tools beside.
"""
