# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Networks: the model that tells objects apart at each level of a pyramid.
"""
