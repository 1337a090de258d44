# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The version, read by the build without importing the package.
"""

__version__ = '0.1.dev0'
