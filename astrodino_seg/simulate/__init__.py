# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Simulated scenes with exact truth. Needs GalSim (extra ``simulate``).
"""

from astrodino_seg.simulate.compose import make_scene
from astrodino_seg.simulate.galaxies import KINDS, resolved_galaxy
from astrodino_seg.simulate.observe import observe
from astrodino_seg.simulate.rates import CONDITIONS, CONTENT
from astrodino_seg.simulate.scene import Scene
from astrodino_seg.simulate.scene_library import SPLITS, SceneLibrary
from astrodino_seg.simulate.stamps import StampLibrary, build_stamps
from astrodino_seg.simulate.surveys import BAND_SETS
from astrodino_seg.truth import ISOPHOTE, Truth

__all__ = ['BAND_SETS', 'CONDITIONS', 'CONTENT', 'ISOPHOTE', 'KINDS',
           'SPLITS', 'Scene', 'SceneLibrary', 'StampLibrary', 'Truth',
           'build_stamps', 'make_scene', 'observe', 'resolved_galaxy']
