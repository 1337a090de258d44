# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
A shim for tools that look for it; everything is in pyproject.toml.
"""

from setuptools import setup

setup()
