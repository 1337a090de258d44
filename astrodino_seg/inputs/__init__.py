# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
From an `~astrodino_seg.Image` to the planes of a network.
"""
