# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What the package was measured with: a folder a question, each with a README.

Scripts are run from the root of the repository, as
``python -m benchmarks.speed.field``.
"""
