# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Simulated scenes with exact truth. Needs GalSim (extra ``simulate``).
"""

from astrodino_seg.simulate.compose import make_scene
from astrodino_seg.simulate.observe import observe
from astrodino_seg.simulate.scene import CONDITIONS, CONTENT
from astrodino_seg.simulate.scene_library import SceneLibrary, StampLibrary

__all__ = ['SceneLibrary', 'StampLibrary', 'make_scene', 'observe']
