# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
From the network's maps to objects: levels, seeds, masks, one decision.
"""
