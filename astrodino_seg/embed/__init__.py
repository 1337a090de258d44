# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What a network says of images as a whole: vectors, attention, probes.
"""
